//! Takes a value apart by one operator, and behind what its parts have in common.
//!
//! ```text
//! x [3, N, C] -> Slice 0, Slice 1, Slice 2 -> Squeeze each                      x -> Unpack
//! x [3, N, C] -> Unpack -> Reshape [N, H, D] each -> Transpose [1, 0, 2] each
//!     x -> Reshape [3, N, H, D] -> Transpose [0, 2, 1, 3] -> Unpack
//! ```
//!
//! Query, key and value of an attention come from one product this way.

use super::pattern::is_regrouping;
use super::rewrite::forward;
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Op, Reshape, Transpose, Unpack};
use crate::shape::{Dim, Shape};

/// Views in a row that are moved.
const DEPTH: usize = 8;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let unpacked = forward(graph, |graph, id| {
        let outputs = graph.node(id).outputs.len();
        let mut changed = false;
        for output in 0..outputs {
            changed |= unpack(graph, Value { node: id, output })?;
        }
        Ok(changed)
    })?;
    let moved = forward(graph, |graph, id| {
        let mut changed = false;
        for _ in 0..DEPTH {
            if !hoist(graph, id)? {
                break;
            }
            changed = true;
        }
        Ok(changed)
    })?;
    Ok(unpacked + moved)
}

/// Replaces slices that take every place of an axis once, each of which drops that axis.
fn unpack(graph: &mut Graph, x: Value) -> Result<bool> {
    let readers = graph.consumers(x);
    if readers.len() < 2 || graph.uses(x) != readers.len() {
        return Ok(false);
    }
    let places: Option<Vec<(usize, usize)>> = readers.iter().map(|&(id, _)| place(graph, id)).collect();
    let Some(places) = places else { return Ok(false) };
    let axis = places[0].0;
    let mut seen: Vec<usize> = places.iter().map(|&(_, at)| at).collect();
    seen.sort_unstable();
    let all = graph.shape(x).get(axis) == Some(&Dim::Known(seen.len())) && seen.iter().copied().eq(0..seen.len());
    let alike = places.iter().all(|(other, _)| *other == axis);
    let module = graph.module_of(readers[0].0);
    if !all || !alike || readers.iter().any(|&(id, _)| graph.module_of(id) != module) {
        return Ok(false);
    }
    let name = graph.node(readers[0].0).name.clone();
    let node = graph.add(Unpack { axis, count: seen.len() }, &format!("{name}/parts"), &[x])?;
    graph.place_beside(node, readers[0].0);
    for ((id, _), (_, output)) in readers.into_iter().zip(places) {
        let part = Value { node, output };
        for (reader, _) in graph.consumers(id.into()) {
            let shape = graph.shape(reader.into()).clone();
            match shape == *graph.shape(part) {
                true => graph.replace_uses(reader.into(), part),
                false => graph.replace_op(reader, Reshape { shape }, &[Some(part)])?,
            }
        }
    }
    Ok(true)
}

/// The axis of which a slice takes one place, and that place, where all its reader does is to regroup.
fn place(graph: &Graph, id: NodeId) -> Option<(usize, usize)> {
    let Op::Slice(slice) = graph.op(id) else { return None };
    let shape = graph.shape(graph.input_of(id, 0)?);
    let mut axes = (0..shape.rank()).filter(|&axis| !slice.takes_all(axis));
    let (Some(axis), None) = (axes.next(), axes.next()) else { return None };
    let (begin, count) = slice.resolve(axis, shape[axis].known()?);
    let readers = graph.consumers(id.into());
    let regroups = |&(reader, _): &(NodeId, usize)| match graph.op(reader) {
        Op::Squeeze(squeeze) => squeeze.axes.contains(&axis),
        op => is_regrouping(op),
    };
    let one = slice.steps.get(axis) == Some(&1) && count == 1;
    (one && graph.uses(id.into()) == readers.len() && readers.iter().all(regroups)).then_some((axis, begin))
}

/// Moves the view that all parts pass through in front of an `Unpack`.
fn hoist(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Unpack(Unpack { axis, count }) = *graph.op(id) else { return Ok(false) };
    let Some(x) = graph.input_of(id, 0) else { return Ok(false) };
    let reader = |output: usize| match graph.consumers(Value { node: id, output }).as_slice() {
        [(reader, _)] if graph.uses(Value { node: id, output }) == 1 => Some(*reader),
        _ => None,
    };
    let Some(readers) = (0..count).map(reader).collect::<Option<Vec<_>>>() else { return Ok(false) };
    let view = |id: NodeId| match graph.op(id) {
        Op::Transpose(op) => Some(Ok(op.perm.clone())),
        op if is_regrouping(op) => Some(Err(graph.shape(id.into()).clone())),
        _ => None,
    };
    let first = view(readers[0]);
    let module = graph.module_of(id);
    if count < 2 || readers.iter().any(|&id| view(id) != first || graph.module_of(id) != module) {
        return Ok(false);
    }
    let op: Op = match first {
        Some(Ok(perm)) => {
            let rest: Vec<usize> = (0..=perm.len()).filter(|&other| other != axis).collect();
            Transpose { perm: std::iter::once(axis).chain(perm.into_iter().map(|i| rest[i])).collect() }.into()
        }
        Some(Err(shape)) if axis == 0 => {
            Reshape { shape: Shape(std::iter::once(Dim::Known(count)).chain(shape.iter().cloned()).collect()) }.into()
        }
        _ => return Ok(false),
    };
    let name = graph.node(readers[0]).name.clone();
    let moved = graph.add(op, &format!("{name}/whole"), &[x])?;
    graph.place_beside(moved, id);
    graph.replace_op(id, Unpack { axis: 0, count }, &[Some(moved.into())])?;
    for (output, reader) in readers.into_iter().enumerate() {
        graph.replace_uses(reader.into(), Value { node: id, output });
        graph.remove(reader);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, ops, the};
    use super::*;
    use crate::op::{Binary, Slice, Squeeze, Unary};

    fn part(net: &mut Net, x: Value, axis: usize, at: i64) -> Value {
        let rank = net.graph.shape(x).rank();
        let mut slice = Slice::all(rank);
        (slice.begins[axis], slice.ends[axis]) = (at, at + 1);
        let y = net.op(slice, &[x]);
        net.op(Squeeze { axes: vec![axis] }, &[y])
    }

    #[test]
    fn slices_and_what_they_have_in_common() {
        let mut net = Net::new();
        let x = net.x(&[3, 5, 4]);
        let parts = [0, 1, 2].map(|at| part(&mut net, x, 1, at));
        let [a, b, c] = parts.map(|x| net.op(Transpose { perm: vec![0, 2, 1] }, &[x]));
        let [a, b, c] =
            [a, b, c].map(|x| net.reshape(x, ["N", "2", "10"].iter().map(|d| Dim::parse(d).unwrap()).collect()));
        let (y, z) = (net.add(a, b), net.bin(Binary::Maximum, b, c));
        let graph = net.check(&[y, z], run);
        assert_eq!(ops(&graph).last_chunk::<3>(), Some(&["Unpack", "Add", "Maximum"].map(str::to_owned)));
        assert!(matches!(graph.op(the(&graph, "Unpack")), Op::Unpack(Unpack { axis: 0, count: 3 })));
    }

    #[test]
    fn near_misses_stay() {
        // One place is not read; one is read twice; the parts go different ways.
        for places in [&[0, 1][..], &[0, 1, 1, 2]] {
            let mut net = Net::new();
            let x = net.x(&[3, 5]);
            let parts: Vec<Value> = places.iter().map(|&at| part(&mut net, x, 1, at)).collect();
            let ops = net.ops(&parts, run);
            assert!(!ops.contains(&"Unpack".to_owned()), "{ops:?}");
        }
        let mut net = Net::new();
        let x = net.x(&[2, 5, 5]);
        let node = net.op(Unpack { axis: 1, count: 2 }, &[x]).node;
        let y = net.op(Transpose { perm: vec![0, 2, 1] }, &[node.into()]);
        let z = net.un(Unary::Relu, Value { node, output: 1 });
        assert_eq!(net.ops(&[y, z], run), ["Unpack", "Transpose", "Relu"]);
    }
}
