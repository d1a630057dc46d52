//! Computes what depends on constants alone.
//!
//! ```text
//! w [3, 4] -> Transpose -> Reshape [2, 6] -> y        w' [2, 6] (a view of w's bytes) -> y
//! Add(2, 3) -> y                                      5 -> y
//! Fill [4] with 1 -> y                                [1, 1, 1, 1] -> y
//! ```
//!
//! Reshapes, transposes, slices and casts of a weight are views: nothing is read, whatever its size, and the view
//! keeps the name of the variable. Other expressions are evaluated if all that enters and leaves them is small.
//! Expressions that a layer takes as its weight (a kernel that is normalised, say) are evaluated up to a larger size,
//! since no layer could take them otherwise. Where the source has modules, what it computes in a few words (a mask from
//! the numbers of regions, say) stays computed.

use std::collections::HashSet;

use super::rewrite::{forward, named_view, view};
use crate::diagnostic::{Error, Problem, Result};
use crate::eval::{self, Array};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Op, SlotKind};
use crate::shape::Dim;
use crate::tensor::Tensor;

/// Elements of a value that is evaluated.
const SMALL: usize = 1 << 16;
/// The same, where a state dict's buffers are evaluated as well.
const MEDIUM: usize = 1 << 18;
/// Elements of a value that is evaluated because a layer needs it.
const LARGE: usize = 1 << 24;
/// Elements up to which a constant that the source does not have may take the place of what makes it.
const FEW: usize = 32;

/// Folds everything that can be, but for what a source with modules says shorter.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let weights = weights(graph);
    forward(graph, |graph, id| {
        let weight = weights.contains(&id);
        let shorter = !weight && !graph.modules.is_empty() && spreads(graph, id);
        if shorter { Ok(false) } else { fold(graph, id, if weight { Use::Weight } else { Use::Data }) }
    })
}

/// Folds everything that can be, for targets to which a constant is a weight like others: what the source's state dict
/// has and does not train is one, too.
pub fn all(graph: &mut Graph) -> Result<usize> {
    let weights = weights(graph);
    forward(graph, |graph, id| fold(graph, id, if weights.contains(&id) { Use::Weight } else { Use::Buffer }))
}

/// What becomes of a value.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    /// A layer takes it as a weight.
    Weight,
    /// It is computed with.
    Data,
    /// The same, by a target that has no state dict whose keys would matter.
    Buffer,
}

/// Folds only numbers without axes: epsilons, rates and the like, which patterns want to see, while the vectors of
/// batch normalisation are still apart.
pub fn scalars(graph: &mut Graph) -> Result<usize> {
    forward(graph, |graph, id| {
        let inputs = graph.inputs_of(id);
        let scalar = graph.node(id).outputs.iter().all(|info| info.shape.rank() == 0)
            && inputs.iter().flatten().all(|input| graph.shape(*input).numel() == Dim::Known(1));
        if scalar { fold(graph, id, Use::Data) } else { Ok(false) }
    })
}

/// The nodes on which a weight of a layer depends.
fn weights(graph: &Graph) -> HashSet<NodeId> {
    let mut stack: Vec<NodeId> = Vec::new();
    for id in graph.ids() {
        let op = graph.op(id);
        for (index, input) in graph.inputs_of(id).into_iter().enumerate() {
            let parameter = match op {
                // Functions of weights stay, where these have modules that hold them.
                Op::MatMul(_) | Op::Einsum(_) => graph.modules.is_empty(),
                Op::Gather(_) => index == 0 && graph.modules.is_empty(),
                op => op.slot(index).is_some_and(|slot| matches!(slot.kind, SlotKind::Param | SlotKind::OptionalParam)),
            };
            if let (true, Some(input)) = (parameter, input) {
                stack.push(input.node);
            }
        }
    }
    let mut found = HashSet::new();
    while let Some(id) = stack.pop() {
        if found.insert(id) {
            stack.extend(graph.inputs_of(id).into_iter().flatten().map(|input| input.node));
        }
    }
    found
}

/// Folds one node.
fn fold(graph: &mut Graph, id: NodeId, used: Use) -> Result<bool> {
    let weight = used == Use::Weight;
    let limit = match used {
        Use::Weight => LARGE,
        Use::Data => SMALL,
        Use::Buffer => MEDIUM,
    };
    if matches!(graph.op(id), Op::Input(_) | Op::Constant(_) | Op::Foreign(_) | Op::Dropout(_)) {
        return Ok(false);
    }
    let trained = |input: &Value| matches!(graph.op(input.node), Op::Constant(constant) if constant.trainable);
    let stays = |input: Value| graph.is_state(input) && (used == Use::Data || trained(&input));
    if !weight && graph.inputs_of(id).into_iter().flatten().any(stays) {
        return Ok(false);
    }
    if let Some(source) = graph.input_of(id, 0)
        && let Some(tensor) = graph.tensor(source)
        && let Some(views) = views(graph, id, tensor)
    {
        let name = graph.node(source.node).name.clone();
        let single = views.len() == 1;
        for (output, tensor) in views.into_iter().enumerate() {
            let new = if single {
                view(graph, source, tensor)
            } else {
                named_view(graph, source, &format!("{name}/part_{output}"), tensor)
            };
            graph.replace_uses(Value { node: id, output }, new);
        }
        return Ok(true);
    }
    let Some(outputs) = evaluate(graph, id, limit)? else { return Ok(false) };
    // A kernel that was computed from a variable is trained in its place.
    let trainable = weight && graph.inputs_of(id).iter().flatten().any(trained);
    let node = graph.node(id).name.clone();
    graph.rename(id, &format!("{node}/folded"));
    // A name without a slash would be a key of the source's state dict.
    let name = if graph.modules.is_empty() || node.contains('/') { node } else { format!("constants/{node}") };
    for (output, array) in outputs.iter().enumerate() {
        let tensor = array.to_tensor();
        let new = if trainable { graph.variable(&name, tensor) } else { graph.constant(&name, tensor) };
        graph.replace_uses(Value { node: id, output }, new);
    }
    Ok(true)
}

/// Whether a node only spreads or reorders constants, so that it says more than its result.
fn spreads(graph: &Graph, id: NodeId) -> bool {
    let sizes = |value: Value| graph.shape(value).sizes().unwrap_or_default();
    let numel = |value: Value| graph.shape(value).numel().known().unwrap_or(0);
    let inputs: Vec<Value> = graph.inputs_of(id).into_iter().flatten().collect();
    let count = numel(id.into());
    let real = |value: Value| -> Vec<usize> { sizes(value).into_iter().filter(|&size| size != 1).collect() };
    count > FEW
        && match graph.op(id) {
            Op::Binary(_) | Op::Select(_) => inputs.iter().all(|&input| numel(input) < count),
            Op::Reshape(_) => inputs.first().is_some_and(|&input| real(input) != real(id.into())),
            Op::Transpose(_) => true,
            _ => false,
        }
}

/// The outputs as views of the input, where the operator only says in which order to read it.
fn views(graph: &Graph, id: NodeId, x: &Tensor) -> Option<Vec<Tensor>> {
    let sizes = graph.shape(id.into()).sizes();
    let shape = x.shape();
    let view = match graph.op(id) {
        Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) => x.reshaped(&sizes?),
        Op::Transpose(op) => x.permuted(&op.perm),
        Op::Cast(op) => Ok(x.cast(op.dtype)),
        Op::Slice(op) if op.steps.iter().all(|&step| step == 1) => {
            shape.iter().enumerate().try_fold(x.clone(), |view, (axis, &size)| {
                let (begin, count) = op.resolve(axis, size);
                if (begin, count) == (0, size) { Ok(view) } else { view.sliced(axis, begin, begin + count) }
            })
        }
        Op::Split(op) => {
            let mut begin = 0;
            let parts = op.sizes.iter().map(|&size| {
                begin += size;
                x.sliced(op.axis, begin - size, begin)
            });
            return parts.collect::<std::result::Result<_, _>>().ok();
        }
        Op::Unpack(op) => {
            let mut inner = shape;
            if op.axis >= inner.len() {
                return None;
            }
            inner.remove(op.axis);
            let part = |i| x.sliced(op.axis, i, i + 1).and_then(|part| part.reshaped(&inner));
            return (0..op.count).map(part).collect::<std::result::Result<_, _>>().ok();
        }
        _ => return None,
    };
    view.ok().map(|view| vec![view])
}

/// The outputs, if all inputs are constants and nothing has more than `limit` elements.
fn evaluate(graph: &Graph, id: NodeId, limit: usize) -> Result<Option<Vec<Array>>> {
    let small = |shape: &crate::shape::Shape| shape.numel().known().is_some_and(|n| n <= limit);
    let inputs = graph.inputs_of(id);
    let constant = inputs.iter().flatten().all(|input| graph.tensor(*input).is_some_and(|t| t.numel() <= limit));
    if !constant || !graph.node(id).outputs.iter().all(|info| small(&info.shape)) {
        return Ok(None);
    }
    let at = |message: String| -> Error { Problem::new(message).node(&graph.node(id).name).into() };
    let mut arrays = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let array = input.and_then(|input| graph.tensor(input)).map(Array::from_tensor).transpose();
        arrays.push(array.map_err(at)?);
    }
    let arrays: Vec<Option<&Array>> = arrays.iter().map(Option::as_ref).collect();
    // What can't be evaluated stays; whoever needs a constant there says so.
    Ok(eval::apply(graph.op(id), &arrays).ok())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, ops, the};
    use super::*;
    use crate::op::{Binary, Cast, Fill, Range, ReduceKind, Reshape, Slice, Split, Transpose, Unary};
    use crate::shape::Shape;
    use crate::tensor::{DType, Storage};
    use std::sync::Arc;

    #[test]
    fn expressions_of_constants() {
        let mut net = Net::new();
        let x = net.x(&[3]);
        let (a, b) = (net.weight("a", &[3]), net.weight("b", &[2, 3]));
        let sum = net.reduce(ReduceKind::Sum, b, &[0]);
        let c = net.mul(a, sum);
        let ones = net.op(Fill { shape: Shape::known(&[3]), value: 2.0, dtype: DType::Float32 }, &[]);
        let c = net.add(c, ones);
        let range = net.op(Range { start: 0, limit: Dim::Known(3), delta: 1, dtype: DType::Int32 }, &[]);
        let range = net.op(Cast { dtype: DType::Float32 }, &[range]);
        let c = net.bin(Binary::Pow, c, range);
        let y = net.mul(x, c);
        assert_eq!(net.ops(&[y], run), ["Mul"]);
    }

    /// A weight that must not be read.
    #[derive(Debug)]
    struct Unreadable(u64);

    impl Storage for Unreadable {
        fn len(&self) -> u64 {
            self.0
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            panic!("a weight was read")
        }
    }

    #[test]
    fn large_weights_are_views() {
        let sizes = [1000, 200];
        let tensor = Tensor::new(DType::Float32, &sizes, Arc::new(Unreadable(800_000))).unwrap();
        let mut net = Net::new();
        let w = net.graph.constant("fc/weights", tensor);
        let y = net.op(Transpose { perm: vec![1, 0] }, &[w]);
        let y = net.op(Reshape { shape: Shape::known(&[20, 10, 1000]) }, &[y]);
        let y = net.op(Slice { begins: vec![5, 0, 0], ends: vec![15, 10, 1000], steps: vec![1; 3] }, &[y]);
        let y = net.op(Cast { dtype: DType::Float16 }, &[y]);
        let z = net.un(Unary::Relu, y);
        let sum = net.op(crate::op::Reduce { kind: ReduceKind::Sum, axes: vec![0, 1], keep_dims: false }, &[w]);
        let mut graph = net.graph;
        graph.output("z", z);
        graph.output("sum", sum);
        run(&mut graph).unwrap();
        graph.prune();
        assert_eq!(ops(&graph), ["ReduceSum", "Relu"]);
        let view = graph.input_of(the(&graph, "Relu"), 0).unwrap();
        assert_eq!(
            (graph.shape(view), graph.node(view.node).name.as_str()),
            (&Shape::known(&[10, 10, 1000]), "fc/weights_1")
        );
    }

    #[test]
    fn what_a_layer_needs_may_be_large() {
        let mut net = Net::new();
        let x = net.x(&[1, 300]);
        let w = net.weight("w", &[1, 300, 300]);
        let scaled = net.times(0.01, w);
        let conv = crate::op::Conv {
            strides: vec![1],
            pads: crate::op::Pads::none(1),
            dilations: vec![1],
            groups: 1,
            layout: crate::Layout::ChannelsLast,
        };
        let y = net.op(conv, &[x, scaled]);
        let z = net.mul(x, scaled);
        assert_eq!(net.ops(&[y, z], run), ["Conv", "Mul"]);
    }

    #[test]
    fn parts_keep_the_name_of_the_variable() {
        let mut net = Net::new();
        let x = net.x(&[3]);
        let w = net.weight("w", &[2, 3]);
        let parts = net.op(Split { axis: 0, sizes: vec![1, 1] }, &[w]);
        let y = net.mul(x, parts);
        let z = net.mul(x, Value { output: 1, ..parts });
        let graph = net.check(&[y, z], run);
        assert!(graph.find("w/part_0").is_some() && graph.find("w/part_1").is_some());
    }

    #[test]
    fn scalars_alone() {
        let mut net = Net::new();
        let x = net.x(&[3]);
        let (a, b, c) = (net.num(2.0), net.num(3.0), net.weight("c", &[3]));
        let sum = net.add(a, b);
        let scaled = net.mul(c, sum);
        let y = net.mul(x, scaled);
        assert_eq!(net.ops(&[y], scalars), ["Mul", "Mul"]);
    }
}
