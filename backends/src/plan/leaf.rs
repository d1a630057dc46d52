//! What one node of the graph is in the target framework.

use modelport_ir::{NodeId, Tensor, Value};

use crate::python::Expr;

/// A node as members and an expression.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The node.
    pub node: NodeId,
    /// What it is, in a word: `conv`, `bn`, `relu`; names its member where the source has no name.
    pub role: String,
    /// What it keeps in `__init__`.
    pub members: Vec<Member>,
    /// What it computes from `Operand`s and `Member`s.
    pub expr: Expr,
    /// The values that `Operand`s stand for.
    pub operands: Vec<Value>,
    /// Names for its results, where it has several.
    pub results: Vec<String>,
    /// The same as modules in a chain, where it is a function of its first operand alone.
    pub modules: Option<Vec<ModuleForm>>,
    /// The same with the weights of its module as tensors, for where the source does not keep them in such a module.
    pub functional: Option<Functional>,
}

/// A layer as a function of its weights.
#[derive(Clone, Debug)]
pub struct Functional {
    /// The weights.
    pub members: Vec<Member>,
    /// What it computes from `Operand`s and these `Member`s.
    pub expr: Expr,
}

/// Something that a module keeps.
#[derive(Clone, Debug)]
pub struct Member {
    /// Kind.
    pub kind: MemberKind,
    /// What it is, in a word.
    pub role: String,
    /// What makes it.
    pub ctor: Expr,
    /// Its weights.
    pub params: Vec<Param>,
}

/// Kinds of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberKind {
    /// A module.
    Module,
    /// The layer that a class extends: it has no name, and its weights are the class's own.
    Base,
    /// Modules in a row, made in a loop: the name says how they are named, and the keys of the weights begin with that.
    Row,
    /// A tensor that is not trained.
    Buffer,
    /// A tensor that is trained.
    Parameter,
    /// A tensor that is no entry of the source's state dict.
    Constant,
}

/// A module of a chain, with its weights.
#[derive(Clone, Debug)]
pub struct ModuleForm {
    /// What makes it.
    pub ctor: Expr,
    /// Its weights.
    pub params: Vec<Param>,
}

/// A weight that nothing reads.
#[derive(Clone, Debug)]
pub struct Spare {
    /// Dotted path of the module that holds it.
    pub path: String,
    /// The weight.
    pub tensor: Member,
}

/// A weight: its key below the member (empty for a member that is itself a tensor), and where it came from.
#[derive(Clone, Debug)]
pub struct Param {
    /// Key, relative to what holds it.
    pub key: String,
    /// Elements, in the target's layout.
    pub tensor: Tensor,
    /// Name in the source; empty for a weight that the source does not have.
    pub source: String,
}

impl Param {
    /// The weight of what holds it under `name`.
    #[must_use]
    pub fn below(&self, name: &str) -> Param {
        let key = if self.key.is_empty() { name.to_owned() } else { format!("{name}.{}", self.key) };
        Param { key, ..self.clone() }
    }
}
