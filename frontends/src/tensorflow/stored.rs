//! Storages of tensors in checkpoints: with a checksum, in pieces, or encoded.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use modelport_ir::tensor::Storage;

use super::sstable::{Table, crc_of};
use super::tensor::{Elements, Proto};
use super::wire::{Reader, Span};
use modelport_ir::DType;

/// Bytes of a tensor in pieces that are put together at once.
const CHUNK: usize = 1 << 20;

/// Whose bytes these are, for errors.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub tensor: String,
    pub path: PathBuf,
}

impl Label {
    fn error(&self, kind: io::ErrorKind, what: &str) -> io::Error {
        io::Error::new(kind, format!("{}: tensor {} {what}", self.path.display(), self.tensor))
    }

    fn wrong_checksum(&self) -> io::Error {
        self.error(io::ErrorKind::InvalidData, "does not match its checksum (crc32c): the file is damaged")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tensor in a file with a checksum, which is verified in the pass that reads the tensor: reads that continue each
/// other from the first byte to the last are summed up, and the last one fails if the sum is wrong.
#[derive(Debug)]
pub(super) struct Checked {
    source: Arc<dyn Storage>,
    span: Span,
    /// What the checksum covers; more than the tensor where several share one.
    covered: Span,
    expected: u32,
    label: Label,
    state: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    next: u64,
    crc: u32,
    intact: bool,
}

impl Checked {
    /// The bytes `span`, which lie in `covered`, whose crc32c (not masked) is `expected`.
    pub fn new(source: Arc<dyn Storage>, span: Span, covered: Span, expected: u32, label: Label) -> Checked {
        Checked { source, span, covered, expected, label, state: Mutex::default() }
    }

    fn check(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.intact || (offset != 0 && offset != state.next) {
            return Ok(());
        }
        if offset == 0 {
            let before = Span { start: self.covered.start, end: self.span.start };
            *state = Progress { crc: crc_of(&*self.source, before, 0)?, ..Progress::default() };
        }
        state.crc = crc32c::crc32c_append(state.crc, bytes);
        state.next = offset + bytes.len() as u64;
        if state.next == self.span.len() {
            let after = Span { start: self.span.end, end: self.covered.end };
            state.intact = crc_of(&*self.source, after, state.crc)? == self.expected;
            if !state.intact {
                return Err(self.label.wrong_checksum());
            }
        }
        Ok(())
    }
}

impl Storage for Checked {
    fn len(&self) -> u64 {
        self.span.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let read = self.source.read_at(self.span.start + offset, buffer);
        read.map_err(|error| self.label.error(error.kind(), &format!("can't be read: {error}")))?;
        self.check(offset, buffer)
    }
}

/// A part of a partitioned variable.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where it begins, on every axis.
    pub start: Vec<usize>,
    /// Its extent on every axis.
    pub shape: Vec<usize>,
    /// Its elements in C order.
    pub storage: Arc<dyn Storage>,
}

/// A tensor in C order that is put together from pieces while it is read.
#[derive(Debug)]
pub(super) struct Assembled {
    shape: Vec<usize>,
    size: usize,
    len: u64,
    pieces: Vec<Piece>,
}

impl Assembled {
    /// A tensor of `shape` with elements of `size` bytes.
    pub fn new(shape: &[usize], size: usize, mut pieces: Vec<Piece>) -> Result<Assembled, String> {
        let volume = |shape: &[usize]| shape.iter().try_fold(size, |product, size| product.checked_mul(*size));
        let len = volume(shape).ok_or("it is too large")?;
        let mut filled = 0usize;
        for piece in &pieces {
            let fits = piece.start.len() == shape.len()
                && piece.shape.len() == shape.len()
                && piece
                    .start
                    .iter()
                    .zip(&piece.shape)
                    .zip(shape)
                    .all(|((start, extent), size)| start.checked_add(*extent).is_some_and(|end| end <= *size));
            let bytes = volume(&piece.shape).filter(|bytes| fits && *bytes as u64 == piece.storage.len());
            filled = bytes.and_then(|bytes| filled.checked_add(bytes)).ok_or("a part does not fit")?;
        }
        pieces.retain(|piece| !piece.storage.is_empty());
        if filled != len || overlap(&mut pieces)? {
            return Err("its parts do not make the whole".to_owned());
        }
        Ok(Assembled { shape: shape.to_vec(), size, len: len as u64, pieces })
    }

    /// Copies what `piece` has of the bytes from `begin` on.
    fn copy(&self, piece: &Piece, begin: u64, buffer: &mut [u8], scratch: &mut Vec<u8>) -> io::Result<()> {
        // The piece in runs that are contiguous in the whole as well; all axes behind the split one are whole.
        let whole = self.shape.iter().zip(&piece.shape).rev().take_while(|(size, extent)| size == extent).count();
        let split = self.shape.len().saturating_sub(whole + 1);
        let inner = |shape: &[usize]| shape.iter().skip(split).product::<usize>() as u64 * self.size as u64;
        let run = inner(&piece.shape);
        let runs = piece.storage.len() / run;
        let place = |index: u64| -> u64 {
            let (mut rest, mut stride, mut at) = (index, self.size as u64, 0);
            for (axis, ((size, extent), start)) in
                self.shape.iter().zip(&piece.shape).zip(&piece.start).enumerate().rev()
            {
                let mut coordinate = *start as u64;
                if axis < split {
                    coordinate += rest % *extent as u64;
                    rest /= *extent as u64;
                }
                at += coordinate * stride;
                stride *= *size as u64;
            }
            at
        };
        let end = begin + buffer.len() as u64;
        // Runs lie in the whole in the order in which they lie in the piece.
        let first = partition_point(runs, |index| place(index) + run <= begin);
        let last = partition_point(runs, |index| place(index) < end);
        if first >= last {
            return Ok(());
        }
        let from = first * run + begin.saturating_sub(place(first));
        let to = (last - 1) * run + run.min(end - place(last - 1));
        scratch.resize((to - from) as usize, 0);
        piece.storage.read_at(from, scratch)?;
        let mut source = scratch.as_slice();
        for index in first..last {
            let at = place(index);
            let start = at.max(begin) - begin;
            let stop = (at + run).min(end) - begin;
            let (head, rest) = source.split_at_checked((stop - start) as usize).unwrap_or_default();
            if let Some(target) = buffer.get_mut(start as usize..stop as usize) {
                target.copy_from_slice(head);
            }
            source = rest;
        }
        Ok(())
    }
}

/// The first of `0..len` for which `before` is false, given that it is so for all that follow.
fn partition_point(len: u64, before: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

fn overlap(pieces: &mut [Piece]) -> Result<bool, String> {
    const MOST: usize = 1 << 14;
    if pieces.len() > MOST {
        return Err(format!("it has {} parts", pieces.len()));
    }
    pieces.sort_by(|a, b| a.start.cmp(&b.start));
    let end = |piece: &Piece, axis: usize| Some(piece.start.get(axis)? + piece.shape.get(axis)?);
    Ok(pieces.iter().enumerate().any(|(i, piece)| {
        let near = pieces.iter().skip(i + 1).take_while(|other| other.start.first().copied() < end(piece, 0));
        near.into_iter().any(|other| {
            (0..piece.start.len()).all(|axis| {
                piece.start.get(axis).copied() < end(other, axis) && other.start.get(axis).copied() < end(piece, axis)
            })
        })
    }))
}

impl Storage for Assembled {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut scratch = Vec::new();
        for (i, chunk) in buffer.chunks_mut(CHUNK).enumerate() {
            for piece in &self.pieces {
                self.copy(piece, offset + (i * CHUNK) as u64, chunk, &mut scratch)?;
            }
        }
        Ok(())
    }
}

/// A tensor of a version-1 checkpoint that does not lie in the file as it does in memory. It is decoded when the first
/// byte is read, and forgotten with the last.
#[derive(Debug)]
pub(super) struct Encoded {
    pub table: Arc<Table>,
    pub block: usize,
    pub proto: Proto,
    pub dtype: DType,
    pub count: usize,
    pub label: Label,
    pub decoded: Mutex<Option<Arc<Vec<u8>>>>,
}

impl Encoded {
    fn decode(&self) -> io::Result<Vec<u8>> {
        let broken = |what: String| self.label.error(io::ErrorKind::InvalidData, &what);
        let block = self.table.block(self.block).map_err(|error| broken(error.to_string()))?;
        let mut reader = Reader::new(block.source);
        let bytes = match self.proto.elements(&mut reader, self.dtype, self.count) {
            Ok(Elements::InPlace(span)) => reader.bytes(span),
            Ok(Elements::Encoded) => self.proto.decode(&mut reader, self.dtype, self.count),
            Err(error) => Err(error),
        };
        let bytes = bytes.map_err(|error| broken(error.to_string()))?;
        if bytes.len() as u64 != self.len() {
            return Err(broken(format!("has {} of {} bytes", bytes.len(), self.len())));
        }
        Ok(bytes)
    }
}

impl Storage for Encoded {
    fn len(&self) -> u64 {
        (self.count * self.dtype.size()) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut decoded = lock(&self.decoded);
        let bytes = match decoded.take() {
            Some(bytes) => bytes,
            None => Arc::new(self.decode()?),
        };
        bytes.read_at(offset, buffer)?;
        if offset + (buffer.len() as u64) < self.len() {
            *decoded = Some(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label() -> Label {
        Label { tensor: "w".into(), path: "x.data".into() }
    }

    #[test]
    fn checksums_are_verified_in_the_pass_that_reads() {
        let bytes = b"..0123456789..".to_vec();
        let (span, covered) = (Span { start: 2, end: 12 }, Span { start: 0, end: 14 });
        for (crc, good) in [(crc32c::crc32c(&bytes), true), (1, false)] {
            let storage = Checked::new(Arc::new(bytes.clone()), span, covered, crc, label());
            let mut buffer = [0; 4];
            // Out of order: not verified.
            storage.read_at(6, &mut buffer).unwrap();
            assert_eq!(&buffer, b"6789");
            storage.read_at(0, &mut buffer).unwrap();
            storage.read_at(4, &mut buffer).unwrap();
            let last = storage.read_at(8, &mut buffer[..2]);
            assert_eq!(last.is_ok(), good);
            assert_eq!(storage.read_at(0, &mut [0; 10]).is_ok(), good);
            if let Err(error) = last {
                assert!(error.to_string().starts_with("x.data: tensor w does not match its checksum"), "{error}");
            }
        }
        let storage = Checked::new(Arc::new(bytes), span, covered, 0, label());
        assert!(storage.read_at(8, &mut [0; 4]).is_err());
    }

    fn pieces(shape: &[usize], starts: &[&[usize]], shapes: &[&[usize]]) -> Vec<Piece> {
        let make = |(start, extent): (&&[usize], &&[usize])| {
            let mut bytes = Vec::new();
            for i in 0..shape.iter().product() {
                let mut rest = i;
                let inside = (0..shape.len()).rev().all(|axis| {
                    let at = rest % shape[axis];
                    rest /= shape[axis];
                    (start[axis]..start[axis] + extent[axis]).contains(&at)
                });
                if inside {
                    bytes.extend((i as u16).to_le_bytes());
                }
            }
            Piece { start: start.to_vec(), shape: extent.to_vec(), storage: Arc::new(bytes) }
        };
        starts.iter().zip(shapes).map(make).collect()
    }

    #[test]
    fn pieces_come_together_along_any_axes() {
        type Lists<'a> = &'a [&'a [usize]];
        let cases: [(&[usize], Lists, Lists); 5] = [
            (&[5, 2], &[&[0, 0], &[3, 0]], &[&[3, 2], &[2, 2]]),
            (&[2, 5, 2], &[&[0, 0, 0], &[0, 3, 0]], &[&[2, 3, 2], &[2, 2, 2]]),
            (&[3, 4], &[&[0, 1], &[0, 0]], &[&[3, 3], &[3, 1]]),
            (
                &[2, 3, 4],
                &[&[0, 0, 0], &[0, 0, 3], &[1, 0, 0], &[1, 2, 0]],
                &[&[1, 3, 3], &[1, 3, 1], &[1, 2, 4], &[1, 1, 4]],
            ),
            (&[], &[&[]], &[&[]]),
        ];
        for (shape, starts, shapes) in cases {
            let n: usize = shape.iter().product();
            let want: Vec<u8> = (0..n as u16).flat_map(u16::to_le_bytes).collect();
            let whole = Assembled::new(shape, 2, pieces(shape, starts, shapes)).unwrap();
            for begin in 0..want.len() {
                for end in begin..=want.len() {
                    let mut got = vec![0; end - begin];
                    whole.read_at(begin as u64, &mut got).unwrap();
                    assert_eq!(got, want[begin..end], "{shape:?} {begin}..{end}");
                }
            }
        }
    }

    #[test]
    fn pieces_that_make_no_whole_are_refused() {
        let parts = |starts, shapes| Assembled::new(&[4, 2], 2, pieces(&[4, 2], starts, shapes));
        assert!(parts(&[&[0, 0], &[2, 0]], &[&[2, 2], &[2, 2]]).is_ok());
        assert!(parts(&[&[0, 0]], &[&[2, 2]]).is_err());
        assert!(parts(&[&[0, 0], &[1, 0]], &[&[2, 2], &[2, 2]]).is_err());
        assert!(parts(&[&[0, 0], &[0, 0]], &[&[2, 2], &[2, 2]]).is_err());
        assert!(parts(&[&[0, 0], &[3, 0]], &[&[2, 2], &[2, 2]]).is_err());
        assert!(Assembled::new(&[usize::MAX, 2], 2, Vec::new()).is_err());
    }
}
