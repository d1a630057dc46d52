//! Checkpoints of version 1: one table, or one per shard, with the tensors in the values.
//!
//! The key `""` has a `SavedTensorSlices` with the names, shapes and types of all tensors; every other value is one
//! with a slice of a tensor, whose elements are in the typed fields of a `TensorProto`
//! (`core/util/saved_tensor_slice.proto`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use modelport_ir::tensor::{FileBytes, Storage, numel};
use modelport_ir::{DType, Error, Problem, Tensor};

use super::checkpoint::Contents;
use super::graphdef::{dtype, known_shape, type_code};
use super::slices::{self, Extent};
use super::sstable::{Table, has_magic};
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

/// Whether a file is a checkpoint of version 1: a table, intact or not, that is not the index of version 2.
pub(super) fn is(path: &Path) -> bool {
    if !FileBytes::open(path).is_ok_and(|file| has_magic(&*file)) {
        return false;
    }
    let Ok(table) = Table::open(path) else { return true };
    let mut bundle = false;
    let read = table.unverified_block(0).and_then(|block| {
        block.entries(|key, value, reader| {
            // A number in field 1, where version 1 has a message.
            bundle = key.is_empty() && read_meta(reader, value, &mut BTreeMap::new()).is_err();
            Ok(ControlFlow::Break(()))
        })
    });
    !(read.is_ok() && bundle)
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

#[cfg(test)]
mod tests {
    use crate::tensorflow::checkpoint::Checkpoint;
    use crate::tensorflow::sstable::tests::table;
    use crate::tensorflow::wire::build::{bytes, int, packed};

    const FLOAT: u64 = 1;
    const INT64: u64 = 9;

    fn shape(sizes: &[u64]) -> Vec<u8> {
        sizes.iter().flat_map(|size| bytes(2, &int(1, *size))).collect()
    }

    fn meta(variables: &[(&str, &[u64], u64)]) -> (Vec<u8>, Vec<u8>) {
        let tensor = |(name, sizes, code): &(&str, &[u64], u64)| {
            bytes(1, &[bytes(1, name.as_bytes()), bytes(2, &shape(sizes)), int(3, *code)].concat())
        };
        (Vec::new(), bytes(1, &variables.iter().flat_map(tensor).collect::<Vec<_>>()))
    }

    /// Rows `start..start + len` of a matrix.
    fn slice(key: u8, name: &str, rows: Option<(u64, u64)>, data: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let first = rows.map(|(start, len)| [int(1, start), int(2, len)].concat()).unwrap_or_default();
        let extents = [bytes(1, &first), bytes(1, &[])].concat();
        (vec![0, key], bytes(2, &[bytes(1, name.as_bytes()), bytes(2, &extents), bytes(3, data)].concat()))
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        bytes(5, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }

    fn open(tables: &[Vec<u8>]) -> Result<Checkpoint, String> {
        let folder = tempfile::tempdir().unwrap();
        for (i, bytes) in tables.iter().enumerate() {
            std::fs::write(folder.path().join(format!("old-{i:05}-of-{:05}", tables.len())), bytes).unwrap();
        }
        Checkpoint::open(&folder.path().join("old")).map_err(|error| error.to_string())
    }

    #[test]
    fn shards_and_compressed_blocks() {
        for snappy in [false, true] {
            let meta = || meta(&[("n", &[2, 1], INT64), ("w", &[3, 2], FLOAT)]);
            let numbers = slice(2, "n", None, &packed(10, &[300, u64::MAX]));
            let low = slice(1, "w", Some((0, 2)), &floats(&[0., 1., 2., 3.]));
            let high = slice(1, "w", Some((2, 1)), &floats(&[4., 5.]));
            let first = table(&[vec![meta(), low], vec![numbers]], snappy);
            let second = table(&[vec![meta(), high]], snappy);
            let checkpoint = open(&[first.clone(), second]).unwrap();
            assert_eq!(checkpoint.get("w").unwrap().to_f64().unwrap(), [0., 1., 2., 3., 4., 5.]);
            assert_eq!(checkpoint.get("n").unwrap().to_i64().unwrap(), [300, -1]);
            let error = open(&[first]).unwrap_err();
            assert!(error.contains("tensor w: its parts do not make the whole"), "{error}");
        }
    }

    #[test]
    fn what_was_announced_must_come() {
        let with =
            |data: &[u8]| open(&[table(&[vec![meta(&[("w", &[3, 2], FLOAT)]), slice(1, "w", None, data)]], false)]);
        assert!(with(&floats(&[1.; 6])).is_ok());
        assert!(with(&floats(&[1.; 5])).unwrap_err().contains("it has 20 of 24 bytes"));
        assert!(with(&[]).unwrap_err().contains("fewer values than its shape [3, 2]"));
        assert!(
            open(&[table(&[vec![meta(&[("w", &[1], FLOAT)])]], false)])
                .unwrap_err()
                .contains("w: its data are missing")
        );
        let other = vec![meta(&[]), slice(1, "w", None, &[])];
        assert!(open(&[table(&[other], false)]).unwrap_err().contains("tensor w: it was not announced"));
        assert!(open(&[table(&[vec![meta(&[])]], false)]).unwrap_err().contains("without variables"));
    }

    #[test]
    fn damaged_tensors_are_noticed_when_read() {
        let mut bytes =
            table(&[vec![meta(&[("w", &[1, 2], FLOAT)])], vec![slice(1, "w", None, &floats(&[1., 2.]))]], false);
        let at = bytes.windows(4).position(|window| window == 2f32.to_le_bytes()).unwrap();
        bytes[at] ^= 1;
        let error = open(&[bytes]).unwrap().verify().unwrap_err().to_string();
        assert!(error.contains("old-00000-of-00001: tensor w does not match its checksum"), "{error}");
    }
}
