//! Operators that move elements: reshape, slices, pads, gathers, and resampling in space.

use modelport_ir::op::{
    Binary, Coordinates, DepthToSpace, Fill, Gather, OneHot, Op, Pad, PadMode, Range, Resize, ResizeMode, Reverse,
    Slice, SpaceToDepth, Split, Tile,
};
use modelport_ir::{DType, Dim, Shape, Tensor, Value};

use super::build::{Builder, Built, call_layer, dtype_lit, reshaped, shape_of};
use super::functions::{axis, cast_to, transposed};
use super::layers::{check_layout, zero_padding};
use super::recurrent::is_read_alone;
use crate::python::{Arg, Expr, Lit};

fn all() -> Expr {
    Expr::name(":")
}

/// Whether axis 0 is the batch, which layers leave alone.
fn is_batched(shape: &Shape) -> bool {
    shape.first().is_some_and(|dim| matches!(dim, Dim::Symbol { .. }))
}

/// `layers.Flatten`, `layers.Reshape`, or `ops.reshape` where the batch takes part.
pub fn reshape(b: &mut Builder<'_>) -> Built {
    let (from, to) = (b.shape(0)?.clone(), b.output_shape(0).clone());
    let x = b.tensor(0)?;
    reshape_to(b, x, &from, &to)
}

fn reshape_to(b: &Builder<'_>, x: Expr, from: &Shape, to: &Shape) -> Built {
    let open = |shape: &[Dim]| shape.iter().filter(|dim| dim.known().is_none()).count();
    let size = |dim: &Dim| dim.known().map_or(Lit::Int(-1), Lit::size);
    if is_batched(from) && from.first() == to.first() {
        if to.rank() == 2 && from.rank() > 2 {
            return Ok(call_layer("Flatten", Vec::new(), x));
        }
        if open(&to[1..]) <= 1 {
            let shape = Lit::Tuple(to[1..].iter().map(size).collect());
            let arg = Arg::or("target_shape", shape_of(shape), Lit::None);
            return Ok(call_layer("Reshape", vec![arg], x));
        }
    }
    if open(to) > 1 {
        return Err(b.problem(format!("a reshape from {from} to {to} has several free sizes, Keras takes one")));
    }
    Ok(reshaped(x, Lit::Tuple(to.iter().map(size).collect())))
}

/// `layers.Permute`, or `ops.transpose` where the batch moves.
pub fn transpose(b: &mut Builder<'_>, perm: &[usize]) -> Built {
    let batched = is_batched(b.shape(0)?);
    let x = b.tensor(0)?;
    if perm.iter().copied().eq(0..perm.len()) {
        return Ok(x);
    }
    Ok(if batched { reordered(x, perm) } else { transposed(x, perm) })
}

/// `layers.Permute` where the batch stays first, else `ops.transpose`.
pub fn reordered(x: Expr, perm: &[usize]) -> Expr {
    match perm.split_first() {
        Some((0, rest)) => permuted(x, rest),
        _ => transposed(x, perm),
    }
}

/// `layers.Flatten` for the last axes of an image, else `ops.squeeze`.
pub fn squeeze(b: &mut Builder<'_>, axes: &[usize]) -> Built {
    let (from, to) = (b.shape(0)?.clone(), b.output_shape(0).clone());
    let x = b.tensor(0)?;
    match axes {
        [] => Ok(x),
        [0] if b.graph.input_of(b.node, 0).is_some_and(|state| is_read_alone(b.graph, state)) => Ok(x),
        _ if is_batched(&from) && to.rank() == 2 && !axes.contains(&0) => reshape_to(b, x, &from, &to),
        // Keras does not know the size of a part of the batch.
        axes if axes.contains(&0) => reshape_to(b, x, &from, &to),
        axes => Ok(Expr::call("ops.squeeze", vec![Arg::new(x), axis(axes)])),
    }
}

/// `ops.expand_dims`.
pub fn unsqueeze(b: &mut Builder<'_>, axes: &[usize]) -> Built {
    let x = b.tensor(0)?;
    if axes.is_empty() {
        return Ok(x);
    }
    Ok(Expr::call("ops.expand_dims", vec![Arg::new(x), axis(axes)]))
}

/// `ops.stack`.
pub fn pack(b: &mut Builder<'_>, at: usize) -> Built {
    let parts = (0..b.input_count()).map(|slot| b.tensor(slot)).collect::<Result<Vec<_>, _>>()?;
    let axis = Arg::keyword("axis", Expr::int("axis", at), Some(Lit::Int(0)));
    Ok(Expr::call("ops.stack", vec![Arg::new(Expr::List(parts)), axis]))
}

/// `ops.split`.
pub fn split(b: &mut Builder<'_>, op: &Split) -> Built {
    let x = b.tensor(0)?;
    if op.sizes.len() == 1 {
        return Ok(Expr::Tuple(vec![x]));
    }
    let equal = op.sizes.windows(2).all(|pair| pair[0] == pair[1]);
    let parts = if equal {
        Expr::int("parts", op.sizes.len())
    } else {
        let ends = op.sizes[..op.sizes.len() - 1].iter().scan(0, |end, size| {
            *end += size;
            Some(Expr::int("size", *end))
        });
        Expr::List(ends.collect())
    };
    let parts = Arg::or("indices_or_sections", parts, Lit::None);
    let axis = Arg::keyword("axis", Expr::int("axis", op.axis), Some(Lit::Int(0)));
    if op.sizes.len() == 3 && equal && is_attention(b) {
        b.results(["query", "key", "value"].map(str::to_owned).to_vec());
    }
    Ok(Expr::call("ops.split", vec![Arg::new(x), parts, axis]))
}

/// Whether three parts are multiplied as attention multiplies them: the first with the second, and that with the third.
fn is_attention(b: &Builder<'_>) -> bool {
    let product = |part: usize| {
        let mut value = Value { node: b.node, output: part };
        // What changes neither the elements nor their number.
        for _ in 0..STEPS {
            let [(reader, _)] = b.graph.consumers(value)[..] else { return None };
            match b.graph.op(reader) {
                Op::MatMul(_) => return Some(reader),
                Op::Reshape(_) | Op::Transpose(_) | Op::Binary(Binary::Mul) => value = reader.into(),
                _ => return None,
            }
        }
        None
    };
    match [product(0), product(1), product(2)] {
        [Some(a), Some(b), Some(c)] => a == b && b != c,
        _ => false,
    }
}

/// Most steps between a part of attention's input and its product.
const STEPS: usize = 8;

/// `ops.unstack`.
pub fn unpack(b: &mut Builder<'_>, at: usize, count: usize) -> Built {
    let x = b.tensor(0)?;
    let num = Arg::or("num", Expr::int("count", count), Lit::None);
    let axis = Arg::keyword("axis", Expr::int("axis", at), Some(Lit::Int(0)));
    if count == 3 && is_attention(b) {
        b.results(["query", "key", "value"].map(str::to_owned).to_vec());
    }
    Ok(Expr::call("ops.unstack", vec![Arg::new(x), num, axis]))
}

/// `x[:, 1:3]`; axes with negative steps are flipped first, which all backends can.
pub fn slice(b: &mut Builder<'_>, op: &Slice) -> Built {
    let shape = b.shape(0)?.clone();
    let mut x = b.tensor(0)?;
    let mut items = Vec::new();
    let mut flipped = Vec::new();
    for at in 0..shape.rank() {
        let (mut begin, mut end, step) = (op.begins[at], op.ends[at], op.steps[at]);
        if step < 0 {
            flipped.push(at);
            // Element i of n is element -1 - i when read from the end, and the other way round.
            begin = if begin == -1 { 0 } else { -1 - begin };
            end = if end == Slice::OPEN { end } else { -1 - end };
            if end == 0 {
                begin = 0;
            }
            if let Some(size) = shape[at].known() {
                let (first, count) = op.resolve(at, size);
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
    // Keras wants a tuple of slices.
    if items.len() == 1 {
        items.push(Expr::name("..."));
    }
    if !flipped.is_empty() {
        x = Expr::call("ops.flip", vec![Arg::new(x), axis(&flipped)]);
    }
    Ok(if items.is_empty() { x } else { x.index(items) })
}

/// `layers.ZeroPadding2D` around images, else `ops.pad`.
pub fn pad(b: &mut Builder<'_>, op: &Pad) -> Built {
    let shape = b.shape(0)?.clone();
    let rank = shape.rank();
    let x = b.tensor(0)?;
    let pads = &op.pads.0;
    if pads.iter().all(|&pad| pad == (0, 0)) {
        return Ok(x);
    }
    let float = b.dtype(0)?.is_float();
    let images = (3..=5).contains(&rank) && pads[0] == (0, 0) && pads[rank - 1] == (0, 0);
    if op.mode == PadMode::Constant && op.value == 0.0 && images && float {
        return Ok(zero_padding(&pads[1..rank - 1], x));
    }
    // The modes of other backends than TensorFlow know only the last axes, and none is symmetric.
    if op.mode != PadMode::Constant {
        return by_index(b, op, &shape, x);
    }
    let width = Lit::Tuple(pads.iter().map(|pad| Lit::tuple(&[pad.0, pad.1])).collect());
    let value = if float { Lit::float(op.value) } else { Lit::Int(op.value as i64) };
    let default = if float { Lit::float(0.0) } else { Lit::Int(0) };
    let args = vec![
        Arg::new(x),
        Arg::or("pad_width", Expr::slot("pad_width", width), Lit::None),
        Arg::keyword("constant_values", Expr::slot("value", value), Some(default)),
    ];
    Ok(Expr::call("ops.pad", args))
}

/// Padding by picking elements.
fn by_index(b: &mut Builder<'_>, op: &Pad, shape: &Shape, mut x: Expr) -> Built {
    for (at, &(before, after)) in op.pads.0.iter().enumerate().filter(|(_, pad)| **pad != (0, 0)) {
        let size = shape.get(at).and_then(Dim::known).filter(|&size| size > 0);
        let n = size.ok_or_else(|| b.unknown(&format!("the size of axis {at}")))? as i64;
        let indices = (-(before as i64)..n + after as i64)
            .map(|i| match op.mode {
                PadMode::Edge | PadMode::Constant => i.clamp(0, n - 1),
                PadMode::Reflect => (n - 1) - ((n - 1) - i.abs()).abs(),
                PadMode::Symmetric => {
                    let i = i.rem_euclid(2 * n);
                    i.min(2 * n - 1 - i)
                }
            })
            .map(|i| Lit::Int(i.clamp(0, n - 1)))
            .collect();
        let indices = Arg::or("indices", Expr::slot("indices", Lit::List(indices)), Lit::None);
        x = Expr::call("ops.take", vec![Arg::new(x), indices, axis(&[at])]);
    }
    Ok(x)
}

/// Repeats of a free size: zeros of that size are added, which broadcasts.
pub fn tile(b: &mut Builder<'_>, op: &Tile) -> Built {
    let shape = b.shape(0)?.clone();
    let mut x = b.tensor(0)?;
    let dtype = b.dtype(0)?;
    let known: Vec<usize> = op.repeats.iter().map(|dim| dim.known().unwrap_or(1)).collect();
    for (at, dim) in op.repeats.iter().enumerate().filter(|(_, dim)| dim.known().is_none()) {
        if shape[at].known() != Some(1) {
            return Err(b.problem("repeating an axis a free number of times can't be said in Keras"));
        }
        x = stretched(b.free_zeros(dim, 1, at, shape.rank(), dtype)?, x, dtype);
    }
    Ok(tiled(x, &known))
}

fn tiled(x: Expr, repeats: &[usize]) -> Expr {
    if repeats.iter().all(|&n| n == 1) {
        return x;
    }
    let repeats = Arg::or("repeats", Expr::slot("repeats", Lit::tuple(repeats)), Lit::None);
    Expr::call("ops.tile", vec![Arg::new(x), repeats])
}

/// `ops.broadcast_to`, with zeros added for free sizes.
pub fn expand(b: &mut Builder<'_>) -> Built {
    let from = b.shape(0)?.clone();
    let to = b.output_shape(0).clone();
    let dtype = b.dtype(0)?;
    let mut x = b.tensor(0)?;
    let mut lead = to.rank() - from.rank();
    let mut sizes: Vec<Option<usize>> = vec![None; lead];
    sizes.extend(from.iter().map(Dim::known));
    for (at, dim) in to.iter().enumerate() {
        let own = at.checked_sub(to.rank() - from.rank()).and_then(|i| from.get(i));
        if dim.known().is_none() && own != Some(dim) {
            x = stretched(b.free_zeros(dim, 1, at, to.rank(), dtype)?, x, dtype);
            // The zeros have all axes.
            sizes[..std::mem::take(&mut lead)].fill(Some(1));
        }
    }
    let repeats: Vec<usize> =
        to.iter().zip(&sizes).map(|(dim, size)| if *size == Some(1) { dim.known().unwrap_or(1) } else { 1 }).collect();
    match to.sizes() {
        Some(sizes) => {
            let shape = Arg::or("shape", Expr::slot("shape", Lit::tuple(&sizes)), Lit::None);
            Ok(Expr::call("ops.broadcast_to", vec![Arg::new(x), shape]))
        }
        None if lead > 0 && to.iter().take(lead).any(|dim| dim.known().is_some_and(|size| size > 1)) => {
            Err(b.problem(format!("a broadcast from {from} to {to} has several free sizes")))
        }
        None => Ok(tiled(x, &repeats)),
    }
}

/// A tensor with the free axes of zeros that it is broadcast with. TensorFlow does not add booleans.
fn stretched(zeros: Expr, x: Expr, dtype: DType) -> Expr {
    match dtype {
        DType::Bool => Expr::call("ops.logical_or", vec![Arg::new(zeros), Arg::new(x)]),
        _ => zeros.binary("+", x),
    }
}

/// A tensor of one number, of a size that may be free.
pub fn fill(b: &mut Builder<'_>, op: &Fill) -> Built {
    let rank = op.shape.rank();
    let open: Vec<usize> = (0..rank).filter(|&at| op.shape[at].known().is_none()).collect();
    let value = match op.dtype {
        DType::Bool => Lit::Bool(op.value != 0.0),
        dtype if dtype.is_int() => Lit::Int(op.value as i64),
        _ => Lit::float(op.value),
    };
    let value = Expr::slot("value", value);
    let known: Vec<usize> = op.shape.iter().map(|dim| dim.known().unwrap_or(1)).collect();
    match open.as_slice() {
        [] => {
            let shape = Arg::or("shape", Expr::slot("shape", Lit::tuple(&known)), Lit::None);
            let dtype = Arg::or("dtype", dtype_lit(op.dtype), Lit::Str("float32".to_owned()));
            Ok(Expr::call("ops.full", vec![shape, Arg::or("fill_value", value, Lit::None), dtype]))
        }
        [at] if op.dtype != DType::Bool => {
            let zeros = b.free_zeros(&op.shape[*at], 0, *at, rank, op.dtype)?;
            let filled = if op.value == 0.0 { zeros } else { zeros.binary("+", value) };
            Ok(tiled(filled, &known))
        }
        _ => Err(b.problem(format!("a tensor of shape {} can't be made in Keras", op.shape))),
    }
}

/// `ops.arange`, or positions by counting where the size is free.
pub fn range(b: &mut Builder<'_>, op: &Range) -> Built {
    let Some(limit) = op.limit.known() else {
        let zeros = b.free_zeros(&op.limit, 0, 0, 1, op.dtype)?;
        let one = || Expr::slot("value", if op.dtype.is_float() { Lit::float(1.0) } else { Lit::Int(1) });
        let count = Expr::call("ops.cumsum", vec![Arg::new(zeros.binary("+", one())), axis(&[0])]);
        return Ok(cast_to(count.binary("-", one()), op.dtype));
    };
    let int = |name: &str, value: i64| Arg::or(name, Expr::slot(name, Lit::Int(value)), Lit::None);
    let mut args = Vec::new();
    if op.start != 0 || op.delta != 1 {
        args.push(int("start", op.start));
    }
    args.push(int("stop", limit as i64));
    if op.delta != 1 {
        args.push(int("step", op.delta));
    }
    args.push(Arg::keyword("dtype", dtype_lit(op.dtype), None));
    Ok(Expr::call("ops.arange", args))
}

/// Sizes as a tensor: free ones are counted.
pub fn sizes(b: &mut Builder<'_>, dims: &Shape, dtype: DType) -> Built {
    let mut parts = Vec::new();
    let mut known: Vec<i64> = Vec::new();
    let constant = |b: &mut Builder<'_>, known: &mut Vec<i64>| {
        let tensor = Tensor::from_i64(&[known.len()], known).cast(dtype);
        known.clear();
        b.constant("sizes", &tensor, "", false)
    };
    for dim in dims.iter() {
        if let Some(size) = dim.known() {
            known.push(size as i64);
            continue;
        }
        if !known.is_empty() {
            parts.push(constant(b, &mut known)?);
        }
        let keep = Arg::keyword("keepdims", Expr::slot("keepdims", Lit::Bool(true)), None);
        let ones = b.free_vector("ones_like", dim, 0, dtype)?;
        parts.push(cast_to(Expr::call("ops.sum", vec![Arg::new(ones), keep]), dtype));
    }
    if !known.is_empty() || parts.is_empty() {
        parts.push(constant(b, &mut known)?);
    }
    Ok(match parts.len() {
        1 => parts.remove(0),
        _ => Expr::call("ops.concatenate", vec![Arg::new(Expr::List(parts))]),
    })
}

/// `ops.take`, or `ops.take_along_axis` behind shared axes.
pub fn gather(b: &mut Builder<'_>, op: &Gather) -> Built {
    let x_shape = b.shape(0)?.clone();
    let index = b.input(1)?;
    let index_shape = b.shape(1)?.clone();
    let x = b.tensor(0)?;
    if op.batch_dims == 0 {
        if let Some(number) = b.graph.tensor(index).filter(|tensor| tensor.rank() == 0).cloned() {
            let number = b.literal(&number)?;
            let mut items = vec![all(); op.axis];
            items.push(number);
            return Ok(x.index(items));
        }
        let index = match b.short_list(1)? {
            Some(list) => list,
            None => b.tensor(1)?,
        };
        return Ok(Expr::call("ops.take", vec![Arg::new(x), Arg::new(index), axis(&[op.axis])]));
    }
    // Shared leading axes: the same number of slices from every element of the batch.
    let index = b.tensor(1)?;
    if b.version == 2 {
        // `tf.gather` knows shared axes, and `take_along_axis` of TensorFlow no symbolic tensors.
        let shared = Arg::keyword("batch_dims", Expr::int("batch_dims", op.batch_dims), None);
        return Ok(Expr::call("ops.take", vec![Arg::new(x), Arg::new(index), axis(&[op.axis]), shared]));
    }
    let own = index_shape.rank() - op.batch_dims;
    if own > 1 {
        return Err(b.problem("picking by several axes of indices behind shared ones can't be said in Keras"));
    }
    let tail = x_shape.rank() - op.axis - 1;
    let between = op.axis - op.batch_dims;
    let mut axes: Vec<usize> = (op.batch_dims..op.batch_dims + between).collect();
    let first = op.batch_dims + between + 1;
    if own == 0 {
        axes.push(op.axis);
    }
    axes.extend(first..first + tail);
    let index = match axes.is_empty() {
        true => index,
        false => Expr::call("ops.expand_dims", vec![Arg::new(index), axis(&axes)]),
    };
    // All backends broadcast the index, but not all along free axes: those have the data's own size.
    let mut repeats = vec![1; x_shape.rank()];
    for at in (op.batch_dims..op.axis).chain(op.axis + 1..x_shape.rank()) {
        repeats[at] = x_shape[at].known().ok_or_else(|| b.unknown("the size of an axis"))?;
    }
    let taken =
        Expr::call("ops.take_along_axis", vec![Arg::new(x), Arg::new(tiled(index, &repeats)), axis(&[op.axis])]);
    Ok(if own == 0 { Expr::call("ops.squeeze", vec![Arg::new(taken), axis(&[op.axis])]) } else { taken })
}

/// Picks by flat positions: those of the index tuples in C order.
pub fn gather_nd(b: &mut Builder<'_>) -> Built {
    let shape = b.shape(0)?.clone();
    let depth = b.shape(1)?.last().and_then(Dim::known).ok_or_else(|| b.unknown("the index's depth"))?;
    if depth == 0 {
        return Err(b.problem("picking by an empty index can't be said in Keras"));
    }
    let own = b.shape(1)?.rank() - 1;
    let mut rows = 1;
    let mut position: Option<Expr> = None;
    let (x, index) = (b.tensor(0)?, b.tensor(1)?);
    for at in (0..depth).rev() {
        let part = index.clone().index(vec![all(); own].into_iter().chain([Expr::int("index", at)]).collect());
        let part = if rows == 1 { part } else { part.binary("*", Expr::int("rows", rows)) };
        position = Some(match position {
            None => part,
            Some(sum) => part.binary("+", sum),
        });
        if at > 0 {
            rows *= shape[at].known().ok_or_else(|| b.unknown("the size of an axis"))?;
        }
    }
    let mut flat = vec![Lit::Int(-1)];
    for dim in &shape[depth..] {
        flat.push(Lit::size(dim.known().ok_or_else(|| b.unknown("the size of an axis"))?));
    }
    let x = if depth > 1 { reshaped(x, Lit::Tuple(flat)) } else { x };
    let position = position.unwrap_or(Expr::slot("index", Lit::Int(0)));
    Ok(Expr::call("ops.take", vec![Arg::new(x), Arg::new(position), axis(&[0])]))
}

/// Compares with the classes: an index outside of them gives a row without a one.
pub fn one_hot(b: &mut Builder<'_>, op: &OneHot) -> Built {
    let rank = b.shape(0)?.rank();
    let dtype = b.dtype(0)?;
    let x = b.tensor(0)?;
    let mut classes = Expr::call(
        "ops.arange",
        vec![
            Arg::or("stop", Expr::int("num_classes", op.depth), Lit::None),
            Arg::keyword("dtype", dtype_lit(dtype), None),
        ],
    );
    if op.axis < rank {
        let shape = (0..=rank).map(|at| if at == op.axis { Lit::Int(-1) } else { Lit::Int(1) }).skip(op.axis).collect();
        classes = reshaped(classes, Lit::Tuple(shape));
    }
    let x = Expr::call("ops.expand_dims", vec![Arg::new(x), axis(&[op.axis])]);
    let hot = Expr::call("ops.equal", vec![Arg::new(x), Arg::new(classes)]);
    if (op.on, op.off) == (1.0, 0.0) {
        return Ok(if op.dtype == DType::Bool { hot } else { cast_to(hot, op.dtype) });
    }
    let number =
        |value: f32| Expr::slot("value", if op.dtype.is_int() { Lit::Int(value as i64) } else { Lit::float(value) });
    Ok(cast_to(
        Expr::call("ops.where", vec![Arg::new(hot), Arg::new(number(op.on)), Arg::new(number(op.off))]),
        op.dtype,
    ))
}

/// `ops.flip`.
pub fn reverse(b: &mut Builder<'_>, op: &Reverse) -> Built {
    let x = b.tensor(0)?;
    Ok(Expr::call("ops.flip", vec![Arg::new(x), axis(&op.axes)]))
}

/// `layers.UpSampling2D` for whole factors, else products with a matrix per axis.
pub fn resize(b: &mut Builder<'_>, op: &Resize) -> Built {
    check_layout(b, op.layout)?;
    let n = op.size.len();
    let sizes = b.sizes(0, 1..n + 1)?;
    let x = b.tensor(0)?;
    if sizes == op.size && op.scale.is_empty() {
        return Ok(x);
    }
    let whole = op.scale.is_empty() && sizes.iter().zip(&op.size).all(|(&from, &to)| from > 0 && to % from == 0);
    let factors: Vec<usize> = sizes.iter().zip(&op.size).map(|(&from, &to)| to / from.max(1)).collect();
    let nearest = op.mode == ResizeMode::Nearest && op.coordinates != Coordinates::AlignCorners;
    let bilinear = op.mode == ResizeMode::Linear && op.coordinates == Coordinates::HalfPixel && n == 2;
    if whole && (nearest || bilinear) {
        let size = if n == 1 { Lit::size(factors[0]) } else { Lit::sizes(&factors) };
        let mut args = vec![Arg::or("size", Expr::slot("size", size), Lit::Int(2))];
        if bilinear {
            let mode = Expr::slot("interpolation", Lit::Str("bilinear".to_owned()));
            args.push(Arg::keyword("interpolation", mode, None));
        }
        return Ok(call_layer(&format!("UpSampling{n}D"), args, x));
    }
    // Any resizing is linear along every axis.
    let mut y = x;
    for (i, (&from, &to)) in sizes.iter().zip(&op.size).enumerate() {
        if from == to && op.scale.is_empty() {
            continue;
        }
        if op.mode == ResizeMode::Nearest {
            let weights = op.matrix(i, from).map_err(|message| b.problem(message))?;
            let row = |i: usize| weights[i * from..(i + 1) * from].iter().position(|&w| w == 1.0).unwrap_or(0);
            let indices = Lit::List((0..to).map(|i| Lit::size(row(i))).collect());
            let indices = Arg::or("indices", Expr::slot("indices", indices), Lit::None);
            y = Expr::call("ops.take", vec![Arg::new(y), indices, axis(&[i + 1])]);
            continue;
        }
        let tensor = Tensor::from_f32(&[to, from], &op.matrix(i, from).map_err(|message| b.problem(message))?);
        let role = ["rows", "columns", "planes"][i];
        let matrix = b.constant(role, &tensor, "", false)?;
        let letters: String = "nxyz".chars().take(n + 1).collect();
        let at = letters.chars().nth(i + 1).unwrap_or('x');
        let equation = format!("{letters}c,k{at}->{}c", letters.replace(at, "k"));
        let equation = Arg::or("subscripts", Expr::slot("equation", Lit::Str(equation)), Lit::None);
        y = Expr::call("ops.einsum", vec![equation, Arg::new(y), Arg::new(matrix)]);
    }
    Ok(y)
}

/// Blocks move into the channels: by reshapes, whose order is exact in all backends.
pub fn space_to_depth(b: &mut Builder<'_>, op: &SpaceToDepth) -> Built {
    check_layout(b, op.layout)?;
    let sizes = b.sizes(0, 1..4)?;
    let [height, width, channels] = [sizes[0], sizes[1], sizes[2]];
    let x = b.tensor(0)?;
    let k = op.block;
    let apart = layer_reshape(x, &[height / k, k, width / k, k, channels]);
    let order: &[usize] = if op.channel_major { &[1, 3, 5, 2, 4] } else { &[1, 3, 2, 4, 5] };
    Ok(layer_reshape(permuted(apart, order), &[height / k, width / k, channels * k * k]))
}

/// Channels move into blocks.
pub fn depth_to_space(b: &mut Builder<'_>, op: &DepthToSpace) -> Built {
    check_layout(b, op.layout)?;
    let sizes = b.sizes(0, 1..4)?;
    let [height, width, channels] = [sizes[0], sizes[1], sizes[2]];
    let x = b.tensor(0)?;
    let k = op.block;
    let depth = channels / (k * k).max(1);
    let (apart, order): (Vec<usize>, &[usize]) = match op.channel_major {
        true => (vec![height, width, depth, k, k], &[1, 4, 2, 5, 3]),
        false => (vec![height, width, k, k, depth], &[1, 3, 2, 4, 5]),
    };
    Ok(layer_reshape(permuted(layer_reshape(x, &apart), order), &[height * k, width * k, depth]))
}

fn layer_reshape(x: Expr, shape: &[usize]) -> Expr {
    let shape = Arg::or("target_shape", shape_of(Lit::tuple(shape)), Lit::None);
    call_layer("Reshape", vec![shape], x)
}

fn permuted(x: Expr, dims: &[usize]) -> Expr {
    let dims = Arg::or("dims", Expr::slot("dims", Lit::tuple(dims)), Lit::None);
    call_layer("Permute", vec![dims], x)
}
