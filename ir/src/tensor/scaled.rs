//! Tensors multiplied along an axis while they are read: a kernel with a normalisation folded in costs no memory.

use std::io;
use std::sync::Arc;

use super::{DType, Factor, Storage, Tensor, stream};

impl Tensor {
    /// The tensor with slice `i` along `axis` multiplied by `scale[i]`, while it is read. Products are rounded once.
    ///
    /// # Errors
    /// When the axis does not exist or has not as many elements as there are factors, or the elements are no real
    /// numbers.
    pub fn scaled(&self, axis: usize, scale: &[f64]) -> Result<Tensor, String> {
        let shape = self.shape();
        if shape.get(axis) != Some(&scale.len()) || !self.dtype.is_float() {
            return Err(format!(
                "a {} tensor of shape {shape:?} has no axis {axis} of {} numbers to scale",
                self.dtype,
                scale.len()
            ));
        }
        let Some(factor) = self.repeating(axis) else {
            let inner = Tensor::new(self.dtype, &shape, Arc::new(stream::InOrder(self.clone())))?;
            return inner.scaled(axis, scale);
        };
        let storage = Scaled {
            inner: self.storage.clone(),
            dtype: self.dtype,
            offset: self.offset,
            stride: factor.stride.unsigned_abs().max(1),
            scale: scale.into(),
        };
        Ok(Tensor { storage: Arc::new(storage), ..self.clone() })
    }

    /// The axis as one factor, if an element's place in the storage alone tells its place on the axis: it is
    /// `place / stride % size`. That is so when the other axes step within one stride, or over whole rounds.
    fn repeating(&self, axis: usize) -> Option<Factor> {
        let own: Vec<Factor> = self.axes.get(axis)?.iter().copied().filter(|f| f.size != 1).collect();
        let factor = match own.as_slice() {
            [] => Factor { size: 1, stride: 1 },
            [factor] => *factor,
            _ => return None,
        };
        if self.numel() == 0 || factor.size == 1 {
            return Some(factor);
        }
        let round = factor.stride.checked_mul(factor.size as isize)?;
        let mut within = 0;
        for other in self.axes.iter().enumerate().filter(|(at, _)| *at != axis).flat_map(|(_, factors)| factors) {
            if other.size == 1 || other.stride % round == 0 {
                continue;
            }
            within += other.stride * (other.size as isize - 1);
        }
        (factor.stride > 0 && within < factor.stride).then_some(factor)
    }

    /// Tensors one after another along `axis`, read when they are needed.
    ///
    /// # Errors
    /// When there are none, or their types or other axes differ.
    pub fn joined(parts: &[Tensor], axis: usize) -> Result<Tensor, String> {
        let first = parts.first().ok_or("there is nothing to join")?;
        let mut to_front: Vec<usize> = (0..first.rank()).filter(|&at| at != axis).collect();
        to_front.insert(0, axis);
        let mut back: Vec<usize> = (1..first.rank()).collect();
        back.insert(axis.min(back.len()), 0);
        let turned: Vec<Tensor> = parts.iter().map(|part| part.permuted(&to_front)).collect::<Result<_, _>>()?;
        let rest = |tensor: &Tensor| tensor.shape().split_off(1);
        let fits = |part: &Tensor| part.dtype == first.dtype && turned.first().is_some_and(|t| rest(t) == rest(part));
        if !turned.iter().all(fits) {
            return Err("tensors of different types or shapes can't be joined".to_owned());
        }
        let total = turned.iter().filter_map(|part| part.shape().first().copied()).sum();
        let shape: Vec<usize> = std::iter::once(total).chain(turned.first().map(rest).unwrap_or_default()).collect();
        let parts = turned.into_iter().map(stream::InOrder).collect();
        Tensor::new(first.dtype, &shape, Arc::new(Joined { parts }))?.permuted(&back)
    }
}

/// A storage whose elements are multiplied while they are read.
#[derive(Debug)]
struct Scaled {
    inner: Arc<dyn Storage>,
    dtype: DType,
    /// Of the first element that is scaled by the first number.
    offset: usize,
    /// Elements in a row that are scaled by one number.
    stride: usize,
    scale: Arc<[f64]>,
}

impl Storage for Scaled {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let size = self.dtype.size();
        if !offset.is_multiple_of(size as u64) || !buffer.len().is_multiple_of(size) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "part of an element can't be read"));
        }
        self.inner.read_at(offset, buffer)?;
        let n = self.scale.len();
        let round = n * self.stride;
        // The same place in the round, without going below zero.
        let start = (offset as usize / size) % round + round - self.offset % round;
        let at = |i: usize| self.scale[(start + i) / self.stride % n];
        if self.dtype == DType::Float32 {
            for (i, element) in buffer.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *element = ((f64::from(f32::from_le_bytes(*element)) * at(i)) as f32).to_le_bytes();
            }
            return Ok(());
        }
        let mut out = Vec::with_capacity(buffer.len());
        for (i, value) in stream::decode_f64(self.dtype, buffer).into_iter().enumerate() {
            stream::push_f64(self.dtype, value * at(i), &mut out);
        }
        buffer.copy_from_slice(&out);
        Ok(())
    }
}

/// Tensors in C order, one after another.
#[derive(Debug)]
struct Joined {
    parts: Vec<stream::InOrder>,
}

impl Storage for Joined {
    fn len(&self) -> u64 {
        self.parts.iter().map(Storage::len).sum()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (mut begin, mut filled) = (0, 0);
        for part in &self.parts {
            let at = offset + filled as u64;
            let end = begin + part.len();
            if filled < buffer.len() && at < end {
                let count = (buffer.len() - filled).min((end - at) as usize);
                part.read_at(at - begin, &mut buffer[filled..filled + count])?;
                filled += count;
            }
            begin = end;
        }
        if filled == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::numel;
    use super::*;

    fn count(shape: &[usize]) -> Tensor {
        let n = numel(shape).unwrap();
        Tensor::from_f32(shape, &(1..=n).map(|i| i as f32).collect::<Vec<_>>())
    }

    /// Compares with the product of all elements, in the order of the view.
    fn check(tensor: &Tensor, axis: usize) {
        let shape = tensor.shape();
        let scale: Vec<f64> = (0..shape[axis]).map(|i| 0.5 + i as f64).collect();
        let inner: usize = shape[axis + 1..].iter().product();
        let plain = tensor.to_f64().unwrap();
        let expected: Vec<f64> = plain.iter().enumerate().map(|(i, x)| x * scale[i / inner % shape[axis]]).collect();
        let scaled = tensor.scaled(axis, &scale).unwrap();
        assert_eq!((scaled.shape(), scaled.to_f64().unwrap()), (shape, expected));
    }

    #[test]
    fn every_axis_of_every_view() {
        for axis in 0..3 {
            check(&count(&[2, 3, 4]), axis);
            check(&count(&[2, 3, 4]).permuted(&[2, 0, 1]).unwrap(), axis);
            check(&count(&[5, 3, 4]).sliced(0, 1, 4).unwrap(), axis);
            check(&count(&[2, 7, 4]).sliced(1, 2, 5).unwrap(), axis);
            check(&count(&[2, 3, 9]).sliced(2, 2, 5).unwrap(), axis);
            check(&count(&[4, 6]).permuted(&[1, 0]).unwrap().reshaped(&[2, 2, 6]).unwrap(), axis);
            check(&count(&[2, 3, 4]).cast(DType::Float16), axis);
        }
        // An axis of two factors, and one that is repeated by a stride of zero.
        check(&count(&[2, 3, 4]).permuted(&[1, 0, 2]).unwrap().reshaped(&[6, 4]).unwrap(), 0);
        let bytes: Arc<dyn Storage> = Arc::new(vec![0u8; 24]);
        check(&Tensor::strided(DType::Float32, &[2, 3], &[0, 2], 1, bytes).unwrap(), 1);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(count(&[2, 3]).scaled(1, &[1.0; 2]).is_err());
        assert!(count(&[2, 3]).scaled(2, &[1.0; 3]).is_err());
        assert!(Tensor::from_i64(&[2], &[1, 2]).scaled(0, &[1.0; 2]).is_err());
        assert!(Tensor::joined(&[], 0).is_err());
        assert!(Tensor::joined(&[count(&[2, 3]), count(&[2, 4])], 0).is_err());
    }

    #[test]
    fn joined_along_any_axis() {
        let a = count(&[2, 3]);
        let b = count(&[1, 3]).permuted(&[0, 1]).unwrap();
        assert_eq!(Tensor::joined(&[a.clone(), b], 0).unwrap().to_i64().unwrap(), [1, 2, 3, 4, 5, 6, 1, 2, 3]);
        let c = count(&[2, 1]);
        let joined = Tensor::joined(&[a, c], 1).unwrap();
        assert_eq!((joined.shape(), joined.to_i64().unwrap()), (vec![2, 4], vec![1, 2, 3, 1, 4, 5, 6, 2]));
    }

    #[test]
    fn large_ones_are_read_in_pieces() {
        let a = count(&[700, 1000]).permuted(&[1, 0]).unwrap();
        let joined = Tensor::joined(&[a.clone(), a.clone()], 0).unwrap();
        let bytes = a.to_bytes().unwrap();
        assert!(joined.to_bytes().unwrap() == [bytes.clone(), bytes].concat());
    }
}
