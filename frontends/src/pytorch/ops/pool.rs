//! Pooling.

use modelport_ir::{DType, Dim, Layout, Result, Shape, Tensor, Value, op};

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
    op("max_pool1d_with_indices", MAX, |call| Ok(vec![max(call, 1)?, places(call, 1)?].into())),
    op("max_pool2d_with_indices", MAX, |call| Ok(vec![max(call, 2)?, places(call, 2)?].into())),
    op("max_pool3d_with_indices", MAX, |call| Ok(vec![max(call, 3)?, places(call, 3)?].into())),
    op("max_unpool1d", "self indices output_size", |call| unpool(call, 1)),
    op("max_unpool2d", "self indices output_size", |call| unpool(call, 2)),
    op("max_unpool3d", "self indices output_size stride=[] padding=[]", |call| unpool(call, 3)),
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

/// Where the maxima of windows that don't overlap lie: each window's elements become an axis, and what `argmax` says
/// of it an index into the flattened spatial axes. Nothing for other windows: an error for those who read it.
fn places(call: &mut Call, spatial: usize) -> Result<Arg> {
    let pool = window(call, op::PoolKind::Max, spatial)?;
    let (x, added) = batched(call, "self", spatial)?;
    let shape = call.lower.graph.shape(x).clone();
    let plain = pool.pads.is_zero() && pool.strides == pool.kernel && pool.dilations.iter().all(|&d| d == 1);
    let Some(sizes) = shape.get(2..).and_then(|dims| dims.iter().map(Dim::known).collect::<Option<Vec<_>>>()) else {
        return Ok(Arg::None);
    };
    let counts: Vec<usize> = sizes.iter().zip(&pool.kernel).map(|(size, kernel)| size / kernel.max(&1)).collect();
    let cut: Vec<usize> = counts.iter().zip(&pool.kernel).map(|(count, kernel)| count * kernel).collect();
    if !plain || (pool.ceil_mode && cut != sizes) || counts.contains(&0) {
        return Ok(Arg::None);
    }
    let mut y = x;
    if cut != sizes {
        let mut slice = op::Slice::all(spatial + 2);
        for (end, &size) in slice.ends.iter_mut().skip(2).zip(&cut) {
            *end = i64::try_from(size).unwrap_or(i64::MAX);
        }
        y = call.add(slice, &[y])?;
    }
    let front = || shape.iter().take(2).cloned();
    let pairs = counts.iter().zip(&pool.kernel).flat_map(|(&count, &kernel)| [Dim::Known(count), Dim::Known(kernel)]);
    y = call.add(op::Reshape { shape: front().chain(pairs).collect() }, &[y])?;
    let axes = |first: usize| (0..spatial).map(move |i| first + 2 * i);
    y = call.add(op::Transpose { perm: [0, 1].into_iter().chain(axes(2)).chain(axes(3)).collect() }, &[y])?;
    let area = Dim::Known(pool.kernel.iter().product());
    let known = || counts.iter().copied().map(Dim::Known);
    y = call.add(op::Reshape { shape: front().chain(known()).chain([area]).collect() }, &[y])?;
    let axis = spatial + 2;
    let dtype = DType::Int64;
    let at = call.add(op::ArgReduce { kind: op::Extreme::Max, axis, keep_dims: false, dtype }, &[y])?;
    // An element's index in the whole is that of its window's first one and its distance from that.
    let inside = call.constant(flat_indices(&pool.kernel, &vec![1; spatial], &sizes));
    let first = call.constant(flat_indices(&counts, &pool.kernel, &sizes));
    let distance = call.add(op::Gather { axis: 0, batch_dims: 0 }, &[inside, at])?;
    let first = call.add(op::Reshape { shape: known().collect() }, &[first])?;
    let y = call.add(op::Binary::Add, &[distance, first])?;
    unbatched(call, y, added)
}

/// The indices into flattened axes of `sizes` of a grid of `counts` places, `steps` apart.
fn flat_indices(counts: &[usize], steps: &[usize], sizes: &[usize]) -> Tensor {
    let mut indices = vec![0i64];
    for ((&count, &step), &size) in counts.iter().zip(steps).zip(sizes) {
        let along = |index: i64| (0..count).map(move |i| index * size as i64 + (i * step) as i64);
        indices = indices.into_iter().flat_map(along).collect();
    }
    Tensor::from_i64(&[indices.len()], &indices)
}

/// Zeros but for the places in the flattened spatial axes that the indices tell.
fn unpool(call: &mut Call, spatial: usize) -> Result<Arg> {
    if call.arg("indices").is_none() {
        return Err(call.fail("unpooling behind a pool with overlapping or padded windows is not translated"));
    }
    let (x, added) = batched(call, "self", spatial)?;
    let (indices, _) = batched(call, "indices", spatial)?;
    let info = call.lower.graph.info(x).clone();
    let sizes: Vec<usize> = call.elems("output_size")?.iter().filter_map(|size| size.dim().known()).collect();
    let Some(sizes) = sizes.len().checked_sub(spatial).map(|front| sizes[front..].to_vec()) else {
        return Err(call.fail("the output size is not known"));
    };
    let front: Vec<Dim> = info.shape.iter().take(2).cloned().collect();
    let with = |last: Vec<Dim>| Shape(front.iter().cloned().chain(last).collect());
    let places = info.shape.iter().skip(2).fold(Dim::Known(1), |all, dim| all.times(dim));
    let whole = with(vec![sizes.iter().map(|&size| Dim::Known(size)).fold(Dim::Known(1), |all, dim| all.times(&dim))]);
    let like = call.lower.like(&whole)?;
    let zeros = call.add_with(op::Fill { shape: whole, value: 0.0, dtype: info.dtype }, &[like])?;
    let flat = |call: &mut Call, value: Value| call.add(op::Reshape { shape: with(vec![places.clone()]) }, &[value]);
    let (indices, x) = (flat(call, indices)?, flat(call, x)?);
    let y = call.add(op::Scatter { axis: 2, elements: true, add: false }, &[zeros, indices, x])?;
    let y = call.add(op::Reshape { shape: with(sizes.into_iter().map(Dim::Known).collect()) }, &[y])?;
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
