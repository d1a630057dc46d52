//! Constants that are no entry of the state dict, such as masks and positions: what makes them, where that is short.

use modelport_ir::{DType, Tensor};

use crate::python::{Arg, Expr, Lit};

/// More elements than these are not looked at.
const LIMIT: usize = 1 << 22;
/// Up to so many elements are written out.
const WRITTEN: usize = 32;
/// Most steps along one axis that are written out.
const STEPS: usize = 8;

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
                return written(tensor.dtype(), &shape, &values);
            }
        }
        DType::Float32 => {
            let lowest = |row, column| if column > row { f64::NEG_INFINITY } else { 0.0 };
            if !is_triangle(&shape, &values, lowest) {
                return steps(&shape, &values).or_else(|| written(tensor.dtype(), &shape, &values));
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
        _ => return written(tensor.dtype(), &shape, &values),
    };
    Some(made)
}

/// A few elements as they are.
fn written(dtype: DType, shape: &[usize], values: &[f64]) -> Option<(Expr, &'static str)> {
    let literal = |&value: &f64| match dtype {
        DType::Float32 => Some(Lit::float(value as f32)),
        DType::Int64 => Some(Lit::Int(value as i64)),
        DType::Bool => Some(Lit::Bool(value != 0.0)),
        _ => None,
    };
    if values.len() > WRITTEN {
        return None;
    }
    let mut items = values.iter().map(literal).collect::<Option<Vec<Lit>>>()?;
    for &size in shape.iter().skip(1).rev() {
        items = items.chunks(size).map(|row| Lit::List(row.to_vec())).collect();
    }
    let items = match shape {
        [] => items.pop()?,
        _ => Lit::List(items),
    };
    Some((Expr::call("torch.tensor", vec![Arg::new(Expr::slot("values", items))]), "constant"))
}

/// A sum of what changes in a few steps along each axis: the numbers of regions in an image.
fn steps(shape: &[usize], values: &[f64]) -> Option<(Expr, &'static str)> {
    let first = *values.first()?;
    let mut stride = values.len();
    let mut axes: Vec<(usize, Vec<f64>)> = Vec::new();
    for (axis, &size) in shape.iter().enumerate() {
        stride /= size;
        let along: Vec<f64> = (0..size).map(|i| values[i * stride] - first).collect();
        if along.iter().any(|&value| value != 0.0) {
            axes.push((axis, along));
        }
    }
    let sum = |at: usize| {
        let mut rest = at;
        let mut index = vec![0; shape.len()];
        for (axis, &size) in shape.iter().enumerate().rev() {
            index[axis] = rest % size;
            rest /= size;
        }
        axes.iter().fold(first, |sum, (axis, along)| sum + along[index[*axis]])
    };
    if !first.is_finite() || values.iter().enumerate().any(|(at, &value)| value != sum(at)) {
        return None;
    }
    let size = |size: usize| Expr::int("size", size);
    let Some(&(outer, _)) = axes.first() else {
        let shape = Expr::slot("size", Lit::tuple(shape));
        let full = vec![Arg::new(shape), Arg::new(Expr::slot("value", Lit::float(first as f32)))];
        return Some((Expr::call("torch.full", full), "constant"));
    };
    let mut made: Option<Expr> = None;
    for (axis, along) in &axes {
        let base = if made.is_none() { first } else { 0.0 };
        let mut runs: Vec<(f64, usize)> = Vec::new();
        for value in along {
            match runs.last_mut() {
                Some((last, count)) if last == value => *count += 1,
                _ => runs.push((*value, 1)),
            }
        }
        if runs.len() > STEPS {
            return None;
        }
        let list = |items: Vec<Lit>| Arg::new(Expr::slot("values", Lit::List(items)));
        let levels = runs.iter().map(|(value, _)| Lit::float((value + base) as f32)).collect();
        let mut part = Expr::call("torch.tensor", vec![list(levels)]);
        if runs.len() < along.len() {
            let counts = Expr::List(runs.iter().map(|(_, count)| size(*count)).collect());
            let counts = Expr::call("torch.tensor", vec![Arg::new(counts)]);
            part = part.method("repeat_interleave", vec![Arg::new(counts)]);
        } else if values.len() == along.len() && *axis + 1 == shape.len() {
            // A row of numbers.
            let row =
                Expr::List(along.iter().map(|value| Expr::slot("value", Lit::float((value + base) as f32))).collect());
            let row = (0..*axis).fold(row, |row, _| Expr::List(vec![row]));
            return Some((Expr::call("torch.tensor", vec![Arg::new(row)]), "constant"));
        }
        let after = shape.len() - 1 - axis;
        if after > 0 {
            let ones = std::iter::once(Expr::name("-1")).chain(std::iter::repeat_n(Expr::name("1"), after));
            part = part.method("view", ones.map(Arg::new).collect());
        }
        made = Some(match made {
            Some(sum) => sum.binary("+", part),
            None => part,
        });
    }
    let spread = shape.iter().enumerate().any(|(axis, &size)| {
        let varies = axes.iter().any(|(own, _)| *own == axis);
        !varies && (size != 1 || axis < outer)
    });
    let made = made?;
    let expand = |made: Expr| made.method("expand", shape.iter().map(|&n| Arg::new(size(n))).collect());
    Some((if spread { expand(made) } else { made }, "regions"))
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
        assert_eq!(text(&Tensor::from_i64(&[3], &[0, 1, 3])).as_deref(), Some("torch.tensor([0, 1, 3])"));
        let many: Vec<i64> = (0..40).map(|i| i * i).collect();
        assert_eq!(text(&Tensor::from_i64(&[40], &many)), None);
    }

    #[test]
    fn regions_of_an_image() {
        let row = |step: f32| [0.0, 0.0, 1.0, 2.0].map(|value: f32| value + step);
        let image: Vec<f32> = [0.0, 0.0, 0.0, 3.0].into_iter().flat_map(row).collect();
        let text = |shape: &[usize]| expression(&Tensor::from_f32(shape, &image)).unwrap().0.to_string();
        assert_eq!(
            text(&[4, 4]),
            "torch.tensor([0.0, 3.0]).repeat_interleave(torch.tensor([3, 1])).view(-1, 1) + \
             torch.tensor([0.0, 1.0, 2.0]).repeat_interleave(torch.tensor([2, 1, 1]))"
        );
        assert!(text(&[1, 4, 4]).ends_with(").expand(1, 4, 4)"));
    }
}
