//! Convolutions.

use modelport_ir::shape::same_padding;
use modelport_ir::{DType, Dim, Result, Shape, Value, op};

use super::call::one;
use super::{Call, Family};
use crate::symbolic::Arithmetic;
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("Conv2D", conv),
    ("Conv3D", conv),
    ("DepthwiseConv2dNative", depthwise),
    // Made by `dilation`: with the border and the crop of a SpaceToBatch pattern around it.
    ("_DilatedConv2D", conv),
    ("_DilatedConv3D", conv),
    ("_DilatedDepthwiseConv2dNative", depthwise),
];

fn conv(call: &mut Call) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(0)?;
    let weights = call.data(1)?;
    let channels = call.known(&shape, call.layout().channel_axis(shape.rank()), "the number of channels")?;
    let kernel = call.lower.graph.shape(weights).clone();
    let per_group = kernel.get(kernel.rank().saturating_sub(2)).and_then(Dim::known).filter(|&n| n > 0);
    let groups = match per_group {
        Some(per_group) if channels % per_group == 0 => channels / per_group,
        _ => return Err(call.fail(format!("a kernel of shape {kernel} does not take {channels} channels"))),
    };
    convolution(call, x, weights, groups)
}

/// A kernel `[h, w, in, multiplier]` is one of `[h, w, 1, in * multiplier]` with `in` groups.
fn depthwise(call: &mut Call) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    let kernel = call.shape(1)?;
    let Some([h, w, channels, multiplier]) = kernel.sizes().and_then(|sizes| <[usize; 4]>::try_from(sizes).ok()) else {
        return Err(call.fail(format!("the kernel has shape {kernel}, expected [height, width, in, multiplier]")));
    };
    let weights = call.reshaped(1, &[h, w, 1, channels.saturating_mul(multiplier)])?;
    convolution(call, x, weights, channels)
}

fn convolution(call: &mut Call, x: Value, weights: Value, groups: usize) -> Result<Vec<Entry>> {
    let shape = call.lower.graph.shape(x).clone();
    let rank = shape.rank();
    let layout = call.layout();
    let mut strides = call.spatial("strides", rank)?;
    let kernel = spatial_sizes(call, weights, rank)?;
    let mut dilations = dilations(call, rank)?;
    let mut x = x;
    let pads = match call.node.op.starts_with('_') {
        false => pads(call, &shape, &kernel, &strides, &dilations)?,
        true => {
            let rates = call.node.ints("_rates").unwrap_or_default();
            for (dilation, &rate) in dilations.iter_mut().zip(&rates) {
                *dilation = usize::try_from(rate).unwrap_or(1).saturating_mul(*dilation);
            }
            strides = vec![1; strides.len()];
            let (input, pads) = dilated_border(call, x, &kernel, &dilations, &rates)?;
            x = input;
            pads
        }
    };
    let conv = op::Conv { strides, pads: op::Pads(pads), dilations, groups, layout };
    Ok(one(call.add(conv, &[x, weights])?))
}

fn dilations(call: &Call, rank: usize) -> Result<Vec<usize>> {
    match call.node.ints("dilations") {
        // Depthwise convolutions of old graphs have two numbers.
        Some(list) if list.len() + 2 == rank => {
            list.iter().map(|&n| usize::try_from(n).map_err(|_| call.fail("a dilation is negative"))).collect()
        }
        _ => call.spatial("dilations", rank),
    }
}

/// The spatial sizes of a kernel `[spatial…, in, out]`.
pub fn spatial_sizes(call: &Call, weights: Value, rank: usize) -> Result<Vec<usize>> {
    let shape = call.lower.graph.shape(weights);
    let sizes = shape.iter().take(rank.saturating_sub(2)).map(Dim::known).collect::<Option<Vec<_>>>();
    match sizes {
        Some(sizes) if shape.rank() == rank => Ok(sizes),
        _ => Err(call.fail(format!("the kernel has shape {shape}, expected rank {rank}"))),
    }
}

/// The padding of a window, per spatial axis.
///
/// # Errors
/// When it depends on a size that is not known.
pub fn pads(
    call: &Call,
    shape: &Shape,
    kernel: &[usize],
    strides: &[usize],
    dilations: &[usize],
) -> Result<Vec<(usize, usize)>> {
    let axes = call.layout().spatial_axes(shape.rank());
    let windows = kernel.iter().zip(strides).zip(dilations);
    match call.node.text("padding") {
        Some("VALID") | None => Ok(vec![(0, 0); kernel.len()]),
        Some("SAME") => axes
            .zip(windows)
            .map(|(axis, ((&kernel, &stride), &dilation))| {
                // At stride 1 the size does not matter, and a window of one element is never padded.
                let size = if stride == 1 || kernel == 1 {
                    stride
                } else {
                    call.known(shape, axis, "the size for SAME padding with a stride")?
                };
                Ok(same_padding(size, kernel, stride, dilation))
            })
            .collect(),
        Some("EXPLICIT") => {
            let list = call.node.ints("explicit_paddings").unwrap_or_default();
            let pairs: Option<Vec<(usize, usize)>> = list
                .chunks(2)
                .map(|pair| match pair {
                    [before, after] => Some((usize::try_from(*before).ok()?, usize::try_from(*after).ok()?)),
                    _ => None,
                })
                .collect();
            match pairs {
                Some(pairs) if pairs.len() == shape.rank() => Ok(pairs.get(axes).unwrap_or_default().to_vec()),
                _ => Err(call.fail(format!("explicit paddings {list:?} do not fit rank {}", shape.rank()))),
            }
        }
        Some(other) => Err(call.fail(format!("the padding '{other}' is not known"))),
    }
}

/// What border a convolution between SpaceToBatch and BatchToSpace has: the paddings of the first less the crops of
/// the second, more for what the convolution itself pads. A border that is negative is cut off the input.
fn dilated_border(
    call: &mut Call,
    x: Value,
    kernel: &[usize],
    dilations: &[usize],
    rates: &[i64],
) -> Result<(Value, Vec<(usize, usize)>)> {
    let rank = call.lower.graph.shape(x).rank();
    let border = call.sizes(2, "the padding of SpaceToBatch")?;
    let crop = call.sizes(3, "the crop of BatchToSpace")?;
    let pairs = border.elems.iter().zip(crop.elems.iter());
    let differences: Vec<Option<i64>> = pairs
        .map(|(a, b)| call.lower.expressions.apply(Arithmetic::Sub, a, b, DType::Int32).int())
        .map(|difference| difference.filter(|&n| i32::try_from(n).is_ok()))
        .collect();
    let same = call.node.text("padding") == Some("SAME");
    let places = call.node.ints("_places").unwrap_or_default();
    let mut slice = op::Slice::all(rank);
    let mut pads = Vec::new();
    for (i, axis) in call.layout().spatial_axes(rank).enumerate() {
        let at = |list: &[usize]| list.get(i).copied().unwrap_or(1);
        let (mut before, mut after) = match places.get(i).and_then(|&place| usize::try_from(place).ok()) {
            Some(place) => {
                let known = |k: usize| differences.get(2 * place + k).copied().flatten();
                let pair = known(0).zip(known(1));
                pair.ok_or_else(|| call.fail_sizes("its border depends on sizes that are not known"))?
            }
            None => (0, 0),
        };
        if same {
            // Each part of the batch is padded by itself: an element there is `rate` elements of the whole.
            let rate = rates.get(i).map_or(1, |&rate| rate.max(1));
            let own = at(dilations) / usize::try_from(rate).unwrap_or(1);
            let (first, last) = same_padding(1, at(kernel), 1, own);
            before = before.saturating_add((first as i64).saturating_mul(rate));
            after = after.saturating_add((last as i64).saturating_mul(rate));
        }
        if let (Some(begin), Some(end)) = (slice.begins.get_mut(axis), slice.ends.get_mut(axis)) {
            *begin = (-before).max(0);
            if after < 0 {
                *end = after;
            }
        }
        pads.push((usize::try_from(before).unwrap_or(0), usize::try_from(after).unwrap_or(0)));
    }
    let x = if (0..rank).all(|axis| slice.takes_all(axis)) { x } else { call.helper("crop", slice, &[x])? };
    Ok((x, pads))
}

/// Adds a constant or a value to the channels, which NumPy's broadcasting finds at the end.
pub fn add_channels(call: &mut Call, x: Value, slot: usize) -> Result<Value> {
    let shape = call.lower.graph.shape(x).clone();
    let bias = match call.layout() {
        modelport_ir::Layout::ChannelsFirst if shape.rank() > 2 => {
            let channels = call.shape(slot)?;
            let channels = call.known(&channels, 0, "the number of channels")?;
            let mut wanted = vec![1; shape.rank() - 1];
            if let Some(first) = wanted.first_mut() {
                *first = channels;
            }
            call.reshaped(slot, &wanted)?
        }
        _ => call.data(slot)?,
    };
    call.add(op::Binary::Add, &[x, bias])
}
