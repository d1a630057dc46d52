//! Printing: on one line where it fits, else split at brackets the way `ruff format` does.

use super::expr::{Arg, Expr};

/// Longest line.
pub const WIDTH: usize = 120;

/// A statement `prefix expr` as lines, indented by `indent` columns.
pub fn statement(indent: usize, prefix: &str, expr: &Expr) -> Vec<String> {
    let pad = " ".repeat(indent);
    if let Expr::For(of) = expr {
        let mut lines = vec![format!("{pad}for {} in {}:", of.layer, of.over)];
        lines.extend(statement(indent + 4, prefix, &of.body));
        return lines;
    }
    let line = format!("{pad}{prefix}{expr}");
    if line.chars().count() <= WIDTH {
        return vec![line];
    }
    let repeated = match expr {
        Expr::Repeat(item, count) => Some(("*[", item, count)),
        Expr::List(items) => match items.as_slice() {
            [Expr::Repeat(item, count)] => Some(("[", item, count)),
            _ => None,
        },
        _ => None,
    };
    if let Some((open, item, count)) = repeated {
        let mut lines = vec![format!("{pad}{prefix}{open}")];
        lines.extend(statement(indent + 4, "", item));
        lines.push(format!("{pad}    {}", Rounds(item, count)));
        lines.push(format!("{pad}]"));
        return lines;
    }
    let Some((head, items, close)) = bracket(expr, indent + prefix.chars().count()) else {
        let mut lines = vec![format!("{pad}{prefix}(")];
        lines.extend(operands(indent + 4, expr));
        lines.push(format!("{pad})"));
        return lines;
    };
    let mut lines = vec![format!("{pad}{prefix}{head}")];
    let texts: Vec<String> = items.iter().map(|(name, value)| format!("{name}{value}")).collect();
    let together = format!("{pad}    {}", texts.join(", "));
    if together.chars().count() <= WIDTH {
        lines.push(together);
    } else {
        for (name, value) in &items {
            let mut inner = statement(indent + 4, name, value);
            if let Some(last) = inner.last_mut() {
                last.push(',');
            }
            lines.extend(inner);
        }
    }
    lines.push(format!("{pad}{close}"));
    lines
}

/// An expression in brackets of its own: on one line, else a line for each operand of its loosest operator.
fn operands(indent: usize, expr: &Expr) -> Vec<String> {
    let pad = " ".repeat(indent);
    let line = format!("{pad}{expr}");
    if let Expr::If(a, test, b) = expr
        && line.chars().count() > WIDTH
    {
        let mut lines = statement(indent, "", a);
        lines.push(format!("{pad}if {test}"));
        lines.extend(statement(indent, "else ", b));
        return lines;
    }
    if line.chars().count() <= WIDTH || !matches!(expr, Expr::Binary(..)) {
        return vec![line];
    }
    let own = precedence(expr);
    let mut parts = Vec::new();
    let mut at = expr;
    while let Expr::Binary(left, operator, right) = at {
        if precedence(at) != own {
            break;
        }
        parts.push((*operator, right.as_ref()));
        at = left.as_ref();
    }
    let bracketed = |part: &Expr, low: u8| if precedence(part) < low { format!("({part})") } else { part.to_string() };
    let mut lines = vec![format!("{pad}{}", bracketed(at, own))];
    lines.extend(parts.iter().rev().map(|(operator, part)| format!("{pad}{operator} {}", bracketed(part, own + 1))));
    lines
}

/// The head of a function, on one line, else with its arguments on a line or a line each.
pub fn signature(indent: usize, name: &str, args: &[String], returns: &str) -> Vec<String> {
    let pad = " ".repeat(indent);
    let line = format!("{pad}def {name}({}){returns}:", args.join(", "));
    if line.chars().count() <= WIDTH {
        return vec![line];
    }
    let together = format!("{pad}    {}", args.join(", "));
    let mut lines = vec![format!("{pad}def {name}(")];
    if together.chars().count() <= WIDTH {
        lines.push(together);
    } else {
        lines.extend(args.iter().map(|arg| format!("{pad}    {arg},")));
    }
    lines.push(format!("{pad}){returns}:"));
    lines
}

/// A statement with a comment behind it, or before it where the line would be too long.
pub fn noted(mut lines: Vec<String>, note: Option<&String>) -> Vec<String> {
    let Some(note) = note else { return lines };
    let note: String = note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let fits = |line: &&mut String| line.chars().count() + note.chars().count() + 4 <= WIDTH;
    match lines.last_mut().filter(fits) {
        Some(last) => *last = format!("{last}  # {note}"),
        None => {
            let first = lines.first().map_or("", String::as_str);
            let indent = first.len() - first.trim_start().len();
            lines.splice(0..0, comment(&format!("{}# ", " ".repeat(indent)), &note));
        }
    }
    lines
}

/// A comment or docstring paragraph as lines of at most [`WIDTH`] columns, each after `prefix`.
pub fn comment(prefix: &str, text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = prefix.to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() >= WIDTH && line != prefix {
            lines.push(line.trim_end().to_owned());
            line = prefix.to_owned();
        }
        line.push_str(word);
        line.push(' ');
    }
    lines.push(line.trim_end().to_owned());
    lines
}

type Items<'a> = Vec<(String, &'a Expr)>;

/// The last bracket of an expression: what comes before its content, the items, and what closes it. `before` columns of
/// the line are taken.
fn bracket(expr: &Expr, before: usize) -> Option<(String, Items<'_>, String)> {
    match expr {
        Expr::Call(function, args) => {
            let args = visible(args);
            if args.is_empty() {
                return None;
            }
            let head = format!("{}(", Callee(function));
            // layers.Conv2D(…)(x): what is too long is in the first brackets.
            if let Expr::Call(maker, settings) = function.as_ref()
                && before + head.chars().count() > WIDTH
                && !visible(settings).is_empty()
            {
                let call: Vec<String> = args.iter().map(|(name, value)| format!("{name}{value}")).collect();
                return Some((format!("{}(", Callee(maker)), visible(settings), format!(")({})", call.join(", "))));
            }
            // A single list or call takes the split itself only if it is the list of a call: torch.cat([…], dim=1).
            Some((head, args, ")".to_owned()))
        }
        // f(…)[:, 1:]: the index stays together behind the call.
        Expr::Index(value, index) if matches!(**value, Expr::Call(..)) => {
            let index: Vec<String> = index.iter().map(ToString::to_string).collect();
            let (head, items, tail) = bracket(value, before)?;
            Some((head, items, format!("{tail}[{}]", index.join(", "))))
        }
        Expr::List(items) => {
            Some(("[".to_owned(), items.iter().map(|item| (String::new(), item)).collect(), "]".to_owned()))
        }
        Expr::Tuple(items) => {
            Some(("(".to_owned(), items.iter().map(|item| (String::new(), item)).collect(), ")".to_owned()))
        }
        _ => None,
    }
}

/// The arguments that are printed, with their keywords where these are needed.
fn visible(args: &[Arg]) -> Items<'_> {
    let mut skipped = false;
    let mut items = Vec::new();
    for arg in args {
        if arg.is_default() {
            skipped = true;
            continue;
        }
        let keyword = match &arg.name {
            Some(name) if skipped || arg.keyword_only => {
                skipped = true;
                format!("{name}=")
            }
            _ => String::new(),
        };
        items.push((keyword, &arg.value));
    }
    items
}

/// What stands before a `.`, `(` or `[`: operators need brackets there.
struct Callee<'a>(&'a Expr);

impl std::fmt::Display for Callee<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Expr::Binary(..) | Expr::Prefix(..) | Expr::If(..) => write!(f, "({})", self.0),
            Expr::Slot(slot) if slot.value.to_string().starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                write!(f, "({})", self.0)
            }
            other => write!(f, "{other}"),
        }
    }
}

/// `item for i in range(count)`
struct Comprehension<'a>(&'a Expr, &'a Expr);

impl std::fmt::Display for Comprehension<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.0, Rounds(self.0, self.1))
    }
}

/// `for i in range(count)`; the index has a name where the item reads it.
struct Rounds<'a>(&'a Expr, &'a Expr);

impl std::fmt::Display for Rounds<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Rounds(item, count) = self;
        let reads =
            |e: &Expr| matches!(e, Expr::Name(name) if name == "i" || (name.starts_with('f') && name.contains("{i")));
        let index = if item.count(&reads) > 0 { "i" } else { "_" };
        write!(f, "for {index} in range({count})")
    }
}

fn is_simple(expr: &Expr) -> bool {
    match expr {
        Expr::Name(_) | Expr::Slot(_) => true,
        Expr::Attr(value, _) => is_simple(value),
        Expr::Prefix(_, value) => matches!(**value, Expr::Slot(_) | Expr::Name(_)),
        _ => false,
    }
}

fn precedence(expr: &Expr) -> u8 {
    match expr {
        Expr::Binary(_, op, _) => match *op {
            "or" | "and" => 0,
            "==" | "!=" | "<" | "<=" | ">" | ">=" => 1,
            "|" => 2,
            "^" => 3,
            "&" => 4,
            "+" | "-" => 6,
            "*" | "/" | "//" | "%" | "@" => 7,
            _ => 9,
        },
        Expr::Prefix(..) => 8,
        Expr::Slot(slot) if slot.value.to_string().starts_with('-') => 8,
        Expr::Range(..) | Expr::If(..) => 0,
        _ => 10,
    }
}

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |f: &mut std::fmt::Formatter<'_>, items: &[Expr]| {
            for (i, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
            }
            Ok(())
        };
        match self {
            Expr::Operand(i) => write!(f, "<operand {i}>"),
            Expr::Member(i) => write!(f, "<member {i}>"),
            Expr::Var(i) => write!(f, "<value {i}>"),
            Expr::Slot(slot) => write!(f, "{}", slot.value),
            Expr::Name(text) => f.write_str(text),
            Expr::Call(function, args) => {
                write!(f, "{}(", Callee(function))?;
                for (i, (keyword, value)) in visible(args).into_iter().enumerate() {
                    write!(f, "{}{keyword}{value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Expr::Attr(value, name) => write!(f, "{}.{name}", Callee(value)),
            Expr::Binary(a, op, b) => {
                let own = precedence(self);
                let side = |expr: &Expr, low: u8| {
                    if precedence(expr) < low { format!("({expr})") } else { expr.to_string() }
                };
                // `**` binds to the right, comparisons do not chain, the rest binds to the left.
                let (left, right) = match own {
                    9 => (own + 1, own),
                    1 => (own + 1, own + 1),
                    _ => (own, own + 1),
                };
                // `ruff format` writes powers of simple operands together.
                let space = if *op == "**" && is_simple(a) && is_simple(b) { "" } else { " " };
                write!(f, "{}{space}{op}{space}{}", side(a, left), side(b, right))
            }
            Expr::Prefix(op, value) => {
                if precedence(value) < 8 {
                    write!(f, "{op}({value})")
                } else {
                    write!(f, "{op}{value}")
                }
            }
            Expr::Index(value, items) => {
                write!(f, "{}[", Callee(value))?;
                list(f, items)?;
                f.write_str("]")
            }
            Expr::Range(a, b, c) => {
                if let Some(a) = a {
                    write!(f, "{a}")?;
                }
                f.write_str(":")?;
                if let Some(b) = b {
                    write!(f, "{b}")?;
                }
                if let Some(c) = c {
                    write!(f, ":{c}")?;
                }
                Ok(())
            }
            Expr::Tuple(items) => {
                f.write_str("(")?;
                list(f, items)?;
                f.write_str(if items.len() == 1 { ",)" } else { ")" })
            }
            Expr::List(items) => {
                f.write_str("[")?;
                match items.as_slice() {
                    [Expr::Repeat(item, count)] => write!(f, "{}", Comprehension(item, count))?,
                    items => list(f, items)?,
                }
                f.write_str("]")
            }
            Expr::For(of) => write!(f, "for {} in {}: {}", of.layer, of.over, of.body),
            Expr::If(a, test, b) => write!(f, "{a} if {test} else {b}"),
            Expr::Repeat(item, count) => write!(f, "*[{}]", Comprehension(item, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::expr::Lit;
    use super::*;

    #[test]
    fn defaults_are_left_out_and_what_follows_gets_its_keyword() {
        let call = |stride, padding| {
            Expr::call(
                "nn.Conv2d",
                vec![
                    Arg::new(Expr::int("in_channels", 3)),
                    Arg::or("stride", Expr::int("stride", stride), Lit::Int(1)),
                    Arg::or("padding", Expr::int("padding", padding), Lit::Int(0)),
                    Arg::keyword("bias", Expr::slot("bias", Lit::Bool(false)), Some(Lit::Bool(true))),
                ],
            )
            .to_string()
        };
        assert_eq!(call(1, 0), "nn.Conv2d(3, bias=False)");
        assert_eq!(call(2, 1), "nn.Conv2d(3, 2, 1, bias=False)");
        assert_eq!(call(1, 1), "nn.Conv2d(3, padding=1, bias=False)");
    }

    #[test]
    fn operators_get_the_brackets_they_need() {
        let [a, b, c] = ["a", "b", "c"].map(Expr::name);
        let sum = a.clone().binary("+", b.clone());
        assert_eq!(sum.clone().binary("*", c.clone()).to_string(), "(a + b) * c");
        assert_eq!(c.clone().binary("-", sum.clone()).to_string(), "c - (a + b)");
        assert_eq!(sum.clone().method("sum", vec![]).to_string(), "(a + b).sum()");
        assert_eq!(a.clone().binary("**", b.clone().binary("**", c)).to_string(), "a ** b**c");
        assert_eq!(Expr::Prefix("-", Box::new(sum)).to_string(), "-(a + b)");
    }

    #[test]
    fn long_calls_are_split_at_their_brackets() {
        let long =
            Expr::call("nn.Sequential", (0..9).map(|i| Arg::new(Expr::name(&format!("Block{i}(64)")))).collect());
        let lines = statement(8, "self.features = ", &long);
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        let longer =
            Expr::call("nn.Sequential", (0..20).map(|i| Arg::new(Expr::name(&format!("Block{i}(64)")))).collect());
        let lines = statement(8, "self.features = ", &longer);
        assert_eq!((lines.len(), lines[1].as_str()), (22, "            Block0(64),"));
    }
}
