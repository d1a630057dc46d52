//! Parts of one axis that are laid behind each other along another axis are a transpose.
//!
//! ```text
//! x [N, T, H*D] -> Split 2 into H -> Concat 0 [H*N, T, D]      x -> [N, T, H, D] -> [H, N, T, D] -> [H*N, T, D]
//! x [H, N, T, D] -> Unpack 0 -> Concat 2 [N, T, H*D]           x -> [N, T, H, D] -> [N, T, H*D]
//! ```
//!
//! So are the heads of an attention taken apart and joined, where the batch has room for them. Images stay: a transpose
//! of theirs would meet the layout.

use super::rewrite::forward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Op, Reshape, Transpose};
use crate::shape::{Dim, Shape};

/// Runs the pass. Where the source has modules it stays as it is.
pub fn run(graph: &mut Graph) -> Result<usize> {
    if !graph.modules.is_empty() {
        return Ok(0);
    }
    forward(graph, |graph, id| {
        let Some(turned) = turned(graph, id) else { return Ok(false) };
        let name = graph.node(id).name.clone();
        let shape = graph.shape(id.into()).clone();
        let mut x = turned.x;
        if let Some(shape) = turned.parts {
            x = graph.add(Reshape { shape }, &name, &[x])?.into();
        }
        x = graph.add(Transpose { perm: turned.perm }, &name, &[x])?.into();
        x = graph.add(Reshape { shape }, &name, &[x])?.into();
        graph.replace_uses(id.into(), x);
        Ok(true)
    })
}

struct Turned {
    x: Value,
    /// What `x` has to be reshaped to, for the parts to have an axis of their own.
    parts: Option<Shape>,
    perm: Vec<usize>,
}

fn turned(graph: &Graph, id: NodeId) -> Option<Turned> {
    let Op::Concat(concat) = graph.op(id) else { return None };
    let parts: Vec<Value> = graph.inputs_of(id).into_iter().flatten().collect();
    let source = parts.first()?.node;
    let count = graph.node(source).outputs.len();
    let in_order = (0..count).map(|output| Value { node: source, output });
    if count < 2 || graph.shape(id.into()).rank() != 3 || !parts.iter().copied().eq(in_order) {
        return None;
    }
    let x = graph.input_of(source, 0)?;
    let (axis, shape) = match graph.op(source) {
        Op::Unpack(unpack) => (unpack.axis, None),
        Op::Split(split) if split.axis != concat.axis => {
            let size = *split.sizes.first()?;
            let mut shape = graph.shape(x).clone();
            shape[split.axis] = Dim::Known(size);
            shape.insert(split.axis, Dim::Known(count));
            split.sizes.iter().all(|other| *other == size).then_some((split.axis, Some(shape)))?
        }
        _ => return None,
    };
    // The axis of the parts comes right before the one along which they lie.
    let mut perm: Vec<usize> = (0..4).filter(|other| *other != axis).collect();
    perm.insert(concat.axis, axis);
    (graph.shape(id.into()).is_determined() && perm != [0, 1, 2, 3]).then_some(Turned { x, parts: shape, perm })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Net;
    use super::*;
    use crate::op::{Concat, Pack, Split, Unary, Unpack};

    fn parts(net: &mut Net, op: impl Into<Op>, x: Value, count: usize) -> Vec<Value> {
        let node = net.op(op, &[x]).node;
        (0..count).map(|output| Value { node, output }).collect()
    }

    #[test]
    fn heads_are_laid_along_the_batch_and_back() {
        let mut net = Net::new();
        let x = net.x(&[5, 6]);
        let heads = parts(&mut net, Split { axis: 2, sizes: vec![2; 3] }, x, 3);
        let behind = net.op(Concat { axis: 0 }, &heads);
        let y = net.un(Unary::Relu, behind);
        let shape: Shape = [Dim::Known(3), Dim::symbol("N"), Dim::Known(5), Dim::Known(2)].into_iter().collect();
        let rows = net.reshape(y, shape);
        let heads = parts(&mut net, Unpack { axis: 0, count: 3 }, rows, 3);
        let joined = net.op(Concat { axis: 2 }, &heads);
        let ops = net.ops(&[joined], run);
        assert!(!ops.iter().any(|op| ["Split", "Unpack", "Concat"].contains(&op.as_str())), "{ops:?}");
    }

    #[test]
    fn near_misses_stay() {
        // Another order; along the same axis; packed, not joined.
        for miss in 0..3 {
            let mut net = Net::new();
            let x = net.x(&[5, 6]);
            let mut heads = parts(&mut net, Split { axis: 2, sizes: vec![2; 3] }, x, 3);
            if miss == 0 {
                heads.swap(0, 1);
            }
            let y = match miss {
                0 => net.op(Concat { axis: 0 }, &heads),
                1 => net.op(Concat { axis: 2 }, &heads),
                _ => net.op(Pack { axis: 0 }, &heads),
            };
            let ops = net.ops(&[y], run);
            assert!(ops.contains(&"Split".to_owned()), "{ops:?}");
        }
    }
}
