//! Makes a product and a sum per channel behind a normalisation its scale and bias, where it has none.
//!
//! ```text
//! x -> GroupNorm -> Mul gamma -> Add beta      x -> GroupNorm(gamma, beta)
//! ```

use super::pattern::{is_constant, orders, varying_axes};
use super::rewrite::{Scopes, forward, fuse, shaped};
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Binary, Op};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    // The layers of a source with modules are complete as they are, and their weights keep their shapes.
    if !graph.modules.is_empty() {
        return Ok(0);
    }
    let scopes = Scopes::of(graph);
    forward(graph, |graph, id| {
        let Some(found) = find(graph, id) else { return Ok(false) };
        let op = graph.op(found.norm).clone();
        let mut inputs = graph.inputs_of(found.norm);
        if inputs.len() <= found.slot {
            inputs.resize(found.slot + 1, None);
        }
        let parameter = shaped(graph, found.parameter, &found.sizes)?;
        if let Some(input) = inputs.get_mut(found.slot) {
            *input = Some(parameter);
        }
        fuse(graph, &scopes, id, op, &inputs)?;
        Ok(true)
    })
}

struct Found {
    norm: NodeId,
    slot: usize,
    parameter: Value,
    sizes: Vec<usize>,
}

fn find(graph: &Graph, id: NodeId) -> Option<Found> {
    let value = Value::from(id);
    let (kind, slot) = match graph.op(id) {
        Op::Binary(Binary::Mul) => (Binary::Mul, 1),
        Op::Binary(Binary::Add) => (Binary::Add, 2),
        _ => return None,
    };
    orders(graph, value, kind).into_iter().find_map(|(x, parameter)| {
        let shape = graph.shape(x);
        let axes = match graph.op(x.node) {
            Op::LayerNorm(op) => op.axes.clone(),
            Op::InstanceNorm(op) => vec![op.layout.channel_axis(shape.rank())],
            Op::GroupNorm(op) => vec![op.layout.channel_axis(shape.rank())],
            Op::BatchNorm(op) => vec![op.layout.channel_axis(shape.rank())],
            _ => return None,
        };
        // A scale can't come in front of a bias that is there.
        let free = (slot..=2).all(|slot| graph.input_of(x.node, slot).is_none());
        let sizes: Vec<usize> = axes.iter().map(|&axis| shape.get(axis)?.known()).collect::<Option<_>>()?;
        let wide: Vec<usize> = axes.iter().zip(&sizes).filter(|(_, size)| **size != 1).map(|(axis, _)| *axis).collect();
        let fits = free
            && axes.is_sorted()
            && graph.uses(x) == 1
            && graph.shape(value) == shape
            && graph.shape(parameter).rank() > 0
            && is_constant(graph, parameter)
            && varying_axes(graph.shape(parameter), shape)? == wide;
        fits.then_some(Found { norm: x.node, slot, parameter, sizes })
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, ops, the};
    use super::*;
    use crate::layout::Layout;
    use crate::op::{GroupNorm, LayerNorm};
    use crate::shape::Shape;

    #[test]
    fn a_scale_and_a_bias() {
        for (layout, sizes) in [(Layout::ChannelsLast, &[4][..]), (Layout::ChannelsFirst, &[1, 4, 1, 1])] {
            let mut net = Net::new();
            let x = net.x(&[4, 4, 4]);
            let y = net.op(GroupNorm { groups: 2, epsilon: 0.1, layout }, &[x]);
            let (gamma, beta) = (net.weight("gamma", sizes), net.weight("beta", sizes));
            let y = net.mul(gamma, y);
            let y = net.add(y, beta);
            let graph = net.check(&[y], run);
            assert_eq!(ops(&graph), ["GroupNorm"]);
            let gamma = graph.input_of(the(&graph, "GroupNorm"), 1).unwrap();
            assert_eq!(*graph.shape(gamma), Shape::known(&[4]));
        }
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let y = net.op(LayerNorm { axes: vec![1, 2], epsilon: 0.1 }, &[x]);
        let beta = net.weight("beta", &[4, 3]);
        let y = net.add(y, beta);
        assert_eq!(net.ops(&[y], run), ["LayerNorm"]);
    }

    #[test]
    fn near_misses_stay() {
        // A scale behind a bias; a vector along another axis; a normalisation that others read.
        let norm = |net: &mut Net| {
            let x = net.x(&[4, 4, 4]);
            net.op(GroupNorm { groups: 2, epsilon: 0.1, layout: Layout::ChannelsLast }, &[x])
        };
        let mut net = Net::new();
        let y = norm(&mut net);
        let (a, b) = (net.weight("a", &[4]), net.weight("b", &[4]));
        let y = net.add(y, a);
        let y = net.mul(y, b);
        assert_eq!(net.ops(&[y], run), ["GroupNorm", "Mul"]);
        let mut net = Net::new();
        let y = norm(&mut net);
        let a = net.weight("a", &[4, 1]);
        let y = net.mul(y, a);
        assert_eq!(net.ops(&[y], run), ["GroupNorm", "Mul"]);
        let mut net = Net::new();
        let y = norm(&mut net);
        let a = net.weight("a", &[4]);
        let z = net.mul(y, a);
        assert_eq!(net.ops(&[y, z], run), ["GroupNorm", "Mul"]);
    }
}
