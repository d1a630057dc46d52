//! Tensors as views: a storage that is read on demand, and axes made of strided factors.
//!
//! Permuting, reshaping and slicing record what is to be read and copy nothing; the elements are gathered while the
//! tensor streams out ([`Tensor::write_to`]). Every axis is a list of (size, stride) factors, so that a reshape after
//! a permutation stays a view too.

mod dtype;
mod scaled;
mod storage;
mod stream;

use std::io;
use std::sync::Arc;

pub use dtype::DType;
pub use storage::{FileBytes, Storage, Swapped, range};

/// `size` elements that lie `stride` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Factor {
    size: usize,
    stride: isize,
}

/// A tensor of known shape whose elements are read when they are needed. Cloning is cheap. Elements in storage are
/// little-endian.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DType,
    axes: Vec<Vec<Factor>>,
    /// Of the first element, in elements.
    offset: usize,
    storage: Arc<dyn Storage>,
}

impl Tensor {
    /// A tensor in C order whose first element is at the start of `storage`.
    ///
    /// # Errors
    /// When `storage` has not exactly the bytes that `shape` asks for.
    pub fn new(dtype: DType, shape: &[usize], storage: Arc<dyn Storage>) -> Result<Tensor, String> {
        let bytes = numel(shape).and_then(|n| n.checked_mul(dtype.size())).map(|n| n as u64);
        if bytes != Some(storage.len()) {
            return Err(format!("a {dtype} tensor of shape {shape:?} does not fill {} bytes", storage.len()));
        }
        Ok(Tensor { dtype, axes: contiguous(shape), offset: 0, storage })
    }

    /// A view with any offset and strides (in elements) of `storage`, as PyTorch saves them.
    ///
    /// # Errors
    /// When an element would lie outside of `storage`.
    pub fn strided(
        dtype: DType,
        shape: &[usize],
        strides: &[usize],
        offset: usize,
        storage: Arc<dyn Storage>,
    ) -> Result<Tensor, String> {
        let outside = || format!("a view of shape {shape:?} and strides {strides:?} leaves its storage");
        if shape.len() != strides.len() || numel(shape).is_none() {
            return Err(outside());
        }
        let capacity = storage.len() / dtype.size() as u64;
        let mut last = offset as u64;
        for (&size, &stride) in shape.iter().zip(strides) {
            let reach = (size.saturating_sub(1) as u64).checked_mul(stride as u64);
            last = reach.and_then(|reach| last.checked_add(reach)).ok_or_else(outside)?;
        }
        if numel(shape) != Some(0) && last >= capacity || isize::try_from(capacity).is_err() {
            return Err(outside());
        }
        let axes =
            shape.iter().zip(strides).map(|(&size, &stride)| vec![Factor { size, stride: stride as isize }]).collect();
        Ok(Tensor { dtype, axes, offset, storage })
    }

    pub(crate) fn from_parts(dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Tensor {
        Tensor { dtype, axes: contiguous(shape), offset: 0, storage: Arc::new(bytes) }
    }

    /// A float32 tensor in memory. Missing elements are zero, surplus ones are ignored.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Tensor {
        let n = numel(shape).unwrap_or(0);
        let values = values.iter().copied().chain(std::iter::repeat(0.0)).take(n);
        Tensor::from_parts(DType::Float32, shape, values.flat_map(f32::to_le_bytes).collect())
    }

    /// An int64 tensor in memory. Missing elements are zero, surplus ones are ignored.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Tensor {
        let n = numel(shape).unwrap_or(0);
        let values = values.iter().copied().chain(std::iter::repeat(0)).take(n);
        Tensor::from_parts(DType::Int64, shape, values.flat_map(i64::to_le_bytes).collect())
    }

    /// A tensor of `dtype` in memory, from C-ordered values that are converted.
    pub fn from_f64(dtype: DType, shape: &[usize], values: impl IntoIterator<Item = f64>) -> Tensor {
        let n = numel(shape).unwrap_or(0);
        let mut bytes = Vec::with_capacity(n * dtype.size());
        for value in values.into_iter().chain(std::iter::repeat(0.0)).take(n) {
            stream::push_f64(dtype, value, &mut bytes);
        }
        Tensor::from_parts(dtype, shape, bytes)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The size of every axis.
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|factors| factors.iter().map(|f| f.size).product()).collect()
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.axes.len()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.axes.iter().flatten().map(|f| f.size).product()
    }

    /// The number of bytes.
    pub fn byte_len(&self) -> usize {
        self.numel() * self.dtype.size()
    }

    /// The tensor with its axes reordered: `new.shape[i] = old.shape[perm[i]]`. Nothing is copied.
    ///
    /// # Errors
    /// When `perm` is no permutation of the axes.
    pub fn permuted(&self, perm: &[usize]) -> Result<Tensor, String> {
        let mut seen = vec![false; self.rank()];
        for &axis in perm {
            match seen.get_mut(axis) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(format!("{perm:?} is no permutation of {} axes", self.rank())),
            }
        }
        if perm.len() != self.rank() {
            return Err(format!("{perm:?} is no permutation of {} axes", self.rank()));
        }
        Ok(Tensor { axes: perm.iter().map(|&axis| self.axes[axis].clone()).collect(), ..self.clone() })
    }

    /// The tensor with another shape of as many elements, in C order. Nothing is copied.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Tensor, String> {
        if numel(shape) != Some(self.numel()) {
            return Err(format!("a tensor of shape {:?} can't take the shape {shape:?}", self.shape()));
        }
        if self.numel() == 0 {
            return Ok(Tensor { axes: contiguous(shape), ..self.clone() });
        }
        let mut factors = self.axes.iter().flatten().copied().filter(|f| f.size != 1).collect::<Vec<_>>().into_iter();
        let mut rest: Option<Factor> = None;
        let mut axes = Vec::with_capacity(shape.len());
        for &size in shape {
            let mut axis = Vec::new();
            let mut missing = size;
            while missing > 1 {
                let Some(factor) = rest.take().or_else(|| factors.next()) else { break };
                if missing % factor.size == 0 {
                    axis.push(factor);
                    missing /= factor.size;
                } else if factor.size % missing == 0 {
                    // The axis ends inside of this factor.
                    let inner = factor.size / missing;
                    axis.push(Factor { size: missing, stride: factor.stride * inner as isize });
                    rest = Some(Factor { size: inner, stride: factor.stride });
                    missing = 1;
                } else {
                    return Tensor::new(self.dtype, shape, Arc::new(stream::InOrder(self.clone())));
                }
            }
            axes.push(merged(axis));
        }
        Ok(Tensor { axes, ..self.clone() })
    }

    /// Elements `start..end` of an axis. Nothing is copied.
    ///
    /// # Errors
    /// When the axis or the range does not exist.
    pub fn sliced(&self, axis: usize, start: usize, end: usize) -> Result<Tensor, String> {
        let shape = self.shape();
        match shape.get(axis) {
            Some(&size) if start <= end && end <= size => {}
            _ => return Err(format!("no elements {start}..{end} on axis {axis} of shape {shape:?}")),
        }
        let mut result = match self.axes.get(axis).map(Vec::len) {
            Some(0 | 1) => self.clone(),
            // A range of a compound axis is no strided view: read it in order first.
            _ => Tensor::new(self.dtype, &shape, Arc::new(stream::InOrder(self.clone())))?,
        };
        if let Some(factor) = result.axes.get_mut(axis).and_then(|factors| factors.first_mut()) {
            result.offset += start * factor.stride.unsigned_abs();
            factor.size = end - start;
        }
        Ok(result)
    }

    /// The tensor in another element type, converted while it is read.
    pub fn cast(&self, dtype: DType) -> Tensor {
        if dtype == self.dtype {
            return self.clone();
        }
        let storage = stream::Converted { storage: self.storage.clone(), from: self.dtype, to: dtype };
        Tensor { dtype, storage: Arc::new(storage), ..self.clone() }
    }

    /// Whether both are the same view of the same storage, as tied weights are.
    pub fn is_same(&self, other: &Tensor) -> bool {
        let axes = |t: &Tensor| t.axes.iter().map(|axis| merged(axis.clone())).collect::<Vec<_>>();
        Arc::ptr_eq(&self.storage, &other.storage)
            && self.dtype == other.dtype
            && self.offset == other.offset
            && axes(self) == axes(other)
    }

    /// Writes all elements in C order, little-endian. Takes memory for one chunk, or for a slab of 32 MB and what it is
    /// made of when the order differs from the storage's.
    ///
    /// # Errors
    /// When reading or writing fails.
    pub fn write_to(&self, writer: &mut dyn io::Write) -> io::Result<()> {
        stream::write(self, writer)
    }

    /// All elements in C order, little-endian.
    ///
    /// # Errors
    /// When reading fails.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.byte_len());
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }

    /// All elements in C order as float64 (int64 beyond 2^53 lose digits).
    ///
    /// # Errors
    /// When reading fails.
    pub fn to_f64(&self) -> io::Result<Vec<f64>> {
        Ok(stream::decode_f64(self.dtype, &self.to_bytes()?))
    }

    /// All elements in C order as float32.
    ///
    /// # Errors
    /// When reading fails.
    pub fn to_f32(&self) -> io::Result<Vec<f32>> {
        Ok(self.to_f64()?.into_iter().map(|x| x as f32).collect())
    }

    /// All elements in C order as int64; real numbers are truncated.
    ///
    /// # Errors
    /// When reading fails.
    pub fn to_i64(&self) -> io::Result<Vec<i64>> {
        Ok(stream::decode_i64(self.dtype, &self.to_bytes()?))
    }
}

/// The number of elements of a shape, if it can be counted.
pub fn numel(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}

fn contiguous(shape: &[usize]) -> Vec<Vec<Factor>> {
    let mut stride = 1isize;
    let mut axes: Vec<_> = shape
        .iter()
        .rev()
        .map(|&size| {
            let factor = Factor { size, stride };
            stride = stride.saturating_mul(size.max(1) as isize);
            vec![factor]
        })
        .collect();
    axes.reverse();
    axes
}

/// Joins neighbouring factors that one stride can step over.
fn merged(factors: Vec<Factor>) -> Vec<Factor> {
    let mut result: Vec<Factor> = Vec::with_capacity(factors.len());
    for factor in factors.into_iter().filter(|f| f.size != 1) {
        match result.last_mut() {
            Some(last) if last.stride == factor.stride * factor.size as isize => {
                *last = Factor { size: last.size * factor.size, stride: factor.stride };
            }
            _ => result.push(factor),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(shape: &[usize]) -> Tensor {
        let n = numel(shape).unwrap() as i64;
        Tensor::from_i64(shape, &(0..n).collect::<Vec<_>>())
    }

    #[test]
    fn permuting_streams_in_the_new_order() {
        let t = count(&[2, 3]).permuted(&[1, 0]).unwrap();
        assert_eq!((t.shape(), t.to_i64().unwrap()), (vec![3, 2], vec![0, 3, 1, 4, 2, 5]));
    }

    #[test]
    fn dense_rows_are_reordered_as_a_view() {
        // Rows in H, W, C order become C, H, W; then the kernel is transposed.
        let (h, w, c, out) = (2, 3, 4, 5);
        let kernel = count(&[h * w * c, out]);
        let moved = kernel.reshaped(&[h, w, c, out]).unwrap().permuted(&[2, 0, 1, 3]).unwrap();
        let rows = moved.reshaped(&[c * h * w, out]).unwrap().permuted(&[1, 0]).unwrap();
        assert_eq!(rows.shape(), vec![out, c * h * w]);
        let got = rows.to_i64().unwrap();
        let mut want = Vec::new();
        for o in 0..out {
            for ci in 0..c {
                for y in 0..h {
                    for x in 0..w {
                        want.push((((y * w + x) * c + ci) * out + o) as i64);
                    }
                }
            }
        }
        assert_eq!(got, want);
    }

    #[test]
    fn reshape_that_cuts_factors_reads_in_order() {
        let t = count(&[4, 6]).permuted(&[1, 0]).unwrap().reshaped(&[8, 3]).unwrap();
        let want: Vec<i64> = (0..6).flat_map(|x| (0..4).map(move |y| y * 6 + x)).collect();
        assert_eq!(t.to_i64().unwrap(), want);
    }

    #[test]
    fn slices_and_casts() {
        let t = count(&[3, 4]).sliced(1, 1, 3).unwrap();
        assert_eq!(t.to_i64().unwrap(), vec![1, 2, 5, 6, 9, 10]);
        assert_eq!(t.cast(DType::Float32).to_f32().unwrap(), vec![1., 2., 5., 6., 9., 10.]);
        assert!(count(&[3]).sliced(0, 2, 4).is_err());
    }

    #[test]
    fn views_must_stay_inside_their_storage() {
        let storage: Arc<dyn Storage> = Arc::new(vec![0u8; 40]);
        assert!(Tensor::strided(DType::Float32, &[2, 5], &[5, 1], 0, storage.clone()).is_ok());
        assert!(Tensor::strided(DType::Float32, &[2, 5], &[5, 1], 1, storage.clone()).is_err());
        assert!(Tensor::strided(DType::Float32, &[usize::MAX, 2], &[usize::MAX, 1], 0, storage).is_err());
    }

    #[test]
    fn same_views_are_tied() {
        let a = count(&[2, 3]);
        assert!(a.is_same(&a.reshaped(&[2, 3]).unwrap()));
        assert!(!a.is_same(&a.permuted(&[1, 0]).unwrap()));
        assert!(!a.is_same(&count(&[2, 3])));
    }
}
