//! What TorchScript's code says: files, classes, functions, statements, expressions.

use std::fmt;

/// How long the text of an expression may be in a message.
const MAX_SHOWN: usize = 120;

/// A file: its functions and classes.
#[derive(Debug, Default)]
pub struct Module {
    /// Functions outside of classes.
    pub functions: Vec<Function>,
    /// Classes.
    pub classes: Vec<Class>,
}

/// A class: what it keeps and what it can do.
#[derive(Debug, Default)]
pub struct Class {
    /// Its name, without that of its file.
    pub name: String,
    /// What it is derived from: `Module`, `NamedTuple`, or nothing.
    pub base: String,
    /// Names of its parameters.
    pub parameters: Vec<String>,
    /// Names of its buffers.
    pub buffers: Vec<String>,
    /// Its fields in order, with defaults.
    pub fields: Vec<(String, Option<Expr>)>,
    /// Its methods.
    pub methods: Vec<Function>,
}

/// A function or method.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its parameters in order, `self` included, with types and defaults.
    pub params: Vec<Param>,
    /// What it does.
    pub body: Vec<Stmt>,
}

/// A parameter of a function.
#[derive(Debug)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type, as it is written.
    pub kind: String,
    /// What it is when it is not given.
    pub default: Option<Expr>,
}

/// A statement, and the line on which it begins.
#[derive(Debug)]
pub struct Stmt {
    /// Line, from 1.
    pub line: usize,
    /// What it does.
    pub kind: StmtKind,
}

/// Kinds of statements.
#[derive(Debug)]
pub enum StmtKind {
    /// `a = x`, `a, b, = x`: the targets are all that stands before the sign.
    Assign(Vec<Expr>, Expr),
    /// `a += x`
    Update(Expr, &'static str, Expr),
    /// A call for what it does.
    Expr(Expr),
    /// `return x`
    Return(Option<Expr>),
    /// `if x: … else: …`
    If(Expr, Vec<Stmt>, Vec<Stmt>),
    /// `for a in x: …`
    For(Expr, Expr, Vec<Stmt>),
    /// `while x: …`
    While(Expr, Vec<Stmt>),
    /// `break`
    Break,
    /// `continue`
    Continue,
    /// `pass`, and declarations.
    Pass,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// `x`
    Name(String),
    /// `None`
    None,
    /// `True`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1.`
    Float(f64),
    /// `"a"`
    Str(String),
    /// `x.a`
    Attr(Box<Expr>, String),
    /// `x[i]`
    Index(Box<Expr>, Box<Expr>),
    /// `x[i:j]`, step left out.
    Slice(Box<Expr>, Option<Box<Expr>>, Option<Box<Expr>>),
    /// `f(x, a=y)`
    Call(Box<Expr>, Vec<Expr>, Vec<(String, Expr)>),
    /// `[a, b]`
    List(Vec<Expr>),
    /// `(a, b)`
    Tuple(Vec<Expr>),
    /// `{a: b}`
    Dict(Vec<(Expr, Expr)>),
    /// `-x`, `not x`
    Unary(&'static str, Box<Expr>),
    /// `a + b`
    Binary(&'static str, Box<Expr>, Box<Expr>),
    /// `a if c else b`: condition, then, else.
    Choice(Box<Expr>, Box<Expr>, Box<Expr>),
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Expr]| {
            items.iter().enumerate().try_for_each(|(i, item)| write!(f, "{}{item}", if i > 0 { ", " } else { "" }))
        };
        match self {
            Expr::Name(name) => f.write_str(name),
            Expr::None => f.write_str("None"),
            Expr::Bool(value) => f.write_str(if *value { "True" } else { "False" }),
            Expr::Int(value) => write!(f, "{value}"),
            Expr::Float(value) => write!(f, "{value:?}"),
            Expr::Str(value) => write!(f, "{value:?}"),
            Expr::Attr(of, name) => write!(f, "{of}.{name}"),
            Expr::Index(of, at) => write!(f, "{of}[{at}]"),
            Expr::Slice(of, from, to) => {
                write!(f, "{of}[")?;
                from.iter().try_for_each(|from| write!(f, "{from}"))?;
                write!(f, ":")?;
                to.iter().try_for_each(|to| write!(f, "{to}"))?;
                write!(f, "]")
            }
            Expr::Call(of, args, kwargs) => {
                write!(f, "{of}(")?;
                list(f, args)?;
                for (i, (name, value)) in kwargs.iter().enumerate() {
                    write!(f, "{}{name}={value}", if i > 0 || !args.is_empty() { ", " } else { "" })?;
                }
                write!(f, ")")
            }
            Expr::List(items) => {
                write!(f, "[")?;
                list(f, items)?;
                write!(f, "]")
            }
            Expr::Tuple(items) => {
                write!(f, "(")?;
                list(f, items)?;
                write!(f, ")")
            }
            Expr::Dict(items) => {
                write!(f, "{{")?;
                for (i, (key, value)) in items.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if i > 0 { ", " } else { "" })?;
                }
                write!(f, "}}")
            }
            Expr::Unary(op, of) => write!(f, "{op} {of}"),
            Expr::Binary(op, a, b) => write!(f, "({a} {op} {b})"),
            Expr::Choice(condition, a, b) => write!(f, "({a} if {condition} else {b})"),
        }
    }
}

impl Expr {
    /// The text of the expression, cut where it is long.
    pub fn shown(&self) -> String {
        let text = self.to_string();
        if text.chars().count() <= MAX_SHOWN { text } else { text.chars().take(MAX_SHOWN).chain(['…']).collect() }
    }

    /// The dotted name that the expression is.
    pub fn path(&self) -> Option<String> {
        match self {
            Expr::Name(name) => Some(name.clone()),
            Expr::Attr(of, name) => Some(format!("{}.{name}", of.path()?)),
            _ => None,
        }
    }
}
