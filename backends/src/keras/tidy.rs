//! What a person writes in fewer steps: moves of axes and elements, mostly of attention, in a form that Keras has words
//! for. What the graph computes is the same.

use modelport_ir::op::{Op, Reduce, Reshape, Slice, Split, Transpose, Unpack};
use modelport_ir::{Dim, Graph, NodeId, Result, Shape, Value};

/// Most times that one rewrite makes room for another.
const ROUNDS: usize = 8;

/// Runs all rewrites.
///
/// # Errors
/// When the graph has a cycle.
pub fn run(graph: &mut Graph) -> Result<()> {
    each(graph, join_slices)?;
    each(graph, mean_of_moved)?;
    each(graph, unpack_slices)?;
    for _ in 0..ROUNDS {
        let rewrites =
            [drop_passing_axes, join_transposes, move_behind_dense, move_before_dense, split_first, split_parts];
        let mut changed = 0;
        for rewrite in rewrites {
            changed += each(graph, rewrite)?;
        }
        if changed == 0 {
            break;
        }
    }
    Ok(())
}

fn each(graph: &mut Graph, rewrite: fn(&mut Graph, NodeId) -> Result<bool>) -> Result<usize> {
    let mut changed = 0;
    for id in graph.order()? {
        if graph.contains(id) && rewrite(graph, id)? {
            changed += 1;
        }
    }
    if changed > 0 {
        graph.prune();
        graph.refresh()?;
    }
    Ok(changed)
}

/// The only reader of a value that is no output.
fn reader(graph: &Graph, value: Value) -> Option<NodeId> {
    match graph.consumers(value)[..] {
        [(reader, _)] if graph.uses(value) == 1 => Some(reader),
        _ => None,
    }
}

/// The transpose that makes a value, if nothing else reads it.
fn transpose_of(graph: &Graph, value: Value) -> Option<(Value, Vec<usize>)> {
    let Op::Transpose(Transpose { perm }) = graph.op(value.node) else { return None };
    (graph.uses(value) == 1).then(|| Some((graph.input_of(value.node, 0)?, perm.clone())))?
}

fn named(graph: &Graph, id: NodeId, what: &str) -> String {
    format!("{}/{what}", graph.node(id).name)
}

/// ```text
/// x[:, a:b][:, :, c:d]   x[:, a:b, c:d]
/// ```
fn join_slices(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Slice(outer) = graph.op(id) else { return Ok(false) };
    let Some(part) = graph.input_of(id, 0) else { return Ok(false) };
    let (Op::Slice(inner), Some(x)) = (graph.op(part.node), graph.input_of(part.node, 0)) else { return Ok(false) };
    let is_slice = |(reader, _): &(NodeId, usize)| matches!(graph.op(*reader), Op::Slice(_));
    let readers = graph.consumers(part);
    if !readers.iter().all(is_slice) || graph.uses(part) != readers.len() {
        return Ok(false);
    }
    let whole = Slice::all(1);
    let is_whole = |slice: &Slice, at: usize| {
        slice.begins[at] == whole.begins[0] && slice.ends[at] == whole.ends[0] && slice.steps[at] == whole.steps[0]
    };
    let mut both = outer.clone();
    for at in 0..both.begins.len() {
        match (is_whole(outer, at), is_whole(inner, at)) {
            (_, true) => {}
            (true, false) => {
                (both.begins[at], both.ends[at], both.steps[at]) = (inner.begins[at], inner.ends[at], inner.steps[at]);
            }
            (false, false) => return Ok(false),
        }
    }
    graph.replace_op(id, both, &[Some(x)])?;
    Ok(true)
}

/// ```text
/// x [N, H, W, C] -> Transpose [0, 3, 1, 2] -> mean over 2, 3   x -> mean over 1, 2 -> Transpose [0, 3, 1, 2]
/// ```
fn mean_of_moved(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Reduce(reduce) = graph.op(id).clone() else { return Ok(false) };
    let Some((x, perm)) = graph.input_of(id, 0).and_then(|moved| transpose_of(graph, moved)) else { return Ok(false) };
    let mut axes: Vec<usize> = reduce.axes.iter().filter_map(|&axis| perm.get(axis).copied()).collect();
    axes.sort_unstable();
    let kept = perm.iter().filter(|axis| !axes.contains(axis));
    if !reduce.keep_dims && !kept.is_sorted() {
        return Ok(false);
    }
    let keep_dims = reduce.keep_dims;
    graph.replace_op(id, Reduce { axes, ..reduce }, &[Some(x)])?;
    if keep_dims {
        let name = named(graph, id, "moved");
        graph.insert_after(id.into(), |graph, mean| Ok(graph.add(Transpose { perm }, &name, &[mean])?.into()))?;
    }
    Ok(true)
}

/// Slices of one element that together are all, of which the axis is taken off.
///
/// ```text
/// x[0:1] -> [b, c], x[1:2] -> [b, c], x[2:] -> [b, c]   a, b, c = Unpack(x)
/// ```
fn unpack_slices(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Slice(first) = graph.op(id) else { return Ok(false) };
    let Some(x) = graph.input_of(id, 0) else { return Ok(false) };
    let shape = graph.shape(x).clone();
    let Some(count) = shape.first().and_then(Dim::known).filter(|count| (2..=MOST_PARTS).contains(count)) else {
        return Ok(false);
    };
    if first.resolve(0, count) != (0, 1) || graph.uses(x) != count {
        return Ok(false);
    }
    let rest = &shape.0[1..];
    let slices = graph.consumers(x);
    let mut parts: Vec<(usize, NodeId)> = Vec::new();
    for (slice, _) in slices {
        let Op::Slice(op) = graph.op(slice) else { return Ok(false) };
        let (begin, size) = op.resolve(0, count);
        let is_whole = graph.shape(slice.into()).0[1..] == *rest;
        let readers = graph.consumers(slice.into());
        let drops = |(reader, _): &(NodeId, usize)| match graph.op(*reader) {
            Op::Squeeze(op) => op.axes == [0],
            Op::Reshape(_) => true,
            _ => false,
        };
        if size != 1 || !is_whole || !readers.iter().all(drops) || graph.uses(slice.into()) != readers.len() {
            return Ok(false);
        }
        parts.push((begin, slice));
    }
    parts.sort();
    if !parts.iter().map(|(begin, _)| *begin).eq(0..count) {
        return Ok(false);
    }
    let name = named(graph, id, "parts");
    let unpacked = graph.add(Unpack { axis: 0, count }, &name, &[x])?;
    graph.place_beside(unpacked, id);
    for (output, slice) in parts {
        let part = Value { node: unpacked, output };
        for (reader, _) in graph.consumers(slice.into()) {
            match graph.op(reader) {
                Op::Squeeze(_) => graph.replace_uses(reader.into(), part),
                _ => graph.set_input(reader, 0, Some(part)),
            }
        }
    }
    Ok(true)
}

/// Most parts that get names of their own.
const MOST_PARTS: usize = 4;

/// An axis that comes, is moved, and goes.
///
/// ```text
/// Unsqueeze [0] -> Transpose [3, 1, 2, 0, 4] -> Squeeze [3]   Transpose [2, 0, 1, 3]
/// ```
fn drop_passing_axes(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Squeeze(squeeze) = graph.op(id) else { return Ok(false) };
    let Some((unsqueezed, perm)) = graph.input_of(id, 0).and_then(|moved| transpose_of(graph, moved)) else {
        return Ok(false);
    };
    let Op::Unsqueeze(unsqueeze) = graph.op(unsqueezed.node) else { return Ok(false) };
    let mut gone: Vec<usize> = squeeze.axes.iter().filter_map(|&axis| perm.get(axis).copied()).collect();
    gone.sort_unstable();
    if gone != unsqueeze.axes {
        return Ok(false);
    }
    let left = perm.iter().filter(|axis| !gone.contains(axis));
    let perm = left.map(|&axis| axis - gone.iter().filter(|&&other| other < axis).count()).collect();
    let Some(x) = graph.input_of(unsqueezed.node, 0) else { return Ok(false) };
    graph.replace_op(id, Transpose { perm }, &[Some(x)])?;
    Ok(true)
}

/// Transposes in a row are one, or none.
fn join_transposes(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Transpose(outer) = graph.op(id) else { return Ok(false) };
    let Some((x, inner)) = graph.input_of(id, 0).and_then(|moved| transpose_of(graph, moved)) else { return Ok(false) };
    let perm: Vec<usize> = outer.perm.iter().filter_map(|&axis| inner.get(axis).copied()).collect();
    if perm.is_sorted() {
        graph.replace_uses(id.into(), x);
    } else {
        graph.replace_op(id, Transpose { perm }, &[Some(x)])?;
    }
    Ok(true)
}

/// A dense layer over the last axis does not care for the order of the others: a transpose before it that can become
/// one with another after it comes after it.
fn move_behind_dense(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Dense(dense) = graph.op(id).clone() else { return Ok(false) };
    let mut inputs = graph.inputs_of(id);
    let Some((x, perm)) = inputs.first().copied().flatten().and_then(|moved| transpose_of(graph, moved)) else {
        return Ok(false);
    };
    let split = reader(graph, id.into()).filter(|&reader| matches!(graph.op(reader), Op::Reshape(_)));
    let then = split.and_then(|split| reader(graph, split.into()));
    if perm.last() != Some(&(perm.len() - 1)) || !then.is_some_and(|then| matches!(graph.op(then), Op::Transpose(_))) {
        return Ok(false);
    }
    inputs[0] = Some(x);
    graph.replace_op(id, dense, &inputs)?;
    let name = named(graph, id, "moved");
    graph.insert_after(id.into(), |graph, y| Ok(graph.add(Transpose { perm }, &name, &[y])?.into()))?;
    Ok(true)
}

/// The same for a transpose after it and another before it, with a reshape between that joins the last axes.
///
/// ```text
/// x [N, H, L, D] -> Transpose [2, 0, 1, 3] -> Reshape [L, N, C] -> Dense -> Transpose [1, 0, 2]
/// x -> Transpose [0, 2, 1, 3] -> Reshape [N, L, C] -> Dense
/// ```
fn move_before_dense(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Transpose(Transpose { perm: outer }) = graph.op(id).clone() else { return Ok(false) };
    let Some(y) = graph.input_of(id, 0) else { return Ok(false) };
    let (Op::Dense(_), true) = (graph.op(y.node), graph.uses(y) == 1) else { return Ok(false) };
    let Some(joined) = graph.input_of(y.node, 0).filter(|joined| graph.uses(*joined) == 1) else { return Ok(false) };
    let Op::Reshape(_) = graph.op(joined.node) else { return Ok(false) };
    let Some(moved) = graph.input_of(joined.node, 0) else { return Ok(false) };
    let Some((x, inner)) = transpose_of(graph, moved) else { return Ok(false) };
    let lead = outer.len() - 1;
    let (before, after) = (graph.shape(moved).clone(), graph.shape(joined).clone());
    if outer[lead] != lead || before.rank() < after.rank() || before.0[..lead] != after.0[..lead] {
        return Ok(false);
    }
    let perm = outer[..lead].iter().chain(&(lead..inner.len()).collect::<Vec<_>>()).map(|&axis| inner[axis]).collect();
    let shape = Shape(outer.iter().map(|&axis| after.0[axis].clone()).collect());
    graph.replace_op(moved.node, Transpose { perm }, &[Some(x)])?;
    graph.replace_op(joined.node, Reshape { shape }, &[Some(moved)])?;
    graph.replace_uses(id.into(), y);
    Ok(true)
}

/// What a reshape splits may be split before it is moved, where that saves a reshape or a transpose.
///
/// ```text
/// Reshape [L, N * H, D] -> Transpose [1, 0, 2] -> Reshape [N, H, L, D]   Reshape [L, N, H, D] -> Transpose [1, 2, 0, 3]
/// ```
fn split_first(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Reshape(Reshape { .. }) = graph.op(id) else { return Ok(false) };
    let Some(moved) = graph.input_of(id, 0) else { return Ok(false) };
    let Some((x, perm)) = transpose_of(graph, moved) else { return Ok(false) };
    let (before, after) = (graph.shape(moved).clone(), graph.shape(id.into()).clone());
    let Some(more) = after.rank().checked_sub(before.rank()).filter(|more| *more > 0) else { return Ok(false) };
    let at = before.0.iter().zip(&after.0).take_while(|(a, b)| a == b).count();
    let parts = after.0.get(at..=at + more).unwrap_or_default();
    // Where one is 1 it could be another axis that is split.
    let is_clear = at < before.rank() && !parts.contains(&Dim::Known(1));
    if !is_clear || before.0[at + 1..] != after.0[at + 1 + more..] {
        return Ok(false);
    }
    let from = match graph.op(x.node) {
        Op::Reshape(_) if graph.uses(x) == 1 => graph.input_of(x.node, 0),
        _ => reader(graph, id.into()).filter(|&then| matches!(graph.op(then), Op::Transpose(_))).map(|_| x),
    };
    let Some(from) = from else { return Ok(false) };
    let axis = perm[at];
    let mut shape = graph.shape(x).0.clone();
    shape.splice(axis..=axis, parts.iter().cloned());
    let perm = perm.iter().flat_map(|&old| match old {
        old if old == axis => (axis..=axis + more).collect(),
        old if old > axis => vec![old + more],
        old => vec![old],
    });
    let perm: Vec<usize> = perm.collect();
    let name = named(graph, id, "split");
    let split = graph.add(Reshape { shape: Shape(shape) }, &name, &[from])?;
    graph.place_beside(split, id);
    graph.replace_op(id, Transpose { perm }, &[Some(split.into())])?;
    Ok(true)
}

/// Query, key and value of one dense layer are split where they lie.
///
/// ```text
/// x [N, L, 3 * H * D] -> Reshape [N, L, 3, H, D] -> Transpose [2, 0, 3, 1, 4] -> Unpack
/// x -> Split -> Reshape [N, L, H, D] -> Transpose [0, 2, 1, 3]
/// ```
fn split_parts(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let Op::Unpack(Unpack { axis: 0, count }) = *graph.op(id) else { return Ok(false) };
    let Some((parts, perm)) = graph.input_of(id, 0).and_then(|moved| transpose_of(graph, moved)) else {
        return Ok(false);
    };
    let (Op::Reshape(_), true) = (graph.op(parts.node), graph.uses(parts) == 1) else { return Ok(false) };
    let Some(x) = graph.input_of(parts.node, 0) else { return Ok(false) };
    let (whole, shape) = (graph.shape(x).clone(), graph.shape(parts).clone());
    let last = whole.rank() - 1;
    if perm[0] != last || shape.rank() < last + 2 || whole.0[..last] != shape.0[..last] {
        return Ok(false);
    }
    let sizes: Option<Vec<usize>> = shape.0[last + 1..].iter().map(Dim::known).collect();
    let Some(size) = sizes.map(|sizes| sizes.iter().product::<usize>()) else { return Ok(false) };
    let mut part = shape.0.clone();
    part.remove(last);
    let perm: Vec<usize> = perm[1..].iter().map(|&axis| axis - usize::from(axis > last)).collect();
    let name = named(graph, id, "split");
    let split = graph.add(Split { axis: last, sizes: vec![size; count] }, &name, &[x])?;
    graph.place_beside(split, id);
    for output in 0..count {
        let mut value = Value { node: split, output };
        if part.len() > whole.rank() {
            let name = named(graph, id, &format!("part{output}"));
            let reshaped = graph.add(Reshape { shape: Shape(part.clone()) }, &name, &[value])?;
            graph.place_beside(reshaped, id);
            value = reshaped.into();
        }
        if !perm.is_sorted() {
            let name = named(graph, id, &format!("moved{output}"));
            let moved = graph.add(Transpose { perm: perm.clone() }, &name, &[value])?;
            graph.place_beside(moved, id);
            value = moved.into();
        }
        graph.replace_uses(Value { node: id, output }, value);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use modelport_ir::op::{Dense, ReduceKind, Squeeze, Unsqueeze};
    use modelport_ir::{DType, Tensor};

    use super::*;

    fn shape(sizes: &[usize]) -> Shape {
        Shape(std::iter::once(Dim::symbol("N")).chain(sizes.iter().map(|&size| Dim::Known(size))).collect())
    }

    fn operators(graph: &Graph) -> Vec<String> {
        let order = graph.order().unwrap();
        order
            .iter()
            .map(|&id| graph.op(id).name())
            .filter(|name| !["Input", "Constant", "DataInput"].contains(&name.as_str()))
            .collect()
    }

    fn slice(rank: usize, axis: usize, begin: i64, end: i64) -> Slice {
        let mut slice = Slice::all(rank);
        (slice.begins[axis], slice.ends[axis]) = (begin, end);
        slice
    }

    #[test]
    fn query_key_and_value_are_split() {
        let mut graph = Graph::new("net", "test");
        let x = graph.input("x", DType::Float32, shape(&[5, 8])).unwrap();
        let kernel = graph.variable("kernel", Tensor::from_f32(&[8, 24], &[]));
        let moved = graph.add(Transpose { perm: vec![1, 0, 2] }, "moved", &[x]).unwrap();
        let qkv = graph.add(Dense {}, "qkv", &[moved.into(), kernel]).unwrap();
        let sizes = |sizes: &[usize]| sizes.iter().map(|&size| Dim::Known(size)).collect::<Vec<_>>();
        let parts = Shape([sizes(&[5]), vec![Dim::symbol("N")], sizes(&[3, 8])].concat());
        let parts = graph.add(Reshape { shape: parts }, "parts", &[qkv.into()]).unwrap();
        let one = graph.add(Unsqueeze { axes: vec![0] }, "one", &[parts.into()]).unwrap();
        let turned = graph.add(Transpose { perm: vec![3, 1, 2, 0, 4] }, "turned", &[one.into()]).unwrap();
        let three = graph.add(Squeeze { axes: vec![3] }, "three", &[turned.into()]).unwrap();
        for (index, end) in [1, 2, Slice::OPEN].into_iter().enumerate() {
            let part = graph.add(slice(4, 0, index as i64, end), &format!("part{index}"), &[three.into()]).unwrap();
            let heads = Shape([sizes(&[5]), vec![Dim::symbol("N").times(&Dim::Known(2))], sizes(&[4])].concat());
            let heads = graph.add(Reshape { shape: heads }, &format!("heads{index}"), &[part.into()]).unwrap();
            let first = graph.add(Transpose { perm: vec![1, 0, 2] }, &format!("first{index}"), &[heads.into()]);
            let whole = shape(&[2, 5, 4]);
            let y = graph.add(Reshape { shape: whole }, &format!("y{index}"), &[first.unwrap().into()]).unwrap();
            graph.output(&format!("y{index}"), y.into());
        }
        run(&mut graph).unwrap();
        let expected = ["Dense", "Split", "Reshape", "Transpose", "Reshape", "Transpose", "Reshape", "Transpose"];
        let mut found = operators(&graph);
        found[2..].sort_unstable();
        let mut sorted = expected;
        sorted[2..].sort_unstable();
        assert_eq!(found, sorted);
        let output = graph.outputs[0].value;
        assert!(matches!(graph.op(output.node), Op::Transpose(op) if op.perm == [0, 2, 1, 3]));
        assert_eq!(*graph.shape(output), shape(&[2, 5, 4]));
    }

    #[test]
    fn slices_of_slices_are_one() {
        let mut graph = Graph::new("net", "test");
        let x = graph.input("x", DType::Float32, shape(&[6, 6])).unwrap();
        let rows = graph.add(slice(3, 1, 1, 3), "rows", &[x]).unwrap();
        let both = graph.add(slice(3, 2, 2, 5), "both", &[rows.into()]).unwrap();
        let again = graph.add(slice(3, 1, 1, 2), "again", &[rows.into()]).unwrap();
        graph.output("both", both.into());
        graph.output("again", again.into());
        run(&mut graph).unwrap();
        assert_eq!(graph.input_of(both, 0), Some(x));
        assert!(matches!(graph.op(both), Op::Slice(op) if op.begins == [0, 1, 2]));
        // One axis is not sliced twice at once.
        assert_eq!(graph.input_of(again, 0), Some(rows.into()));
    }

    #[test]
    fn means_come_before_moves() {
        let mut graph = Graph::new("net", "test");
        let x = graph.input("x", DType::Float32, shape(&[2, 3, 4])).unwrap();
        let moved = graph.add(Transpose { perm: vec![0, 3, 1, 2] }, "moved", &[x]).unwrap();
        let reduce = Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep_dims: true };
        let mean = graph.add(reduce, "mean", &[moved.into()]).unwrap();
        graph.output("mean", mean.into());
        let before = graph.shape(mean.into()).clone();
        run(&mut graph).unwrap();
        assert!(matches!(graph.op(mean), Op::Reduce(op) if op.axes == [1, 2]));
        assert_eq!(*graph.shape(graph.outputs[0].value), before);
    }
}
