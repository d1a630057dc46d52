//! What Keras says in another way than the graph: rewrites that keep what it computes, for this target alone.

use std::collections::HashMap;

use modelport_ir::op::{Binary, Concat, Gather, MatMul, Op};
use modelport_ir::pass::fold_constants;
use modelport_ir::{Dim, Graph, NodeId, Result, Value};

use super::tidy;

/// The graph as it is planned.
///
/// # Errors
/// When the graph has a cycle.
pub fn prepared(graph: &Graph) -> Result<Graph> {
    let mut graph = graph.clone();
    fold_constants::all(&mut graph)?;
    graph.prune();
    share_tables(&mut graph)?;
    tidy::run(&mut graph)?;
    drop_moves_of_ones(&mut graph)?;
    nest_concats(&mut graph)?;
    Ok(graph)
}

/// A dense layer whose kernel is a transposed table of embeddings, as heads of language models are, multiplies by that
/// table: the weights are one, as they are in the source.
///
/// ```text
/// Gather(table), Dense(x, tableᵀ, bias)   Gather(table), MatMul(x, table, transposed) + bias
/// ```
fn share_tables(graph: &mut Graph) -> Result<()> {
    let tables: Vec<Value> = graph.ids().into_iter().filter_map(|id| table(graph, id)).collect();
    for id in graph.ids() {
        let Op::Dense(_) = graph.op(id) else { continue };
        let inputs = graph.inputs_of(id);
        let (Some(x), Some(kernel)) = (inputs[0], inputs[1]) else { continue };
        let Some(turned) = graph.tensor(kernel).and_then(|kernel| kernel.permuted(&[1, 0]).ok()) else { continue };
        let is_table = |table: &&Value| graph.tensor(**table).is_some_and(|table| table.is_same(&turned));
        let Some(&table) = tables.iter().find(is_table) else { continue };
        let bias = inputs.get(2).copied().flatten();
        graph.replace_op(id, MatMul { transpose_a: false, transpose_b: true }, &[Some(x), Some(table)])?;
        if let Some(bias) = bias {
            let name = format!("{}/add", graph.node(id).name);
            graph.insert_after(id.into(), |graph, product| {
                Ok(graph.add(Binary::Add, &name, &[product, bias])?.into())
            })?;
        }
    }
    Ok(())
}

/// What flattens a vector with axes of one element needs none of them moved.
///
/// ```text
/// x [N, 1, 1, C] -> Transpose [0, 3, 1, 2] -> Reshape [N, C]   x -> Reshape [N, C]
/// ```
fn drop_moves_of_ones(graph: &mut Graph) -> Result<()> {
    for id in graph.ids() {
        let Op::Reshape(_) = graph.op(id) else { continue };
        if graph.shape(id.into()).rank() != 2 {
            continue;
        }
        let Some(moved) = graph.input_of(id, 0) else { continue };
        let Op::Transpose(transpose) = graph.op(moved.node) else { continue };
        let Some(x) = graph.input_of(moved.node, 0) else { continue };
        let shape = graph.shape(x);
        let long = transpose.perm.iter().filter(|&&axis| shape.get(axis).and_then(Dim::known) != Some(1));
        if long.is_sorted() {
            graph.set_input(id, 0, Some(x));
        }
    }
    Ok(())
}

/// The table of an embedding.
fn table(graph: &Graph, id: NodeId) -> Option<Value> {
    let Op::Gather(Gather { axis: 0, .. }) = graph.op(id) else { return None };
    let table = graph.input_of(id, 0)?;
    graph.tensor(table).filter(|table| table.rank() == 2).map(|_| table)
}

/// A concatenation that begins with all that another joins begins with that one, and belongs to the module that made
/// what it adds: layers of a DenseNet get one value each, to which they append.
///
/// ```text
/// Concat(x, a), Concat(x, a, b)   c = Concat(x, a), Concat(c, b)
/// ```
fn nest_concats(graph: &mut Graph) -> Result<()> {
    let mut known: HashMap<(usize, Vec<Value>), NodeId> = HashMap::new();
    for id in graph.ids() {
        if let Op::Concat(Concat { axis }) = graph.op(id) {
            let values: Option<Vec<Value>> = graph.inputs_of(id).into_iter().collect();
            known.extend(values.map(|values| ((*axis, values), id)));
        }
    }
    let mut nested: Vec<(NodeId, Value)> = Vec::new();
    for ((axis, values), &id) in &known {
        let start = |end: &usize| known.get(&(*axis, values[..*end].to_vec()));
        let Some(end) = (2..values.len()).rev().find(|end| start(end).is_some()) else { continue };
        let Some(&inner) = start(&end) else { continue };
        let inputs: Vec<Option<Value>> =
            std::iter::once(inner.into()).chain(values[end..].iter().copied()).map(Some).collect();
        graph.replace_op(id, Concat { axis: *axis }, &inputs)?;
        nested.extend([(id, values[values.len() - 1]), (inner, values[end - 1])]);
    }
    nested.sort();
    nested.dedup();
    for (id, added) in nested {
        let of = |id: NodeId| graph.module_of(id).unwrap_or_default().split('.').collect::<Vec<_>>();
        let (own, maker) = (of(id), of(added.node));
        let common = own.iter().zip(&maker).take_while(|(a, b)| a == b).count();
        let module = maker[..(common + 1).min(maker.len())].join(".");
        if graph.modules.contains_key(&module) {
            graph.rename(id, &format!("{module}/concat"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use modelport_ir::op::Unary;
    use modelport_ir::op::{Reshape, Transpose};
    use modelport_ir::{DType, Shape, Tensor};

    use super::*;

    fn input(graph: &mut Graph, dtype: DType, last: usize) -> Value {
        graph.input("x", dtype, Shape(vec![Dim::symbol("N"), Dim::Known(last)])).unwrap()
    }

    #[test]
    fn a_head_multiplies_by_the_table() {
        let mut graph = Graph::new("net", "test");
        let ids = input(&mut graph, DType::Int64, 3);
        let table = Tensor::from_f32(&[5, 2], &[0.5; 10]);
        let kernel = graph.variable("tok.weight_1", table.permuted(&[1, 0]).unwrap());
        let table = graph.variable("tok.weight", table);
        let x = graph.add(Gather { axis: 0, batch_dims: 0 }, "tok", &[table, ids]).unwrap();
        let y = graph.add(modelport_ir::op::Dense {}, "head", &[x.into(), kernel]).unwrap();
        graph.output("y", y.into());
        let graph = prepared(&graph).unwrap();
        assert_eq!(graph.input_of(y, 1), Some(table));
        assert!(matches!(graph.op(y), Op::MatMul(MatMul { transpose_b: true, .. })));
    }

    #[test]
    fn what_buffers_give_is_computed() {
        let mut graph = Graph::new("net", "test");
        graph.modules.insert(String::new(), "Net".to_owned());
        let x = input(&mut graph, DType::Float32, 2);
        let buffer = graph.constant("angles", Tensor::from_f32(&[2], &[0.0, 0.0]));
        let weight = graph.variable("weight", Tensor::from_f32(&[2], &[0.0, 0.0]));
        let cos = graph.add(Unary::Cos, "cos", &[buffer]).unwrap();
        let trained = graph.add(Unary::Cos, "trained", &[weight]).unwrap();
        let y = graph.add(Binary::Mul, "y", &[x, cos.into()]).unwrap();
        let z = graph.add(Binary::Mul, "z", &[y.into(), trained.into()]).unwrap();
        graph.output("z", z.into());
        let graph = prepared(&graph).unwrap();
        let second = |name: &str| graph.input_of(graph.find(name).unwrap(), 1).unwrap();
        assert_eq!(graph.tensor(second("y")).unwrap().to_f64().unwrap(), [1.0, 1.0]);
        assert!(matches!(graph.op(second("z").node), Op::Unary(Unary::Cos)));
    }

    #[test]
    fn ones_need_no_transpose() {
        let mut graph = Graph::new("net", "test");
        let shape = |sizes: &[usize]| {
            Shape(std::iter::once(Dim::symbol("N")).chain(sizes.iter().map(|&n| Dim::Known(n))).collect())
        };
        let mut flat = |name: &str, sizes: &[usize]| {
            let x = graph.input(name, DType::Float32, shape(sizes)).unwrap();
            let y = graph.add(Transpose { perm: vec![0, 3, 1, 2] }, &format!("{name}/moved"), &[x]).unwrap();
            let z =
                graph.add(Reshape { shape: shape(&[sizes.iter().product()]) }, &format!("{name}/flat"), &[y.into()]);
            (x, y, z.unwrap())
        };
        let (x, _, z) = flat("ones", &[1, 1, 5]);
        let (_, moved, other) = flat("image", &[2, 1, 5]);
        graph.output("flat", z.into());
        graph.output("moved", other.into());
        let graph = prepared(&graph).unwrap();
        assert_eq!(graph.input_of(z, 0), Some(x));
        assert_eq!(graph.input_of(other, 0), Some(moved.into()));
    }

    #[test]
    fn a_concatenation_goes_on_with_another() {
        let mut graph = Graph::new("net", "test");
        let x = input(&mut graph, DType::Float32, 2);
        let a: Value = graph.add(Unary::Relu, "a", &[x]).unwrap().into();
        let b: Value = graph.add(Unary::Tanh, "b", &[a]).unwrap().into();
        let short = graph.add(Concat { axis: 1 }, "short", &[x, a]).unwrap();
        let long = graph.add(Concat { axis: 1 }, "long", &[x, a, b]).unwrap();
        graph.output("short", short.into());
        graph.output("long", long.into());
        let shape = graph.shape(long.into()).clone();
        let graph = prepared(&graph).unwrap();
        assert_eq!(graph.inputs_of(long), [Some(short.into()), Some(b)]);
        assert_eq!(*graph.shape(long.into()), shape);
    }
}
