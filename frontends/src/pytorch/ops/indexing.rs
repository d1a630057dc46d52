//! Operators that take parts: slices, selections, gathers, and what pads.

use modelport_ir::op::{PadMode, Slice};
use modelport_ir::{DType, Dim, Layout, Result, Shape, Tensor, Value, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;
use crate::symbolic::{Arithmetic, Elem};

const PADDED: &str = "self padding";

pub const OPS: &[Entry] = &[
    op("slice", "self dim=0 start=None end=None step=1", slice),
    op("narrow", "self dim start length", narrow),
    op("select", "self dim index", select),
    op("index_select", "self dim index", index_select),
    op("gather", "self dim index sparse_grad=False", gather),
    op("take_along_dim", "self indices dim", |call| {
        call.call("gather", &[call.arg("self"), call.arg("dim"), call.arg("indices")])
    }),
    op("index", "self indices", index),
    op("_unsafe_index", "self indices", index),
    op("pad", "self pad mode=constant value=None", pad),
    op("constant_pad_nd", "self pad value=0", |call| padded(call, "pad", "constant")),
    op("reflection_pad1d", PADDED, |call| padded(call, "padding", "reflect")),
    op("reflection_pad2d", PADDED, |call| padded(call, "padding", "reflect")),
    op("reflection_pad3d", PADDED, |call| padded(call, "padding", "reflect")),
    op("replication_pad1d", PADDED, |call| padded(call, "padding", "replicate")),
    op("replication_pad2d", PADDED, |call| padded(call, "padding", "replicate")),
    op("replication_pad3d", PADDED, |call| padded(call, "padding", "replicate")),
    op("_pad_circular", "self pad", |call| padded(call, "pad", "circular")),
    op("im2col", "self kernel_size dilation=1 padding=0 stride=1", unfold_windows),
    op("col2im", "self output_size kernel_size dilation=1 padding=0 stride=1", fold_windows),
    op("unfold", "self dimension size step", unfold_axis),
];

/// A position on an axis of this size, as Python writes it: behind the end it counts from there.
fn position(call: &mut Call, arg: &Arg, size: &Elem) -> Result<i64> {
    let elem = match arg {
        Arg::Int(elem) => elem.clone(),
        other => match other.int() {
            Some(int) => Elem::Int(int),
            None => return Err(call.fail(format!("a position is {}", other.kind()))),
        },
    };
    if let Some(int) = elem.int() {
        return Ok(int);
    }
    let from_end = call.lower.expressions.apply(Arithmetic::Sub, &elem, size, DType::Int64).int();
    match from_end {
        Some(0) => Ok(Slice::OPEN),
        Some(distance) if distance < 0 => Ok(distance),
        Some(_) => Ok(Slice::OPEN),
        None => Err(call.fail("a position depends on sizes that are not known")),
    }
}

/// `start..end` in steps on one axis; what takes everything is the value itself.
fn cut(call: &mut Call, axis: usize, begin: i64, end: i64, step: i64) -> Result<Arg> {
    let shape = call.shape("self")?;
    let size = shape.get(axis).and_then(Dim::known);
    let reaches = size.is_some_and(|size| usize::try_from(end).is_ok_and(|end| end >= size));
    let end = if reaches || end >= i64::from(i32::MAX) { Slice::OPEN } else { end };
    if (begin, end, step) == (0, Slice::OPEN, 1) {
        return Ok(call.arg("self"));
    }
    let mut slice = Slice::all(shape.rank());
    if let (Some(b), Some(e), Some(s)) =
        (slice.begins.get_mut(axis), slice.ends.get_mut(axis), slice.steps.get_mut(axis))
    {
        (*b, *e, *s) = (begin, end, step);
    }
    if let (Some(size), 1) = (size, step) {
        let (start, count) = slice.resolve(axis, size);
        if let Some(part) = call.view("self", |tensor| tensor.sliced(axis, start, start + count))? {
            return Ok(part);
        }
    }
    let x = call.value("self")?;
    Ok(call.add(slice, &[x])?.into())
}

fn axis_size(call: &mut Call, axis: usize) -> Result<Elem> {
    Ok(match call.arg("self") {
        Arg::Tensor(value) => call.lower.size(value, axis),
        _ => call.shape("self")?.get(axis).and_then(Dim::known).map_or(Elem::Int(0), |n| Elem::Int(n as i64)),
    })
}

fn slice(call: &mut Call) -> Result<Arg> {
    let axis = call.axis("dim", call.shape("self")?.rank())?;
    let size = axis_size(call, axis)?;
    let (start, end) = (call.arg("start"), call.arg("end"));
    let begin = if start.is_none() { 0 } else { position(call, &start, &size)? };
    let end = if end.is_none() { Slice::OPEN } else { position(call, &end, &size)? };
    let step = call.int("step")?;
    cut(call, axis, begin, end, step)
}

fn narrow(call: &mut Call) -> Result<Arg> {
    let axis = call.axis("dim", call.shape("self")?.rank())?;
    let size = axis_size(call, axis)?;
    let start = position(call, &call.arg("start"), &size)?;
    let length = call.arg("length");
    let end = match (length.int(), &length) {
        (Some(length), _) if start < 0 && start.saturating_add(length) >= 0 => Slice::OPEN,
        (Some(length), _) => start.saturating_add(length),
        (None, Arg::Int(length)) => {
            let end = call.lower.expressions.apply(Arithmetic::Add, &Elem::Int(start), length, DType::Int64);
            position(call, &Arg::Int(end), &size)?
        }
        _ => return Err(call.fail("the length is not known")),
    };
    cut(call, axis, start, end, 1)
}

fn select(call: &mut Call) -> Result<Arg> {
    let axis = call.axis("dim", call.shape("self")?.rank())?;
    if call.arg("index").is_tensor() && call.weight("index").is_none() {
        let (x, index) = (call.value("self")?, call.value("index")?);
        return Ok(call.add(op::Gather { axis, batch_dims: 0 }, &[x, index])?.into());
    }
    let size = axis_size(call, axis)?;
    let index = position(call, &call.arg("index"), &size)?;
    let end = if index == -1 { Slice::OPEN } else { index.saturating_add(1) };
    let part = cut(call, axis, index, end, 1)?;
    call.call("squeeze", &[part, axis.into()])
}

fn index_select(call: &mut Call) -> Result<Arg> {
    let (x, index) = (call.value("self")?, call.value("index")?);
    let axis = call.axis("dim", call.lower.graph.shape(x).rank())?;
    Ok(call.add(op::Gather { axis, batch_dims: 0 }, &[x, index])?.into())
}

/// `y[i, j, k] = x[i, j, index[i, j, k]]`: all axes but the picked one are shared.
fn gather(call: &mut Call) -> Result<Arg> {
    let (mut x, mut index) = (call.value("self")?, call.value("index")?);
    let (shape, picked) = (call.lower.graph.shape(x).clone(), call.lower.graph.shape(index).clone());
    let rank = shape.rank();
    let axis = call.axis("dim", rank)?;
    let last = rank.saturating_sub(1);
    let differs = (0..rank).any(|other| other != axis && shape.get(other) != picked.get(other));
    if differs || picked.rank() != rank {
        return Err(call.fail(format!("indices {picked} do not share all other axes with {shape}")));
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(axis, last);
    if axis != last {
        x = call.add(op::Transpose { perm: perm.clone() }, &[x])?;
        index = call.add(op::Transpose { perm: perm.clone() }, &[index])?;
    }
    let mut y = call.add(op::Gather { axis: last, batch_dims: last }, &[x, index])?;
    if axis != last {
        y = call.add(op::Transpose { perm }, &[y])?;
    }
    Ok(y.into())
}

/// `x[:, index]`, `x[rows, columns]`: neighbouring axes are picked from by tensors.
fn index(call: &mut Call) -> Result<Arg> {
    let arg = call.arg("indices");
    let Some(indices) = arg.list() else { return Err(call.fail("the indices are no list")) };
    let indices: Vec<Arg> = indices.to_vec();
    let places: Vec<usize> = (0..indices.len()).filter(|&i| indices.get(i).is_some_and(|arg| !arg.is_none())).collect();
    let (Some(&first), Some(&last)) = (places.first(), places.last()) else { return Ok(call.arg("self")) };
    let x = call.value("self")?;
    let rank = call.lower.graph.shape(x).rank();
    let mut tensors = Vec::new();
    for &place in &places {
        let value = match indices.get(place) {
            Some(arg) => call.lower.value(arg)?,
            None => continue,
        };
        if matches!(call.lower.graph.info(value).dtype, DType::Bool | DType::UInt8) {
            if let Some(index) = places_of(call, value).filter(|_| places.len() == 1) {
                return Ok(call.add(op::Gather { axis: first, batch_dims: 0 }, &[x, index])?.into());
            }
            return Err(call.fail("a mask picks as many elements as the data says: such sizes are not converted"));
        }
        tensors.push(value);
    }
    if let [single] = tensors.as_slice() {
        return Ok(call.add(op::Gather { axis: first, batch_dims: 0 }, &[x, *single])?.into());
    }
    if last - first + 1 != places.len() {
        return Err(call.fail("indices on axes that are not neighbours are not translated"));
    }
    // All indices in one shape, and together the last axis.
    let mut shape = Shape::scalar();
    for value in &tensors {
        let own = call.lower.graph.shape(*value).clone();
        shape = modelport_ir::shape::broadcast(&shape, &own).map_err(|message| call.fail(message))?;
    }
    let like = call.lower.like(&shape)?;
    let mut parts = Vec::new();
    for (value, place) in tensors.into_iter().zip(&places) {
        let size = call.lower.graph.shape(x).get(*place).cloned().unwrap_or(Dim::Unknown);
        let value = positive(call, value, &size)?;
        parts.push(match *call.lower.graph.shape(value) == shape {
            true => value,
            false => call.add_with(op::Expand { shape: shape.clone() }, &[Some(value), like])?,
        });
    }
    let tuples = call.add(op::Pack { axis: shape.rank() }, &parts)?;
    let front: Vec<usize> = places.iter().copied().chain((0..rank).filter(|axis| !places.contains(axis))).collect();
    let x = if first == 0 { x } else { call.add(op::Transpose { perm: front }, &[x])? };
    let mut y = call.add(op::GatherNd {}, &[x, tuples])?;
    if first > 0 {
        // What was picked goes back behind the axes in front.
        let (new, count) = (shape.rank(), call.lower.graph.shape(y).rank());
        let perm = (new..new + first).chain(0..new).chain(new + first..count).collect();
        y = call.add(op::Transpose { perm }, &[y])?;
    }
    Ok(y.into())
}

/// The places where a mask that is known, along one axis, is true.
fn places_of(call: &mut Call, mask: Value) -> Option<Value> {
    let truth = call.lower.graph.tensor(mask).filter(|mask| mask.rank() == 1)?.to_i64().ok()?;
    let places: Vec<i64> = (0i64..).zip(truth).filter_map(|(place, seen)| (seen != 0).then_some(place)).collect();
    Some(call.constant(Tensor::from_i64(&[places.len()], &places)))
}

/// Known indices with the negative ones counted from the end.
fn positive(call: &mut Call, value: Value, size: &Dim) -> Result<Value> {
    let Some(tensor) = call.lower.graph.tensor(value).filter(|tensor| tensor.numel() <= 1 << 20) else {
        return Ok(value);
    };
    let numbers = tensor.to_i64().map_err(|error| call.fail(format!("indices can't be read: {error}")))?;
    if numbers.iter().all(|&n| n >= 0) {
        return Ok(value);
    }
    let shape = tensor.shape();
    let size = call.known(&Shape(vec![size.clone()]), 0, "the length of a picked axis")?;
    let numbers: Vec<i64> = numbers.into_iter().map(|n| if n < 0 { n + size as i64 } else { n }).collect();
    Ok(call.constant(Tensor::from_i64(&shape, &numbers)))
}

fn pad(call: &mut Call) -> Result<Arg> {
    let mode = call.text("mode")?;
    padded(call, "pad", &mode)
}

/// Pads are given from the last axis on; negative ones cut.
fn padded(call: &mut Call, name: &str, mode: &str) -> Result<Arg> {
    let list = call.ints(name)?;
    let mut x = call.value("self")?;
    let shape = call.lower.graph.shape(x).clone();
    let rank = shape.rank();
    if list.len() % 2 != 0 || list.len() / 2 > rank {
        return Err(call.fail(format!("pads {list:?} do not fit rank {rank}")));
    }
    let mut pads = vec![(0, 0); rank];
    let mut slice = Slice::all(rank);
    for (i, pair) in list.chunks(2).enumerate() {
        let [before, after] = *pair else { continue };
        let axis = rank - 1 - i;
        if let (Some(pad), Some(begin), Some(end)) =
            (pads.get_mut(axis), slice.begins.get_mut(axis), slice.ends.get_mut(axis))
        {
            *pad = (usize::try_from(before).unwrap_or(0), usize::try_from(after).unwrap_or(0));
            *begin = (-before).max(0);
            if after < 0 {
                *end = after;
            }
        }
    }
    if !(0..rank).all(|axis| slice.takes_all(axis)) {
        x = call.add(slice, &[x])?;
    }
    let pads = op::Pads(pads);
    if pads.is_zero() {
        return Ok(x.into());
    }
    let value = match mode {
        "constant" if call.has("value") => call.float("value")? as f32,
        _ => 0.0,
    };
    let mode = match mode {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "replicate" => PadMode::Edge,
        "circular" => return circular(call, x, &pads),
        mode => return Err(call.fail(format!("the padding '{mode}' is not known"))),
    };
    Ok(call.add(op::Pad { pads, mode, value }, &[x])?.into())
}

/// The end of every axis before its beginning, and the beginning behind the end.
fn circular(call: &mut Call, mut x: Value, pads: &op::Pads) -> Result<Arg> {
    for (axis, &(before, after)) in pads.0.iter().enumerate() {
        if (before, after) == (0, 0) {
            continue;
        }
        let rank = call.lower.graph.shape(x).rank();
        let mut parts = vec![x];
        let part = |call: &mut Call, begin: i64, end: i64| -> Result<Value> {
            let mut slice = Slice::all(rank);
            if let (Some(b), Some(e)) = (slice.begins.get_mut(axis), slice.ends.get_mut(axis)) {
                (*b, *e) = (begin, end);
            }
            call.add(slice, &[x])
        };
        if before > 0 {
            parts.insert(0, part(call, -(before as i64), Slice::OPEN)?);
        }
        if after > 0 {
            parts.push(part(call, 0, after as i64)?);
        }
        x = call.add(op::Concat { axis }, &parts)?;
    }
    Ok(x.into())
}

/// How many windows an axis has.
fn positions(size: usize, kernel: usize, stride: usize, dilation: usize) -> Option<usize> {
    let extent = kernel.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
    size.checked_sub(extent)?.checked_div(stride)?.checked_add(1)
}

/// The positions that windows of an axis look at: `[windows, kernel]`.
fn windows(size: usize, kernel: usize, stride: usize, dilation: usize) -> Option<(usize, Vec<i64>)> {
    let count = positions(size, kernel, stride, dilation)?;
    if count.checked_mul(kernel)? > 1 << 24 {
        return None;
    }
    let places = (0..count).flat_map(|i| (0..kernel).map(move |k| (i * stride + k * dilation) as i64));
    Some((count, places.collect()))
}

/// `F.unfold`: windows of an image as columns `[batch, channels * kernel, windows]`.
fn unfold_windows(call: &mut Call) -> Result<Arg> {
    let mut x = call.value("self")?;
    let [kernel, dilation, padding, stride] =
        ["kernel_size", "dilation", "padding", "stride"].map(|name| call.spatial(name, 2));
    let (kernel, dilation, padding, stride) = (kernel?, dilation?, padding?, stride?);
    if padding.iter().any(|&pad| pad > 0) {
        let pads = op::Pads([0, 0].into_iter().chain(padding).map(|pad| (pad, pad)).collect());
        x = call.add(op::Pad { pads, mode: PadMode::Constant, value: 0.0 }, &[x])?;
    }
    let shape = call.lower.graph.shape(x).clone();
    let channels = call.known(&shape, 1, "the number of channels")?;
    let mut counts = Vec::new();
    // Axis 2 becomes [rows, kernel], then axis 4 [columns, kernel].
    for (i, axis) in [2, 4].into_iter().enumerate() {
        let size = call.known(&shape, i + 2, "the size of the image")?;
        let at = |list: &[usize]| list.get(i).copied().unwrap_or(1);
        let found = windows(size, at(&kernel), at(&stride), at(&dilation));
        let (count, places) = found.ok_or_else(|| call.fail("the windows do not fit"))?;
        let index = call.constant(Tensor::from_i64(&[count, at(&kernel)], &places));
        x = call.add(op::Gather { axis, batch_dims: 0 }, &[x, index])?;
        counts.push(count);
    }
    // [batch, channels, rows, kernel, columns, kernel]
    let x = call.add(op::Transpose { perm: vec![0, 1, 3, 5, 2, 4] }, &[x])?;
    let batch = shape.first().cloned().unwrap_or(Dim::Unknown);
    let columns = channels * kernel.iter().product::<usize>();
    let shape = Shape(vec![batch, Dim::Known(columns), Dim::Known(counts.iter().product())]);
    Ok(call.add(op::Reshape { shape }, &[x])?.into())
}

/// `F.fold`: the sum of windows where they lie in an image.
fn fold_windows(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let [size, kernel, dilation, padding, stride] =
        ["output_size", "kernel_size", "dilation", "padding", "stride"].map(|name| call.spatial(name, 2));
    let (size, kernel, dilations, padding, strides) = (size?, kernel?, dilation?, padding?, stride?);
    let shape = call.lower.graph.shape(x).clone();
    let area =
        kernel.iter().try_fold(1usize, |area, &k| area.checked_mul(k)).filter(|&area| (1..1 << 12).contains(&area));
    let known = |axis: usize| shape.get(axis).and_then(Dim::known);
    let (Some(area), Some(columns), Some(count)) = (area, known(1), known(2)) else {
        return Err(call.fail(format!("the input has shape {shape}, expected [batch, columns, windows]")));
    };
    let mut counts = Vec::new();
    for ((((size, kernel), dilation), pad), stride) in
        size.iter().zip(&kernel).zip(&dilations).zip(&padding).zip(&strides)
    {
        let padded = pad.checked_mul(2).and_then(|pads| pads.checked_add(*size));
        let found = padded.and_then(|size| positions(size, *kernel, *stride, *dilation));
        counts.push(found.ok_or_else(|| call.fail("the windows do not fit"))?);
    }
    let channels = columns / area;
    if channels * area != columns || counts.iter().product::<usize>() != count {
        return Err(call.fail(format!("the input has shape {shape}, expected {counts:?} windows of {kernel:?}")));
    }
    let batch = shape.first().cloned().unwrap_or(Dim::Unknown);
    let known =
        |sizes: &[usize]| Shape([batch.clone()].into_iter().chain(sizes.iter().map(|&n| Dim::Known(n))).collect());
    let [rows, cols] = [counts[0], counts[1]];
    if kernel == strides && padding == [0, 0] && dilations == [1, 1] && size == [rows * kernel[0], cols * kernel[1]] {
        // Windows side by side.
        let apart = Shape(known(&[channels, kernel[0], kernel[1], rows, cols]).0);
        let x = call.add(op::Reshape { shape: apart }, &[x])?;
        let x = call.add(op::Transpose { perm: vec![0, 1, 4, 2, 5, 3] }, &[x])?;
        return Ok(call.add(op::Reshape { shape: known(&[channels, size[0], size[1]]) }, &[x])?.into());
    }
    // Each element of a window is a channel of its own, that goes to one place of the kernel.
    let x = call.add(op::Reshape { shape: known(&[columns, rows, cols]) }, &[x])?;
    let hot: Vec<f32> =
        (0..area).flat_map(|place| (0..columns).map(move |c| f32::from(u8::from(c % area == place)))).collect();
    let weights = call.constant(Tensor::from_f32(&[kernel[0], kernel[1], 1, columns], &hot));
    let extent = |axis: usize| (counts[axis] - 1) * strides[axis] + dilations[axis] * (kernel[axis] - 1) + 1;
    let output_padding = (0..2).map(|axis| size[axis] + 2 * padding[axis] - extent(axis)).collect();
    let conv = op::ConvTranspose {
        pads: op::Pads(padding.iter().map(|&pad| (pad, pad)).collect()),
        output_padding,
        strides,
        dilations,
        groups: channels,
        layout: Layout::ChannelsFirst,
    };
    Ok(call.add(conv, &[x, weights])?.into())
}

/// `x.unfold(dimension, size, step)`: the windows of an axis, their elements in a new last axis.
fn unfold_axis(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let shape = call.lower.graph.shape(x).clone();
    let rank = shape.rank();
    let axis = call.axis("dimension", rank)?;
    let (size, step) = (call.size("size")?, call.size("step")?);
    let total = call.known(&shape, axis, "the length of the axis")?;
    let (count, places) = windows(total, size, step, 1).ok_or_else(|| call.fail("the windows do not fit"))?;
    let index = call.constant(Tensor::from_i64(&[count, size], &places));
    let y = call.add(op::Gather { axis, batch_dims: 0 }, &[x, index])?;
    let perm: Vec<usize> = (0..rank + 1).filter(|&a| a != axis + 1).chain([axis + 1]).collect();
    Ok(call.add(op::Transpose { perm }, &[y])?.into())
}
