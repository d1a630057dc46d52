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

/// Reads through a reshape in front of a reshape, and a transpose in front of a transpose.
fn join(graph: &mut Graph, id: NodeId) -> Result<()> {
    let Some(input) = graph.input_of(id, 0) else { return Ok(()) };
    let Some(source) = graph.input_of(input.node, 0) else { return Ok(()) };
    match (graph.op(id).clone(), graph.op(input.node).clone()) {
        (Op::Reshape(_), before) if is_regrouping(&before) => {
            // The inferred shape, whose symbols need no derivation from the value between.
            let shape = graph.shape(id.into()).clone();
            if shape.iter().filter(|dim| **dim == Dim::Unknown).count() <= 1 {
                graph.replace_op(id, Reshape { shape }, &[Some(source)])?;
            }
        }
        (Op::Transpose(after), Op::Transpose(before)) => {
            let perm = after.perm.iter().filter_map(|&axis| before.perm.get(axis).copied()).collect();
            graph.replace_op(id, Transpose { perm }, &[Some(source)])?;
        }
        (Op::Unary(Unary::Neg), Op::Unary(Unary::Neg)) => graph.replace_uses(id.into(), source),
        (Op::Pack(pack), _) if graph.inputs_of(id).len() == 1 => {
            graph.replace_op(id, Unsqueeze { axes: vec![pack.axis] }, &[Some(input)])?;
        }
        _ => {}
    }
    Ok(())
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
        Op::Resize(_) => unchanged && before.shape.is_determined(),
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
