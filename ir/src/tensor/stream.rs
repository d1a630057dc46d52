//! Reading a view's elements in order, in chunks, with as few copies as the order allows. What is stored in another order
//! takes memory for a slab of it, however large it is.

use std::io::{self, Write};
use std::sync::Arc;

use half::{bf16, f16};

use super::{DType, Factor, Storage, Tensor, merged};

/// Bytes that are copied at once.
const CHUNK: usize = 1 << 20;
/// How a view in another order than its storage is put in order.
#[derive(Clone, Copy)]
struct Limits {
    /// Bytes of the view that are put in order at once. Every slab goes through the whole storage, so that larger ones
    /// read less often.
    slab: usize,
    /// Bytes of the storage that are in memory at once while a slab is filled.
    piece: usize,
    /// Bytes that are not needed, and yet are faster read than left out.
    gap: usize,
}

const LIMITS: Limits = Limits { slab: 32 << 20, piece: 8 << 20, gap: 8 << 10 };
/// Side of the squares in which two axes change places: one cache line of float32.
const TILE: usize = 16;

pub(super) fn write(tensor: &Tensor, writer: &mut dyn Write) -> io::Result<()> {
    if tensor.numel() == 0 {
        return Ok(());
    }
    let factors = merged(tensor.axes.iter().flatten().copied().collect());
    let size = tensor.dtype.size();
    let start = tensor.offset * size;
    match factors.as_slice() {
        [] => copy(tensor, start, size, CHUNK, writer),
        [Factor { size: n, stride: 1 }] => copy(tensor, start, n * size, CHUNK, writer),
        _ => {
            if tensor.byte_len() > LIMITS.slab {
                // Checksums are verified by who reads from the beginning to the end, which slabs do not.
                let last: usize = factors.iter().map(|f| (f.size - 1) * f.stride.unsigned_abs()).sum();
                copy(tensor, start, (last + 1) * size, LIMITS.piece, &mut io::sink())?;
            }
            Turn::of(tensor, LIMITS).write(&factors, start, writer)
        }
    }
}

fn copy(tensor: &Tensor, start: usize, len: usize, chunk: usize, writer: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; len.min(chunk)];
    let mut done = 0;
    while done < len {
        let part = &mut buffer[..(len - done).min(chunk)];
        tensor.storage.read_at((start + done) as u64, part)?;
        writer.write_all(part)?;
        done += part.len();
    }
    Ok(())
}

/// A loop over one axis, with the steps that it makes in the source and in the target, in bytes.
#[derive(Clone, Copy)]
struct Loop {
    size: usize,
    from: usize,
    to: usize,
}

/// A view that is written in another order than it is stored in: a slab of the view at a time, from a piece of the
/// storage at a time.
struct Turn<'a> {
    storage: &'a dyn Storage,
    /// Of an element.
    size: usize,
    limits: Limits,
    slab: Vec<u8>,
    piece: Vec<u8>,
}

impl<'a> Turn<'a> {
    fn of(tensor: &'a Tensor, limits: Limits) -> Turn<'a> {
        Turn { storage: &*tensor.storage, size: tensor.dtype.size(), limits, slab: Vec::new(), piece: Vec::new() }
    }

    /// Writes the view from `start` on, in slabs along its first axis.
    fn write(&mut self, factors: &[Factor], start: usize, writer: &mut dyn Write) -> io::Result<()> {
        let Some((first, inner)) = factors.split_first() else { return Ok(()) };
        let row = inner.iter().map(|f| f.size).product::<usize>() * self.size;
        let step = first.stride.unsigned_abs() * self.size;
        if row > self.limits.slab {
            return (0..first.size).try_for_each(|i| self.write(inner, start + i * step, writer));
        }
        // Whole tiles, where there are that many rows.
        let rows =
            Some(self.limits.slab / row / TILE * TILE).filter(|&rows| rows > 0).unwrap_or(self.limits.slab / row);
        for begin in (0..first.size).step_by(rows) {
            let count = rows.min(first.size - begin);
            self.slab.resize(count * row, 0);
            let mut to = self.size;
            let mut loops: Vec<Loop> = Vec::with_capacity(factors.len());
            for f in inner.iter().rev().chain([&Factor { size: count, ..*first }]) {
                loops.push(Loop { size: f.size, from: f.stride.unsigned_abs() * self.size, to });
                to *= f.size;
            }
            // In the order of the storage.
            loops.sort_by_key(|l| std::cmp::Reverse(l.from));
            self.fill(&loops, start + begin * step, 0)?;
            writer.write_all(&self.slab)?;
        }
        Ok(())
    }

    /// Fills the slab from `to` on, with pieces along the axis that the storage has outermost.
    fn fill(&mut self, loops: &[Loop], from: usize, to: usize) -> io::Result<()> {
        let (first, inner) = match loops.split_first() {
            Some((first, inner)) => (*first, inner),
            None => (Loop { size: 1, from: 0, to: 0 }, loops),
        };
        let one = self.packed(inner);
        if one.len > self.limits.piece {
            return (0..first.size).try_for_each(|i| self.fill(inner, from + i * first.from, to + i * first.to));
        }
        let step = one.step(first.from).max(1);
        let steps = (self.limits.piece - one.len) / step + 1;
        for begin in (0..first.size).step_by(steps) {
            let count = steps.min(first.size - begin);
            let part: Vec<Loop> = std::iter::once(Loop { size: count, ..first }).chain(inner.iter().copied()).collect();
            let packed = self.packed(&part);
            let mut piece = std::mem::take(&mut self.piece);
            piece.resize(packed.len, 0);
            self.read(&part, from + begin * first.from, &mut piece)?;
            let target = &mut self.slab[to + begin * first.to..];
            match self.size {
                1 => place::<1>(&piece, packed.loops, target),
                2 => place::<2>(&piece, packed.loops, target),
                4 => place::<4>(&piece, packed.loops, target),
                _ => place::<8>(&piece, packed.loops, target),
            }
            self.piece = piece;
        }
        Ok(())
    }

    fn packed(&self, loops: &[Loop]) -> Packed {
        Packed::of(loops, self.size, self.limits.gap)
    }

    /// Reads what the loops go over, as [`Packed`] says.
    fn read(&self, loops: &[Loop], from: usize, piece: &mut [u8]) -> io::Result<()> {
        match loops.split_first() {
            Some((first, inner)) if !self.packed(loops).is_whole => {
                let mut parts = piece.chunks_mut(self.packed(inner).len).take(first.size).enumerate();
                parts.try_for_each(|(i, part)| self.read(inner, from + i * first.from, part))
            }
            _ => self.storage.read_at(from as u64, piece),
        }
    }
}

/// How a part of the storage lies in memory: without its wide gaps.
struct Packed {
    /// With the steps that they make there.
    loops: Vec<Loop>,
    len: usize,
    /// Whether it lies there as in the storage.
    is_whole: bool,
    gap: usize,
}

impl Packed {
    /// `loops` are in the order of the storage.
    fn of(loops: &[Loop], size: usize, gap: usize) -> Packed {
        let mut packed = Packed { loops: Vec::with_capacity(loops.len()), len: size, is_whole: true, gap };
        for l in loops.iter().rev() {
            let step = packed.step(l.from);
            packed.is_whole &= step == l.from;
            packed.len += (l.size - 1) * step;
            packed.loops.push(Loop { from: step, ..*l });
        }
        packed
    }

    /// How far apart two of them lie that are `from` apart in the storage.
    fn step(&self, from: usize) -> usize {
        if self.is_whole && from.saturating_sub(self.len) < self.gap { from } else { self.len }
    }
}

/// Puts elements in their places tile by tile, so that both the reads along the source's dense axis and the writes along
/// the target's use whole cache lines.
fn place<const N: usize>(source: &[u8], mut loops: Vec<Loop>, target: &mut [u8]) {
    // Innermost in the target comes last.
    loops.sort_by_key(|l| std::cmp::Reverse(l.to));
    let Some(last) = loops.pop() else {
        return target[..N].copy_from_slice(&source[..N]);
    };
    if (last.from, last.to) == (N, N) {
        let bytes = last.size * N;
        walk(&loops, 0, 0, &mut |from, to| target[to..to + bytes].copy_from_slice(&source[from..from + bytes]));
        return;
    }
    let dense = loops.iter().position(|l| l.from == N).map(|i| loops.remove(i));
    let dense = dense.unwrap_or(Loop { size: 1, from: 0, to: 0 });
    walk(&loops, 0, 0, &mut |from, to| {
        for x in (0..last.size).step_by(TILE) {
            let x_end = (x + TILE).min(last.size);
            for y in (0..dense.size).step_by(TILE) {
                for j in y..(y + TILE).min(dense.size) {
                    for i in x..x_end {
                        let a = from + i * last.from + j * dense.from;
                        let b = to + i * last.to + j * dense.to;
                        target[b..b + N].copy_from_slice(&source[a..a + N]);
                    }
                }
            }
        }
    });
}

fn walk(loops: &[Loop], from: usize, to: usize, body: &mut dyn FnMut(usize, usize)) {
    match loops.split_first() {
        None => body(from, to),
        Some((l, inner)) => {
            for i in 0..l.size {
                walk(inner, from + i * l.from, to + i * l.to, body);
            }
        }
    }
}

/// The elements of a view, in order, as a storage: for the rare reshape that strides cannot say.
#[derive(Debug)]
pub(super) struct InOrder(pub Tensor);

impl Storage for InOrder {
    fn len(&self) -> u64 {
        self.0.byte_len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (rows, skip) = rows(&self.0, offset, buffer.len());
        let mut window = Window { skip, buffer, filled: 0 };
        write(&rows, &mut window)?;
        window.finish()
    }
}

/// The rows of a view that hold the bytes from `offset` on, and how many bytes come before these in them: what is read
/// piece by piece is not gathered as a whole for every piece.
fn rows(tensor: &Tensor, offset: u64, len: usize) -> (Tensor, u64) {
    let whole = || (tensor.clone(), offset);
    let Some([_]) = tensor.axes.first().map(Vec::as_slice) else { return whole() };
    let count = tensor.shape().first().copied().unwrap_or(0);
    if count == 0 || tensor.byte_len() == 0 {
        return whole();
    }
    let row = (tensor.byte_len() / count) as u64;
    let (begin, end) = (offset / row, (offset + len as u64).div_ceil(row).min(count as u64));
    match tensor.sliced(0, begin as usize, end.max(begin) as usize) {
        Ok(rows) => (rows, offset - begin * row),
        Err(_) => whole(),
    }
}

/// The elements of a storage in another type.
#[derive(Debug)]
pub(super) struct Converted {
    pub storage: Arc<dyn Storage>,
    pub from: DType,
    pub to: DType,
}

impl Storage for Converted {
    fn len(&self) -> u64 {
        self.storage.len() / self.from.size() as u64 * self.to.size() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (from, to) = (self.from.size(), self.to.size());
        // Elements of which the first and the last may be asked for in part.
        let (mut skip, mut at) = ((offset % to as u64) as usize, offset / to as u64);
        let (mut elements, mut converted) = (Vec::new(), Vec::new());
        let mut rest = buffer;
        while !rest.is_empty() {
            let count = (skip + rest.len()).div_ceil(to).min(CHUNK / to);
            elements.resize(count * from, 0);
            self.storage.read_at(at * from as u64, &mut elements)?;
            converted.clear();
            for value in decode_f64(self.from, &elements) {
                push_f64(self.to, value, &mut converted);
            }
            let (part, after) = rest.split_at_mut((count * to - skip).min(rest.len()));
            part.copy_from_slice(&converted[skip..skip + part.len()]);
            (rest, skip, at) = (after, 0, at + count as u64);
        }
        Ok(())
    }
}

/// Keeps the bytes from `skip` on that fit into `buffer`.
struct Window<'a> {
    skip: u64,
    buffer: &'a mut [u8],
    filled: usize,
}

impl Window<'_> {
    fn finish(self) -> io::Result<()> {
        if self.filled == self.buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Write for Window<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = (bytes.len() as u64).min(self.skip);
        self.skip -= skipped;
        let rest = &bytes[skipped as usize..];
        let taken = rest.len().min(self.buffer.len() - self.filled);
        self.buffer[self.filled..self.filled + taken].copy_from_slice(&rest[..taken]);
        self.filled += taken;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn numbers<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

pub(super) fn decode_f64(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::Int8 => numbers(bytes, |b| i8::from_le_bytes(b) as f64),
        DType::Int16 => numbers(bytes, |b| i16::from_le_bytes(b) as f64),
        DType::Int32 => numbers(bytes, |b| i32::from_le_bytes(b) as f64),
        DType::Int64 => numbers(bytes, |b| i64::from_le_bytes(b) as f64),
        DType::UInt8 => numbers(bytes, |b| u8::from_le_bytes(b) as f64),
        DType::UInt16 => numbers(bytes, |b| u16::from_le_bytes(b) as f64),
        DType::UInt32 => numbers(bytes, |b| u32::from_le_bytes(b) as f64),
        DType::UInt64 => numbers(bytes, |b| u64::from_le_bytes(b) as f64),
        DType::Float16 => numbers(bytes, |b| f16::from_le_bytes(b).to_f64()),
        DType::BFloat16 => numbers(bytes, |b| bf16::from_le_bytes(b).to_f64()),
        DType::Float32 => numbers(bytes, |b| f32::from_le_bytes(b) as f64),
        DType::Float64 => numbers(bytes, f64::from_le_bytes),
        DType::Bool => numbers(bytes, |b: [u8; 1]| f64::from(u8::from(b[0] != 0))),
    }
}

pub(super) fn decode_i64(dtype: DType, bytes: &[u8]) -> Vec<i64> {
    match dtype {
        DType::Int64 => numbers(bytes, i64::from_le_bytes),
        DType::UInt64 => numbers(bytes, |b| u64::from_le_bytes(b) as i64),
        _ => decode_f64(dtype, bytes).into_iter().map(|x| x as i64).collect(),
    }
}

pub(super) fn push_f64(dtype: DType, value: f64, out: &mut Vec<u8>) {
    match dtype {
        DType::Int8 => out.extend((value as i8).to_le_bytes()),
        DType::Int16 => out.extend((value as i16).to_le_bytes()),
        DType::Int32 => out.extend((value as i32).to_le_bytes()),
        DType::Int64 => out.extend((value as i64).to_le_bytes()),
        DType::UInt8 => out.extend((value as u8).to_le_bytes()),
        DType::UInt16 => out.extend((value as u16).to_le_bytes()),
        DType::UInt32 => out.extend((value as u32).to_le_bytes()),
        DType::UInt64 => out.extend((value as u64).to_le_bytes()),
        DType::Float16 => out.extend(f16::from_f64(value).to_le_bytes()),
        DType::BFloat16 => out.extend(bf16::from_f64(value).to_le_bytes()),
        DType::Float32 => out.extend((value as f32).to_le_bytes()),
        DType::Float64 => out.extend(value.to_le_bytes()),
        DType::Bool => out.push(u8::from(value != 0.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::numel;
    use super::*;

    /// Writes with all limits that matter for a few elements, and compares with the view element by element.
    fn check(tensor: &Tensor) {
        let factors: Vec<Factor> = tensor.axes.iter().flatten().copied().filter(|f| f.size != 1).collect();
        let size = tensor.dtype.size();
        let storage = {
            let mut bytes = vec![0; tensor.storage.len() as usize];
            tensor.storage.read_at(0, &mut bytes).unwrap();
            bytes
        };
        let mut expected: Vec<u8> = Vec::new();
        for index in 0..tensor.numel() {
            let (mut rest, mut at) = (index, tensor.offset);
            for f in factors.iter().rev() {
                at += rest % f.size * f.stride.unsigned_abs();
                rest /= f.size;
            }
            expected.extend(&storage[at * size..(at + 1) * size]);
        }
        for slab in [1, 7, 24, 100, 1 << 20] {
            for piece in [1, 16, 50, 1 << 20] {
                for gap in [0, 1, 9, 1 << 20] {
                    let limits = Limits { slab: slab.max(size), piece: piece.max(size), gap };
                    let mut written = Vec::new();
                    Turn::of(tensor, limits).write(&factors, tensor.offset * size, &mut written).unwrap();
                    assert!(written == expected, "{:?} with {slab}, {piece}, {gap}", tensor.axes);
                }
            }
        }
    }

    fn count(dtype: DType, shape: &[usize]) -> Tensor {
        Tensor::from_f64(dtype, shape, (0..numel(shape).unwrap()).map(|x| x as f64))
    }

    #[test]
    fn every_order_in_slabs_and_pieces_of_any_size() {
        for dtype in [DType::UInt8, DType::Float16, DType::Float32, DType::Float64] {
            let tensor = count(dtype, &[3, 2, 5, 4]);
            for order in [[3, 2, 1, 0], [2, 3, 1, 0], [1, 0, 3, 2], [0, 3, 1, 2], [3, 0, 1, 2]] {
                check(&tensor.permuted(&order).unwrap());
                check(&tensor.sliced(2, 1, 3).unwrap().permuted(&order).unwrap());
            }
        }
        check(&count(DType::Float32, &[40, 17]).permuted(&[1, 0]).unwrap());
        check(&count(DType::Float32, &[40, 17]).sliced(1, 3, 5).unwrap());
        let storage: Arc<dyn Storage> = Arc::new((0..24).collect::<Vec<u8>>());
        check(&Tensor::strided(DType::Float32, &[2, 3, 2], &[0, 2, 1], 0, storage.clone()).unwrap());
        check(&Tensor::strided(DType::Float32, &[2, 3], &[1, 1], 2, storage).unwrap());
    }

    #[test]
    fn parts_of_converted_elements() {
        let tensor = count(DType::Float16, &[7, 3]).cast(DType::Float64);
        let whole = tensor.to_bytes().unwrap();
        for (start, len) in [(0, 168), (3, 9), (8, 8), (15, 2), (160, 8), (167, 1)] {
            let mut part = vec![0; len];
            tensor.storage.read_at(start as u64, &mut part).unwrap();
            assert_eq!(part, whole[start..start + len]);
        }
        assert!(tensor.storage.read_at(161, &mut [0; 8]).is_err());
    }
}
