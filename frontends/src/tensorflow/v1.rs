//! Checkpoints of version 1: one table, or one per shard, with the tensors in the values.
//!
//! The key `""` has a `SavedTensorSlices` with the names, shapes and types of all tensors; every other value is one
//! with a slice of a tensor, whose elements are in the typed fields of a `TensorProto`
//! (`core/util/saved_tensor_slice.proto`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use modelport_ir::tensor::{Storage, numel};
use modelport_ir::{DType, Error, Problem, Tensor};

use super::checkpoint::Contents;
use super::graphdef::{dtype, known_shape, type_code};
use super::slices::{self, Extent};
use super::sstable::Table;
use super::stored::{Assembled, Checked, Encoded, Label, Piece};
use super::tensor::{Elements, Proto};
use super::wire::{self, Malformed, Reader, Span};

/// A `SavedSliceMeta`, and the pieces that were found for it.
#[derive(Debug, Default)]
struct Variable {
    code: i32,
    shape: Vec<usize>,
    pieces: Vec<Piece>,
}

/// A `SavedSlice`, whose elements were not read.
#[derive(Debug, Default)]
struct Slice {
    name: String,
    extents: Vec<Extent>,
    data: Option<Span>,
}

/// Opens a checkpoint of one or more tables.
pub(super) fn open(paths: &[PathBuf]) -> Result<Contents, Error> {
    let mut variables = BTreeMap::new();
    for path in paths {
        let table = Arc::new(Table::open(path)?);
        collect(&table, &mut variables).map_err(|error| table.error(error))?;
    }
    let mut contents = Contents::default();
    let mut problems = Vec::new();
    for (name, variable) in variables {
        let Some(dtype) = dtype(variable.code) else {
            contents.skipped.insert(name, variable.code);
            continue;
        };
        match whole(dtype, variable) {
            Ok(tensor) => {
                contents.tensors.insert(name, tensor);
            }
            Err(error) => {
                let mut problem = Problem::new(format!("tensor {name}: {error}"));
                problem.file = paths.first().cloned();
                problems.push(problem.hint("The checkpoint is damaged, or a shard of it is missing; get it again."));
            }
        }
    }
    Error::collect(problems)?;
    Ok(contents)
}

/// Whether a table is a checkpoint of version 1, and not the index of version 2.
pub(super) fn is(path: &Path) -> bool {
    let Ok(table) = Table::open(path) else { return false };
    let mut found = false;
    let read = table.block(0).and_then(|block| {
        block.entries(|key, value, reader| {
            // A message in field 1, where the other kind has a number.
            found = key.is_empty() && read_meta(reader, value, &mut BTreeMap::new()).is_ok();
            Ok(ControlFlow::Break(()))
        })
    });
    read.is_ok() && found
}

fn whole(dtype: DType, mut variable: Variable) -> Result<Tensor, String> {
    let storage: Arc<dyn Storage> = match variable.pieces.pop() {
        None => return Err("its data are missing".to_owned()),
        Some(only) if variable.pieces.is_empty() && only.shape == variable.shape => only.storage,
        Some(last) => {
            variable.pieces.push(last);
            Arc::new(Assembled::new(&variable.shape, dtype.size(), variable.pieces)?)
        }
    };
    Tensor::new(dtype, &variable.shape, storage)
}

fn collect(table: &Arc<Table>, variables: &mut BTreeMap<String, Variable>) -> wire::Result<()> {
    for index in 0..table.block_count() {
        if index == 0 {
            table.block(index)?; // verified: it says what there is
        }
        let block = table.unverified_block(index)?;
        block.entries(|key, value, reader| {
            if key.is_empty() {
                read_meta(reader, value, variables)?;
                return Ok(ControlFlow::Continue(()));
            }
            let slice = read_slice(reader, value)?;
            let at = |what: String| Malformed::new(value.start, format!("tensor {}: {what}", slice.name));
            let variable = variables.get_mut(&slice.name).ok_or_else(|| at("it was not announced".to_owned()))?;
            let Some(dtype) = dtype(variable.code) else { return Ok(ControlFlow::Continue(())) };
            let (start, shape) = slices::resolve(&slice.extents, &variable.shape)
                .ok_or_else(|| at(format!("a part lies outside of its shape {:?}", variable.shape)))?;
            let count = numel(&shape).filter(|n| n.checked_mul(dtype.size()).is_some());
            let count = count.ok_or_else(|| at("it is too large".to_owned()))?;
            let mut proto = match slice.data {
                Some(span) => Proto::read(reader, span)?,
                None => Proto::default(),
            };
            // The slice itself says neither.
            (proto.code, proto.shape) = (variable.code, shape.clone());
            let label = Label { tensor: slice.name.clone(), path: table.path().to_owned() };
            let expected = (count * dtype.size()) as u64;
            let storage: Arc<dyn Storage> = match (proto.elements(reader, dtype, count)?, block.raw) {
                (Elements::InPlace(span), _) if span.len() != expected => {
                    return Err(at(format!("it has {} of {expected} bytes", span.len())));
                }
                (Elements::InPlace(span), Some((covered, crc))) => {
                    let span = Span { start: covered.start + span.start, end: covered.start + span.end };
                    Arc::new(Checked::new(table.file().clone(), span, covered, crc, label))
                }
                // At least a byte each, or the count is a lie.
                (Elements::Encoded, _) if slice.data.map_or(0, Span::len) < count as u64 => {
                    return Err(at(format!("it has fewer values than its shape {shape:?}")));
                }
                _ => Arc::new(Encoded {
                    table: table.clone(),
                    block: index,
                    proto,
                    dtype,
                    count,
                    label,
                    decoded: Mutex::default(),
                }),
            };
            variable.pieces.push(Piece { start, shape, storage });
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(())
}

/// Reads the `SavedTensorSliceMeta` of a table.
fn read_meta(reader: &mut Reader, span: Span, variables: &mut BTreeMap<String, Variable>) -> wire::Result<()> {
    reader.fields(span, |reader, field| {
        if field.number != 1 {
            return Ok(());
        }
        reader.fields(field.span()?, |reader, field| {
            if field.number != 1 {
                return Ok(());
            }
            let (mut name, mut variable) = (String::new(), Variable::default());
            reader.fields(field.span()?, |reader, field| {
                match field.number {
                    1 => name = reader.text(field.span()?)?,
                    2 => variable.shape = known_shape(reader, field.span()?)?,
                    3 => variable.code = type_code(field.int()?),
                    _ => {}
                }
                Ok(())
            })?;
            // Every shard announces its parts of a partitioned variable.
            variables.entry(name).or_insert(variable);
            Ok(())
        })
    })
}

/// Reads the `SavedSlice` of a `SavedTensorSlices`.
fn read_slice(reader: &mut Reader, span: Span) -> wire::Result<Slice> {
    let mut slice = Slice::default();
    reader.fields(span, |reader, field| {
        if field.number != 2 {
            return Ok(());
        }
        reader.fields(field.span()?, |reader, field| {
            match field.number {
                1 => slice.name = reader.text(field.span()?)?,
                2 => slice.extents = slices::read(reader, field.span()?)?,
                3 => slice.data = Some(field.span()?),
                _ => {}
            }
            Ok(())
        })
    })?;
    Ok(slice)
}
