//! Operators that move elements: reshape, transpose, join, cut, pad, repeat.

use modelport_ir::{Dim, Result, Shape, Tensor, Value, op};

use super::call::one;
use super::{Call, Family};
use crate::symbolic::Elem;
use crate::tensorflow::lower::{Entry, Origin};

pub const OPS: Family = &[
    ("Reshape", reshape),
    ("Squeeze", squeeze),
    ("ExpandDims", expand_dims),
    ("Transpose", transpose),
    ("ConjugateTranspose", transpose),
    ("Concat", concat),
    ("ConcatV2", concat),
    ("Split", split),
    ("SplitV", split),
    ("Pack", pack),
    ("Unpack", unpack),
    ("Pad", pad),
    ("PadV2", pad),
    ("MirrorPad", mirror_pad),
    ("Tile", tile),
    ("BroadcastTo", broadcast_to),
    ("Reverse", reverse),
    ("ReverseV2", reverse),
    ("Roll", roll),
];

/// Most parts that a value is cut into.
const MAX_PARTS: usize = 1 << 16;

fn reshape(call: &mut Call) -> Result<Vec<Entry>> {
    let elems = call.sizes(1, "the new shape")?.list();
    let mut shape = call.dims(&elems);
    let old = call.shape(0)?;
    if shape.iter().filter(|dim| **dim == Dim::Unknown).count() > 1 {
        return Err(call.fail_sizes(format!("the new shape {shape} depends on sizes that are not known")));
    }
    let known = shape.iter().filter(|dim| **dim != Dim::Unknown).fold(Dim::Known(1), |all, dim| all.times(dim));
    if let Some(rest) = shape.iter_mut().find(|dim| **dim == Dim::Unknown) {
        *rest = old.numel().divided_by(&known);
    }
    if let Some(sizes) = shape.sizes()
        && let Some(entry) = call.view(0, |tensor| tensor.reshaped(&sizes))?
    {
        return Ok(vec![entry]);
    }
    // A free size that the input does not have is what is left over.
    let has = |dim: &Dim| match dim {
        Dim::Symbol { name, .. } => old.iter().any(|d| matches!(d, Dim::Symbol { name: other, .. } if other == name)),
        _ => true,
    };
    let foreign: Vec<usize> = (0..shape.rank()).filter(|&axis| !has(&shape[axis])).collect();
    if let ([axis], false) = (foreign.as_slice(), shape.contains(&Dim::Unknown)) {
        shape[*axis] = Dim::Unknown;
    }
    let x = call.data(0)?;
    if shape == old && shape.is_determined() {
        return Ok(one(x));
    }
    Ok(one(call.add(op::Reshape { shape }, &[x])?))
}

fn squeeze(call: &mut Call) -> Result<Vec<Entry>> {
    let shape = call.shape(0)?;
    let given = call.node.ints("squeeze_dims").or_else(|| call.node.ints("axis")).unwrap_or_default();
    let axes = if given.is_empty() {
        // A free size is no 1.
        (0..shape.rank()).filter(|&axis| shape[axis] == Dim::Known(1)).collect()
    } else {
        call.axes(&given, shape.rank())?
    };
    let without = |tensor: &Tensor| {
        let sizes = tensor.shape();
        let kept = sizes.iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
        tensor.reshaped(&kept.map(|(_, &size)| size).collect::<Vec<_>>())
    };
    if let Some(entry) = call.view(0, without)? {
        return Ok(vec![entry]);
    }
    let x = call.data(0)?;
    if axes.is_empty() {
        return Ok(one(x));
    }
    Ok(one(call.add(op::Squeeze { axes }, &[x])?))
}

fn expand_dims(call: &mut Call) -> Result<Vec<Entry>> {
    let shape = call.shape(0)?;
    let axis = call.int(1, "the axis")?;
    let axis = call.axis(axis, shape.rank() + 1)?;
    let with = |tensor: &Tensor| {
        let mut sizes = tensor.shape();
        sizes.insert(axis, 1);
        tensor.reshaped(&sizes)
    };
    if let Some(entry) = call.view(0, with)? {
        return Ok(vec![entry]);
    }
    let x = call.data(0)?;
    Ok(one(call.add(op::Unsqueeze { axes: vec![axis] }, &[x])?))
}

fn transpose(call: &mut Call) -> Result<Vec<Entry>> {
    let rank = call.shape(0)?.rank();
    let perm = call.ints(1, "the order of the axes")?;
    let perm = perm.iter().map(|&axis| call.axis(axis, rank)).collect::<Result<Vec<_>>>()?;
    if let Some(entry) = call.view(0, |tensor| tensor.permuted(&perm))? {
        return Ok(vec![entry]);
    }
    let x = call.data(0)?;
    if perm.iter().copied().eq(0..rank) {
        return Ok(one(x));
    }
    Ok(one(call.add(op::Transpose { perm }, &[x])?))
}

fn concat(call: &mut Call) -> Result<Vec<Entry>> {
    let count = call.inputs.len();
    let (axis_slot, slots) = match call.node.op.as_str() {
        "Concat" => (0, 1..count),
        _ => (count.saturating_sub(1), 0..count.saturating_sub(1)),
    };
    let axis = call.int(axis_slot, "the axis")?;
    let Some(first) = slots.clone().next() else { return Err(call.fail("joins nothing")) };
    let axis = call.axis(axis, call.shape(first)?.rank())?;
    if let Some(whole) = partitioned(call, slots.clone(), axis) {
        return Ok(vec![whole]);
    }
    let values = slots.map(|slot| call.data(slot)).collect::<Result<Vec<Value>>>()?;
    if let [single] = values.as_slice() {
        return Ok(one(*single));
    }
    Ok(one(call.add(op::Concat { axis }, &values)?))
}

/// A variable that was cut into `name/part_0`, `name/part_1`, … and is joined again: the variable itself.
fn partitioned(call: &Call, slots: std::ops::Range<usize>, axis: usize) -> Option<Entry> {
    let mut whole: Option<&str> = None;
    let mut shape: Option<Vec<usize>> = None;
    for (number, slot) in slots.enumerate() {
        let source = call.lower.source(*call.inputs.get(slot)?);
        let (name, part) = source.name.rsplit_once("/part_")?;
        if !crate::tensorflow::lower::is_variable(&source.op) || part.parse() != Ok(number) {
            return None;
        }
        let sizes = call.shape(slot).ok()?.sizes()?;
        let total = match (whole, shape) {
            (Some(other), _) if other != name => return None,
            (_, Some(mut total)) => {
                *total.get_mut(axis)? += sizes.get(axis)?;
                total
            }
            (_, None) => sizes,
        };
        (whole, shape) = (Some(name), Some(total));
    }
    let name = whole?;
    let wanted: Vec<i64> = shape?.into_iter().map(|size| size as i64).collect();
    let tensor = call.lower.variables().find(&[name], Some(&wanted)).ok()?;
    Some(Entry::Constant(tensor, Origin { name: name.to_owned(), variable: true }))
}

fn split(call: &mut Call) -> Result<Vec<Entry>> {
    let (slot, axis_slot) = if call.node.op == "Split" { (1, 0) } else { (0, 2) };
    let shape = call.shape(slot)?;
    let axis = call.int(axis_slot, "the axis")?;
    let axis = call.axis(axis, shape.rank())?;
    if let Some(parts) = batch_parts(call, slot, axis, &shape)? {
        return Ok(parts);
    }
    let total = call.known(&shape, axis, "the length of the axis to cut")?;
    let sizes: Vec<usize> = if call.node.op == "Split" {
        match call.node.int("num_split").and_then(|n| usize::try_from(n).ok()) {
            Some(count) if count > 0 && count <= MAX_PARTS && total % count == 0 => vec![total / count; count],
            count => return Err(call.fail(format!("axis {axis} of {shape} does not split into {count:?} parts"))),
        }
    } else {
        let given = call.ints(1, "the sizes of the parts")?;
        let known: i64 = given.iter().filter(|&&n| n >= 0).fold(0, |sum: i64, &n| sum.saturating_add(n));
        let rest = |&n: &i64| usize::try_from(if n < 0 { total as i64 - known } else { n }).ok();
        let sizes: Option<Vec<usize>> = given.iter().map(rest).collect();
        sizes.ok_or_else(|| call.fail(format!("parts {given:?} do not add up to axis {axis} of {shape}")))?
    };
    if let Some((tensor, name)) = call.constant(slot) {
        let mut start = 0;
        let parts = sizes.iter().map(|size| {
            let part = tensor.sliced(axis, start, start.saturating_add(*size)).map_err(|message| call.fail(message))?;
            start = start.saturating_add(*size);
            Ok(Entry::Constant(part, name.clone()))
        });
        return parts.collect();
    }
    let x = call.data(slot)?;
    let count = sizes.len();
    let split = call.add(op::Split { axis, sizes }, &[x])?;
    Ok((0..count).map(|output| Value { node: split.node, output }.into()).collect())
}

/// Equal parts of an axis of free size: heads of an attention that were laid behind each other along the batch.
fn batch_parts(call: &mut Call, slot: usize, axis: usize, shape: &Shape) -> Result<Option<Vec<Entry>>> {
    let (Some(count), Some(Dim::Symbol { name, factor })) = (call.node.int("num_split"), shape.get(axis)) else {
        return Ok(None);
    };
    let Some(count) = usize::try_from(count).ok().filter(|&n| n > 1 && n <= MAX_PARTS && factor % n == 0) else {
        return Ok(None);
    };
    let mut parts = shape.clone();
    parts[axis] = Dim::Symbol { name: name.clone(), factor: factor / count };
    parts.insert(axis, Dim::Known(count));
    let x = call.data(slot)?;
    let rows = call.helper("parts", op::Reshape { shape: parts }, &[x])?;
    let node = call.add(op::Unpack { axis, count }, &[rows])?.node;
    Ok(Some((0..count).map(|output| Value { node, output }.into()).collect()))
}

fn pack(call: &mut Call) -> Result<Vec<Entry>> {
    let rank = call.shape(0)?.rank();
    let axis = call.axis(call.node.int("axis").unwrap_or(0), rank + 1)?;
    let values = (0..call.inputs.len()).map(|slot| call.data(slot)).collect::<Result<Vec<Value>>>()?;
    if let [single] = values.as_slice() {
        return Ok(one(call.add(op::Unsqueeze { axes: vec![axis] }, &[*single])?));
    }
    Ok(one(call.add(op::Pack { axis }, &values)?))
}

fn unpack(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let axis = call.axis(call.node.int("axis").unwrap_or(0), shape.rank())?;
    let known = shape.get(axis).and_then(Dim::known);
    let count = known.or_else(|| call.node.int("num").and_then(|n| usize::try_from(n).ok()));
    let Some(count) = count.filter(|&count| count <= MAX_PARTS) else {
        return Err(call.fail_sizes(format!("axis {axis} of {shape} is not known")));
    };
    let parts = call.add(op::Unpack { axis, count }, &[x])?;
    Ok((0..count).map(|output| Value { node: parts.node, output }.into()).collect())
}

fn pads(call: &Call, rank: usize) -> Result<op::Pads> {
    let list = call.ints(1, "the paddings")?;
    let pairs: Option<Vec<(usize, usize)>> = list
        .chunks(2)
        .map(|pair| match pair {
            [before, after] => Some((usize::try_from(*before).ok()?, usize::try_from(*after).ok()?)),
            _ => None,
        })
        .collect();
    match pairs {
        Some(pairs) if pairs.len() == rank => Ok(op::Pads(pairs)),
        _ => Err(call.fail(format!("paddings {list:?} do not fit rank {rank}"))),
    }
}

fn padded(call: &mut Call, mode: op::PadMode, value: f32) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let pads = pads(call, shape.rank())?;
    if pads.is_zero() {
        return Ok(one(x));
    }
    Ok(one(call.add(op::Pad { pads, mode, value }, &[x])?))
}

fn pad(call: &mut Call) -> Result<Vec<Entry>> {
    let value = if call.inputs.len() > 2 {
        call.number(2).ok_or_else(|| call.fail("the number to pad with is not known at conversion time"))?
    } else {
        0.0
    };
    padded(call, op::PadMode::Constant, value as f32)
}

fn mirror_pad(call: &mut Call) -> Result<Vec<Entry>> {
    let mode = match call.node.text("mode") {
        Some("SYMMETRIC") => op::PadMode::Symmetric,
        _ => op::PadMode::Reflect,
    };
    padded(call, mode, 0.0)
}

fn tile(call: &mut Call) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    let times = call.sizes(1, "the numbers of repeats")?;
    let repeats = call.dims(&times.list());
    if repeats.iter().all(|dim| *dim == Dim::Known(1)) {
        return Ok(one(x));
    }
    let like = call.lower.like(&repeats, times.like)?;
    Ok(one(call.add_with(op::Tile { repeats }, &[Some(x), like])?))
}

fn broadcast_to(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, old) = call.shaped(0)?;
    let sizes = call.sizes(1, "the new shape")?;
    let elems = sizes.list();
    let skipped = elems.len().saturating_sub(old.rank());
    // What has its size already may be unknown.
    let dim = |(axis, elem): (usize, &Elem)| match (elem.dim(), axis.checked_sub(skipped).and_then(|i| old.get(i))) {
        (Dim::Unknown, Some(dim)) if *dim != Dim::Known(1) => dim.clone(),
        (dim, _) => dim,
    };
    let shape: Shape = elems.iter().enumerate().map(dim).collect();
    if shape == old {
        return Ok(one(x));
    }
    let like = call.lower.like(&shape, sizes.like)?;
    Ok(one(call.add_with(op::Expand { shape }, &[Some(x), like])?))
}

fn reverse(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let list = call.ints(1, "the axes")?;
    let axes = if call.node.op == "Reverse" {
        // One truth value per axis.
        list.iter().enumerate().filter(|(_, reverse)| **reverse != 0).map(|(axis, _)| axis).collect()
    } else {
        call.axes(&list, shape.rank())?
    };
    if axes.is_empty() {
        return Ok(one(x));
    }
    Ok(one(call.add(op::Reverse { axes }, &[x])?))
}

/// Moves the end of an axis to its front.
fn roll(call: &mut Call) -> Result<Vec<Entry>> {
    let (mut x, shape) = call.shaped(0)?;
    let (shifts, axes) = (call.ints(1, "the shifts")?, call.ints(2, "the axes")?);
    let rank = shape.rank();
    let mut moves = Vec::new();
    for (&shift, &axis) in shifts.iter().zip(&axes) {
        let axis = call.axis(axis, rank)?;
        let shift = match shape.get(axis).and_then(Dim::known) {
            Some(size) => shift.rem_euclid((size as i64).max(1)),
            None => shift,
        };
        if i32::try_from(shift).is_err() {
            return Err(call.fail(format!("the shift is {shift}")));
        }
        if shift != 0 {
            moves.push((axis, shift));
        }
    }
    let count = moves.len();
    for (i, (axis, shift)) in moves.into_iter().enumerate() {
        let (mut end, mut start) = (op::Slice::all(rank), op::Slice::all(rank));
        if let (Some(begin), Some(until)) = (end.begins.get_mut(axis), start.ends.get_mut(axis)) {
            (*begin, *until) = (-shift, -shift);
        }
        let end = call.helper("end", end, &[x])?;
        let start = call.helper("start", start, &[x])?;
        let concat = op::Concat { axis };
        x = if i + 1 == count {
            call.add(concat, &[end, start])?
        } else {
            call.helper("rolled", concat, &[end, start])?
        };
    }
    Ok(one(x))
}
