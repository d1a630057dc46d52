//! Recognises a recurrent layer by its steps, written one after the other.
//!
//! ```text
//! i, g, f, o = Split(Dense(Concat(x_t, h)))           x [N, T, in] -> Recurrent { cell: Lstm } -> h_1 … h_T
//! c = sigmoid(f + 1) * c + sigmoid(i) * tanh(g)
//! h = sigmoid(o) * tanh(c)                            (h = tanh(Dense(Concat(x_t, h))) is the plain cell)
//! ```
//!
//! So are GRUs whose reset gate follows the product of the state (Keras' `reset_after`); other layers have no others.
//!
//! What enters a gate is a sum of products with constant matrices, in any grouping: one matrix for all gates or one for
//! each, for input and state together or apart. All steps must have the same. Where the source has modules they stay.

use std::collections::{HashMap, HashSet};

use super::pattern::{binary, is_zero, number, orders, unary};
use crate::diagnostic::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Binary, Cell, Op, Pack, Recurrent, Reverse, Slice, Squeeze, Transpose, Unary, Unpack, Unsqueeze};
use crate::tensor::Tensor;

/// How deep a sum may be nested.
const DEPTH: usize = 16;
/// Most terms of what enters a gate.
const TERMS: usize = 8;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    if !graph.modules.is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    // One at a time: what one layer makes is what the next one reads.
    while let Some(layer) = chains(graph)?.into_iter().find_map(|chain| layer(graph, &chain)) {
        replace(graph, &layer)?;
        graph.prune();
        count += 1;
    }
    Ok(count)
}

/// A part of a constant matrix `[in, out]`.
#[derive(Clone, Copy, PartialEq)]
struct Block {
    matrix: Value,
    rows: (usize, usize),
    columns: (usize, usize),
}

/// What enters a gate.
#[derive(Clone, Default, PartialEq)]
struct Sum {
    products: Vec<(Value, Block)>,
    bias: Bias,
    /// What is added to the product of the state alone, where the reset gate follows that.
    state_bias: Bias,
}

/// The constant part of what enters a gate.
#[derive(Clone, Default, PartialEq)]
struct Bias {
    /// Vectors, with the part of them that counts.
    vectors: Vec<(Value, (usize, usize))>,
    number: f64,
}

/// One step.
#[derive(Clone)]
struct Step {
    cell: Cell,
    h: Value,
    /// The cell state, and that of the step before.
    c: Option<(Value, Value)>,
    gates: Vec<Sum>,
}

/// A layer that was found.
struct Layer {
    cell: Cell,
    xs: Vec<Value>,
    hs: Vec<Value>,
    last_c: Option<Value>,
    start: Vec<Value>,
    input: Vec<Block>,
    recurrent: Vec<Block>,
    /// Those of input and state.
    biases: [Vec<Bias>; 2],
}

/// Steps that follow each other, producers first.
fn chains(graph: &Graph) -> Result<Vec<Vec<Step>>> {
    let steps: Vec<Step> = graph.order()?.into_iter().filter_map(|id| step(graph, id.into())).collect();
    let made: HashMap<Value, usize> =
        steps.iter().enumerate().map(|(i, step)| (step.c.map_or(step.h, |(c, _)| c), i)).collect();
    let mut next: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut heads = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let before = match step.c {
            Some((_, before)) => made.get(&before).copied(),
            None => step.gates[0].products.iter().find_map(|(source, _)| made.get(source).copied()),
        };
        match before.filter(|&before| steps[before].cell == step.cell && same_weights(&steps[before], step)) {
            Some(before) => next.entry(before).or_default().push(index),
            None => heads.push(index),
        }
    }
    let chain = |head: usize| {
        let mut chain = vec![steps[head].clone()];
        let mut at = head;
        while let Some([following]) = next.get(&at).map(Vec::as_slice) {
            chain.push(steps[*following].clone());
            at = *following;
        }
        chain
    };
    Ok(heads.into_iter().map(chain).filter(|chain| chain.len() > 1).collect())
}

fn same_weights(a: &Step, b: &Step) -> bool {
    let blocks = |sum: &Sum| sum.products.iter().map(|(_, block)| *block).collect::<Vec<_>>();
    a.gates.len() == b.gates.len()
        && a.gates
            .iter()
            .zip(&b.gates)
            .all(|(a, b)| blocks(a) == blocks(b) && a.bias == b.bias && a.state_bias == b.state_bias)
}

fn step(graph: &Graph, h: Value) -> Option<Step> {
    if graph.shape(h).rank() != 2 {
        return None;
    }
    if let Some(sum) = unary(graph, h, Unary::Tanh) {
        let gate = gate(graph, sum)?;
        return Some(Step { cell: Cell::Tanh, h, c: None, gates: vec![gate] });
    }
    if let Some(gates) = gru(graph, h) {
        return Some(Step { cell: Cell::Gru, h, c: None, gates });
    }
    for (squashed, gated) in orders(graph, h, Binary::Mul) {
        let (Some(c), Some(o)) = (unary(graph, squashed, Unary::Tanh), unary(graph, gated, Unary::Sigmoid)) else {
            continue;
        };
        for (kept, new) in orders(graph, c, Binary::Add) {
            let parts = orders(graph, new, Binary::Mul)
                .into_iter()
                .find_map(|(i, g)| Some((unary(graph, i, Unary::Sigmoid)?, unary(graph, g, Unary::Tanh)?)));
            let before = orders(graph, kept, Binary::Mul)
                .into_iter()
                .find_map(|(before, f)| Some((before, unary(graph, f, Unary::Sigmoid)?)));
            if let (Some((i, g)), Some((before, f))) = (parts, before) {
                let gates = [i, f, g, o].into_iter().map(|sum| gate(graph, sum)).collect::<Option<Vec<Sum>>>()?;
                return Some(Step { cell: Cell::Lstm, h, c: Some((c, before)), gates });
            }
        }
    }
    None
}

/// The gates of `h = z * h + (1 - z) * tanh(x' + r * h')`: `r`, `z`, and the new state, whose second product is that
/// of the state.
fn gru(graph: &Graph, h: Value) -> Option<Vec<Sum>> {
    orders(graph, h, Binary::Add).into_iter().find_map(|(kept, new)| {
        orders(graph, kept, Binary::Mul).into_iter().find_map(|(update, before)| {
            let z = unary(graph, update, Unary::Sigmoid)?;
            let rest = |value: Value| {
                binary(graph, value, Binary::Sub).is_some_and(|(one, z)| z == update && number(graph, one) == Some(1.0))
            };
            let (_, new) = orders(graph, new, Binary::Mul).into_iter().find(|(left, _)| rest(*left))?;
            orders(graph, unary(graph, new, Unary::Tanh)?, Binary::Add).into_iter().find_map(|(input, gated)| {
                orders(graph, gated, Binary::Mul).into_iter().find_map(|(reset, state)| {
                    let r = unary(graph, reset, Unary::Sigmoid)?;
                    let (input, state) = (sum(graph, input)?, sum(graph, state)?);
                    let ([x], [(source, block)]) = (input.products.as_slice(), state.products.as_slice()) else {
                        return None;
                    };
                    let products = vec![*x, (*source, *block)];
                    let new = Sum { products, bias: input.bias, state_bias: state.bias };
                    (*source == before).then_some(vec![gate(graph, r)?, gate(graph, z)?, new])
                })
            })
        })
    })
}

fn gate(graph: &Graph, value: Value) -> Option<Sum> {
    sum(graph, value).filter(|sum| sum.products.len() == 2)
}

fn sum(graph: &Graph, value: Value) -> Option<Sum> {
    let width = graph.shape(value).last()?.known()?;
    let mut sum = Sum::default();
    collect(graph, value, (0, width), DEPTH, &mut sum)?;
    Some(sum)
}

/// Adds the terms of the columns `range` of a value to a sum.
fn collect(graph: &Graph, value: Value, range: (usize, usize), depth: usize, sum: &mut Sum) -> Option<()> {
    if depth == 0 || sum.products.len() + sum.bias.vectors.len() > TERMS {
        return None;
    }
    let input = |slot| graph.input_of(value.node, slot);
    match graph.op(value.node) {
        Op::Constant(_) => {
            let shape = graph.shape(value).sizes()?;
            match shape.as_slice() {
                [] => sum.bias.number += graph.scalar(value)?,
                [size] if range.1 <= *size => sum.bias.vectors.push((value, range)),
                _ => return None,
            }
        }
        Op::Split(split) if split.axis + 1 == graph.shape(value).rank() => {
            let before: usize = split.sizes.get(..value.output)?.iter().sum();
            return collect(graph, input(0)?, (before + range.0, before + range.1), depth - 1, sum);
        }
        Op::Binary(Binary::Add) => {
            collect(graph, input(0)?, range, depth - 1, sum)?;
            collect(graph, input(1)?, range, depth - 1, sum)?;
        }
        Op::Dense(_) => {
            let (x, matrix) = (input(0)?, input(1)?);
            graph.tensor(matrix)?;
            if let Some(bias) = input(2) {
                collect(graph, bias, range, depth - 1, sum)?;
            }
            let parts = match graph.op(x.node) {
                Op::Concat(concat) if concat.axis + 1 == graph.shape(x).rank() => graph.inputs_of(x.node),
                _ => vec![Some(x)],
            };
            let mut first = 0;
            for part in parts {
                let part = part?;
                let end = first + graph.shape(part).last()?.known()?;
                sum.products.push((part, Block { matrix, rows: (first, end), columns: range }));
                first = end;
            }
        }
        _ => return None,
    }
    Some(())
}

/// The layer that a chain of steps is.
fn layer(graph: &Graph, chain: &[Step]) -> Option<Layer> {
    let [first, second, ..] = chain else { return None };
    // Which of the two products is that of the state shows in the second step.
    let place = |gate: &Sum| gate.products.iter().position(|(source, _)| *source == first.h);
    let places = second.gates.iter().map(place).collect::<Option<Vec<usize>>>()?;
    let sources = |step: &Step, state: bool| -> Option<Value> {
        let of = |(gate, &place): (&Sum, &usize)| gate.products.get(if state { place } else { 1 - place }).map(|p| p.0);
        let mut all = step.gates.iter().zip(&places).map(of);
        let source = all.next()??;
        all.all(|other| other == Some(source)).then_some(source)
    };
    for pair in chain.windows(2) {
        let [before, after] = pair else { return None };
        // The cell states between are read by their own steps alone.
        let hidden = before.c.is_none_or(|(c, _)| graph.uses(c) == 2);
        if sources(after, true) != Some(before.h) || !hidden {
            return None;
        }
    }
    let xs = chain.iter().map(|step| sources(step, false)).collect::<Option<Vec<Value>>>()?;
    if xs.iter().any(|x| graph.shape(*x).rank() != 2 || graph.info(*x) != graph.info(xs[0])) {
        return None;
    }
    // What is fed back is no sequence that is there before.
    let start: Vec<Value> = std::iter::once(sources(first, true)?).chain(first.c.map(|(_, before)| before)).collect();
    let needed = before(graph, xs.iter().chain(&start).map(|value| value.node).collect(), |_| false);
    if chain.iter().any(|step| needed.contains(&step.h.node)) {
        return None;
    }
    let blocks = |state: bool| -> Vec<Block> {
        let of = |(gate, &place): (&Sum, &usize)| gate.products[if state { place } else { 1 - place }].1;
        first.gates.iter().zip(&places).map(of).collect()
    };
    let last = chain.last()?;
    Some(Layer {
        cell: first.cell,
        xs,
        hs: chain.iter().map(|step| step.h).collect(),
        last_c: last.c.map(|(c, _)| c),
        start,
        input: blocks(false),
        recurrent: blocks(true),
        biases: [
            first.gates.iter().map(|gate| gate.bias.clone()).collect(),
            first.gates.iter().map(|gate| gate.state_bias.clone()).collect(),
        ],
    })
}

fn replace(graph: &mut Graph, layer: &Layer) -> Result<()> {
    let dense = layer.input.first().map(|block| block.matrix).ok_or_else(|| Error::new("a cell without gates"))?;
    let hidden = layer.recurrent.first().map_or(0, |block| block.columns.1 - block.columns.0);
    let name = scope(&graph.node(layer.hs[0].node).name).to_owned();
    let (x, batch_first) = sequence(graph, &layer.xs, &name)?;
    let matrix = graph.node(dense.node).name.clone();
    let mut inputs = vec![x];
    for (part, blocks) in [("input", &layer.input), ("recurrent", &layer.recurrent)] {
        let rows = blocks.iter().map(|block| rows(graph, block)).collect::<Result<Vec<Tensor>>>()?;
        let tensor = Tensor::joined(&rows, 0).map_err(Error::new)?;
        inputs.push(graph.variable(&format!("{matrix}/{part}"), tensor));
    }
    let bias = layer.biases.iter().flatten().any(|bias| *bias != Bias::default());
    if bias {
        let named = layer.biases.iter().flatten().flat_map(|bias| &bias.vectors).next();
        let named = named.map_or(format!("{name}/bias"), |(value, _)| graph.node(value.node).name.clone());
        for (part, biases) in ["input", "recurrent"].into_iter().zip(&layer.biases) {
            let mut values = Vec::with_capacity(biases.len() * hidden);
            for bias in biases {
                values.extend(vector(graph, bias, hidden)?);
            }
            let tensor = Tensor::from_f32(&[values.len()], &values);
            inputs.push(graph.variable(&format!("{named}/{part}"), tensor));
        }
    }
    let initial = !layer.start.iter().all(|start| is_zero(graph, *start));
    if initial {
        for (start, what) in layer.start.iter().zip(["h", "c"]) {
            let start = graph.add(Unsqueeze { axes: vec![0] }, &format!("{name}/{what}"), &[*start])?;
            inputs.push(start.into());
        }
    }
    let op = Recurrent {
        cell: layer.cell,
        hidden,
        layers: 1,
        bidirectional: false,
        batch_first,
        bias,
        initial,
        dropout: 0.0,
    };
    let node = graph.add(op, &name, &inputs)?;
    hand_out(graph, layer, node.into(), batch_first, &name)
}

/// Gives the results of the layer to those that read its steps.
fn hand_out(graph: &mut Graph, layer: &Layer, y: Value, batch_first: bool, name: &str) -> Result<()> {
    let time = usize::from(batch_first);
    let output = |output| Value { node: y.node, output };
    let backwards: Vec<Value> = layer.hs.iter().rev().copied().collect();
    let last = *layer.hs.last().ok_or_else(|| Error::new("a layer without steps"))?;
    for (reader, _) in graph.consumers(last) {
        let Op::Pack(Pack { axis }) = *graph.op(reader) else { continue };
        let items: Vec<Value> = graph.inputs_of(reader).into_iter().flatten().collect();
        if axis > 1 || (items != layer.hs && items != backwards) {
            continue;
        }
        if items == layer.hs {
            for alone in last_alone(graph, reader.into(), axis, items.len()) {
                graph.replace_uses(alone, last);
            }
        }
        let mut all = y;
        if items != layer.hs {
            all = graph.add(Reverse { axes: vec![time] }, &format!("{name}/reverse"), &[all])?.into();
        }
        if axis != time {
            all = graph.add(Transpose { perm: vec![1, 0, 2] }, &format!("{name}/transpose"), &[all])?.into();
        }
        graph.replace_uses(reader.into(), all);
        graph.remove(reader);
    }
    // Outside of the steps themselves; the steps' nodes are dead in the end.
    let inside = inside(graph, layer);
    let read = |graph: &Graph, value: Value| {
        let readers = graph.consumers(value);
        graph.uses(value) > readers.len() || readers.iter().any(|(reader, _)| !inside.contains(reader))
    };
    let read_steps: Vec<usize> = (0..layer.hs.len()).filter(|&step| read(graph, layer.hs[step])).collect();
    let last_c = layer.last_c.filter(|c| read(graph, *c));
    if read_steps == [layer.hs.len() - 1] {
        let h = graph.add(Squeeze { axes: vec![0] }, &format!("{name}/state"), &[output(1)])?;
        graph.replace_uses(last, h.into());
    } else if !read_steps.is_empty() {
        let count = layer.hs.len();
        let parts = graph.add(Unpack { axis: time, count }, &format!("{name}/unstack"), &[y])?;
        for output in read_steps {
            graph.replace_uses(layer.hs[output], Value { node: parts, output });
        }
    }
    if let Some(c) = last_c {
        let new = graph.add(Squeeze { axes: vec![0] }, &format!("{name}/cell_state"), &[output(2)])?;
        graph.replace_uses(c, new.into());
    }
    Ok(())
}

/// Values that are no more than the last of `count` parts which were packed along an axis.
fn last_alone(graph: &Graph, packed: Value, axis: usize, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    for (reader, _) in graph.consumers(packed) {
        match graph.op(reader) {
            Op::Transpose(transpose) if transpose.perm == [1, 0, 2] && graph.op(packed.node).name() == "Pack" => {
                found.extend(last_alone(graph, reader.into(), 1 - axis, count));
            }
            Op::Slice(slice) => {
                let whole = |at: usize| slice.begins[at] == 0 && slice.steps[at] == 1 && slice.ends[at] == Slice::OPEN;
                let last = [-1, count as i64 - 1].contains(&slice.begins[axis]);
                let one = graph.shape(reader.into()).get(axis).and_then(|dim| dim.known()) == Some(1);
                if last && one && (0..3).all(|at| at == axis || whole(at)) {
                    let squeezed = |id: &NodeId| matches!(graph.op(*id), Op::Squeeze(op) if op.axes == [axis]);
                    let readers = graph.consumers(reader.into());
                    found.extend(readers.into_iter().map(|(id, _)| id).filter(squeezed).map(Value::from));
                }
            }
            _ => {}
        }
    }
    found
}

/// The nodes of the steps.
fn inside(graph: &Graph, layer: &Layer) -> HashSet<NodeId> {
    let borders: HashSet<Value> = layer.xs.iter().chain(&layer.start).copied().collect();
    let ends = layer.hs.iter().chain(&layer.last_c);
    before(graph, ends.map(|end| end.node).collect(), |value| borders.contains(&value))
}

/// Some nodes, and all on which they depend, up to what `is_border` says.
fn before(graph: &Graph, mut stack: Vec<NodeId>, is_border: impl Fn(Value) -> bool) -> HashSet<NodeId> {
    let mut found = HashSet::new();
    while let Some(id) = stack.pop() {
        if found.insert(id) {
            let inputs = graph.inputs_of(id).into_iter().flatten().filter(|value| !is_border(*value));
            stack.extend(inputs.map(|value| value.node));
        }
    }
    found
}

/// The scope of a name, or the name where it has none.
fn scope(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(scope, _)| scope)
}

/// Rows `[out, in]` of a weight as the layer has them.
fn rows(graph: &Graph, block: &Block) -> Result<Tensor> {
    let tensor = graph.tensor(block.matrix).ok_or_else(|| Error::new("a kernel is no constant"))?;
    let part =
        tensor.sliced(0, block.rows.0, block.rows.1).and_then(|part| part.sliced(1, block.columns.0, block.columns.1));
    part.and_then(|part| part.permuted(&[1, 0])).map_err(Error::new)
}

/// The bias of a gate.
fn vector(graph: &Graph, bias: &Bias, hidden: usize) -> Result<Vec<f32>> {
    let mut sum = vec![bias.number; hidden];
    for (value, range) in &bias.vectors {
        let tensor = graph.tensor(*value).ok_or_else(|| Error::new("a bias is no constant"))?;
        let part = tensor.sliced(0, range.0, range.1).map_err(Error::new)?;
        let numbers = part.to_f64().map_err(|error| Error::new(format!("a bias can't be read: {error}")))?;
        sum.iter_mut().zip(numbers).for_each(|(sum, x)| *sum += x);
    }
    Ok(sum.into_iter().map(|x| x as f32).collect())
}

/// The sequence whose elements the steps read, and whether the batch is its first axis.
fn sequence(graph: &mut Graph, xs: &[Value], name: &str) -> Result<(Value, bool)> {
    let source = xs[0].node;
    let in_order = |back: bool| {
        xs.iter().enumerate().all(|(i, x)| x.node == source && x.output == if back { xs.len() - 1 - i } else { i })
    };
    let (axis, mut back) = match *graph.op(source) {
        Op::Unpack(Unpack { axis, count }) if axis < 2 && count == xs.len() && (in_order(true) || in_order(false)) => {
            (axis, !in_order(false))
        }
        _ => {
            let packed = graph.add(Pack { axis: 1 }, &format!("{name}/stack"), xs)?;
            return Ok((packed.into(), true));
        }
    };
    let whole =
        |graph: &Graph, value: Value| graph.input_of(value.node, 0).ok_or_else(|| Error::new("a node without input"));
    let mut x = whole(graph, source.into())?;
    let mut time = axis;
    if matches!(graph.op(x.node), Op::Reverse(reverse) if reverse.axes == [time]) {
        x = whole(graph, x)?;
        back = !back;
    }
    if matches!(graph.op(x.node), Op::Transpose(transpose) if transpose.perm == [1, 0, 2]) {
        x = whole(graph, x)?;
        time = 1 - time;
    }
    if back {
        x = graph.add(Reverse { axes: vec![time] }, &format!("{name}/backwards"), &[x])?.into();
    }
    Ok((x, time == 1))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, the};
    use super::*;
    use crate::op::{Concat, Dense, Fill, Split};
    use crate::shape::{Dim, Shape};

    fn zeros(net: &mut Net, x: Value, hidden: usize) -> Value {
        let shape: Shape = [Dim::symbol("N"), Dim::Known(hidden)].into_iter().collect();
        net.op(Fill { shape, value: 0.0, dtype: crate::tensor::DType::Float32 }, &[x])
    }

    /// `BasicLSTMCell` of TensorFlow 1.
    fn lstm(net: &mut Net, xs: &[Value], kernel: Value, bias: Value, start: (Value, Value)) -> Vec<Value> {
        let (mut h, mut c) = start;
        let mut hs = Vec::new();
        for &x in xs {
            let both = net.op(Concat { axis: 1 }, &[x, h]);
            let gates = net.op(Dense {}, &[both, kernel, bias]);
            let gates = net.op(Split { axis: 1, sizes: vec![4; 4] }, &[gates]);
            let [i, g, f, o] = [0, 1, 2, 3].map(|output| Value { node: gates.node, output });
            let f = net.plus(1.0, f);
            let [i, f, o] = [i, f, o].map(|gate| net.un(Unary::Sigmoid, gate));
            let g = net.un(Unary::Tanh, g);
            let (kept, new) = (net.mul(c, f), net.mul(i, g));
            c = net.add(kept, new);
            let squashed = net.un(Unary::Tanh, c);
            h = net.mul(squashed, o);
            hs.push(h);
        }
        hs.push(c);
        hs
    }

    fn parts(net: &mut Net, x: Value, axis: usize, count: usize) -> Vec<Value> {
        let node = net.op(Unpack { axis, count }, &[x]).node;
        (0..count).map(|output| Value { node, output }).collect()
    }

    #[test]
    fn an_lstm_of_tensorflow() {
        for backwards in [false, true] {
            let mut net = Net::new();
            let x = net.x(&[5, 3]);
            let mut xs = parts(&mut net, x, 1, 5);
            if backwards {
                xs.reverse();
            }
            let (kernel, bias) = (net.weight("kernel", &[7, 16]), net.weight("bias", &[16]));
            let zero = zeros(&mut net, x, 4);
            let made = lstm(&mut net, &xs, kernel, bias, (zero, zero));
            let all = net.op(Pack { axis: 0 }, &made[..5]);
            let graph = net.check(&[all, made[4], made[5], made[1]], run);
            let Op::Recurrent(op) = graph.op(the(&graph, "Recurrent")) else { panic!() };
            assert_eq!((op.hidden, op.batch_first, op.initial), (4, true, false));
        }
    }

    #[test]
    fn layers_on_each_other_and_given_states() {
        let mut net = Net::new();
        let x = net.x(&[4, 4]);
        let xs = parts(&mut net, x, 1, 4);
        let start = net.un(Unary::Relu, xs[0]);
        let (kernel, bias) = (net.weight("kernel", &[8, 16]), net.weight("bias", &[16]));
        let first = lstm(&mut net, &xs, kernel, bias, (start, start));
        let (kernel, bias) = (net.weight("kernel2", &[8, 16]), net.weight("bias2", &[16]));
        let zero = zeros(&mut net, x, 4);
        let second = lstm(&mut net, &first[..4], kernel, bias, (zero, zero));
        let ops = net.ops(&[second[3]], run);
        assert_eq!(ops.iter().filter(|op| *op == "Recurrent").count(), 2, "{ops:?}");
        assert!(!ops.iter().any(|op| op == "Dense" || op == "Pack"), "{ops:?}");
    }

    #[test]
    fn a_gru_of_keras() {
        let mut net = Net::new();
        let x = net.x(&[3, 2]);
        let xs = parts(&mut net, x, 1, 3);
        let (input, state) = (net.weight("w", &[2, 12]), net.weight("u", &[4, 12]));
        let (input_bias, state_bias) = (net.weight("b", &[12]), net.weight("c", &[12]));
        let mut h = zeros(&mut net, x, 4);
        let mut hs = Vec::new();
        for x in xs {
            let sums = [(x, input, input_bias), (h, state, state_bias)].map(|(x, w, b)| {
                let sum = net.op(Dense {}, &[x, w, b]);
                net.op(Split { axis: 1, sizes: vec![4; 3] }, &[sum]).node
            });
            let part = |i: usize, output| Value { node: sums[i], output };
            let [z, r] = [0, 1].map(|output| {
                let sum = net.add(part(0, output), part(1, output));
                net.un(Unary::Sigmoid, sum)
            });
            let gated = net.mul(r, part(1, 2));
            let new = net.add(part(0, 2), gated);
            let new = net.un(Unary::Tanh, new);
            let one = net.num(1.0);
            let (kept, rest) = (net.mul(z, h), net.sub(one, z));
            let new = net.mul(rest, new);
            h = net.add(kept, new);
            hs.push(h);
        }
        let all = net.op(Pack { axis: 1 }, &hs);
        let graph = net.check(&[all], run);
        let Op::Recurrent(op) = graph.op(the(&graph, "Recurrent")) else { panic!() };
        assert_eq!((op.cell, op.hidden, op.bias), (Cell::Gru, 4, true));
    }

    #[test]
    fn a_plain_cell_with_matrices_of_its_own() {
        let mut net = Net::new();
        let x = net.x(&[3, 2]);
        let xs = parts(&mut net, x, 1, 3);
        let (input, state, bias) = (net.weight("w", &[2, 4]), net.weight("u", &[4, 4]), net.weight("b", &[4]));
        let mut h = zeros(&mut net, x, 4);
        for x in xs {
            let (a, b) = (net.op(Dense {}, &[x, input]), net.op(Dense {}, &[h, state]));
            let sum = net.add(a, b);
            let sum = net.add(sum, bias);
            h = net.un(Unary::Tanh, sum);
        }
        let graph = net.check(&[h], run);
        let Op::Recurrent(op) = graph.op(the(&graph, "Recurrent")) else { panic!() };
        assert_eq!((op.cell, op.hidden, op.bias), (Cell::Tanh, 4, true));
    }

    #[test]
    fn near_misses_stay() {
        // Other weights in one step; a cell state that something else reads.
        for other in [true, false] {
            let mut net = Net::new();
            let x = net.x(&[2, 3]);
            let xs = parts(&mut net, x, 1, 2);
            let (kernel, bias) = (net.weight("kernel", &[7, 16]), net.weight("bias", &[16]));
            let second = if other { net.weight("kernel2", &[7, 16]) } else { kernel };
            let zero = zeros(&mut net, x, 4);
            let first = lstm(&mut net, &xs[..1], kernel, bias, (zero, zero));
            let last = lstm(&mut net, &xs[1..], second, bias, (first[0], first[1]));
            let outputs = if other { vec![last[0]] } else { vec![last[0], first[1]] };
            let ops = net.ops(&outputs, run);
            assert!(!ops.contains(&"Recurrent".to_owned()), "{ops:?}");
        }
    }
}
