//! Reductions over axes, positions of extremes, the largest k.

use std::cmp::Ordering;

use super::array::{Array, Lanes, filled};
use super::norm::distinct;
use crate::op::{ArgReduce, Extreme, Reduce, ReduceKind, TopK};
use crate::tensor::DType;

/// `shape` is that of the result.
pub(super) fn reduce(op: &Reduce, x: &Array, shape: &[usize]) -> Result<Array, String> {
    distinct(&op.axes)?;
    let unfit = || format!("takes no values of type {}", x.dtype());
    match x {
        Array::Float(a, dtype) => {
            let fold: fn(&[f64]) -> f64 = match op.kind {
                ReduceKind::Sum => |lane| lane.iter().sum(),
                ReduceKind::Mean => |lane| lane.iter().sum::<f64>() / lane.len() as f64,
                ReduceKind::Max => |lane| extreme(lane, f64::NEG_INFINITY, |x, best| x > best),
                ReduceKind::Min => |lane| extreme(lane, f64::INFINITY, |x, best| x < best),
                ReduceKind::Prod => |lane| lane.iter().product(),
                ReduceKind::L2 => |lane| lane.iter().map(|x| x * x).sum::<f64>().sqrt(),
                ReduceKind::LogSumExp => log_sum_exp,
                ReduceKind::All | ReduceKind::Any => return Err(unfit()),
            };
            Ok(Array::real(filled(shape, Lanes::along(a, &op.axes).iter().map(fold).collect())?, *dtype))
        }
        Array::Int(a, dtype) => {
            let fold = whole(op.kind, *dtype).ok_or_else(unfit)?;
            Ok(Array::whole(filled(shape, Lanes::along(a, &op.axes).iter().map(fold).collect())?, *dtype))
        }
        Array::Bool(a) => {
            let fold: fn(&[bool]) -> bool = match op.kind {
                ReduceKind::All => |lane| lane.iter().all(|&x| x),
                ReduceKind::Any => |lane| lane.iter().any(|&x| x),
                _ => return Err(unfit()),
            };
            Ok(Array::Bool(filled(shape, Lanes::along(a, &op.axes).iter().map(fold).collect())?))
        }
    }
}

fn whole(kind: ReduceKind, dtype: DType) -> Option<impl Fn(&[i64]) -> i64> {
    let (least, most) = limits(dtype);
    match kind {
        ReduceKind::L2 | ReduceKind::LogSumExp | ReduceKind::All | ReduceKind::Any => return None,
        ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Max | ReduceKind::Min | ReduceKind::Prod => {}
    }
    Some(move |lane: &[i64]| {
        let sum = || lane.iter().fold(0i64, |sum, x| sum.wrapping_add(*x));
        match kind {
            // Cut off toward zero, as TensorFlow does; PyTorch has no mean of whole numbers.
            ReduceKind::Mean => sum().checked_div(lane.len() as i64).unwrap_or(0),
            ReduceKind::Max => lane.iter().copied().fold(least, i64::max),
            ReduceKind::Min => lane.iter().copied().fold(most, i64::min),
            ReduceKind::Prod => lane.iter().fold(1i64, |product, x| product.wrapping_mul(*x)),
            _ => sum(),
        }
    })
}

fn limits(dtype: DType) -> (i64, i64) {
    match dtype {
        DType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DType::UInt8 => (0, u8::MAX.into()),
        DType::UInt16 => (0, u16::MAX.into()),
        DType::UInt32 => (0, u32::MAX.into()),
        _ => (i64::MIN, i64::MAX),
    }
}

fn extreme(lane: &[f64], start: f64, better: fn(f64, f64) -> bool) -> f64 {
    lane.iter().fold(start, |best, &x| if better(x, best) || x.is_nan() { x } else { best })
}

fn log_sum_exp(lane: &[f64]) -> f64 {
    let largest = extreme(lane, f64::NEG_INFINITY, |x, best| x > best);
    if !largest.is_finite() {
        return largest;
    }
    largest + lane.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
}

/// The position of the first extreme; the first NaN counts as one, as in NumPy and PyTorch.
pub(super) fn arg_reduce(op: &ArgReduce, x: &Array, shape: &[usize]) -> Result<Array, String> {
    fn first<T: Copy>(lane: &[T], better: impl Fn(T, T) -> bool) -> i64 {
        let mut best = 0;
        for (i, &x) in lane.iter().enumerate() {
            if better(x, lane[best]) {
                best = i;
            }
        }
        best as i64
    }
    if x.shape().get(op.axis) == Some(&0) {
        return Err(format!("axis {} is empty", op.axis));
    }
    let positions: Vec<i64> = match (x, op.kind) {
        (Array::Float(a, _), kind) => {
            let better = |x: f64, best: f64| match kind {
                Extreme::Max => x > best || x.is_nan() && !best.is_nan(),
                Extreme::Min => x < best || x.is_nan() && !best.is_nan(),
            };
            Lanes::along(a, &[op.axis]).iter().map(|lane| first(lane, better)).collect()
        }
        (Array::Int(a, _), Extreme::Max) => {
            Lanes::along(a, &[op.axis]).iter().map(|lane| first(lane, |x, best| x > best)).collect()
        }
        (Array::Int(a, _), Extreme::Min) => {
            Lanes::along(a, &[op.axis]).iter().map(|lane| first(lane, |x, best| x < best)).collect()
        }
        (Array::Bool(_), _) => return Err("takes numbers, got bool".to_owned()),
    };
    Ok(Array::Int(filled(shape, positions)?, DType::Int64).cast(op.dtype))
}

/// Equal elements keep their order; NaN counts as the largest.
pub(super) fn top_k(op: &TopK, x: &Array, shape: &[usize]) -> Result<Vec<Array>, String> {
    fn best<'a, T: Copy + 'a>(
        lanes: impl Iterator<Item = &'a [T]>,
        k: usize,
        order: impl Fn(&T, &T) -> Ordering,
    ) -> (Vec<T>, Vec<i64>) {
        let sorted = |lane: &'a [T]| {
            let mut pairs: Vec<(T, i64)> = lane.iter().copied().zip(0..).collect();
            pairs.sort_by(|a, b| order(&b.0, &a.0));
            pairs.truncate(k);
            pairs
        };
        lanes.flat_map(sorted).unzip()
    }
    let axis = x.shape().len().saturating_sub(1);
    let (values, positions) = match x {
        Array::Float(a, dtype) => {
            let order = |a: &f64, b: &f64| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
            let (values, positions) = best(Lanes::along(a, &[axis]).iter(), op.k, order);
            (Array::Float(filled(shape, values)?, *dtype), positions)
        }
        Array::Int(a, dtype) => {
            let (values, positions) = best(Lanes::along(a, &[axis]).iter(), op.k, i64::cmp);
            (Array::Int(filled(shape, values)?, *dtype), positions)
        }
        Array::Bool(_) => return Err("takes numbers, got bool".to_owned()),
    };
    Ok(vec![values, Array::Int(filled(shape, positions)?, DType::Int64).cast(op.index_dtype)])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, ramp, reals, run};
    use super::*;

    #[test]
    fn reductions_agree_with_numpy() {
        let x = reals(&[2, 3], &[1., -2., 3., 4., 5., -6.]);
        let op = |kind, axes: &[usize]| Reduce { kind, axes: axes.to_vec(), keep_dims: false };
        check(op(ReduceKind::Sum, &[0]), &[&x], &[3], &[5., 3., -3.]);
        check(op(ReduceKind::Mean, &[0, 1]), &[&x], &[], &[5. / 6.]);
        check(op(ReduceKind::Max, &[1]), &[&x], &[2], &[3., 5.]);
        check(op(ReduceKind::Min, &[1]), &[&x], &[2], &[-2., -6.]);
        check(op(ReduceKind::Prod, &[1]), &[&x], &[2], &[-6., -120.]);
        check(op(ReduceKind::L2, &[1]), &[&x], &[2], &[3.7416573868, 8.7749643874]);
        check(op(ReduceKind::LogSumExp, &[1]), &[&x], &[2], &[3.1328452338, 5.3132738233]);
        check(op(ReduceKind::L2, &[]), &[&x], &[2, 3], &[1., 2., 3., 4., 5., 6.]);
        check(Reduce { kind: ReduceKind::Sum, axes: vec![1], keep_dims: true }, &[&x], &[2, 1], &[2., 3.]);
        check(op(ReduceKind::LogSumExp, &[0]), &[&reals(&[2], &[1000., 1000.])], &[], &[1000.6931471806]);
        check(op(ReduceKind::Sum, &[1]), &[&ramp(&[2, 0])], &[2], &[0., 0.]);
        assert!(run(op(ReduceKind::Max, &[0]), &[&reals(&[2], &[f64::NAN, 1.])]).1[0].is_nan());
    }

    #[test]
    fn whole_numbers_and_truth_values() {
        let op = |kind| Reduce { kind, axes: vec![0], keep_dims: false };
        let x = Array::from_f64(DType::Int32, &[3], vec![-3., -3., -2.]).unwrap();
        check(op(ReduceKind::Mean), &[&x], &[], &[-2.]);
        check(op(ReduceKind::Max), &[&x], &[], &[-2.]);
        let truth = Array::from_f64(DType::Bool, &[2], vec![1., 0.]).unwrap();
        check(op(ReduceKind::All), &[&truth], &[], &[0.]);
        check(op(ReduceKind::Any), &[&truth], &[], &[1.]);
        let empty = Array::from_f64(DType::Int8, &[0], vec![]).unwrap();
        check(op(ReduceKind::Max), &[&empty], &[], &[-128.]);
    }

    #[test]
    fn equal_elements_keep_their_order() {
        let x = reals(&[2, 4], &[1., 7., 7., 0., -1., -1., -5., f64::NAN]);
        let arg = |kind, axis| ArgReduce { kind, axis, keep_dims: false, dtype: DType::Int32 };
        check(arg(Extreme::Max, 1), &[&x], &[2], &[1., 3.]);
        check(arg(Extreme::Min, 0), &[&x], &[4], &[1., 1., 1., 1.]);
        let x = reals(&[1, 4], &[3., 7., 7., 3.]);
        check(TopK { k: 3, index_dtype: DType::Int64 }, &[&x], &[1, 3], &[7., 7., 3., 1., 2., 0.]);
    }
}
