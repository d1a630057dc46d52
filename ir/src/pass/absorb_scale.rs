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
        fits.then(|| Found { norm: x.node, slot, parameter, sizes })
    })
}
