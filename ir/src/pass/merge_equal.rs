//! Merges operators of one name scope that compute the same from the same inputs, and equal numbers.
//!
//! ```text
//! x -> Exp -> a            x -> Exp -> a
//! x -> Exp -> b                     -> b
//! ```
//!
//! Only within a scope: two blocks that each begin with the relu of their common input are two equal modules, and
//! would be two different ones if the second took the relu of the first. Weights are never merged, whatever their
//! values: after training they may differ.

use std::collections::HashMap;

use super::rewrite::forward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::Op;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let mut seen: HashMap<(String, Vec<Option<Value>>), NodeId> = HashMap::new();
    forward(graph, |graph, id| {
        let Some(key) = key(graph, id) else { return Ok(false) };
        let Some(&first) = seen.get(&key) else {
            seen.insert(key, id);
            return Ok(false);
        };
        for output in 0..graph.node(id).outputs.len() {
            graph.replace_uses(Value { node: id, output }, Value { node: first, output });
        }
        Ok(true)
    })
}

/// What a node computes, and in which scope; `None` for those that are each their own.
fn key(graph: &Graph, id: NodeId) -> Option<(String, Vec<Option<Value>>)> {
    let node = graph.node(id);
    let text = match &node.op {
        Op::Input(_) | Op::Foreign(_) | Op::Dropout(_) => return None,
        Op::Constant(constant) => {
            let tensor = &constant.tensor;
            if tensor.rank() != 0 || constant.trainable {
                return None;
            }
            format!("{}:{:?}", tensor.dtype(), tensor.to_bytes().ok()?)
        }
        op => format!("{}:{op:?}", node.name.rsplit_once('/').map_or("", |(scope, _)| scope)),
    };
    let mut inputs = graph.inputs_of(id);
    if let Op::Binary(op) = &node.op
        && op.is_commutative()
    {
        inputs.sort_unstable();
    }
    Some((text, inputs))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Net;
    use super::*;
    use crate::op::{Dropout, Unary};

    #[test]
    fn equal_expressions_of_a_scope() {
        let mut net = Net::new();
        let x = net.x(&[3]);
        let make = |net: &mut Net| {
            let two = net.times(2.0, x);
            net.un(Unary::Exp, two)
        };
        let (a, b) = (make(&mut net), make(&mut net));
        let y = net.add(a, b);
        let swapped = net.add(b, a);
        assert_eq!(net.ops(&[y, swapped], run), ["Mul", "Exp", "Add"]);
    }

    #[test]
    fn near_misses_stay() {
        let mut net = Net::new();
        let x = net.x(&[3]);
        let (v, w) = (net.weight("v", &[3]), net.weight("w", &[3]));
        let (a, b) = (net.sub(x, v), net.sub(x, w));
        let (c, d) = (net.op(Dropout { rate: 0.5 }, &[x]), net.op(Dropout { rate: 0.5 }, &[x]));
        let e = net.sub(v, x);
        let tensor = crate::Tensor::from_f32(&[], &[1.0]);
        let (s, t) = (net.graph.variable("s", tensor.clone()), net.graph.variable("t", tensor));
        let (s, t) = (net.mul(x, s), net.mul(x, t));
        net.scope = "block".to_owned();
        let f = net.sub(x, v);
        assert_eq!(
            net.ops(&[a, b, c, d, e, s, t, f], run),
            ["Sub", "Sub", "Dropout", "Dropout", "Sub", "Mul", "Mul", "Sub"]
        );
    }
}
