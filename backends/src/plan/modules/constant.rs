//! Constants that are no entry of the state dict, such as masks and positions: what makes them, where that is short.

use modelport_ir::{DType, Tensor};

use crate::python::{Arg, Expr, Lit};

/// More elements than these are not looked at.
const LIMIT: usize = 1 << 22;

/// What makes a constant, and a name for it.
pub fn expression(tensor: &Tensor) -> Option<(Expr, &'static str)> {
    if tensor.numel() > LIMIT || tensor.numel() == 0 {
        return None;
    }
    let shape = tensor.shape();
    let sizes = || shape.iter().map(|&size| Arg::new(Expr::int("size", size)));
    let dtype = |name: &str| Arg::keyword("dtype", Expr::name(&format!("torch.{name}")), None);
    let values = tensor.to_f64().ok()?;
    let made = match tensor.dtype() {
        DType::Bool => {
            let ones = || Expr::call("torch.ones", sizes().chain([dtype("bool")]).collect());
            if is_triangle(&shape, &values, |row, column| f64::from(u8::from(column <= row))) {
                (ones().method("tril", Vec::new()), "mask")
            } else if is_triangle(&shape, &values, |row, column| f64::from(u8::from(column > row))) {
                (ones().method("triu", vec![Arg::new(Expr::slot("diagonal", Lit::Int(1)))]), "mask")
            } else {
                return None;
            }
        }
        DType::Float32 => {
            let lowest = |row, column| if column > row { f64::NEG_INFINITY } else { 0.0 };
            if !is_triangle(&shape, &values, lowest) {
                return None;
            }
            let shape = Expr::slot("size", Lit::tuple(&shape));
            let full = Expr::call(
                "torch.full",
                vec![Arg::new(shape), Arg::new(Expr::slot("value", Lit::float(f32::NEG_INFINITY)))],
            );
            (full.method("triu", vec![Arg::new(Expr::slot("diagonal", Lit::Int(1)))]), "mask")
        }
        DType::Int64 if shape.len() == 1 && values.iter().enumerate().all(|(i, &value)| value == i as f64) => {
            (Expr::call("torch.arange", sizes().collect()), "positions")
        }
        _ => return None,
    };
    Some(made)
}

/// Whether the last two axes are a square of these elements, and the others have size 1.
fn is_triangle(shape: &[usize], values: &[f64], element: impl Fn(usize, usize) -> f64) -> bool {
    let [lead @ .., rows, columns] = shape else { return false };
    rows == columns
        && *rows > 1
        && lead.iter().all(|&size| size == 1)
        && values.iter().enumerate().all(|(at, &value)| value == element(at / columns, at % columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_positions() {
        let text = |tensor: &Tensor| expression(tensor).map(|(expr, _)| expr.to_string());
        let causal = Tensor::from_f64(DType::Bool, &[2, 2], vec![1.0, 0.0, 1.0, 1.0]);
        assert_eq!(text(&causal).as_deref(), Some("torch.ones(2, 2, dtype=torch.bool).tril()"));
        let added = Tensor::from_f32(&[1, 2, 2], &[0.0, f32::NEG_INFINITY, 0.0, 0.0]);
        assert_eq!(text(&added).as_deref(), Some("torch.full((1, 2, 2), float(\"-inf\")).triu(1)"));
        assert_eq!(text(&Tensor::from_i64(&[3], &[0, 1, 2])).as_deref(), Some("torch.arange(3)"));
        assert_eq!(text(&Tensor::from_i64(&[3], &[0, 1, 3])), None);
    }
}
