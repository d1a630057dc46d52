//! Reductions, positions of extremes, the largest.

use modelport_ir::op::{Binary, Extreme, ReduceKind, Unary};
use modelport_ir::{DType, Result, Value, op};

use super::call::one;
use super::{Call, Family};
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("All", |call| reduce(call, ReduceKind::All)),
    ("Any", |call| reduce(call, ReduceKind::Any)),
    ("EuclideanNorm", |call| reduce(call, ReduceKind::L2)),
    ("Max", |call| reduce(call, ReduceKind::Max)),
    ("Mean", |call| reduce(call, ReduceKind::Mean)),
    ("Min", |call| reduce(call, ReduceKind::Min)),
    ("Prod", |call| reduce(call, ReduceKind::Prod)),
    ("Sum", |call| reduce(call, ReduceKind::Sum)),
    ("ArgMax", |call| arg_reduce(call, Extreme::Max)),
    ("ArgMin", |call| arg_reduce(call, Extreme::Min)),
    ("L2Loss", l2_loss),
    ("TopK", top_k),
    ("TopKV2", top_k),
    ("InTopK", in_top_k),
    ("InTopKV2", in_top_k),
];

fn reduce(call: &mut Call, kind: ReduceKind) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let axes = call.ints(1, "the axes")?;
    let axes = call.axes(&axes, shape.rank())?;
    if axes.is_empty() {
        return Ok(one(x));
    }
    let keep_dims = call.node.flag("keep_dims");
    Ok(one(call.add(op::Reduce { kind, axes, keep_dims }, &[x])?))
}

fn arg_reduce(call: &mut Call, kind: Extreme) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let axis = if call.inputs.len() > 1 { call.int(1, "the axis")? } else { 0 };
    let axis = call.axis(axis, shape.rank())?;
    let dtype = call.node.dtype("output_type").unwrap_or(DType::Int64);
    Ok(one(call.add(op::ArgReduce { kind, axis, keep_dims: false, dtype }, &[x])?))
}

/// Half the sum of squares.
fn l2_loss(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let squares = call.helper("squares", Unary::Square, &[x])?;
    let axes = (0..shape.rank()).collect();
    let sum = call.helper("sum", op::Reduce { kind: ReduceKind::Sum, axes, keep_dims: false }, &[squares])?;
    let dtype = call.dtype(0)?;
    let half = call.scalar("half", 0.5, dtype);
    Ok(one(call.add(Binary::Mul, &[sum, half])?))
}

fn top_k(call: &mut Call) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    let k = if call.inputs.len() > 1 { call.int(1, "k")? } else { call.node.int("k").unwrap_or(1) };
    let Ok(k) = usize::try_from(k) else { return Err(call.fail(format!("k is {k}"))) };
    let index_dtype = call.node.dtype("index_type").unwrap_or(DType::Int32);
    let top = call.add(op::TopK { k, index_dtype }, &[x])?;
    Ok(vec![top.into(), Value { node: top.node, output: 1 }.into()])
}

/// Whether the score of a class is among the k largest: not smaller than the kth.
fn in_top_k(call: &mut Call) -> Result<Vec<Entry>> {
    let ((scores, shape), targets) = (call.shaped(0)?, call.data(1)?);
    let k = if call.inputs.len() > 2 { call.int(2, "k")? } else { call.node.int("k").unwrap_or(1) };
    let classes = call.known(&shape, 1, "the number of classes")?;
    let Some(k) = usize::try_from(k).ok().filter(|&k| k > 0) else { return Err(call.fail(format!("k is {k}"))) };
    let k = k.min(classes);
    let top = call.helper("top", op::TopK { k, index_dtype: DType::Int32 }, &[scores])?;
    let mut last = op::Slice::all(2);
    if let Some(begin) = last.begins.last_mut() {
        *begin = k as i64 - 1;
    }
    let kth = call.helper("kth", last, &[top])?;
    let places = call.helper("places", op::Unsqueeze { axes: vec![1] }, &[targets])?;
    let score = call.helper("score", op::Gather { axis: 1, batch_dims: 1 }, &[scores, places])?;
    let inside = call.helper("inside", Binary::GreaterEqual, &[score, kth])?;
    Ok(one(call.add(op::Squeeze { axes: vec![1] }, &[inside])?))
}
