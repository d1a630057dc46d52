//! Where values come from: constants, shapes as data, fills, ranges, random numbers, flags.

use modelport_ir::{DType, Dim, Result, Shape, op};

use super::call::one;
use super::{Call, Family};
use crate::symbolic::{Elem, Sizes};
use crate::tensorflow::graphdef::{Attr, TensorValue};
use crate::tensorflow::lower::{Entry, Origin};

pub const OPS: Family = &[
    ("Const", constant),
    // Inputs never come here; these are training flags.
    ("Placeholder", flag),
    ("PlaceholderV2", flag),
    ("PlaceholderWithDefault", flag),
    ("Shape", sizes),
    ("ShapeN", sizes),
    ("Size", sizes),
    ("Rank", sizes),
    ("Fill", fill),
    ("OnesLike", |call| like(call, 1.0)),
    ("ZerosLike", |call| like(call, 0.0)),
    ("Range", range),
    ("LinSpace", computed),
    ("BroadcastArgs", computed),
    ("InvertPermutation", computed),
    ("ListDiff", computed),
    ("ScatterNd", computed),
    ("Where", computed),
    ("RandomUniform", random),
    ("RandomStandardNormal", random),
    ("TruncatedNormal", random),
    ("StatelessRandomUniform", random),
    ("StatelessRandomUniformV2", random),
    // Made by `training`: a moving average in the shape of the batch's statistic.
    ("_Statistic", statistic),
];

fn constant(call: &mut Call) -> Result<Vec<Entry>> {
    match call.node.attrs.get("value") {
        Some(Attr::Tensor(TensorValue::Numbers(tensor))) => {
            let name = call.node.name.clone();
            let variable = tensor.dtype().is_float() && call.lower.is_read(&name);
            Ok(vec![Entry::Constant(tensor.clone(), Origin { name, variable })])
        }
        Some(Attr::Tensor(_)) => Ok(vec![Entry::Other]),
        _ => Err(call.fail("has no value")),
    }
}

fn flag(call: &mut Call) -> Result<Vec<Entry>> {
    let training = i64::from(call.lower.training());
    Ok(vec![Entry::Sizes(Sizes::scalar(DType::Bool, Elem::Int(training), None))])
}

/// Shapes are evaluated before it comes to a translation, unless their input has no shape.
fn sizes(call: &mut Call) -> Result<Vec<Entry>> {
    call.shape(0)?;
    Err(call.fail_sizes("the shape is not known"))
}

/// Operators that are evaluated when all their inputs are known, and only then.
fn computed(call: &mut Call) -> Result<Vec<Entry>> {
    Err(call.fail("is only supported for inputs that are known at conversion time"))
}

fn fill(call: &mut Call) -> Result<Vec<Entry>> {
    let dims = call.sizes(0, "the shape")?;
    let shape = call.dims(&dims.list());
    let dtype = call.dtype(1)?;
    let like = call.lower.like(&shape, dims.like)?;
    match call.number(1) {
        Some(value) => {
            let fill = op::Fill { shape, value: value as f32, dtype };
            Ok(one(call.add_with(fill, &[like])?))
        }
        None => {
            let value = call.data(1)?;
            Ok(one(call.add_with(op::Expand { shape }, &[Some(value), like])?))
        }
    }
}

fn like(call: &mut Call, value: f32) -> Result<Vec<Entry>> {
    let shape = call.shape(0)?;
    let dtype = call.dtype(0)?;
    if !shape.is_determined() {
        // Sizes that nothing else tells: take them from the value itself.
        let x = call.data(0)?;
        let zeros = call.helper("zeros", op::Binary::Sub, &[x, x])?;
        let value = call.scalar("value", f64::from(value), dtype);
        return Ok(one(call.add(op::Binary::Add, &[zeros, value])?));
    }
    let x = if shape.sizes().is_none() { Some(call.data(0)?) } else { None };
    let like = call.lower.like(&shape, x)?;
    Ok(one(call.add_with(op::Fill { shape, value, dtype }, &[like])?))
}

/// A range to a free size: all others are evaluated.
fn range(call: &mut Call) -> Result<Vec<Entry>> {
    let limit = call.sizes(1, "the limit")?;
    let (start, delta) = (call.number(0), call.number(2));
    let dim = limit.elems.first().map_or(Dim::Unknown, Elem::dim);
    if start != Some(0.0) || delta != Some(1.0) || dim == Dim::Unknown {
        return Err(call.fail_sizes("a range to a size that is not known must start at 0 and have step 1"));
    }
    let like = call.lower.like(&Shape(vec![dim.clone()]), limit.like)?;
    let dtype = call.dtype(1)?;
    Ok(one(call.add_with(op::Range { start: 0, limit: dim, delta: 1, dtype }, &[like])?))
}

/// Random numbers stay as they are: a pass takes dropout, and what is left is an error.
fn random(call: &mut Call) -> Result<Vec<Entry>> {
    let dims = call.sizes(0, "the shape")?;
    let shape = call.dims(&dims.list());
    let dtype = call.node.dtype("dtype").unwrap_or(DType::Float32);
    // Every uniform distribution is the same for a dropout.
    let op = if call.node.op.contains("RandomUniform") { "RandomUniform" } else { &call.node.op };
    let like = if shape.is_determined() { call.lower.like(&shape, dims.like)? } else { dims.like };
    Ok(one(call.add_with(op::Foreign { op: op.to_owned(), dtype, shape }, &[like])?))
}

fn statistic(call: &mut Call) -> Result<Vec<Entry>> {
    let shape = call.shape(1)?;
    let Some(sizes) = shape.sizes() else { return Err(call.fail_sizes("the shape of the statistic is not known")) };
    Ok(one(call.reshaped(0, &sizes)?))
}
