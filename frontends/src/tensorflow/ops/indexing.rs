//! Slices, gathers and what picks by position.

use modelport_ir::{DType, Dim, Result, Shape, Tensor, Value, op};

use super::call::one;
use super::{Call, Family};
use crate::symbolic::{Arithmetic, Elem};
use crate::tensorflow::lower::Entry;
use crate::tensorflow::strided::Strided;

pub const OPS: Family = &[
    ("Slice", slice),
    ("StridedSlice", strided_slice),
    ("Gather", gather),
    ("GatherV2", gather),
    ("ResourceGather", gather),
    ("ReverseSequence", reverse_sequence),
    ("GatherNd", gather_nd),
    ("ResourceGatherNd", gather_nd),
    ("OneHot", one_hot),
    ("MatrixBandPart", band_part),
    ("MatrixDiag", diagonal),
    ("MatrixDiagV2", diagonal),
    ("MatrixDiagV3", diagonal),
    ("MatrixDiagPart", diagonal_part),
    ("MatrixDiagPartV2", diagonal_part),
    ("MatrixDiagPartV3", diagonal_part),
];

/// The sizes of an input, as `tf.shape` gives them.
fn elems_of_shape(call: &mut Call, slot: usize) -> Result<Vec<Elem>> {
    let (value, shape) = (call.input(slot)?, call.shape(slot)?);
    let all = &mut call.lower.expressions;
    let key = |axis: usize| format!("size|{}|{}|{axis}", value.node, value.output);
    Ok(shape.iter().enumerate().map(|(axis, dim)| all.of_dim(dim, || key(axis))).collect())
}

fn slice(call: &mut Call) -> Result<Vec<Entry>> {
    let shape = call.shape(0)?;
    let dims = elems_of_shape(call, 0)?;
    let (begins, sizes) = (call.sizes(1, "the begin")?.list(), call.sizes(2, "the size")?.list());
    let rank = shape.rank();
    if begins.len() != rank || sizes.len() != rank {
        return Err(call.fail(format!("begin and size do not fit {shape}")));
    }
    let mut slice = op::Slice::all(rank);
    for (axis, ((begin, size), dim)) in begins.iter().zip(&sizes).zip(&dims).enumerate() {
        let end = call.lower.expressions.apply(Arithmetic::Add, begin, size, DType::Int64);
        let whole = size.int().is_some_and(|size| size < 0) || end == *dim;
        let unknown = || call.fail_sizes(format!("the range on axis {axis} is not known at conversion time"));
        let first = begin.int().ok_or_else(unknown)?;
        let last = if whole { op::Slice::OPEN } else { end.int().ok_or_else(unknown)? };
        if let (Some(begin), Some(end)) = (slice.begins.get_mut(axis), slice.ends.get_mut(axis)) {
            (*begin, *end) = (first, last);
        }
    }
    if let Some(entry) = sliced_constant(call, &slice)? {
        return Ok(vec![entry]);
    }
    let x = call.data(0)?;
    if (0..rank).all(|axis| slice.takes_all(axis)) {
        return Ok(one(x));
    }
    Ok(one(call.add(slice, &[x])?))
}

/// A constant cut without steps stays a view.
fn sliced_constant(call: &Call, slice: &op::Slice) -> Result<Option<Entry>> {
    if slice.steps.iter().any(|&step| step != 1) {
        return Ok(None);
    }
    call.view(0, |tensor| {
        let mut tensor = tensor.clone();
        for (axis, size) in tensor.shape().into_iter().enumerate() {
            let (first, count) = slice.resolve(axis, size);
            if count != size {
                tensor = tensor.sliced(axis, first, first + count)?;
            }
        }
        Ok(tensor)
    })
}

fn strided_slice(call: &mut Call) -> Result<Vec<Entry>> {
    let shape = call.shape(0)?;
    let dims = elems_of_shape(call, 0)?;
    let list = |slot: usize, what: &str| call.sizes(slot, what).map(|sizes| sizes.list());
    let (begins, ends, steps) = (list(1, "the begin")?, list(2, "the end")?, list(3, "the strides")?);
    let ends = open_ends(call, ends, &dims);
    let plan =
        Strided::new(call.node, &begins, &ends, &steps, &shape, &dims).map_err(|message| call.fail_sizes(message))?;
    if let Some(Entry::Constant(tensor, name)) = sliced_constant(call, &plan.slice)? {
        let mut sizes = tensor.shape();
        for &axis in plan.squeeze.iter().rev() {
            sizes.remove(axis);
        }
        for &axis in &plan.unsqueeze {
            sizes.insert(axis, 1);
        }
        let tensor = tensor.reshaped(&sizes).map_err(|message| call.fail(message))?;
        return Ok(vec![Entry::Constant(tensor, name)]);
    }

    let x = call.data(0)?;
    let steps = [!plan.takes_all(), !plan.squeeze.is_empty(), !plan.unsqueeze.is_empty()];
    let last = steps.iter().rposition(|&step| step);
    let mut value = x;
    let mut put = |call: &mut Call, step: usize, op: modelport_ir::Op, name: &str| -> Result<()> {
        value = if last == Some(step) { call.add(op, &[value])? } else { call.helper(name, op, &[value])? };
        Ok(())
    };
    if steps[0] {
        put(call, 0, plan.slice.into(), "slice")?;
    }
    if steps[1] {
        put(call, 1, op::Squeeze { axes: plan.squeeze }.into(), "squeeze")?;
    }
    if steps[2] {
        put(call, 2, op::Unsqueeze { axes: plan.unsqueeze }.into(), "unsqueeze")?;
    }
    Ok(one(value))
}

/// An end of `size - k`, with a size that is free, counts from the end.
fn open_ends(call: &mut Call, ends: Vec<Elem>, dims: &[Elem]) -> Vec<Elem> {
    let masks = ["ellipsis_mask", "new_axis_mask"];
    if masks.iter().any(|mask| call.node.int(mask).unwrap_or(0) != 0) {
        return ends;
    }
    let relative = |(end, dim): (Elem, Option<&Elem>)| match (end.int(), dim) {
        (None, Some(dim)) if end != *dim => {
            let rest = call.lower.expressions.apply(Arithmetic::Sub, &end, dim, DType::Int64);
            if rest.int().is_some_and(|rest| rest < 0) { rest } else { end }
        }
        _ => end,
    };
    let dims = dims.iter().map(Some).chain(std::iter::repeat(None));
    ends.into_iter().zip(dims).map(relative).collect()
}

fn gather(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let (indices, places) = call.shaped(1)?;
    let batch = call.node.int("batch_dims").unwrap_or(0);
    let batch = if batch < 0 { batch + places.rank() as i64 } else { batch };
    let Ok(batch_dims) = usize::try_from(batch) else { return Err(call.fail(format!("batch_dims is {batch}"))) };
    let axis = if call.inputs.len() > 2 { call.int(2, "the axis")? } else { batch };
    let axis = call.axis(axis, shape.rank())?;
    Ok(one(call.add(op::Gather { axis, batch_dims }, &[x, indices])?))
}

/// The first steps of every sequence in reverse order: step `t` of `n` is picked at `n - 1 - t`.
fn reverse_sequence(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let lengths = call.data(1)?;
    let dtype = call.dtype(1)?;
    let axis = |name: &str| call.axis(call.node.int(name).unwrap_or(0), shape.rank());
    let (time, batch) = (axis("seq_dim")?, axis("batch_dim")?);
    let count = call.known(&shape, time, "the length of the sequence")?;
    // Beside the node, not in a scope of its own.
    let name = format!("{}_index", call.node.name);
    let mut add = |op: modelport_ir::Op, inputs: &[Value]| {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        call.lower.add(op, &name, &inputs)
    };
    let steps = add(op::Range { start: 0, limit: count.into(), delta: 1, dtype }.into(), &[lengths])?;
    let ends = add(op::Unsqueeze { axes: vec![1] }.into(), &[lengths])?;
    let one_ = add(op::Fill { shape: Shape::known(&[]), value: 1.0, dtype }.into(), &[])?;
    let last = add(op::Binary::Sub.into(), &[ends, one_])?;
    let back = add(op::Binary::Sub.into(), &[last, steps])?;
    let inside = add(op::Binary::Less.into(), &[steps, ends])?;
    let index = add(op::Select {}.into(), &[inside, back, steps])?;
    // The batch first, then time.
    let mut perm = vec![batch, time];
    perm.extend((0..shape.rank()).filter(|axis| *axis != batch && *axis != time));
    if perm.iter().copied().eq(0..shape.rank()) {
        return Ok(one(call.add(op::Gather { axis: 1, batch_dims: 1 }, &[x, index])?));
    }
    let mut inverse = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
    let x = call.helper("batch_first", op::Transpose { perm }, &[x])?;
    let picked = call.helper("picked", op::Gather { axis: 1, batch_dims: 1 }, &[x, index])?;
    Ok(one(call.add(op::Transpose { perm: inverse }, &[picked])?))
}

fn gather_nd(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, indices) = (call.data(0)?, call.data(1)?);
    if call.node.int("batch_dims").unwrap_or(0) != 0 {
        return Err(call.fail("batch_dims are not supported"));
    }
    Ok(one(call.add(op::GatherNd {}, &[x, indices])?))
}

fn one_hot(call: &mut Call) -> Result<Vec<Entry>> {
    let (indices, shape) = call.shaped(0)?;
    let depth = call.int(1, "the depth")?;
    let Ok(depth) = usize::try_from(depth) else { return Err(call.fail(format!("the depth is {depth}"))) };
    let axis = call.axis(call.node.int("axis").unwrap_or(-1), shape.rank() + 1)?;
    let (Some(on), Some(off)) = (call.number(2), call.number(3)) else {
        return Err(call.fail("the values are not known at conversion time"));
    };
    let dtype = call.dtype(2)?;
    Ok(one(call.add(op::OneHot { depth, axis, on: on as f32, off: off as f32, dtype }, &[indices])?))
}

/// The sizes of the last two axes.
fn matrix(call: &Call) -> Result<(usize, usize)> {
    let shape = call.shape(0)?;
    match shape.as_slice() {
        [.., Dim::Known(rows), Dim::Known(columns)] => Ok((*rows, *columns)),
        _ => Err(call.fail_sizes(format!("needs matrices of known size, got {shape}"))),
    }
}

/// A constant matrix made of its places, if it is not too large.
fn pattern(
    call: &mut Call,
    name: &str,
    dtype: DType,
    (rows, columns): (usize, usize),
    at: impl Fn(i64, i64) -> bool,
) -> Result<Value> {
    if rows.checked_mul(columns).is_none_or(|n| n > 1 << 22) {
        return Err(call.fail(format!("a pattern of {rows} x {columns} is too large")));
    }
    let places = (0..rows as i64).flat_map(|row| (0..columns as i64).map(move |column| (row, column)));
    let values = places.map(|(row, column)| f64::from(u8::from(at(row, column))));
    Ok(call.helper_constant(name, Tensor::from_f64(dtype, &[rows, columns], values)))
}

fn band_part(call: &mut Call) -> Result<Vec<Entry>> {
    let sizes = matrix(call)?;
    let (lower, upper) = (call.int(1, "the lower border")?, call.int(2, "the upper border")?);
    let inside = |row: i64, column: i64| (lower < 0 || row - column <= lower) && (upper < 0 || column - row <= upper);
    let mask = pattern(call, "mask", DType::Bool, sizes, inside)?;
    let x = call.data(0)?;
    let dtype = call.dtype(0)?;
    let zero = call.scalar("zero", 0.0, dtype);
    Ok(one(call.add(op::Select {}, &[mask, x, zero])?))
}

/// Later versions can do other diagonals; these are the main ones.
fn only_main(call: &Call) -> Result<()> {
    let given =
        |slot: usize| if call.inputs.len() > slot { call.ints(slot, "the diagonal").map(Some) } else { Ok(None) };
    match given(1)? {
        Some(k) if k.iter().any(|&k| k != 0) => Err(call.fail(format!("diagonal {k:?} is not supported"))),
        _ => Ok(()),
    }
}

fn diagonal(call: &mut Call) -> Result<Vec<Entry>> {
    only_main(call)?;
    for slot in 2..call.inputs.len().min(4) {
        if call.int(slot, "the size")? != -1 {
            return Err(call.fail("a matrix of a size of its own is not supported"));
        }
    }
    let (x, shape) = call.shaped(0)?;
    let axis = call.axis(-1, shape.rank())?;
    let size = call.known(&shape, axis, "the length of the diagonal")?;
    let dtype = call.dtype(0)?;
    let eye = pattern(call, "identity", dtype, (size, size), |row, column| row == column)?;
    let columns = call.helper("columns", op::Unsqueeze { axes: vec![shape.rank()] }, &[x])?;
    Ok(one(call.add(op::Binary::Mul, &[columns, eye])?))
}

/// Every (columns + 1)th element of the rows laid end to end.
fn diagonal_part(call: &mut Call) -> Result<Vec<Entry>> {
    only_main(call)?;
    let (rows, columns) = matrix(call)?;
    let (mut x, shape) = call.shaped(0)?;
    let rank = shape.rank();
    let (row_axis, count) = (rank.saturating_sub(2), rows.min(columns));
    if rows > count {
        let mut top = op::Slice::all(rank);
        if let Some(end) = top.ends.get_mut(row_axis) {
            *end = count as i64;
        }
        x = call.helper("top", top, &[x])?;
    }
    let mut flat = shape;
    flat.truncate(row_axis);
    flat.push(Dim::Known(count.saturating_mul(columns)));
    let x = call.helper("rows", op::Reshape { shape: flat }, &[x])?;
    let mut every = op::Slice::all(rank - 1);
    if let Some(step) = every.steps.last_mut() {
        *step = (columns as i64).saturating_add(1);
    }
    Ok(one(call.add(every, &[x])?))
}
