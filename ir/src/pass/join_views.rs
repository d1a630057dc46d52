//! Says what reshapes and transposes in a row do in as few of them as it takes: one that splits axes, one that orders
//! them, one that joins them.
//!
//! ```text
//! x [L, N, 3 * E] -> Reshape [L, N, 3, E] -> Unsqueeze -> Transpose -> Squeeze [3, L, N, E]
//!     x -> Reshape [L, N, 3, E] -> Transpose [2, 0, 1, 3]
//! x [L, N, E] -> Reshape [L, N * H, D] -> Transpose [1, 0, 2] -> Reshape [N, H, L, D]
//!     x -> Reshape [L, N, H, D] -> Transpose [1, 2, 0, 3]
//! x [N, L, E] -> Transpose [1, 0, 2] -> Dense -> Reshape [L, N, H, D] -> Transpose [1, 2, 0, 3]
//!     x -> Dense -> Reshape [N, L, H, D] -> Transpose [0, 2, 1, 3]
//! ```
//!
//! A dense layer works on the last axis: what orders the others may come before or after it, wherever it meets its
//! like.

use super::pattern::is_regrouping;
use super::rewrite::backward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Op, Reshape, Transpose};
use crate::shape::{Dim, Shape};

/// Operators in a row that are looked at.
const DEPTH: usize = 8;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    backward(graph, |graph, id| {
        if !is_view(graph, id) || next(graph, id).is_some_and(|next| is_view(graph, next)) {
            return Ok(false);
        }
        // New axes of one element stay where they are said.
        let id = match (inserts(graph, id), previous(graph, id)) {
            (false, _) => id,
            (true, Some(before)) if is_view(graph, before) => before,
            _ => return Ok(false),
        };
        let mut changed = false;
        // Every turn leaves fewer operators.
        while graph.contains(id) && is_view(graph, id) && graph.uses(id.into()) > 0 {
            let row = row(graph, id);
            if !(shorten(graph, &row)? || before_dense(graph, &row)? || behind_dense(graph, &row)?) {
                break;
            }
            changed = true;
        }
        Ok(changed)
    })
}

fn is_view(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.op(id), Op::Transpose(_)) || is_regrouping(graph.op(id))
}

/// Whether all that a node does is to put in axes of one element.
fn inserts(graph: &Graph, id: NodeId) -> bool {
    let longer = |dims: &Shape| dims.iter().filter(|dim| **dim != Dim::Known(1)).cloned().collect::<Vec<_>>();
    let (Some(x), shape) = (graph.input_of(id, 0), graph.shape(id.into())) else { return false };
    let before = graph.shape(x);
    is_regrouping(graph.op(id)) && shape.rank() > before.rank() && longer(shape) == longer(before)
}

/// The only reader of a node.
fn next(graph: &Graph, id: NodeId) -> Option<NodeId> {
    match graph.consumers(id.into()).as_slice() {
        [(reader, _)] if graph.uses(id.into()) == 1 => Some(*reader),
        _ => None,
    }
}

/// The node whose first output only this one reads as its data, in the same module.
fn previous(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let x = graph.input_of(id, 0)?;
    (x == Value::from(x.node) && next(graph, x.node) == Some(id)).then_some(x.node)
}

/// The views that end in this one, in their order.
fn row(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    let mut row = vec![id];
    let mut first = id;
    while row.len() < DEPTH
        && let Some(before) = previous(graph, first)
        && is_view(graph, before)
        && graph.module_of(before) == graph.module_of(id)
    {
        row.insert(0, before);
        first = before;
    }
    row
}

/// Writes the longest end of a row that can be said in fewer operators.
fn shorten(graph: &mut Graph, row: &[NodeId]) -> Result<bool> {
    for start in 0..row.len().saturating_sub(1) {
        let Some(x) = graph.input_of(row[start], 0) else { continue };
        let steps = row[start..].iter().map(|&id| step(graph, id));
        let Some(steps) = steps.collect::<Option<Vec<_>>>() else { continue };
        if let Some(ops) = joined(graph.shape(x), &steps).filter(|ops| ops.len() < steps.len()) {
            write(graph, x, &row[start..], ops)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves a transpose that follows a dense layer before it, where a row of views can take it up.
fn before_dense(graph: &mut Graph, row: &[NodeId]) -> Result<bool> {
    let [.., last] = row else { return Ok(false) };
    let [order] = row else { return Ok(false) };
    let Some(dense) = dense_before(graph, *order) else { return Ok(false) };
    let Some(end) = previous(graph, dense).filter(|&end| is_view(graph, end)) else { return Ok(false) };
    if graph.module_of(end) != graph.module_of(*last) || !keeps_last(graph, *order) {
        return Ok(false);
    }
    let before = self::row(graph, end);
    let Some(x) = graph.input_of(before[0], 0) else { return Ok(false) };
    let steps = before.iter().chain([order]).map(|&id| step(graph, id)).collect::<Option<Vec<_>>>();
    let Some(mut steps) = steps else { return Ok(false) };
    // The transpose has the shape of what comes in, not of what the dense layer makes of it.
    if let (Some(Step::Order(perm, shape)), Some(inner)) = (steps.last_mut(), graph.shape(end.into()).last()) {
        *shape = graph.shape(end.into()).permuted(perm);
        if let Some(last) = shape.last_mut() {
            *last = inner.clone();
        }
    }
    let Some(ops) = joined(graph.shape(x), &steps).filter(|ops| ops.len() < steps.len()) else { return Ok(false) };
    let moved = graph.shape(Value::from(*order)).clone();
    write(graph, x, &before, ops)?;
    let inputs = graph.inputs_of(dense);
    let op = graph.op(dense).clone();
    graph.replace_op(dense, op, &inputs)?;
    debug_assert_eq!(*graph.shape(dense.into()), moved);
    graph.replace_uses((*order).into(), dense.into());
    graph.remove(*order);
    Ok(true)
}

/// Moves a transpose in front of a dense layer behind it, where a row of views can take it up.
fn behind_dense(graph: &mut Graph, row: &[NodeId]) -> Result<bool> {
    let Some(dense) = dense_before(graph, row[0]) else { return Ok(false) };
    let Some(order) = previous(graph, dense) else { return Ok(false) };
    if graph.module_of(order) != graph.module_of(row[0]) || !keeps_last(graph, order) {
        return Ok(false);
    }
    let (Op::Transpose(transpose), Some(x)) = (graph.op(order), graph.input_of(order, 0)) else { return Ok(false) };
    let mut source = graph.shape(x).clone();
    if let (Some(last), Some(out)) = (source.last_mut(), graph.shape(dense.into()).last()) {
        *last = out.clone();
    }
    let first = Step::Order(transpose.perm.clone(), graph.shape(dense.into()).clone());
    let rest = row.iter().map(|&id| step(graph, id));
    let Some(steps) = std::iter::once(Some(first)).chain(rest).collect::<Option<Vec<_>>>() else { return Ok(false) };
    let Some(ops) = joined(&source, &steps).filter(|ops| ops.len() < steps.len()) else { return Ok(false) };
    let mut inputs = graph.inputs_of(dense);
    inputs[0] = Some(x);
    let op = graph.op(dense).clone();
    graph.replace_op(dense, op, &inputs)?;
    graph.remove(order);
    write(graph, dense.into(), row, ops)?;
    Ok(true)
}

/// The dense layer whose result only this node reads.
fn dense_before(graph: &Graph, id: NodeId) -> Option<NodeId> {
    previous(graph, id).filter(|&dense| matches!(graph.op(dense), Op::Dense(_)))
}

/// Whether a node is a transpose that leaves the last axis where it is.
fn keeps_last(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.op(id), Op::Transpose(op) if op.perm.last() == Some(&(op.perm.len() - 1)))
}

/// What a view does, and the shape that comes of it.
enum Step {
    Order(Vec<usize>, Shape),
    Regroup(Shape),
}

fn step(graph: &Graph, id: NodeId) -> Option<Step> {
    let shape = graph.shape(id.into()).clone();
    match graph.op(id) {
        Op::Transpose(op) => Some(Step::Order(op.perm.clone(), shape)),
        op if is_regrouping(op) => Some(Step::Regroup(shape)),
        _ => None,
    }
}

/// Puts operators between a value and the readers of a row, the last node of which becomes the last of them.
fn write(graph: &mut Graph, x: Value, row: &[NodeId], mut ops: Vec<Op>) -> Result<()> {
    let Some((&last, inner)) = row.split_last() else { return Ok(()) };
    let end = ops.pop();
    let name = graph.node(last).name.clone();
    let mut value = x;
    for op in ops {
        let what = if matches!(op, Op::Transpose(_)) { "ordered" } else { "split" };
        let node = graph.add(op, &format!("{name}/{what}"), &[value])?;
        graph.place_beside(node, last);
        value = node.into();
    }
    match end {
        Some(op) => graph.replace_op(last, op, &[Some(value)])?,
        None => graph.replace_uses(last.into(), x),
    }
    inner.iter().rev().for_each(|&id| graph.remove(id));
    Ok(())
}

/// A value whose axes are made of the parts of another one's axes.
struct View {
    sizes: Vec<Dim>,
    /// Whether a part, of one element, is of a view's making.
    fresh: Vec<bool>,
    /// For every axis of the source its parts, from the outermost.
    source: Vec<Vec<usize>>,
    axes: Vec<Vec<usize>>,
}

impl View {
    fn of(shape: &Shape) -> Option<View> {
        let axes: Vec<Vec<usize>> = (0..shape.rank()).map(|axis| vec![axis]).collect();
        let known = shape.iter().all(|dim| !matches!(dim, Dim::Unknown | Dim::Known(0)));
        let fresh = vec![false; axes.len()];
        known.then(|| View { sizes: shape.iter().cloned().collect(), fresh, source: axes.clone(), axes })
    }

    /// Puts a part behind another one, or before it.
    fn insert(&mut self, beside: usize, behind: bool, size: Dim, fresh: bool) -> usize {
        let new = self.sizes.len();
        self.sizes.push(size);
        self.fresh.push(fresh);
        for parts in &mut self.source {
            if let Some(at) = parts.iter().position(|&part| part == beside) {
                parts.insert(at + usize::from(behind), new);
            }
        }
        new
    }

    /// Gives the axes other bounds. Axes of one element that the source has go with what they are joined with, so that
    /// one head is as two; those that a view put in are gone with it.
    fn regroup(&mut self, shape: &Shape) -> Option<()> {
        const ONE: Dim = Dim::Known(1);
        let mut parts: Vec<usize> = self.axes.concat();
        let mut before = *parts.last()?;
        parts.reverse();
        let mut axes = Vec::new();
        for dim in shape.iter() {
            let (mut missing, mut axis) = (dim.clone(), Vec::new());
            if missing == ONE {
                axis.push(match parts.last() {
                    Some(&part) if self.sizes[part] == ONE => parts.pop()?,
                    Some(&part) => self.insert(part, false, ONE, true),
                    None => self.insert(before, true, ONE, true),
                });
            }
            while missing != ONE {
                let part = parts.pop()?;
                let size = self.sizes[part].clone();
                if size == ONE {
                    axis.extend((!self.fresh[part]).then_some(part));
                    continue;
                }
                let (rest, more) = (missing.divided_by(&size), size.divided_by(&missing));
                missing = match (rest, more) {
                    (Dim::Unknown, Dim::Unknown) => return None,
                    (Dim::Unknown, more) => {
                        self.sizes[part] = missing;
                        parts.push(self.insert(part, true, more, false));
                        ONE
                    }
                    (rest, _) => rest,
                };
                axis.push(part);
            }
            before = axis.last().copied().unwrap_or(before);
            axes.push(axis);
        }
        self.axes = axes;
        parts.iter().all(|&part| self.sizes[part] == ONE).then_some(())
    }

    /// Joins parts that lie side by side in an axis of both.
    fn join(&mut self) {
        for axis in 0..self.axes.len() {
            let mut at = 1;
            while at < self.axes[axis].len() {
                let (a, b) = (self.axes[axis][at - 1], self.axes[axis][at]);
                let size = self.sizes[a].times(&self.sizes[b]);
                let place = self.source.iter().position(|parts| parts.windows(2).any(|pair| pair == [a, b]));
                match place {
                    Some(of) if size != Dim::Unknown => {
                        self.sizes[a] = size;
                        self.axes[axis].remove(at);
                        self.source[of].retain(|&part| part != b);
                    }
                    _ => at += 1,
                }
            }
        }
    }

    /// The operators that make the view of its source: what it has no place for goes first, or last.
    fn ops(&self, source: &Shape, shape: &Shape) -> Vec<Op> {
        let ways = [true, false].map(|first| self.written(source, shape, first));
        ways.into_iter().flatten().min_by_key(Vec::len).unwrap_or_default()
    }

    fn written(&self, source: &Shape, shape: &Shape, drop_first: bool) -> Option<Vec<Op>> {
        let order: Vec<usize> = self.axes.concat();
        let stays = |part: &usize| order.contains(part) || !(drop_first || self.fresh[*part]);
        let between: Vec<usize> = self.source.concat().into_iter().filter(stays).collect();
        let place = |part: usize| between.iter().position(|&other| other == part);
        let mut perm = order.iter().map(|&part| place(part)).collect::<Option<Vec<usize>>>()?;
        perm.extend((0..between.len()).filter(|&axis| !order.contains(&between[axis])));
        let split: Shape = between.iter().map(|&part| self.sizes[part].clone()).collect();
        let mut ops: Vec<Op> = Vec::new();
        if split != *source {
            ops.push(Reshape { shape: split.clone() }.into());
        }
        if !perm.is_sorted() {
            ops.push(Transpose { perm: perm.clone() }.into());
        }
        if split.permuted(&perm) != *shape {
            ops.push(Reshape { shape: shape.clone() }.into());
        }
        // Two in a row are one.
        if let [Op::Reshape(_), Op::Reshape(last)] = ops.as_slice() {
            ops = vec![last.clone().into()];
        }
        Some(ops)
    }
}

/// The fewest operators that do what these steps do, if the sizes tell.
fn joined(source: &Shape, steps: &[Step]) -> Option<Vec<Op>> {
    let mut view = View::of(source)?;
    for step in steps {
        match step {
            Step::Order(perm, _) => view.axes = perm.iter().map(|&axis| view.axes[axis].clone()).collect(),
            Step::Regroup(shape) => view.regroup(shape)?,
        }
    }
    view.join();
    let (Step::Order(_, shape) | Step::Regroup(shape)) = steps.last()?;
    Some(view.ops(source, shape))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, ops, the};
    use super::*;
    use crate::op::{Dense, MatMul, Squeeze, Unary, Unsqueeze};

    fn shape(dims: &[&str]) -> Shape {
        dims.iter().map(|dim| Dim::parse(dim).unwrap()).collect()
    }

    fn turn(net: &mut Net, x: Value, perm: &[usize]) -> Value {
        net.op(Transpose { perm: perm.to_vec() }, &[x])
    }

    #[test]
    fn axes_that_come_and_go() {
        let mut net = Net::new();
        let x = net.x(&[5, 3, 4]);
        let y = net.op(Unsqueeze { axes: vec![0] }, &[x]);
        let y = turn(&mut net, y, &[3, 1, 2, 0, 4]);
        let y = net.op(Squeeze { axes: vec![3] }, &[y]);
        let graph = net.check(&[y], run);
        assert_eq!(ops(&graph), ["Transpose"]);
        assert!(matches!(graph.op(the(&graph, "Transpose")), Op::Transpose(op) if op.perm == [2, 0, 1, 3]));
    }

    #[test]
    fn an_axis_is_split_once() {
        // Heads are joined with the batch first, as torch's multi-head attention does.
        let mut net = Net::new();
        let x = net.x(&[5, 12]);
        let y = turn(&mut net, x, &[1, 0, 2]);
        let y = net.reshape(y, shape(&["5", "3*N", "4"]));
        let y = turn(&mut net, y, &[1, 0, 2]);
        let y = net.reshape(y, shape(&["N", "3", "5", "4"]));
        let graph = net.check(&[y], run);
        assert_eq!(ops(&graph), ["Reshape", "Transpose"]);
        assert!(matches!(graph.op(the(&graph, "Transpose")), Op::Transpose(op) if op.perm == [0, 2, 1, 3]));
    }

    #[test]
    fn one_head_is_written_as_two() {
        for heads in [1, 2] {
            let mut net = Net::new();
            let x = net.x(&[5, 12]);
            let (heads, size) = (heads.to_string(), (12 / heads).to_string());
            let y = net.reshape(x, shape(&["N", "5", &heads, &size]));
            let y = turn(&mut net, y, &[0, 2, 1, 3]);
            let z = net.un(Unary::Relu, y);
            let z = turn(&mut net, z, &[0, 2, 1, 3]);
            let z = net.reshape(z, shape(&["N", "5", "12"]));
            assert_eq!(net.ops(&[z], run), ["Reshape", "Transpose", "Relu", "Transpose", "Reshape"]);
        }
    }

    #[test]
    fn a_new_axis_stays_at_the_end() {
        let mut net = Net::new();
        let x = net.x(&[6, 5]);
        let y = net.reshape(x, shape(&["N", "2", "3", "5"]));
        let y = turn(&mut net, y, &[0, 3, 1, 2]);
        let y = net.op(Unsqueeze { axes: vec![0] }, &[y]);
        assert_eq!(net.ops(&[y], run), ["Reshape", "Transpose", "Unsqueeze"]);
    }

    #[test]
    fn around_a_dense_layer() {
        // Batch and length change places, then a layer, then heads: the places of batch and length do not matter.
        for behind in [true, false] {
            let mut net = Net::new();
            let x = net.x(&[5, 12]);
            let w = net.weight("w", &[12, 12]);
            let mut y = x;
            if behind {
                y = turn(&mut net, y, &[1, 0, 2]);
                y = net.op(Dense {}, &[y, w]);
                y = net.reshape(y, shape(&["5", "N", "12", "1"]));
                y = net.reshape(y, shape(&["5", "N", "3", "4"]));
                y = turn(&mut net, y, &[1, 2, 0, 3]);
            } else {
                y = net.reshape(y, shape(&["N", "5", "3", "4"]));
                y = turn(&mut net, y, &[1, 0, 3, 2]);
                y = net.reshape(y, shape(&["5", "N", "12"]));
                y = net.op(Dense {}, &[y, w]);
                y = turn(&mut net, y, &[1, 0, 2]);
            }
            let ops = net.ops(&[y], run);
            match behind {
                true => assert_eq!(ops, ["Dense", "Reshape", "Transpose"]),
                false => assert_eq!(ops, ["Reshape", "Transpose", "Reshape", "Dense"]),
            }
        }
    }

    #[test]
    fn what_is_short_or_read_elsewhere_stays() {
        // A channel shuffle.
        let mut net = Net::new();
        let x = net.x(&[12, 5]);
        let y = net.reshape(x, shape(&["N", "3", "4", "5"]));
        let y = turn(&mut net, y, &[0, 2, 1, 3]);
        let y = net.reshape(y, shape(&["N", "12", "5"]));
        assert_eq!(net.ops(&[y], run), ["Reshape", "Transpose", "Reshape"]);
        // The value between is read elsewhere.
        let mut net = Net::new();
        let x = net.x(&[5, 3]);
        let y = turn(&mut net, x, &[0, 2, 1]);
        let z = net.un(Unary::Relu, y);
        let y = net.op(Unsqueeze { axes: vec![1] }, &[y]);
        let y = turn(&mut net, y, &[0, 3, 2, 1]);
        let y = net.op(Squeeze { axes: vec![3] }, &[y]);
        assert_eq!(net.ops(&[y, z], run), ["Transpose", "Relu", "Transpose"]);
        // A transpose that moves the features.
        let mut net = Net::new();
        let x = net.x(&[5, 5]);
        let w = net.weight("w", &[5, 5]);
        let y = turn(&mut net, x, &[0, 2, 1]);
        let y = net.op(Dense {}, &[y, w]);
        let y = turn(&mut net, y, &[0, 2, 1]);
        let z = net.op(MatMul { transpose_a: false, transpose_b: false }, &[y, x]);
        assert_eq!(net.ops(&[z], run), ["Transpose", "Dense", "Transpose", "MatMul"]);
    }
}
