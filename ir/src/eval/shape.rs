//! Moving elements without computing: slices, pads, joins, gathers.

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice as AxisSlice, concatenate};

use super::array::{Array, each, filled, flat, permuted};
use crate::op::{Gather, OneHot, Pack, Pad, PadMode, Reverse, Slice, Split, Unpack};
use crate::tensor::DType;

/// The elements at these places of an axis, which exist.
fn picked<T: Clone>(a: &ArrayD<T>, axis: usize, places: &[usize]) -> ArrayD<T> {
    a.select(Axis(axis), places)
}

/// Picks along every axis, by a list of places per axis (`None`: all of it).
fn picked_everywhere(
    x: &Array,
    places: impl Fn(usize, usize) -> Result<Option<Vec<usize>>, String>,
) -> Result<Array, String> {
    let mut result = x.clone();
    for (axis, &size) in x.shape().iter().enumerate() {
        if let Some(places) = places(axis, size)? {
            result = each!(&result, a => picked(a, axis, &places));
        }
    }
    Ok(result)
}

pub(super) fn pack(op: &Pack, inputs: &[&Array]) -> Result<Array, String> {
    let widened = |x: &&Array| {
        let mut shape = x.shape().to_vec();
        shape.insert(op.axis.min(shape.len()), 1);
        x.reshaped(&shape)
    };
    let widened = inputs.iter().map(widened).collect::<Result<Vec<_>, _>>()?;
    joined(&widened.iter().collect::<Vec<_>>(), op.axis)
}

/// Joins along an axis.
pub(super) fn joined(inputs: &[&Array], axis: usize) -> Result<Array, String> {
    fn all<'a, T: Clone + 'a>(
        inputs: &[&'a Array],
        axis: usize,
        view: impl Fn(&'a Array) -> Option<ArrayViewD<'a, T>>,
    ) -> Result<ArrayD<T>, String> {
        let views: Option<Vec<_>> = inputs.iter().map(|x| view(x)).collect();
        let views = views.ok_or("the inputs differ in type")?;
        let result = concatenate(Axis(axis), &views).map_err(|_| "the inputs do not fit together".to_owned())?;
        Ok(result.as_standard_layout().into_owned())
    }
    let first = inputs.first().ok_or("there are no inputs")?;
    if let Some(other) = inputs.iter().find(|x| x.dtype() != first.dtype()) {
        return Err(format!("the inputs differ in type: {} and {}", first.dtype(), other.dtype()));
    }
    Ok(match first {
        Array::Float(_, dtype) => {
            let joined = all(inputs, axis, |x| if let Array::Float(a, _) = x { Some(a.view()) } else { None })?;
            Array::Float(joined, *dtype)
        }
        Array::Int(_, dtype) => {
            let joined = all(inputs, axis, |x| if let Array::Int(a, _) = x { Some(a.view()) } else { None })?;
            Array::Int(joined, *dtype)
        }
        Array::Bool(_) => {
            Array::Bool(all(inputs, axis, |x| if let Array::Bool(a) = x { Some(a.view()) } else { None })?)
        }
    })
}

fn range<T: Clone>(a: &ArrayD<T>, axis: usize, start: usize, end: usize) -> ArrayD<T> {
    let slice = AxisSlice::new(start as isize, Some(end as isize), 1);
    a.slice_axis(Axis(axis), slice).as_standard_layout().into_owned()
}

pub(super) fn split(op: &Split, x: &Array) -> Result<Vec<Array>, String> {
    let mut start = 0;
    Ok(op
        .sizes
        .iter()
        .map(|&size| {
            start += size;
            each!(x, a => range(a, op.axis, start - size, start))
        })
        .collect())
}

pub(super) fn unpack(op: &Unpack, x: &Array) -> Result<Vec<Array>, String> {
    let slice = |i| each!(x, a => a.index_axis(Axis(op.axis), i).as_standard_layout().into_owned());
    Ok((0..op.count).map(slice).collect())
}

pub(super) fn slice(op: &Slice, x: &Array) -> Result<Array, String> {
    picked_everywhere(x, |axis, size| {
        if op.takes_all(axis) {
            return Ok(None);
        }
        let (begin, count) = op.resolve(axis, size);
        let step = op.steps.get(axis).copied().unwrap_or(1);
        let place = |i: usize| {
            let place = begin as i128 + i as i128 * i128::from(step);
            usize::try_from(place).ok().filter(|&place| place < size)
        };
        let places: Option<Vec<usize>> = (0..count).map(place).collect();
        places.map(Some).ok_or_else(|| format!("the slice leaves axis {axis} of size {size}"))
    })
}

pub(super) fn pad(op: &Pad, x: &Array, shape: &[usize]) -> Result<Array, String> {
    fn surrounded<T: Clone>(a: &ArrayD<T>, op: &Pad, shape: &[usize], value: T) -> ArrayD<T> {
        let mut result = ArrayD::from_elem(IxDyn(shape), value);
        let inner = |axis: usize| {
            let before = op.pads.0.get(axis).map_or(0, |pad| pad.0);
            AxisSlice::new(before as isize, Some((before + a.shape()[axis]) as isize), 1)
        };
        result.slice_each_axis_mut(|axis| inner(axis.axis.index())).assign(a);
        result
    }
    if op.mode == PadMode::Constant {
        return Ok(match x {
            Array::Float(a, dtype) => Array::real(surrounded(a, op, shape, f64::from(op.value)), *dtype),
            Array::Int(a, dtype) => Array::whole(surrounded(a, op, shape, op.value as i64), *dtype),
            Array::Bool(a) => Array::Bool(surrounded(a, op, shape, op.value != 0.0)),
        });
    }
    picked_everywhere(x, |axis, size| {
        let (before, after) = op.pads.0.get(axis).copied().unwrap_or_default();
        if (before, after) == (0, 0) {
            return Ok(None);
        }
        let room = match op.mode {
            PadMode::Reflect => size.saturating_sub(1),
            PadMode::Symmetric => size,
            PadMode::Constant | PadMode::Edge => usize::MAX * usize::from(size > 0),
        };
        if before > room || after > room {
            return Err(format!("padding ({before}, {after}) of axis {axis} is more than its {size} elements give"));
        }
        let (n, last) = (size as i64, size as i64 - 1);
        let place = |i: i64| match op.mode {
            PadMode::Reflect if i < 0 => -i,
            PadMode::Reflect if i > last => 2 * last - i,
            PadMode::Symmetric if i < 0 => -i - 1,
            PadMode::Symmetric if i > last => 2 * n - 1 - i,
            _ => i.clamp(0, last),
        };
        Ok(Some((-(before as i64)..n + after as i64).map(|i| place(i) as usize).collect()))
    })
}

pub(super) fn tile(x: &Array, shape: &[usize]) -> Result<Array, String> {
    picked_everywhere(x, |axis, size| {
        let wanted = shape.get(axis).copied().unwrap_or(size);
        Ok((wanted != size).then(|| (0..wanted).map(|i| i % size.max(1)).collect()))
    })
}

pub(super) fn reverse(op: &Reverse, x: &Array) -> Result<Array, String> {
    picked_everywhere(x, |axis, size| Ok(op.axes.contains(&axis).then(|| (0..size).rev().collect())))
}

/// The index as a place on an axis of `size` elements. Negative ones are refused, as TensorFlow does.
pub(super) fn place(index: i64, size: usize) -> Result<usize, String> {
    let found = usize::try_from(index).ok().filter(|&place| place < size);
    found.ok_or_else(|| format!("index {index} is outside of an axis of {size} elements"))
}

pub(super) fn gather(op: &Gather, x: &Array, indices: &Array, shape: &[usize]) -> Result<Array, String> {
    let indices_shape = indices.shape().to_vec();
    let indices = flat(indices.integers()?).into_owned();
    let sizes = x.shape();
    let axis = sizes.get(op.axis).copied().unwrap_or(0);
    let places = indices.iter().map(|&i| place(i, axis)).collect::<Result<Vec<_>, _>>()?;
    if sizes.get(..op.batch_dims) != indices_shape.get(..op.batch_dims) {
        return Err(format!("{sizes:?} and {indices_shape:?} do not share {} axes", op.batch_dims));
    }
    let product = |sizes: &[usize]| sizes.iter().product::<usize>();
    let batch = product(&sizes[..op.batch_dims]);
    let outer = product(&sizes[op.batch_dims..op.axis]);
    let inner = product(&sizes[op.axis + 1..]);
    let per_batch = product(&indices_shape[op.batch_dims..]);
    fn run<T: Clone>(values: &[T], starts: impl Iterator<Item = usize>, inner: usize) -> Vec<T> {
        starts.flat_map(|start| values[start..start + inner].iter().cloned()).collect()
    }
    let starts = || {
        (0..batch * outer).flat_map(|row| {
            let from = row / outer.max(1) * per_batch;
            places[from..from + per_batch].iter().map(move |&place| (row * axis + place) * inner)
        })
    };
    Ok(each!(x, a => filled(shape, run(&flat(a), starts(), inner))?))
}

pub(super) fn gather_nd(x: &Array, indices: &Array, shape: &[usize]) -> Result<Array, String> {
    let depth = indices.shape().last().copied().unwrap_or(0);
    let tuples: usize = indices.shape().iter().rev().skip(1).product();
    let sizes = x.shape().get(..depth).ok_or("the index tuples are too long")?;
    let inner: usize = x.shape()[depth..].iter().product();
    let indices = flat(indices.integers()?).into_owned();
    let start = |tuple: usize| {
        let tuple = &indices[tuple * depth..(tuple + 1) * depth];
        let row = tuple.iter().zip(sizes).try_fold(0, |row, (&i, &size)| Ok::<_, String>(row * size + place(i, size)?));
        Ok(row? * inner)
    };
    let starts = (0..tuples).map(start).collect::<Result<Vec<usize>, String>>()?;
    fn run<T: Clone>(values: &[T], starts: &[usize], inner: usize) -> Vec<T> {
        starts.iter().flat_map(|&start| values[start..start + inner].iter().cloned()).collect()
    }
    Ok(each!(x, a => filled(shape, run(&flat(a), &starts, inner))?))
}

/// An index that is out of range leaves its row all `off`.
pub(super) fn one_hot(op: &OneHot, indices: &Array) -> Result<Array, String> {
    let indices = indices.integers()?;
    let row = |&index: &i64| {
        (0..op.depth).map(move |i| f64::from(if i64::try_from(i) == Ok(index) { op.on } else { op.off }))
    };
    let values: Vec<f64> = indices.iter().flat_map(row).collect();
    let rank = indices.ndim();
    let last: Vec<usize> = indices.shape().iter().copied().chain([op.depth]).collect();
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.insert(op.axis.min(rank), rank);
    Ok(Array::Float(permuted(&filled(&last, values)?, &perm), DType::Float64).cast(op.dtype))
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::*;
    use crate::op::{Concat, GatherNd, Op, Pads, Tile};
    use crate::shape::Shape;

    fn count(shape: &[usize]) -> Array {
        let n = shape.iter().product::<usize>() as i64;
        Array::from_i64(shape, &(0..n).collect::<Vec<_>>()).unwrap()
    }

    fn run(op: impl Into<Op>, inputs: &[&Array]) -> Result<(Vec<usize>, Vec<f64>), String> {
        let inputs: Vec<_> = inputs.iter().map(|x| Some(*x)).collect();
        let outputs = apply(&op.into(), &inputs)?;
        Ok((outputs[0].shape().to_vec(), outputs.iter().flat_map(Array::to_f64).collect()))
    }

    #[test]
    fn slices_go_both_ways() {
        let x = count(&[2, 5]);
        let cases: [(Slice, &[usize], &[f64]); 3] = [
            (Slice { begins: vec![0, 1], ends: vec![1, -1], steps: vec![1, 2] }, &[1, 2], &[1., 3.]),
            (
                Slice { begins: vec![-1, -1], ends: vec![Slice::OPEN; 2], steps: vec![-1, -2] },
                &[2, 3],
                &[9., 7., 5., 4., 2., 0.],
            ),
            (Slice { begins: vec![0, 3], ends: vec![2, 1], steps: vec![1, 1] }, &[2, 0], &[]),
        ];
        for (op, shape, want) in cases {
            assert_eq!(run(op, &[&x]), Ok((shape.to_vec(), want.to_vec())));
        }
    }

    /// The pictures in the documentation of [`PadMode`].
    #[test]
    fn pads() {
        let x = count(&[3]);
        let pad = |mode| Pad { pads: Pads(vec![(2, 2)]), mode, value: 9.0 };
        let cases = [
            (PadMode::Constant, [9., 9., 0., 1., 2., 9., 9.]),
            (PadMode::Reflect, [2., 1., 0., 1., 2., 1., 0.]),
            (PadMode::Symmetric, [1., 0., 0., 1., 2., 2., 1.]),
            (PadMode::Edge, [0., 0., 0., 1., 2., 2., 2.]),
        ];
        for (mode, want) in cases {
            assert_eq!(run(pad(mode), &[&x]).unwrap().1, want, "{mode:?}");
        }
        assert!(run(pad(PadMode::Reflect), &[&count(&[2])]).is_err());
    }

    #[test]
    fn joins_and_cuts() {
        let x = count(&[2, 2]);
        assert_eq!(run(Concat { axis: 1 }, &[&x, &x]).unwrap(), (vec![2, 4], vec![0., 1., 0., 1., 2., 3., 2., 3.]));
        assert_eq!(run(Pack { axis: 2 }, &[&x, &x]).unwrap(), (vec![2, 2, 2], vec![0., 0., 1., 1., 2., 2., 3., 3.]));
        assert_eq!(run(Split { axis: 1, sizes: vec![1, 1] }, &[&x]).unwrap(), (vec![2, 1], vec![0., 2., 1., 3.]));
        assert_eq!(run(Unpack { axis: 0, count: 2 }, &[&x]).unwrap(), (vec![2], vec![0., 1., 2., 3.]));
        assert_eq!(run(Reverse { axes: vec![1] }, &[&x]).unwrap().1, [1., 0., 3., 2.]);
        assert_eq!(
            run(Tile { repeats: Shape::known(&[1, 2]) }, &[&x]).unwrap(),
            (vec![2, 4], vec![0., 1., 0., 1., 2., 3., 2., 3.])
        );
    }

    /// NumPy's `take`, `take_along_axis` and fancy indexing.
    #[test]
    fn gathers() {
        let x = count(&[2, 3, 2]);
        let indices = |shape: &[usize], values: &[i64]| Array::from_i64(shape, values).unwrap();
        let gather = |axis, batch_dims| Gather { axis, batch_dims };
        assert_eq!(
            run(gather(1, 0), &[&x, &indices(&[2], &[2, 0])]).unwrap(),
            (vec![2, 2, 2], vec![4., 5., 0., 1., 10., 11., 6., 7.])
        );
        assert_eq!(
            run(gather(1, 1), &[&x, &indices(&[2, 1], &[2, 0])]).unwrap(),
            (vec![2, 1, 2], vec![4., 5., 6., 7.])
        );
        assert_eq!(
            run(gather(2, 1), &[&x, &indices(&[2, 1], &[1, 0])]).unwrap(),
            (vec![2, 3, 1], vec![1., 3., 5., 6., 8., 10.])
        );
        assert_eq!(
            run(GatherNd {}, &[&x, &indices(&[2, 2], &[1, 2, 0, 1])]).unwrap(),
            (vec![2, 2], vec![10., 11., 2., 3.])
        );
        assert!(run(gather(1, 0), &[&x, &indices(&[], &[3])]).unwrap_err().contains("index 3"));
        assert!(run(gather(1, 0), &[&x, &indices(&[], &[-1])]).is_err());
    }

    #[test]
    fn one_hot_puts_the_new_axis_anywhere() {
        let op = |axis| OneHot { depth: 3, axis, on: 1.0, off: -1.0, dtype: DType::Float32 };
        let x = Array::from_i64(&[2], &[2, 7]).unwrap();
        assert_eq!(run(op(1), &[&x]).unwrap(), (vec![2, 3], vec![-1., -1., 1., -1., -1., -1.]));
        assert_eq!(run(op(0), &[&x]).unwrap(), (vec![3, 2], vec![-1., -1., -1., -1., 1., -1.]));
    }
}
