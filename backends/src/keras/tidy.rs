//! What a person writes in fewer steps: moves of axes and elements, mostly of attention, in a form that Keras has words
//! for. What the graph computes is the same.

use modelport_ir::op::{Op, Reduce, Reshape, Split, Transpose, Unpack};
use modelport_ir::{Dim, Graph, NodeId, Result, Shape, Value};

/// Runs all rewrites.
///
/// # Errors
/// When the graph has a cycle.
pub fn run(graph: &mut Graph) -> Result<()> {
    each(graph, join_slices)?;
    each(graph, mean_of_moved)?;
    each(graph, split_parts)
}

fn each(graph: &mut Graph, rewrite: fn(&mut Graph, NodeId) -> Result<bool>) -> Result<()> {
    let mut changed = false;
    for id in graph.order()? {
        changed |= graph.contains(id) && rewrite(graph, id)?;
    }
    if changed {
        graph.prune();
        graph.refresh()?;
    }
    Ok(())
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
    let mut both = outer.clone();
    for at in 0..both.begins.len() {
        match (outer.takes_all(at), inner.takes_all(at)) {
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
    use modelport_ir::op::{Dense, ReduceKind, Slice, Squeeze, Unsqueeze};
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
        // What all targets have in common: one product, taken apart once.
        modelport_ir::pass::run(&mut graph, modelport_ir::pass::NORMALIZE).unwrap();
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
