//! Operators that give tensors another shape, join and cut them, and that ask for sizes.

use modelport_ir::{Dim, Layout, Result, Shape, Value, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::{Arg, Weight};
use crate::symbolic::{Arithmetic, Elem};

pub const OPS: &[Entry] = &[
    op("flatten", "self start_dim=0 end_dim=-1", flatten),
    op("unflatten", "self dim sizes", unflatten),
    op("view", "self size", |call| reshape(call, "size")),
    op("reshape", "self shape", |call| reshape(call, "shape")),
    op("_unsafe_view", "self size", |call| reshape(call, "size")),
    op("_reshape_alias", "self size stride=None", |call| reshape(call, "size")),
    op("view_as", "self other", |call| like_other(call, "reshape")),
    op("reshape_as", "self other", |call| like_other(call, "reshape")),
    op("permute", "self dims", permute),
    op("transpose", "self dim0 dim1", transpose),
    op("swapaxes", "self axis0 axis1", transpose),
    op("swapdims", "self dim0 dim1", transpose),
    op("t", "self", matrix_transpose),
    op("numpy_T", "self", reverse_axes),
    op("mT", "self", matrix_transpose),
    op("movedim", "self source destination", move_axes),
    op("moveaxis", "self source destination", move_axes),
    op("squeeze", "self dim=None", squeeze),
    op("unsqueeze", "self dim", unsqueeze),
    op("cat", "tensors dim=0", cat),
    op("concat", "tensors dim=0", cat),
    op("concatenate", "tensors dim=0", cat),
    op("stack", "tensors dim=0", stack),
    op("split", "self split_size dim=0", split),
    op("unsafe_split", "self split_size dim=0", split),
    op("split_with_sizes", "self split_sizes dim=0", split),
    op("chunk", "self chunks dim=0", chunk),
    op("unsafe_chunk", "self chunks dim=0", chunk),
    op("tensor_split", "self sections dim=0", tensor_split),
    op("tensor_split.indices", "self indices dim=0", |call| split_at(call, "indices")),
    op("unbind", "self dim=0", unbind),
    op("expand", "self size implicit=False", expand),
    op("expand_as", "self other", |call| like_other(call, "expand")),
    op("broadcast_to", "self size", expand),
    op("repeat", "self repeats", |call| repeat(call, "repeats")),
    op("tile", "self dims", |call| repeat(call, "dims")),
    op("repeat_interleave", "self repeats dim=None output_size=None", repeat_interleave),
    op("flip", "self dims", flip),
    op("roll", "self shifts dims=[]", roll),
    op("pixel_shuffle", "self upscale_factor", |call| {
        let (x, block) = (call.value("self")?, call.size("upscale_factor")?);
        Ok(call.add(op::DepthToSpace { block, channel_major: true, layout: Layout::ChannelsFirst }, &[x])?.into())
    }),
    op("pixel_unshuffle", "self downscale_factor", |call| {
        let (x, block) = (call.value("self")?, call.size("downscale_factor")?);
        Ok(call.add(op::SpaceToDepth { block, channel_major: true, layout: Layout::ChannelsFirst }, &[x])?.into())
    }),
    op("channel_shuffle", "self groups", channel_shuffle),
    op("native_channel_shuffle", "self groups", channel_shuffle),
    op("size", "self dim=None", size),
    op("sym_size", "self dim=None", size),
    op("numel", "self", numel),
    op("sym_numel", "self", numel),
    op("dim", "self", |call| Ok(call.shape("self")?.rank().into())),
    op("contiguous", "self memory_format=None", same),
    op("clone", "self memory_format=None", copied),
    op("detach", "self", same),
    op("alias", "self", same),
    op("lift_fresh_copy", "self", same),
    op("lift_fresh", "self", same),
    op("requires_grad_", "self requires_grad=True", same),
    op("cpu", "self", same),
    op("cuda", "self", same),
    op("resolve_conj", "self", same),
    op("resolve_neg", "self", same),
];

/// Most parts that a value is cut into.
const MAX_PARTS: usize = 1 << 12;

/// A value of its own: what is written into the copy is not in the original, nor the other way round. Of a weight it is
/// the value, so that the weight itself stays; of a tensor it is a cast to its own type, which passes remove.
fn copied(call: &mut Call) -> Result<Arg> {
    match call.arg("self") {
        Arg::Weight(_) => Ok(call.value("self")?.into()),
        Arg::Tensor(value) => {
            let dtype = call.lower.graph.info(value).dtype;
            Ok(call.add(op::Cast { dtype }, &[value])?.into())
        }
        other => Ok(other),
    }
}

fn same(call: &mut Call) -> Result<Arg> {
    Ok(call.arg("self"))
}

fn size(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let rank = call.lower.graph.shape(x).rank();
    if call.has("dim") {
        let axis = call.axis("dim", rank)?;
        return Ok(call.lower.size(x, axis).into());
    }
    Ok(Arg::List((0..rank).map(|axis| call.lower.size(x, axis).into()).collect()))
}

fn numel(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let rank = call.lower.graph.shape(x).rank();
    let mut product = Elem::Int(1);
    for axis in 0..rank {
        let size = call.lower.size(x, axis);
        product = call.lower.expressions.apply(Arithmetic::Mul, &product, &size, modelport_ir::DType::Int64);
    }
    Ok(product.into())
}

/// A known tensor in another shape, as a view.
fn reshaped_weight(call: &Call, shape: &Shape) -> Result<Option<Arg>> {
    match shape.sizes() {
        Some(sizes) => call.view("self", |tensor| tensor.reshaped(&sizes)),
        None => Ok(None),
    }
}

/// `x` in a new shape of which one size may be open.
pub fn to_shape(call: &mut Call, mut shape: Shape) -> Result<Arg> {
    let old = call.shape("self")?;
    if shape.iter().filter(|dim| **dim == Dim::Unknown).count() > 1 {
        return Err(call.fail(format!("the new shape {shape} depends on sizes that are not known")));
    }
    let given = shape.iter().filter(|dim| **dim != Dim::Unknown).fold(Dim::Known(1), |all, dim| all.times(dim));
    if let Some(rest) = shape.iter_mut().find(|dim| **dim == Dim::Unknown) {
        *rest = old.numel().divided_by(&given);
    } else if let (total @ Dim::Symbol { .. }, Dim::Known(_)) | (total @ Dim::Known(_), Dim::Symbol { .. }) =
        (&old.numel(), &given)
    {
        return Err(call.fail(format!("{old} has {total} elements, which are not those of {shape}")));
    }
    if let Some(view) = reshaped_weight(call, &shape)? {
        return Ok(view);
    }
    // A free size that the input does not have is what is left over.
    let has = |dim: &Dim| match dim {
        Dim::Symbol { name, .. } => old.iter().any(|d| matches!(d, Dim::Symbol { name: other, .. } if other == name)),
        _ => true,
    };
    let foreign: Vec<usize> = (0..shape.rank()).filter(|&axis| shape.get(axis).is_some_and(|dim| !has(dim))).collect();
    if let ([axis], false) = (foreign.as_slice(), shape.contains(&Dim::Unknown))
        && let Some(dim) = shape.get_mut(*axis)
    {
        *dim = Dim::Unknown;
    }
    if shape == old && shape.is_determined() {
        return Ok(call.arg("self"));
    }
    let x = call.value("self")?;
    Ok(call.add(op::Reshape { shape }, &[x])?.into())
}

fn reshape(call: &mut Call, name: &str) -> Result<Arg> {
    // `view` with an element type means the bytes of the tensor.
    if let Some(dtype) = super::math::dtype(&call.arg(name)).filter(|_| matches!(call.arg(name), Arg::DType(_))) {
        return match dtype == call.dtype("self")? {
            true => Ok(call.arg("self")),
            false => Err(call.fail("the bytes of a tensor as another type are not translated")),
        };
    }
    let shape = call.elems(name)?.iter().map(Elem::dim).collect();
    to_shape(call, shape)
}

fn like_other(call: &mut Call, op: &str) -> Result<Arg> {
    let other = call.arg("other");
    let sizes = call.call("size", &[other])?;
    let x = call.arg("self");
    call.call(op, &[x, sizes])
}

fn flatten(call: &mut Call) -> Result<Arg> {
    let shape = call.shape("self")?;
    let (start, end) = (call.axis("start_dim", shape.rank())?, call.axis("end_dim", shape.rank())?);
    if shape.rank() == 0 {
        return to_shape(call, Shape::known(&[1]));
    }
    let Some(middle) = shape.get(start..=end) else { return Err(call.fail("start_dim lies behind end_dim")) };
    let product = middle.iter().fold(Dim::Known(1), |product, dim| product.times(dim));
    let (head, tail) = (shape.iter().take(start), shape.iter().skip(end + 1));
    let new = head.cloned().chain([product]).chain(tail.cloned()).collect();
    to_shape(call, new)
}

fn unflatten(call: &mut Call) -> Result<Arg> {
    let shape = call.shape("self")?;
    let axis = call.axis("dim", shape.rank())?;
    let mut sizes: Vec<Dim> = call.elems("sizes")?.iter().map(Elem::dim).collect();
    let given = sizes.iter().filter(|dim| **dim != Dim::Unknown).fold(Dim::Known(1), |all, dim| all.times(dim));
    let whole = shape.get(axis).cloned().unwrap_or(Dim::Unknown);
    for size in sizes.iter_mut().filter(|dim| **dim == Dim::Unknown) {
        *size = whole.divided_by(&given);
    }
    let mut new = shape;
    new.splice(axis..=axis, sizes);
    to_shape(call, new)
}

fn permuted(call: &mut Call, perm: Vec<usize>) -> Result<Arg> {
    if let Some(view) = call.view("self", |tensor| tensor.permuted(&perm))? {
        return Ok(view);
    }
    if perm.iter().copied().eq(0..perm.len()) {
        return Ok(call.arg("self"));
    }
    let x = call.value("self")?;
    Ok(call.add(op::Transpose { perm }, &[x])?.into())
}

fn permute(call: &mut Call) -> Result<Arg> {
    let rank = call.shape("self")?.rank();
    let perm = call.ints("dims")?.into_iter().map(|axis| call.axis_of(axis, rank)).collect::<Result<_>>()?;
    permuted(call, perm)
}

fn transpose(call: &mut Call) -> Result<Arg> {
    let rank = call.shape("self")?.rank();
    let [a, b] = ["0", "1"].map(|n| {
        let name = if call.has(&format!("dim{n}")) { format!("dim{n}") } else { format!("axis{n}") };
        call.axis(&name, rank)
    });
    let mut perm: Vec<usize> = (0..rank).collect();
    if rank > 0 {
        perm.swap(a?, b?);
    }
    permuted(call, perm)
}

fn matrix_transpose(call: &mut Call) -> Result<Arg> {
    let rank = call.shape("self")?.rank();
    let mut perm: Vec<usize> = (0..rank).collect();
    if rank >= 2 {
        perm.swap(rank - 1, rank - 2);
    }
    permuted(call, perm)
}

fn reverse_axes(call: &mut Call) -> Result<Arg> {
    let rank = call.shape("self")?.rank();
    permuted(call, (0..rank).rev().collect())
}

fn move_axes(call: &mut Call) -> Result<Arg> {
    let rank = call.shape("self")?.rank();
    let (from, to) = (call.axes("source", rank)?, call.axes("destination", rank)?);
    if from.len() != to.len() {
        return Err(call.fail("as many axes must arrive as leave"));
    }
    let mut rest = (0..rank).filter(|axis| !from.contains(axis));
    let source = |place: usize| to.iter().position(|&axis| axis == place).and_then(|i| from.get(i).copied());
    let perm: Vec<usize> = (0..rank).filter_map(|place| source(place).or_else(|| rest.next())).collect();
    permuted(call, perm)
}

fn squeeze(call: &mut Call) -> Result<Arg> {
    let shape = call.shape("self")?;
    let given = if shape.rank() == 0 { Vec::new() } else { call.axes("dim", shape.rank())? };
    // A free size is no 1, and an axis that has not size 1 stays.
    let mut axes: Vec<usize> = given.into_iter().filter(|&axis| shape.get(axis) == Some(&Dim::Known(1))).collect();
    axes.sort_unstable();
    axes.dedup();
    if axes.is_empty() {
        return Ok(call.arg("self"));
    }
    let kept: Shape =
        (0..shape.rank()).filter(|axis| !axes.contains(axis)).filter_map(|axis| shape.get(axis).cloned()).collect();
    if let Some(view) = reshaped_weight(call, &kept)? {
        return Ok(view);
    }
    let x = call.value("self")?;
    Ok(call.add(op::Squeeze { axes }, &[x])?.into())
}

fn unsqueeze(call: &mut Call) -> Result<Arg> {
    let mut shape = call.shape("self")?;
    let axis = call.axis("dim", shape.rank() + 1)?;
    shape.insert(axis, Dim::Known(1));
    if let Some(view) = reshaped_weight(call, &shape)? {
        return Ok(view);
    }
    let x = call.value("self")?;
    Ok(call.add(op::Unsqueeze { axes: vec![axis] }, &[x])?.into())
}

fn cat(call: &mut Call) -> Result<Arg> {
    let values = call.values("tensors")?;
    // `torch.cat` leaves out empty vectors.
    let is_empty = |value: &Value| call.lower.graph.shape(*value).sizes().as_deref() == Some(&[0]);
    let values: Vec<Value> = values.iter().copied().filter(|value| !is_empty(value)).collect();
    let Some(&first) = values.first() else { return Err(call.fail("joins nothing")) };
    let shape = call.lower.graph.shape(first).clone();
    let axis = call.axis("dim", shape.rank())?;
    for value in &values {
        check_joined(call, &shape, *value, Some(axis))?;
    }
    if values.len() == 1 {
        return Ok(first.into());
    }
    let args: Vec<Arg> = values.iter().map(|&value| value.into()).collect();
    let dtype = super::math::result_type(call, &args.iter().collect::<Vec<_>>());
    let values = values.into_iter().map(|value| call.cast(value, dtype)).collect::<Result<Vec<_>>>()?;
    Ok(call.add(op::Concat { axis }, &values)?.into())
}

/// Fails where a free size meets a known one: what is joined with the batch must have it.
fn check_joined(call: &Call, shape: &Shape, value: Value, joined: Option<usize>) -> Result<()> {
    let other = call.lower.graph.shape(value);
    for (axis, pair) in shape.iter().zip(other.iter()).enumerate() {
        if let (Dim::Symbol { .. }, Dim::Known(_)) | (Dim::Known(_), Dim::Symbol { .. }) = pair
            && Some(axis) != joined
        {
            return Err(call.fail(format!("{shape} and {other} can't be joined: one has a free size on axis {axis}")));
        }
    }
    Ok(())
}

fn stack(call: &mut Call) -> Result<Arg> {
    let values = call.values("tensors")?;
    let Some(&first) = values.first() else { return Err(call.fail("joins nothing")) };
    let shape = call.lower.graph.shape(first).clone();
    let axis = call.axis("dim", shape.rank() + 1)?;
    for value in &values {
        check_joined(call, &shape, *value, None)?;
    }
    match values.as_slice() {
        [single] => Ok(call.add(op::Unsqueeze { axes: vec![axis] }, &[*single])?.into()),
        values => Ok(call.add(op::Pack { axis }, values)?.into()),
    }
}

/// Parts of these sizes along an axis.
fn parts(call: &mut Call, axis: usize, sizes: Vec<usize>) -> Result<Arg> {
    if let Some(weight) = call.weight("self").filter(|weight| !weight.is_state()) {
        let mut start = 0;
        let part = |size: usize| {
            let tensor = weight.tensor.sliced(axis, start, start + size).map_err(|message| call.fail(message))?;
            start += size;
            Ok(Weight { tensor, ..weight.clone() }.into())
        };
        return Ok(Arg::List(sizes.into_iter().map(part).collect::<Result<_>>()?));
    }
    let x = call.value("self")?;
    if sizes.len() == 1 {
        return Ok(Arg::List(vec![x.into()]));
    }
    let count = sizes.len();
    if count > MAX_PARTS {
        return Err(call.fail(format!("is cut into {count} parts")));
    }
    let split = call.add(op::Split { axis, sizes }, &[x])?;
    Ok(Arg::List((0..count).map(|output| Value { node: split.node, output }.into()).collect()))
}

fn pieces(total: usize, piece: usize) -> Vec<usize> {
    let piece = piece.max(1);
    (0..total.div_ceil(piece)).map(|i| piece.min(total - i * piece)).collect()
}

fn split(call: &mut Call) -> Result<Arg> {
    let shape = call.shape("self")?;
    let axis = call.axis("dim", shape.rank())?;
    let name = if call.has("split_sizes") { "split_sizes" } else { "split_size" };
    if let Arg::List(_) = call.arg(name) {
        let count = call.elems(name)?.len();
        let sizes = call.spatial(name, count)?;
        return parts(call, axis, sizes);
    }
    let piece = call.size(name)?;
    let total = call.known(&shape, axis, "the length of the axis to cut")?;
    if piece == 0 || total.div_ceil(piece) > MAX_PARTS {
        return Err(call.fail(format!("an axis of {total} is cut into pieces of {piece}")));
    }
    parts(call, axis, pieces(total, piece))
}

fn chunk(call: &mut Call) -> Result<Arg> {
    let shape = call.shape("self")?;
    let axis = call.axis("dim", shape.rank())?;
    let total = call.known(&shape, axis, "the length of the axis to cut")?;
    let chunks = call.size("chunks")?.max(1);
    parts(call, axis, pieces(total, total.div_ceil(chunks)))
}

fn tensor_split(call: &mut Call) -> Result<Arg> {
    let shape = call.shape("self")?;
    let axis = call.axis("dim", shape.rank())?;
    let total = call.known(&shape, axis, "the length of the axis to cut")?;
    if let Arg::List(_) = call.arg("sections") {
        return split_at(call, "sections");
    }
    let sections = call.size("sections")?.clamp(1, MAX_PARTS);
    let sizes = (0..sections).map(|i| total / sections + usize::from(i < total % sections)).collect();
    parts(call, axis, sizes)
}

/// Parts by where they end, counted from either end of the axis.
fn split_at(call: &mut Call, name: &str) -> Result<Arg> {
    let shape = call.shape("self")?;
    let axis = call.axis("dim", shape.rank())?;
    let total = call.known(&shape, axis, "the length of the axis to cut")?;
    let end = |at: i64| match usize::try_from(at) {
        Ok(at) => at.min(total),
        Err(_) => total.saturating_sub(usize::try_from(at.unsigned_abs()).unwrap_or(total)),
    };
    let mut sizes = Vec::new();
    let mut begin = 0;
    for end in call.ints(name)?.into_iter().map(end).chain([total]) {
        sizes.push(end.saturating_sub(begin));
        begin = end;
    }
    if sizes.contains(&0) || sizes.iter().sum::<usize>() != total {
        return Err(call.fail("a part of the axis is empty"));
    }
    parts(call, axis, sizes)
}

fn unbind(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let shape = call.lower.graph.shape(x).clone();
    let axis = call.axis("dim", shape.rank())?;
    let count = call.known(&shape, axis, "the length of the axis to cut")?;
    if count > MAX_PARTS {
        return Err(call.fail(format!("is cut into {count} parts")));
    }
    let node = call.add(op::Unpack { axis, count }, &[x])?.node;
    Ok(Arg::List((0..count).map(|output| Value { node, output }.into()).collect()))
}

fn expand(call: &mut Call) -> Result<Arg> {
    let old = call.shape("self")?;
    let elems = call.elems("size")?;
    let new_axes = elems.len().saturating_sub(old.rank());
    let dim = |(axis, elem): (usize, &Elem)| {
        let own = axis.checked_sub(new_axes).and_then(|axis| old.get(axis));
        match (elem.int(), own) {
            (Some(-1), Some(own)) => own.clone(),
            // What has its size already may be unknown.
            (None, Some(own)) if elem.dim() == Dim::Unknown && *own != Dim::Known(1) => own.clone(),
            _ => elem.dim(),
        }
    };
    let shape: Shape = elems.iter().enumerate().map(dim).collect();
    if shape == old {
        return Ok(call.arg("self"));
    }
    for (dim, own) in shape.iter().skip(new_axes).zip(old.iter()) {
        if let (Dim::Known(_), Dim::Symbol { .. }) = (dim, own) {
            return Err(call.fail(format!("{old} does not become {shape}: the free size {own} is no {dim}")));
        }
    }
    let like = call.lower.like(&shape)?;
    let x = call.value("self")?;
    Ok(call.add_with(op::Expand { shape }, &[Some(x), like])?.into())
}

fn repeat(call: &mut Call, name: &str) -> Result<Arg> {
    let shape = call.shape("self")?;
    let mut repeats: Shape = call.elems(name)?.iter().map(Elem::dim).collect();
    // `repeat` adds axes in front of the tensor, `tile` in front of the counts.
    while repeats.rank() < shape.rank() {
        repeats.insert(0, Dim::Known(1));
    }
    let mut x = call.value("self")?;
    let new = repeats.rank() - shape.rank();
    if new > 0 {
        x = call.add(op::Unsqueeze { axes: (0..new).collect() }, &[x])?;
    }
    if repeats.iter().all(|dim| *dim == Dim::Known(1)) {
        return Ok(x.into());
    }
    let like = call.lower.like(&repeats)?;
    Ok(call.add_with(op::Tile { repeats }, &[Some(x), like])?.into())
}

/// Every element several times in a row.
fn repeat_interleave(call: &mut Call) -> Result<Arg> {
    let times = call.size("repeats")?;
    let x = match call.has("dim") {
        true => call.arg("self"),
        false => call.call("flatten", &[call.arg("self")])?,
    };
    let x = call.lower.value(&x)?;
    let mut shape = call.lower.graph.shape(x).clone();
    let axis = if call.has("dim") { call.axis("dim", shape.rank())? } else { 0 };
    let column = call.add(op::Unsqueeze { axes: vec![axis + 1] }, &[x])?;
    let mut repeats = Shape::known(&vec![1; shape.rank() + 1]);
    if let (Some(repeat), Some(dim)) = (repeats.get_mut(axis + 1), shape.get_mut(axis)) {
        *repeat = Dim::Known(times);
        *dim = dim.times(&Dim::Known(times));
    }
    let tiled = call.add(op::Tile { repeats }, &[column])?;
    Ok(call.add(op::Reshape { shape }, &[tiled])?.into())
}

fn flip(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let axes = call.axes("dims", call.lower.graph.shape(x).rank())?;
    Ok(call.add(op::Reverse { axes }, &[x])?.into())
}

/// Moves the end of an axis to its front.
fn roll(call: &mut Call) -> Result<Arg> {
    let mut x = call.value("self")?;
    let old = call.lower.graph.shape(x).clone();
    let shifts = call.ints("shifts")?;
    let flat = call.elems("dims")?.is_empty();
    if flat {
        x = call.add(op::Reshape { shape: Shape(vec![old.numel()]) }, &[x])?;
    }
    let shape = call.lower.graph.shape(x).clone();
    let axes = if flat { vec![0] } else { call.axes("dims", shape.rank())? };
    for (shift, axis) in shifts.into_iter().zip(axes) {
        let size = call.known(&shape, axis, "the length of the axis to roll")?;
        let shift = usize::try_from(shift.rem_euclid(i64::try_from(size.max(1)).unwrap_or(1))).unwrap_or(0);
        if shift == 0 {
            continue;
        }
        let halves = call.add(op::Split { axis, sizes: vec![size - shift, shift] }, &[x])?;
        x = call.add(op::Concat { axis }, &[Value { node: halves.node, output: 1 }, halves])?;
    }
    if flat {
        x = call.add(op::Reshape { shape: old }, &[x])?;
    }
    Ok(x.into())
}

/// `[groups, channels / groups]` of the channels change places.
fn channel_shuffle(call: &mut Call) -> Result<Arg> {
    let x = call.value("self")?;
    let shape = call.lower.graph.shape(x).clone();
    let groups = call.size("groups")?.max(1);
    let channels = call.known(&shape, 1, "the number of channels")?;
    let mut split = shape.clone();
    split.splice(1..=1, [Dim::Known(groups), Dim::Known(channels / groups)]);
    let parts = call.add(op::Reshape { shape: split }, &[x])?;
    let mut perm: Vec<usize> = (0..shape.rank() + 1).collect();
    perm.swap(1, 2);
    let swapped = call.add(op::Transpose { perm }, &[parts])?;
    Ok(call.add(op::Reshape { shape }, &[swapped])?.into())
}
