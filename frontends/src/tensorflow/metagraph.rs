//! `MetaGraphDef`: a graph with what was known about it when it was saved (`.meta` files and SavedModels).

use std::collections::BTreeMap;
use std::path::Path;

use modelport_ir::tensor::FileBytes;
use modelport_ir::{Problem, Result};

use super::graphdef::{GraphDef, entry, shape, type_code};
use super::wire::{self, Reader, Span};
use crate::kind::{self, Kind};

/// Collections of variables that are read; others do not matter here.
const VARIABLE_COLLECTIONS: [&str; 5] =
    ["variables", "trainable_variables", "local_variables", "model_variables", "moving_average_variables"];

/// A graph and its annotations. A plain `GraphDef` has none.
#[derive(Clone, Debug, Default)]
pub struct MetaGraph {
    /// The graph.
    pub graph: GraphDef,
    /// `meta_info_def.tags`: `serve`, `train`, …
    pub tags: Vec<String>,
    /// The collections of variables: `variables` (all that are saved), `trainable_variables`, `model_variables`,
    /// `local_variables`, `moving_average_variables`.
    pub collections: BTreeMap<String, Vec<Variable>>,
    /// `signature_def`, by name.
    pub signatures: BTreeMap<String, Signature>,
    /// `saver_def`.
    pub saver: Option<Saver>,
}

/// A `VariableDef`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// The tensor of the variable: `scope/name:0`.
    pub name: String,
    /// The operation that assigns the initial value.
    pub initializer: String,
    /// The tensor that reads the variable: `scope/name/read:0`.
    pub snapshot: String,
    /// The tensor of the initial value.
    pub initial_value: String,
    /// Whether it is a resource variable (`VarHandleOp`).
    pub is_resource: bool,
    /// Whether it is trained.
    pub trainable: bool,
    /// Set for a part of a partitioned variable.
    pub slice: Option<SliceInfo>,
}

/// A `SaveSliceInfoDef`: which part of which variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceInfo {
    /// Name in the checkpoint of the whole.
    pub full_name: String,
    /// Shape of the whole.
    pub full_shape: Vec<i64>,
    /// Where this part begins, on every axis.
    pub offset: Vec<i64>,
    /// Shape of this part.
    pub shape: Vec<i64>,
}

/// A `SignatureDef`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// By the name that callers use.
    pub inputs: BTreeMap<String, TensorInfo>,
    /// By the name that callers use.
    pub outputs: BTreeMap<String, TensorInfo>,
    /// `tensorflow/serving/predict` and the like.
    pub method: String,
}

/// A `TensorInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorInfo {
    /// `node:output`; empty for sparse and composite tensors.
    pub tensor: String,
    /// The number in `types.proto`.
    pub dtype: i32,
    /// `None` for an unknown rank; -1 for an unknown size.
    pub shape: Option<Vec<i64>>,
}

/// A `SaverDef`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saver {
    /// The tensor that the checkpoint's name is fed to.
    pub filename_tensor: String,
    /// The tensor that saves.
    pub save_tensor: String,
    /// The operation that restores.
    pub restore_op: String,
}

impl MetaGraph {
    /// Reads a graph from a file, whichever kind of graph it is: `MetaGraphDef`, `GraphDef` or `SavedModel` (of which
    /// the graph for serving is taken). Big constants stay in the file.
    ///
    /// # Errors
    /// When the file can't be read, is damaged or is no graph. The error says what it is.
    pub fn open(path: &Path) -> Result<MetaGraph> {
        let file = FileBytes::open(path).map_err(|error| kind::unreadable(path, &error))?;
        let kind = kind::of(file.clone()).map_err(|error| kind::unreadable(path, &error))?;
        let mut reader = Reader::new(file);
        let span = reader.whole();
        let graph = match kind {
            Kind::GraphDef => {
                GraphDef::read(&mut reader, span).map(|graph| MetaGraph { graph, ..MetaGraph::default() })
            }
            Kind::MetaGraphDef => MetaGraph::read(&mut reader, span),
            Kind::SavedModel => match MetaGraph::read_saved_model(&mut reader, span) {
                Ok(Some(graph)) => Ok(graph),
                Ok(None) => return Err(Problem::new("is a SavedModel without a graph").file(path).into()),
                Err(error) => Err(error),
            },
            other => return Err(other.not_a_graph(path).into()),
        };
        graph.map_err(|error| error.in_file(path, kind.name()))
    }

    /// Reads a `MetaGraphDef` message.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn read(reader: &mut Reader, span: Span) -> wire::Result<MetaGraph> {
        let mut meta = MetaGraph::default();
        reader.fields(span, |reader, field| {
            match field.number {
                1 => meta.tags = tags(reader, field.span()?)?,
                2 => meta.graph = GraphDef::read(reader, field.span()?)?,
                3 => meta.saver = Some(Saver::read(reader, field.span()?)?),
                4 => {
                    let (name, value) = entry(reader, field.span()?)?;
                    if let Some(span) = value.filter(|_| VARIABLE_COLLECTIONS.contains(&name.as_str())) {
                        meta.collections.insert(name, variables(reader, span)?);
                    }
                }
                5 => {
                    let (name, value) = entry(reader, field.span()?)?;
                    if let Some(span) = value {
                        meta.signatures.insert(name, Signature::read(reader, span)?);
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(meta)
    }

    /// Reads the graph tagged `serve` of a `SavedModel` message, else its first.
    fn read_saved_model(reader: &mut Reader, span: Span) -> wire::Result<Option<MetaGraph>> {
        let (mut serving, mut first) = (None, None);
        reader.fields(span, |reader, field| {
            if field.number == 2 {
                let graph = field.span()?;
                let mut serve = false;
                reader.fields(graph, |reader, field| {
                    if field.number == 1 {
                        serve = tags(reader, field.span()?)?.iter().any(|tag| tag == "serve");
                    }
                    Ok(())
                })?;
                first = first.or(Some(graph));
                serving = serving.or(Some(graph).filter(|_| serve));
            }
            Ok(())
        })?;
        serving.or(first).map(|span| MetaGraph::read(reader, span)).transpose()
    }

    /// The variables of a collection; empty if there is none of this name.
    pub fn collection(&self, name: &str) -> &[Variable] {
        self.collections.get(name).map_or(&[], Vec::as_slice)
    }
}

/// The tags in a `MetaInfoDef`.
fn tags(reader: &mut Reader, span: Span) -> wire::Result<Vec<String>> {
    let mut tags = Vec::new();
    reader.fields(span, |reader, field| {
        if field.number == 4 {
            tags.push(reader.text(field.span()?)?);
        }
        Ok(())
    })?;
    Ok(tags)
}

/// The variables in a `CollectionDef`. Very old files list names only.
fn variables(reader: &mut Reader, span: Span) -> wire::Result<Vec<Variable>> {
    let mut variables = Vec::new();
    reader.fields(span, |reader, field| {
        let list = field.number;
        if list != 1 && list != 2 {
            return Ok(());
        }
        reader.fields(field.span()?, |reader, field| {
            if field.number == 1 {
                variables.push(if list == 1 {
                    Variable { name: reader.text(field.span()?)?, ..Variable::default() }
                } else {
                    Variable::read(reader, field.span()?)?
                });
            }
            Ok(())
        })
    })?;
    Ok(variables)
}

impl Variable {
    fn read(reader: &mut Reader, span: Span) -> wire::Result<Variable> {
        let mut variable = Variable::default();
        reader.fields(span, |reader, field| {
            match field.number {
                1 => variable.name = reader.text(field.span()?)?,
                2 => variable.initializer = reader.text(field.span()?)?,
                3 => variable.snapshot = reader.text(field.span()?)?,
                4 => variable.slice = Some(SliceInfo::read(reader, field.span()?)?),
                5 => variable.is_resource = field.int()? != 0,
                6 => variable.initial_value = reader.text(field.span()?)?,
                7 => variable.trainable = field.int()? != 0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(variable)
    }
}

impl SliceInfo {
    fn read(reader: &mut Reader, span: Span) -> wire::Result<SliceInfo> {
        let mut slice = SliceInfo::default();
        reader.fields(span, |reader, field| {
            let list = match field.number {
                1 => {
                    slice.full_name = reader.text(field.span()?)?;
                    return Ok(());
                }
                2 => &mut slice.full_shape,
                3 => &mut slice.offset,
                4 => &mut slice.shape,
                _ => return Ok(()),
            };
            reader.varints(field, |value| {
                list.push(value as i64);
                Ok(())
            })
        })?;
        Ok(slice)
    }
}

impl Signature {
    fn read(reader: &mut Reader, span: Span) -> wire::Result<Signature> {
        let mut signature = Signature::default();
        reader.fields(span, |reader, field| {
            let tensors = match field.number {
                1 => &mut signature.inputs,
                2 => &mut signature.outputs,
                3 => {
                    signature.method = reader.text(field.span()?)?;
                    return Ok(());
                }
                _ => return Ok(()),
            };
            let (name, value) = entry(reader, field.span()?)?;
            if let Some(span) = value {
                tensors.insert(name, TensorInfo::read(reader, span)?);
            }
            Ok(())
        })?;
        Ok(signature)
    }
}

impl TensorInfo {
    fn read(reader: &mut Reader, span: Span) -> wire::Result<TensorInfo> {
        let mut info = TensorInfo::default();
        reader.fields(span, |reader, field| {
            match field.number {
                1 => info.tensor = reader.text(field.span()?)?,
                2 => info.dtype = type_code(field.int()?),
                3 => info.shape = shape(reader, field.span()?)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(info)
    }
}

impl Saver {
    fn read(reader: &mut Reader, span: Span) -> wire::Result<Saver> {
        let mut saver = Saver::default();
        reader.fields(span, |reader, field| {
            match field.number {
                1 => saver.filename_tensor = reader.text(field.span()?)?,
                2 => saver.save_tensor = reader.text(field.span()?)?,
                3 => saver.restore_op = reader.text(field.span()?)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(saver)
    }
}
