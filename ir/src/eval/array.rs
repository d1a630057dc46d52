//! Elements of a value in memory: reals as float64 that are rounded to their type, whole numbers that wrap.

use std::borrow::Cow;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use crate::graph::ValueInfo;
use crate::shape::Shape;
use crate::tensor::{DType, Tensor, numel};

/// Elements that one value may have: a file from a stranger must not take all memory.
pub const MAX_ELEMENTS: usize = 1 << 28;

/// Elements of a value. Reals are computed in float64 and rounded to their type after every operator.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Real numbers, and the type they are rounded to.
    Float(ArrayD<f64>, DType),
    /// Whole numbers, and their type. Those of uint64 above 2^63 are kept as the bits of an int64.
    Int(ArrayD<i64>, DType),
    /// Truth values.
    Bool(ArrayD<bool>),
}

/// Does the same to the elements of any type: `each!(x, a => a.mapv(f))` with `a` an `&ArrayD<T>`.
macro_rules! each {
    ($x:expr, $a:ident => $body:expr) => {
        match $x {
            $crate::eval::Array::Float($a, dtype) => $crate::eval::Array::Float($body, *dtype),
            $crate::eval::Array::Int($a, dtype) => $crate::eval::Array::Int($body, *dtype),
            $crate::eval::Array::Bool($a) => $crate::eval::Array::Bool($body),
        }
    };
}
pub(super) use each;

impl Array {
    /// Reads a tensor.
    ///
    /// # Errors
    /// When it can't be read, or has more than [`MAX_ELEMENTS`].
    pub fn from_tensor(tensor: &Tensor) -> Result<Array, String> {
        let shape = tensor.shape();
        check_size(&shape)?;
        let dtype = tensor.dtype();
        let unreadable = |error: std::io::Error| format!("a tensor can't be read: {error}");
        if dtype.is_float() {
            Ok(Array::Float(filled(&shape, tensor.to_f64().map_err(unreadable)?)?, dtype))
        } else if dtype == DType::Bool {
            let values = tensor.to_i64().map_err(unreadable)?.into_iter().map(|x| x != 0).collect();
            Ok(Array::Bool(filled(&shape, values)?))
        } else {
            Ok(Array::Int(filled(&shape, tensor.to_i64().map_err(unreadable)?)?, dtype))
        }
    }

    /// A tensor in memory with these elements.
    pub fn to_tensor(&self) -> Tensor {
        let shape = self.shape();
        match self {
            Array::Float(a, dtype) => Tensor::from_f64(*dtype, shape, a.iter().copied()),
            Array::Bool(a) => Tensor::from_f64(DType::Bool, shape, a.iter().map(|&x| f64::from(u8::from(x)))),
            Array::Int(a, dtype) => {
                // Two's complement: the low bytes of an int64 are the number in any narrower type.
                let bytes = a.iter().flat_map(|x| x.to_le_bytes().into_iter().take(dtype.size())).collect();
                Tensor::from_parts(*dtype, shape, bytes)
            }
        }
    }

    /// Numbers of any type, converted as a cast would.
    ///
    /// # Errors
    /// When there are not as many as the shape says.
    pub fn from_f64(dtype: DType, shape: &[usize], values: Vec<f64>) -> Result<Array, String> {
        Ok(Array::Float(filled(shape, values)?, DType::Float64).cast(dtype))
    }

    /// Real numbers of type float32.
    ///
    /// # Errors
    /// When there are not as many as the shape says.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Result<Array, String> {
        Ok(Array::Float(filled(shape, values.iter().copied().map(f64::from).collect())?, DType::Float32))
    }

    /// Whole numbers of type int64.
    ///
    /// # Errors
    /// When there are not as many as the shape says.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Result<Array, String> {
        Ok(Array::Int(filled(shape, values.to_vec())?, DType::Int64))
    }

    /// All elements in C order as float64; truth values are 0 and 1.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Array::Float(a, _) => a.iter().copied().collect(),
            Array::Int(a, dtype) => a.iter().map(|&x| int_to_f64(*dtype, x)).collect(),
            Array::Bool(a) => a.iter().map(|&x| f64::from(u8::from(x))).collect(),
        }
    }

    /// The size of every axis.
    pub fn shape(&self) -> &[usize] {
        match self {
            Array::Float(a, _) => a.shape(),
            Array::Int(a, _) => a.shape(),
            Array::Bool(a) => a.shape(),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Array::Float(_, dtype) | Array::Int(_, dtype) => *dtype,
            Array::Bool(_) => DType::Bool,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Type and shape.
    pub fn info(&self) -> ValueInfo {
        ValueInfo::new(self.dtype(), Shape::known(self.shape()))
    }

    /// The elements in another type. Reals are cut off toward zero and limited to the range of an integer type
    /// (frameworks leave the latter undefined); whole numbers wrap.
    #[must_use]
    pub fn cast(&self, dtype: DType) -> Array {
        if dtype == self.dtype() {
            return self.clone();
        }
        match self {
            Array::Float(a, _) if dtype.is_float() => Array::real(a.clone(), dtype),
            Array::Float(a, _) if dtype == DType::Bool => Array::Bool(a.mapv(|x| x != 0.0)),
            Array::Float(a, _) => Array::Int(a.mapv(|x| truncated(dtype, x)), dtype),
            Array::Int(a, from) if dtype.is_float() => Array::real(a.mapv(|x| int_to_f64(*from, x)), dtype),
            Array::Int(a, _) if dtype == DType::Bool => Array::Bool(a.mapv(|x| x != 0)),
            Array::Int(a, _) => Array::whole(a.clone(), dtype),
            Array::Bool(a) if dtype.is_float() => Array::Float(a.mapv(|x| f64::from(u8::from(x))), dtype),
            Array::Bool(a) => Array::Int(a.mapv(i64::from), dtype),
        }
    }

    /// Reals, rounded to their type.
    pub(super) fn real(mut values: ArrayD<f64>, dtype: DType) -> Array {
        match dtype {
            DType::Float16 => values.mapv_inplace(|x| f16::from_f64(x).to_f64()),
            DType::BFloat16 => values.mapv_inplace(|x| bf16::from_f64(x).to_f64()),
            DType::Float32 => values.mapv_inplace(|x| f64::from(x as f32)),
            _ => {}
        }
        Array::Float(values, dtype)
    }

    /// Whole numbers, wrapped to their type.
    pub(super) fn whole(mut values: ArrayD<i64>, dtype: DType) -> Array {
        match dtype {
            DType::Int8 => values.mapv_inplace(|x| i64::from(x as i8)),
            DType::Int16 => values.mapv_inplace(|x| i64::from(x as i16)),
            DType::Int32 => values.mapv_inplace(|x| i64::from(x as i32)),
            DType::UInt8 => values.mapv_inplace(|x| i64::from(x as u8)),
            DType::UInt16 => values.mapv_inplace(|x| i64::from(x as u16)),
            DType::UInt32 => values.mapv_inplace(|x| i64::from(x as u32)),
            _ => {}
        }
        Array::Int(values, dtype)
    }

    /// The elements, if they are reals.
    pub(super) fn reals(&self) -> Result<(&ArrayD<f64>, DType), String> {
        match self {
            Array::Float(a, dtype) => Ok((a, *dtype)),
            other => Err(format!("takes real numbers, got {}", other.dtype())),
        }
    }

    /// The elements, if they are whole numbers.
    pub(super) fn integers(&self) -> Result<&ArrayD<i64>, String> {
        match self {
            Array::Int(a, _) => Ok(a),
            other => Err(format!("takes whole numbers, got {}", other.dtype())),
        }
    }

    /// The elements in C order in another shape.
    pub(super) fn reshaped(&self, shape: &[usize]) -> Result<Array, String> {
        Ok(each!(self, a => filled(shape, flat(a).into_owned())?))
    }

    /// The elements with their axes reordered; `perm` is a permutation.
    pub(super) fn transposed(&self, perm: &[usize]) -> Array {
        each!(self, a => permuted(a, perm))
    }
}

fn int_to_f64(dtype: DType, x: i64) -> f64 {
    if dtype == DType::UInt64 { x as u64 as f64 } else { x as f64 }
}

fn truncated(dtype: DType, x: f64) -> i64 {
    match dtype {
        DType::Int8 => i64::from(x as i8),
        DType::Int16 => i64::from(x as i16),
        DType::Int32 => i64::from(x as i32),
        DType::UInt8 => i64::from(x as u8),
        DType::UInt16 => i64::from(x as u16),
        DType::UInt32 => i64::from(x as u32),
        DType::UInt64 => x as u64 as i64,
        _ => x as i64,
    }
}

/// Fails when a value of this shape would be too large, also if there are no elements because another axis is empty.
pub(super) fn check_size(shape: &[usize]) -> Result<(), String> {
    let sizes: Vec<usize> = shape.iter().map(|&size| size.max(1)).collect();
    match numel(&sizes) {
        Some(n) if n <= MAX_ELEMENTS => Ok(()),
        _ => Err(format!("a value of shape {shape:?} is too large to evaluate")),
    }
}

/// An array of these elements in C order.
pub(super) fn filled<T>(shape: &[usize], values: Vec<T>) -> Result<ArrayD<T>, String> {
    let count = values.len();
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| format!("{count} elements do not fill {shape:?}"))
}

/// The elements in C order.
pub(super) fn flat<T: Clone>(a: &ArrayD<T>) -> Cow<'_, [T]> {
    match a.as_slice() {
        Some(values) => Cow::Borrowed(values),
        None => Cow::Owned(a.iter().cloned().collect()),
    }
}

/// The elements with their axes reordered, in C order; `perm` is a permutation.
pub(super) fn permuted<T: Clone>(a: &ArrayD<T>, perm: &[usize]) -> ArrayD<T> {
    a.view().permuted_axes(IxDyn(perm)).as_standard_layout().into_owned()
}

/// The elements grouped into lanes along some axes, which lie contiguous as the last ones.
pub(super) struct Lanes<T> {
    values: Vec<T>,
    len: usize,
    count: usize,
    shape: Vec<usize>,
    perm: Vec<usize>,
}

impl<T: Clone> Lanes<T> {
    /// Lanes along `axes`, which exist and do not repeat. Elements of a lane are in C order of `axes` as given.
    pub(super) fn along(a: &ArrayD<T>, axes: &[usize]) -> Lanes<T> {
        let perm: Vec<usize> = (0..a.ndim()).filter(|axis| !axes.contains(axis)).chain(axes.iter().copied()).collect();
        let shape: Vec<usize> = perm.iter().map(|&axis| a.shape()[axis]).collect();
        let (kept, laned) = shape.split_at(shape.len() - axes.len());
        let (count, len) = (kept.iter().product(), laned.iter().product());
        Lanes { values: permuted(a, &perm).into_iter().collect(), len, count, shape, perm }
    }

    /// The lanes, in C order of the other axes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[T]> {
        (0..self.count).map(|i| &self.values[i * self.len..(i + 1) * self.len])
    }

    /// Changes every lane and puts the elements back in their places.
    pub(super) fn mapped(mut self, mut change: impl FnMut(&mut [T])) -> Result<ArrayD<T>, String> {
        for i in 0..self.count {
            change(&mut self.values[i * self.len..(i + 1) * self.len]);
        }
        let mut inverse = vec![0; self.perm.len()];
        for (new, &old) in self.perm.iter().enumerate() {
            inverse[old] = new;
        }
        Ok(permuted(&filled(&self.shape, self.values)?, &inverse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_the_way_to_a_tensor_and_back() {
        for dtype in DType::ALL {
            let array = Array::from_f64(dtype, &[2, 2], vec![0., 1., 3.75, 100.]).unwrap();
            assert_eq!(array.dtype(), dtype);
            assert_eq!(Array::from_tensor(&array.to_tensor()).unwrap(), array);
        }
        let wide = Array::from_i64(&[2], &[i64::MAX, i64::MIN + 1]).unwrap();
        assert_eq!(Array::from_tensor(&wide.to_tensor()).unwrap(), wide);
    }

    #[test]
    fn casts_truncate_round_and_wrap() {
        let reals = Array::from_f64(DType::Float64, &[4], vec![-1.9, 1.9, 0.1, 300.]).unwrap();
        assert_eq!(reals.cast(DType::Int32).to_f64(), [-1., 1., 0., 300.]);
        assert_eq!(reals.cast(DType::Float16).to_f64()[2], 0.099_975_585_937_5);
        assert_eq!(reals.cast(DType::BFloat16).to_f64()[2], 0.100_097_656_25);
        assert_eq!(reals.cast(DType::Int32).cast(DType::UInt8).to_f64(), [255., 1., 0., 44.]);
        assert_eq!(reals.cast(DType::Int32).cast(DType::UInt64).to_f64()[0], 18_446_744_073_709_551_615.);
    }

    #[test]
    fn lanes_go_back_to_their_places() {
        let a = filled(&[2, 3, 2], (0..12).collect()).unwrap();
        let lanes = Lanes::along(&a, &[2, 0]);
        assert_eq!(lanes.iter().next().unwrap(), [0, 6, 1, 7]);
        assert_eq!(lanes.mapped(|_| {}).unwrap(), a);
    }
}
