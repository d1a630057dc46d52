//! Weights of recurrent cells between PyTorch and Keras. Both have them gate by gate; the order of a GRU's differs, and
//! Keras' LSTM has one bias where PyTorch adds two.

use modelport_ir::Tensor;

/// The first two of three gates along the first axis change places: PyTorch has reset, update, new; Keras update,
/// reset, new.
///
/// # Errors
/// When there are no three gates.
pub fn swapped(tensor: &Tensor) -> Result<Tensor, String> {
    let shape = tensor.shape();
    let units = match shape.first() {
        Some(gates) if gates % 3 == 0 => gates / 3,
        _ => return Err(format!("has no three gates: {shape:?}")),
    };
    let gate = |index: usize| tensor.sliced(0, index * units, (index + 1) * units);
    Tensor::joined(&[gate(1)?, gate(0)?, gate(2)?], 0)
}

/// Two biases as one.
///
/// # Errors
/// When their shapes differ, or they can't be read.
pub fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    if a.shape() != b.shape() {
        return Err(format!("has biases of different shapes: {:?} and {:?}", a.shape(), b.shape()));
    }
    let read = |tensor: &Tensor| tensor.to_f64().map_err(|error| format!("can't be read: {error}"));
    let sums: Vec<f64> = read(a)?.into_iter().zip(read(b)?).map(|(a, b)| a + b).collect();
    Ok(Tensor::from_f64(a.dtype(), &a.shape(), sums))
}
