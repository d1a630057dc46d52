//! From a graph to a program: modules from scopes, one class per structure, members, statements and parameters.
//!
//! A backend says what every node is in its framework ([`Leaf`]); the planner groups leaves into regions by their
//! scopes ([`scope`], [`region`]), finds equal regions and makes classes of them ([`class`]), and schedules statements
//! ([`forward`]). Templates only print the [`Program`].

mod arguments;
mod block;
mod branches;
mod class;
pub(crate) mod forward;
mod leaf;
mod lists;
mod modules;
mod region;
mod scope;
mod structure;
mod titles;
mod unify;
mod words;

use modelport_ir::{Graph, Result};

use crate::python::Expr;

pub use arguments::Declared;
pub use class::{Class, Program};
pub use leaf::{Functional, Leaf, Member, MemberKind, ModuleForm, Param, Spare};
pub use lists::{LayerList, find as list_layers};

/// Plans the program of a graph whose nodes are `leaves`, one for each node that is no constant and no input. Where the
/// source has modules, `spare` are weights that nothing reads, with the modules that hold them.
///
/// # Errors
/// When the graph has a cycle.
pub fn plan(graph: &Graph, leaves: Vec<Leaf>, spare: Vec<Spare>, dialect: &Dialect) -> Result<Program> {
    if graph.has_modules() && !dialect.functional {
        return Ok(modules::program(graph, &leaves, spare, dialect));
    }
    let paths = scope::paths(graph, &leaves);
    let tree = region::Tree::new(graph, &leaves, paths);
    Ok(class::program(graph, leaves, &tree, dialect))
}

/// What the planner must know of the target framework.
pub struct Dialect {
    /// The container of a chain of modules.
    pub sequential: &'static str,
    /// The module that gives back what it gets.
    pub identity: &'static str,
    /// Whether classes are to become functions: what is in a chain then keeps its name, as the keyword of an argument,
    /// and is never counted out.
    pub functional: bool,
    /// The layer that a module which is never called can be, by its weights.
    pub holder: fn(&[Param]) -> Option<Expr>,
}
