//! Evaluation of whole graphs.

use std::collections::{HashMap, HashSet};

use super::array::Array;
use super::{Sizes, apply, apply_sized};
use crate::diagnostic::{Error, Problem, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::op::Op;

/// The outputs of a graph on inputs in the order of [`Graph::inputs`]. Free sizes are those of the inputs; only what
/// the outputs depend on is computed, and values are freed after their last use.
///
/// # Errors
/// When the inputs are not those that the graph declares, or a node can't be evaluated: the problem names the node.
pub fn evaluate(graph: &Graph, inputs: &[Array]) -> Result<Vec<Array>> {
    let mut sizes = Sizes::default();
    let mut values: HashMap<Value, Array> = HashMap::new();
    bind_inputs(graph, inputs, &mut sizes, &mut values)?;

    let live = live_nodes(graph);
    let mut uses: HashMap<Value, usize> = HashMap::new();
    for &id in &live {
        for value in graph.inputs_of(id).into_iter().flatten() {
            *uses.entry(value).or_default() += 1;
        }
    }
    for port in &graph.outputs {
        *uses.entry(port.value).or_default() += 1;
    }

    for id in graph.order()? {
        let node = graph.node(id);
        // Constants are read where they are used: weights would fill the memory otherwise.
        if !live.contains(&id) || matches!(node.op, Op::Input(_) | Op::Constant(_)) {
            continue;
        }
        let sources = graph.inputs_of(id);
        for value in sources.iter().flatten() {
            read_constant(graph, *value, &mut values)?;
        }
        let arguments: Vec<Option<&Array>> = sources.iter().map(|v| v.and_then(|v| values.get(&v))).collect();
        let outputs = apply_sized(&node.op, &arguments, &sizes).map_err(|message| {
            let shapes: Vec<String> = arguments
                .iter()
                .map(|x| x.map_or("-".to_owned(), |x| format!("{}{}", x.dtype(), x.info().shape)))
                .collect();
            Problem::new(message).node(&node.name).op(node.op.name()).inputs(format!("({})", shapes.join(", ")))
        })?;
        for (output, (array, info)) in outputs.into_iter().zip(&node.outputs).enumerate() {
            let fits = if array.dtype() == info.dtype {
                sizes.bind(&info.shape, array.shape())
            } else {
                Err(format!("the type is {}, expected {}", array.dtype(), info.dtype))
            };
            fits.map_err(|message| {
                let message = format!("output {output} is not what was inferred: {message}");
                Problem::new(message).node(&node.name).op(node.op.name())
            })?;
            let value = Value { node: id, output };
            if uses.contains_key(&value) {
                values.insert(value, array);
            }
        }
        for value in sources.into_iter().flatten() {
            release(value, &mut uses, &mut values);
        }
    }

    let mut outputs = Vec::with_capacity(graph.outputs.len());
    for port in &graph.outputs {
        read_constant(graph, port.value, &mut values)?;
        let array = values.get(&port.value).cloned();
        outputs.push(array.ok_or_else(|| Error::new(format!("output '{}' was not computed", port.name)))?);
    }
    Ok(outputs)
}

fn bind_inputs(graph: &Graph, inputs: &[Array], sizes: &mut Sizes, values: &mut HashMap<Value, Array>) -> Result<()> {
    if inputs.len() != graph.inputs.len() {
        let names: Vec<&str> = graph.inputs.iter().map(|port| port.name.as_str()).collect();
        let message = format!("{} inputs are given, expected {}: {}", inputs.len(), names.len(), names.join(", "));
        return Err(Error::new(message));
    }
    let mut problems = Vec::new();
    for (port, array) in graph.inputs.iter().zip(inputs) {
        let info = graph.info(port.value);
        if array.dtype() != info.dtype {
            let message = format!("an input has type {}, expected {}", array.dtype(), info.dtype);
            problems.push(Problem::new(message).node(&port.name));
        }
        if let Err(message) = sizes.bind(&info.shape, array.shape()) {
            problems.push(Problem::new(format!("an input does not fit: {message}")).node(&port.name));
        }
        values.insert(port.value, array.clone());
    }
    Error::collect(problems)
}

/// The nodes that outputs depend on.
fn live_nodes(graph: &Graph) -> HashSet<NodeId> {
    let mut live = HashSet::new();
    let mut stack: Vec<NodeId> = graph.outputs.iter().map(|port| port.value.node).collect();
    while let Some(id) = stack.pop() {
        if live.insert(id) {
            stack.extend(graph.inputs_of(id).into_iter().flatten().map(|value| value.node));
        }
    }
    live
}

fn read_constant(graph: &Graph, value: Value, values: &mut HashMap<Value, Array>) -> Result<()> {
    let node = graph.node(value.node);
    if !values.contains_key(&value) && matches!(node.op, Op::Constant(_)) {
        let mut outputs = apply(&node.op, &[]).map_err(|message| Problem::new(message).node(&node.name))?;
        values.insert(value, outputs.remove(0));
    }
    Ok(())
}

fn release(value: Value, uses: &mut HashMap<Value, usize>, values: &mut HashMap<Value, Array>) {
    if let Some(count) = uses.get_mut(&value) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            values.remove(&value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::ramp;
    use super::*;
    use crate::op::{Binary, Dense, Foreign, Reshape, Split, Unary};
    use crate::shape::{Dim, Shape};
    use crate::tensor::{DType, Tensor};

    fn batch(dims: &[&str]) -> Shape {
        dims.iter().map(|dim| Dim::parse(dim).unwrap()).collect()
    }

    #[test]
    fn a_network_runs_at_any_batch_size() {
        let mut graph = Graph::new("mlp", "");
        let x = graph.input("x", DType::Float32, batch(&["N", "2", "1"])).unwrap();
        let w = graph.constant("w", Tensor::from_f32(&[2, 2], &[1., 2., 3., 4.]));
        let flat = graph.add(Reshape { shape: batch(&["N", "2"]) }, "flat", &[x]).unwrap();
        let dense = graph.add(Dense {}, "dense", &[flat.into(), w]).unwrap();
        let parts = graph.add(Split { axis: 1, sizes: vec![1, 1] }, "parts", &[dense.into()]).unwrap();
        let (left, right) = (Value { node: parts, output: 0 }, Value { node: parts, output: 1 });
        let sub = graph.add(Binary::Sub, "sub", &[right, left]).unwrap();
        // Nothing needs it, so it does no harm.
        let foreign = Foreign { op: "Print".to_owned(), dtype: DType::Float32, shape: Shape::scalar() };
        graph.add(foreign, "print", &[x]).unwrap();
        graph.output("sub", sub.into());
        graph.output("left", left);
        graph.output("w", w);
        for n in [1, 2] {
            let values: Vec<f32> = (0..n * 2).map(|i| i as f32 / 2.0 + 0.5).collect();
            let outputs = evaluate(&graph, &[Array::from_f32(&[n, 2, 1], &values).unwrap()]).unwrap();
            let wanted: Vec<f64> = values.chunks(2).map(|x| f64::from(x[0] + x[1])).collect();
            assert_eq!(outputs[0].to_f64(), wanted);
            assert_eq!((outputs[1].shape(), outputs[2].shape()), (&[n, 1][..], &[2, 2][..]));
        }
    }

    #[test]
    fn inputs_must_be_those_that_are_declared() {
        let mut graph = Graph::new("sum", "");
        let x = graph.input("x", DType::Float64, batch(&["N", "2"])).unwrap();
        let y = graph.input("y", DType::Float64, batch(&["N", "2"])).unwrap();
        let sum = graph.add(Binary::Add, "sum", &[x, y]).unwrap();
        graph.output("sum", sum.into());
        assert!(evaluate(&graph, &[ramp(&[2, 2])]).unwrap_err().to_string().contains("expected 2: x, y"));
        assert!(evaluate(&graph, &[ramp(&[2, 2]), ramp(&[1, 2])]).unwrap_err().to_string().contains("N is 2"));
        let typed = evaluate(&graph, &[ramp(&[2, 2]), Array::from_i64(&[2, 3], &[0; 6]).unwrap()]).unwrap_err();
        assert_eq!(typed.problems.len(), 2);
    }

    #[test]
    fn errors_name_the_node() {
        let mut graph = Graph::new("mod", "");
        let x = graph.input("x", DType::Int64, batch(&["N"])).unwrap();
        let zero = graph.constant("zero", Tensor::from_i64(&[], &[0]));
        let node = graph.add(Binary::Mod, "scope/mod", &[x, zero]).unwrap();
        let last = graph.add(Unary::Neg, "neg", &[node.into()]).unwrap();
        graph.output("neg", last.into());
        let error = evaluate(&graph, &[Array::from_i64(&[1], &[1]).unwrap()]).unwrap_err().to_string();
        assert!(error.contains("divided by 0 [Mod]") && error.contains("scope/mod (int64[1], int64[])"), "{error}");
    }
}
