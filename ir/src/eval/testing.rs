//! What the tests of the families share.

use super::{Array, apply};
use crate::op::Op;
use crate::tensor::DType;

/// `(7 * i mod 11 - 5) / 4` for element `i`: small numbers that every type holds exactly.
pub(super) fn ramp(shape: &[usize]) -> Array {
    let n: usize = shape.iter().product();
    let values = (0..n).map(|i| ((7 * i % 11) as f64 - 5.0) / 4.0).collect();
    Array::from_f64(DType::Float64, shape, values).unwrap()
}

pub(super) fn reals(shape: &[usize], values: &[f64]) -> Array {
    Array::from_f64(DType::Float64, shape, values.to_vec()).unwrap()
}

/// All outputs' elements, and the first one's shape.
pub(super) fn run(op: impl Into<Op>, inputs: &[&Array]) -> (Vec<usize>, Vec<f64>) {
    let inputs: Vec<_> = inputs.iter().map(|x| Some(*x)).collect();
    let outputs = apply(&op.into(), &inputs).unwrap();
    (outputs[0].shape().to_vec(), outputs.iter().flat_map(Array::to_f64).collect())
}

/// Fails unless shape and elements (to six digits: some come from float32) are these.
pub(super) fn check(op: impl Into<Op>, inputs: &[&Array], shape: &[usize], want: &[f64]) {
    let op = op.into();
    let (got_shape, got) = run(op.clone(), inputs);
    assert_eq!(got_shape, shape, "{op:?}");
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= 5e-7 * b.abs().max(1.0), "{op:?} at {i}: {got:?} and not {want:?}");
    }
    assert_eq!(got.len(), want.len());
}
