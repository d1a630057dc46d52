//! Transposed convolutions: the gradients of convolutions with respect to their input, with the output's size given.

use modelport_ir::{DType, Dim, Result, Shape, Value, op};

use super::call::one;
use super::conv::spatial_sizes;
use super::{Call, Family};
use crate::symbolic::{Arithmetic, Elem};
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("Conv2DBackpropInput", transposed),
    ("Conv3DBackpropInputV2", transposed),
    ("DepthwiseConv2dNativeBackpropInput", depthwise),
];

fn transposed(call: &mut Call) -> Result<Vec<Entry>> {
    let weights = call.data(1)?;
    convolution(call, weights, 1)
}

/// A kernel `[h, w, in, multiplier]` has `in` groups, each of `multiplier` channels to one.
fn depthwise(call: &mut Call) -> Result<Vec<Entry>> {
    let kernel = call.shape(1)?;
    let Some([h, w, channels, multiplier]) = kernel.sizes().and_then(|sizes| <[usize; 4]>::try_from(sizes).ok()) else {
        return Err(call.fail(format!("the kernel has shape {kernel}, expected [height, width, in, multiplier]")));
    };
    let weights = call.reshaped(1, &[h, w, 1, channels.saturating_mul(multiplier)])?;
    convolution(call, weights, channels)
}

fn convolution(call: &mut Call, weights: Value, groups: usize) -> Result<Vec<Entry>> {
    let (x, shape) = call.shaped(2)?;
    let rank = shape.rank();
    let layout = call.layout();
    let kernel = spatial_sizes(call, weights, rank)?;
    let (strides, dilations) = (call.spatial("strides", rank)?, call.spatial("dilations", rank)?);
    let axes = layout.spatial_axes(rank);

    let size = call.sizes(0, "the output's size")?.list();
    // Old graphs give the spatial sizes alone.
    let target: Vec<Elem> = if size.len() == rank {
        size.get(axes.clone()).unwrap_or_default().to_vec()
    } else {
        return Err(call.fail(format!("the output's size has {} numbers, expected {rank}", size.len())));
    };

    let explicit = match call.node.text("padding") {
        Some("EXPLICIT") => Some(super::conv::pads(call, &shape, &kernel, &strides, &dilations)?),
        _ => None,
    };
    let mut pads = Vec::new();
    let mut output_padding = Vec::new();
    for (i, axis) in axes.enumerate() {
        let at = |list: &[usize]| list.get(i).copied().unwrap_or(1);
        let (kernel, stride, dilation) = (at(&kernel), at(&strides), at(&dilations));
        let extent = (kernel.saturating_sub(1)).saturating_mul(dilation).saturating_add(1);
        let target = target.get(i).cloned().unwrap_or(Elem::Int(0));
        let surplus = surplus(call, &shape, axis, stride, extent, &target)?;
        // Without padding the result has `size + surplus` elements.
        let (pad, rest) = match (&explicit, call.node.text("padding")) {
            (Some(explicit), _) => {
                let pad = explicit.get(i).copied().unwrap_or((0, 0));
                (pad, (pad.0.saturating_add(pad.1) as i64).saturating_sub(surplus))
            }
            (None, Some("SAME")) => {
                let total = usize::try_from(surplus).unwrap_or(0);
                ((total / 2, total - total / 2), (total as i64).saturating_sub(surplus))
            }
            _ => ((0, 0), surplus.saturating_neg()),
        };
        let Ok(rest) = usize::try_from(rest) else {
            return Err(call.fail(format!("the output's size {target} on axis {axis} does not fit")));
        };
        pads.push(pad);
        output_padding.push(rest);
    }
    let pads = op::Pads(pads);
    let conv = op::ConvTranspose { strides, pads, output_padding, dilations, groups, layout };
    Ok(one(call.add(conv, &[x, weights])?))
}

/// By how much `(size - 1) * stride + extent` exceeds the output's size.
fn surplus(call: &mut Call, shape: &Shape, axis: usize, stride: usize, extent: usize, target: &Elem) -> Result<i64> {
    let dim = shape.get(axis).cloned().unwrap_or(Dim::Unknown);
    let value = call.input(2)?;
    // The same name that `tf.shape` gives to this size, so that it cancels.
    let key = || format!("size|{}|{}|{axis}", value.node, value.output);
    let all = &mut call.lower.expressions;
    let size = all.of_dim(&dim, key);
    let mut apply = |op, a: &Elem, b: &Elem| all.apply(op, a, b, DType::Int64);
    let steps = apply(Arithmetic::Mul, &size, &Elem::Int(stride as i64));
    let full = apply(Arithmetic::Add, &steps, &Elem::Int(extent as i64 - stride as i64));
    let surplus = apply(Arithmetic::Sub, &full, target).int();
    surplus.ok_or_else(|| call.fail_sizes(format!("the output's size on axis {axis} is not known")))
}
