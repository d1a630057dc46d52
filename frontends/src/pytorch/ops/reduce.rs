//! Reductions, positions of extremes, sorting.

use modelport_ir::op::{Binary, ReduceKind, Unary};
use modelport_ir::{DType, Result, Value, op};

use super::activation::real;
use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

const AXES: &str = "self dim=None keepdim=False dtype=None";
const VARIANCE: &str = "self dim=None unbiased=True keepdim=False correction=None";

pub const OPS: &[Entry] = &[
    op("sum", AXES, |call| {
        let x = call.value("self")?;
        let dtype = call.lower.graph.info(x).dtype;
        let wanted = super::math::dtype(&call.arg("dtype"));
        let x = call.cast(x, wanted.unwrap_or(if dtype.is_float() { dtype } else { DType::Int64 }))?;
        reduce(call, ReduceKind::Sum, x)
    }),
    op("mean", AXES, |call| {
        let x = real(call, "self")?;
        reduce(call, ReduceKind::Mean, x)
    }),
    op("amax", "self dim=[] keepdim=False", |call| keeping(call, ReduceKind::Max)),
    op("amin", "self dim=[] keepdim=False", |call| keeping(call, ReduceKind::Min)),
    op("max", "self dim=None keepdim=False other=None", |call| extreme(call, op::Extreme::Max)),
    op("min", "self dim=None keepdim=False other=None", |call| extreme(call, op::Extreme::Min)),
    op("prod", AXES, |call| keeping(call, ReduceKind::Prod)),
    op("all", "self dim=None keepdim=False", |call| truths(call, ReduceKind::All)),
    op("any", "self dim=None keepdim=False", |call| truths(call, ReduceKind::Any)),
    op("logsumexp", "self dim keepdim=False", |call| keeping(call, ReduceKind::LogSumExp)),
    op("argmax", "self dim=None keepdim=False", |call| position(call, op::Extreme::Max)),
    op("argmin", "self dim=None keepdim=False", |call| position(call, op::Extreme::Min)),
    op("var", VARIANCE, |call| Ok(variance(call, false)?.0.into())),
    op("std", VARIANCE, |call| Ok(variance(call, true)?.0.into())),
    op("var_mean", VARIANCE, |call| {
        let (variance, mean) = variance(call, false)?;
        Ok(vec![variance.into(), mean.into()].into())
    }),
    op("std_mean", VARIANCE, |call| {
        let (deviation, mean) = variance(call, true)?;
        Ok(vec![deviation.into(), mean.into()].into())
    }),
    op("norm", "self p=2 dim=None keepdim=False dtype=None", |call| norm(call, "p")),
    op("linalg_vector_norm", "self ord=2 dim=None keepdim=False dtype=None", |call| norm(call, "ord")),
    op("topk", "self k dim=-1 largest=True sorted=True", |call| {
        let count = call.size("k")?;
        let largest = call.bool("largest")?;
        sorted(call, count, largest)
    }),
    op("sort", "self dim=-1 descending=False stable=None", |call| {
        let descending = call.bool("descending")?;
        let shape = call.shape("self")?;
        let axis = call.axis("dim", shape.rank())?;
        let count = call.known(&shape, axis, "the length of the axis to sort")?;
        sorted(call, count, descending)
    }),
    op("argsort", "self dim=-1 descending=False stable=None", |call| {
        let descending = call.bool("descending")?;
        let sorted = call.call("sort", &[call.arg("self"), call.arg("dim"), descending.into()])?;
        Ok(sorted.list().and_then(|parts| parts.get(1)).cloned().unwrap_or_default())
    }),
    op("cumsum", "self dim dtype=None", |call| {
        let x = call.value("self")?;
        let info = call.lower.graph.info(x);
        let (dtype, rank) = (info.dtype, info.shape.rank());
        let wanted = super::math::dtype(&call.arg("dtype"));
        let x = call.cast(x, wanted.unwrap_or(if dtype.is_float() { dtype } else { DType::Int64 }))?;
        let axis = call.axis("dim", rank)?;
        Ok(call.add(op::CumSum { axis, exclusive: false, reverse: false }, &[x])?.into())
    }),
];

fn sorted_axes(call: &Call, rank: usize) -> Result<Vec<usize>> {
    if rank == 0 {
        return Ok(Vec::new());
    }
    let mut axes = call.axes("dim", rank)?;
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

fn reduce(call: &mut Call, kind: ReduceKind, x: Value) -> Result<Arg> {
    let axes = sorted_axes(call, call.lower.graph.shape(x).rank())?;
    let keep_dims = call.bool("keepdim")?;
    Ok(call.add(op::Reduce { kind, axes, keep_dims }, &[x])?.into())
}

fn keeping(call: &mut Call, kind: ReduceKind) -> Result<Arg> {
    let x = call.value("self")?;
    reduce(call, kind, x)
}

fn truths(call: &mut Call, kind: ReduceKind) -> Result<Arg> {
    let x = call.value("self")?;
    let x = super::math::truth(call, x)?;
    reduce(call, kind, x)
}

/// `max(x)`, `max(x, other)` and `max(x, dim)`, which also gives positions.
fn extreme(call: &mut Call, which: op::Extreme) -> Result<Arg> {
    let (name, kind) = match which {
        op::Extreme::Max => ("maximum", ReduceKind::Max),
        op::Extreme::Min => ("minimum", ReduceKind::Min),
    };
    let x = call.arg("self");
    let other = [call.arg("other"), call.arg("dim")].into_iter().find(Arg::is_tensor);
    if let Some(other) = other.or_else(|| (!x.is_tensor()).then(|| call.arg("dim"))) {
        return call.call(name, &[x, other]);
    }
    let values = keeping(call, kind)?;
    if !call.has("dim") {
        return Ok(values);
    }
    let indices = position(call, which)?;
    Ok(vec![values, indices].into())
}

fn position(call: &mut Call, kind: op::Extreme) -> Result<Arg> {
    let mut x = call.value("self")?;
    let shape = call.lower.graph.shape(x).clone();
    let mut axis = 0;
    if call.has("dim") {
        axis = call.axis("dim", shape.rank())?;
    } else if shape.rank() != 1 {
        x = call.add(op::Reshape { shape: modelport_ir::Shape(vec![shape.numel()]) }, &[x])?;
    }
    let keep_dims = call.bool("keepdim")? && call.has("dim");
    Ok(call.add(op::ArgReduce { kind, axis, keep_dims, dtype: DType::Int64 }, &[x])?.into())
}

/// Variance or deviation, and the mean.
fn variance(call: &mut Call, root: bool) -> Result<(Value, Value)> {
    let x = real(call, "self")?;
    let shape = call.lower.graph.shape(x).clone();
    // `var(x, unbiased)` has its truth value where others have the axes.
    let flag = match call.arg("dim") {
        Arg::Bool(unbiased) => Some(unbiased),
        _ => None,
    };
    let axes = if flag.is_some() { (0..shape.rank()).collect() } else { sorted_axes(call, shape.rank())? };
    let keep_dims = call.bool("keepdim")?;
    let correction = match call.arg("correction").float() {
        Some(correction) => correction,
        None if flag.unwrap_or(call.bool("unbiased")?) => 1.0,
        None => 0.0,
    };
    let mean = call.add(op::Reduce { kind: ReduceKind::Mean, axes: axes.clone(), keep_dims: true }, &[x])?;
    let difference = call.add(Binary::Sub, &[x, mean])?;
    let square = call.add(Unary::Square, &[difference])?;
    let mut y = call.add(op::Reduce { kind: ReduceKind::Mean, axes: axes.clone(), keep_dims }, &[square])?;
    if correction != 0.0 {
        let mut count = 1.0;
        for &axis in &axes {
            count *= call.known(&shape, axis, "the number of elements")? as f64;
        }
        let factor = call.scalar(DType::Float32, count / (count - correction).max(0.0));
        y = call.add(Binary::Mul, &[y, factor])?;
    }
    if root {
        y = call.add(Unary::Sqrt, &[y])?;
    }
    let mean = if keep_dims { mean } else { call.add(op::Squeeze { axes }, &[mean])? };
    Ok((y, mean))
}

fn norm(call: &mut Call, name: &str) -> Result<Arg> {
    let x = call.value("self")?;
    let p = match call.arg(name) {
        Arg::Str(text) if &*text == "fro" => 2.0,
        Arg::None => 2.0,
        arg => arg.float().ok_or_else(|| call.fail(format!("the norm '{name}' is not known")))?,
    };
    if p == 2.0 {
        return reduce(call, ReduceKind::L2, x);
    }
    let size = call.add(Unary::Abs, &[x])?;
    if p == 1.0 {
        return reduce(call, ReduceKind::Sum, size);
    }
    if p.is_infinite() {
        return reduce(call, if p > 0.0 { ReduceKind::Max } else { ReduceKind::Min }, size);
    }
    let exponent = call.scalar(DType::Float32, p);
    let powers = call.add(Binary::Pow, &[size, exponent])?;
    let sum = reduce(call, ReduceKind::Sum, powers)?;
    call.call("pow", &[sum, Arg::Float(1.0 / p)])
}

/// The `count` first elements of an axis in descending or ascending order, and their positions.
fn sorted(call: &mut Call, count: usize, descending: bool) -> Result<Arg> {
    let mut x = call.value("self")?;
    let rank = call.lower.graph.shape(x).rank();
    let axis = call.axis("dim", rank)?;
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(axis, rank.saturating_sub(1));
    let moved = axis + 1 != rank;
    if moved {
        x = call.add(op::Transpose { perm: perm.clone() }, &[x])?;
    }
    if !descending {
        x = call.add(Unary::Neg, &[x])?;
    }
    let top = call.add(op::TopK { k: count, index_dtype: DType::Int64 }, &[x])?;
    let (mut values, mut indices) = (top, Value { node: top.node, output: 1 });
    if !descending {
        values = call.add(Unary::Neg, &[values])?;
    }
    if moved {
        values = call.add(op::Transpose { perm: perm.clone() }, &[values])?;
        indices = call.add(op::Transpose { perm }, &[indices])?;
    }
    Ok(vec![values.into(), indices.into()].into())
}
