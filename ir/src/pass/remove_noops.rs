//! Removes operators that do nothing, and joins reshapes and transposes that follow each other.
//!
//! ```text
//! x -> Reshape [N, 4] -> Reshape [N, 2, 2] -> y        x -> Reshape [N, 2, 2] -> y
//! x -> Transpose [0, 3, 1, 2] -> Transpose [0, 2, 3, 1] -> y        x -> y
//! x -> Mul 1 -> Add 0 -> Cast to its own type -> y                  x -> y
//! ```
//!
//! Only numbers without axes count as 0 and 1: a bias that happens to be zero stays a bias.

use super::pattern::{is_regrouping, is_zero, number};
use super::rewrite::forward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Binary, Concat, Op, Pads, Reduce, ReduceKind, Reshape, Transpose, Unary, Unsqueeze};
use crate::shape::{Dim, Shape};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    forward(graph, |graph, id| {
        join(graph, id)?;
        let Some(same) = equal(graph, id) else { return Ok(false) };
        for (output, value) in same.into_iter().enumerate() {
            graph.replace_uses(Value { node: id, output }, value);
        }
        Ok(true)
    })
}

/// Whether two values of equal element count and order are one and the same: at most one dimension may be unknown.
fn same_shape(a: &Shape, b: &Shape) -> bool {
    let open = a.iter().filter(|dim| **dim == Dim::Unknown).count();
    a == b && open <= 1 && (open == 0 || !a.contains(&Dim::Known(0)))
}

/// Reads through reshapes in front of a reshape, transposes in front of a transpose, and the like.
fn join(graph: &mut Graph, id: NodeId) -> Result<()> {
    if let Op::Pack(pack) = graph.op(id)
        && let [Some(input)] = graph.inputs_of(id).as_slice()
    {
        let op = Unsqueeze { axes: vec![pack.axis] };
        graph.replace_op(id, op, &[Some(*input)])?;
    }
    if let Op::Binary(_) = graph.op(id) {
        broadcast(graph, id);
    }
    while let Some(input) = graph.input_of(id, 0)
        && let Some(source) = graph.input_of(input.node, 0)
    {
        match (graph.op(id), graph.op(input.node)) {
            (Op::Reshape(_), before) if is_regrouping(before) => {
                // The inferred shape, whose symbols need no derivation from the value between.
                let shape = graph.shape(id.into()).clone();
                if shape.iter().filter(|dim| **dim == Dim::Unknown).count() > 1 {
                    break;
                }
                graph.replace_op(id, Reshape { shape }, &[Some(source)])?;
            }
            (Op::Transpose(after), Op::Transpose(before)) => {
                let perm = after.perm.iter().filter_map(|&axis| before.perm.get(axis).copied()).collect();
                graph.replace_op(id, Transpose { perm }, &[Some(source)])?;
            }
            (Op::Unary(Unary::Neg), Op::Unary(Unary::Neg)) => {
                graph.replace_uses(id.into(), source);
                break;
            }
            _ => break,
        }
    }
    Ok(())
}

/// An operand that was expanded to the shape of the other is expanded by the operator itself.
fn broadcast(graph: &mut Graph, id: NodeId) {
    for (slot, other) in [(0, 1), (1, 0)] {
        let (Some(wide), Some(other)) = (graph.input_of(id, slot), graph.input_of(id, other)) else { return };
        let (Op::Expand(_), Some(source)) = (graph.op(wide.node), graph.input_of(wide.node, 0)) else { continue };
        let (shape, narrow) = (graph.shape(id.into()), graph.shape(source));
        let known = shape.rank() == narrow.rank() && !shape.contains(&Dim::Unknown) && !narrow.contains(&Dim::Unknown);
        if known && graph.shape(other) == shape && graph.shape(wide) == shape {
            graph.set_input(id, slot, Some(source));
        }
    }
}

/// What the outputs of a node that does nothing are.
fn equal(graph: &Graph, id: NodeId) -> Option<Vec<Value>> {
    let x = graph.input_of(id, 0)?;
    let (before, after) = (graph.info(x), graph.info(id.into()));
    let unchanged = same_shape(&before.shape, &after.shape) && before.dtype == after.dtype;
    let nothing = match graph.op(id) {
        Op::Reshape(_) | Op::Expand(_) => unchanged,
        op @ (Op::Squeeze(_) | Op::Unsqueeze(_)) => {
            let source = graph.input_of(x.node, 0).filter(|_| is_regrouping(graph.op(x.node)));
            match source {
                Some(source) if same_shape(graph.shape(source), &after.shape) => return Some(vec![source]),
                _ => match op {
                    Op::Squeeze(op) => op.axes.is_empty(),
                    Op::Unsqueeze(op) => op.axes.is_empty(),
                    _ => false,
                },
            }
        }
        Op::Transpose(op) => op.perm.iter().copied().eq(0..op.perm.len()),
        Op::Cast(_) => before.dtype == after.dtype,
        Op::Concat(_) => graph.inputs_of(id).len() == 1,
        Op::Split(op) => op.sizes.len() == 1,
        Op::Pad(op) => op.pads.is_zero(),
        Op::Tile(op) => op.repeats.iter().all(|times| *times == Dim::Known(1)),
        Op::Reverse(op) => op.axes.is_empty(),
        Op::Reduce(Reduce { kind: ReduceKind::L2 | ReduceKind::LogSumExp, .. }) => false,
        Op::Reduce(op) => op.axes.is_empty(),
        Op::Slice(op) => {
            let all = |(axis, dim): (usize, &Dim)| {
                let whole = |size: usize| op.steps.get(axis) == Some(&1) && op.resolve(axis, size) == (0, size);
                op.takes_all(axis) || dim.known().is_some_and(whole)
            };
            before.shape.iter().enumerate().all(all)
        }
        Op::Pool(op) => {
            op.kernel.iter().chain(&op.strides).all(|&size| size == 1) && op.pads == Pads::none(op.kernel.len())
        }
        // At equal sizes every kind of coordinates says `i`.
        Op::Resize(op) => op.scale.is_empty() && unchanged && before.shape.is_determined(),
        Op::SpaceToDepth(op) => op.block == 1,
        Op::DepthToSpace(op) => op.block == 1,
        Op::Clip(op) => op.min.is_none() && op.max.is_none(),
        Op::Dropout(op) => op.rate == 0.0,
        Op::Binary(op) => return neutral(graph, id, *op).map(|value| vec![value]),
        _ => false,
    };
    if nothing {
        return Some(vec![x]);
    }
    parts_of(graph, id).map(|value| vec![value])
}

/// The operand that a neutral element leaves as it is.
fn neutral(graph: &Graph, id: NodeId, op: Binary) -> Option<Value> {
    let (a, b) = (graph.input_of(id, 0)?, graph.input_of(id, 1)?);
    let one = |value: Value| match graph.op(value.node) {
        Op::Fill(fill) => fill.value == 1.0,
        _ => number(graph, value) == Some(1.0),
    };
    let kept = match op {
        Binary::Add if is_zero(graph, b) => a,
        Binary::Add if is_zero(graph, a) => b,
        Binary::Sub if is_zero(graph, b) => a,
        Binary::Mul | Binary::Div | Binary::Pow if one(b) => a,
        Binary::Mul if one(a) => b,
        _ => return None,
    };
    let unchanged =
        same_shape(graph.shape(kept), graph.shape(id.into())) && graph.info(kept).dtype == graph.info(id.into()).dtype;
    unchanged.then_some(kept)
}

/// The value that was split into just the parts that a concat joins.
fn parts_of(graph: &Graph, id: NodeId) -> Option<Value> {
    let Op::Concat(Concat { axis }) = graph.op(id) else { return None };
    let parts: Vec<Value> = graph.inputs_of(id).into_iter().collect::<Option<_>>()?;
    let node = parts.first()?.node;
    let Op::Split(split) = graph.op(node) else { return None };
    let all = (0..split.sizes.len()).map(|output| Value { node, output });
    (split.axis == *axis && parts.iter().copied().eq(all)).then(|| graph.input_of(node, 0)).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, batch, ops, the};
    use super::*;
    use crate::op::{
        Cast, Clip, DepthToSpace, Dropout, Expand, Pack, Pad, PadMode, Pool, PoolKind, Slice, Split, Squeeze, Tile,
    };
    use crate::tensor::DType;
    use crate::{Layout, Tensor};

    #[test]
    fn operators_that_do_nothing() {
        let mut net = Net::new();
        let x = net.x(&[4, 4, 3]);
        let pool = Pool {
            kind: PoolKind::Max,
            kernel: vec![1, 1],
            strides: vec![1, 1],
            pads: Pads::none(2),
            dilations: vec![1, 1],
            ceil_mode: false,
            count_include_pad: false,
            layout: Layout::ChannelsLast,
        };
        let part = Slice { begins: vec![0, 0, -4, 0], ends: vec![Slice::OPEN, 4, 9, Slice::OPEN], steps: vec![1; 4] };
        let nothing: Vec<Op> = vec![
            Reshape { shape: batch(&[4, 4, 3]) }.into(),
            Reshape { shape: Shape(vec![Dim::Unknown, 4.into(), 4.into(), 3.into()]) }.into(),
            Squeeze { axes: Vec::new() }.into(),
            Transpose { perm: vec![0, 1, 2, 3] }.into(),
            Cast { dtype: DType::Float32 }.into(),
            Concat { axis: 1 }.into(),
            Split { axis: 3, sizes: vec![3] }.into(),
            Pad { pads: Pads::none(4), mode: PadMode::Reflect, value: 1.0 }.into(),
            Tile { repeats: Shape::known(&[1; 4]) }.into(),
            Expand { shape: Shape::known(&[3]) }.into(),
            Reduce { kind: ReduceKind::Mean, axes: Vec::new(), keep_dims: false }.into(),
            part.into(),
            pool.into(),
            DepthToSpace { block: 1, channel_major: false, layout: Layout::ChannelsLast }.into(),
            Clip { min: None, max: None }.into(),
            Dropout { rate: 0.0 }.into(),
        ];
        let mut y = x;
        for op in nothing {
            y = net.op(op, &[y]);
        }
        let (zero, one) = (net.num(0.0), net.num(1.0));
        y = net.add(y, zero);
        y = net.add(zero, y);
        y = net.sub(y, zero);
        y = net.mul(one, y);
        y = net.div(y, one);
        y = net.un(Unary::Neg, y);
        y = net.un(Unary::Neg, y);
        let last = net.un(Unary::Relu, y);
        let graph = net.check(&[last], run);
        assert_eq!(graph.input_of(the(&graph, "Relu"), 0), Some(x), "{:?}", ops(&graph));
    }

    #[test]
    fn operators_broadcast_by_themselves() {
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let sum = net.op(Reduce { kind: ReduceKind::Sum, axes: vec![2], keep_dims: true }, &[x]);
        let wide = net.op(Expand { shape: net.graph.shape(x).clone() }, &[sum, x]);
        let y = net.div(x, wide);
        let graph = net.check(&[y], run);
        assert_eq!(graph.input_of(the(&graph, "Div"), 1), Some(sum), "{:?}", ops(&graph));
    }

    #[test]
    fn reshapes_and_transposes_in_a_row() {
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let y = net.reshape(x, batch(&[12]));
        let y = net.op(Unsqueeze { axes: vec![1, 2] }, &[y]);
        let y = net.reshape(y, batch(&[2, 6]));
        assert_eq!(net.ops(&[y], run), ["Reshape"]);
        let mut net = Net::new();
        let x = net.x(&[4, 3]);
        let y = net.op(Unsqueeze { axes: vec![1] }, &[x]);
        let y = net.op(Squeeze { axes: vec![1] }, &[y]);
        let y = net.op(Transpose { perm: vec![1, 2, 0] }, &[y]);
        let z = net.op(Transpose { perm: vec![1, 2, 0] }, &[y]);
        let y = net.op(Transpose { perm: vec![2, 0, 1] }, &[y]);
        let y = net.un(Unary::Relu, y);
        let graph = net.check(&[y, z], run);
        assert_eq!(ops(&graph), ["Transpose", "Relu"]);
        assert!(matches!(graph.op(the(&graph, "Transpose")), Op::Transpose(op) if op.perm == [2, 0, 1]));
    }

    #[test]
    fn parts_that_are_joined_again() {
        let mut net = Net::new();
        let x = net.x(&[4]);
        let parts = net.op(Split { axis: 1, sizes: vec![1, 3] }, &[x]);
        let other = Value { output: 1, ..parts };
        let y = net.op(Concat { axis: 1 }, &[parts, other]);
        let z = net.op(Concat { axis: 1 }, &[other, parts]);
        let packed = net.op(Pack { axis: 1 }, &[x]);
        let mut ops = net.ops(&[y, z, packed], run);
        ops.sort();
        assert_eq!(ops, ["Concat", "Split", "Unsqueeze"]);
    }

    #[test]
    fn near_misses_stay() {
        // A bias that happens to be zero, and a zero that gives the result its shape.
        let mut net = Net::new();
        let x = net.x(&[3]);
        let bias = net.graph.constant("bias", Tensor::from_f32(&[3], &[0.0; 3]));
        let y = net.add(x, bias);
        let rows = net.graph.constant("rows", Tensor::from_f32(&[2, 1, 1], &[0.0; 2]));
        let z = net.add(x, rows);
        assert_eq!(net.ops(&[y, z], run), ["Add", "Add"]);
        // Half of an axis.
        let mut net = Net::new();
        let x = net.x(&[4]);
        let y = net.op(Slice { begins: vec![0, 1], ends: vec![Slice::OPEN; 2], steps: vec![1; 2] }, &[x]);
        let back = net.op(Slice { begins: vec![0, -1], ends: vec![Slice::OPEN; 2], steps: vec![1, -1] }, &[x]);
        assert_eq!(net.ops(&[y, back], run), ["Slice", "Slice"]);
    }
}
