//! Makes the sum of a convolution or dense layer and a constant per channel the layer's bias.
//!
//! ```text
//! x -> Conv(w) -> Add b [C]                         x -> Conv(w, b)
//! x -> Dense(w) -> Reshape [N, T, C] -> Add b       x -> Dense(w, b) -> Reshape [N, T, C]
//! ```
//!
//! The constant may have axes of size 1 around its channels, and a squeeze or reshape that keeps the channels apart
//! may stand between. The layer must have no bias yet and nobody else must read its result.

use super::pattern::{orders, varying_axes};
use super::rewrite::{forward, shaped};
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Binary, Op};

/// Regrouping operators between the layer and the sum.
const DEPTH: usize = 4;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    // The layers of a source with modules are complete as they are, and their weights keep their shapes.
    if !graph.modules.is_empty() {
        return Ok(0);
    }
    forward(graph, |graph, id| {
        let Some(found) = find(graph, id) else { return Ok(false) };
        let bias = shaped(graph, found.bias, &[found.channels])?;
        let op = graph.op(found.layer).clone();
        let inputs = [graph.input_of(found.layer, 0), graph.input_of(found.layer, 1), Some(bias)];
        graph.replace_op(found.layer, op, &inputs)?;
        graph.replace_uses(id.into(), found.sum);
        Ok(true)
    })
}

struct Found {
    layer: NodeId,
    /// The operand of the sum that comes from the layer.
    sum: Value,
    bias: Value,
    channels: usize,
}

fn find(graph: &Graph, id: NodeId) -> Option<Found> {
    orders(graph, id.into(), Binary::Add).into_iter().find_map(|(sum, bias)| {
        let tensor = graph.tensor(bias)?;
        let (layer, axis) = layer(graph, sum).filter(|(layer, _)| graph.input_of(*layer, 2).is_none())?;
        let shape = graph.shape(sum);
        let channels = shape.get(axis)?.known()?;
        let varying = varying_axes(graph.shape(bias), shape)?;
        let along = if channels == 1 { varying.is_empty() } else { varying == [axis] };
        let fits = along
            && tensor.rank() > 0
            && tensor.numel() == channels
            && shape == graph.shape(id.into())
            && tensor.dtype() == graph.info(sum).dtype;
        fits.then_some(Found { layer, sum, bias, channels })
    })
}

/// The layer from which alone a value comes, and the value's channel axis.
pub(super) fn layer(graph: &Graph, mut value: Value) -> Option<(NodeId, usize)> {
    let mut between = Vec::new();
    for _ in 0..DEPTH {
        if graph.uses(value) != 1 {
            return None;
        }
        let op = graph.op(value.node);
        let rank = graph.shape(value).rank();
        let axis = match op {
            Op::Conv(op) => op.layout.channel_axis(rank),
            Op::ConvTranspose(op) => op.layout.channel_axis(rank),
            Op::Dense(_) => rank.checked_sub(1)?,
            _ if super::pattern::is_regrouping(op) => {
                between.push(value);
                value = graph.input_of(value.node, 0)?;
                continue;
            }
            _ => return None,
        };
        let axis = between.iter().rev().try_fold(axis, |axis, &step| follow(graph, step, axis))?;
        return Some((value.node, axis));
    }
    None
}

/// Where an axis of the input is in the result of a regrouping operator, if it stays as it is.
fn follow(graph: &Graph, value: Value, axis: usize) -> Option<usize> {
    match graph.op(value.node) {
        Op::Squeeze(op) if op.axes.contains(&axis) => None,
        Op::Squeeze(op) => Some(axis - op.axes.iter().filter(|&&gone| gone < axis).count()),
        Op::Unsqueeze(op) => {
            let rank = graph.shape(value).rank();
            (0..rank).filter(|new| !op.axes.contains(new)).nth(axis)
        }
        Op::Reshape(_) => {
            // The last axis stays the last as long as it keeps its size.
            let (before, after) = (graph.shape(graph.input_of(value.node, 0)?), graph.shape(value));
            let last = axis + 1 == before.rank() && before.last()?.known()? == after.last()?.known()?;
            last.then(|| after.rank() - 1)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, batch, ops, the};
    use super::*;
    use crate::layout::Layout;
    use crate::op::{Dense, Squeeze, Unary};
    use crate::shape::Shape;

    #[test]
    fn a_vector_per_channel() {
        for (layout, shapes) in [
            (Layout::ChannelsLast, &[&[4][..], &[1, 1, 1, 4], &[1, 4]]),
            (Layout::ChannelsFirst, &[&[4, 1, 1][..], &[1, 4, 1, 1], &[1, 4, 1, 1]]),
        ] {
            for shape in shapes {
                for first in [true, false] {
                    let mut net = Net::new();
                    let x = net.x(&[4, 4, 4]);
                    let y = net.conv(x, &[1, 1, 4, 4], layout);
                    let b = net.weight("biases", shape);
                    let y = if first { net.add(b, y) } else { net.add(y, b) };
                    let graph = net.check(&[y], run);
                    assert_eq!(ops(&graph), ["Conv"]);
                    let bias = graph.input_of(the(&graph, "Conv"), 2).unwrap();
                    assert_eq!(
                        (graph.shape(bias), graph.node(bias.node).name.as_str()),
                        (&Shape::known(&[4]), "biases")
                    );
                }
            }
        }
    }

    #[test]
    fn behind_a_squeeze_or_a_reshape() {
        let mut net = Net::new();
        let x = net.x(&[1, 5, 3]);
        let y = net.conv(x, &[1, 3, 3, 4], Layout::ChannelsLast);
        let y = net.op(Squeeze { axes: vec![1] }, &[y]);
        let b = net.weight("b", &[4]);
        let y = net.add(y, b);
        assert_eq!(net.ops(&[y], run), ["Conv", "Squeeze"]);
        let mut net = Net::new();
        let x = net.x(&[6]);
        let w = net.weight("w", &[6, 4]);
        let y = net.op(Dense {}, &[x, w]);
        let y = net.reshape(y, batch(&[1, 1, 4]));
        let b = net.weight("b", &[4]);
        let y = net.add(y, b);
        assert_eq!(net.ops(&[y], run), ["Dense", "Reshape"]);
    }

    #[test]
    fn near_misses_stay() {
        // A spatial axis of the same size; a result with another reader; a second bias.
        let mut net = Net::new();
        let x = net.x(&[4, 4, 4]);
        let y = net.conv(x, &[1, 1, 4, 4], Layout::ChannelsFirst);
        let b = net.weight("b", &[4]);
        let y = net.add(y, b);
        assert_eq!(net.ops(&[y], run), ["Conv", "Add"]);
        let mut net = Net::new();
        let x = net.x(&[4, 4, 4]);
        let y = net.conv(x, &[1, 1, 4, 4], Layout::ChannelsLast);
        let b = net.weight("b", &[4]);
        let z = net.add(y, b);
        let y = net.un(Unary::Relu, y);
        assert_eq!(net.ops(&[y, z], run), ["Conv", "Add", "Relu"]);
        let mut net = Net::new();
        let x = net.x(&[4, 4, 4]);
        let y = net.conv(x, &[1, 1, 4, 4], Layout::ChannelsLast);
        let (a, b) = (net.weight("a", &[4]), net.weight("b", &[4]));
        let y = net.add(y, a);
        let y = net.add(y, b);
        assert_eq!(net.ops(&[y], run), ["Conv", "Add"]);
        // A number is none, and channels that a reshape cut.
        let mut net = Net::new();
        let x = net.x(&[4]);
        let w = net.weight("w", &[4, 6]);
        let y = net.op(Dense {}, &[x, w]);
        let y = net.reshape(y, batch(&[2, 3]));
        let b = net.weight("b", &[3]);
        let y = net.add(y, b);
        assert_eq!(net.ops(&[y], run), ["Dense", "Reshape", "Add"]);
    }
}
