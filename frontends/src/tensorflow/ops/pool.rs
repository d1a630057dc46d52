//! Pooling.

use modelport_ir::{Dim, Result, op};

use super::call::one;
use super::conv::pads;
use super::{Call, Family};
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("MaxPool", |call| from_attributes(call, op::PoolKind::Max)),
    ("MaxPoolV2", from_inputs),
    ("MaxPool3D", |call| from_attributes(call, op::PoolKind::Max)),
    ("MaxPoolWithArgmax", |call| from_attributes(call, op::PoolKind::Max)),
    ("AvgPool", |call| from_attributes(call, op::PoolKind::Avg)),
    ("AvgPool3D", |call| from_attributes(call, op::PoolKind::Avg)),
];

fn from_attributes(call: &mut Call, kind: op::PoolKind) -> Result<Vec<Entry>> {
    let kernel = call.node.ints("ksize").unwrap_or_default();
    let strides = call.node.ints("strides").unwrap_or_default();
    pool(call, kind, &kernel, &strides)
}

fn from_inputs(call: &mut Call) -> Result<Vec<Entry>> {
    let (kernel, strides) = (call.ints(1, "the kernel's size")?, call.ints(2, "the strides")?);
    pool(call, op::PoolKind::Max, &kernel, &strides)
}

fn pool(call: &mut Call, kind: op::PoolKind, kernel: &[i64], strides: &[i64]) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let rank = shape.rank();
    let channel = call.layout().channel_axis(rank);
    let depth = kernel.get(channel).copied().unwrap_or(1);
    if depth > 1 {
        return depthwise(call, kind, kernel, strides);
    }
    let kernel = call.spatial_of(kernel, "kernel sizes", rank)?;
    let strides = call.spatial_of(strides, "strides", rank)?;
    let dilations = vec![1; kernel.len()];
    let pads = op::Pads(pads(call, &shape, &kernel, &strides, &dilations)?);
    // A window over the whole map has no second place.
    let spatial = shape.get(call.layout().spatial_axes(rank)).unwrap_or_default();
    let whole = spatial.iter().map(Dim::known).eq(kernel.iter().copied().map(Some)) && pads.is_zero();
    let strides = if whole { kernel.clone() } else { strides };
    let pool = op::Pool {
        kind,
        kernel,
        strides,
        pads,
        dilations,
        ceil_mode: false,
        count_include_pad: false,
        layout: call.layout(),
    };
    Ok(one(call.add(pool, &[x])?))
}

/// Pooling over channels: groups of neighbours are reduced.
fn depthwise(call: &mut Call, kind: op::PoolKind, kernel: &[i64], strides: &[i64]) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let rank = shape.rank();
    let channel = call.layout().channel_axis(rank);
    let depth = kernel.get(channel).and_then(|&depth| usize::try_from(depth).ok()).unwrap_or(1);
    let alone = kernel.iter().enumerate().all(|(axis, &n)| axis == channel || n == 1) && kernel == strides;
    let channels = call.known(&shape, channel, "the number of channels")?;
    if !alone || channels % depth != 0 {
        return Err(call.fail(format!("pooling over channels with kernel {kernel:?} and strides {strides:?}")));
    }
    let mut split = shape.clone();
    split.splice(channel..=channel, [(channels / depth).into(), depth.into()]);
    let groups = call.helper("groups", op::Reshape { shape: split }, &[x])?;
    let kind = match kind {
        op::PoolKind::Max => op::ReduceKind::Max,
        op::PoolKind::Avg => op::ReduceKind::Mean,
    };
    Ok(one(call.add(op::Reduce { kind, axes: vec![channel + 1], keep_dims: false }, &[groups])?))
}
