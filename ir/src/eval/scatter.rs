//! Writing at computed places.

use super::array::{Array, filled, flat};
use super::shape::place;
use crate::op::Scatter;

pub(super) fn scatter(op: &Scatter, x: &Array, index: &Array, source: &Array) -> Result<Array, String> {
    let indices = flat(index.integers()?).into_owned();
    let (sizes, along) = (x.shape(), if op.elements { op.axis } else { 0 });
    let count = index.shape().get(along).copied().unwrap_or(0);
    let size = sizes.get(op.axis).copied().ok_or("the axis does not exist")?;
    let inner: usize = sizes[op.axis + 1..].iter().product();
    // Where every element of the source goes.
    let target = |from: usize| {
        let (column, row) = (from % inner.max(1), from / inner.max(1));
        let (outer, along) = (row / count.max(1), row % count.max(1));
        let index = indices.get(if op.elements { from } else { along }).ok_or("there are too few indices")?;
        Ok((outer * size + place(*index, size)?) * inner + column)
    };
    let written: usize = sizes[..op.axis].iter().product::<usize>() * count * inner;
    let targets = (0..written).map(target).collect::<Result<Vec<usize>, String>>()?;
    fn run<T: Copy>(x: &[T], source: &[T], targets: &[usize], join: impl Fn(T, T) -> T) -> Vec<T> {
        let mut result = x.to_vec();
        // A number is written everywhere.
        for (&to, &value) in targets.iter().zip(source.iter().cycle()) {
            if let Some(place) = result.get_mut(to) {
                *place = join(*place, value);
            }
        }
        result
    }
    Ok(match (x, source) {
        (Array::Float(a, dtype), Array::Float(b, _)) => {
            let join = |old, new| if op.add { old + new } else { new };
            Array::real(filled(sizes, run(&flat(a), &flat(b), &targets, join))?, *dtype)
        }
        (Array::Int(a, dtype), Array::Int(b, _)) => {
            let join = |old: i64, new: i64| if op.add { old.wrapping_add(new) } else { new };
            Array::whole(filled(sizes, run(&flat(a), &flat(b), &targets, join))?, *dtype)
        }
        (Array::Bool(a), Array::Bool(b)) => {
            let join = |old: bool, new: bool| if op.add { old || new } else { new };
            Array::Bool(filled(sizes, run(&flat(a), &flat(b), &targets, join))?)
        }
        _ => return Err(format!("writes {} into {}", source.dtype(), x.dtype())),
    })
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::*;

    #[test]
    fn elements_and_slices_go_to_their_places() {
        let x = Array::from_f32(&[2, 3], &[0., 1., 2., 3., 4., 5.]).unwrap();
        let source = Array::from_f32(&[2, 2], &[10., 20., 30., 40.]).unwrap();
        let each = Array::from_i64(&[2, 2], &[0, 2, 1, 1]).unwrap();
        let list = Array::from_i64(&[2], &[2, 0]).unwrap();
        let run = |op: Scatter, index: &Array| {
            apply(&op.into(), &[Some(&x), Some(index), Some(&source)]).unwrap().remove(0).to_f64()
        };
        let op = |elements, add| Scatter { axis: 1, elements, add };
        assert_eq!(run(op(true, false), &each), [10., 1., 20., 3., 40., 5.]);
        assert_eq!(run(op(true, true), &each), [10., 1., 22., 3., 74., 5.]);
        assert_eq!(run(op(false, false), &list), [20., 1., 10., 40., 4., 30.]);
        assert_eq!(run(op(false, true), &list), [20., 1., 12., 43., 4., 35.]);
        let outside = Array::from_i64(&[2], &[3, 0]).unwrap();
        assert!(apply(&op(false, true).into(), &[Some(&x), Some(&outside), Some(&source)]).is_err());
    }
}
