//! Attention.

use super::activation::softmax;
use super::array::Array;
use super::dense::matmul;
use super::math::{binary, select};
use crate::op::{Attention, Binary, MatMul};
use crate::tensor::DType;

/// `shape` is that of the result.
pub(super) fn attention(
    op: &Attention,
    query: &Array,
    key: &Array,
    value: &Array,
    mask: Option<&Array>,
    shape: &[usize],
) -> Result<Array, String> {
    let (rank, dtype) = (shape.len(), query.dtype());
    let (length, others) = (shape[rank - 2], key.shape()[rank - 2]);
    let scores: Vec<usize> = shape[..rank - 2].iter().copied().chain([length, others]).collect();
    let number = |x: f64| Array::from_f64(dtype, &[], vec![x]);
    let product = matmul(&MatMul { transpose_a: false, transpose_b: true }, query, key, &scores)?;
    let mut values = binary(Binary::Mul, &product, &number(f64::from(op.scale))?, &scores)?;
    let triangle = match op.causal {
        true => {
            let seen = (0..length).flat_map(|row| (0..others).map(move |column| i64::from(column <= row)));
            Some(Array::from_i64(&[length, others], &seen.collect::<Vec<_>>())?.cast(DType::Bool))
        }
        false => None,
    };
    values = match mask.or(triangle.as_ref()) {
        Some(mask) if mask.dtype() == DType::Bool => select(mask, &values, &number(f64::NEG_INFINITY)?, &scores)?,
        Some(mask) => binary(Binary::Add, &values, mask, &scores)?,
        None => values,
    };
    matmul(&MatMul { transpose_a: false, transpose_b: false }, &softmax(rank - 1, false, &values)?, value, shape)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, ramp, reals};
    use super::*;

    #[test]
    fn one_looks_at_itself_and_what_came_before() {
        // Equal scores: means of the values seen.
        let (zeros, values) = (reals(&[1, 3, 1], &[0.0; 3]), ramp(&[1, 3, 1]));
        let [a, b, c] = [-1.25, 0.5, -0.5];
        let seen = [a, (a + b) / 2.0, (a + b + c) / 3.0];
        check(Attention { scale: 1.0, causal: true }, &[&zeros, &zeros, &values], &[1, 3, 1], &seen);
        let mean = (a + b + c) / 3.0;
        check(Attention { scale: 1.0, causal: false }, &[&zeros, &zeros, &values], &[1, 3, 1], &[mean; 3]);
    }
}
