//! Checkpoints of version 2, "tensor bundles": an `.index` table of entries, and `.data-…` shards with the tensors.
//!
//! Format: `tensorflow/core/util/tensor_bundle/tensor_bundle.h` and `core/protobuf/tensor_bundle.proto`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelport_ir::tensor::{FileBytes, Storage, numel};
use modelport_ir::{Error, Problem, Tensor};

use super::checkpoint::Contents;
use super::graphdef::{dtype, known_shape, type_code};
use super::slices::{self, Extent};
use super::sstable::{self, Table, unmask};
use super::stored::{Assembled, Checked, Label, Piece};
use super::wire::{self, Malformed, Reader, Span};
use crate::kind;

/// The version of the format that is read here (`kTensorBundleVersion`).
const VERSION: i64 = 1;

/// A `BundleHeaderProto`.
#[derive(Debug, Default)]
struct Header {
    shards: i64,
    big_endian: bool,
    min_consumer: i64,
}

/// A `BundleEntryProto`.
#[derive(Debug, Default)]
struct Entry {
    code: i32,
    shape: Vec<usize>,
    shard: i64,
    span: Option<Span>,
    crc: u32,
    slices: Vec<Vec<Extent>>,
}

impl Header {
    fn read(reader: &mut Reader, span: Span) -> wire::Result<Header> {
        let mut header = Header::default();
        reader.fields(span, |reader, field| {
            match field.number {
                1 => header.shards = field.int()?,
                2 => header.big_endian = field.int()? != 0,
                3 => reader.fields(field.span()?, |_, field| {
                    if field.number == 2 {
                        header.min_consumer = field.int()?;
                    }
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(header)
    }
}

impl Entry {
    fn read(reader: &mut Reader, span: Span) -> wire::Result<Entry> {
        let mut entry = Entry::default();
        let (mut offset, mut size) = (0u64, 0u64);
        reader.fields(span, |reader, field| {
            match field.number {
                1 => entry.code = type_code(field.int()?),
                2 => entry.shape = known_shape(reader, field.span()?)?,
                3 => entry.shard = field.int()?,
                4 => offset = field.int()? as u64,
                5 => size = field.int()? as u64,
                6 => entry.crc = unmask(field.fixed32()?),
                7 => entry.slices.push(slices::read(reader, field.span()?)?),
                _ => {}
            }
            Ok(())
        })?;
        let end = offset.checked_add(size).ok_or_else(|| Malformed::new(span.start, "an entry is too large"))?;
        entry.span = Some(Span { start: offset, end });
        Ok(entry)
    }
}

/// `prefix` and `suffix` as one path.
pub(super) fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(prefix);
    path.push(suffix);
    path.into()
}

/// Opens the checkpoint whose files begin with `prefix`.
pub(super) fn open(prefix: &Path) -> Result<Contents, Error> {
    let path = with_suffix(prefix, ".index");
    let table = match Table::open(&path) {
        Err(_) if !is_table(&path) => return Err(sstable::no_table(&path).into()),
        table => table?,
    };
    let (header, entries) = read(&table).map_err(|error| table.error(error))?;
    if header.big_endian {
        let problem = Problem::new("is a checkpoint of a big-endian machine, which can't be read").file(path);
        return Err(problem.hint("Load it in TensorFlow on such a machine, and save it as a frozen graph.").into());
    }
    if header.min_consumer > VERSION {
        let found = header.min_consumer;
        let message = format!("is a checkpoint of format version {found}, where up to {VERSION} is known");
        return Err(Problem::new(message).file(path).into());
    }
    Bundle { index: &path, shards: open_shards(prefix, &path, &header, &entries)?, entries: &entries }.contents()
}

fn is_table(path: &Path) -> bool {
    FileBytes::open(path).is_ok_and(|file| sstable::has_magic(&*file))
}

type Entries = BTreeMap<Vec<u8>, Entry>;

fn read(table: &Table) -> wire::Result<(Header, Entries)> {
    let mut header = None;
    let mut entries = BTreeMap::new();
    for i in 0..table.block_count() {
        table.block(i)?.entries(|key, value, reader| {
            if key.is_empty() {
                header = Some(Header::read(reader, value)?);
            } else {
                entries.insert(key.to_vec(), Entry::read(reader, value)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    let header = header.ok_or_else(|| Malformed::new(0, "there is no header"))?;
    Ok((header, entries))
}

fn shard_path(prefix: &Path, shard: i64, shards: i64) -> PathBuf {
    with_suffix(prefix, &format!(".data-{shard:05}-of-{shards:05}"))
}

/// Opens all shards that have tensors.
fn open_shards(
    prefix: &Path,
    index: &Path,
    header: &Header,
    entries: &Entries,
) -> Result<BTreeMap<i64, Arc<FileBytes>>, Error> {
    let wanted: BTreeSet<i64> = entries.values().filter(|entry| entry.slices.is_empty()).map(|e| e.shard).collect();
    if let Some(shard) = wanted.iter().find(|shard| !(0..header.shards).contains(*shard)) {
        let message = format!("has tensors in shard {shard} of {}", header.shards);
        return Err(Problem::new(message).file(index).hint("The file is damaged; get it again.").into());
    }
    let mut shards = BTreeMap::new();
    let mut problems = Vec::new();
    for shard in wanted {
        let path = shard_path(prefix, shard, header.shards);
        match FileBytes::open(&path) {
            Ok(file) => {
                problems.extend(cut_off(&file, entries.iter().filter(|(_, entry)| entry.shard == shard)));
                shards.insert(shard, file);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("is missing: data shard {} of {} of the checkpoint", shard + 1, header.shards);
                let hint = format!("All {} shards must lie beside {}.", header.shards, file_name(index));
                problems.push(Problem::new(message).file(path).hint(hint));
            }
            Err(error) => problems.push(kind::unreadable(&path, &error)),
        }
    }
    Error::collect(problems)?;
    Ok(shards)
}

/// What is wrong when tensors lie behind the end of a shard.
fn cut_off<'e>(file: &FileBytes, entries: impl Iterator<Item = (&'e Vec<u8>, &'e Entry)>) -> Option<Problem> {
    let spans =
        entries.filter(|(_, entry)| entry.slices.is_empty()).filter_map(|(key, entry)| Some((key, entry.span?)));
    let lost: Vec<(&Vec<u8>, Span)> = spans.filter(|(_, span)| span.end > file.len()).collect();
    let (first, _) = lost.iter().min_by_key(|(_, span)| span.start)?;
    let whole = lost.iter().map(|(_, span)| span.end).max()?;
    let tensors = if lost.len() == 1 { "1 tensor is" } else { &format!("{} tensors are", lost.len()) };
    let first = String::from_utf8_lossy(first).trim_start_matches('\0').to_owned();
    let message = format!("has {} of {whole} bytes: {tensors} cut off, beginning with {first}", file.len());
    let problem = Problem::new(message).file(file.path());
    Some(problem.hint("The file was not copied completely, or is of another save; get it again."))
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

struct Bundle<'a> {
    index: &'a Path,
    shards: BTreeMap<i64, Arc<FileBytes>>,
    entries: &'a Entries,
}

impl Bundle<'_> {
    fn contents(&self) -> Result<Contents, Error> {
        let mut contents = Contents::default();
        let mut problems = Vec::new();
        // Data of partitioned variables have keys that begin with a zero.
        for (key, entry) in self.entries.iter().filter(|(key, _)| key.first() != Some(&0)) {
            let Ok(name) = std::str::from_utf8(key) else {
                let name = String::from_utf8_lossy(key);
                problems.push(Problem::new(format!("has a tensor whose name is no text: {name:?}")).file(self.index));
                continue;
            };
            if dtype(entry.code).is_none() {
                contents.skipped.insert(name.to_owned(), entry.code);
                continue;
            }
            match self.tensor(name, entry) {
                Ok(tensor) => {
                    contents.tensors.insert(name.to_owned(), tensor);
                }
                Err(error) => problems.extend(error.problems),
            }
        }
        Error::collect(problems)?;
        Ok(contents)
    }

    fn tensor(&self, name: &str, entry: &Entry) -> Result<Tensor, Error> {
        let damaged = |what: String| {
            let problem = Problem::new(format!("tensor {name}: {what}")).file(self.index);
            Error::from(problem.hint("The checkpoint is damaged or its files are not of one save; get it again."))
        };
        let dtype = dtype(entry.code).ok_or_else(|| damaged("its type is unknown".to_owned()))?;
        let storage = if entry.slices.is_empty() {
            self.storage(name, entry, dtype.size())?
        } else {
            let mut pieces = Vec::new();
            for extents in &entry.slices {
                let (start, shape) = slices::resolve(extents, &entry.shape)
                    .ok_or_else(|| damaged(format!("a part lies outside of its shape {:?}", entry.shape)))?;
                let part = self.entries.get(&slices::key(name, extents));
                let part = part.ok_or_else(|| damaged(format!("its part at {start:?} is missing")))?;
                if part.code != entry.code || part.shape != shape {
                    return Err(damaged(format!("its part at {start:?} has another type or shape than announced")));
                }
                pieces.push(Piece { start, shape, storage: self.storage(name, part, dtype.size())? });
            }
            Arc::new(Assembled::new(&entry.shape, dtype.size(), pieces).map_err(damaged)?)
        };
        Tensor::new(dtype, &entry.shape, storage).map_err(damaged)
    }

    /// The bytes of an entry that has no slices.
    fn storage(&self, name: &str, entry: &Entry, element: usize) -> Result<Arc<dyn Storage>, Error> {
        let damaged = |what: String| {
            let problem = Problem::new(format!("tensor {name}: {what}")).file(self.index);
            Error::from(problem.hint("The file is damaged; get it again."))
        };
        let shard = self.shards.get(&entry.shard).zip(entry.span);
        let (file, span) = shard.ok_or_else(|| damaged("its data are nowhere".to_owned()))?;
        let expected = numel(&entry.shape).and_then(|n| n.checked_mul(element));
        if expected.map(|bytes| bytes as u64) != Some(span.len()) {
            let message = format!("shape {:?} does not fit its {} bytes", entry.shape, span.len());
            return Err(damaged(message));
        }
        let label = Label { tensor: name.to_owned(), path: file.path().to_owned() };
        Ok(Arc::new(Checked::new(file.clone(), span, span, entry.crc, label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::checkpoint::Checkpoint;
    use crate::tensorflow::sstable::tests::{mask, table};
    use crate::tensorflow::wire::build::{bytes, fixed32, int};

    type Pair = (Vec<u8>, Vec<u8>);

    fn header(more: &[u8]) -> Pair {
        (Vec::new(), [&int(1, 1), more].concat())
    }

    fn shape(sizes: &[u64]) -> Vec<u8> {
        bytes(2, &sizes.iter().flat_map(|size| bytes(2, &int(1, *size))).collect::<Vec<_>>())
    }

    fn floats(key: &[u8], sizes: &[u64], offset: u64, size: u64, more: &[u8]) -> Pair {
        (key.to_vec(), [&int(1, 1), &shape(sizes), &int(4, offset), &int(5, size), more].concat())
    }

    fn crc(data: &[u8]) -> Vec<u8> {
        fixed32(6, mask(crc32c::crc32c(data)))
    }

    fn open(entries: &[Pair], data: &[u8], snappy: bool) -> Result<Checkpoint, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.index"), table(&[entries.to_vec()], snappy)).unwrap();
        std::fs::write(folder.path().join("x.data-00000-of-00001"), data).unwrap();
        Checkpoint::open(&folder.path().join("x")).map_err(|error| error.to_string())
    }

    #[test]
    fn compressed_indexes() {
        let data: Vec<u8> = [1f32, 2., 3.].iter().flat_map(|x| x.to_le_bytes()).collect();
        let entries = [header(&[]), floats(b"w", &[2], 4, 8, &crc(&data[4..]))];
        for snappy in [false, true] {
            assert_eq!(open(&entries, &data, snappy).unwrap().get("w").unwrap().to_f64().unwrap(), [2., 3.]);
        }
    }

    #[test]
    fn wrong_headers_and_entries() {
        let error = |entries: &[Pair]| open(entries, &[0; 16], false).unwrap_err();
        let good = floats(b"w", &[2], 0, 8, &[]);
        assert!(error(&[header(&int(2, 1)), good.clone()]).contains("big-endian"));
        assert!(error(&[header(&bytes(3, &int(2, 9))), good.clone()]).contains("format version 9"));
        assert!(error(&[good]).contains("there is no header"));
        assert!(error(&[header(&[])]).contains("without variables"));
        assert!(error(&[header(&[]), floats(b"w", &[2], 0, 8, &int(3, 7))]).contains("shard 7 of 1"));
        assert!(error(&[header(&[]), floats(b"w", &[3], 0, 8, &[])]).contains("shape [3] does not fit its 8 bytes"));
        assert!(
            error(&[header(&[]), floats(b"w", &[5], 0, 20, &[])])
                .contains("has 16 of 20 bytes: 1 tensor is cut off, beginning with w")
        );
        assert!(error(&[header(&[]), floats(b"w", &[2], u64::MAX, 8, &[])]).contains("too large"));
        let huge = [1 << 62, 1 << 62];
        assert!(error(&[header(&[]), floats(b"w", &huge, 0, 8, &[])]).contains("does not fit"));
        let both = error(&[header(&[]), floats(b"a", &[9], 0, 8, &[]), floats(b"b", &[9], 0, 8, &[])]);
        assert!(both.contains("tensor a") && both.contains("tensor b"), "all in one run: {both}");
        let cut = error(&[header(&[]), floats(b"a", &[9], 0, 36, &[]), floats(b"b", &[9], 36, 36, &[])]);
        assert!(cut.contains("has 16 of 72 bytes: 2 tensors are cut off, beginning with a"), "{cut}");
    }

    #[test]
    fn slices_must_make_the_whole() {
        let extent = |start, len| bytes(7, &bytes(1, &[int(1, start), int(2, len)].concat()));
        let part = |start, len| floats(&slices::key("w", &[(start, Some(len))]), &[len as u64], 0, 4 * len as u64, &[]);
        let whole = |slices: &[u8]| floats(b"w", &[3], 0, 0, slices);
        let both = [extent(0, 1), extent(1, 2)].concat();
        assert!(open(&[header(&[]), part(0, 1), part(1, 2), whole(&both)], &[0; 8], false).is_ok());
        let error = |entries: &[Pair]| open(entries, &[0; 8], false).unwrap_err();
        assert!(error(&[header(&[]), part(0, 1), whole(&both)]).contains("its part at [1] is missing"));
        assert!(error(&[header(&[]), part(0, 1), whole(&extent(0, 1))]).contains("do not make the whole"));
        assert!(error(&[header(&[]), part(0, 1), whole(&extent(0, 4))]).contains("outside of its shape [3]"));
    }
}
