//! The parts of TensorFlow's `GraphDef` that matter here (`tensorflow/core/framework/*.proto`).

use std::collections::BTreeMap;

use modelport_ir::{DType, Tensor};

/// A graph of nodes, and the functions that they call.
#[derive(Clone, Debug, Default)]
pub struct GraphDef {
    /// In file order.
    pub nodes: Vec<NodeDef>,
    /// `library.function`.
    pub functions: Vec<FunctionDef>,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub struct NodeDef {
    /// Unique name.
    pub name: String,
    /// Operator.
    pub op: String,
    /// `node`, `node:1`, or `^node` for control; inside of functions `node:out_arg:index`.
    pub inputs: Vec<String>,
    /// Attributes.
    pub attrs: BTreeMap<String, Attr>,
}

/// The value of an attribute.
#[derive(Clone, Debug)]
pub enum Attr {
    /// `s`
    Bytes(Vec<u8>),
    /// `i`
    Int(i64),
    /// `f`
    Float(f32),
    /// `b`
    Bool(bool),
    /// `type`, as the number in `types.proto` (reference types less 100).
    Type(i32),
    /// `shape`: `None` for an unknown rank; -1 for an unknown size.
    Shape(Option<Vec<i64>>),
    /// `tensor`
    Tensor(TensorValue),
    /// `func`: the function's name.
    Function(String),
    /// `list`
    List(Vec<Attr>),
}

/// The value of a `tensor` attribute.
#[derive(Clone, Debug)]
pub enum TensorValue {
    /// Numbers; read from the file when needed.
    Numbers(Tensor),
    /// Strings.
    Strings {
        /// Shape.
        shape: Vec<usize>,
        /// Elements.
        values: Vec<Vec<u8>>,
    },
    /// A type that modelport has no use for, as the number in `types.proto`.
    Other(i32),
}

/// A function of the library.
#[derive(Clone, Debug, Default)]
pub struct FunctionDef {
    /// Its name.
    pub name: String,
    /// Names of the arguments.
    pub arguments: Vec<String>,
    /// Names of the results.
    pub results: Vec<String>,
    /// The body.
    pub nodes: Vec<NodeDef>,
    /// For every result the tensor that it returns, as `node:out_arg:index` or an argument's name.
    pub returns: BTreeMap<String, String>,
}

/// The element type with this number in `types.proto`; `None` for strings, resources and the like.
pub fn dtype(code: i32) -> Option<DType> {
    Some(match code % 100 {
        1 => DType::Float32,
        2 => DType::Float64,
        3 => DType::Int32,
        4 => DType::UInt8,
        5 => DType::Int16,
        6 => DType::Int8,
        9 => DType::Int64,
        10 => DType::Bool,
        14 => DType::BFloat16,
        17 => DType::UInt16,
        19 => DType::Float16,
        22 => DType::UInt32,
        23 => DType::UInt64,
        _ => return None,
    })
}
