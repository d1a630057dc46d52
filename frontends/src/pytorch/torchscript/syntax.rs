//! The Python subset in which TorchScript is saved: classes, functions and what they say.
//!
//! Files are what PyTorch's own printer writes (torch/csrc/jit/serialization/python_print.cpp): one statement a line,
//! blocks by indentation, brackets that go on over lines. Nesting is bounded, so that no file exhausts the stack.

use super::ast::{Class, Expr, Function, Module, Param, Stmt, StmtKind};
use super::tokens::{Token, tokens};

/// Deepest nesting of expressions or blocks.
const MAX_DEPTH: usize = 200;

/// Reads a file.
///
/// # Errors
/// One sentence: the line, and what was expected there.
pub fn parse(text: &str) -> Result<Module, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let mut module = Module::default();
    while *parser.peek() != Token::End {
        if parser.word("class") {
            module.classes.push(parser.class()?);
        } else if parser.word("def") {
            module.functions.push(parser.function()?);
        } else {
            // Imports and version marks of old files.
            parser.statement()?;
        }
    }
    Ok(module)
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
}

type Parsed<T> = Result<T, String>;
/// Arguments by position and by name.
type Arguments = (Vec<Expr>, Vec<(String, Expr)>);

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(_, line)| *line)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn fail<T>(&self, expected: &str) -> Parsed<T> {
        let found = match self.peek() {
            Token::Name(name) => name.clone(),
            Token::Op(op) => (*op).to_owned(),
            Token::Newline => "the end of the line".to_owned(),
            Token::Dedent => "the end of the block".to_owned(),
            Token::End => "the end of the file".to_owned(),
            token => format!("{token:?}"),
        };
        Err(format!("line {}: {expected} is expected, found {found}", self.line()))
    }

    /// Takes an operator if it is there.
    fn op(&mut self, op: &str) -> bool {
        let found = matches!(self.peek(), Token::Op(token) if *token == op);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, op: &str) -> Parsed<()> {
        if self.op(op) { Ok(()) } else { self.fail(&format!("{op:?}")) }
    }

    /// Takes a word if it is there.
    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Name(name) if name == word);
        self.at += usize::from(found);
        found
    }

    fn name(&mut self) -> Parsed<String> {
        match self.peek() {
            Token::Name(name) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => self.fail("a name"),
        }
    }

    fn newline(&mut self) -> Parsed<()> {
        match self.peek() {
            Token::Newline => {
                self.at += 1;
                Ok(())
            }
            _ => self.fail("the end of the line"),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= MAX_DEPTH {
            return Err(format!("line {}: nested deeper than {MAX_DEPTH}", self.line()));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn class(&mut self) -> Parsed<Class> {
        let mut class = Class { name: self.name()?, ..Class::default() };
        if self.op("(") && !self.op(")") {
            class.base = self.expr()?.path().unwrap_or_default();
            self.expect(")")?;
        }
        self.expect(":")?;
        self.newline()?;
        if *self.peek() != Token::Indent {
            return self.fail("the content of the class");
        }
        self.at += 1;
        while *self.peek() != Token::Dedent && *self.peek() != Token::End {
            if self.word("def") {
                class.methods.push(self.function()?);
                continue;
            }
            if self.word("pass") {
                self.newline()?;
                continue;
            }
            self.field(&mut class)?;
        }
        self.at += 1;
        Ok(class)
    }

    /// `name : type`, `__parameters__ = [...]`, `__annotations__["0"] = type`.
    fn field(&mut self, class: &mut Class) -> Parsed<()> {
        let target = self.expr()?;
        let kind = if self.op(":") { Some(self.expr()?) } else { None };
        let value = if self.op("=") { Some(self.expr()?) } else { None };
        self.newline()?;
        match (&target, kind, value) {
            (Expr::Name(name), None, Some(Expr::List(names))) if name.starts_with("__") => {
                let names = names.into_iter().filter_map(|name| match name {
                    Expr::Str(name) => Some(name),
                    _ => None,
                });
                match name.as_str() {
                    "__parameters__" => class.parameters.extend(names),
                    "__buffers__" => class.buffers.extend(names),
                    _ => {}
                }
            }
            (Expr::Name(name), Some(_), value) => class.fields.push((name.clone(), value)),
            (Expr::Index(_, name), None, Some(_)) => {
                if let Expr::Str(name) = &**name {
                    class.fields.push((name.clone(), None));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn function(&mut self) -> Parsed<Function> {
        let name = self.name()?;
        self.expect("(")?;
        let mut params = Vec::new();
        while !self.op(")") {
            let name = self.name()?;
            let kind = if self.op(":") { self.expr()?.to_string() } else { String::new() };
            let default = if self.op("=") { Some(self.expr()?) } else { None };
            params.push(Param { name, kind, default });
            if !self.op(",") {
                self.expect(")")?;
                break;
            }
        }
        if self.op("->") {
            self.expr()?;
        }
        Ok(Function { name, params, body: self.block()? })
    }

    fn block(&mut self) -> Parsed<Vec<Stmt>> {
        self.deeper(|parser| {
            parser.expect(":")?;
            parser.newline()?;
            if *parser.peek() != Token::Indent {
                return parser.fail("an indented block");
            }
            parser.at += 1;
            let mut body = Vec::new();
            while *parser.peek() != Token::Dedent && *parser.peek() != Token::End {
                body.push(parser.statement()?);
            }
            parser.at += 1;
            Ok(body)
        })
    }

    fn statement(&mut self) -> Parsed<Stmt> {
        let line = self.line();
        let kind = if self.word("if") {
            self.conditional()?
        } else if self.word("for") {
            // `a in x` is a comparison elsewhere.
            let mut targets = vec![self.unary()?];
            while self.op(",") {
                if matches!(self.peek(), Token::Name(name) if name == "in") {
                    break;
                }
                targets.push(self.unary()?);
            }
            if !self.word("in") {
                return self.fail("\"in\"");
            }
            let target = match (targets.len(), targets.pop()) {
                (1, Some(target)) => target,
                (_, last) => Expr::Tuple(targets.into_iter().chain(last).collect()),
            };
            let over = self.expr()?;
            StmtKind::For(target, over, self.block()?)
        } else if self.word("while") {
            let condition = self.expr()?;
            StmtKind::While(condition, self.block()?)
        } else {
            let kind = self.simple()?;
            self.newline()?;
            kind
        };
        Ok(Stmt { line, kind })
    }

    fn conditional(&mut self) -> Parsed<StmtKind> {
        self.deeper(|parser| {
            let condition = parser.expr()?;
            let then = parser.block()?;
            let line = parser.line();
            let other = if parser.word("elif") {
                vec![Stmt { line, kind: parser.conditional()? }]
            } else if parser.word("else") {
                parser.block()?
            } else {
                Vec::new()
            };
            Ok(StmtKind::If(condition, then, other))
        })
    }

    fn simple(&mut self) -> Parsed<StmtKind> {
        for (word, kind) in [("pass", StmtKind::Pass), ("break", StmtKind::Break), ("continue", StmtKind::Continue)] {
            if self.word(word) {
                return Ok(kind);
            }
        }
        if self.word("import") || self.word("from") || self.word("op_version_set") {
            while *self.peek() != Token::Newline && *self.peek() != Token::End {
                self.at += 1;
            }
            return Ok(StmtKind::Pass);
        }
        if self.word("return") {
            let value = if *self.peek() == Token::Newline { None } else { Some(self.targets()?) };
            return Ok(StmtKind::Return(value));
        }
        let first = self.targets()?;
        if self.op(":") {
            self.expr()?;
            if !self.op("=") {
                return Ok(StmtKind::Pass);
            }
            return Ok(StmtKind::Assign(vec![first], self.targets()?));
        }
        for (sign, op) in [("+=", "+"), ("-=", "-"), ("*=", "*"), ("/=", "/"), ("//=", "//"), ("**=", "**")] {
            if self.op(sign) {
                return Ok(StmtKind::Update(first, op, self.targets()?));
            }
        }
        let mut targets = vec![first];
        while self.op("=") {
            targets.push(self.targets()?);
        }
        let value = targets.pop().unwrap_or(Expr::None);
        match targets.is_empty() {
            true => Ok(StmtKind::Expr(value)),
            false => Ok(StmtKind::Assign(targets, value)),
        }
    }

    /// One expression, or several with commas: a tuple.
    fn targets(&mut self) -> Parsed<Expr> {
        let first = self.expr()?;
        if !matches!(self.peek(), Token::Op(",")) {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.op(",") {
            if matches!(self.peek(), Token::Op("=") | Token::Newline) {
                break;
            }
            items.push(self.expr()?);
        }
        Ok(Expr::Tuple(items))
    }

    fn expr(&mut self) -> Parsed<Expr> {
        self.deeper(|parser| {
            let value = parser.binary(0)?;
            if !parser.word("if") {
                return Ok(value);
            }
            let condition = parser.binary(0)?;
            if !parser.word("else") {
                return parser.fail("\"else\"");
            }
            let other = parser.expr()?;
            Ok(Expr::Choice(Box::new(condition), Box::new(value), Box::new(other)))
        })
    }

    /// The binary operator that comes next, with its strength and its length in tokens.
    fn operator(&self) -> Option<(&'static str, u8, usize)> {
        let second = |word: &str| matches!(self.tokens.get(self.at + 1), Some((Token::Name(name), _)) if name == word);
        Some(match self.peek() {
            Token::Name(name) => match name.as_str() {
                "or" => ("or", 1, 1),
                "and" => ("and", 2, 1),
                "is" if second("not") => ("is not", 4, 2),
                "is" => ("is", 4, 1),
                "not" if second("in") => ("not in", 4, 2),
                "in" => ("in", 4, 1),
                _ => return None,
            },
            Token::Op(op) => match *op {
                op @ ("==" | "!=" | "<" | ">" | "<=" | ">=") => (op, 4, 1),
                "|" => ("|", 5, 1),
                "^" => ("^", 6, 1),
                "&" => ("&", 7, 1),
                op @ ("<<" | ">>") => (op, 8, 1),
                op @ ("+" | "-") => (op, 9, 1),
                op @ ("*" | "/" | "//" | "%" | "@") => (op, 10, 1),
                "**" => ("**", 12, 1),
                _ => return None,
            },
            _ => return None,
        })
    }

    fn binary(&mut self, least: u8) -> Parsed<Expr> {
        let mut left = self.unary()?;
        // A long chain is as deep as it is long.
        let mut links = 0;
        while let Some((op, strength, length)) = self.operator().filter(|(_, strength, _)| *strength >= least) {
            links += 1;
            if links > MAX_DEPTH {
                return Err(format!("line {}: nested deeper than {MAX_DEPTH}", self.line()));
            }
            self.at += length;
            let right = self.deeper(|parser| parser.binary(if op == "**" { strength } else { strength + 1 }))?;
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        for (sign, op, strength) in [("-", "-", 11), ("~", "~", 11), ("+", "+", 11)] {
            if self.op(sign) {
                let of = self.deeper(|parser| parser.binary(strength))?;
                return Ok(match (op, of) {
                    ("-", Expr::Int(value)) => Expr::Int(value.wrapping_neg()),
                    ("-", Expr::Float(value)) => Expr::Float(-value),
                    (op, of) => Expr::Unary(op, Box::new(of)),
                });
            }
        }
        if self.word("not") {
            return Ok(Expr::Unary("not", Box::new(self.deeper(|parser| parser.binary(3))?)));
        }
        let mut value = self.atom()?;
        // A chain of calls nests as deep as it is long, so it counts as depth: the value is dropped recursively.
        let mut length = 0;
        loop {
            length += 1;
            if length > MAX_DEPTH {
                return Err(format!("line {}: nested deeper than {MAX_DEPTH}", self.line()));
            }
            if self.op(".") {
                value = Expr::Attr(Box::new(value), self.name()?);
            } else if self.op("(") {
                let (args, kwargs) = self.arguments()?;
                value = Expr::Call(Box::new(value), args, kwargs);
            } else if self.op("[") {
                value = self.subscript(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn subscript(&mut self, of: Expr) -> Parsed<Expr> {
        let of = Box::new(of);
        let from = if matches!(self.peek(), Token::Op(":")) { None } else { Some(Box::new(self.targets()?)) };
        if self.op(":") {
            let to = if matches!(self.peek(), Token::Op("]")) { None } else { Some(Box::new(self.expr()?)) };
            self.expect("]")?;
            return Ok(Expr::Slice(of, from, to));
        }
        self.expect("]")?;
        match from {
            Some(at) => Ok(Expr::Index(of, at)),
            None => self.fail("an index"),
        }
    }

    fn arguments(&mut self) -> Parsed<Arguments> {
        let (mut args, mut kwargs) = (Vec::new(), Vec::new());
        while !self.op(")") {
            let value = self.expr()?;
            match value {
                Expr::Name(name) if self.op("=") => kwargs.push((name, self.expr()?)),
                value => args.push(value),
            }
            if !self.op(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok((args, kwargs))
    }

    /// Items up to a closing bracket, and whether a comma was among them.
    fn items(&mut self, end: &str) -> Parsed<(Vec<Expr>, bool)> {
        let (mut items, mut comma) = (Vec::new(), false);
        while !self.op(end) {
            items.push(self.expr()?);
            if !self.op(",") {
                self.expect(end)?;
                break;
            }
            comma = true;
        }
        Ok((items, comma))
    }

    fn atom(&mut self) -> Parsed<Expr> {
        let at = self.at;
        Ok(match self.next() {
            Token::Name(name) => match name.as_str() {
                "None" => Expr::None,
                "True" => Expr::Bool(true),
                "False" => Expr::Bool(false),
                "inf" => Expr::Float(f64::INFINITY),
                "nan" => Expr::Float(f64::NAN),
                _ => Expr::Name(name),
            },
            Token::Int(value) => Expr::Int(value),
            Token::Float(value) => Expr::Float(value),
            Token::Str(mut value) => {
                while let Token::Str(more) = self.peek() {
                    value.push_str(more);
                    self.at += 1;
                }
                Expr::Str(value)
            }
            Token::Op("[") => Expr::List(self.items("]")?.0),
            Token::Op("(") => {
                let (mut items, comma) = self.items(")")?;
                match (items.len(), comma) {
                    (1, false) => items.pop().unwrap_or(Expr::None),
                    _ => Expr::Tuple(items),
                }
            }
            Token::Op("{") => {
                let mut items = Vec::new();
                while !self.op("}") {
                    let key = self.expr()?;
                    self.expect(":")?;
                    items.push((key, self.expr()?));
                    if !self.op(",") {
                        self.expect("}")?;
                        break;
                    }
                }
                Expr::Dict(items)
            }
            _ => {
                self.at = at;
                return self.fail("an expression");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn expr(text: &str) -> String {
        let module = parse(&format!("def f(x):\n  return {text}\n")).unwrap();
        match &module.functions[0].body[0].kind {
            StmtKind::Return(Some(value)) => value.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn expressions() {
        for text in [
            "torch._convolution(x, self.weight, None, [2, 2], False, 1e-5)",
            "(a).forward((b).forward(x, ), )",
            "x[0]",
            "getattr(self, \"0\")",
            "CONSTANTS.c0",
            "{\"a\": b, \"c\": d}",
            "annotate(List[int], [])",
        ] {
            let plain = text.replace(", )", ")").replace("(a)", "a").replace("(b)", "b");
            assert_eq!(expr(text).replace("1e-05", "1e-5"), plain);
        }
        assert_eq!(expr("-1 + 2 * x ** 2"), "(-1 + (2 * (x ** 2)))");
        assert_eq!(expr("not a is None and b"), "(not (a is None) and b)");
        assert_eq!(expr("1.0000000000000001e-05"), "1e-5");
        assert_eq!(expr("-inf"), "-inf");
        assert_eq!(expr("9.9999999999999998e-13"), "1e-12");
        assert_eq!(expr(r"'it\'s \101\n'"), r#""it's A\n""#);
        assert_eq!(expr("a if b else c"), "(a if b else c)");
    }

    #[test]
    fn classes_and_statements() {
        let text = concat!(
            "class Net(Module):\n",
            "  __parameters__ = [\"weight\", ]\n",
            "  __buffers__ = []\n",
            "  weight : Tensor\n",
            "  __annotations__[\"0\"] = __torch__.torch.nn.Conv2d\n",
            "  def forward(self: __torch__.Net,\n",
            "    x: Tensor,\n",
            "    y: Optional[Tensor]=None) -> Tuple[Tensor, Tensor]:\n",
            "    a, b, = torch.chunk(x, 2)\n",
            "    c : Optional[int] = None\n",
            "    if torch.gt(a, 1):\n",
            "      pass\n",
            "    else:\n",
            "      for _0, a1 in range(torch.len(x)):\n",
            "        a0 = b\n",
            "    return (a, b)\n",
            "def g(x: int=1) -> int:\n",
            "  return x\n",
        );
        let module = parse(text).unwrap();
        let class = &module.classes[0];
        assert_eq!((class.name.as_str(), class.base.as_str()), ("Net", "Module"));
        assert_eq!(class.parameters, ["weight"]);
        assert_eq!(class.fields.iter().map(|field| field.0.as_str()).collect::<Vec<_>>(), ["weight", "0"]);
        let forward = &class.methods[0];
        assert_eq!(forward.params[2].default, Some(Expr::None));
        assert_eq!(forward.body.len(), 4);
        assert!(matches!(&forward.body[0].kind, StmtKind::Assign(targets, _) if targets[0].to_string() == "(a, b)"));
        assert_eq!(module.functions[0].name, "g");
    }

    #[test]
    fn errors_say_the_line() {
        assert_eq!(
            parse("def f(x):\n  a = (1,\n").unwrap_err(),
            "line 2: an expression is expected, found the end of the block"
        );
        assert!(parse(&format!("def f(x):\n  return {}x{}\n", "(".repeat(5000), ")".repeat(5000))).is_err());
        assert!(parse(&format!("def f(x):\n  return {}x\n", "-".repeat(5000))).is_err());
        assert!(parse(&format!("def f(x):\n  return x{}\n", ".a".repeat(100_000))).is_err());
    }

    #[test]
    fn damaged_code_is_an_error_or_other_code() {
        let text = "class Net(Module):\n  weight : Tensor\n  def forward(self: Net,\n    x: Tensor) -> Tensor:\n    \
                    a, b, = torch.chunk(x, 2, 1.5e-3)\n    if torch.gt(a, 1):\n      c = {\"k\": [a, (b,)]}\n    return -a[0].x\n";
        let mut seed = 7u64;
        for _ in 0..3000 {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let place = (seed >> 33) as usize % bytes.len();
                bytes[place] = [b'(', b'"', b'\\', b' ', b'\n', b':', b'.', b'9', 0xc3][(seed >> 20) as usize % 9];
            }
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
