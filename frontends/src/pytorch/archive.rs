//! Zip archives, read through their central directory: what `torch.save`, `torch.jit.save`, `torch.export.save` and
//! `numpy.savez` write.
//!
//! Stored entries are ranges of the file; deflated ones are inflated while they are read. Everything that an archive
//! declares is checked against the file, and nothing is ever unpacked to disk.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use flate2::{Decompress, FlushDecompress, Status};
use indexmap::IndexMap;
use modelport_ir::tensor::{Storage, range};

/// Bytes that may follow the directory: its end record with a comment.
const MAX_END: u64 = (1 << 16) + 22;
/// Smallest record of the directory.
const RECORD: u64 = 46;
/// Most bytes of all records of the directory together.
const MAX_DIRECTORY: u64 = 1 << 28;
/// Deflate can't do better than this.
const MAX_RATIO: u64 = 1032;

/// An archive of which nothing but the directory has been read.
#[derive(Clone)]
pub struct Archive {
    file: Arc<dyn Storage>,
    entries: IndexMap<String, Entry>,
    root: String,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its local header is, and then where its data is.
    start: u64,
    /// Bytes in the file.
    packed: u64,
    /// Bytes when it is unpacked.
    size: u64,
    method: u16,
}

impl Archive {
    /// Reads the directory.
    ///
    /// # Errors
    /// One sentence that goes on from the file's name: it is no archive, is cut short, or says what can't be.
    pub fn open(file: Arc<dyn Storage>) -> Result<Archive, String> {
        let (start, len, count) = directory(&*file)?;
        if len > MAX_DIRECTORY || len / RECORD < count {
            return Err(format!("is a damaged zip archive: {count} entries are announced in {len} bytes"));
        }
        let bytes = read(&*file, start, len)?;
        let mut entries = IndexMap::new();
        let mut rest = Fields(&bytes);
        for _ in 0..count {
            let (name, entry) = rest.record().ok_or("is a damaged zip archive: its directory is cut short")??;
            if let Some(why) = unsafe_name(&name) {
                return Err(format!("has an entry named {name:?}, which {why}"));
            }
            if entries.insert(name.clone(), entry).is_some() {
                return Err(format!("has two entries named {name:?}"));
            }
        }
        locate(&*file, &mut entries, start)?;
        let root = root(&entries);
        Ok(Archive { file, entries, root })
    }

    /// The folder that all entries are in, with a slash at its end; empty if there is none.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The names of all files, without the root, in the order of the directory.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().filter_map(|name| name.strip_prefix(&self.root)).filter(|name| !name.ends_with('/'))
    }

    /// Whether there is a file of this name, without the root.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether a file is compressed.
    pub fn is_packed(&self, name: &str) -> bool {
        self.find(name).is_some_and(|entry| entry.method != 0)
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.get(&format!("{}{name}", self.root))
    }

    /// The content of a file, which is read when it is used.
    ///
    /// # Errors
    /// When there is none of this name, or it is packed in a way that is not known.
    pub fn entry(&self, name: &str) -> Result<Arc<dyn Storage>, String> {
        let entry = self.find(name).ok_or_else(|| format!("{}{name} is missing in it", self.root))?;
        let packed = range(&self.file, entry.start, entry.packed).map_err(|error| error.to_string())?;
        match entry.method {
            0 => Ok(packed),
            8 => Ok(Arc::new(Deflated { packed, size: entry.size, state: Mutex::new(None) })),
            method => Err(format!("{}{name} is compressed in a way that is not known ({method})", self.root)),
        }
    }

    /// The content of a small file.
    ///
    /// # Errors
    /// As [`Archive::entry`], and when it has more than `limit` bytes.
    pub fn bytes(&self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        let entry = self.entry(name)?;
        let len = entry.len();
        if len > limit {
            return Err(format!("{}{name} has {len} bytes, at most {limit} make sense", self.root));
        }
        read(&*entry, 0, len).map_err(|error| format!("{}{name} {error}", self.root))
    }

    /// The content of a small file of text.
    ///
    /// # Errors
    /// As [`Archive::bytes`], and when it is not UTF-8.
    pub fn text(&self, name: &str, limit: u64) -> Result<String, String> {
        String::from_utf8(self.bytes(name, limit)?).map_err(|_| format!("{}{name} is not UTF-8", self.root))
    }
}

fn read(from: &dyn Storage, start: u64, len: u64) -> Result<Vec<u8>, String> {
    if start.checked_add(len).is_none_or(|end| end > from.len()) {
        return Err("is cut short".to_owned());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|error| error.to_string())?];
    from.read_at(start, &mut bytes).map_err(|error| format!("can't be read: {error}"))?;
    Ok(bytes)
}

/// Start, length and number of records of the directory.
fn directory(file: &dyn Storage) -> Result<(u64, u64, u64), String> {
    let from = file.len().saturating_sub(MAX_END);
    let tail = read(file, from, file.len() - from)?;
    let at = tail.windows(4).rposition(|window| window == b"PK\x05\x06");
    let at = at.ok_or("is a zip archive whose end is missing; get it again")?;
    let mut end = Fields(tail.get(at + 4..).unwrap_or_default());
    let short = || "is a zip archive whose end is cut short; get it again".to_owned();
    end.skip(6).ok_or_else(short)?;
    let count = u64::from(end.u16().ok_or_else(short)?);
    let len = u64::from(end.u32().ok_or_else(short)?);
    let start = u64::from(end.u32().ok_or_else(short)?);
    if count != 0xffff && len != 0xffff_ffff && start != 0xffff_ffff {
        return Ok((start, len, count));
    }
    // The record with 64-bit numbers, which a locator before the end record points at.
    let locator = from + at as u64;
    let Some(locator) = locator.checked_sub(20) else { return Ok((start, len, count)) };
    let locator = read(file, locator, 20)?;
    let mut fields = Fields(&locator);
    if fields.u32() != Some(0x0706_4b50) {
        return Ok((start, len, count));
    }
    fields.skip(4).ok_or_else(short)?;
    let record = read(file, fields.u64().ok_or_else(short)?, 56)?;
    let mut fields = Fields(&record);
    if fields.u32() != Some(0x0606_4b50) {
        return Err("is a damaged zip archive: its 64-bit end record is missing".to_owned());
    }
    fields.skip(28).ok_or_else(short)?;
    let (count, len, start) = (fields.u64(), fields.u64(), fields.u64());
    Ok((start.ok_or_else(short)?, len.ok_or_else(short)?, count.ok_or_else(short)?))
}

/// Finds where the data of all entries is, and sees that none shares bytes with another.
fn locate(file: &dyn Storage, entries: &mut IndexMap<String, Entry>, directory: u64) -> Result<(), String> {
    let mut ranges = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let header = entry.start;
        let damaged = |what: &str| format!("is a damaged zip archive: the entry {name} {what}");
        let bytes = read(file, header, 30).map_err(|error| damaged(&error))?;
        let mut fields = Fields(&bytes);
        if fields.u32() != Some(0x0403_4b50) {
            return Err(damaged("has no header"));
        }
        fields.skip(22);
        let lengths = fields.u16().zip(fields.u16());
        let (name_len, extra) = lengths.ok_or_else(|| damaged("is cut short"))?;
        entry.start = header + 30 + u64::from(name_len) + u64::from(extra);
        let end = entry.start.checked_add(entry.packed).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| damaged("is cut short"))?;
        if entry.method == 0 && entry.packed != entry.size || entry.size / MAX_RATIO > entry.packed {
            return Err(damaged(&format!("can't have {} bytes in {}", entry.size, entry.packed)));
        }
        ranges.push((header, end, name.as_str()));
    }
    ranges.push((directory, directory, "directory"));
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if let [(_, end, a), (start, _, b)] = pair
            && end > start
        {
            return Err(format!("is a damaged zip archive: {a} and {b} overlap"));
        }
    }
    Ok(())
}

/// What is wrong with a name that would lead out of the archive if it were unpacked.
fn unsafe_name(name: &str) -> Option<&'static str> {
    if name.starts_with(['/', '\\']) || name.as_bytes().get(1) == Some(&b':') {
        return Some("is an absolute path");
    }
    name.split(['/', '\\']).any(|part| part == "..").then_some("leads out of the archive")
}

fn root(entries: &IndexMap<String, Entry>) -> String {
    let first = entries.keys().next().and_then(|name| Some(name.get(..=name.find('/')?)?.to_owned()));
    first.filter(|root| entries.keys().all(|name| name.starts_with(root.as_str()))).unwrap_or_default()
}

/// Little-endian numbers, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.take(len).map(|_| ())
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// A record of the directory; `None` when it is cut short.
    fn record(&mut self) -> Option<Result<(String, Entry), String>> {
        if self.u32()? != 0x0201_4b50 {
            return Some(Err("is a damaged zip archive: its directory has something else in it".to_owned()));
        }
        self.skip(4)?;
        let (flags, method) = (self.u16()?, self.u16()?);
        self.skip(8)?;
        let (packed, size) = (self.u32()?, self.u32()?);
        let (name, extra, comment) = (self.u16()?, self.u16()?, self.u16()?);
        self.skip(8)?;
        let start = self.u32()?;
        let name = String::from_utf8_lossy(self.take(name.into())?).into_owned();
        let mut extra = Fields(self.take(extra.into())?);
        self.skip(comment.into())?;
        if flags & 1 != 0 {
            return Some(Err(format!("has an entry {name} that is encrypted")));
        }
        let [mut size, mut packed, mut start] = [size, packed, start].map(u64::from);
        while let Some((id, len)) = extra.u16().zip(extra.u16()) {
            let mut field = Fields(extra.take(len.into())?);
            if id != 1 {
                continue;
            }
            for number in [&mut size, &mut packed, &mut start] {
                if *number == 0xffff_ffff {
                    *number = field.u64()?;
                }
            }
        }
        Some(Ok((name, Entry { start, packed, size, method })))
    }
}

/// An entry that is inflated while it is read: reading goes forwards, or starts again.
struct Deflated {
    packed: Arc<dyn Storage>,
    size: u64,
    state: Mutex<Option<Inflater>>,
}

struct Inflater {
    decompress: Decompress,
    /// Bytes of the packed data that have been read.
    read: u64,
    /// Those of them that are not yet used.
    input: Vec<u8>,
    used: usize,
    /// Bytes that have come out.
    position: u64,
}

impl fmt::Debug for Deflated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deflated({} bytes)", self.size)
    }
}

impl Storage for Deflated {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut state = self.state.lock().map_err(|_| io::Error::other("another reader failed"))?;
        let inflater = match &mut *state {
            Some(inflater) if inflater.position <= offset => inflater,
            other => other.insert(Inflater {
                decompress: Decompress::new(false),
                read: 0,
                input: Vec::new(),
                used: 0,
                position: 0,
            }),
        };
        let mut skipped = vec![0; (offset - inflater.position).min(1 << 16) as usize];
        while inflater.position < offset {
            let part = (offset - inflater.position).min(skipped.len() as u64) as usize;
            inflater.fill(&*self.packed, skipped.get_mut(..part).unwrap_or_default())?;
        }
        inflater.fill(&*self.packed, buffer)
    }
}

impl Inflater {
    fn fill(&mut self, packed: &dyn Storage, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            if self.used == self.input.len() {
                let len = (packed.len() - self.read).min(1 << 16);
                self.input.resize(len as usize, 0);
                packed.read_at(self.read, &mut self.input)?;
                self.read += len;
                self.used = 0;
            }
            let (before_in, before_out) = (self.decompress.total_in(), self.decompress.total_out());
            let input = self.input.get(self.used..).unwrap_or_default();
            let status = self.decompress.decompress(input, buffer, FlushDecompress::None);
            let status = status.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let taken = (self.decompress.total_in() - before_in) as usize;
            let made = (self.decompress.total_out() - before_out) as usize;
            self.used += taken;
            self.position += made as u64;
            buffer = buffer.get_mut(made..).unwrap_or_default();
            let is_over = status == Status::StreamEnd || taken == 0 && made == 0;
            if is_over && !buffer.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}
