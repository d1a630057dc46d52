//! Pooling.

use modelport_ir::op::{AdaptivePool, Op, Pool, PoolKind};
use modelport_ir::{Graph, Tensor, Value};

use super::build::{Builder, Built, call_layer, pad_lit};
use super::layers::{check_layout, is_same, zero_padding};
use crate::python::{Arg, Expr, Lit};

/// Loses every maximum, and unlike infinity it has a place in JSON. Not the very lowest float32: its shortest decimal is
/// below it, and so no float32 for PyTorch.
const LOWEST: f32 = f32::MIN.next_up();

/// The function of generated code for averages that leave out padding, less its rank: `average_pool2d`.
pub const AVERAGE_POOL: &str = "average_pool";

/// `layers.MaxPooling2D` and `layers.AveragePooling2D`, with padding in front where it is not `same`.
pub fn pool(b: &mut Builder<'_>, op: &Pool) -> Built {
    check_layout(b, op.layout)?;
    let input = b.shape(0)?.clone();
    let output = b.output_shape(0).clone();
    let n = input.rank() - 2;
    let reach: Vec<usize> = (0..n).map(|i| (op.kernel[i].saturating_sub(1)) * op.dilations[i] + 1).collect();
    // What windows that are rounded up reach beyond the padding.
    let mut pads = op.pads.0.clone();
    if op.ceil_mode {
        let sizes = b.sizes(0, 1..n + 1)?;
        for i in 0..n {
            let outputs = output[i + 1].known().ok_or_else(|| b.unknown("the size of the output"))?;
            let end = outputs.saturating_sub(1) * op.strides[i] + reach[i];
            pads[i].1 = end.saturating_sub(sizes[i] + pads[i].0);
        }
    }
    let is_zero = pads.iter().all(|&pad| pad == (0, 0));
    let pads = modelport_ir::op::Pads(pads);
    if op.dilations.iter().any(|&d| d > 1) {
        return dilated(b, op, &pads, &reach);
    }
    let same = !is_zero && is_same(b, &op.kernel, &op.strides, &op.dilations, &pads);
    let kind = if op.kind == PoolKind::Max { "Max" } else { "Average" };
    let layer = |same: bool, x: Expr| {
        let size = Lit::sizes(&op.kernel);
        let strides = Lit::sizes(&op.strides);
        let padding = Lit::Str(if same { "same" } else { "valid" }.to_owned());
        let args = vec![
            Arg::or("pool_size", Expr::slot("pool_size", size.clone()), Lit::None),
            Arg::or("strides", Expr::slot("strides", strides), size),
            Arg::keyword("padding", Expr::slot("padding", padding), Some(Lit::Str("valid".to_owned()))),
        ];
        call_layer(&format!("{kind}Pooling{n}D"), args, x)
    };
    let x = b.tensor(0)?;
    if is_zero {
        return Ok(layer(false, x));
    }
    match op.kind {
        PoolKind::Max if same => Ok(layer(true, x)),
        PoolKind::Max => {
            let source = b.input(0)?;
            Ok(layer(false, lowest_padding(b.graph, source, &pads.0, x)))
        }
        // Not all backends leave out padding with `same` where its sides differ. With strides that depends on the size,
        // and blocks that are alike but for that should stay so.
        PoolKind::Avg if !op.count_include_pad && same && is_even(op, &pads) => Ok(layer(true, x)),
        PoolKind::Avg if !op.count_include_pad => {
            let pad = Expr::slot("padding", pad_lit(&pads.0));
            let size = Arg::or("pool_size", Expr::slot("pool_size", Lit::sizes(&op.kernel)), Lit::None);
            let strides = Arg::or("strides", Expr::slot("strides", Lit::sizes(&op.strides)), Lit::None);
            let args = vec![Arg::new(x), size, strides, Arg::or("padding", pad, Lit::None)];
            Ok(Expr::call(&format!("{AVERAGE_POOL}{n}d"), args))
        }
        PoolKind::Avg if !op.ceil_mode => Ok(layer(false, zero_padding(&pads.0, x))),
        PoolKind::Avg => {
            let y = layer(false, zero_padding(&pads.0, x));
            weighted(b, op, y)
        }
    }
}

/// Whether padding is the same on both sides, whatever the size.
fn is_even(op: &Pool, pads: &modelport_ir::op::Pads) -> bool {
    op.strides.iter().all(|&stride| stride == 1) && pads.0.iter().all(|pad| pad.0 == pad.1)
}

/// Padding that never wins a maximum: zeros where nothing is below zero.
fn lowest_padding(graph: &Graph, source: Value, pads: &[(usize, usize)], x: Expr) -> Expr {
    if is_nonnegative(graph, source, 8) {
        return zero_padding(pads, x);
    }
    pad_with(pads, x, LOWEST)
}

fn pad_with(pads: &[(usize, usize)], x: Expr, value: f32) -> Expr {
    let pair = |&(before, after): &(usize, usize)| Lit::tuple(&[before, after]);
    let width = std::iter::once(&(0, 0)).chain(pads).chain([&(0, 0)]).map(pair).collect();
    Expr::call(
        "ops.pad",
        vec![
            Arg::new(x),
            Arg::or("pad_width", Expr::slot("pad_width", Lit::Tuple(width)), Lit::None),
            Arg::keyword("constant_values", Expr::slot("value", Lit::float(value)), None),
        ],
    )
}

/// Whether all elements are known to be at least zero.
fn is_nonnegative(graph: &Graph, value: Value, depth: usize) -> bool {
    use modelport_ir::op::{Binary, Unary};
    let Some(depth) = depth.checked_sub(1) else { return false };
    let all = |slots: &[Option<Value>]| slots.iter().all(|v| v.is_some_and(|v| is_nonnegative(graph, v, depth)));
    let inputs = graph.inputs_of(value.node);
    let first = inputs.first().copied().flatten();
    match graph.op(value.node) {
        Op::Unary(Unary::Relu | Unary::Relu6 | Unary::Sigmoid | Unary::Softplus | Unary::Exp | Unary::Square) => true,
        Op::Unary(Unary::Abs | Unary::Sqrt | Unary::HardSigmoid) | Op::Softmax(_) => true,
        Op::Clip(clip) => clip.min.is_some_and(|min| min >= 0.0),
        Op::Pool(_) | Op::Dropout(_) | Op::Lrn(_) => first.is_some_and(|v| is_nonnegative(graph, v, depth)),
        Op::Concat(_) | Op::Binary(Binary::Add | Binary::Mul) => all(&inputs),
        _ => false,
    }
}

/// An average over zeros, weighted by how much of each window counts.
fn weighted(b: &mut Builder<'_>, op: &Pool, pooled: Expr) -> Built {
    let n = op.kernel.len();
    let sizes = b.sizes(0, 1..n + 1)?;
    let output = b.output_shape(0).clone();
    let mut weights = vec![1f32];
    let mut shape = vec![1];
    for (axis, size) in sizes.into_iter().enumerate() {
        let outputs = output[axis + 1].known().ok_or_else(|| b.unknown("the size of the output"))?;
        let ((before, after), kernel) = (op.pads.0[axis], op.kernel[axis]);
        // The padding that was asked for counts, what windows reach beyond it does not.
        let to = before + size + after;
        let counted = |i: usize| {
            let start = i * op.strides[axis];
            (start + kernel).min(to).saturating_sub(start).max(1)
        };
        let weight = |w: &f32, i: usize| w * kernel as f32 / counted(i) as f32;
        weights = weights.iter().flat_map(|w| (0..outputs).map(move |i| weight(w, i))).collect();
        shape.push(outputs);
    }
    shape.push(1);
    if weights.iter().all(|&w| w == 1.0) {
        return Ok(pooled);
    }
    let coverage = b.constant("coverage", &Tensor::from_f32(&shape, &weights), "", false)?;
    b.no_module();
    Ok(pooled.binary("*", coverage))
}

/// Windows with gaps, one axis after the other: the elements that windows have at one place are a strided slice.
fn dilated(b: &mut Builder<'_>, op: &Pool, pads: &modelport_ir::op::Pads, reach: &[usize]) -> Built {
    let n = op.kernel.len();
    if op.kind == PoolKind::Avg && !op.count_include_pad && !pads.is_zero() {
        return Err(b.problem("an average pool with dilation that leaves out padding can't be said in Keras"));
    }
    let sizes = b.sizes(0, 1..n + 1)?;
    let mut x = b.tensor(0)?;
    if !pads.is_zero() {
        x = pad_with(&pads.0, x, if op.kind == PoolKind::Max { LOWEST } else { 0.0 });
    }
    for (axis, size) in sizes.into_iter().enumerate() {
        let size = size + pads.0[axis].0 + pads.0[axis].1;
        let windows = size.saturating_sub(reach[axis]) / op.strides[axis] + 1;
        let parts = (0..op.kernel[axis]).map(|i| {
            let first = i * op.dilations[axis];
            let end = first + (windows - 1) * op.strides[axis] + 1;
            let stride = (op.strides[axis] > 1).then(|| Box::new(Expr::int("stride", op.strides[axis])));
            let bound = |value: usize| Some(Box::new(Expr::int("index", value)));
            let range = Expr::Range(bound(first), bound(end), stride);
            let mut items = vec![Expr::name(":"); axis + 1];
            items.push(range);
            x.clone().index(items)
        });
        let stacked = Expr::call("ops.stack", vec![Arg::new(Expr::List(parts.collect()))]);
        let function = if op.kind == PoolKind::Max { "ops.max" } else { "ops.mean" };
        x = Expr::call(function, vec![Arg::new(stacked), Arg::keyword("axis", Expr::int("axis", 0), None)]);
    }
    Ok(x)
}

/// Pooling to a size: an ordinary pool where the windows are alike, else one axis after the other.
pub fn adaptive_pool(b: &mut Builder<'_>, op: &AdaptivePool) -> Built {
    check_layout(b, op.layout)?;
    let n = op.output_size.len();
    let average = op.kind == PoolKind::Avg;
    let x = b.tensor(0)?;
    if op.output_size.iter().all(|&size| size == 1) {
        let kind = if average { "Average" } else { "Max" };
        let keep = Arg::keyword("keepdims", Expr::slot("keepdims", Lit::Bool(true)), Some(Lit::Bool(false)));
        return Ok(call_layer(&format!("Global{kind}Pooling{n}D"), vec![keep], x));
    }
    let sizes = b.sizes(0, 1..n + 1)?;
    if sizes.iter().zip(&op.output_size).all(|(size, out)| *out > 0 && size % out == 0) {
        if sizes == op.output_size {
            return Ok(x);
        }
        let window: Vec<usize> = sizes.iter().zip(&op.output_size).map(|(size, out)| size / out).collect();
        let kind = if average { "Average" } else { "Max" };
        let size = Arg::or("pool_size", Expr::slot("pool_size", Lit::sizes(&window)), Lit::None);
        return Ok(call_layer(&format!("{kind}Pooling{n}D"), vec![size], x));
    }
    let mut y = x;
    for (axis, (size, out)) in sizes.into_iter().zip(op.output_size.iter().copied()).enumerate() {
        let parts = (0..out).map(|i| {
            let bound = |value: usize| Some(Box::new(Expr::int("index", value)));
            let range = Expr::Range(bound(i * size / out), bound(((i + 1) * size).div_ceil(out)), None);
            let mut items = vec![Expr::name(":"); axis + 1];
            items.push(range);
            let function = if average { "ops.mean" } else { "ops.max" };
            let axis = Arg::keyword("axis", Expr::int("axis", axis + 1), None);
            Expr::call(function, vec![Arg::new(y.clone().index(items)), axis])
        });
        let axis = Arg::keyword("axis", Expr::int("axis", axis + 1), Some(Lit::Int(0)));
        y = Expr::call("ops.stack", vec![Arg::new(Expr::List(parts.collect())), axis]);
    }
    Ok(y)
}
