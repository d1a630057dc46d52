//! Recurrent layers.

use modelport_ir::op::Cell;
use modelport_ir::{Result, Value, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

const LAYER: &str = "input hx params has_biases num_layers dropout train bidirectional batch_first=False";

pub const OPS: &[Entry] = &[
    op("lstm", LAYER, |call| recurrent(call, Cell::Lstm)),
    op("gru", LAYER, |call| recurrent(call, Cell::Gru)),
    op("rnn_tanh", LAYER, |call| recurrent(call, Cell::Tanh)),
    op("rnn_relu", LAYER, |call| recurrent(call, Cell::Relu)),
];

fn recurrent(call: &mut Call, cell: Cell) -> Result<Arg> {
    if call.arg("has_biases").is_tensor() || call.arg("has_biases").list().is_some() {
        return Err(call.fail("packed sequences are not translated: give the layer a padded tensor"));
    }
    let mut x = call.value("input")?;
    let weights = call.values("params")?;
    let unbatched = call.lower.graph.shape(x).rank() == 2;
    let batch_first = call.bool("batch_first")?;
    if unbatched {
        x = call.add(op::Unsqueeze { axes: vec![usize::from(!batch_first)] }, &[x])?;
    }
    let states: Vec<Arg> = match call.arg("hx") {
        Arg::List(states) => states,
        state => vec![state],
    };
    let states = states.iter().map(|state| call.lower.value(state)).collect::<Result<Vec<Value>>>()?;
    let initial = !states.iter().all(|state| is_zero(call, *state));
    let hidden = weights.get(1).and_then(|w| call.lower.graph.shape(*w).get(1).and_then(|dim| dim.known()));
    let Some(hidden) = hidden else { return Err(call.fail("the weights of a recurrent layer are missing")) };
    let layer = op::Recurrent {
        cell,
        hidden,
        layers: call.size("num_layers")?,
        bidirectional: call.bool("bidirectional")?,
        batch_first,
        bias: call.bool("has_biases")?,
        initial,
        dropout: call.float("dropout")? as f32,
    };
    if weights.len() != layer.layers.saturating_mul(layer.directions()).saturating_mul(layer.weights()) {
        return Err(call.fail("recurrent layers with projections are not translated"));
    }
    let count = 1 + layer.states();
    let inputs: Vec<Value> =
        std::iter::once(x).chain(weights).chain(if initial { states } else { Vec::new() }).collect();
    let node = call.add(layer, &inputs)?.node;
    let mut results = Vec::new();
    for output in 0..count {
        let mut value = Value { node, output };
        if unbatched {
            let axis = if output == 0 { usize::from(!batch_first) } else { 1 };
            value = call.add(op::Squeeze { axes: vec![axis] }, &[value])?;
        }
        results.push(value.into());
    }
    Ok(Arg::List(results))
}

/// Whether a state is zero everywhere, as it is when none is given.
fn is_zero(call: &Call, state: Value) -> bool {
    let graph = &call.lower.graph;
    match graph.op(state.node) {
        modelport_ir::Op::Fill(fill) => fill.value == 0.0,
        modelport_ir::Op::Expand(_) => graph.input_of(state.node, 0).is_some_and(|value| is_zero(call, value)),
        _ => graph
            .tensor(state)
            .filter(|tensor| tensor.numel() <= 1 << 20)
            .and_then(|tensor| tensor.to_f64().ok())
            .is_some_and(|numbers| numbers.iter().all(|&number| number == 0.0)),
    }
}
