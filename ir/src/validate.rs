//! The promise to backends: a graph that is valid can be written without a panic and means what its operators say.

use std::collections::HashSet;

use crate::diagnostic::{Error, Problem, Result};
use crate::graph::{Graph, NodeId, Port, Value, ValueInfo};
use crate::layout::Layout;
use crate::op::{AdaptivePool, Binary, Op, PadMode, Pool, PoolKind, ReduceKind, Resize, ResizeMode, SlotKind, Unary};
use crate::shape::{Dim, Shape};
use crate::tensor::DType;

/// Checks a whole graph: every slot filled as its operator demands, every edge from an output that exists, stored
/// types and shapes equal to inferred ones, no cycle, unique names, inputs and outputs that exist, attributes that
/// keep what their documentation says, no operator without a translation.
///
/// # Errors
/// All problems at once, each at its node.
pub fn validate(graph: &Graph) -> Result<()> {
    let mut problems = Vec::new();
    let ids = graph.ids();
    let mut names = HashSet::new();
    for &id in &ids {
        let node = graph.node(id);
        if node.name.is_empty() {
            problems.push(Problem::new("a node has no name").op(node.op.name()));
        } else if !names.insert(node.name.as_str()) {
            problems.push(Problem::new("two nodes have the same name").node(&node.name));
        }
        check_slots(graph, id, &mut problems);
        check_node(graph, id, &mut problems);
    }
    if let Err(error) = graph.order() {
        problems.extend(error.problems);
    }
    check_inputs(graph, &ids, &mut problems);
    check_outputs(graph, &mut problems);
    Error::collect(problems)
}

/// Whether the value's node and output exist.
fn exists(graph: &Graph, value: Value) -> bool {
    graph.contains(value.node) && value.output < graph.node(value.node).outputs.len()
}

/// No slot may be entered twice.
fn check_slots(graph: &Graph, id: NodeId, problems: &mut Vec<Problem>) {
    let node = graph.node(id);
    let filled = graph.inputs_of(id).iter().flatten().count();
    if graph.input_count(id) != filled {
        problems.push(Problem::new("two values enter the same input").node(&node.name).op(node.op.name()));
    }
}

fn check_node(graph: &Graph, id: NodeId, problems: &mut Vec<Problem>) {
    let node = graph.node(id);
    let problem = |message: String| Problem::new(message).node(&node.name).op(node.op.name());
    let inputs = graph.inputs_of(id);
    for (slot, value) in inputs.iter().enumerate() {
        match value {
            Some(value) if !exists(graph, *value) => {
                let source = &graph.node(value.node).name;
                problems.push(problem(format!("input {slot} is output {} of {source}, which has none", value.output)));
                return;
            }
            None if node.op.slot(slot).is_some_and(|slot| slot.kind == SlotKind::Variadic) => {
                problems.push(problem(format!("input {slot} is missing")));
                return;
            }
            _ => {}
        }
    }
    let infos: Vec<Option<&ValueInfo>> = inputs.iter().map(|value| value.map(|v| graph.info(v))).collect();
    let shapes: Vec<String> =
        infos.iter().map(|info| info.map_or("-".to_owned(), |i| format!("{}{}", i.dtype, i.shape))).collect();
    let problem = |message: String| problem(message).inputs(format!("({})", shapes.join(", ")));
    if matches!(node.op, Op::Foreign(_)) {
        let hint = "cut it off: end in front of it with --dstNode, or begin behind it with --inNodeName";
        problems.push(problem("no translation for this operator".to_owned()).hint(hint));
        return;
    }
    match node.op.infer(&infos) {
        Err(message) => {
            problems.push(problem(message));
            return;
        }
        Ok(outputs) if outputs != node.outputs => {
            let list = |infos: &[ValueInfo]| {
                let texts: Vec<String> = infos.iter().map(|i| format!("{}{}", i.dtype, i.shape)).collect();
                texts.join(", ")
            };
            let (stored, inferred) = (list(&node.outputs), list(&outputs));
            problems.push(problem(format!("the outputs are said to be {stored}, but are {inferred}")));
        }
        Ok(_) => {}
    }
    for output in &node.outputs {
        let known = output.shape.iter().try_fold(1usize, |product, dim| match dim {
            Dim::Known(n) | Dim::Symbol { factor: n, .. } => product.checked_mul(*n),
            Dim::Unknown => Some(product),
        });
        if known.is_none_or(|n| n > isize::MAX as usize / output.dtype.size()) {
            problems.push(problem(format!("a value of shape {} is too large", output.shape)));
        }
    }
    let mut messages = Vec::new();
    check_types(&node.op, &infos, &mut messages);
    check_attributes(&node.op, &infos, &mut messages);
    problems.extend(messages.into_iter().map(problem));
}

fn check_inputs(graph: &Graph, ids: &[NodeId], problems: &mut Vec<Problem>) {
    let mut nodes = HashSet::new();
    let mut names = HashSet::new();
    for port in &graph.inputs {
        let problem = |message: &str| Problem::new(message).node(&port.name);
        if port.name.is_empty() {
            problems.push(problem("an input of the network has no name"));
        } else if !names.insert(port.name.as_str()) {
            problems.push(problem("two inputs of the network have the same name"));
        }
        if !exists(graph, port.value) || !matches!(graph.op(port.value.node), Op::Input(_)) {
            problems.push(problem("an input of the network is no Input node"));
        } else if !nodes.insert(port.value.node) {
            problems.push(problem("an input of the network is listed twice"));
        }
        check_permutation(graph, port, problems);
    }
    for &id in ids {
        if matches!(graph.op(id), Op::Input(_)) && !nodes.contains(&id) {
            let name = &graph.node(id).name;
            problems.push(Problem::new("an Input node is not listed as an input of the network").node(name));
        }
    }
}

fn check_outputs(graph: &Graph, problems: &mut Vec<Problem>) {
    if graph.outputs.is_empty() {
        problems.push(Problem::new("the network has no output").hint("name one with --dstNode"));
    }
    for port in &graph.outputs {
        let problem = |message: &str| Problem::new(message).node(&port.name);
        if port.name.is_empty() {
            problems.push(problem("an output of the network has no name"));
        }
        if !exists(graph, port.value) {
            problems.push(problem("an output of the network does not exist"));
        }
        check_permutation(graph, port, problems);
    }
}

fn check_permutation(graph: &Graph, port: &Port, problems: &mut Vec<Problem>) {
    if let Some(permutation) = &port.permutation
        && exists(graph, port.value)
    {
        let mut sorted = permutation.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..graph.shape(port.value).rank()) {
            let shape = graph.shape(port.value);
            let message = format!("{permutation:?} is no permutation of the axes of {shape}");
            problems.push(Problem::new(message).node(&port.name));
        }
    }
}

/// What an operator may be applied to.
#[derive(Clone, Copy)]
enum Takes {
    Reals,
    Numbers,
    Truth,
    Integers,
    Bits,
}

impl Takes {
    fn fits(self, dtype: DType) -> bool {
        match self {
            Takes::Reals => dtype.is_float(),
            Takes::Numbers => dtype != DType::Bool,
            Takes::Truth => dtype == DType::Bool,
            Takes::Integers => dtype.is_int(),
            Takes::Bits => !dtype.is_float(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Takes::Reals => "real numbers",
            Takes::Numbers => "numbers",
            Takes::Truth => "truth values",
            Takes::Integers => "whole numbers",
            Takes::Bits => "truth values or whole numbers",
        }
    }
}

fn check_types(op: &Op, infos: &[Option<&ValueInfo>], messages: &mut Vec<String>) {
    let mut takes = |slot: usize, takes: Takes| {
        if let Some(info) = infos.get(slot).copied().flatten()
            && !takes.fits(info.dtype)
        {
            messages.push(format!("input {slot} has type {}, expected {}", info.dtype, takes.words()));
        }
    };
    // Inputs that must have one type, from this slot on.
    let mut same_from = None;
    match op {
        Op::Conv(_) | Op::ConvTranspose(_) | Op::Dense(_) | Op::Einsum(_) | Op::Recurrent(_) | Op::PRelu(_) => {
            takes(0, Takes::Reals);
            same_from = Some(0);
        }
        // The mask's type is a matter of shape inference: booleans or that of the scores.
        Op::Attention(_) => (0..3).for_each(|slot| takes(slot, Takes::Reals)),
        Op::MatMul(_) => {
            takes(0, Takes::Numbers);
            same_from = Some(0);
        }
        // Parameters of a normalisation may be float32 when the data is of half precision.
        Op::BatchNorm(_) | Op::LayerNorm(_) | Op::InstanceNorm(_) | Op::GroupNorm(_) => {
            (0..infos.len()).for_each(|slot| takes(slot, Takes::Reals));
        }
        Op::Lrn(_) | Op::L2Normalize(_) => takes(0, Takes::Reals),
        Op::LeakyRelu(_) | Op::Elu(_) | Op::Gelu(_) | Op::Softmax(_) | Op::LogSoftmax(_) => takes(0, Takes::Reals),
        Op::Pool(Pool { kind: PoolKind::Max, .. })
        | Op::AdaptivePool(AdaptivePool { kind: PoolKind::Max, .. })
        | Op::Resize(Resize { mode: ResizeMode::Nearest, .. }) => takes(0, Takes::Numbers),
        Op::Pool(_) | Op::AdaptivePool(_) | Op::Resize(_) => takes(0, Takes::Reals),
        Op::Clip(_) | Op::CumSum(_) | Op::ArgReduce(_) | Op::TopK(_) => takes(0, Takes::Numbers),
        Op::Unary(Unary::Not) => takes(0, Takes::Bits),
        Op::Unary(_) => takes(0, Takes::Numbers),
        Op::Binary(op) => {
            same_from = Some(0);
            match op {
                Binary::And | Binary::Or | Binary::Xor => takes(0, Takes::Bits),
                Binary::Equal | Binary::NotEqual => {}
                Binary::Atan2 => takes(0, Takes::Reals),
                _ => takes(0, Takes::Numbers),
            }
        }
        Op::Select(_) => {
            takes(0, Takes::Truth);
            same_from = Some(1);
        }
        Op::Reduce(op) => takes(
            0,
            match op.kind {
                ReduceKind::All | ReduceKind::Any => Takes::Truth,
                ReduceKind::L2 | ReduceKind::LogSumExp => Takes::Reals,
                _ => Takes::Numbers,
            },
        ),
        Op::Concat(_) | Op::Pack(_) => same_from = Some(0),
        Op::Gather(_) | Op::GatherNd(_) | Op::Scatter(_) => takes(1, Takes::Integers),
        Op::OneHot(_) => takes(0, Takes::Integers),
        Op::Input(_) | Op::Constant(_) | Op::Fill(_) | Op::Range(_) | Op::Dims(_) | Op::Foreign(_) => {}
        Op::Dropout(_) | Op::Cast(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => {}
        Op::Split(_) | Op::Unpack(_) | Op::Slice(_) | Op::Pad(_) | Op::Tile(_) | Op::Expand(_) | Op::Reverse(_) => {}
        Op::SpaceToDepth(_) | Op::DepthToSpace(_) | Op::GridSample(_) => {}
    }
    if let Some(first) = same_from {
        let mut types = infos.iter().skip(first).flatten().map(|info| info.dtype);
        if let Some(dtype) = types.next()
            && let Some(other) = types.find(|other| *other != dtype)
        {
            messages.push(format!("the inputs differ in type: {dtype} and {other}"));
        }
    }
}

fn check_attributes(op: &Op, infos: &[Option<&ValueInfo>], messages: &mut Vec<String>) {
    let shape = infos.first().copied().flatten().map(|info| &info.shape);
    let channels =
        |layout: Layout| shape.and_then(|shape| shape.get(layout.channel_axis(shape.rank()))).and_then(Dim::known);
    let mut need = |holds: bool, message: String| {
        if !holds {
            messages.push(message);
        }
    };
    match op {
        Op::Conv(op) => {
            need(!op.strides.contains(&0) && !op.dilations.contains(&0), zero_step(&op.strides, &op.dilations));
            need(op.groups > 0, "there are 0 groups".to_owned());
        }
        Op::ConvTranspose(op) => {
            need(!op.strides.contains(&0) && !op.dilations.contains(&0), zero_step(&op.strides, &op.dilations));
            need(op.groups > 0, "there are 0 groups".to_owned());
        }
        Op::Pool(Pool { kernel, strides, dilations, .. }) => {
            need(!strides.contains(&0) && !dilations.contains(&0), zero_step(strides, dilations));
            need(!kernel.contains(&0), format!("the window {kernel:?} is empty"));
        }
        Op::AdaptivePool(op) => {
            need(!op.output_size.contains(&0), format!("the output size {:?} is empty", op.output_size));
        }
        Op::BatchNorm(op) => need(is_epsilon(op.epsilon), bad_epsilon(op.epsilon)),
        Op::LayerNorm(op) => {
            need(is_epsilon(op.epsilon), bad_epsilon(op.epsilon));
            need(!op.axes.is_empty() && are_unique(&op.axes), unfit_axes(&op.axes, "not empty and unique"));
        }
        Op::InstanceNorm(op) => need(is_epsilon(op.epsilon), bad_epsilon(op.epsilon)),
        Op::GroupNorm(op) => {
            need(is_epsilon(op.epsilon), bad_epsilon(op.epsilon));
            let divides = op.groups > 0 && channels(op.layout).is_none_or(|c| c % op.groups == 0);
            need(divides, format!("the channels do not divide into {} groups", op.groups));
        }
        Op::Lrn(op) => {
            need(op.size > 0, "the window is empty".to_owned());
            let finite = [op.alpha, op.beta, op.k].iter().all(|x| x.is_finite());
            need(finite, format!("alpha {}, beta {} and k {} must be finite", op.alpha, op.beta, op.k));
        }
        Op::L2Normalize(op) => {
            need(is_epsilon(op.epsilon), bad_epsilon(op.epsilon));
            need(!op.axes.is_empty() && are_unique(&op.axes), unfit_axes(&op.axes, "not empty and unique"));
        }
        Op::Dropout(op) => need((0.0..=1.0).contains(&op.rate), format!("the rate is {}", op.rate)),
        Op::LeakyRelu(op) => need(op.alpha.is_finite(), format!("alpha is {}", op.alpha)),
        Op::Elu(op) => need(op.alpha.is_finite(), format!("alpha is {}", op.alpha)),
        Op::Clip(op) => {
            let finite = [op.min, op.max].iter().flatten().all(|x| x.is_finite());
            need(finite, format!("the limits {:?} and {:?} must be finite or absent", op.min, op.max));
            need(op.min.is_some() || op.max.is_some(), "there is no limit".to_owned());
        }
        Op::Attention(op) => need(op.scale.is_finite(), format!("the scale is {}", op.scale)),
        Op::Einsum(op) => {
            let result: Vec<char> = op.equation.split("->").last().unwrap_or_default().chars().collect();
            let letters = op.equation.chars().all(|c| c.is_ascii_alphabetic() || ",->".contains(c));
            need(letters && are_unique(&result), format!("the equation '{}' is not understood", op.equation));
        }
        Op::Reduce(op) => need(are_sorted(&op.axes), unfit_axes(&op.axes, "sorted and unique")),
        Op::ArgReduce(op) => need(op.dtype.is_int(), format!("positions of type {}", op.dtype)),
        Op::TopK(op) => need(op.index_dtype.is_int(), format!("positions of type {}", op.index_dtype)),
        Op::Squeeze(op) => need(are_sorted(&op.axes), unfit_axes(&op.axes, "sorted and unique")),
        Op::Unsqueeze(op) => need(are_sorted(&op.axes), unfit_axes(&op.axes, "sorted and unique")),
        Op::Reverse(op) => need(are_unique(&op.axes), unfit_axes(&op.axes, "unique")),
        Op::Pad(op) => {
            for (axis, (&(before, after), dim)) in
                op.pads.0.iter().zip(shape.into_iter().flat_map(|s| s.iter())).enumerate()
            {
                let room = dim.known().and_then(|size| match op.mode {
                    PadMode::Constant => None,
                    PadMode::Reflect => Some(size.saturating_sub(1)),
                    PadMode::Symmetric => Some(size),
                    PadMode::Edge => (size == 0).then_some(0),
                });
                let fits = room.is_none_or(|room| before <= room && after <= room);
                need(fits, format!("axis {axis} has too few elements for padding ({before}, {after}) of them"));
            }
        }
        Op::Resize(op) => {
            need(!op.size.contains(&0), format!("the size {:?} is empty", op.size));
        }
        Op::Range(op) => {
            need(op.dtype != DType::Bool && op.delta != 0, "a range of truth values, or of step 0".to_owned())
        }
        Op::Dims(op) => need(op.dtype.is_int(), format!("sizes of type {}", op.dtype)),
        Op::Expand(op) => need(fits_into(shape, &op.shape), format!("the new shape {} has fewer axes", op.shape)),
        Op::Input(_) | Op::Constant(_) | Op::Fill(_) | Op::Foreign(_) => {}
        Op::Unary(_) | Op::PRelu(_) | Op::Gelu(_) | Op::Softmax(_) | Op::LogSoftmax(_) => {}
        Op::Binary(_)
        | Op::Select(_)
        | Op::Cast(_)
        | Op::CumSum(_)
        | Op::Dense(_)
        | Op::MatMul(_)
        | Op::Recurrent(_) => {}
        // `infer` checks all there is.
        Op::Reshape(_) | Op::Transpose(_) | Op::Concat(_) | Op::Split(_) | Op::Pack(_) | Op::Unpack(_) => {}
        Op::Slice(_) | Op::Tile(_) | Op::Gather(_) | Op::GatherNd(_) | Op::Scatter(_) | Op::OneHot(_) => {}
        Op::SpaceToDepth(_) | Op::DepthToSpace(_) | Op::GridSample(_) => {}
    }
}

fn fits_into(shape: Option<&Shape>, target: &Shape) -> bool {
    shape.is_none_or(|shape| shape.rank() <= target.rank())
}

fn zero_step(strides: &[usize], dilations: &[usize]) -> String {
    format!("strides {strides:?} and dilations {dilations:?} must not be 0")
}

fn is_epsilon(x: f32) -> bool {
    x.is_finite() && x >= 0.0
}

fn bad_epsilon(x: f32) -> String {
    format!("epsilon is {x}")
}

fn unfit_axes(axes: &[usize], wanted: &str) -> String {
    format!("the axes {axes:?} must be {wanted}")
}

fn are_sorted(axes: &[usize]) -> bool {
    axes.is_sorted_by(|a, b| a < b)
}

fn are_unique<T: PartialEq>(axes: &[T]) -> bool {
    axes.iter().enumerate().all(|(i, axis)| !axes[..i].contains(axis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Concat, Foreign, Gather, Reduce, Squeeze};
    use crate::tensor::Tensor;

    fn graph() -> (Graph, Value) {
        let mut graph = Graph::new("net", "");
        let x = graph.input("x", DType::Float32, Shape(vec![Dim::symbol("N"), Dim::Known(4)])).unwrap();
        (graph, x)
    }

    fn messages(graph: &Graph) -> Vec<String> {
        match validate(graph) {
            Ok(()) => vec![],
            Err(error) => {
                error.problems.into_iter().map(|p| format!("{}: {}", p.node.unwrap_or_default(), p.message)).collect()
            }
        }
    }

    #[test]
    fn a_sound_graph_is_valid() {
        let (mut graph, x) = graph();
        let relu = graph.add(Unary::Relu, "relu", &[x]).unwrap();
        let joined = graph.add(Concat { axis: 1 }, "joined", &[relu.into(), relu.into()]).unwrap();
        graph.output("y", joined.into());
        graph.output("again", joined.into());
        assert_eq!(messages(&graph), Vec::<String>::new());
    }

    #[test]
    fn all_problems_are_found_at_once() {
        let (mut graph, x) = graph();
        let whole = graph.constant("whole", Tensor::from_i64(&[], &[1]));
        graph.add(Binary::Add, "add", &[x, whole]).unwrap();
        graph.add(Gather { axis: 0, batch_dims: 0 }, "gather", &[x, x]).unwrap();
        graph.add(Reduce { kind: ReduceKind::Any, axes: vec![1, 0], keep_dims: false }, "any", &[x]).unwrap();
        assert_eq!(
            messages(&graph),
            [
                "add: the inputs differ in type: float32 and int64",
                "gather: input 1 has type float32, expected whole numbers",
                "any: input 0 has type float32, expected truth values",
                "any: the axes [1, 0] must be sorted and unique",
                ": the network has no output",
            ]
        );
    }

    #[test]
    fn foreign_operators_are_listed_together() {
        let (mut graph, x) = graph();
        for name in ["a", "b"] {
            let op = Foreign { op: "MatrixInverse".to_owned(), dtype: DType::Float32, shape: Shape::known(&[4]) };
            let node = graph.add(op, name, &[x]).unwrap();
            graph.output(name, node.into());
        }
        let text = validate(&graph).unwrap_err().to_string();
        assert_eq!(
            text,
            "no translation for this operator [MatrixInverse] (2 nodes)\n    at a (float32[N, 4])\n    \
             at b (float32[N, 4])\n    cut it off: end in front of it with --dstNode, or begin behind it with --inNodeName"
        );
    }

    #[test]
    fn edges_and_shapes_are_those_of_the_operators() {
        let (mut graph, x) = graph();
        let relu = graph.add(Unary::Relu, "relu", &[x]).unwrap();
        let squeeze = graph.add(Reduce { kind: ReduceKind::Sum, axes: vec![1], keep_dims: true }, "sum", &[x]).unwrap();
        let flat = graph.add(Squeeze { axes: vec![1] }, "flat", &[squeeze.into()]).unwrap();
        graph.output("y", relu.into());
        graph.output("flat", flat.into());
        *graph.op_mut(squeeze) = Reduce { kind: ReduceKind::Sum, axes: vec![], keep_dims: true }.into();
        assert_eq!(messages(&graph), ["sum: the outputs are said to be float32[N, 1], but are float32[N, 4]"]);
        graph.refresh().unwrap_err();
        graph.set_input(flat, 0, Some(Value { node: relu, output: 3 }));
        graph.set_input(relu, 0, None);
        let found = messages(&graph);
        assert!(found.contains(&"flat: input 0 is output 3 of relu, which has none".to_owned()), "{found:?}");
        assert!(found.contains(&"relu: input 0 (x) is missing".to_owned()), "{found:?}");
    }

    #[test]
    fn cycles_and_ports() {
        let (mut graph, x) = graph();
        let a = graph.add(Unary::Relu, "a", &[x]).unwrap();
        let b = graph.add(Unary::Relu, "b", &[a.into()]).unwrap();
        graph.set_input(a, 0, Some(b.into()));
        graph.output("", b.into());
        graph.inputs.push(graph.inputs[0].clone());
        graph.inputs.push(Port { name: "b".to_owned(), value: b.into(), permutation: Some(vec![0, 0]) });
        assert_eq!(
            messages(&graph),
            [
                "a: the graph has a cycle",
                "x: two inputs of the network have the same name",
                "x: an input of the network is listed twice",
                "b: an input of the network is no Input node",
                "b: [0, 0] is no permutation of the axes of [N, 4]",
                ": an output of the network has no name",
            ]
        );
        graph.inputs.clear();
        assert!(messages(&graph).contains(&"x: an Input node is not listed as an input of the network".to_owned()));
    }
}
