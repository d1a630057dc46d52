//! Recognises a recurrent layer by its steps, written one after the other.
//!
//! ```text
//! i, g, f, o = Split(Dense(Concat(x_t, h)))           x [N, T, in] -> Recurrent { cell: Lstm } -> h_1 … h_T
//! c = sigmoid(f + 1) * c + sigmoid(i) * tanh(g)
//! h = sigmoid(o) * tanh(c)                            (h = tanh(Dense(Concat(x_t, h))) is the plain cell)
//! ```
//!
//! So are GRUs, whose reset gate follows the product of the state (PyTorch's) or comes before it (TensorFlow 1's).
//! Sequences may end before the last step: [`lengths`].
//!
//! What enters a gate is a sum of products with constant matrices, in any grouping: one matrix for all gates or one for
//! each, for input and state together or apart. All steps must have the same. Where the source has modules they stay.

mod cell;
mod lengths;
mod replace;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use cell::{Bias, Block, Step, Sum, step};
use lengths::{Ended, is_masked};

use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Cell, Op};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    if !graph.modules.is_empty() {
        return Ok(0);
    }
    let mut count = lengths::lift(graph)?;
    // One at a time: what one layer makes is what the next one reads.
    while let Some(layer) = chains(graph)?.into_iter().find_map(|chain| layer(graph, &chain)) {
        replace::replace(graph, &layer)?;
        graph.prune();
        count += 1;
    }
    Ok(count)
}

/// A layer that was found.
struct Layer {
    cell: Cell,
    xs: Vec<Value>,
    /// What the cell computes in every step.
    hs: Vec<Value>,
    last_c: Option<Value>,
    /// Where sequences end before the last step: their lengths, and the state at the end if something reads it.
    ends: Option<(Value, Option<Value>)>,
    start: Vec<Value>,
    input: Vec<Block>,
    recurrent: Vec<Block>,
    /// Those of input and state.
    biases: [Vec<Bias>; 2],
}

/// Steps that follow each other, producers first.
fn chains(graph: &Graph) -> Result<Vec<Vec<Step>>> {
    let mut steps: Vec<Step> = graph.order()?.into_iter().filter_map(|id| step(graph, id.into())).collect();
    let inner: HashSet<Value> = steps.iter().filter(|step| step.ended.is_some()).map(|step| step.result).collect();
    steps.retain(|step| step.ended.is_some() || !inner.contains(&step.result));
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
        let hidden = before.c.is_none_or(|(c, _)| graph.uses(c) <= 2);
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
    let shaped = |start: &Value| graph.info(*start) == graph.info(first.h);
    if graph.shape(xs[0]).first() != graph.shape(first.h).first() || !start.iter().all(shaped) {
        return None; // broadcast over the batch
    }
    let last = chain.last()?;
    let ends = match first.ended {
        Some(ended) => {
            let at = |step: usize| Ended { step, ..ended };
            let mut steps = chain.iter().enumerate();
            let same = |(step, found): (usize, &Step)| match found.ended {
                // Nobody may read the last state.
                None => step + 1 == chain.len(),
                Some(ended) => ended == at(step),
            };
            if !steps.all(same) || chain.iter().enumerate().any(|(i, step)| !is_masked(graph, step.result, at(i))) {
                return None;
            }
            // A layer gives no cell state but the last.
            if last.c.is_some_and(|(c, _)| matches!(graph.op(c.node), Op::Select(_))) {
                return None;
            }
            Some((ended.lengths, last.ended.map(|_| last.h)))
        }
        None if chain.iter().any(|step| step.ended.is_some()) => return None,
        None => None,
    };
    let needed = before(graph, xs.iter().chain(&start).map(|value| value.node).collect(), |_| false);
    if chain.iter().any(|step| needed.contains(&step.result.node)) {
        return None;
    }
    let blocks = |state: bool| -> Vec<Block> {
        let of = |(gate, &place): (&Sum, &usize)| gate.products[if state { place } else { 1 - place }].1;
        first.gates.iter().zip(&places).map(of).collect()
    };
    Some(Layer {
        cell: first.cell,
        xs,
        hs: chain.iter().map(|step| step.result).collect(),
        last_c: last.c.map(|(c, _)| c).filter(|_| ends.is_none()),
        ends,
        start,
        input: blocks(false),
        recurrent: blocks(true),
        biases: [
            first.gates.iter().map(|gate| gate.bias.clone()).collect(),
            first.gates.iter().map(|gate| gate.state_bias.clone()).collect(),
        ],
    })
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
