//! Activations.

use modelport_ir::{Result, op};

use super::call::one;
use super::{Call, Family};
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("Relu", |call| unary(call, op::Unary::Relu)),
    ("Relu6", |call| unary(call, op::Unary::Relu6)),
    ("Sigmoid", |call| unary(call, op::Unary::Sigmoid)),
    ("Tanh", |call| unary(call, op::Unary::Tanh)),
    ("Softplus", |call| unary(call, op::Unary::Softplus)),
    ("Softsign", |call| unary(call, op::Unary::Softsign)),
    ("Selu", |call| unary(call, op::Unary::Selu)),
    ("LeakyRelu", leaky_relu),
    ("Elu", elu),
    ("Softmax", softmax),
    ("LogSoftmax", log_softmax),
];

/// A function of one element.
pub fn unary(call: &mut Call, function: op::Unary) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    Ok(one(call.add(function, &[x])?))
}

fn leaky_relu(call: &mut Call) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    let alpha = call.node.float("alpha").unwrap_or(0.2);
    Ok(one(call.add(op::LeakyRelu { alpha }, &[x])?))
}

fn elu(call: &mut Call) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    Ok(one(call.add(op::Elu { alpha: 1.0 }, &[x])?))
}

fn softmax(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let axis = call.axis(-1, shape.rank())?;
    Ok(one(call.add(op::Softmax { axis }, &[x])?))
}

fn log_softmax(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let axis = call.axis(-1, shape.rank())?;
    Ok(one(call.add(op::LogSoftmax { axis }, &[x])?))
}
