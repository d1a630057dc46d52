//! Operators that move elements: reshape, slices, pads, gathers, resizing.

use modelport_ir::op::{Fill, Gather, OneHot, Pad, PadMode, Range, Reverse, Scatter, Slice, Split, Tile};
use modelport_ir::{DType, Dim, Shape, Tensor};

use super::build::{Builder, Built, torch_dtype};
use super::layers::pad_list;
use crate::python::{Arg, Expr, Lit};

fn all() -> Expr {
    Expr::name(":")
}

fn axes(role: &str, axes: &[usize]) -> Vec<Arg> {
    axes.iter().map(|&axis| Arg::new(Expr::int(role, axis))).collect()
}

/// `x.flatten(1)` where it is one, else `x.reshape(…)` with at most one `-1`.
pub fn reshape(b: &mut Builder<'_>) -> Built {
    let from = b.shape(0)?.clone();
    let to = b.output_shape(0).clone();
    let x = b.tensor(0)?;
    // Leading axes stay and the rest become one.
    let kept = from.iter().zip(to.iter()).take_while(|(a, b)| a == b && **a != Dim::Unknown).count();
    if to.rank() >= 1 && kept + 1 >= to.rank() && from.rank() > to.rank() {
        let start = to.rank() - 1;
        if from[..start] == to[..start] {
            let expr = x.method("flatten", vec![Arg::or("start_dim", Expr::int("start_dim", start), Lit::Int(0))]);
            b.as_module(Expr::call(
                "nn.Flatten",
                vec![Arg::or("start_dim", Expr::int("start_dim", start), Lit::Int(1))],
            ));
            if start == 0 {
                b.no_module();
            }
            return Ok(expr);
        }
    }
    if let Some(expr) = unflatten(&x, &from, &to).or_else(|| flatten(&x, &from, &to)) {
        return Ok(expr);
    }
    let open: Vec<usize> = (0..to.rank()).filter(|&i| to[i].known().is_none()).collect();
    let mut args = Vec::new();
    for (i, dim) in to.iter().enumerate() {
        let size = match dim {
            Dim::Known(size) => Expr::int("size", *size),
            // One free size is what is left over; of several the first is looked up.
            _ if open.len() == 1 || (*dim == Dim::Unknown) => Expr::slot("size", Lit::Int(-1)),
            dim => match from.get(i) == Some(dim) {
                true => b.dim(0, i, "size")?,
                false => b.size(dim, 0)?,
            },
        };
        args.push(Arg::new(size));
    }
    if args.is_empty() {
        args.push(Arg::new(Expr::Tuple(Vec::new())));
    }
    Ok(x.method("reshape", args))
}

/// One axis becomes several: `x.unflatten(1, (4, 16))`.
fn unflatten(x: &Expr, from: &Shape, to: &Shape) -> Option<Expr> {
    if from.rank() >= to.rank() || from.rank() < 2 {
        return None;
    }
    let head = from.iter().zip(to.iter()).take_while(|(a, b)| a == b && **a != Dim::Unknown).count();
    let tail = from.rank().checked_sub(head + 1)?;
    if head == 0 || from[head + 1..] != to[to.rank() - tail..] || from[head + 1..].contains(&Dim::Unknown) {
        return None;
    }
    let sizes: Option<Vec<usize>> = to[head..to.rank() - tail].iter().map(Dim::known).collect();
    let sizes = Expr::slot("sizes", Lit::tuple(&sizes?));
    Some(x.clone().method("unflatten", vec![Arg::new(Expr::int("dim", head)), Arg::new(sizes)]))
}

/// Several axes become one, those behind them stay: `x.flatten(1, 2)`.
fn flatten(x: &Expr, from: &Shape, to: &Shape) -> Option<Expr> {
    if from.rank() <= to.rank() || to.rank() == 0 {
        return None;
    }
    let same = from.iter().zip(to.iter()).take_while(|(a, b)| a == b && **a != Dim::Unknown).count();
    let head = same.min(to.rank() - 1);
    let end = from.rank() - (to.rank() - head - 1);
    if from[end..] != to[head + 1..] || from[end..].contains(&Dim::Unknown) {
        return None;
    }
    let axes = [head, end - 1].map(|axis| Arg::new(Expr::int("dim", axis)));
    Some(x.clone().method("flatten", axes.into()))
}

/// `x.transpose(…)` for two axes, else `x.permute(…)`.
pub fn transpose(b: &mut Builder<'_>, perm: &[usize]) -> Built {
    let x = b.tensor(0)?;
    let moved: Vec<usize> = (0..perm.len()).filter(|&i| perm[i] != i).collect();
    Ok(match moved.as_slice() {
        [] => x,
        [p, q] => x.method("transpose", axes("dim", &[*p, *q])),
        _ => x.method("permute", axes("dim", perm)),
    })
}

/// `x.squeeze(…)`, always with axes; `flatten` where these are the last ones of an image.
pub fn squeeze(b: &mut Builder<'_>, squeezed: &[usize]) -> Built {
    let rank = b.shape(0)?.rank();
    let x = b.tensor(0)?;
    if squeezed.len() > 1 && rank > 2 && squeezed.iter().copied().eq(rank - squeezed.len()..rank) {
        let start = Expr::int("start_dim", rank - squeezed.len() - 1);
        if rank - squeezed.len() == 2 {
            b.as_module(Expr::call("nn.Flatten", Vec::new()));
        }
        return Ok(x.method("flatten", vec![Arg::new(start)]));
    }
    match squeezed {
        [] => Ok(x),
        squeezed => Ok(x.method("squeeze", vec![Arg::new(super::functions::dims(squeezed))])),
    }
}

/// `x.unsqueeze(1)`, or `x[:, None, None]` for several.
pub fn unsqueeze(b: &mut Builder<'_>, inserted: &[usize]) -> Built {
    let x = b.tensor(0)?;
    if let [axis] = inserted {
        return Ok(x.method("unsqueeze", vec![Arg::new(Expr::int("dim", *axis))]));
    }
    let Some(last) = inserted.iter().max() else { return Ok(x) };
    let items = (0..=*last).map(|axis| if inserted.contains(&axis) { Expr::name("None") } else { all() });
    Ok(x.index(items.collect()))
}

/// `torch.cat` and `torch.stack`.
pub fn join(b: &mut Builder<'_>, function: &str, axis: usize) -> Built {
    let parts = (0..b.input_count()).map(|slot| b.tensor(slot)).collect::<Result<Vec<_>, _>>()?;
    let dim = Arg::keyword("dim", Expr::int("dim", axis), Some(Lit::Int(0)));
    Ok(Expr::call(function, vec![Arg::new(Expr::List(parts)), dim]))
}

/// `x.chunk(…)` for equal parts, else `x.split(…)`.
pub fn split(b: &mut Builder<'_>, op: &Split) -> Built {
    let x = b.tensor(0)?;
    let dim = Arg::keyword("dim", Expr::int("dim", op.axis), Some(Lit::Int(0)));
    if op.sizes.len() == 1 {
        return Ok(Expr::Tuple(vec![x]));
    }
    Ok(if op.sizes.windows(2).all(|pair| pair[0] == pair[1]) {
        x.method("chunk", vec![Arg::new(Expr::int("chunks", op.sizes.len())), dim])
    } else {
        let sizes = op.sizes.iter().copied().map(Lit::size).collect();
        x.method("split", vec![Arg::new(Expr::slot("split_sizes", Lit::List(sizes))), dim])
    })
}

/// `x.unbind(…)`.
pub fn unpack(b: &mut Builder<'_>, axis: usize) -> Built {
    let x = b.tensor(0)?;
    Ok(x.method("unbind", vec![Arg::or("dim", Expr::int("dim", axis), Lit::Int(0))]))
}

/// `x[:, 1:3]`; PyTorch has no negative steps: those axes are flipped first.
pub fn slice(b: &mut Builder<'_>, op: &Slice) -> Built {
    let shape = b.shape(0)?.clone();
    let mut x = b.tensor(0)?;
    let mut items = Vec::new();
    let mut flipped = Vec::new();
    for axis in 0..shape.rank() {
        let (mut begin, mut end, step) = (op.begins[axis], op.ends[axis], op.steps[axis]);
        if step < 0 {
            flipped.push(axis);
            // Element i of n is element -1 - i when read from the end, and the other way round.
            begin = if begin == -1 { 0 } else { -1 - begin };
            end = if end == Slice::OPEN { end } else { -1 - end };
            if end == 0 {
                // Up to the element before the first of the flipped axis: nothing.
                begin = 0;
            }
            if let Some(size) = shape[axis].known() {
                let (first, count) = op.resolve(axis, size);
                begin = (size - 1 - first.min(size.saturating_sub(1))) as i64;
                end = begin + (count as i64 - 1) * step.abs() + 1;
                if count == 0 {
                    (begin, end) = (0, 0);
                } else if end >= size as i64 {
                    end = Slice::OPEN;
                }
            }
        }
        let part =
            |value: i64, left_out: i64| (value != left_out).then(|| Box::new(Expr::slot("index", Lit::Int(value))));
        let step = part(step.abs(), 1);
        items.push(match (part(begin, 0), part(end, Slice::OPEN), step) {
            (None, None, None) => all(),
            (begin, end, step) => Expr::Range(begin, end, step),
        });
    }
    while items.last() == Some(&all()) {
        items.pop();
    }
    if !flipped.is_empty() {
        x = x.method("flip", axes("dim", &flipped));
    }
    Ok(if items.is_empty() { x } else { x.index(items) })
}

/// `F.pad`, or picking by index where PyTorch has no such padding.
pub fn pad(b: &mut Builder<'_>, op: &Pad) -> Built {
    let shape = b.shape(0)?.clone();
    let rank = shape.rank();
    let first = op.pads.0.iter().position(|&pad| pad != (0, 0)).unwrap_or(rank);
    let padded = &op.pads.0[first..];
    if padded.is_empty() {
        return b.tensor(0);
    }
    let list = Expr::slot("pad", pad_list(padded));
    let native = match op.mode {
        PadMode::Constant => true,
        PadMode::Symmetric => false,
        // Only the last one, two or three axes behind a batch, a channel or both.
        PadMode::Reflect | PadMode::Edge => {
            let n = padded.len();
            (1..=3).contains(&n) && (rank == n + 2 || rank == n + 1)
        }
    };
    if !native {
        return pad_by_index(b, op, &shape);
    }
    let mode = match op.mode {
        PadMode::Reflect => "reflect",
        PadMode::Edge => "replicate",
        _ => "constant",
    };
    let value = if b.dtype(0)?.is_float() { Lit::float(op.value) } else { Lit::Int(op.value as i64) };
    let zero = if b.dtype(0)?.is_float() { Lit::float(0.0) } else { Lit::Int(0) };
    let x = b.tensor(0)?;
    if op.mode == PadMode::Constant && op.value == 0.0 && padded.len() == 2 && rank == 4 {
        b.as_module(Expr::call("nn.ZeroPad2d", vec![Arg::new(list.clone())]));
    } else if op.mode == PadMode::Reflect && padded.len() == rank - 2 {
        b.as_module(Expr::call(&format!("nn.ReflectionPad{}d", rank - 2), vec![Arg::new(list.clone())]));
    }
    Ok(Expr::call(
        "F.pad",
        vec![
            Arg::new(x),
            Arg::new(list),
            Arg::keyword("mode", Expr::slot("mode", Lit::Str(mode.to_owned())), Some(Lit::Str("constant".to_owned()))),
            Arg::keyword("value", Expr::slot("value", value), Some(zero)),
        ],
    ))
}

fn pad_by_index(b: &mut Builder<'_>, op: &Pad, shape: &Shape) -> Built {
    let mut x = b.tensor(0)?;
    for (axis, &(before, after)) in op.pads.0.iter().enumerate().filter(|(_, pad)| **pad != (0, 0)) {
        let size = shape.get(axis).and_then(Dim::known).filter(|&size| size > 0).ok_or_else(|| {
            b.problem(format!("the size of axis {axis} is not known")).hint("give the input's shape with --inputShape")
        })?;
        let n = size as i64;
        let indices: Vec<i64> = (-(before as i64)..n + after as i64)
            .map(|i| match op.mode {
                PadMode::Edge | PadMode::Constant => i.clamp(0, n - 1),
                PadMode::Reflect => (n - 1) - ((n - 1) - i.abs()).abs(),
                PadMode::Symmetric => {
                    let i = i.rem_euclid(2 * n);
                    i.min(2 * n - 1 - i)
                }
            })
            .map(|i| i.clamp(0, n - 1))
            .collect();
        let tensor = Tensor::from_i64(&[indices.len()], &indices);
        let index = b.buffer("mirror", tensor, "");
        x = x.method("index_select", vec![Arg::new(Expr::int("dim", axis)), Arg::new(index)]);
    }
    Ok(x)
}

/// `x.repeat(…)`.
pub fn tile(b: &mut Builder<'_>, op: &Tile) -> Built {
    let x = b.tensor(0)?;
    let args = op.repeats.iter().map(|dim| like_size(b, dim, 1).map(Arg::new)).collect::<Result<Vec<_>, _>>()?;
    Ok(x.method("repeat", args))
}

/// A size that may be free in the `like` input.
fn like_size(b: &mut Builder<'_>, dim: &Dim, like: usize) -> Built {
    match dim.known() {
        Some(size) => Ok(Expr::int("size", size)),
        None => b.size(dim, like),
    }
}

/// `x.expand(…)`.
pub fn expand(b: &mut Builder<'_>) -> Built {
    let from = b.shape(0)?.clone();
    let to = b.output_shape(0).clone();
    let x = b.tensor(0)?;
    let lead = to.rank() - from.rank();
    let mut args = Vec::new();
    for (i, dim) in to.iter().enumerate() {
        let same = i.checked_sub(lead).and_then(|i| from.get(i)) == Some(dim) && dim.known().is_none();
        args.push(Arg::new(if same { Expr::slot("size", Lit::Int(-1)) } else { like_size(b, dim, 1)? }));
    }
    Ok(x.method("expand", args))
}

/// What a new tensor is made like: its device, and its type where it differs.
fn device(b: &mut Builder<'_>, slot: usize) -> Option<Arg> {
    let value = b.has(slot).filter(|value| b.graph.tensor(*value).is_none())?;
    let x = b.operand_of(value);
    Some(Arg::keyword("device", Expr::Attr(Box::new(x), "device".to_owned()), None))
}

/// `torch.full`, `torch.zeros`, `torch.ones`.
pub fn fill(b: &mut Builder<'_>, op: &Fill) -> Built {
    let sizes = op.shape.iter().map(|dim| like_size(b, dim, 0)).collect::<Result<Vec<_>, _>>()?;
    let value = match op.dtype {
        DType::Bool => Lit::Bool(op.value != 0.0),
        dtype if dtype.is_int() => Lit::Int(op.value as i64),
        _ => Lit::float(op.value),
    };
    let plain = match value {
        Lit::Int(0) => Some("torch.zeros"),
        Lit::Int(1) => Some("torch.ones"),
        Lit::Float(bits) if f32::from_bits(bits) == 0.0 => Some("torch.zeros"),
        Lit::Float(bits) if f32::from_bits(bits) == 1.0 => Some("torch.ones"),
        _ => None,
    };
    let mut args = match plain {
        Some(_) if !sizes.is_empty() => sizes.into_iter().map(Arg::new).collect(),
        Some(_) => vec![Arg::new(Expr::Tuple(Vec::new()))],
        None => vec![Arg::new(Expr::Tuple(sizes)), Arg::new(Expr::slot("value", value))],
    };
    if op.dtype != DType::Float32 {
        args.push(Arg::keyword("dtype", Expr::name(&torch_dtype(op.dtype)), None));
    }
    args.extend(device(b, 0));
    Ok(Expr::call(plain.unwrap_or("torch.full"), args))
}

/// `torch.arange`.
pub fn range(b: &mut Builder<'_>, op: &Range) -> Built {
    let limit = like_size(b, &op.limit, 0)?;
    let mut args = Vec::new();
    if op.start != 0 || op.delta != 1 {
        args.push(Arg::new(Expr::slot("start", Lit::Int(op.start))));
    }
    args.push(Arg::new(limit));
    if op.delta != 1 {
        args.push(Arg::new(Expr::slot("step", Lit::Int(op.delta))));
    }
    if op.dtype != DType::Int64 {
        args.push(Arg::keyword("dtype", Expr::name(&torch_dtype(op.dtype)), None));
    }
    args.extend(device(b, 0));
    Ok(Expr::call("torch.arange", args))
}

/// Sizes as a tensor.
pub fn sizes(b: &mut Builder<'_>, dims: &Shape, dtype: DType) -> Built {
    let items = dims.iter().map(|dim| like_size(b, dim, 0)).collect::<Result<Vec<_>, _>>()?;
    let mut args = vec![Arg::new(Expr::List(items))];
    if dtype != DType::Int64 {
        args.push(Arg::keyword("dtype", Expr::name(&torch_dtype(dtype)), None));
    }
    args.extend(device(b, 0));
    Ok(Expr::call("torch.tensor", args))
}

/// Picks by one index, by a vector, or by a tensor of indices.
pub fn gather(b: &mut Builder<'_>, op: &Gather) -> Built {
    let x_shape = b.shape(0)?.clone();
    let index_value = b.input(1)?;
    let index_shape = b.shape(1)?.clone();
    if op.batch_dims == 0 {
        if let Some(number) = b.graph.tensor(index_value).filter(|tensor| tensor.rank() == 0).cloned() {
            let index = b.literal(&number)?;
            let x = b.tensor(0)?;
            let mut items = vec![all(); op.axis];
            items.push(index);
            return Ok(x.index(items));
        }
        let x = b.tensor(0)?;
        let index = long(b, 1)?;
        let mut items = vec![all(); op.axis];
        items.push(index);
        return Ok(x.index(items));
    }
    if (op.axis, op.batch_dims) == (1, 1) {
        // Rows and places: `torch.export` keeps the batch free in this, and not in `take_along_dim`.
        let (x, index) = (b.tensor(0)?, b.tensor(1)?);
        let rows = match x_shape.first().and_then(Dim::known) {
            Some(rows) => Expr::int("rows", rows),
            None => Expr::Attr(Box::new(x.clone()), "shape".to_owned()).index(vec![Expr::name("0")]),
        };
        let device = Arg::keyword("device", Expr::Attr(Box::new(x.clone()), "device".to_owned()), None);
        let rows = Expr::call("torch.arange", vec![Arg::new(rows), device]);
        let rows = match index_shape.rank() {
            0 | 1 => rows,
            rank => rows.index(std::iter::once(all()).chain(vec![Expr::name("None"); rank - 1]).collect()),
        };
        return Ok(x.index(vec![rows, index]));
    }
    // Shared leading axes: the same number of slices from every element of the batch. It takes no int32.
    let x = b.tensor(0)?;
    let index = match b.dtype(1)? {
        DType::Int64 => b.tensor(1)?,
        _ => b.tensor(1)?.method("long", Vec::new()),
    };
    let own = index_shape.rank() - op.batch_dims;
    if own > 1 {
        return Err(b.problem("picking by several axes of indices behind shared ones has no short form in PyTorch"));
    }
    let tail = x_shape.rank() - op.axis - 1;
    let between = op.axis - op.batch_dims;
    let mut items = vec![all(); op.batch_dims];
    items.extend(vec![Expr::name("None"); between]);
    if own == 1 {
        items.push(all());
    } else {
        items.push(Expr::name("None"));
    }
    items.extend(vec![Expr::name("None"); tail]);
    let index = if between + tail > 0 || own == 0 { index.index(items) } else { index };
    let dim = Arg::keyword("dim", Expr::int("dim", op.axis), None);
    let taken = Expr::call("torch.take_along_dim", vec![Arg::new(x), Arg::new(index), dim]);
    Ok(if own == 0 { taken.method("squeeze", vec![Arg::new(Expr::int("dim", op.axis))]) } else { taken })
}

/// The value in a slot as an index: PyTorch takes int32 and int64.
fn long(b: &mut Builder<'_>, slot: usize) -> Built {
    let x = b.tensor(slot)?;
    Ok(match b.dtype(slot)? {
        DType::Int64 | DType::Int32 => x,
        _ => x.method("long", Vec::new()),
    })
}

/// `x[i[..., 0], i[..., 1]]`.
pub fn gather_nd(b: &mut Builder<'_>) -> Built {
    let depth = b.shape(1)?.last().and_then(Dim::known).ok_or_else(|| b.problem("the index's depth is not known"))?;
    let x = b.tensor(0)?;
    let index = long(b, 1)?;
    if depth == 0 {
        return Err(b.problem("picking by an empty index can't be said in PyTorch"));
    }
    let part = |i: usize| index.clone().index(vec![Expr::name("..."), Expr::int("index", i)]);
    Ok(x.index((0..depth).map(part).collect()))
}

/// `x.scatter_add(1, index, source)`, `x.index_copy(0, index, source)`, `x.index_fill(0, index, 1.0)`.
pub fn scatter(b: &mut Builder<'_>, op: &Scatter) -> Built {
    let number = b.shape(2)?.rank() == 0;
    let method = match (op.elements, op.add) {
        (true, false) => "scatter",
        (true, true) => "scatter_add",
        (false, false) if number => "index_fill",
        (false, false) => "index_copy",
        (false, true) => "index_add",
    };
    let (x, index) = (b.tensor(0)?, b.tensor(1)?);
    let index = match b.dtype(1)? {
        DType::Int64 => index,
        _ => index.method("long", Vec::new()),
    };
    let source = if number { b.operand(2)? } else { b.tensor(2)? };
    Ok(x.method(method, vec![Arg::new(Expr::int("dim", op.axis)), Arg::new(index), Arg::new(source)]))
}

/// Compares with the classes: unlike `F.one_hot`, an index outside of them gives a row without a one, as in TensorFlow.
pub fn one_hot(b: &mut Builder<'_>, op: &OneHot) -> Built {
    let rank = b.shape(0)?.rank();
    let x = b.tensor(0)?;
    let classes = Expr::call(
        "torch.arange",
        vec![
            Arg::new(Expr::int("num_classes", op.depth)),
            Arg::keyword("device", Expr::Attr(Box::new(x.clone()), "device".to_owned()), None),
        ],
    );
    let classes = match rank - op.axis {
        0 => classes,
        n => {
            let items = std::iter::once(all()).chain(vec![Expr::name("None"); n]).collect();
            classes.index(items)
        }
    };
    let hot = x.method("unsqueeze", vec![Arg::new(Expr::int("dim", op.axis))]).binary("==", classes);
    if (op.on, op.off) == (1.0, 0.0) {
        return Ok(match op.dtype {
            DType::Bool => hot,
            DType::Float32 => hot.method("float", Vec::new()),
            dtype => hot.method("to", vec![Arg::new(Expr::name(&torch_dtype(dtype)))]),
        });
    }
    let lit =
        |value: f32| Expr::slot("value", if op.dtype.is_int() { Lit::Int(value as i64) } else { Lit::float(value) });
    let chosen = Expr::call("torch.where", vec![Arg::new(hot), Arg::new(lit(op.on)), Arg::new(lit(op.off))]);
    Ok(chosen.method("to", vec![Arg::new(Expr::name(&torch_dtype(op.dtype)))]))
}

/// `x.flip(…)`.
pub fn reverse(b: &mut Builder<'_>, op: &Reverse) -> Built {
    let x = b.tensor(0)?;
    Ok(x.method("flip", axes("dim", &op.axes)))
}
