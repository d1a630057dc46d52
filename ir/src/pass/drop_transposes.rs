//! Drops the transposes around a function along one axis, which then takes the axis as it is.
//!
//! ```text
//! x [N, H, W, C] -> Transpose [0, 2, 3, 1] -> Softmax over axis 3 -> Transpose [0, 3, 1, 2]      x -> Softmax over axis 1
//! ```
//!
//! TensorFlow's softmax knows the last axis only, and its library writes the transposes for any other.

use super::pattern::{is_constant, operands};
use super::rewrite::backward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{L2Normalize, Op, Reverse};

/// Operators between the transposes.
const DEPTH: usize = 16;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    backward(graph, |graph, id| {
        let Some(found) = find(graph, id) else { return Ok(false) };
        let mut value = found.x;
        for (node, slot) in found.chain.into_iter().rev() {
            let mut op = graph.op(node).clone();
            renumber(&mut op, &found.perm);
            let mut inputs = graph.inputs_of(node);
            if let Some(input) = inputs.get_mut(slot) {
                *input = Some(value);
            }
            graph.replace_op(node, op, &inputs)?;
            value = node.into();
        }
        graph.replace_uses(id.into(), value);
        Ok(true)
    })
}

struct Found {
    /// What enters the first transpose.
    x: Value,
    /// That of the first transpose.
    perm: Vec<usize>,
    /// The operators and the slots by which data enters, the last one first.
    chain: Vec<(NodeId, usize)>,
}

fn find(graph: &Graph, id: NodeId) -> Option<Found> {
    let Op::Transpose(back) = graph.op(id) else { return None };
    let mut value = graph.input_of(id, 0)?;
    let mut chain = Vec::new();
    loop {
        if let Op::Transpose(there) = graph.op(value.node) {
            let inverse =
                back.perm.iter().map(|&axis| there.perm.get(axis).copied()).eq((0..back.perm.len()).map(Some));
            let x = graph.input_of(value.node, 0)?;
            return (inverse && !chain.is_empty()).then(|| Found { x, perm: there.perm.clone(), chain });
        }
        if graph.uses(value) != 1 || chain.len() >= DEPTH {
            return None;
        }
        let slot = data_slot(graph, value)?;
        chain.push((value.node, slot));
        value = graph.input_of(value.node, slot)?;
    }
}

/// The slot by which data enters an operator that cares for no axes or for axes that can be renumbered.
fn data_slot(graph: &Graph, value: Value) -> Option<usize> {
    match graph.op(value.node) {
        Op::Unary(_) | Op::LeakyRelu(_) | Op::Elu(_) | Op::Gelu(_) | Op::Clip(_) | Op::Dropout(_) | Op::Cast(_) => {
            Some(0)
        }
        Op::Softmax(_) | Op::LogSoftmax(_) | Op::CumSum(_) | Op::Reverse(_) | Op::L2Normalize(_) => Some(0),
        Op::Binary(_) => {
            let (a, b) = operands(graph, value)?;
            let number = |v: Value| graph.shape(v).rank() == 0 && is_constant(graph, v);
            if number(b) {
                Some(0)
            } else if number(a) {
                Some(1)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// Axis `i` of the transposed value is axis `perm[i]` of the other.
fn renumber(op: &mut Op, perm: &[usize]) {
    let axis = |axis: usize| perm.get(axis).copied().unwrap_or(axis);
    match op {
        Op::Softmax(op) => op.axis = axis(op.axis),
        Op::LogSoftmax(op) => op.axis = axis(op.axis),
        Op::CumSum(op) => op.axis = axis(op.axis),
        Op::Reverse(Reverse { axes }) | Op::L2Normalize(L2Normalize { axes, .. }) => {
            *axes = axes.iter().map(|&a| axis(a)).collect();
            axes.sort_unstable();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, the};
    use super::*;
    use crate::op::{LayerNorm, Softmax, Transpose, Unary};

    #[test]
    fn softmax_over_another_axis() {
        let mut net = Net::new();
        let x = net.x(&[3, 4, 5]);
        let y = net.op(Transpose { perm: vec![0, 2, 3, 1] }, &[x]);
        let y = net.times(2.0, y);
        let y = net.op(Softmax { axis: 3 }, &[y]);
        let y = net.un(Unary::Square, y);
        let y = net.op(Transpose { perm: vec![0, 3, 1, 2] }, &[y]);
        let graph = net.check(&[y], run);
        assert!(matches!(graph.op(the(&graph, "Softmax")), Op::Softmax(Softmax { axis: 1 })));
        assert_eq!(super::super::testing::ops(&graph), ["Mul", "Softmax", "Square"]);
    }

    #[test]
    fn near_misses_stay() {
        // Not the inverse; a reader between; an operator with parameters along an axis.
        let mut net = Net::new();
        let x = net.x(&[3, 3, 3]);
        let turned = net.op(Transpose { perm: vec![0, 2, 3, 1] }, &[x]);
        let y = net.op(Softmax { axis: 3 }, &[turned]);
        let again = net.op(Transpose { perm: vec![0, 2, 3, 1] }, &[y]);
        let z = net.un(Unary::Relu, turned);
        let back = net.op(Transpose { perm: vec![0, 3, 1, 2] }, &[z]);
        let norm = net.op(LayerNorm { axes: vec![3], epsilon: 0.1 }, &[turned]);
        let norm = net.op(Transpose { perm: vec![0, 3, 1, 2] }, &[norm]);
        let ops = net.ops(&[again, back, z, norm], run);
        assert_eq!(ops.iter().filter(|op| *op == "Transpose").count(), 4);
    }
}
