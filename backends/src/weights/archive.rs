//! Zip archives of stored entries whose data is aligned, as `torch.load` maps them; of any size (zip64).
//!
//! Headers say the sizes, which are known before the data, and get the checksums afterwards. The writer only goes
//! forwards: what must be written into places that it has left is returned as patches.

use std::io::{self, Write};

/// Alignment of every entry's data, as `torch.save` has it.
const ALIGNMENT: u64 = 64;
/// Sizes and offsets from here on are written in 64 bits.
const LARGE: u64 = u32::MAX as u64;
/// The extra field that `torch.save` pads with.
const PADDING: u16 = 0x4246;
/// 1980-01-01, the first day that zip knows: files do not depend on the clock.
const DATE: u16 = 1 << 5 | 1;
/// Names are UTF-8.
const FLAGS: u16 = 1 << 11;

/// Bytes to write at a place that was written before.
#[derive(Debug)]
pub struct Patch {
    pub offset: u64,
    pub bytes: [u8; 4],
}

struct Entry {
    name: String,
    crc: u32,
    size: u64,
    offset: u64,
}

/// An archive that is being written.
pub struct Archive<'a> {
    out: &'a mut dyn Write,
    position: u64,
    entries: Vec<Entry>,
}

impl<'a> Archive<'a> {
    pub fn new(out: &'a mut dyn Write) -> Self {
        Archive { out, position: 0, entries: Vec::new() }
    }

    /// Adds an entry; `data` writes exactly `size` bytes.
    pub fn add(
        &mut self,
        name: &str,
        size: u64,
        data: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let offset = self.position;
        let header = local_header(name, size, offset)?;
        self.put(&header)?;
        let mut checked = Checked { out: &mut *self.out, crc: crc32fast::Hasher::new(), len: 0 };
        data(&mut checked)?;
        if checked.len != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} bytes for {name}, expected {size}", checked.len),
            ));
        }
        let crc = checked.crc.finalize();
        self.position += size;
        self.entries.push(Entry { name: name.to_owned(), crc, size, offset });
        Ok(())
    }

    /// Writes the directory. The patches are the checksums in the headers.
    pub fn finish(mut self) -> io::Result<Vec<Patch>> {
        let start = self.position;
        for entry in std::mem::take(&mut self.entries) {
            let record = central_header(&entry)?;
            self.put(&record)?;
            self.entries.push(entry);
        }
        let size = self.position - start;
        let count = self.entries.len() as u64;
        let mut end = Vec::new();
        if count >= u64::from(u16::MAX) || start >= LARGE || size >= LARGE {
            u32s(&mut end, &[0x0606_4b50]);
            u64s(&mut end, &[44]);
            u16s(&mut end, &[45, 45]);
            u32s(&mut end, &[0, 0]);
            u64s(&mut end, &[count, count, size, start]);
            u32s(&mut end, &[0x0706_4b50, 0]);
            u64s(&mut end, &[self.position]);
            u32s(&mut end, &[1]);
        }
        u32s(&mut end, &[0x0605_4b50]);
        let short = u16::try_from(count).unwrap_or(u16::MAX);
        u16s(&mut end, &[0, 0, short, short]);
        u32s(&mut end, &[low(size), low(start)]);
        u16s(&mut end, &[0]);
        self.put(&end)?;
        let patches = self.entries.iter();
        Ok(patches.map(|entry| Patch { offset: entry.offset + 14, bytes: entry.crc.to_le_bytes() }).collect())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

fn local_header(name: &str, size: u64, offset: u64) -> io::Result<Vec<u8>> {
    let mut extra = Vec::new();
    if size >= LARGE {
        u16s(&mut extra, &[1, 16]);
        u64s(&mut extra, &[size, size]);
    }
    let unpadded = offset + (30 + name.len() + extra.len() + 4) as u64;
    let padding = (unpadded.next_multiple_of(ALIGNMENT) - unpadded) as u16;
    u16s(&mut extra, &[PADDING, padding]);
    extra.extend(std::iter::repeat_n(b'Z', padding.into()));

    let mut header = Vec::with_capacity(30 + name.len() + extra.len());
    u32s(&mut header, &[0x0403_4b50]);
    u16s(&mut header, &[version(size), FLAGS, 0, 0, DATE]);
    u32s(&mut header, &[0, low(size), low(size)]);
    u16s(&mut header, &[name_len(name)?, extra.len() as u16]);
    header.extend(name.as_bytes());
    header.extend(extra);
    Ok(header)
}

fn central_header(entry: &Entry) -> io::Result<Vec<u8>> {
    let Entry { name, crc, size, offset } = entry;
    let mut extra = Vec::new();
    if *size >= LARGE {
        u64s(&mut extra, &[*size, *size]);
    }
    if *offset >= LARGE {
        u64s(&mut extra, &[*offset]);
    }
    if !extra.is_empty() {
        let mut field = Vec::new();
        u16s(&mut field, &[1, extra.len() as u16]);
        field.append(&mut extra);
        extra = field;
    }
    let version = version((*size).max(*offset));
    let mut header = Vec::with_capacity(46 + name.len() + extra.len());
    u32s(&mut header, &[0x0201_4b50]);
    u16s(&mut header, &[version, version, FLAGS, 0, 0, DATE]);
    u32s(&mut header, &[*crc, low(*size), low(*size)]);
    u16s(&mut header, &[name_len(name)?, extra.len() as u16, 0, 0, 0]);
    u32s(&mut header, &[0, low(*offset)]);
    header.extend(name.as_bytes());
    header.extend(extra);
    Ok(header)
}

/// The version of the format that is needed to read an entry: 4.5 where there are 64-bit sizes.
fn version(largest: u64) -> u16 {
    if largest >= LARGE { 45 } else { 20 }
}

fn name_len(name: &str) -> io::Result<u16> {
    u16::try_from(name.len()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a name is too long"))
}

/// The number in 32 bits, or the sign that it is elsewhere in 64.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn u16s(out: &mut Vec<u8>, numbers: &[u16]) {
    out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
}

fn u32s(out: &mut Vec<u8>, numbers: &[u32]) {
    out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
}

fn u64s(out: &mut Vec<u8>, numbers: &[u64]) {
    out.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
}

struct Checked<'a> {
    out: &'a mut dyn Write,
    crc: crc32fast::Hasher,
    len: u64,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.crc.update(bytes.get(..written).unwrap_or_default());
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
