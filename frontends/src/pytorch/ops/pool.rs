//! Pooling.

use modelport_ir::{Dim, Layout, Result, Tensor, Value, op};

use super::conv::{batched, unbatched};
use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

const MAX: &str = "self kernel_size stride=[] padding=0 dilation=1 ceil_mode=False";
const AVG: &str = "self kernel_size stride=[] padding=0 ceil_mode=False count_include_pad=True divisor_override=None";
const AVG_1D: &str = "self kernel_size stride=[] padding=0 ceil_mode=False count_include_pad=True";
const ADAPTIVE: &str = "self output_size";
const LP: &str = "self norm_type kernel_size stride=[] ceil_mode=False";

pub const OPS: &[Entry] = &[
    op("max_pool1d", MAX, |call| max(call, 1)),
    op("max_pool2d", MAX, |call| max(call, 2)),
    op("max_pool3d", MAX, |call| max(call, 3)),
    op("max_pool2d_with_indices", MAX, |call| Ok(vec![max(call, 2)?, Arg::None].into())),
    op("max_pool3d_with_indices", MAX, |call| Ok(vec![max(call, 3)?, Arg::None].into())),
    op("avg_pool1d", AVG_1D, |call| avg(call, 1)),
    op("avg_pool2d", AVG, |call| avg(call, 2)),
    op("avg_pool3d", AVG, |call| avg(call, 3)),
    op("adaptive_avg_pool1d", ADAPTIVE, |call| adaptive(call, 1, op::PoolKind::Avg)),
    op("adaptive_avg_pool2d", ADAPTIVE, |call| adaptive(call, 2, op::PoolKind::Avg)),
    op("adaptive_avg_pool3d", ADAPTIVE, |call| adaptive(call, 3, op::PoolKind::Avg)),
    op("_adaptive_avg_pool2d", ADAPTIVE, |call| adaptive(call, 2, op::PoolKind::Avg)),
    op("_adaptive_avg_pool3d", ADAPTIVE, |call| adaptive(call, 3, op::PoolKind::Avg)),
    op("adaptive_max_pool1d", ADAPTIVE, |call| Ok(vec![adaptive(call, 1, op::PoolKind::Max)?, Arg::None].into())),
    op("adaptive_max_pool2d", ADAPTIVE, |call| Ok(vec![adaptive(call, 2, op::PoolKind::Max)?, Arg::None].into())),
    op("adaptive_max_pool3d", ADAPTIVE, |call| Ok(vec![adaptive(call, 3, op::PoolKind::Max)?, Arg::None].into())),
    op("lp_pool1d", LP, |call| power(call, 1)),
    op("lp_pool2d", LP, |call| power(call, 2)),
];

fn window(call: &Call, kind: op::PoolKind, spatial: usize) -> Result<op::Pool> {
    let kernel = call.spatial("kernel_size", spatial)?;
    let strides = match call.arg("stride") {
        Arg::None => kernel.clone(),
        Arg::List(list) if list.is_empty() => kernel.clone(),
        _ => call.spatial("stride", spatial)?,
    };
    let pads = match call.has("padding") {
        true => call.spatial("padding", spatial)?.into_iter().map(|pad| (pad, pad)).collect(),
        false => vec![(0, 0); spatial],
    };
    let dilations = match call.has("dilation") {
        true => call.spatial("dilation", spatial)?,
        false => vec![1; spatial],
    };
    Ok(op::Pool {
        kind,
        kernel,
        strides,
        pads: op::Pads(pads),
        dilations,
        ceil_mode: call.bool("ceil_mode")?,
        count_include_pad: false,
        layout: Layout::ChannelsFirst,
    })
}

fn max(call: &mut Call, spatial: usize) -> Result<Arg> {
    let pool = window(call, op::PoolKind::Max, spatial)?;
    let (x, added) = batched(call, "self", spatial)?;
    let y = call.add(pool, &[x])?;
    unbatched(call, y, added)
}

fn avg(call: &mut Call, spatial: usize) -> Result<Arg> {
    let mut pool = window(call, op::PoolKind::Avg, spatial)?;
    let (mut x, added) = batched(call, "self", spatial)?;
    pool.count_include_pad = call.bool("count_include_pad")?;
    let divisor = match call.has("divisor_override") {
        true => Some(call.int("divisor_override")?),
        false => None,
    };
    let area: usize = pool.kernel.iter().product();
    if divisor.is_some() {
        // The sum of a window is its mean over all of its places, also over those outside.
        pool.count_include_pad = true;
        if pool.ceil_mode {
            x = widened(call, x, &mut pool)?;
        }
    }
    let mut y = call.add(pool, &[x])?;
    if let Some(divisor) = divisor {
        let dtype = call.lower.graph.info(y).dtype;
        let factor = call.scalar(dtype, area as f64 / divisor as f64);
        y = call.add(op::Binary::Mul, &[y, factor])?;
    }
    unbatched(call, y, added)
}

/// Puts the zeros that `ceil_mode` reads behind the end into the input: a mean counts them nowhere.
fn widened(call: &mut Call, x: Value, pool: &mut op::Pool) -> Result<Value> {
    let shape = call.lower.graph.shape(x).clone();
    let mut pads = vec![(0, 0); 2];
    for (i, &(before, after)) in pool.pads.0.iter().enumerate() {
        let size = call.known(&shape, i + 2, "the size for ceil_mode")?;
        let (Some(&kernel), Some(&stride)) = (pool.kernel.get(i), pool.strides.get(i)) else { continue };
        let dim = modelport_ir::shape::window_output(&Dim::Known(size), kernel, stride, 1, (before, after), true);
        let windows = dim.ok().and_then(|dim| dim.known()).unwrap_or(1);
        let reach = (windows.saturating_sub(1)).saturating_mul(stride).saturating_add(kernel);
        pads.push((before, after.max(reach.saturating_sub(size.saturating_add(before)))));
    }
    pool.pads = op::Pads::none(pool.kernel.len());
    pool.ceil_mode = false;
    call.add(op::Pad { pads: op::Pads(pads), mode: op::PadMode::Constant, value: 0.0 }, &[x])
}

fn adaptive(call: &mut Call, spatial: usize, kind: op::PoolKind) -> Result<Arg> {
    let (x, added) = batched(call, "self", spatial)?;
    let shape = call.lower.graph.shape(x).clone();
    let given: Vec<Option<i64>> = match call.arg("output_size") {
        Arg::List(list) => list.iter().map(Arg::int).collect(),
        other => vec![other.int(); spatial],
    };
    if given.len() != spatial {
        return Err(call.fail(format!("the output size has {} axes, expected {spatial}", given.len())));
    }
    if given.iter().all(|size| *size == Some(1)) {
        let reduce = match kind {
            op::PoolKind::Max => op::ReduceKind::Max,
            op::PoolKind::Avg => op::ReduceKind::Mean,
        };
        let axes = (2..spatial + 2).collect();
        let y = call.add(op::Reduce { kind: reduce, axes, keep_dims: true }, &[x])?;
        return unbatched(call, y, added);
    }
    let mut output_size = Vec::new();
    for (i, size) in given.into_iter().enumerate() {
        output_size.push(match size.and_then(|size| usize::try_from(size).ok()) {
            Some(size) => size,
            None => call.known(&shape, i + 2, "the size that pooling keeps")?,
        });
    }
    let pool = op::AdaptivePool { kind, output_size, layout: Layout::ChannelsFirst };
    let y = call.add(pool, &[x])?;
    unbatched(call, y, added)
}

/// `(sum |x|^p)^(1/p)` over windows, where PyTorch leaves out the absolute value and takes negative sums as 0.
fn power(call: &mut Call, spatial: usize) -> Result<Arg> {
    let mut pool = window(call, op::PoolKind::Avg, spatial)?;
    pool.count_include_pad = true;
    let p = call.float("norm_type")?;
    let area: usize = pool.kernel.iter().product();
    let (x, added) = batched(call, "self", spatial)?;
    let dtype = call.lower.graph.info(x).dtype;
    let exponent = call.scalar(dtype, p);
    let powers = call.add(op::Binary::Pow, &[x, exponent])?;
    let mean = call.add(pool, &[powers])?;
    let positive = call.add(op::Unary::Relu, &[mean])?;
    let area = call.constant(Tensor::from_f64(dtype, &[], [area as f64]));
    let sum = call.add(op::Binary::Mul, &[positive, area])?;
    let root = call.scalar(dtype, 1.0 / p);
    let y = call.add(op::Binary::Pow, &[sum, root])?;
    unbatched(call, y, added)
}
