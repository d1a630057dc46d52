//! Makes equal convolutions over parts of the channels one convolution of groups.
//!
//! ```text
//! a, b = Split(x);  Concat(Relu(Conv(a)), Relu(Conv(b)))      x -> Conv { groups: 2 } -> Relu
//! ```
//!
//! So were grouped convolutions written before TensorFlow had them (AlexNet, ResNeXt, ShuffleNet). Batch normalisation
//! and functions of one element may follow each of them. Where the source has modules they stay.

use super::rewrite::forward;
use crate::diagnostic::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::layout::Layout;
use crate::op::{Op, Slice};
use crate::shape::Dim;
use crate::tensor::Tensor;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    if !graph.modules.is_empty() {
        return Ok(0);
    }
    forward(graph, |graph, id| {
        let Op::Concat(concat) = graph.op(id) else { return Ok(false) };
        let branches: Option<Vec<Value>> = graph.inputs_of(id).into_iter().collect();
        let Some((x, steps)) = branches.and_then(|branches| found(graph, concat.axis, branches)) else {
            return Ok(false);
        };
        let mut joined = x;
        for step in steps.into_iter().rev() {
            joined = step.joined(graph, joined)?;
        }
        graph.replace_uses(id.into(), joined);
        Ok(true)
    })
}

/// Nodes that do the same to one part each.
struct Step {
    nodes: Vec<NodeId>,
    op: Op,
}

/// What the branches are parts of, and what is done to each, the last first.
fn found(graph: &Graph, axis: usize, mut branches: Vec<Value>) -> Option<(Value, Vec<Step>)> {
    let mut steps = Vec::new();
    let mut convs = false;
    loop {
        if convs && let Some(x) = whole(graph, axis, &branches) {
            return Some((x, steps));
        }
        let first = *branches.first()?;
        let op = graph.op(first.node);
        let fits = |layout: Layout| layout.channel_axis(graph.shape(first).rank()) == axis;
        let is_step = match op {
            Op::Conv(conv) => !convs && fits(conv.layout),
            Op::BatchNorm(norm) => !convs && fits(norm.layout),
            Op::Unary(_) | Op::LeakyRelu(_) | Op::Clip(_) => true,
            _ => false,
        };
        let same = |value: &Value| {
            let alike = is_equal(graph.op(value.node), op) && graph.info(*value) == graph.info(first);
            alike && graph.uses(*value) == 1 && weight_shapes(graph, *value) == weight_shapes(graph, first)
        };
        if branches.len() < 2 || !is_step || weight_shapes(graph, first).is_none() || !branches.iter().all(same) {
            return None;
        }
        convs |= matches!(op, Op::Conv(_));
        steps.push(Step { nodes: branches.iter().map(|value| value.node).collect(), op: op.clone() });
        branches = branches.iter().map(|value| graph.input_of(value.node, 0)).collect::<Option<_>>()?;
    }
}

fn is_equal(a: &Op, b: &Op) -> bool {
    match (a, b) {
        (Op::Conv(a), Op::Conv(b)) => a == b,
        (Op::BatchNorm(a), Op::BatchNorm(b)) => a == b,
        (Op::Unary(a), Op::Unary(b)) => a == b,
        (Op::LeakyRelu(a), Op::LeakyRelu(b)) => a == b,
        (Op::Clip(a), Op::Clip(b)) => a == b,
        _ => false,
    }
}

/// Shapes of a layer's weights by slot; `None` where one is computed or read by others too.
fn weight_shapes(graph: &Graph, value: Value) -> Option<Vec<Option<Vec<usize>>>> {
    let shape = |weight: Option<Value>| match weight {
        None => Some(None),
        Some(weight) => Some(Some(graph.tensor(weight).filter(|_| graph.uses(weight) == 1)?.shape())),
    };
    graph.inputs_of(value.node).into_iter().skip(1).map(shape).collect()
}

/// The value of which the branches are all parts, in order and of one size.
fn whole(graph: &Graph, axis: usize, parts: &[Value]) -> Option<Value> {
    let sizes = |value: Value| graph.shape(value).get(axis).and_then(Dim::known);
    let part = |value: &Value| match graph.op(value.node) {
        Op::Split(split) if split.axis == axis => {
            let start = split.sizes.get(..value.output)?.iter().sum::<usize>();
            Some((graph.input_of(value.node, 0)?, start))
        }
        Op::Slice(slice) => {
            let open = |at: usize| slice.begins[at] == 0 && slice.ends[at] == Slice::OPEN && slice.steps[at] == 1;
            let others = (0..graph.shape(*value).rank()).all(|at| at == axis || open(at));
            let start = usize::try_from(slice.begins[axis]).ok().filter(|_| slice.steps[axis] == 1)?;
            others.then_some((graph.input_of(value.node, 0)?, start))
        }
        _ => None,
    };
    let (x, _) = part(parts.first()?)?;
    let size = sizes(*parts.first()?)?;
    let in_order = parts
        .iter()
        .enumerate()
        .all(|(number, value)| part(value) == Some((x, number * size)) && sizes(*value) == Some(size));
    (in_order && sizes(x)? == size * parts.len()).then_some(x)
}

impl Step {
    /// The step for all parts together.
    fn joined(self, graph: &mut Graph, x: Value) -> Result<Value> {
        let Step { nodes, mut op } = self;
        let count = nodes.len();
        if let Op::Conv(conv) = &mut op {
            conv.groups *= count;
        }
        let names: Vec<String> = nodes.iter().map(|&node| graph.node(node).name.clone()).collect();
        let all: Vec<Vec<Option<Value>>> = nodes.iter().map(|&node| graph.inputs_of(node)).collect();
        let mut inputs = vec![Some(x)];
        for slot in 1..all.first().map_or(0, Vec::len) {
            let parts: Vec<Value> = all.iter().filter_map(|inputs| inputs.get(slot).copied().flatten()).collect();
            inputs.push(if parts.is_empty() { None } else { Some(weights(graph, &parts)?) });
        }
        Ok(graph.add_with(op, &common(&names), &inputs)?.into())
    }
}

/// Weights of all groups: their last axis counts results.
fn weights(graph: &mut Graph, parts: &[Value]) -> Result<Value> {
    let tensors: Option<Vec<Tensor>> = parts.iter().map(|part| graph.tensor(*part).cloned()).collect();
    let tensors = tensors.ok_or_else(|| Error::new("a weight is no constant"))?;
    let axis = tensors.first().map_or(0, |tensor| tensor.rank().saturating_sub(1));
    let tensor = Tensor::joined(&tensors, axis).map_err(Error::new)?;
    let names: Vec<String> = parts.iter().map(|part| graph.node(part.node).name.clone()).collect();
    let trained = parts.iter().any(|part| matches!(graph.op(part.node), Op::Constant(op) if op.trainable));
    let name = common(&names);
    Ok(if trained { graph.variable(&name, tensor) } else { graph.constant(&name, tensor) })
}

/// A name for what several are together: `cell/group/Conv2D` of `cell/group_0/Conv2D` and `cell/group_1/Conv2D`.
fn common(names: &[String]) -> String {
    let parts: Vec<Vec<&str>> = names.iter().map(|name| name.split('/').collect()).collect();
    let Some(first) = parts.first() else { return String::new() };
    let shared = |(at, word): (usize, &&str)| {
        let words = || parts.iter().map(move |parts| parts.get(at).copied().unwrap_or_default());
        let length = words().fold(word.len(), |length, other| {
            word.bytes().zip(other.bytes()).take(length).take_while(|(a, b)| a == b).count()
        });
        let same = words().all(|other| other == *word);
        let prefix = word.get(..length).unwrap_or_default();
        if same { (*word).to_owned() } else { prefix.trim_end_matches(['_', '-', '.']).to_owned() }
    };
    let words: Vec<String> = first.iter().enumerate().map(shared).filter(|word| !word.is_empty()).collect();
    if words.is_empty() { "conv".to_owned() } else { words.join("/") }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, the};
    use super::*;
    use crate::op::{BatchNorm, Concat, Conv, Pads, Split, Unary};

    const LAYOUT: Layout = Layout::ChannelsLast;

    fn split(net: &mut Net, x: Value, count: usize) -> Vec<Value> {
        let node = net.op(Split { axis: 3, sizes: vec![2; count] }, &[x]).node;
        (0..count).map(|output| Value { node, output }).collect()
    }

    #[test]
    fn groups_of_a_convolution() {
        let mut net = Net::new();
        let x = net.x(&[5, 5, 6]);
        let branches: Vec<Value> = split(&mut net, x, 3)
            .into_iter()
            .map(|part| {
                let y = net.conv(part, &[3, 3, 2, 4], LAYOUT);
                let vectors = ["scale", "offset", "mean", "variance"].map(|name| net.weight(name, &[4]));
                let bn = BatchNorm { epsilon: 0.1, momentum: None, layout: LAYOUT };
                let y = net.op(bn, &[&[y][..], &vectors].concat());
                net.un(Unary::Relu, y)
            })
            .collect();
        let y = net.op(Concat { axis: 3 }, &branches);
        let graph = net.check(&[y], run);
        let conv = the(&graph, "Conv");
        assert!(matches!(graph.op(conv), Op::Conv(op) if op.groups == 3));
        assert_eq!(super::super::testing::ops(&graph), ["Conv", "BatchNorm", "Relu"]);
    }

    #[test]
    fn slices_of_channels() {
        let mut net = Net::new();
        let x = net.x(&[5, 5, 4]);
        let part = |net: &mut Net, begin: i64, end: i64| {
            let mut slice = Slice { begins: vec![0; 4], ends: vec![Slice::OPEN; 4], steps: vec![1; 4] };
            (slice.begins[3], slice.ends[3]) = (begin, end);
            let part = net.op(slice, &[x]);
            net.conv(part, &[1, 1, 2, 3], LAYOUT)
        };
        let (a, b) = (part(&mut net, 0, 2), part(&mut net, 2, Slice::OPEN));
        let y = net.op(Concat { axis: 3 }, &[a, b]);
        assert_eq!(net.ops(&[y], run), ["Conv"]);
    }

    #[test]
    fn near_misses_stay() {
        // Another order, another kernel, a part that is left out, a result that is read beside.
        for miss in 0..4 {
            let mut net = Net::new();
            let x = net.x(&[5, 5, if miss == 2 { 6 } else { 4 }]);
            let mut parts = split(&mut net, x, if miss == 2 { 3 } else { 2 });
            parts.truncate(2);
            if miss == 0 {
                parts.reverse();
            }
            let a = net.conv(parts[0], &[3, 3, 2, 4], LAYOUT);
            let b = match miss {
                1 => {
                    let w = net.weight("w", &[3, 3, 2, 4]);
                    let (strides, dilations, pads) = (vec![1, 1], vec![2, 2], Pads(vec![(1, 1); 2]));
                    net.op(Conv { strides, pads, dilations, groups: 1, layout: LAYOUT }, &[parts[1], w])
                }
                _ => net.conv(parts[1], &[3, 3, 2, 4], LAYOUT),
            };
            let y = net.op(Concat { axis: 3 }, &[a, b]);
            let outputs = if miss == 3 { vec![y, a] } else { vec![y] };
            assert_eq!(net.ops(&outputs, run).iter().filter(|op| *op == "Conv").count(), 2, "{miss}");
        }
    }
}
