//! Normalisation.

use modelport_ir::{Dim, Layout, Result, Value, op};

use super::call::one;
use super::{Call, Family};
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("FusedBatchNorm", fused),
    ("FusedBatchNormV2", fused),
    ("FusedBatchNormV3", fused),
    ("BatchNormWithGlobalNormalization", global),
    ("LRN", local_response),
];

/// A scale of ones or an offset of zeros that is written into the graph is none.
fn parameter(call: &mut Call, slot: usize, neutral: f64) -> Result<Option<Value>> {
    if call.uniform(slot) == Some(neutral) { Ok(None) } else { call.data(slot).map(Some) }
}

fn fused(call: &mut Call) -> Result<Vec<Entry>> {
    if call.node.is_training() {
        return batch_statistics(call);
    }
    let x = call.data(0)?;
    let (scale, bias) = (parameter(call, 1, 1.0)?, parameter(call, 2, 0.0)?);
    let (mean, var) = (call.data(3)?, call.data(4)?);
    let epsilon = call.node.float("epsilon").unwrap_or(1e-4);
    let norm = op::BatchNorm { epsilon, momentum: None, layout: call.layout() };
    let y = call.add_with(norm, &[Some(x), scale, bias, Some(mean), Some(var)])?;
    Ok(vec![y.into(), mean.into(), var.into()])
}

/// Statistics of the batch itself, which no moving average replaces.
fn batch_statistics(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let rank = shape.rank();
    let channel = call.layout().channel_axis(rank);
    let axes: Vec<usize> = (0..rank).filter(|&axis| axis != channel).collect();
    let epsilon = call.node.float("epsilon").unwrap_or(1e-4);
    let dtype = call.dtype(0)?;
    if shape.first() == Some(&Dim::Known(1)) {
        // A batch of one: every channel is normalised by itself, as Keras writes layer normalisation.
        let spatial = axes.iter().copied().filter(|&axis| axis != 0).collect();
        let mut y = call.helper("normalized", op::LayerNorm { axes: spatial, epsilon }, &[x])?;
        if call.uniform(1) != Some(1.0) {
            let scale = spread(call, 1, rank)?;
            y = call.helper("scaled", op::Binary::Mul, &[y, scale])?;
        }
        if call.uniform(2) != Some(0.0) {
            let offset = spread(call, 2, rank)?;
            y = call.add(op::Binary::Add, &[y, offset])?;
        }
        return Ok(one(y));
    }
    let reduce = |kind| op::Reduce { kind, axes: axes.clone(), keep_dims: true };
    let mean = call.helper("mean", reduce(op::ReduceKind::Mean), &[x])?;
    let squares = call.helper("squares", op::Binary::SquaredDifference, &[x, mean])?;
    let var = call.helper("variance", reduce(op::ReduceKind::Mean), &[squares])?;
    let epsilon = call.scalar("epsilon", f64::from(epsilon), dtype);
    let sum = call.helper("stable", op::Binary::Add, &[var, epsilon])?;
    let inverse = call.helper("inverse", op::Unary::Rsqrt, &[sum])?;
    let centred = call.helper("centred", op::Binary::Sub, &[x, mean])?;
    let normal = call.helper("normalized", op::Binary::Mul, &[centred, inverse])?;
    let scale = spread(call, 1, rank)?;
    let scaled = call.helper("scaled", op::Binary::Mul, &[normal, scale])?;
    let offset = spread(call, 2, rank)?;
    let y = call.add(op::Binary::Add, &[scaled, offset])?;
    let flat = op::Squeeze { axes };
    let mean = call.helper("batch_mean", flat.clone(), &[mean])?;
    let var = call.helper("batch_variance", flat, &[var])?;
    Ok(vec![y.into(), mean.into(), var.into()])
}

/// A vector over the channels, shaped so that it broadcasts to them.
fn spread(call: &mut Call, slot: usize, rank: usize) -> Result<Value> {
    match call.layout() {
        Layout::ChannelsLast => call.data(slot),
        Layout::ChannelsFirst => {
            let vector = call.shape(slot)?;
            let channels = call.known(&vector, 0, "the number of channels")?;
            let mut shape = vec![1; rank - 1];
            if let Some(first) = shape.first_mut() {
                *first = channels;
            }
            call.reshaped(slot, &shape)
        }
    }
}

/// The op of the first Inception: `x, mean, variance, beta, gamma`.
fn global(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, mean, var) = (call.data(0)?, call.data(1)?, call.data(2)?);
    let bias = parameter(call, 3, 0.0)?;
    let scale = if call.node.flag("scale_after_normalization") { parameter(call, 4, 1.0)? } else { None };
    let epsilon = call.node.float("variance_epsilon").unwrap_or(1e-4);
    let norm = op::BatchNorm { epsilon, momentum: None, layout: Layout::ChannelsLast };
    Ok(one(call.add_with(norm, &[Some(x), scale, bias, Some(mean), Some(var)])?))
}

fn local_response(call: &mut Call) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    let float = |name: &str, default: f32| call.node.float(name).unwrap_or(default);
    let radius = call.node.int("depth_radius").unwrap_or(5);
    let Some(size) = usize::try_from(radius).ok().and_then(|r| r.checked_mul(2)).and_then(|n| n.checked_add(1)) else {
        return Err(call.fail(format!("the depth radius is {radius}")));
    };
    let (alpha, beta, k) = (float("alpha", 1.0), float("beta", 0.5), float("bias", 1.0));
    let lrn = op::Lrn { size, alpha, beta, k, layout: Layout::ChannelsLast };
    Ok(one(call.add(lrn, &[x])?))
}
