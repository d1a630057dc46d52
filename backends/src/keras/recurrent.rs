//! Recurrent layers: `layers.LSTM`, `layers.GRU`, `layers.SimpleRNN`, one for each layer of a stack.

use modelport_ir::op::{Cell, Recurrent};
use modelport_ir::{Graph, NodeId, Op, Problem, Tensor, Value};

use super::build::{Builder, Built, call_layer};
use super::functions::{axis, ops};
use crate::gates;
use crate::plan::Param;
use crate::python::{Arg, Expr, Lit};

/// The layers, each called with what the one before gives: the sequence, and the last states where something reads
/// them.
pub fn recurrent(b: &mut Builder<'_>, op: &Recurrent) -> Built {
    let read = |output: usize| b.is_read(output);
    let (sequence, states) = (read(0), (1..=op.states()).map(read).collect::<Vec<_>>());
    let stateful = states.contains(&true);
    let mut x = b.tensor(0)?;
    if !op.batch_first {
        x = batch_swapped(x);
    }
    let initial = initial_states(b, op)?;
    let mut last: Vec<Vec<Expr>> = vec![Vec::new(); op.states()];
    for layer in 0..op.layers {
        let ctor = constructor(op, sequence || layer + 1 < op.layers, stateful);
        let mut params = Vec::new();
        for direction in 0..op.directions() {
            let part = if op.bidirectional { ["forward_layer/", "backward_layer/"][direction] } else { "" };
            params.extend(weights(b, op, layer * op.directions() + direction, part)?);
        }
        let mut args = vec![Arg::new(x)];
        if !initial.is_empty() {
            let rows = layer * op.directions()..(layer + 1) * op.directions();
            let states = rows.flat_map(|row| initial.iter().map(move |state| state.clone().index(vec![at(row)])));
            args.push(Arg::keyword("initial_state", Expr::List(states.collect()), None));
        }
        let role = format!("l{layer}");
        let member = b.member(&role, ctor, params);
        let called = Expr::Call(Box::new(member), args);
        let part = |index: usize| called.clone().index(vec![Expr::int("part", index)]);
        for direction in 0..op.directions() {
            for (state, rows) in last.iter_mut().enumerate() {
                rows.push(part(1 + direction * op.states() + state));
            }
        }
        x = if stateful { part(0) } else { called.clone() };
        if op.dropout > 0.0 && layer + 1 < op.layers {
            let rate = Arg::or("rate", Expr::slot("rate", Lit::float(op.dropout)), Lit::None);
            x = call_layer("Dropout", vec![rate], x);
        }
    }
    if !op.batch_first {
        x = batch_swapped(x);
    }
    let nothing = || Expr::name("None");
    let mut results = vec![if sequence { x } else { nothing() }];
    for (rows, is_read) in last.into_iter().zip(states) {
        results.push(match rows.as_slice() {
            _ if !is_read => nothing(),
            [row] if is_read_alone(b.graph, Value { node: b.node, output: results.len() }) => row.clone(),
            [row] => Expr::call("ops.expand_dims", vec![Arg::new(row.clone()), axis(&[0])]),
            _ => Expr::call("ops.stack", vec![Arg::new(Expr::List(rows))]),
        });
    }
    b.results(vec!["y".to_owned(), "h".to_owned(), "c".to_owned()]);
    Ok(Expr::Tuple(results))
}

/// Whether a value is the last state of a single layer, `[1, batch, units]`, which all readers take as `[batch, units]`:
/// it is that in Keras.
pub fn is_read_alone(graph: &Graph, state: Value) -> bool {
    let single = matches!(graph.op(state.node), Op::Recurrent(op) if op.layers * op.directions() == 1);
    let readers = graph.consumers(state);
    let alone = |&(reader, _): &(NodeId, usize)| matches!(graph.op(reader), Op::Squeeze(op) if op.axes == [0]);
    single && state.output > 0 && graph.uses(state) == readers.len() && readers.iter().all(alone)
}

/// `[length, batch, …]` as `[batch, length, …]`, and back.
fn batch_swapped(x: Expr) -> Expr {
    let axes = Arg::or("axes", Expr::slot("axes", Lit::tuple(&[1, 0, 2])), Lit::None);
    let Expr::Call(function, mut args) = ops("transpose", x) else { return Expr::name("None") };
    args.push(axes);
    Expr::Call(function, args)
}

fn at(row: usize) -> Expr {
    Expr::int("index", row)
}

/// The states to begin with, where they are given: a tensor for each kind, with a row for each layer and direction.
fn initial_states(b: &mut Builder<'_>, op: &Recurrent) -> Result<Vec<Expr>, Problem> {
    if !op.initial {
        return Ok(Vec::new());
    }
    let first = 1 + op.layers * op.directions() * op.weights();
    (first..first + op.states()).map(|slot| b.tensor(slot)).collect()
}

fn constructor(op: &Recurrent, sequences: bool, states: bool) -> Expr {
    let class = match op.cell {
        Cell::Lstm => "LSTM",
        Cell::Gru | Cell::GruResetBefore => "GRU",
        Cell::Tanh | Cell::Relu => "SimpleRNN",
    };
    let flag = |name: &str, value: bool, default: bool| {
        Arg::keyword(name, Expr::slot(name, Lit::Bool(value)), Some(Lit::Bool(default)))
    };
    let activation = if op.cell == Cell::Relu { "relu" } else { "tanh" };
    let activation = Expr::slot("activation", Lit::Str(activation.to_owned()));
    let args = vec![
        Arg::or("units", Expr::int("units", op.hidden), Lit::None),
        Arg::keyword("activation", activation, Some(Lit::Str("tanh".to_owned()))),
        flag("use_bias", op.bias, true),
        flag("return_sequences", sequences, false),
        flag("return_state", states, false),
        flag("reset_after", op.cell != Cell::GruResetBefore, true),
    ];
    let layer = Expr::call(&format!("layers.{class}"), args);
    match op.bidirectional {
        true => Expr::call("layers.Bidirectional", vec![Arg::or("layer", layer, Lit::None)]),
        false => layer,
    }
}

/// The weights of one layer in one direction, in Keras' order.
fn weights(b: &Builder<'_>, op: &Recurrent, row: usize, part: &str) -> Result<Vec<Param>, Problem> {
    let slot = |i: usize| 1 + row * op.weights() + i;
    let made = |tensor: Result<Tensor, String>| tensor.map_err(|message| b.problem(message));
    let gates = |tensor: &Tensor| match op.cell {
        Cell::Gru | Cell::GruResetBefore => gates::swapped(tensor),
        _ => Ok(tensor.clone()),
    };
    let kernel = |i: usize, key: &str| -> Result<Param, Problem> {
        let param = b.required(slot(i), &format!("{part}{key}"))?;
        let tensor = made(gates(&param.tensor).and_then(|tensor| tensor.permuted(&[1, 0])))?;
        Ok(Param { tensor, ..param })
    };
    let mut params = vec![kernel(0, "kernel")?, kernel(1, "recurrent_kernel")?];
    if op.bias {
        let (input, recurrent) = (b.required(slot(2), "bias")?, b.required(slot(3), "bias")?);
        let tensor = match op.cell {
            // After the reset gate, which Keras' bias of the state follows too.
            Cell::Gru => {
                let row = |param: &Param| gates(&param.tensor)?.reshaped(&[1, param.tensor.numel()]);
                row(&input).and_then(|input| Tensor::joined(&[input, row(&recurrent)?], 0))
            }
            Cell::GruResetBefore => gates::sum(&input.tensor, &recurrent.tensor).and_then(|sum| gates::swapped(&sum)),
            _ => gates::sum(&input.tensor, &recurrent.tensor),
        };
        params.push(Param { key: format!("{part}bias"), tensor: made(tensor)?, source: input.source });
    }
    Ok(params)
}

impl Builder<'_> {
    /// Whether something reads an output of the node.
    fn is_read(&self, output: usize) -> bool {
        let value = Value { node: self.node, output };
        !self.graph.consumers(value).is_empty() || self.graph.outputs.iter().any(|port| port.value == value)
    }
}
