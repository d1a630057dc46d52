//! Sequences that end before the last step: which steps lie behind the end, and what a layer's results are then.
//!
//! ```text
//! Pack(Select(t >= lengths, 0, y_t))                  Select(steps < lengths, Pack(y_t), 0)
//! h_t = Select(t >= lengths, h_(t-1), y_t)            the last one: y at step lengths - 1
//! ```

use std::collections::HashSet;

use super::super::pattern::{is_zero, number};
use super::scope;
use crate::diagnostic::{Error, Result};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Binary, Clip, Gather, Op, Pack, Range, Select, Transpose, Unsqueeze};
use crate::tensor::{DType, Tensor};

/// Most nodes that are looked at behind a step.
const READERS: usize = 256;

/// The condition that a sequence has no such step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) lengths: Value,
    pub(super) step: usize,
}

/// Where a sequence has ended: what there is in place of what.
pub(super) fn ended(graph: &Graph, value: Value) -> Option<(Ended, Value, Value)> {
    if !matches!(graph.op(value.node), Op::Select(_)) {
        return None;
    }
    let input = |slot| graph.input_of(value.node, slot);
    let (mut condition, instead, result) = (input(0)?, input(1)?, input(2)?);
    // A row for every sequence.
    if matches!(graph.op(condition.node), Op::Unsqueeze(op) if op.axes == [1]) {
        condition = graph.input_of(condition.node, 0)?;
    }
    let (step, lengths) = match graph.op(condition.node) {
        Op::Binary(Binary::GreaterEqual) => (graph.input_of(condition.node, 0)?, graph.input_of(condition.node, 1)?),
        Op::Binary(Binary::LessEqual) => (graph.input_of(condition.node, 1)?, graph.input_of(condition.node, 0)?),
        _ => return None,
    };
    let step = number(graph, step).filter(|step| (0.0..1e6).contains(step) && step.fract() == 0.0)? as usize;
    let rows = graph.shape(lengths).rank() == 1 && graph.shape(value).rank() == 2;
    (rows && graph.shape(result) == graph.shape(value)).then_some((Ended { lengths, step }, instead, result))
}

/// Puts zeros behind the end of packed sequences as a whole, not step by step. Returns how many were changed.
pub(super) fn lift(graph: &mut Graph) -> Result<usize> {
    let mut count = 0;
    for id in graph.ids() {
        let Op::Pack(Pack { axis: axis @ 0..=1 }) = *graph.op(id) else { continue };
        let items: Vec<Value> = graph.inputs_of(id).into_iter().flatten().collect();
        let mut results = Vec::with_capacity(items.len());
        let mut lengths = None;
        for (step, item) in items.iter().enumerate() {
            match ended(graph, *item) {
                Some((ended, zero, result))
                    if ended.step == step
                        && *lengths.get_or_insert(ended.lengths) == ended.lengths
                        && is_zero(graph, zero) =>
                {
                    results.push(result);
                }
                _ => break,
            }
        }
        let Some(lengths) = lengths.filter(|_| results.len() == items.len()) else { continue };
        // Where the layer is, seen through what every step went through before.
        let result = results.first().copied().unwrap_or(id.into());
        let result =
            if matches!(graph.op(result.node), Op::Dropout(_)) { graph.input_of(result.node, 0) } else { Some(result) };
        let name = format!("{}/outputs", scope(&graph.node(result.map_or(id, |value| value.node)).name));
        // Mostly the batch comes first again.
        let turned = |id: &NodeId| matches!(graph.op(*id), Op::Transpose(op) if op.perm == [1, 0, 2]);
        let readers: Vec<NodeId> = graph.consumers(id.into()).into_iter().map(|(reader, _)| reader).collect();
        let is_turned = axis == 0 && graph.uses(id.into()) == readers.len() && readers.iter().all(turned);
        let sequence = graph.add(Pack { axis: 1 }, &name, &results)?;
        let masked = masked(graph, sequence.into(), lengths, &name)?;
        if is_turned {
            readers.iter().for_each(|reader| graph.replace_uses((*reader).into(), masked));
        } else if axis == 1 {
            graph.replace_uses(id.into(), masked);
        } else {
            let turned = graph.add(Transpose { perm: vec![1, 0, 2] }, &name, &[masked])?;
            graph.replace_uses(id.into(), turned.into());
        }
        count += 1;
    }
    graph.prune();
    Ok(count)
}

/// A sequence `[batch, time, …]` with zeros behind the ends.
fn masked(graph: &mut Graph, sequence: Value, lengths: Value, name: &str) -> Result<Value> {
    let dtype = graph.info(lengths).dtype;
    let limit = graph.shape(sequence).get(1).cloned().ok_or_else(|| Error::new("a sequence without steps"))?;
    let steps = graph.add(Range { start: 0, limit, delta: 1, dtype }, name, &[lengths])?;
    let ends = graph.add(Unsqueeze { axes: vec![1] }, name, &[lengths])?;
    let inside = graph.add(Binary::Less, name, &[steps.into(), ends.into()])?;
    let mask = graph.add(Unsqueeze { axes: vec![2] }, name, &[inside.into()])?;
    let zero = Tensor::from_f64(graph.info(sequence).dtype, &[], [0.0]);
    let zero = graph.constant(name, zero);
    Ok(graph.add(Select {}, name, &[mask.into(), sequence, zero])?.into())
}

/// The last state of every sequence `[batch, time, …]`: that of a sequence without steps is `start`, or zero.
pub(super) fn last(
    graph: &mut Graph,
    sequence: Value,
    lengths: Value,
    start: Option<Value>,
    name: &str,
) -> Result<Value> {
    let dtype = graph.info(lengths).dtype;
    let count = graph.shape(sequence).get(1).and_then(|dim| dim.known()).unwrap_or(1);
    let mut number = |number: f64, dtype| graph.constant(name, Tensor::from_f64(dtype, &[], [number]));
    let (one, none) = (number(1.0, dtype), number(0.0, dtype));
    let zero = number(0.0, DType::Float32);
    let before = graph.add(Binary::Sub, name, &[lengths, one])?;
    let places = Clip { min: Some(0.0), max: Some(count.saturating_sub(1) as f32) };
    let index = graph.add(places, name, &[before.into()])?;
    let state = graph.add(Gather { axis: 1, batch_dims: 1 }, name, &[sequence, index.into()])?;
    let empty = graph.add(Binary::LessEqual, name, &[lengths, none])?;
    let empty = graph.add(Unsqueeze { axes: vec![1] }, name, &[empty.into()])?;
    let inputs = [empty.into(), start.unwrap_or(zero), state.into()];
    Ok(graph.add(Select {}, name, &inputs)?.into())
}

/// Whether a value of one step is read only where the sequence has not ended.
pub(super) fn is_masked(graph: &Graph, value: Value, at: Ended) -> bool {
    let (mut seen, mut stack) = (HashSet::new(), vec![value]);
    while let Some(value) = stack.pop() {
        let readers = graph.consumers(value);
        if graph.uses(value) > readers.len() || seen.len() > READERS {
            return false; // an output of the network
        }
        for (reader, slot) in readers {
            let masks = slot == 2 && ended(graph, reader.into()).is_some_and(|(ended, ..)| ended == at);
            match graph.op(reader) {
                _ if masks => {}
                Op::Pack(Pack { axis: 1 })
                    if slot == at.step && is_sequence_masked(graph, reader.into(), at.lengths) => {}
                Op::Pack(_) => return false,
                _ if seen.insert(reader) => {
                    stack.extend((0..graph.node(reader).outputs.len()).map(|output| Value { node: reader, output }));
                }
                _ => {}
            }
        }
    }
    true
}

/// Whether a packed sequence is read only through a mask, as [`lift`] makes it.
fn is_sequence_masked(graph: &Graph, sequence: Value, lengths: Value) -> bool {
    let readers = graph.consumers(sequence);
    let step_back = |value: Option<Value>, axis: usize| {
        value.filter(|value| matches!(graph.op(value.node), Op::Unsqueeze(op) if op.axes == [axis]))
    };
    let is_mask = |select: NodeId| {
        let less = graph.input_of(step_back(graph.input_of(select, 0), 2)?.node, 0)?;
        let ends = step_back(graph.input_of(less.node, 1), 1)?;
        let is_less = matches!(graph.op(less.node), Op::Binary(Binary::Less));
        (is_less && graph.input_of(ends.node, 0) == Some(lengths)).then_some(())
    };
    graph.uses(sequence) == readers.len()
        && readers.iter().all(|(reader, slot)| match graph.op(*reader) {
            Op::Select(_) => *slot == 1 && is_mask(*reader).is_some(),
            Op::Dropout(_) => is_sequence_masked(graph, (*reader).into(), lengths),
            _ => false,
        })
}
