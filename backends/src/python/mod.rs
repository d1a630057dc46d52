//! Python source: expressions, literals, names, and printing within 120 columns as `ruff format` lays it out.

mod expr;
mod names;
mod print;

pub use expr::{Arg, Expr, LOOPED, Lit, Loop, Slot};
pub use names::{Namer, camel_case, identifier, is_attribute, snake_case};
pub use print::{WIDTH, comment, noted, signature, statement};
