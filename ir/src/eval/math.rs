//! Functions of two elements, selection, running sums.

use ndarray::{ArrayD, IxDyn, Zip};

use super::array::{Array, Lanes, each};
use crate::op::{Binary, CumSum};

/// Combines two arrays element by element; `shape` is their broadcast shape.
fn zipped<T: Copy, U>(
    a: &ArrayD<T>,
    b: &ArrayD<T>,
    shape: &[usize],
    combine: impl Fn(T, T) -> U,
) -> Result<ArrayD<U>, String> {
    // A single operand is the common case, and needs no broadcasting.
    if a.shape() == shape
        && b.len() == 1
        && let Some(&b) = b.first()
    {
        return Ok(a.map(|&a| combine(a, b)));
    }
    match (a.broadcast(IxDyn(shape)), b.broadcast(IxDyn(shape))) {
        (Some(a), Some(b)) => Ok(Zip::from(a).and(b).map_collect(|&a, &b| combine(a, b))),
        _ => Err(format!("shapes {:?} and {:?} do not broadcast to {shape:?}", a.shape(), b.shape())),
    }
}

/// `shape` is the broadcast shape.
pub(super) fn binary(op: Binary, a: &Array, b: &Array, shape: &[usize]) -> Result<Array, String> {
    if a.dtype() != b.dtype() {
        return Err(format!("the operands differ in type: {} and {}", a.dtype(), b.dtype()));
    }
    let unfit = || format!("takes no operands of type {}", a.dtype());
    match (a, b) {
        (Array::Float(x, dtype), Array::Float(y, _)) => {
            if let Some(compare) = comparison::<f64>(op) {
                Ok(Array::Bool(zipped(x, y, shape, |x, y| compare(&x, &y))?))
            } else {
                let combine = real(op).ok_or_else(unfit)?;
                Ok(Array::real(zipped(x, y, shape, combine)?, *dtype))
            }
        }
        (Array::Int(x, dtype), Array::Int(y, _)) => {
            if let Some(compare) = comparison::<i64>(op) {
                return Ok(Array::Bool(zipped(x, y, shape, |x, y| compare(&x, &y))?));
            }
            if matches!(op, Binary::Div | Binary::FloorDiv | Binary::Mod | Binary::Fmod) && y.iter().any(|&y| y == 0) {
                return Err("a whole number is divided by 0".to_owned());
            }
            if op == Binary::Pow && y.iter().any(|&y| y < 0) {
                return Err("a whole number is raised to a negative power".to_owned());
            }
            let combine = whole(op).ok_or_else(unfit)?;
            Ok(Array::whole(zipped(x, y, shape, combine)?, *dtype))
        }
        (Array::Bool(x), Array::Bool(y)) => {
            let combine: fn(bool, bool) -> bool = match op {
                Binary::And => |x, y| x & y,
                Binary::Or => |x, y| x | y,
                Binary::Xor | Binary::NotEqual => |x, y| x ^ y,
                Binary::Equal => |x, y| x == y,
                _ => return Err(unfit()),
            };
            Ok(Array::Bool(zipped(x, y, shape, combine)?))
        }
        _ => Err(unfit()),
    }
}

fn comparison<T: PartialOrd>(op: Binary) -> Option<fn(&T, &T) -> bool> {
    Some(match op {
        Binary::Equal => T::eq,
        Binary::NotEqual => T::ne,
        Binary::Less => T::lt,
        Binary::LessEqual => T::le,
        Binary::Greater => T::gt,
        Binary::GreaterEqual => T::ge,
        _ => return None,
    })
}

fn real(op: Binary) -> Option<fn(f64, f64) -> f64> {
    Some(match op {
        Binary::Add => |a, b| a + b,
        Binary::Sub => |a, b| a - b,
        Binary::Mul => |a, b| a * b,
        Binary::Div => |a, b| a / b,
        Binary::FloorDiv => floor_division,
        Binary::Mod => floor_remainder,
        Binary::Fmod => |a, b| a % b,
        Binary::Pow => f64::powf,
        // NaN wins, as in both frameworks.
        Binary::Maximum => |a, b| if a > b || a.is_nan() { a } else { b },
        Binary::Minimum => |a, b| if a < b || a.is_nan() { a } else { b },
        Binary::SquaredDifference => |a, b| (a - b) * (a - b),
        Binary::Atan2 => f64::atan2,
        Binary::Equal
        | Binary::NotEqual
        | Binary::Less
        | Binary::LessEqual
        | Binary::Greater
        | Binary::GreaterEqual
        | Binary::And
        | Binary::Or
        | Binary::Xor => return None,
    })
}

fn floor_remainder(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
}

/// Exact, as NumPy and PyTorch; TensorFlow takes the floor of the rounded quotient.
fn floor_division(a: f64, b: f64) -> f64 {
    let quotient = (a - floor_remainder(a, b)) / b;
    if quotient.is_finite() { quotient.round() } else { (a / b).floor() }
}

fn whole(op: Binary) -> Option<fn(i64, i64) -> i64> {
    Some(match op {
        Binary::Add => i64::wrapping_add,
        Binary::Sub => i64::wrapping_sub,
        Binary::Mul => i64::wrapping_mul,
        // Divisors of 0 were refused before.
        Binary::Div => |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
        Binary::FloorDiv => |a, b| {
            let rest = if b == 0 { return 0 } else { a.wrapping_rem(b) };
            a.wrapping_div(b) - i64::from(rest != 0 && (rest < 0) != (b < 0))
        },
        Binary::Mod => |a, b| {
            let rest = if b == 0 { return 0 } else { a.wrapping_rem(b) };
            if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
        },
        Binary::Fmod => |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) },
        Binary::Pow => |base, exponent| {
            let (mut result, mut base, mut exponent) = (1i64, base, exponent.max(0));
            while exponent > 0 {
                if exponent & 1 == 1 {
                    result = result.wrapping_mul(base);
                }
                base = base.wrapping_mul(base);
                exponent >>= 1;
            }
            result
        },
        Binary::Maximum => i64::max,
        Binary::Minimum => i64::min,
        Binary::SquaredDifference => |a, b| a.wrapping_sub(b).wrapping_mul(a.wrapping_sub(b)),
        Binary::And => |a, b| a & b,
        Binary::Or => |a, b| a | b,
        Binary::Xor => |a, b| a ^ b,
        Binary::Atan2
        | Binary::Equal
        | Binary::NotEqual
        | Binary::Less
        | Binary::LessEqual
        | Binary::Greater
        | Binary::GreaterEqual => return None,
    })
}

/// `shape` is the broadcast shape of all three.
pub(super) fn select(condition: &Array, a: &Array, b: &Array, shape: &[usize]) -> Result<Array, String> {
    let Array::Bool(condition) = condition else {
        return Err(format!("the condition has type {}, expected bool", condition.dtype()));
    };
    if a.dtype() != b.dtype() {
        return Err(format!("the operands differ in type: {} and {}", a.dtype(), b.dtype()));
    }
    fn chosen<T: Copy>(
        condition: &ArrayD<bool>,
        a: &ArrayD<T>,
        b: &ArrayD<T>,
        shape: &[usize],
    ) -> Result<ArrayD<T>, String> {
        let shape = IxDyn(shape);
        match (condition.broadcast(shape.clone()), a.broadcast(shape.clone()), b.broadcast(shape)) {
            (Some(c), Some(a), Some(b)) => {
                Ok(Zip::from(c).and(a).and(b).map_collect(|&c, &a, &b| if c { a } else { b }))
            }
            _ => Err("the operands do not broadcast".to_owned()),
        }
    }
    match (a, b) {
        (Array::Float(a, dtype), Array::Float(b, _)) => Ok(Array::Float(chosen(condition, a, b, shape)?, *dtype)),
        (Array::Int(a, dtype), Array::Int(b, _)) => Ok(Array::Int(chosen(condition, a, b, shape)?, *dtype)),
        (Array::Bool(a), Array::Bool(b)) => Ok(Array::Bool(chosen(condition, a, b, shape)?)),
        _ => Err("the operands differ in type".to_owned()),
    }
}

pub(super) fn cumsum(op: &CumSum, x: &Array) -> Result<Array, String> {
    fn run<T: Copy + 'static>(lane: &mut [T], op: &CumSum, zero: T, add: impl Fn(T, T) -> T) {
        let mut sum = zero;
        let mut step = |x: &mut T| {
            let before = sum;
            sum = add(sum, *x);
            *x = if op.exclusive { before } else { sum };
        };
        if op.reverse {
            lane.iter_mut().rev().for_each(&mut step);
        } else {
            lane.iter_mut().for_each(&mut step);
        }
    }
    match x {
        Array::Float(a, dtype) => {
            let sums = Lanes::along(a, &[op.axis]).mapped(|lane| run(lane, op, 0.0, |a, b| a + b))?;
            Ok(Array::real(sums, *dtype))
        }
        Array::Int(a, dtype) => {
            let sums = Lanes::along(a, &[op.axis]).mapped(|lane| run(lane, op, 0, i64::wrapping_add))?;
            Ok(Array::whole(sums, *dtype))
        }
        Array::Bool(_) => Err("takes numbers, got bool".to_owned()),
    }
}

/// Broadcasts to a shape.
pub(super) fn expand(x: &Array, shape: &[usize]) -> Result<Array, String> {
    let unfit = || format!("shape {:?} does not broadcast to {shape:?}", x.shape());
    Ok(each!(x, a => a.broadcast(IxDyn(shape)).ok_or_else(unfit)?.as_standard_layout().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::*;
    use crate::op::{Op, Select};
    use crate::tensor::DType;

    fn run(op: impl Into<Op>, inputs: &[&Array]) -> Result<Vec<f64>, String> {
        let inputs: Vec<_> = inputs.iter().map(|x| Some(*x)).collect();
        Ok(apply(&op.into(), &inputs)?[0].to_f64())
    }

    /// Whole numbers divide as in C, except where the name says otherwise.
    #[test]
    fn division() {
        let (a, b) = ([7., -7., 7., -7.], [2., 2., -2., -2.]);
        let cases = [
            (Binary::Div, [3., -3., -3., 3.], [3.5, -3.5, -3.5, 3.5]),
            (Binary::FloorDiv, [3., -4., -4., 3.], [3., -4., -4., 3.]),
            (Binary::Mod, [1., 1., -1., -1.], [1., 1., -1., -1.]),
            (Binary::Fmod, [1., -1., 1., -1.], [1., -1., 1., -1.]),
        ];
        for (op, whole, real) in cases {
            for (dtype, want) in [(DType::Int32, whole), (DType::Float32, real)] {
                let [a, b] = [a, b].map(|x| Array::from_f64(dtype, &[4], x.to_vec()).unwrap());
                assert_eq!(run(op, &[&a, &b]).unwrap(), want, "{op:?} {dtype}");
            }
        }
        let zero = Array::from_i64(&[], &[0]).unwrap();
        assert!(run(Binary::Mod, &[&zero, &zero]).unwrap_err().contains("divided by 0"));
    }

    #[test]
    fn arithmetic_wraps_and_rounds_to_the_type() {
        let bytes = Array::from_f64(DType::UInt8, &[1], vec![200.]).unwrap();
        assert_eq!(run(Binary::Add, &[&bytes, &bytes]).unwrap(), [144.]);
        let halves = Array::from_f64(DType::Float16, &[1], vec![2048.]).unwrap();
        let one = Array::from_f64(DType::Float16, &[1], vec![1.]).unwrap();
        assert_eq!(run(Binary::Add, &[&halves, &one]).unwrap(), [2048.]);
        let three = Array::from_i64(&[2], &[-3, 3]).unwrap();
        assert_eq!(run(Binary::Pow, &[&three, &Array::from_i64(&[], &[3]).unwrap()]).unwrap(), [-27., 27.]);
        assert!(run(Binary::Add, &[&bytes, &halves]).unwrap_err().contains("differ in type"));
    }

    #[test]
    fn operands_broadcast_both_ways() {
        let column = Array::from_f32(&[2, 1], &[1., 2.]).unwrap();
        let row = Array::from_f32(&[3], &[10., 20., f32::NAN]).unwrap();
        assert_eq!(run(Binary::Sub, &[&column, &row]).unwrap()[..2], [-9., -19.]);
        assert!(run(Binary::Maximum, &[&column, &row]).unwrap()[5].is_nan());
        assert!(run(Binary::Minimum, &[&row, &column]).unwrap()[2].is_nan());
        let less = apply(&Binary::Less.into(), &[Some(&row), Some(&column)]).unwrap().remove(0);
        assert_eq!((less.dtype(), less.to_f64()), (DType::Bool, vec![0.; 6]));
        let chosen = run(Select {}, &[&less, &column, &Array::from_f32(&[], &[7.]).unwrap()]);
        assert_eq!(chosen.unwrap(), [7.; 6]);
    }

    /// TensorFlow's documentation of `tf.cumsum`.
    #[test]
    fn running_sums() {
        let x = Array::from_f32(&[2, 3], &[1., 2., 3., 10., 20., 30.]).unwrap();
        let op = |axis, exclusive, reverse| CumSum { axis, exclusive, reverse };
        assert_eq!(run(op(1, false, false), &[&x]).unwrap(), [1., 3., 6., 10., 30., 60.]);
        assert_eq!(run(op(1, true, false), &[&x]).unwrap(), [0., 1., 3., 0., 10., 30.]);
        assert_eq!(run(op(1, true, true), &[&x]).unwrap(), [5., 3., 0., 50., 30., 0.]);
        assert_eq!(run(op(0, false, true), &[&x]).unwrap(), [11., 22., 33., 10., 20., 30.]);
    }
}
