//! Makes batch normalisations, and products with constants, part of the weights of the layer before them, or of the
//! layers behind them where only that is exact.
//!
//! ```text
//! x -> Conv(w) -> BatchNorm                 x -> Conv(w', b')
//! x -> Dense(w, b) -> Mul scale             x -> Dense(w', b')
//! x -> BatchNorm -> Conv(w), no pads        x -> Conv(w', b')
//! x -> BatchNorm -> Reshape -> Dense(w)     x -> Reshape -> Dense(w', b')
//! ```
//!
//! Zeros around the operand of a convolution are not normalised, and an activation stands where it stands: there the
//! normalisation stays. Kernels are scaled while they are written; nothing of their size is held in memory.

use super::affine::{self, Affine, Seen};
use super::pattern::is_regrouping;
use super::rewrite::forward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::Op;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let before = forward(graph, |graph, id| {
        let Some(affine) = Affine::of(graph, id) else { return Ok(false) };
        let Some((layer, axis)) = affine::layer(graph, affine.x) else { return Ok(false) };
        if axis != affine.axis || !affine::into_weights(graph, layer, &affine.scale, &affine.shift)? {
            return Ok(false);
        }
        graph.replace_uses(id.into(), affine.x);
        graph.remove(id);
        Ok(true)
    })?;
    let behind = forward(graph, |graph, id| {
        if !matches!(graph.op(id), Op::BatchNorm(_)) {
            return Ok(false);
        }
        let Some(affine) = Affine::of(graph, id) else { return Ok(false) };
        let Some((reader, seen)) = reader(graph, id, affine.axis) else { return Ok(false) };
        if !affine::into_reader(graph, reader, &seen, &affine.scale, &affine.shift)? {
            return Ok(false);
        }
        graph.replace_uses(id.into(), affine.x);
        graph.remove(id);
        Ok(true)
    })?;
    Ok(before + behind)
}

/// The layer that alone reads a normalised value, and how its weights are to be seen.
fn reader(graph: &Graph, id: NodeId, axis: usize) -> Option<(NodeId, Seen)> {
    let normalized = Value::from(id);
    let mut value = normalized;
    for _ in 0..4 {
        let &[(reader, slot)] = graph.consumers(value).as_slice() else { return None };
        if slot != 0 || graph.uses(value) != 1 {
            return None;
        }
        if is_regrouping(graph.op(reader)) {
            value = reader.into();
            continue;
        }
        let weights = graph.tensor(graph.input_of(reader, 1)?)?;
        let constant = graph.input_of(reader, 2).is_none_or(|bias| graph.tensor(bias).is_some());
        if !constant || !weights.dtype().is_float() {
            return None;
        }
        return match graph.op(reader) {
            Op::Conv(op) => {
                let rank = graph.shape(value).rank();
                let fits = op.pads.is_zero() && value == normalized && axis == op.layout.channel_axis(rank);
                let sizes = weights.shape();
                fits.then(|| (reader, Seen { channel: sizes.len().saturating_sub(2), sizes, groups: op.groups }))
            }
            Op::Dense(_) => Some((reader, seen_by_dense(graph, normalized, value, axis, &weights.shape())?)),
            _ => None,
        };
    }
    None
}

/// A dense layer on the channels themselves, or on all axes but the batch made one.
fn seen_by_dense(graph: &Graph, normalized: Value, read: Value, axis: usize, weights: &[usize]) -> Option<Seen> {
    let (before, after) = (graph.shape(normalized), graph.shape(read));
    let &[inputs, outputs] = weights else { return None };
    if normalized == read {
        return (axis + 1 == before.rank()).then(|| Seen { sizes: vec![inputs, outputs], channel: 0, groups: 1 });
    }
    let sizes: Vec<usize> = before.iter().skip(1).map(crate::Dim::known).collect::<Option<_>>()?;
    let flat = after.rank() == 2 && sizes.iter().product::<usize>() == inputs && before.first() == after.first();
    flat.then(|| Seen { sizes: sizes.into_iter().chain([outputs]).collect(), channel: axis - 1, groups: 1 })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, batch, ops, the};
    use super::*;
    use crate::layout::Layout;
    use crate::op::{BatchNorm, Conv, ConvTranspose, Dense, Pads, Squeeze, Unary};

    const LAST: Layout = Layout::ChannelsLast;

    fn norm(net: &mut Net, x: Value, channels: usize, layout: Layout) -> Value {
        let [a, b, c, d] = ["gamma", "beta", "mean", "variance"].map(|name| net.weight(name, &[channels]));
        net.op(BatchNorm { epsilon: 0.1, momentum: None, layout }, &[x, a, b, c, d])
    }

    fn conv(groups: usize, pads: usize, layout: Layout) -> Conv {
        Conv { strides: vec![1, 1], pads: Pads(vec![(pads, pads); 2]), dilations: vec![1, 1], groups, layout }
    }

    #[test]
    fn into_the_layer_before() {
        for (layout, groups) in [(LAST, 1), (LAST, 2), (Layout::ChannelsFirst, 1), (Layout::ChannelsFirst, 4)] {
            for biased in [false, true] {
                let mut net = Net::new();
                let x = net.x(&[4, 4, 4]);
                net.scope = "net/conv".to_owned();
                let w = net.weight("weights", &[3, 3, 4 / groups, 8]);
                let b = net.weight("biases", &[8]);
                let inputs = if biased { vec![x, w, b] } else { vec![x, w] };
                let y = net.op(conv(groups, 1, layout), &inputs);
                let y = norm(&mut net, y, 8, layout);
                let y = net.un(Unary::Relu, y);
                let graph = net.check(&[y], run);
                assert_eq!(ops(&graph), ["Conv", "Relu"]);
                let bias = graph.input_of(the(&graph, "Conv"), 2).unwrap();
                let name = if biased { "net/conv/biases" } else { "net/conv/bias" };
                assert_eq!(graph.node(bias.node).name, name);
            }
        }
        for groups in [1, 2] {
            let mut net = Net::new();
            let x = net.x(&[4, 4, 4]);
            let w = net.weight("weights", &[2, 2, 6 / groups, 4]);
            let op = ConvTranspose {
                strides: vec![2, 2],
                pads: Pads::none(2),
                output_padding: vec![0, 0],
                dilations: vec![1, 1],
                groups,
                layout: LAST,
            };
            let y = net.op(op, &[x, w]);
            let y = norm(&mut net, y, 6, LAST);
            assert_eq!(net.ops(&[y], run), ["ConvTranspose"]);
        }
        let mut net = Net::new();
        let x = net.x(&[4]);
        let w = net.weight("w", &[4, 3]);
        let y = net.op(Dense {}, &[x, w]);
        let y = norm(&mut net, y, 3, LAST);
        assert_eq!(net.ops(&[y], run), ["Dense"]);
    }

    #[test]
    fn behind_a_squeeze_and_twice() {
        let mut net = Net::new();
        let x = net.x(&[1, 4, 4]);
        let y = net.conv(x, &[1, 3, 4, 5], LAST);
        let y = net.op(Squeeze { axes: vec![1] }, &[y]);
        let y = norm(&mut net, y, 5, LAST);
        assert_eq!(net.ops(&[y], run), ["Conv", "Squeeze"]);
        let mut net = Net::new();
        let x = net.x(&[4, 4, 4]);
        let y = net.conv(x, &[1, 1, 4, 5], LAST);
        let y = norm(&mut net, y, 5, LAST);
        let y = norm(&mut net, y, 5, LAST);
        assert_eq!(net.ops(&[y], run), ["Conv"]);
    }

    #[test]
    fn products() {
        for sizes in [&[][..], &[1], &[5]] {
            let mut net = Net::new();
            let x = net.x(&[4, 4, 4]);
            let y = net.conv(x, &[1, 1, 4, 5], LAST);
            let scale = net.weight("scale", sizes);
            let y = net.mul(scale, y);
            let y = net.div(y, scale);
            assert_eq!(net.ops(&[y], run), ["Conv"]);
        }
        // Along another axis of the same size; a number divided.
        let mut net = Net::new();
        let x = net.x(&[5, 5, 4]);
        let y = net.conv(x, &[1, 1, 4, 5], LAST);
        let scale = net.weight("scale", &[5, 1]);
        let y = net.mul(scale, y);
        let y = net.conv(y, &[1, 1, 5, 5], LAST);
        let number = net.num(2.0);
        let y = net.div(number, y);
        assert_eq!(net.ops(&[y], run), ["Conv", "Mul", "Conv", "Div"]);
    }

    #[test]
    fn into_the_layer_behind() {
        for (layout, groups) in [(LAST, 1), (LAST, 2), (Layout::ChannelsFirst, 1), (Layout::ChannelsFirst, 4)] {
            let mut net = Net::new();
            let x = net.x(&[4, 4, 4]);
            let y = norm(&mut net, x, 4, layout);
            let (w, b) = (net.weight("w", &[2, 3, 4 / groups, 8]), net.weight("b", &[8]));
            let y = net.op(conv(groups, 0, layout), &[y, w, b]);
            assert_eq!(net.ops(&[y], run), ["Conv"]);
        }
        for layout in [LAST, Layout::ChannelsFirst] {
            let mut net = Net::new();
            let x = net.x(&[4, 3, 4]);
            let y = norm(&mut net, x, 4, layout);
            let y = net.reshape(y, batch(&[48]));
            let w = net.weight("w", &[48, 5]);
            let y = net.op(Dense {}, &[y, w]);
            assert_eq!(net.ops(&[y], run), ["Reshape", "Dense"]);
        }
        let mut net = Net::new();
        let x = net.x(&[4]);
        let y = norm(&mut net, x, 4, LAST);
        let w = net.weight("w", &[4, 5]);
        let y = net.op(Dense {}, &[y, w]);
        assert_eq!(net.ops(&[y], run), ["Dense"]);
    }

    #[test]
    fn near_misses_stay() {
        // Zero padding, an activation, another reader on either side.
        let mut net = Net::new();
        let x = net.x(&[4, 4, 4]);
        let y = norm(&mut net, x, 4, LAST);
        let w = net.weight("w", &[3, 3, 4, 4]);
        let y = net.op(conv(1, 1, LAST), &[y, w]);
        let y = net.un(Unary::Relu, y);
        let y = norm(&mut net, y, 4, LAST);
        let y = net.un(Unary::Relu, y);
        let y = net.conv(y, &[1, 1, 4, 4], LAST);
        assert_eq!(net.ops(&[y], run), ["BatchNorm", "Conv", "Relu", "BatchNorm", "Relu", "Conv"]);
        let mut net = Net::new();
        let x = net.x(&[4, 4, 4]);
        let a = net.conv(x, &[1, 1, 4, 4], LAST);
        let b = norm(&mut net, a, 4, LAST);
        let c = net.conv(b, &[1, 1, 4, 4], LAST);
        assert_eq!(net.ops(&[a, b, c], run), ["Conv", "BatchNorm", "Conv"]);
    }

    #[test]
    fn a_shared_kernel_keeps_its_other_readers() {
        let mut net = Net::new();
        let x = net.x(&[4, 4, 4]);
        let w = net.weight("w", &[1, 1, 4, 4]);
        let y = net.op(conv(1, 0, LAST), &[x, w]);
        let y = norm(&mut net, y, 4, LAST);
        let y = net.op(conv(1, 0, LAST), &[y, w]);
        let y = norm(&mut net, y, 4, LAST);
        let y = net.op(conv(1, 0, LAST), &[y, w]);
        assert_eq!(net.ops(&[y], run), ["Conv", "Conv", "Conv"]);
    }
}
