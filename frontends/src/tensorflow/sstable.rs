//! The sorted-string table of LevelDB, as TensorFlow writes it: `.index` files, and whole checkpoints of version 1.
//!
//! A table is blocks of sorted (key, value) entries, an index block with a handle (offset, size) for every block, and
//! a footer with the index block's handle. Each block is followed by a byte for its compression and a crc32c. Format:
//! `tsl/lib/io/{format,block,table}.cc`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelport_ir::tensor::{FileBytes, Storage};
use modelport_ir::{Error, Problem, Result};

use super::wire::{self, Malformed, Part, Reader, Span};
use crate::kind;

const MAGIC: [u8; 8] = [0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb];
const FOOTER: u64 = 48;
/// Compression byte and checksum.
const TRAILER: u64 = 5;
/// Bytes that are read at once while a checksum is computed.
const CHUNK: usize = 256 << 10;
/// Every 16th key is written out, so keys can't be much larger together than their block.
const MAX_KEYS_PER_BLOCK_BYTE: u64 = 64;

/// Whether a file ends like a table.
pub(crate) fn has_magic(source: &dyn Storage) -> bool {
    let mut magic = [0; 8];
    let start = source.len().checked_sub(FOOTER);
    start.is_some_and(|start| source.read_at(start + FOOTER - 8, &mut magic).is_ok()) && magic == MAGIC
}

/// Where a block is.
#[derive(Clone, Copy, Debug)]
struct Handle {
    span: Span,
}

/// A block whose entries can be read.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The entries and their restart points, uncompressed.
    pub source: Arc<dyn Storage>,
    /// For an uncompressed block: where it and its compression byte are in the file, and their crc32c (not masked).
    pub raw: Option<(Span, u32)>,
}

/// An open table.
#[derive(Debug)]
pub(super) struct Table {
    file: Arc<FileBytes>,
    path: PathBuf,
    blocks: Vec<Handle>,
}

impl Table {
    /// Opens a table and reads its index.
    pub fn open(path: &Path) -> Result<Table> {
        let file = FileBytes::open(path).map_err(|error| kind::unreadable(path, &error))?;
        let mut table = Table { file, path: path.to_owned(), blocks: Vec::new() };
        table.blocks = table.index().map_err(|error| table.error(error))?;
        Ok(table)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &Arc<FileBytes> {
        &self.file
    }

    /// An error in this table.
    pub fn error(&self, error: Malformed) -> Error {
        error.in_file(&self.path, "checkpoint")
    }

    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    fn index(&self) -> wire::Result<Vec<Handle>> {
        let len = self.file.len();
        if !has_magic(&*self.file) {
            return Err(Malformed::new(len, "the end of the table is missing"));
        }
        let mut reader = Reader::new(self.file.clone());
        let end = len - 8;
        reader.seek(len - FOOTER);
        self.handle(&mut reader, end)?; // of the meta index, which is empty
        let index = self.handle(&mut reader, end)?;
        let block = self.read_block(index)?;
        let mut handles = Vec::new();
        block.entries(|_, value, reader| {
            reader.seek(value.start);
            handles.push(self.handle(reader, value.end)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(handles)
    }

    fn handle(&self, reader: &mut Reader, end: u64) -> wire::Result<Handle> {
        let at = reader.position();
        let start = reader.varint(end)?;
        let size = reader.varint(end)?;
        let limit = self.file.len() - FOOTER;
        let end = start.checked_add(size).filter(|end| end.checked_add(TRAILER).is_some_and(|end| end <= limit));
        match end {
            Some(end) => Ok(Handle { span: Span { start, end } }),
            None => Err(Malformed::new(at, format!("a block of {size} bytes at {start} lies outside of the file"))),
        }
    }

    /// Block `i`, decompressed if need be, and its checksum verified: the way for small blocks.
    pub fn block(&self, i: usize) -> wire::Result<Block> {
        self.read_block(self.get(i)?)
    }

    fn get(&self, i: usize) -> wire::Result<Handle> {
        self.blocks.get(i).copied().ok_or_else(|| Malformed::new(0, "no such block"))
    }

    fn read_block(&self, handle: Handle) -> wire::Result<Block> {
        let block = self.open_block(handle)?;
        if let Some((covered, expected)) = block.raw {
            let crc = crc_of(&*self.file, covered, 0);
            let crc = crc.map_err(|error| Malformed::new(covered.start, format!("can't be read ({error})")))?;
            if crc != expected {
                return Err(wrong_checksum(covered));
            }
        }
        Ok(block)
    }

    /// Block `i` without verification if it is not compressed: the way for blocks with tensors, which are verified
    /// when those are read.
    pub fn unverified_block(&self, i: usize) -> wire::Result<Block> {
        self.open_block(self.get(i)?)
    }

    fn open_block(&self, Handle { span }: Handle) -> wire::Result<Block> {
        let mut reader = Reader::new(self.file.clone());
        reader.seek(span.end);
        let [compression, checksum @ ..] = reader.fixed::<5>(span.end + TRAILER)?;
        let expected = unmask(u32::from_le_bytes(checksum));
        match compression {
            0 => {
                let part = Part::new(self.file.clone(), span);
                let part = part.ok_or_else(|| Malformed::new(span.start, "a block lies outside of the file"))?;
                Ok(Block { source: Arc::new(part), raw: Some((Span { end: span.end + 1, ..span }, expected)) })
            }
            1 => {
                let bytes = reader.bytes(Span { end: span.end + 1, ..span })?;
                if crc32c::crc32c(&bytes) != expected {
                    return Err(wrong_checksum(span));
                }
                let source = Arc::new(decompress(bytes.get(..bytes.len() - 1).unwrap_or_default(), span)?);
                Ok(Block { source, raw: None })
            }
            other => Err(Malformed::new(span.end, format!("a block has the unknown compression {other}"))),
        }
    }
}

fn wrong_checksum(span: Span) -> Malformed {
    Malformed::new(span.start, "a block does not match its checksum (crc32c)")
}

/// A crc32c from how it is stored: rotated and moved, so that a checksum of checksums stays meaningful.
pub(super) fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// Snappy makes at most 64 bytes of 3.
fn decompress(bytes: &[u8], span: Span) -> wire::Result<Vec<u8>> {
    let broken = |what: String| Malformed::new(span.start, what);
    let len = snap::raw::decompress_len(bytes).map_err(|error| broken(format!("snappy: {error}")))?;
    if len / 22 > bytes.len() {
        return Err(broken(format!("{} compressed bytes claim to be {len}", bytes.len())));
    }
    snap::raw::Decoder::new().decompress_vec(bytes).map_err(|error| broken(format!("snappy: {error}")))
}

impl Block {
    /// Calls `each` with every key and the place of its value in [`Block::source`]. Values are not read; `each` may
    /// read anywhere.
    pub fn entries(
        &self,
        mut each: impl FnMut(&[u8], Span, &mut Reader) -> wire::Result<ControlFlow<()>>,
    ) -> wire::Result<()> {
        let mut reader = Reader::new(self.source.clone());
        let len = self.source.len();
        let malformed = |at: u64, what: &str| Malformed::new(at, format!("{what} in a block"));
        let count_at = len.checked_sub(4).ok_or_else(|| malformed(0, "too few bytes"))?;
        reader.seek(count_at);
        let restarts = 4 * u64::from(u32::from_le_bytes(reader.fixed(len)?));
        let end = count_at.checked_sub(restarts).ok_or_else(|| malformed(count_at, "too many restart points"))?;
        let mut key: Vec<u8> = Vec::new();
        let mut previous: Option<Vec<u8>> = None;
        let mut key_bytes = 0u64;
        let mut next = 0;
        while next < end {
            reader.seek(next);
            let shared = reader.varint(end)?;
            let own = reader.varint(end)?;
            let value_len = reader.varint(end)?;
            let start = reader.position();
            let value_start = start.checked_add(own).filter(|value| *value <= end);
            let value_start = value_start.ok_or_else(|| malformed(next, "a key too long"))?;
            let value_end = value_start.checked_add(value_len).filter(|value| *value <= end);
            let value_end = value_end.ok_or_else(|| malformed(next, "a value too long"))?;
            let shared = usize::try_from(shared).ok().filter(|shared| *shared <= key.len());
            key.truncate(shared.ok_or_else(|| malformed(next, "a key that shares too much"))?);
            key.extend(reader.bytes(Span { start, end: value_start })?);
            key_bytes = key_bytes.saturating_add(key.len() as u64);
            if key_bytes > MAX_KEYS_PER_BLOCK_BYTE.saturating_mul(len) {
                return Err(malformed(next, "keys too long"));
            }
            if previous.as_ref().is_some_and(|previous| *previous >= key) {
                return Err(malformed(next, "keys out of order"));
            }
            if each(&key, Span { start: value_start, end: value_end }, &mut reader)?.is_break() {
                break;
            }
            previous.get_or_insert_default().clone_from(&key);
            next = value_end;
        }
        Ok(())
    }
}

/// The crc32c of a part of a storage that continues `crc`.
pub(super) fn crc_of(source: &dyn Storage, span: Span, mut crc: u32) -> std::io::Result<u32> {
    let mut buffer = vec![0; span.len().min(CHUNK as u64) as usize];
    let mut at = span.start;
    while at < span.end {
        let chunk = (span.end - at).min(CHUNK as u64) as usize;
        let chunk = buffer.get_mut(..chunk).unwrap_or_default();
        source.read_at(at, chunk)?;
        crc = crc32c::crc32c_append(crc, chunk);
        at += chunk.len() as u64;
    }
    Ok(crc)
}

/// The problem that a checkpoint has no table at its end, with what the file is instead if that is known.
pub(super) fn no_table(path: &Path) -> Problem {
    let kind = FileBytes::open(path).and_then(|file| kind::of(file));
    match kind {
        Ok(kind::Kind::Unknown) => Problem::new("is no intact checkpoint: the end of the table is missing")
            .file(path)
            .hint("The file is damaged or was not copied completely; get it again."),
        Ok(kind) => kind.not_a_checkpoint(path),
        Err(error) => kind::unreadable(path, &error),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tensorflow::checkpoint::Checkpoint;
    use crate::tensorflow::wire::build::varint;
    use std::io::Write;

    pub fn mask(crc: u32) -> u32 {
        crc.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    /// A block of entries that share as much as they can.
    fn block(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut last: &[u8] = &[];
        for (key, value) in entries {
            let shared = key.iter().zip(last).take_while(|(a, b)| a == b).count();
            for len in [shared, key.len() - shared, value.len()] {
                out.extend(varint(len as u64));
            }
            out.extend(&key[shared..]);
            out.extend(value);
            last = key;
        }
        out.extend([0u32.to_le_bytes(), 1u32.to_le_bytes()].concat());
        out
    }

    fn append(file: &mut Vec<u8>, block: &[u8], snappy: bool) -> Vec<u8> {
        let mut stored = if snappy { snap::raw::Encoder::new().compress_vec(block).unwrap() } else { block.to_vec() };
        let handle = [varint(file.len() as u64), varint(stored.len() as u64)].concat();
        stored.push(u8::from(snappy));
        let crc = mask(crc32c::crc32c(&stored));
        file.extend(&stored);
        file.extend(crc.to_le_bytes());
        handle
    }

    /// A table of blocks of entries.
    pub fn table(blocks: &[Vec<(Vec<u8>, Vec<u8>)>], snappy: bool) -> Vec<u8> {
        let mut file = Vec::new();
        let index: Vec<_> = blocks
            .iter()
            .map(|entries| (entries.last().unwrap().0.clone(), append(&mut file, &block(entries), snappy)))
            .collect();
        let mut footer = append(&mut file, &block(&[]), false);
        footer.extend(append(&mut file, &block(&index), snappy));
        footer.resize(40, 0);
        footer.extend(MAGIC);
        file.extend(footer);
        file
    }

    /// A file with these bytes.
    pub fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let file = file(bytes);
        let table = Table::open(file.path())?;
        let mut entries = Vec::new();
        for i in 0..table.block_count() {
            let block = table.block(i).map_err(|error| table.error(error))?;
            let read = block.entries(|key, value, reader| {
                entries.push((key.to_vec(), reader.bytes(value)?));
                Ok(ControlFlow::Continue(()))
            });
            read.map_err(|error| table.error(error))?;
        }
        Ok(entries)
    }

    fn entry(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (key.into(), value.into())
    }

    #[test]
    fn entries_come_back_in_order() {
        let blocks = vec![
            vec![entry("", "header"), entry("conv/bias", "1"), entry("conv/kernel", &"2".repeat(300))],
            vec![entry("dense", "")],
        ];
        for snappy in [false, true] {
            assert_eq!(read(&table(&blocks, snappy)).unwrap(), blocks.concat());
        }
    }

    #[test]
    fn damage_is_found() {
        let good = table(&[vec![entry("a", "one"), entry("ab", "two")]], false);
        for end in 0..good.len() {
            assert!(read(&good[..end]).is_err(), "cut at {end}");
        }
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x11;
            match read(&bad) {
                Err(_) => {}
                // The meta index and the padding are not used.
                Ok(entries) => assert_eq!(entries.len(), 2, "byte {i}"),
            }
        }
    }

    #[test]
    fn keys_must_be_sorted() {
        let error = read(&table(&[vec![entry("b", ""), entry("a", "")]], false)).unwrap_err();
        assert!(error.to_string().contains("keys out of order"), "{error}");
    }

    /// Entries that lie, under checksums that do not tell.
    #[test]
    fn forged_tables_never_panic() {
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints");
        let data = std::fs::read(fixtures.join("one_shard/model.ckpt.data-00000-of-00001")).unwrap();
        for name in ["one_shard/model.ckpt.index", "tiles/model.ckpt.index", "version1/model.ckpt"] {
            let table = Table::open(&fixtures.join(name)).unwrap();
            let good = std::fs::read(table.path()).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(Path::new(name).file_name().unwrap());
            std::fs::write(folder.path().join("model.ckpt.data-00000-of-00001"), &data).unwrap();
            let mut opened = 0;
            for _ in 0..400 {
                let mut bad = good.clone();
                let Span { start, end } = table.blocks[random(table.block_count())].span;
                for _ in 0..=random(3) {
                    bad[start as usize + random((end - start) as usize)] =
                        [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
                }
                let crc = mask(crc32c::crc32c(&bad[start as usize..end as usize + 1]));
                bad[end as usize + 1..end as usize + 5].copy_from_slice(&crc.to_le_bytes());
                // Some file systems flush a file that is truncated and written again.
                let _ = std::fs::remove_file(&path);
                std::fs::write(&path, &bad).unwrap();
                if let Ok(checkpoint) = Checkpoint::open(&path) {
                    opened += 1;
                    let _ = checkpoint.verify();
                }
            }
            assert!(opened > 5, "{name}: {opened}");
        }
    }

    #[test]
    fn checksums_are_those_of_tensorflow() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(unmask(mask(0xe306_9283)), 0xe306_9283);
        assert_eq!(mask(0), 0xa282_ead8);
    }
}
