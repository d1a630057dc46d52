//! Fills, ranges, sizes.

use ndarray::{ArrayD, IxDyn};

use super::array::{Array, filled};
use crate::op::{Dims, Fill, Range};
use crate::tensor::DType;

pub(super) fn fill(op: &Fill, shape: &[usize]) -> Result<Array, String> {
    Ok(Array::Float(ArrayD::from_elem(IxDyn(shape), f64::from(op.value)), DType::Float64).cast(op.dtype))
}

pub(super) fn range(op: &Range, shape: &[usize]) -> Result<Array, String> {
    let count = shape.first().copied().unwrap_or(0) as i64;
    let values = (0..count).map(|i| op.start.wrapping_add(i.wrapping_mul(op.delta))).collect();
    Ok(Array::Int(filled(shape, values)?, DType::Int64).cast(op.dtype))
}

pub(super) fn dims(op: &Dims) -> Result<Array, String> {
    let sizes = op.dims.sizes().ok_or_else(|| format!("the size of {} is not known", op.dims))?;
    let sizes: Vec<i64> = sizes.into_iter().map(|size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
    Ok(Array::from_i64(&[sizes.len()], &sizes)?.cast(op.dtype))
}
