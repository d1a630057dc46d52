//! Drops the reshapes around operators that work on the last axis alone.
//!
//! ```text
//! x [N, T, C] -> Reshape [-1, C] -> Dense -> Reshape [N, T, D]           x -> Dense
//! x [N, C] -> Reshape [N, 1, 1, C] -> BatchNorm -> Squeeze [1, 2]        x -> BatchNorm
//! x [N, T, C] -> Reshape [-1, C] -> Dense -> Reshape [N, T, H, D / H]    x -> Dense -> Reshape [N, T, H, D / H]
//! x [N, T, H, C] -> Reshape [-1, H * C] -> Dense -> Reshape [N, T, D]    x -> Reshape [N, T, H * C] -> Dense
//! ```
//!
//! The shapes must prove that the second reshape puts the leading axes back as they were. Flattening an image for a
//! dense layer is no such case: the batch stays in front.

use super::pattern::{is_constant, is_regrouping};
use super::rewrite::backward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::layout::Layout;
use crate::op::{Op, Reshape};
use crate::shape::{Dim, Shape};

/// Operators between the reshapes.
const DEPTH: usize = 16;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    backward(graph, |graph, id| {
        let Some(Found { x, unfolded, chain }) = find(graph, id) else { return Ok(false) };
        let mut value = match unfolded {
            Some(shape) => {
                let name = graph.node(id).name.clone();
                graph.add(Reshape { shape }, &format!("{name}/unfolded"), &[x])?.into()
            }
            None => x,
        };
        let rank = graph.shape(value).rank();
        for step in chain.into_iter().rev() {
            let mut op = graph.op(step.node).clone();
            set_last_axis(&mut op, rank - 1);
            let mut inputs = graph.inputs_of(step.node);
            if let Some(input) = inputs.get_mut(step.slot) {
                *input = Some(value);
            }
            graph.replace_op(step.node, op, &inputs)?;
            value = step.node.into();
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

/// An operator between the reshapes, and the slot by which data enters.
struct Step {
    node: NodeId,
    slot: usize,
}

struct Found {
    /// What enters the first reshape.
    x: Value,
    /// The shape that it must have instead, if not that of `x`.
    unfolded: Option<Shape>,
    /// The operators between the reshapes, the last one first.
    chain: Vec<Step>,
}

fn find(graph: &Graph, id: NodeId) -> Option<Found> {
    if !is_regrouping(graph.op(id)) {
        return None;
    }
    let mut value = graph.input_of(id, 0)?;
    let last = graph.shape(value).last()?.known()?;
    let mut chain = Vec::new();
    let mut vectors = 0;
    while !is_regrouping(graph.op(value.node)) {
        let slot = data_slot(graph, value)?;
        let other =
            graph.input_of(value.node, 1 - slot.min(1)).filter(|_| matches!(graph.op(value.node), Op::Binary(_)));
        vectors = other.map_or(vectors, |other| vectors.max(graph.shape(other).rank()));
        if graph.uses(value) != 1 || chain.len() >= DEPTH {
            return None;
        }
        chain.push(Step { node: value.node, slot });
        value = graph.input_of(value.node, slot)?;
    }
    let x = graph.input_of(value.node, 0)?;
    let (from, through, to) = (graph.shape(x), graph.shape(value), graph.shape(id.into()));
    let size = through.last()?.known().filter(|size| *size > 0)?;
    if chain.is_empty() {
        return None;
    }
    // The leading axes of `to` are those of `from`; what is left of `to` are the new features.
    let same = |lead: usize| {
        let (to_lead, to_rest) = to.split_at_checked(lead)?;
        let open = to_lead.iter().filter(|dim| **dim == Dim::Unknown).count();
        let fits =
            lead > 0 && vectors <= lead + 1 && open <= 1 && Shape(to_rest.to_vec()).numel().known() == Some(last);
        fits.then_some(to_lead)
    };
    let lead = from.rank().checked_sub(1)?;
    if from.last()?.known() == Some(size) && same(lead).is_some_and(|found| found.iter().eq(from.iter().take(lead))) {
        return Some(Found { x, unfolded: None, chain });
    }
    // Else the first reshape can give the leading axes of the second, if it did not just flatten.
    let lead = to.rank().checked_sub(1)?;
    let joined = through.rank() == 2 && lead >= 2 && through.first() != to.first();
    let mut unfolded = Shape(same(lead).filter(|_| joined)?.to_vec());
    unfolded.push(Dim::Known(size));
    Some(Found { x, unfolded: Some(unfolded), chain })
}

/// The slot by which data enters an operator that does the same to every vector along the last axis.
fn data_slot(graph: &Graph, value: Value) -> Option<usize> {
    let rank = graph.shape(value).rank();
    let last = |layout: Layout| layout.channel_axis(rank) + 1 == rank;
    match graph.op(value.node) {
        Op::Dense(_) | Op::Unary(_) | Op::LeakyRelu(_) | Op::Elu(_) | Op::Gelu(_) | Op::Clip(_) => Some(0),
        Op::Dropout(_) | Op::Cast(_) => Some(0),
        Op::BatchNorm(op) => last(op.layout).then_some(0),
        Op::PRelu(op) => last(op.layout).then_some(0),
        Op::Softmax(op) => (op.axis + 1 == rank).then_some(0),
        Op::LogSoftmax(op) => (op.axis + 1 == rank).then_some(0),
        Op::LayerNorm(op) => (op.axes == [rank - 1]).then_some(0),
        Op::L2Normalize(op) => (op.axes == [rank - 1]).then_some(0),
        Op::Binary(_) => {
            let (a, b) = super::pattern::operands(graph, value)?;
            let vector = |v: Value, data: Value| {
                let shape = graph.shape(v);
                let lead = shape.len().saturating_sub(1);
                let flat = shape.iter().take(lead).all(|dim| *dim == Dim::Known(1));
                flat && is_constant(graph, v) && graph.shape(data) == graph.shape(value)
            };
            if vector(b, a) {
                Some(0)
            } else if vector(a, b) {
                Some(1)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// Renumbers the last axis.
fn set_last_axis(op: &mut Op, last: usize) {
    match op {
        Op::Softmax(op) => op.axis = last,
        Op::LogSoftmax(op) => op.axis = last,
        Op::LayerNorm(op) => op.axes = vec![last],
        Op::L2Normalize(op) => op.axes = vec![last],
        // Of any rank, the last axis is the channels of channels last; rank 2 may have said it otherwise.
        Op::BatchNorm(op) => op.layout = Layout::ChannelsLast,
        Op::PRelu(op) => op.layout = Layout::ChannelsLast,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, batch, ops};
    use super::*;
    use crate::op::{Binary, Dense, Softmax, Squeeze, Unary};

    fn flat(size: usize) -> Shape {
        Shape(vec![Dim::Unknown, Dim::Known(size)])
    }

    #[test]
    fn a_dense_layer_of_rank_3() {
        for (back, ops) in
            [(&[4, 6][..], &["Dense", "Add", "Relu"][..]), (&[4, 2, 3], &["Dense", "Add", "Relu", "Reshape"])]
        {
            let mut net = Net::new();
            let x = net.x(&[4, 3]);
            let y = net.reshape(x, flat(3));
            let (w, b) = (net.weight("w", &[3, 6]), net.weight("b", &[6]));
            let y = net.op(Dense {}, &[y, w]);
            let y = net.add(b, y);
            let y = net.un(Unary::Relu, y);
            let y = net.reshape(y, batch(back));
            assert_eq!(net.ops(&[y], run), ops);
        }
    }

    #[test]
    fn softmax_over_channels() {
        let mut net = Net::new();
        let x = net.x(&[3, 3, 3]);
        let y = net.reshape(x, flat(3));
        let y = net.op(Softmax { axis: 1 }, &[y]);
        let y = net.reshape(y, batch(&[3, 3, 3]));
        assert_eq!(net.ops(&[y], run), ["Softmax"]);
    }

    #[test]
    fn columns_of_an_image() {
        let mut net = Net::new();
        let x = net.x(&[4, 2, 3]);
        let y = net.reshape(x, flat(6));
        let w = net.weight("w", &[6, 5]);
        let y = net.op(Dense {}, &[y, w]);
        let y = net.reshape(y, batch(&[4, 5]));
        let graph = net.check(&[y], run);
        assert_eq!(ops(&graph), ["Reshape", "Dense"]);
        // Flattening an image stays what it is.
        let mut net = Net::new();
        let x = net.x(&[4, 2, 3]);
        let y = net.reshape(x, batch(&[24]));
        let w = net.weight("w", &[24, 5]);
        let y = net.op(Dense {}, &[y, w]);
        let y = net.reshape(y, batch(&[1, 1, 5]));
        assert_eq!(net.ops(&[y], run), ["Reshape", "Dense", "Reshape"]);
    }

    #[test]
    fn axes_of_size_1_around() {
        let mut net = Net::new();
        let x = net.x(&[3]);
        let y = net.reshape(x, batch(&[1, 1, 3]));
        let w = net.weight("w", &[3]);
        let y = net.mul(y, w);
        let y = net.op(Squeeze { axes: vec![1, 2] }, &[y]);
        assert_eq!(net.ops(&[y], run), ["Mul"]);
    }

    #[test]
    fn near_misses_stay() {
        // Other leading axes; an axis that was cut; a reader between; softmax over what was joined.
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let y = net.reshape(x, flat(3));
        let y = net.un(Unary::Relu, y);
        let z = net.reshape(y, batch(&[2, 6]));
        assert_eq!(net.ops(&[z], run), ["Reshape", "Relu", "Reshape"]);
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let y = net.reshape(x, flat(6));
        let w = net.weight("w", &[6, 6]);
        let y = net.op(Dense {}, &[y, w]);
        let y = net.reshape(y, batch(&[4, 3]));
        assert_eq!(net.ops(&[y], run), ["Reshape", "Dense", "Reshape"]);
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let z = net.reshape(x, flat(3));
        let z = net.un(Unary::Relu, z);
        let y = net.reshape(z, batch(&[4, 3]));
        assert_eq!(net.ops(&[y, z], run), ["Reshape", "Relu", "Reshape"]);
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let y = net.reshape(x, batch(&[12]));
        let y = net.op(Softmax { axis: 1 }, &[y]);
        let y = net.reshape(y, batch(&[4, 3]));
        assert_eq!(net.ops(&[y], run), ["Reshape", "Softmax", "Reshape"]);
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let y = net.reshape(x, batch(&[2, 2, 3]));
        let rows = net.weight("w", &[2, 3]);
        let y = net.bin(Binary::Add, y, rows);
        let y = net.reshape(y, batch(&[4, 3]));
        assert_eq!(net.ops(&[y], run), ["Reshape", "Add", "Reshape"]);
    }
}
