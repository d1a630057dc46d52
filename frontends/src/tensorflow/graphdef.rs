//! The parts of TensorFlow's `GraphDef` that matter here (`tensorflow/core/framework/*.proto`).

use std::collections::BTreeMap;

use modelport_ir::{DType, Tensor};

use super::tensor;
use super::wire::{self, Field, Malformed, Reader, Span};

/// TensorFlow's own limit (`TensorShape::MaxDimensions`).
const MAX_RANK: usize = 254;
/// Numbers in a list attribute: far beyond any real one, and a limit to what a small file can make of memory.
const MAX_LIST: usize = 1 << 20;

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
impl GraphDef {
    /// Reads a `GraphDef` message.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn read(reader: &mut Reader, span: Span) -> wire::Result<GraphDef> {
        let mut graph = GraphDef::default();
        reader.fields(span, |reader, field| {
            match field.number {
                1 => graph.nodes.push(NodeDef::read(reader, field.span()?)?),
                2 => reader.fields(field.span()?, |reader, field| {
                    if field.number == 1 {
                        graph.functions.push(FunctionDef::read(reader, field.span()?)?);
                    }
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(graph)
    }
}

impl NodeDef {
    fn read(reader: &mut Reader, span: Span) -> wire::Result<NodeDef> {
        let mut node = NodeDef::default();
        let read = reader.fields(span, |reader, field| {
            match field.number {
                1 => node.name = reader.text(field.span()?)?,
                2 => node.op = reader.text(field.span()?)?,
                3 => node.inputs.push(reader.text(field.span()?)?),
                5 => {
                    let (key, value) = entry(reader, field.span()?)?;
                    if let Some(value) = value.map(|span| Attr::read(reader, span)).transpose()?.flatten() {
                        node.attrs.insert(key, value);
                    }
                }
                _ => {}
            }
            Ok(())
        });
        match read {
            Ok(()) => Ok(node),
            Err(error) if node.name.is_empty() => Err(error),
            Err(error) => Err(Malformed::new(error.at, format!("node {}: {}", node.name, error.what))),
        }
    }
}

impl FunctionDef {
    fn read(reader: &mut Reader, span: Span) -> wire::Result<FunctionDef> {
        let mut function = FunctionDef::default();
        reader.fields(span, |reader, field| {
            match field.number {
                1 => reader.fields(field.span()?, |reader, field| {
                    match field.number {
                        1 => function.name = reader.text(field.span()?)?,
                        2 => function.arguments.push(argument(reader, field.span()?)?),
                        3 => function.results.push(argument(reader, field.span()?)?),
                        _ => {}
                    }
                    Ok(())
                })?,
                3 => function.nodes.push(NodeDef::read(reader, field.span()?)?),
                4 => {
                    let (key, value) = entry(reader, field.span()?)?;
                    if let Some(value) = value {
                        function.returns.insert(key, reader.text(value)?);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(function)
    }
}

/// The name in an `OpDef.ArgDef`.
fn argument(reader: &mut Reader, span: Span) -> wire::Result<String> {
    let mut name = String::new();
    reader.fields(span, |reader, field| {
        if field.number == 1 {
            name = reader.text(field.span()?)?;
        }
        Ok(())
    })?;
    Ok(name)
}

/// Key and value of an entry of a `map<string, …>` with strings or messages.
pub(super) fn entry(reader: &mut Reader, span: Span) -> wire::Result<(String, Option<Span>)> {
    let (mut key, mut value) = (String::new(), None);
    reader.fields(span, |reader, field| {
        match field.number {
            1 => key = reader.text(field.span()?)?,
            2 => value = Some(field.span()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, value))
}

impl Attr {
    /// Reads an `AttrValue`; `None` if it is unset or the name of a placeholder.
    fn read(reader: &mut Reader, span: Span) -> wire::Result<Option<Attr>> {
        let mut attr = None;
        reader.fields(span, |reader, field| {
            attr = match field.number {
                1 => {
                    let mut list = Vec::new();
                    reader.fields(field.span()?, |reader, field| Attr::read_items(reader, field, &mut list))?;
                    Some(Attr::List(list))
                }
                2 => Some(Attr::Bytes(reader.bytes(field.span()?)?)),
                3 => Some(Attr::Int(field.int()?)),
                4 => Some(Attr::Float(f32::from_bits(field.fixed32()?))),
                5 => Some(Attr::Bool(field.int()? != 0)),
                6 => Some(Attr::Type(type_code(field.int()?))),
                7 => Some(Attr::Shape(shape(reader, field.span()?)?)),
                8 => Some(Attr::Tensor(tensor::read(reader, field.span()?)?)),
                10 => Some(Attr::Function(argument(reader, field.span()?)?)),
                _ => return Ok(()),
            };
            Ok(())
        })?;
        Ok(attr)
    }

    /// Reads one field of a `ListValue`.
    fn read_items(reader: &mut Reader, field: Field, list: &mut Vec<Attr>) -> wire::Result<()> {
        match field.number {
            2 => list.push(Attr::Bytes(reader.bytes(field.span()?)?)),
            3 => reader.varints(field, |value| push(list, Attr::Int(value as i64), field))?,
            4 => reader.floats(field, |value| push(list, Attr::Float(value), field))?,
            5 => reader.varints(field, |value| push(list, Attr::Bool(value != 0), field))?,
            6 => reader.varints(field, |value| push(list, Attr::Type(type_code(value as i64)), field))?,
            7 => list.push(Attr::Shape(shape(reader, field.span()?)?)),
            8 => list.push(Attr::Tensor(tensor::read(reader, field.span()?)?)),
            9 => list.push(Attr::Function(argument(reader, field.span()?)?)),
            _ => {}
        }
        Ok(())
    }
}

fn push(list: &mut Vec<Attr>, attr: Attr, field: Field) -> wire::Result<()> {
    if list.len() == MAX_LIST {
        return Err(Malformed::new(field.at, format!("a list attribute has more than {MAX_LIST} numbers")));
    }
    list.push(attr);
    Ok(())
}

/// The number in `types.proto` without the mark of a reference.
pub(super) fn type_code(code: i64) -> i32 {
    (code % 100) as i32
}

/// Reads a `TensorShapeProto`: `None` for an unknown rank; -1 for an unknown size.
pub(super) fn shape(reader: &mut Reader, span: Span) -> wire::Result<Option<Vec<i64>>> {
    let (mut dims, mut unknown_rank) = (Vec::new(), false);
    reader.fields(span, |reader, field| {
        match field.number {
            2 => {
                let mut size = 0;
                reader.fields(field.span()?, |_, field| {
                    if field.number == 1 {
                        size = field.int()?;
                    }
                    Ok(())
                })?;
                if dims.len() == MAX_RANK {
                    return Err(Malformed::new(field.at, format!("a shape has more than {MAX_RANK} axes")));
                }
                dims.push(size.max(-1));
            }
            3 => unknown_rank = field.int()? != 0,
            _ => {}
        }
        Ok(())
    })?;
    Ok((!unknown_rank).then_some(dims))
}

/// Reads a `TensorShapeProto` in which every size must be known.
pub(super) fn known_shape(reader: &mut Reader, span: Span) -> wire::Result<Vec<usize>> {
    let dims = shape(reader, span)?.unwrap_or_default();
    let sizes = dims.iter().map(|&size| usize::try_from(size)).collect::<Result<_, _>>();
    sizes.map_err(|_| Malformed::new(span.start, "the shape of a tensor has a negative size"))
}
