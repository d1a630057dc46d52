//! Turns layers that run over an axis of size 1, put in for them and taken out again, into layers of one axis less.
//!
//! ```text
//! x [N, T, C] -> Unsqueeze [1] -> Conv [1, K, C, D] -> Relu -> Squeeze [1]      x -> Conv [K, C, D] -> Relu
//! x [N, T, C] -> Reshape [N, T, 1, C] -> Pool [2, 1] -> Squeeze [2]             x -> Pool [2]
//! ```
//!
//! This is how TensorFlow writes one-dimensional convolution and pooling. The window must have size 1 on that axis.

use super::pattern::{is_regrouping, number};
use super::rewrite::{backward, view};
use crate::diagnostic::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::layout::Layout;
use crate::op::{Op, Pads, Reshape};
use crate::shape::{Dim, Shape};

/// Operators between the axis's coming and going.
const DEPTH: usize = 16;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    // The layers of a source with modules are complete as they are, and their weights keep their shapes.
    if !graph.modules.is_empty() {
        return Ok(0);
    }
    backward(graph, |graph, id| {
        let Some(found) = find(graph, id) else { return Ok(false) };
        let mut value = found.x;
        for node in found.chain.into_iter().rev() {
            value = lowered(graph, node, found.axis, value)?;
        }
        let shape = graph.shape(id.into()).clone();
        if *graph.shape(value) == shape {
            graph.replace_uses(id.into(), value);
        } else {
            graph.replace_op(id, Reshape { shape }, &[Some(value)])?;
        }
        Ok(true)
    })
}

struct Found {
    /// What enters, without the axis.
    x: Value,
    axis: usize,
    /// The operators, the last one first.
    chain: Vec<NodeId>,
}

fn find(graph: &Graph, id: NodeId) -> Option<Found> {
    if !is_regrouping(graph.op(id)) {
        return None;
    }
    let end = graph.input_of(id, 0)?;
    let (mut value, mut chain) = (end, Vec::new());
    while !is_regrouping(graph.op(value.node)) {
        if graph.uses(value) != 1 || chain.len() >= DEPTH {
            return None;
        }
        chain.push(value.node);
        value = graph.input_of(value.node, 0)?;
    }
    let x = graph.input_of(value.node, 0)?;
    // A reshape does not say which of several axes of size 1 it made: any that suits the windows is right.
    (1..graph.shape(end).rank()).find_map(|axis| {
        let made = without(graph.shape(value), axis)? == *graph.shape(x);
        // A reshape may do more than take the axis out.
        let gone = without(graph.shape(end), axis)? == *graph.shape(id.into())
            || matches!(graph.op(id), Op::Reshape(_)) && graph.shape(id.into()).is_determined();
        let windows = chain.iter().filter(|node| is_window(graph.op(**node))).count();
        let all = chain.iter().all(|&node| can_lower(graph, node, axis));
        (made && gone && windows > 0 && all).then(|| Found { x, axis, chain: chain.clone() })
    })
}

/// The shape without an axis of size 1; `None` if it is not, or if the rest is not known well enough to compare.
fn without(shape: &Shape, axis: usize) -> Option<Shape> {
    let mut rest = shape.clone();
    let one = rest.get(axis) == Some(&Dim::Known(1));
    let open = rest.iter().filter(|dim| **dim == Dim::Unknown).count();
    (one && open <= 1).then(|| {
        rest.remove(axis);
        rest
    })
}

fn is_window(op: &Op) -> bool {
    matches!(op, Op::Conv(_) | Op::ConvTranspose(_) | Op::Pool(_))
}

/// Which spatial axis of a layout an axis is.
fn spatial(layout: Layout, rank: usize, axis: usize) -> Option<usize> {
    layout.spatial_axes(rank).position(|a| a == axis)
}

/// Whether the operator does the same without this axis.
fn can_lower(graph: &Graph, node: NodeId, axis: usize) -> bool {
    let rank = graph.shape(node.into()).rank();
    let one = |sizes: &[usize], i: usize| sizes.get(i) == Some(&1);
    let unpadded = |pads: &Pads, i: usize| pads.0.get(i) == Some(&(0, 0));
    let kernel = || graph.input_of(node, 1).and_then(|w| graph.tensor(w)).map(|tensor| tensor.shape());
    if !(4..=5).contains(&rank) || graph.shape(node.into()).get(axis) != Some(&Dim::Known(1)) {
        return false;
    }
    match graph.op(node) {
        Op::Conv(op) => spatial(op.layout, rank, axis)
            .is_some_and(|i| unpadded(&op.pads, i) && kernel().is_some_and(|kernel| one(&kernel, i))),
        Op::ConvTranspose(op) => spatial(op.layout, rank, axis).is_some_and(|i| {
            let plain = unpadded(&op.pads, i) && op.output_padding.get(i) == Some(&0);
            plain && kernel().is_some_and(|kernel| one(&kernel, i))
        }),
        Op::Pool(op) => spatial(op.layout, rank, axis).is_some_and(|i| unpadded(&op.pads, i) && one(&op.kernel, i)),
        Op::BatchNorm(op) => spatial(op.layout, rank, axis).is_some(),
        Op::PRelu(op) => spatial(op.layout, rank, axis).is_some(),
        Op::Unary(_) | Op::LeakyRelu(_) | Op::Elu(_) | Op::Gelu(_) | Op::Clip(_) | Op::Dropout(_) => true,
        Op::Binary(_) => graph.input_of(node, 1).is_some_and(|other| {
            let vector = graph.shape(other).rank() == 1 && graph.tensor(other).is_some() && axis + 1 != rank;
            vector || number(graph, other).is_some()
        }),
        _ => false,
    }
}

fn lowered(graph: &mut Graph, node: NodeId, axis: usize, x: Value) -> Result<Value> {
    let rank = graph.shape(node.into()).rank();
    let mut op = graph.op(node).clone();
    let mut inputs = graph.inputs_of(node);
    if let Some(input) = inputs.first_mut() {
        *input = Some(x);
    }
    let cut = |lists: &mut [&mut Vec<usize>], pads: &mut Pads, layout: Layout| {
        let i = spatial(layout, rank, axis)?;
        for list in lists.iter_mut().filter(|list| i < list.len()) {
            list.remove(i);
        }
        (i < pads.0.len()).then(|| pads.0.remove(i))?;
        Some(i)
    };
    let removed = match &mut op {
        Op::Conv(op) => cut(&mut [&mut op.strides, &mut op.dilations], &mut op.pads, op.layout),
        Op::ConvTranspose(op) => {
            let lists = &mut [&mut op.strides, &mut op.dilations, &mut op.output_padding];
            cut(lists, &mut op.pads, op.layout)
        }
        Op::Pool(op) => {
            cut(&mut [&mut op.kernel, &mut op.strides, &mut op.dilations], &mut op.pads, op.layout);
            None
        }
        _ => None,
    };
    if let Some(i) = removed
        && let Some(kernel) = inputs.get_mut(1)
        && let Some(source) = *kernel
        && let Some(tensor) = graph.tensor(source)
    {
        let mut sizes = tensor.shape();
        if i < sizes.len() {
            sizes.remove(i);
        }
        let tensor = tensor.reshaped(&sizes).map_err(Error::new)?;
        *kernel = Some(view(graph, source, tensor));
    }
    graph.replace_op(node, op, &inputs)?;
    Ok(node.into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, batch, the};
    use super::*;
    use crate::op::{Binary, Conv, Pool, PoolKind, Squeeze, Unary, Unsqueeze};

    fn pool(kernel: [usize; 2], layout: Layout) -> Pool {
        Pool {
            kind: PoolKind::Max,
            kernel: kernel.to_vec(),
            strides: vec![1, 1],
            pads: Pads::none(2),
            dilations: vec![1, 1],
            ceil_mode: false,
            count_include_pad: false,
            layout,
        }
    }

    #[test]
    fn convolution_of_one_dimension() {
        for (reshape, axis) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
            let mut net = Net::new();
            let x = net.x(&[5, 3]);
            let shape = if axis == 1 { [1, 5, 3] } else { [5, 1, 3] };
            let y = if reshape { net.reshape(x, batch(&shape)) } else { net.op(Unsqueeze { axes: vec![axis] }, &[x]) };
            let kernel = if axis == 1 { [1, 2, 3, 4] } else { [2, 1, 3, 4] };
            let y = net.conv(y, &kernel, Layout::ChannelsLast);
            let b = net.weight("b", &[4]);
            let y = net.bin(Binary::Mul, y, b);
            let y = net.un(Unary::Relu, y);
            let y = net.op(Squeeze { axes: vec![axis] }, &[y]);
            let graph = net.check(&[y], run);
            let id = the(&graph, "Conv");
            let w = graph.input_of(id, 1).unwrap();
            assert_eq!((graph.shape(w), graph.node(w.node).name.as_str()), (&Shape::known(&[2, 3, 4]), "weights"));
            assert!(matches!(graph.op(id), Op::Conv(Conv { strides, .. }) if strides.len() == 1));
        }
    }

    #[test]
    fn channels_first_and_pooling() {
        let mut net = Net::new();
        let x = net.x(&[3, 5]);
        let y = net.op(Unsqueeze { axes: vec![2] }, &[x]);
        let y = net.conv(y, &[1, 2, 3, 3], Layout::ChannelsFirst);
        let y = net.op(pool([1, 2], Layout::ChannelsFirst), &[y]);
        let y = net.op(Squeeze { axes: vec![2] }, &[y]);
        assert_eq!(net.ops(&[y], run), ["Conv", "Pool"]);
    }

    #[test]
    fn a_reshape_that_does_more_than_squeeze() {
        let mut net = Net::new();
        let x = net.x(&[5, 3]);
        let y = net.op(Unsqueeze { axes: vec![1] }, &[x]);
        let y = net.conv(y, &[1, 2, 3, 4], Layout::ChannelsLast);
        let y = net.reshape(y, batch(&[16]));
        assert_eq!(net.ops(&[y], run), ["Conv", "Reshape"]);
    }

    #[test]
    fn near_misses_stay() {
        // A window over the new axis; another axis is taken out than was put in; no window at all.
        let mut net = Net::new();
        let x = net.x(&[1, 3]);
        let y = net.op(Unsqueeze { axes: vec![3] }, &[x]);
        let y = net.conv(y, &[1, 3, 1, 4], Layout::ChannelsLast);
        let y = net.op(Squeeze { axes: vec![2] }, &[y]);
        assert_eq!(net.ops(&[y], run), ["Unsqueeze", "Conv", "Squeeze"]);
        let mut net = Net::new();
        let x = net.x(&[5, 3]);
        let y = net.op(Unsqueeze { axes: vec![1] }, &[x]);
        let mut op = pool([3, 1], Layout::ChannelsLast);
        op.pads = Pads(vec![(1, 1), (0, 0)]);
        let y = net.op(op, &[y]);
        let y = net.op(Squeeze { axes: vec![1] }, &[y]);
        assert_eq!(net.ops(&[y], run), ["Unsqueeze", "Pool", "Squeeze"]);
        let mut net = Net::new();
        let x = net.x(&[5, 3]);
        let y = net.op(Unsqueeze { axes: vec![1] }, &[x]);
        let y = net.un(Unary::Relu, y);
        let y = net.op(Squeeze { axes: vec![1] }, &[y]);
        assert_eq!(net.ops(&[y], run), ["Unsqueeze", "Relu", "Squeeze"]);
    }
}
