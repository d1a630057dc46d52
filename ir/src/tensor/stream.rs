//! Reading a view's elements in order, in chunks, with as few copies as the order allows.

use std::io::{self, Write};

use half::{bf16, f16};

use super::{DType, Factor, Storage, Tensor, merged};

/// Bytes that are gathered before they are written.
const CHUNK: usize = 1 << 20;
/// Bytes of a view that is transposed which are put in order at once: the more rows, the more elements are taken from
/// every page of the source that is touched.
const SLAB: usize = 16 << 20;
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
        [] => copy(tensor, start, size, writer),
        [Factor { size: n, stride: 1 }] => copy(tensor, start, n * size, writer),
        _ => {
            let last: usize = factors.iter().map(|f| (f.size - 1) * f.stride.unsigned_abs()).sum();
            let mut source = vec![0; (last + 1) * size];
            tensor.storage.read_at(start as u64, &mut source)?;
            let mut chunk = Vec::new();
            match size {
                1 => gather::<1>(&source, &factors, 0, &mut chunk, writer),
                2 => gather::<2>(&source, &factors, 0, &mut chunk, writer),
                4 => gather::<4>(&source, &factors, 0, &mut chunk, writer),
                _ => gather::<8>(&source, &factors, 0, &mut chunk, writer),
            }
        }
    }
}

fn copy(tensor: &Tensor, start: usize, len: usize, writer: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; len.min(CHUNK)];
    let mut done = 0;
    while done < len {
        let part = &mut buffer[..(len - done).min(CHUNK)];
        tensor.storage.read_at((start + done) as u64, part)?;
        writer.write_all(part)?;
        done += part.len();
    }
    Ok(())
}

/// Writes the view in slabs along its first axis; a slab is filled tile by tile, so that both the reads along the
/// storage's dense axis and the writes along the view's last axis use whole cache lines.
fn gather<const N: usize>(
    source: &[u8],
    factors: &[Factor],
    offset: usize,
    chunk: &mut Vec<u8>,
    writer: &mut dyn Write,
) -> io::Result<()> {
    let Some((first, inner)) = factors.split_first() else {
        return writer.write_all(&source[offset * N..(offset + 1) * N]);
    };
    let row: usize = inner.iter().map(|f| f.size).product();
    if row * N > CHUNK && !inner.is_empty() && row * N * TILE.min(first.size) > SLAB {
        for i in 0..first.size {
            gather::<N>(source, inner, offset + i * first.stride.unsigned_abs(), chunk, writer)?;
        }
        return Ok(());
    }
    let rows = (SLAB / (row * N)).next_multiple_of(TILE).max(1);
    let mut begin = 0;
    while begin < first.size {
        let count = rows.min(first.size - begin);
        let slab: Vec<Factor> =
            std::iter::once(Factor { size: count, ..*first }).chain(inner.iter().copied()).collect();
        chunk.resize(count * row * N, 0);
        fill::<N>(&source[(offset + begin * first.stride.unsigned_abs()) * N..], &slab, chunk);
        writer.write_all(chunk)?;
        begin += count;
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

fn fill<const N: usize>(source: &[u8], factors: &[Factor], target: &mut [u8]) {
    let mut step = N;
    let mut loops: Vec<Loop> = factors
        .iter()
        .rev()
        .map(|f| {
            let this = Loop { size: f.size, from: f.stride.unsigned_abs() * N, to: step };
            step *= f.size;
            this
        })
        .collect();
    // Innermost in the target comes last from here on.
    loops.reverse();
    let Some(last) = loops.pop() else { return };
    if last.from == N {
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

/// The elements of a tensor in another type, as a storage.
#[derive(Debug)]
pub(super) struct Converted {
    pub tensor: Tensor,
    pub dtype: DType,
}

impl Storage for Converted {
    fn len(&self) -> u64 {
        (self.tensor.numel() * self.dtype.size()) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let ratio = (self.tensor.dtype.size() as u64, self.dtype.size() as u64);
        let len = buffer.len() as u64 * ratio.0 / ratio.1;
        let (rows, skip) = rows(&self.tensor, offset / ratio.1 * ratio.0, len as usize + ratio.0 as usize);
        let mut window = Window { skip: skip / ratio.0 * ratio.1 + offset % ratio.1, buffer, filled: 0 };
        let mut convert = Convert { from: self.tensor.dtype, to: self.dtype, out: &mut window, scratch: Vec::new() };
        write(&rows, &mut convert)?;
        window.finish()
    }
}

struct Convert<'a> {
    from: DType,
    to: DType,
    out: &'a mut dyn Write,
    scratch: Vec<u8>,
}

impl Write for Convert<'_> {
    /// Chunks are whole elements: that is how [`write`] makes them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.scratch.clear();
        for value in decode_f64(self.from, bytes) {
            push_f64(self.to, value, &mut self.scratch);
        }
        self.out.write_all(&self.scratch)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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
