//! Protocol buffers' wire format, read by position through a small window: what nobody asks for is never read.
//!
//! A length-delimited field is handed out as a [`Span`] that lies inside of its message. The reader of a message
//! decides whether to descend into it, to copy it, or to keep it as a lazy storage, so that a graph with gigabytes of
//! constants takes milliseconds and no memory.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use modelport_ir::tensor::Storage;
use modelport_ir::{Error, Problem};

/// Messages inside of messages. TensorFlow's graphs have about ten.
const MAX_DEPTH: usize = 64;
/// Bytes that are read at once: a node without its constant fits.
const WINDOW: usize = 8 << 10;

/// What is wrong with the bytes, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Offset of the byte, from the start of what was read.
    pub at: u64,
    /// What was found.
    pub what: String,
}

impl Malformed {
    /// Something wrong at byte `at`.
    pub fn new(at: u64, what: impl Into<String>) -> Self {
        Malformed { at, what: what.into() }
    }

    /// The same as an error of modelport's: `what` the file should have been.
    pub fn in_file(self, file: &Path, what: &str) -> Error {
        Problem::new(format!("is no intact {what}: {self}"))
            .file(file)
            .hint("The file is damaged or was not copied completely; get it again.")
            .into()
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.what, self.at)
    }
}

/// Result of reading.
pub type Result<T> = std::result::Result<T, Malformed>;

/// Bytes `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last byte.
    pub end: u64,
}

impl Span {
    /// Number of bytes.
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether there are no bytes.
    pub fn is_empty(self) -> bool {
        self.end == self.start
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Integers, enums, bools.
    Varint(u64),
    /// `fixed64`, `double`.
    Fixed64(u64),
    /// `fixed32`, `float`.
    Fixed32(u32),
    /// Strings, bytes, messages, packed numbers.
    Bytes(Span),
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// Offset of its tag.
    pub at: u64,
    /// Its value.
    pub value: Value,
}

impl Field {
    fn unexpected(&self, expected: &str) -> Malformed {
        Malformed::new(self.at, format!("field {} is no {expected}", self.number))
    }

    /// The bytes of a length-delimited field.
    ///
    /// # Errors
    /// When it is of another kind.
    pub fn span(&self) -> Result<Span> {
        match self.value {
            Value::Bytes(span) => Ok(span),
            _ => Err(self.unexpected("bytes")),
        }
    }

    /// An integer. Negative ones come as their 64-bit two's complement.
    ///
    /// # Errors
    /// When it is of another kind.
    pub fn int(&self) -> Result<i64> {
        match self.value {
            Value::Varint(value) => Ok(value as i64),
            _ => Err(self.unexpected("integer")),
        }
    }

    /// A `fixed32`, or the bits of a `float`.
    ///
    /// # Errors
    /// When it is of another kind.
    pub fn fixed32(&self) -> Result<u32> {
        match self.value {
            Value::Fixed32(bits) => Ok(bits),
            _ => Err(self.unexpected("32-bit number")),
        }
    }
}

/// Reads varints, fields and bytes at any position of a storage.
#[derive(Debug)]
pub struct Reader {
    source: Arc<dyn Storage>,
    window: Vec<u8>,
    window_start: u64,
    position: u64,
    depth: usize,
}

impl Reader {
    /// A reader at the start of `source`.
    pub fn new(source: Arc<dyn Storage>) -> Reader {
        Reader { source, window: Vec::new(), window_start: 0, position: 0, depth: 0 }
    }

    /// All of the source.
    pub fn whole(&self) -> Span {
        Span { start: 0, end: self.source.len() }
    }

    /// Where the next byte comes from.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to another position. Nothing is read.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// A part of the source, to be read later.
    pub fn part(&self, span: Span) -> Arc<dyn Storage> {
        Arc::new(Part { source: self.source.clone(), span })
    }

    /// Calls `each` with every field of the message in `span`. `each` may read elsewhere.
    ///
    /// # Errors
    /// When the message is malformed, or `each` fails.
    pub fn fields(&mut self, span: Span, mut each: impl FnMut(&mut Reader, Field) -> Result<()>) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(Malformed::new(span.start, "messages are nested too deeply"));
        }
        self.depth += 1;
        let mut next = span.start;
        let mut result = Ok(());
        while next < span.end && result.is_ok() {
            self.position = next;
            result = self.field(span.end).and_then(|field| {
                next = self.position;
                each(self, field)
            });
        }
        self.depth -= 1;
        result
    }

    /// The field at the position; the position moves behind it.
    fn field(&mut self, end: u64) -> Result<Field> {
        let at = self.position;
        let tag = self.varint(end)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number != 0);
        let number = number.ok_or_else(|| Malformed::new(at, "no field has this number"))?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint(end)?),
            1 => Value::Fixed64(u64::from_le_bytes(self.fixed(end)?)),
            2 => {
                let len = self.varint(end)?;
                let start = self.position;
                let end = start.checked_add(len).filter(|e| *e <= end).ok_or_else(|| {
                    let left = end.saturating_sub(start);
                    Malformed::new(at, format!("field {number} should have {len} bytes, but {left} are left"))
                })?;
                self.position = end;
                Value::Bytes(Span { start, end })
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.fixed(end)?)),
            kind => return Err(Malformed::new(at, format!("field {number} is of the unknown kind {kind}"))),
        };
        Ok(Field { number, at, value })
    }

    /// The varint at the position, which must end before `end`.
    ///
    /// # Errors
    /// When it does not, or is longer than 64 bits.
    pub fn varint(&mut self, end: u64) -> Result<u64> {
        let at = self.position;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.fixed::<1>(end)?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::new(at, "a number is longer than 64 bits"))
    }

    /// The next `N` bytes, which must end before `end`.
    ///
    /// # Errors
    /// When they do not.
    pub fn fixed<const N: usize>(&mut self, end: u64) -> Result<[u8; N]> {
        let after = self.position.checked_add(N as u64).filter(|after| *after <= end);
        let after = after.ok_or_else(|| Malformed::new(self.position, "the data ends in the middle of a number"))?;
        if self.ahead(N).is_none() {
            self.fill(N)?;
        }
        let bytes = self.ahead(N).and_then(|bytes| bytes.first_chunk()).copied();
        self.position = after;
        bytes.ok_or_else(|| Malformed::new(after, "the data ends in the middle of a number"))
    }

    /// The next `len` bytes, if they are in the window.
    fn ahead(&self, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(self.position.checked_sub(self.window_start)?).ok()?;
        self.window.get(start..start.checked_add(len)?)
    }

    fn fill(&mut self, at_least: usize) -> Result<()> {
        let left = self.source.len().saturating_sub(self.position);
        if left < at_least as u64 {
            return Err(Malformed::new(self.position, "the data ends in the middle of a number"));
        }
        self.window.resize(left.min(WINDOW as u64) as usize, 0);
        self.window_start = self.position;
        let read = self.source.read_at(self.position, &mut self.window);
        read.map_err(|error| {
            self.window.clear();
            Malformed::new(self.position, format!("can't be read ({error})"))
        })
    }

    /// A copy of the bytes.
    ///
    /// # Errors
    /// When they are not there.
    pub fn bytes(&mut self, span: Span) -> Result<Vec<u8>> {
        if span.end > self.source.len() {
            return Err(Malformed::new(span.start, "the data ends too early"));
        }
        if span.len() <= WINDOW as u64 {
            self.position = span.start;
            let len = span.len() as usize;
            if self.ahead(len).is_none() {
                self.fill(len)?;
            }
            if let Some(bytes) = self.ahead(len) {
                return Ok(bytes.to_vec());
            }
        }
        let mut bytes = vec![0; span.len() as usize];
        let read = self.source.read_at(span.start, &mut bytes);
        read.map_err(|error| Malformed::new(span.start, format!("can't be read ({error})")))?;
        Ok(bytes)
    }

    /// The bytes as text.
    ///
    /// # Errors
    /// When they are not there or no UTF-8.
    pub fn text(&mut self, span: Span) -> Result<String> {
        String::from_utf8(self.bytes(span)?).map_err(|_| Malformed::new(span.start, "text is not UTF-8"))
    }

    /// The integers of a repeated field's occurrence, packed or not.
    ///
    /// # Errors
    /// When it is of another kind, or `each` fails.
    pub fn varints(&mut self, field: Field, mut each: impl FnMut(u64) -> Result<()>) -> Result<()> {
        match field.value {
            Value::Varint(value) => each(value),
            Value::Bytes(span) => {
                self.position = span.start;
                while self.position < span.end {
                    let value = self.varint(span.end)?;
                    each(value)?;
                }
                Ok(())
            }
            _ => Err(field.unexpected("list of integers")),
        }
    }

    /// The `float`s of a repeated field's occurrence, packed or not.
    ///
    /// # Errors
    /// When it is of another kind, or `each` fails.
    pub fn floats(&mut self, field: Field, mut each: impl FnMut(f32) -> Result<()>) -> Result<()> {
        match field.value {
            Value::Fixed32(bits) => each(f32::from_bits(bits)),
            Value::Bytes(span) => {
                self.position = span.start;
                while self.position < span.end {
                    let bytes = self.fixed(span.end)?;
                    each(f32::from_le_bytes(bytes))?;
                }
                Ok(())
            }
            _ => Err(field.unexpected("list of numbers")),
        }
    }
}

/// Some bytes of another storage.
#[derive(Debug)]
pub struct Part {
    source: Arc<dyn Storage>,
    span: Span,
}

impl Part {
    /// The bytes `span` of `source`, if it has them.
    pub fn new(source: Arc<dyn Storage>, span: Span) -> Option<Part> {
        (span.start <= span.end && span.end <= source.len()).then_some(Part { source, span })
    }
}

impl Storage for Part {
    fn len(&self) -> u64 {
        self.span.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        match offset.checked_add(buffer.len() as u64) {
            Some(end) if end <= self.span.len() => self.source.read_at(self.span.start + offset, buffer),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Writes messages.
#[cfg(test)]
pub(super) mod build {
    pub fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    pub fn int(number: u64, value: u64) -> Vec<u8> {
        [varint(number << 3), varint(value)].concat()
    }

    pub fn fixed32(number: u64, value: u32) -> Vec<u8> {
        [varint(number << 3 | 5), value.to_le_bytes().to_vec()].concat()
    }

    pub fn bytes(number: u64, value: &[u8]) -> Vec<u8> {
        [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
    }

    pub fn packed(number: u64, values: &[u64]) -> Vec<u8> {
        bytes(number, &values.iter().flat_map(|value| varint(*value)).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u32, Value)>> {
        let mut reader = Reader::new(Arc::new(bytes.to_vec()));
        let mut fields = Vec::new();
        reader.fields(reader.whole(), |_, field| {
            fields.push((field.number, field.value));
            Ok(())
        })?;
        Ok(fields)
    }

    #[test]
    fn every_kind_of_field() {
        let bytes = [8, 0xac, 2, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 2, b'h', b'i', 0x25, 2, 0, 0, 0];
        let want = vec![
            (1, Value::Varint(300)),
            (2, Value::Fixed64(1)),
            (3, Value::Bytes(Span { start: 14, end: 16 })),
            (4, Value::Fixed32(2)),
        ];
        assert_eq!(read(&bytes), Ok(want));
        for end in [1, 2, 5, 13, 14, 15, 17, 20] {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(read(&[0xff; 12]).unwrap_err().what.contains("64 bits"));
        assert!(
            read(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]).unwrap_err().what.contains("4294967295 bytes, but 0 are left")
        );
        assert!(read(&[0x0b]).unwrap_err().what.contains("unknown kind 3"));
        assert!(read(&[0x02, 0]).unwrap_err().what.contains("number"));
    }

    #[test]
    fn depth_is_limited() {
        fn descend(reader: &mut Reader, span: Span) -> Result<()> {
            reader.fields(span, |reader, field| descend(reader, field.span()?))
        }
        let mut bytes = Vec::new();
        for _ in 0..MAX_DEPTH {
            bytes = build::bytes(1, &bytes);
        }
        let mut reader = Reader::new(Arc::new(bytes.clone()));
        assert!(descend(&mut reader, Span { start: 2, end: 2 }).is_ok());
        assert!(descend(&mut reader, Span { start: 0, end: bytes.len() as u64 }).unwrap_err().what.contains("deeply"));
    }

    #[test]
    fn windows_are_refilled_and_parts_stay_inside() {
        let mut bytes = vec![0u8; 3 * WINDOW];
        bytes[WINDOW - 1] = 0xac;
        bytes[WINDOW] = 2;
        let mut reader = Reader::new(Arc::new(bytes));
        let end = reader.whole().end;
        reader.varint(end).unwrap();
        reader.seek(WINDOW as u64 - 1);
        assert_eq!(reader.varint(end), Ok(300));
        let part = reader.part(Span { start: WINDOW as u64, end: WINDOW as u64 + 2 });
        let mut buffer = [9; 2];
        part.read_at(0, &mut buffer).unwrap();
        assert_eq!(buffer, [2, 0]);
        assert!(part.read_at(1, &mut buffer).is_err());
    }
}
