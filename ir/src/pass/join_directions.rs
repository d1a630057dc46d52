//! Joins recurrent layers that run over a sequence in both directions.
//!
//! ```text
//! Concat(Recurrent(x), Reverse(Recurrent(Reverse(x))))      x -> Recurrent { bidirectional: true }
//! ```

use super::rewrite::forward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Cell, Op, Recurrent};

/// Runs the pass. Where the source has modules they stay.
pub fn run(graph: &mut Graph) -> Result<usize> {
    if !graph.modules.is_empty() {
        return Ok(0);
    }
    forward(graph, |graph, id| match both_ways(graph, id) {
        Some((name, op, inputs)) => {
            let layer = graph.add(op, &name, &inputs)?;
            graph.replace_uses(id.into(), layer.into());
            Ok(true)
        }
        None => Ok(false),
    })
}

/// A layer that runs in both directions, where `id` joins a sequence with that of a layer of the same kind over the
/// reversed sequence: its name, the layer, and what it takes.
fn both_ways(graph: &Graph, id: NodeId) -> Option<(String, Recurrent, Vec<Value>)> {
    if !matches!(graph.op(id), Op::Concat(concat) if concat.axis == 2) {
        return None;
    }
    let joined: Vec<Value> = graph.inputs_of(id).into_iter().flatten().collect();
    let [ahead, reversed] = joined.as_slice() else { return None };
    let layer = |value: Value| match graph.op(value.node) {
        // Their states would have to be taken apart again.
        Op::Recurrent(op) if op.cell == Cell::GruResetBefore => None, // one direction is all that it can
        Op::Recurrent(op) if value.output == 0 && !op.bidirectional && op.layers == 1 && !op.initial => {
            let states = 1..=op.states();
            states.into_iter().all(|output| graph.uses(Value { node: value.node, output }) == 0).then_some(op)
        }
        _ => None,
    };
    let op = layer(*ahead)?;
    let time = usize::from(op.batch_first);
    let turned = |value: Value| match graph.op(value.node) {
        Op::Reverse(reverse) if reverse.axes == [time] => graph.input_of(value.node, 0),
        _ => None,
    };
    let back = turned(*reversed)?;
    let (x, mut inputs) = (graph.input_of(ahead.node, 0)?, graph.inputs_of(ahead.node));
    if layer(back)? != op || turned(graph.input_of(back.node, 0)?)? != x {
        return None;
    }
    inputs.extend(graph.inputs_of(back.node).into_iter().skip(1));
    let names = [ahead, &back].map(|value| graph.node(value.node).name.split('/').collect::<Vec<_>>());
    let shared = names[0].iter().zip(&names[1]).take_while(|(a, b)| a == b).count();
    let name = if shared == 0 { names[0].join("/") } else { format!("{}/rnn", names[0][..shared].join("/")) };
    Some((name, Recurrent { bidirectional: true, ..op.clone() }, inputs.into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, the};
    use super::*;
    use crate::op::{Concat, Reverse};

    fn layer(net: &mut Net, x: Value, cell: Cell) -> Value {
        let weights = [&[8, 3][..], &[8, 2], &[8], &[8]].map(|shape| net.weight("w", shape));
        let op = Recurrent {
            cell,
            hidden: 8 / cell.gates(),
            layers: 1,
            bidirectional: false,
            batch_first: true,
            bias: true,
            initial: false,
            dropout: 0.0,
        };
        net.op(op, &[&[x][..], &weights].concat())
    }

    fn flip(net: &mut Net, x: Value) -> Value {
        net.op(Reverse { axes: vec![1] }, &[x])
    }

    #[test]
    fn one_layer_for_both_directions() {
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let ahead = layer(&mut net, x, Cell::Lstm);
        let back = flip(&mut net, x);
        let back = layer(&mut net, back, Cell::Lstm);
        let back = flip(&mut net, back);
        let y = net.op(Concat { axis: 2 }, &[ahead, back]);
        let graph = net.check(&[y], run);
        let Op::Recurrent(op) = graph.op(the(&graph, "Recurrent")) else { panic!() };
        assert!(op.bidirectional);
    }

    #[test]
    fn near_misses_stay() {
        // A state that is read; results that are not turned again; two layers in one direction.
        for miss in 0..3 {
            let mut net = Net::new();
            let x = net.x(&[4, 3]);
            let ahead = layer(&mut net, x, Cell::Lstm);
            let back = if miss == 2 { x } else { flip(&mut net, x) };
            let back = layer(&mut net, back, Cell::Lstm);
            let turned = if miss == 1 { back } else { flip(&mut net, back) };
            let y = net.op(Concat { axis: 2 }, &[ahead, turned]);
            let outputs = if miss == 0 { vec![y, Value { node: back.node, output: 1 }] } else { vec![y] };
            let ops = net.ops(&outputs, run);
            assert_eq!(ops.iter().filter(|op| *op == "Recurrent").count(), 2, "{miss}");
        }
    }
}
