//! `nn.LSTM`, `nn.GRU` and `nn.RNN`.

use modelport_ir::{DType, Dim, Result};

use super::call::{Forward, This};
use super::layers::one;
use crate::pytorch::arg::Arg;
use crate::pytorch::lower::Lower;

/// What a layer of this class computes: the outputs and the last states.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "LSTM" => |this, net, x| recurrent(this, net, x, "aten.lstm"),
        "GRU" => |this, net, x| recurrent(this, net, x, "aten.gru"),
        "RNN" => |this, net, x| match this.text("nonlinearity") {
            Some("relu") => recurrent(this, net, x, "aten.rnn_relu"),
            _ => recurrent(this, net, x, "aten.rnn_tanh"),
        },
        _ => return None,
    })
}

fn recurrent(this: &This, net: &mut Lower, args: &[Arg], op: &str) -> Result<Arg> {
    let x = one(this, net, args)?;
    let (layers, twice) = (this.int("num_layers", 1), this.flag("bidirectional", false));
    let (bias, batch_first) = (this.flag("bias", true), this.flag("batch_first", false));
    let mut weights = Vec::new();
    for layer in 0..layers {
        for suffix in if twice { &["", "_reverse"][..] } else { &[""] } {
            let all = ["weight_ih_l", "weight_hh_l", "bias_ih_l", "bias_hh_l", "weight_hr_l"];
            let names = all.iter().map(|name| format!("{name}{layer}{suffix}"));
            weights.extend(names.map(|name| this.weight(net, &name)).filter(|weight| !weight.is_none()));
        }
    }
    let lstm = op == "aten.lstm";
    let state = match args.get(1) {
        Some(state) if !state.is_none() => state.clone(),
        _ => {
            let axis = usize::from(!batch_first);
            let batch = net.info(&x).and_then(|(_, shape)| shape.get(axis).cloned()).unwrap_or(Dim::Unknown);
            let batch: Arg = match net.value(&x)? {
                value if batch.known().is_none() => net.size(value, axis).into(),
                _ => batch.known().unwrap_or(1).into(),
            };
            let hidden = this.int("hidden_size", 1);
            let output = match this.int("proj_size", 0) {
                0 => hidden,
                size => size,
            };
            let mut zeros = |size: usize| {
                let shape: Arg = vec![(layers * if twice { 2 } else { 1 }).into(), batch.clone(), size.into()].into();
                net.call("aten.zeros", &[shape, DType::Float32.into()], &[])
            };
            let h = zeros(output)?;
            if lstm { vec![h, zeros(hidden)?].into() } else { h }
        }
    };
    let dropout = this.attr("dropout", 0.0);
    let args =
        [x, state, weights.into(), bias.into(), layers.into(), dropout, false.into(), twice.into(), batch_first.into()];
    let result = net.call(op, &args, &[])?;
    Ok(match result.list() {
        // As the layer returns it: (output, (h, c)).
        Some([out, h, c]) if lstm => vec![out.clone(), vec![h.clone(), c.clone()].into()].into(),
        _ => result,
    })
}
