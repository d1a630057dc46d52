//! Convolutions.

use modelport_ir::{Dim, Error, Layout, Result, Value, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

const CONV: &str = "input weight bias=None stride=1 padding=0 dilation=1 groups=1";
const TRANSPOSED: &str = "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1";
const GENERAL: &str = "input weight bias stride padding dilation transposed output_padding groups \
    benchmark=False deterministic=False cudnn_enabled=False allow_tf32=False";

pub const OPS: &[Entry] = &[
    op("conv1d", CONV, |call| conv(call, 1)),
    op("conv2d", CONV, |call| conv(call, 2)),
    op("conv3d", CONV, |call| conv(call, 3)),
    op("conv_transpose1d", TRANSPOSED, |call| transposed(call, 1)),
    op("conv_transpose2d", TRANSPOSED, |call| transposed(call, 2)),
    op("conv_transpose3d", TRANSPOSED, |call| transposed(call, 3)),
    op("_convolution_mode", CONV, |call| {
        let rank = call.shape("weight")?.rank().saturating_sub(2);
        conv(call, rank)
    }),
    op("convolution", GENERAL, general),
    op("_convolution", GENERAL, general),
];

/// The general form says in an argument whether it is transposed.
fn general(call: &mut Call) -> Result<Arg> {
    let rank = call.shape("weight")?.rank().saturating_sub(2);
    if call.bool("transposed")? { transposed(call, rank) } else { conv(call, rank) }
}

/// PyTorch's kernels are `[out, in, spatial…]` and `[in, out, spatial…]` when transposed: both are reversed.
fn kernel(call: &mut Call, rank: usize) -> Result<Value> {
    let shape = call.shape("weight")?;
    if shape.rank() != rank + 2 {
        return Err(call.fail(format!("the kernel has shape {shape}, expected rank {}", rank + 2)));
    }
    let perm: Vec<usize> = (2..rank + 2).chain([1, 0]).collect();
    call.permuted("weight", &perm)
}

/// The input with a batch, and whether it had none.
pub fn batched(call: &mut Call, name: &str, spatial: usize) -> Result<(Value, bool)> {
    let x = call.value(name)?;
    let shape = call.lower.graph.shape(x).clone();
    match shape.rank() {
        rank if rank == spatial + 2 => Ok((x, false)),
        rank if rank == spatial + 1 => Ok((call.add(op::Unsqueeze { axes: vec![0] }, &[x])?, true)),
        _ => Err(call.fail(format!("the input has shape {shape}, expected rank {}", spatial + 2))),
    }
}

/// The result without the batch that was added.
pub fn unbatched(call: &mut Call, y: Value, added: bool) -> Result<Arg> {
    Ok(if added { call.add(op::Squeeze { axes: vec![0] }, &[y])? } else { y }.into())
}

fn conv(call: &mut Call, rank: usize) -> Result<Arg> {
    let (mut x, added) = batched(call, "input", rank)?;
    let weights = kernel(call, rank)?;
    let bias = call.optional("bias")?;
    let strides = call.spatial("stride", rank)?;
    let dilations = call.spatial("dilation", rank)?;
    let groups = call.size("groups")?;
    check_groups(call, x, weights)?;
    let mut pads = match call.arg("padding") {
        Arg::Str(mode) if &*mode == "valid" => vec![(0, 0); rank],
        Arg::Str(mode) if &*mode == "same" => {
            let shape = call.lower.graph.shape(weights).clone();
            let total = |axis: usize| {
                let kernel = call.known(&shape, axis, "the kernel's size")?;
                Ok(kernel.saturating_sub(1).saturating_mul(dilations.get(axis).copied().unwrap_or(1)))
            };
            let totals = (0..rank).map(total).collect::<Result<Vec<usize>>>()?;
            totals.into_iter().map(|total| (total / 2, total - total / 2)).collect()
        }
        Arg::Str(mode) => return Err(call.fail(format!("the padding '{mode}' is not known"))),
        _ => call.spatial("padding", rank)?.into_iter().map(|pad| (pad, pad)).collect(),
    };
    if let Some((padded, rest)) = take_pad(call, x, rank, &pads) {
        (x, pads) = (padded, rest);
    }
    let conv = op::Conv { strides, pads: op::Pads(pads), dilations, groups, layout: Layout::ChannelsFirst };
    let y = call.add_with(conv, &[Some(x), Some(weights), bias])?;
    unbatched(call, y, added)
}

/// Where the batch is folded into the channels, as with kernels that are computed for each image, an example's batch
/// became the number of groups.
fn check_groups(call: &mut Call, x: Value, weights: Value) -> Result<()> {
    let channels = |value: Value, axis: usize| call.lower.graph.shape(value).get(axis).cloned();
    let rank = call.lower.graph.shape(weights).rank();
    let (of_input, of_kernel) = (channels(x, 1), channels(weights, rank.saturating_sub(2)));
    match (of_input, of_kernel) {
        (Some(free @ Dim::Symbol { .. }), Some(Dim::Known(_))) => {
            let error = call.fail(format!("the number of channels, {free}, depends on the input's size"));
            let hint = "Give the input's shape with its batch, such as --inputShape 1,512,4,4.";
            Err(Error { problems: error.problems.into_iter().map(|problem| problem.hint(hint)).collect() })
        }
        _ => Ok(()),
    }
}

/// Zeros that were put around the input just for this convolution are its padding.
fn take_pad(call: &Call, x: Value, rank: usize, pads: &[(usize, usize)]) -> Option<(Value, Vec<(usize, usize)>)> {
    let graph = &call.lower.graph;
    let modelport_ir::Op::Pad(pad) = graph.op(x.node) else { return None };
    // What pads with mirrored elements is another layer; the passes join the rest.
    let plain =
        pad.mode == op::PadMode::Constant && pad.value == 0.0 && graph.module_of(x.node) == Some(call.lower.path());
    let (outer, inner) = pad.pads.0.split_at_checked(2)?;
    (plain && outer == [(0, 0); 2] && inner.len() == rank).then_some(())?;
    let sum = inner.iter().zip(pads).map(|(a, b)| (a.0 + b.0, a.1 + b.1)).collect();
    Some((graph.input_of(x.node, 0)?, sum))
}

fn transposed(call: &mut Call, rank: usize) -> Result<Arg> {
    let (x, added) = batched(call, "input", rank)?;
    let weights = kernel(call, rank)?;
    let bias = call.optional("bias")?;
    let pads = call.spatial("padding", rank)?.into_iter().map(|pad| (pad, pad)).collect();
    let conv = op::ConvTranspose {
        strides: call.spatial("stride", rank)?,
        pads: op::Pads(pads),
        output_padding: call.spatial("output_padding", rank)?,
        dilations: call.spatial("dilation", rank)?,
        groups: call.size("groups")?,
        layout: Layout::ChannelsFirst,
    };
    let y = call.add_with(conv, &[Some(x), Some(weights), bias])?;
    unbatched(call, y, added)
}
