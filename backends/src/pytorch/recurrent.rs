//! Recurrent layers: `nn.LSTM`, `nn.GRU`, `nn.RNN`.

use modelport_ir::op::{Cell, Recurrent};

use super::build::{Builder, Built};
use crate::python::{Arg, Expr, Lit};

/// A class that PyTorch lacks: its name, and its text.
pub const RESET_BEFORE: (&str, &str) = ("ResetBeforeGRU", include_str!("../../../templates/reset_before_gru.py.tera"));

/// Marks a call that gives a sequence and its states, `y, (h, c)`: an empty prefix.
const STATES: &str = "";

/// Whether an expression gives a sequence and a tuple of states.
pub fn gives_states(expr: &Expr) -> bool {
    matches!(expr, Expr::Prefix(STATES, _))
}

/// The module, called with the states to begin with where there are any.
pub fn recurrent(b: &mut Builder<'_>, op: &Recurrent) -> Built {
    let rank = b.shape(0)?.rank();
    let features = b.shape(0)?.get(rank - 1).and_then(modelport_ir::Dim::known);
    let features = features.ok_or_else(|| b.problem("the number of features is not known"))?;
    let names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"];
    let mut params = Vec::new();
    for row in 0..op.layers * op.directions() {
        let suffix = if row % op.directions() == 1 { "_reverse" } else { "" };
        for (i, name) in names.iter().take(op.weights()).enumerate() {
            let key = format!("{name}_l{}{suffix}", row / op.directions());
            params.extend(b.param(1 + row * op.weights() + i, &key, None)?);
        }
    }
    let class = match op.cell {
        Cell::Lstm => "nn.LSTM",
        Cell::Gru => "nn.GRU",
        Cell::GruResetBefore => RESET_BEFORE.0,
        Cell::Tanh | Cell::Relu => "nn.RNN",
    };
    let flag = |name: &str, value: bool, default: bool| {
        Arg::keyword(name, Expr::slot(name, Lit::Bool(value)), Some(Lit::Bool(default)))
    };
    let mut args = vec![
        Arg::new(Expr::int("input_size", features)),
        Arg::new(Expr::int("hidden_size", op.hidden)),
        Arg::keyword("num_layers", Expr::int("num_layers", op.layers), Some(Lit::Int(1))),
        flag("bias", op.bias, true),
        flag("batch_first", op.batch_first, false),
        Arg::keyword("dropout", Expr::slot("dropout", Lit::float(op.dropout)), Some(Lit::float(0.0))),
        flag("bidirectional", op.bidirectional, false),
    ];
    if op.cell == Cell::Relu {
        args.push(Arg::keyword("nonlinearity", Expr::slot("nonlinearity", Lit::Str("relu".to_owned())), None));
    }
    let mut inputs = vec![Arg::new(b.tensor(0)?)];
    if op.initial {
        let first = 1 + op.layers * op.directions() * op.weights();
        let states = (0..op.states()).map(|i| b.tensor(first + i)).collect::<Result<Vec<_>, _>>()?;
        inputs.push(match <[Expr; 1]>::try_from(states) {
            Ok([state]) => Arg::new(state),
            Err(states) => Arg::new(Expr::Tuple(states)),
        });
    }
    let module = b.module("rnn", Expr::call(class, args), params);
    b.results(vec!["y".to_owned(), "h".to_owned(), "c".to_owned()]);
    Ok(Expr::Prefix(STATES, Box::new(Expr::Call(Box::new(module), inputs))))
}
