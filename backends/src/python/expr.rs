//! Expressions with slots: places of literals that may become arguments of a class.

use std::fmt;

/// A literal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lit {
    /// `None`
    None,
    /// `True`, `False`
    Bool(bool),
    /// `7`
    Int(i64),
    /// A float32 by its bits, printed in the shortest form that reads back.
    Float(u32),
    /// `"same"`
    Str(String),
    /// `(1, 7)`
    Tuple(Vec<Lit>),
    /// `[1, 7]`
    List(Vec<Lit>),
    /// A module, by what makes it.
    Module(Box<Expr>),
    /// Whatever is given to others: nothing reads it.
    Any,
}

impl Lit {
    /// A float.
    pub fn float(value: f32) -> Lit {
        Lit::Float(value.to_bits())
    }

    /// Its type in annotations; none for what says nothing about others in its place.
    pub fn python_type(&self) -> Option<String> {
        Some(match self {
            Lit::Bool(_) => "bool".to_owned(),
            Lit::Int(_) => "int".to_owned(),
            Lit::Float(_) => "float".to_owned(),
            Lit::Str(_) => "str".to_owned(),
            Lit::Tuple(items) => {
                let items: Option<Vec<String>> = items.iter().map(Lit::python_type).collect();
                format!("tuple[{}]", items?.join(", "))
            }
            Lit::None | Lit::List(_) | Lit::Module(_) | Lit::Any => return None,
        })
    }

    /// A size.
    pub fn size(value: usize) -> Lit {
        Lit::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// One number where all are equal, else a tuple: `3`, `(1, 7)`.
    pub fn sizes(values: &[usize]) -> Lit {
        match values {
            [first, rest @ ..] if rest.iter().all(|v| v == first) => Lit::size(*first),
            _ => Lit::Tuple(values.iter().copied().map(Lit::size).collect()),
        }
    }

    /// Always a tuple.
    pub fn tuple(values: &[usize]) -> Lit {
        Lit::Tuple(values.iter().copied().map(Lit::size).collect())
    }
}

/// Fewest numbers that count up and are written as a range.
const SHORTEST_RANGE: usize = 8;

impl fmt::Display for Lit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Lit]| {
            for (i, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
            }
            Ok(())
        };
        match self {
            Lit::None => f.write_str("None"),
            Lit::Bool(true) => f.write_str("True"),
            Lit::Bool(false) => f.write_str("False"),
            Lit::Int(value) => write!(f, "{value}"),
            Lit::Float(bits) => f.write_str(&float(f32::from_bits(*bits))),
            Lit::Str(text) => {
                f.write_str("\"")?;
                for c in text.chars() {
                    match c {
                        '"' | '\\' => write!(f, "\\{c}")?,
                        c if c.is_control() => write!(f, "\\x{:02x}", c as u32)?,
                        c => write!(f, "{c}")?,
                    }
                }
                f.write_str("\"")
            }
            Lit::Tuple(items) => {
                f.write_str("(")?;
                list(f, items)?;
                f.write_str(if items.len() == 1 { ",)" } else { ")" })
            }
            Lit::List(items) => {
                f.write_str("[")?;
                counted(f, items)?;
                f.write_str("]")
            }
            Lit::Module(ctor) => write!(f, "{ctor}"),
            Lit::Any => f.write_str("None"),
        }
    }
}

/// Items of a list; whole numbers that count up are a range: `1, *range(40), 38`.
fn counted(f: &mut fmt::Formatter<'_>, items: &[Lit]) -> fmt::Result {
    let mut rest = items;
    while let Some(first) = rest.first() {
        if rest.len() < items.len() {
            f.write_str(", ")?;
        }
        let run = match first {
            Lit::Int(start) => rest.iter().zip(*start..).take_while(|(item, n)| **item == Lit::Int(*n)).count(),
            _ => 1,
        };
        match first {
            Lit::Int(0) if run >= SHORTEST_RANGE => write!(f, "*range({run})")?,
            Lit::Int(start) if run >= SHORTEST_RANGE => write!(f, "*range({start}, {})", start + run as i64)?,
            _ => write!(f, "{first}")?,
        }
        rest = &rest[if run >= SHORTEST_RANGE { run } else { 1 }..];
    }
    Ok(())
}

/// The shortest Python literal that is this float32 again.
fn float(value: f32) -> String {
    if value.is_nan() {
        return "float(\"nan\")".to_owned();
    }
    if value.is_infinite() {
        return format!("float(\"{}inf\")", if value < 0.0 { "-" } else { "" });
    }
    let magnitude = value.abs();
    // Shortened it is larger than what the element type can hold, which frameworks refuse.
    if magnitude == f32::MAX {
        return format!("{:e}", f64::from(value));
    }
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        return format!("{value:e}");
    }
    format!("{value:?}")
}

/// A literal in an expression, and what it means there: `in_channels`, `kernel_size`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The literal.
    pub value: Lit,
    /// Its meaning; the name of the argument that it may become.
    pub role: String,
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arg {
    /// Its keyword; printed when an earlier argument was left out, or always if `keyword_only`.
    pub name: Option<String>,
    /// Whether it is always printed with its keyword.
    pub keyword_only: bool,
    /// The value.
    pub value: Expr,
    /// Left out when the value is this literal.
    pub default: Option<Lit>,
}

/// A loop over modules.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loop {
    /// The module of a round.
    pub layer: Expr,
    /// What it is taken from.
    pub over: Expr,
    /// What is done with it.
    pub body: Expr,
    /// What of the body each round gives to the next.
    pub passed: Option<Expr>,
}

/// The module of a round in a loop, until it has a name.
pub const LOOPED: &str = "<layer>";

/// An expression. `Operand` and `Member` are filled in by the planner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expr {
    /// An operand of the item, by number.
    Operand(usize),
    /// A member of the item (`self.…`), by number.
    Member(usize),
    /// A value of the function being printed, by number.
    Var(usize),
    /// A literal.
    Slot(Slot),
    /// A name or anything else that is printed as it is: `F.relu`, `torch.float32`, `:`.
    Name(String),
    /// `f(a, b=c)`
    Call(Box<Expr>, Vec<Arg>),
    /// `a.b`
    Attr(Box<Expr>, String),
    /// `a + b`
    Binary(Box<Expr>, &'static str, Box<Expr>),
    /// `-a`
    Prefix(&'static str, Box<Expr>),
    /// `a[b, c]`
    Index(Box<Expr>, Vec<Expr>),
    /// `a:b:c` in an index.
    Range(Option<Box<Expr>>, Option<Box<Expr>>, Option<Box<Expr>>),
    /// `(a, b)`
    Tuple(Vec<Expr>),
    /// `[a, b]`
    List(Vec<Expr>),
    /// `*[a for _ in range(n)]`
    Repeat(Box<Expr>, Box<Expr>),
    /// A statement: `for layer in over: body`.
    For(Box<Loop>),
    /// `a if test else b`, as (a, test, b).
    If(Box<Expr>, Box<Expr>, Box<Expr>),
}

impl Expr {
    /// A name or anything else that is printed as it is.
    pub fn name(text: &str) -> Expr {
        Expr::Name(text.to_owned())
    }

    /// A literal with a meaning.
    pub fn slot(role: &str, value: Lit) -> Expr {
        Expr::Slot(Slot { value, role: role.to_owned() })
    }

    /// A whole number with a meaning.
    pub fn int(role: &str, value: usize) -> Expr {
        Expr::slot(role, Lit::size(value))
    }

    /// A call of a named function.
    pub fn call(function: &str, args: Vec<Arg>) -> Expr {
        Expr::Call(Box::new(Expr::name(function)), args)
    }

    /// A call of a method on this value.
    #[must_use]
    pub fn method(self, name: &str, args: Vec<Arg>) -> Expr {
        Expr::Call(Box::new(Expr::Attr(Box::new(self), name.to_owned())), args)
    }

    /// An operator between two values.
    #[must_use]
    pub fn binary(self, operator: &'static str, other: Expr) -> Expr {
        Expr::Binary(Box::new(self), operator, Box::new(other))
    }

    /// `self[items]`
    #[must_use]
    pub fn index(self, items: Vec<Expr>) -> Expr {
        Expr::Index(Box::new(self), items)
    }

    /// Visits all slots in order.
    pub fn slots<'a>(&'a self, visit: &mut dyn FnMut(&'a Slot)) {
        if let Expr::Slot(slot) = self {
            visit(slot);
        }
        self.children(&mut |child| child.slots(visit));
    }

    /// The expression with every slot replaced, in order.
    pub fn map_slots(&self, map: &mut dyn FnMut(&Slot) -> Expr) -> Expr {
        self.rewrite(&mut |expr| match expr {
            Expr::Slot(slot) => Some(map(slot)),
            _ => None,
        })
    }

    /// The expression with parts replaced where `map` says so (from the outside in).
    pub fn rewrite(&self, map: &mut dyn FnMut(&Expr) -> Option<Expr>) -> Expr {
        if let Some(new) = map(self) {
            return new;
        }
        let mut one = |expr: &Expr| Box::new(expr.rewrite(map));
        match self {
            Expr::Call(function, args) => {
                let function = one(function);
                let args = args.iter().map(|arg| Arg { value: arg.value.rewrite(map), ..arg.clone() }).collect();
                Expr::Call(function, args)
            }
            Expr::Attr(value, name) => Expr::Attr(one(value), name.clone()),
            Expr::Binary(a, op, b) => Expr::Binary(one(a), op, one(b)),
            Expr::Prefix(op, a) => Expr::Prefix(op, one(a)),
            Expr::Index(a, items) => {
                let a = one(a);
                Expr::Index(a, items.iter().map(|item| item.rewrite(map)).collect())
            }
            Expr::Range(a, b, c) => {
                let mut part = |part: &Option<Box<Expr>>| part.as_ref().map(|expr| Box::new(expr.rewrite(map)));
                Expr::Range(part(a), part(b), part(c))
            }
            Expr::Tuple(items) => Expr::Tuple(items.iter().map(|item| item.rewrite(map)).collect()),
            Expr::List(items) => Expr::List(items.iter().map(|item| item.rewrite(map)).collect()),
            Expr::Repeat(item, count) => {
                let item = one(item);
                Expr::Repeat(item, one(count))
            }
            Expr::For(of) => {
                let (layer, over) = (of.layer.rewrite(map), of.over.rewrite(map));
                let (body, passed) = (of.body.rewrite(map), of.passed.as_ref().map(|passed| passed.rewrite(map)));
                Expr::For(Box::new(Loop { layer, over, body, passed }))
            }
            Expr::If(a, test, b) => {
                let (a, test) = (one(a), one(test));
                Expr::If(a, test, one(b))
            }
            leaf => leaf.clone(),
        }
    }

    /// How often a part for which `test` holds occurs.
    pub fn count(&self, test: &dyn Fn(&Expr) -> bool) -> usize {
        let mut n = usize::from(test(self));
        self.children(&mut |child| n += child.count(test));
        n
    }

    /// Visits the expression and all its parts.
    pub fn visit<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        visit(self);
        self.children(&mut |child| child.visit(visit));
    }

    fn children<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        match self {
            Expr::Call(function, args) => {
                visit(function);
                args.iter().for_each(|arg| visit(&arg.value));
            }
            Expr::Attr(value, _) | Expr::Prefix(_, value) => visit(value),
            Expr::Binary(a, _, b) | Expr::Repeat(a, b) => {
                visit(a);
                visit(b);
            }
            Expr::Index(value, items) => {
                visit(value);
                items.iter().for_each(visit);
            }
            Expr::Range(a, b, c) => [a, b, c].into_iter().flatten().for_each(|part| visit(part)),
            Expr::For(of) => [&of.over, &of.body].into_iter().for_each(visit),
            Expr::If(a, test, b) => [a, test, b].into_iter().for_each(|part| visit(part)),
            Expr::Tuple(items) | Expr::List(items) => items.iter().for_each(visit),
            Expr::Operand(_) | Expr::Member(_) | Expr::Var(_) | Expr::Slot(_) | Expr::Name(_) => {}
        }
    }
}

impl Arg {
    /// A positional argument.
    pub fn new(value: Expr) -> Arg {
        Arg { name: None, keyword_only: false, value, default: None }
    }

    /// An argument that may be given by position or keyword, and is left out when it is the default.
    pub fn or(name: &str, value: Expr, default: Lit) -> Arg {
        Arg { name: Some(name.to_owned()), keyword_only: false, value, default: Some(default) }
    }

    /// An argument that is always given by keyword, and left out when it is the default.
    pub fn keyword(name: &str, value: Expr, default: Option<Lit>) -> Arg {
        Arg { name: Some(name.to_owned()), keyword_only: true, value, default }
    }

    /// Whether it is left out.
    pub fn is_default(&self) -> bool {
        let (Expr::Slot(slot), Some(default)) = (&self.value, &self.default) else { return false };
        slot.value == *default || slot.value == Lit::Any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_shortest() {
        let cases = [(0.001, "0.001"), (1e-5, "1e-5"), (0.0, "0.0"), (1.0, "1.0"), (-0.5, "-0.5"), (3e20, "3e20")];
        for (value, text) in cases {
            assert_eq!(Lit::float(value).to_string(), text);
        }
        assert_eq!(Lit::float(f32::MIN).to_string(), "-3.4028234663852886e38");
        assert_eq!(Lit::float(f32::NEG_INFINITY).to_string(), "float(\"-inf\")");
    }

    #[test]
    fn sizes_are_one_number_where_they_are_equal() {
        assert_eq!(Lit::sizes(&[3, 3]).to_string(), "3");
        assert_eq!(Lit::sizes(&[1, 7]).to_string(), "(1, 7)");
        assert_eq!(Lit::tuple(&[4]).to_string(), "(4,)");
    }
}
