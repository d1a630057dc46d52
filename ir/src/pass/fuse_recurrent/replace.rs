//! Puts the layer in the place of its steps.

use std::collections::HashSet;

use super::super::pattern::is_zero;
use super::cell::{Bias, Block};
use super::{Layer, before, lengths, scope};
use crate::diagnostic::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Dropout, Op, Pack, Recurrent, Reverse, Slice, Squeeze, Transpose, Unpack, Unsqueeze};
use crate::tensor::Tensor;

/// Adds the layer, and has it read where its steps were.
pub(super) fn replace(graph: &mut Graph, layer: &Layer) -> Result<()> {
    let dense = layer.input.first().map(|block| block.matrix).ok_or_else(|| Error::new("a cell without gates"))?;
    let hidden = layer.recurrent.first().map_or(0, |block| block.columns.1 - block.columns.0);
    let name = scope(&graph.node(layer.hs[0].node).name).to_owned();
    let (mut x, mut batch_first) = sequence(graph, &layer.xs, &name)?;
    if layer.ends.is_some() && !batch_first {
        x = graph.add(Transpose { perm: vec![1, 0, 2] }, &format!("{name}/batch_first"), &[x])?.into();
        batch_first = true;
    }
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
    let last = *layer.hs.last().ok_or_else(|| Error::new("a layer without steps"))?;
    if let Some((lengths, Some(state))) = layer.ends {
        let start = layer.start.first().copied().filter(|start| !is_zero(graph, *start));
        let at_end = lengths::last(graph, y, lengths, start, &format!("{name}/state"))?;
        graph.replace_uses(state, at_end);
    }
    for packed in packs(graph, layer, last) {
        if !packed.backwards && packed.dropout.is_none() {
            for alone in last_alone(graph, packed.node.into(), packed.axis, layer.hs.len()) {
                graph.replace_uses(alone, last);
            }
        }
        let mut all = y;
        if let Some(dropout) = packed.dropout {
            all = graph.add(dropout, &format!("{name}/dropout"), &[all])?.into();
        }
        if packed.backwards {
            all = graph.add(Reverse { axes: vec![time] }, &format!("{name}/reverse"), &[all])?.into();
        }
        if packed.axis != time {
            all = graph.add(Transpose { perm: vec![1, 0, 2] }, &format!("{name}/transpose"), &[all])?.into();
        }
        graph.replace_uses(packed.node.into(), all);
        graph.remove(packed.node);
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

/// All steps of a layer, packed again.
struct Packed {
    node: NodeId,
    axis: usize,
    backwards: bool,
    /// What every step went through before.
    dropout: Option<Dropout>,
}

/// Where all steps are packed, as they are or after the same dropout each.
fn packs(graph: &Graph, layer: &Layer, last: Value) -> Vec<Packed> {
    let readers = graph.consumers(last).into_iter().map(|(reader, _)| reader);
    let behind = |id: NodeId| match graph.op(id) {
        Op::Dropout(_) => graph.consumers(id.into()).into_iter().map(|(reader, _)| reader).collect(),
        _ => vec![id],
    };
    let packed = |id: NodeId| {
        let Op::Pack(Pack { axis }) = *graph.op(id) else { return None };
        let items: Vec<Value> = graph.inputs_of(id).into_iter().flatten().collect();
        let (items, dropout) = undropped(graph, &items).map_or((items, None), |(items, op)| (items, Some(op)));
        let backwards = items.iter().eq(layer.hs.iter().rev());
        (axis < 2 && (backwards || items == layer.hs)).then_some(Packed { node: id, axis, backwards, dropout })
    };
    readers.flat_map(behind).filter_map(packed).collect()
}

/// What goes through dropout of one rate, where all of some values do, and nothing else reads it then.
fn undropped(graph: &Graph, values: &[Value]) -> Option<(Vec<Value>, Dropout)> {
    let Op::Dropout(first) = graph.op(values.first()?.node) else { return None };
    let before = |value: &Value| match graph.op(value.node) {
        Op::Dropout(op) if op == first && graph.consumers(*value).len() == 1 => graph.input_of(value.node, 0),
        _ => None,
    };
    Some((values.iter().map(before).collect::<Option<_>>()?, first.clone()))
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
    let state = layer.ends.and_then(|(_, state)| state);
    let ends = layer.hs.iter().chain(&layer.last_c).chain(&state);
    before(graph, ends.map(|end| end.node).collect(), |value| borders.contains(&value))
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
    if let Some((before, dropout)) = undropped(graph, xs) {
        let (x, batch_first) = sequence(graph, &before, name)?;
        return Ok((graph.add(dropout, &format!("{name}/dropout"), &[x])?.into(), batch_first));
    }
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
