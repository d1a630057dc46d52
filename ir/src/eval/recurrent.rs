//! Evaluation of recurrent layers.

use super::array::Array;
use crate::op::recurrent::{Cell, Recurrent};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// One row of weights: input, state, and their biases.
struct Weights {
    w_ih: Vec<f64>,
    w_hh: Vec<f64>,
    b_ih: Vec<f64>,
    b_hh: Vec<f64>,
}

impl Weights {
    fn of(op: &Recurrent, inputs: &[&Array], row: usize) -> Weights {
        let at = |i: usize| inputs[1 + row * op.weights() + i].to_f64();
        let zeros = || vec![0.0; op.cell.gates() * op.hidden];
        let (b_ih, b_hh) = if op.bias { (at(2), at(3)) } else { (zeros(), zeros()) };
        Weights { w_ih: at(0), w_hh: at(1), b_ih, b_hh }
    }
}

/// `w @ x + b`
fn affine(w: &[f64], x: &[f64], b: &[f64]) -> Vec<f64> {
    let row =
        |(i, b): (usize, &f64)| b + w[i * x.len()..(i + 1) * x.len()].iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
    b.iter().enumerate().map(row).collect()
}

/// One step of a cell: changes the hidden and the cell state.
fn step(cell: Cell, weights: &Weights, x: &[f64], h: &mut [f64], c: &mut [f64]) {
    let (a, b) = (affine(&weights.w_ih, x, &weights.b_ih), affine(&weights.w_hh, h, &weights.b_hh));
    let n = h.len();
    if cell == Cell::GruResetBefore {
        let gate = |gate: usize, i: usize| sigmoid(a[gate * n + i] + b[gate * n + i]);
        let reset: Vec<f64> = h.iter().enumerate().map(|(i, h)| gate(0, i) * h).collect();
        let b = affine(&weights.w_hh, &reset, &weights.b_hh);
        for (i, h) in h.iter_mut().enumerate() {
            let update = gate(1, i);
            *h = (1.0 - update) * (a[2 * n + i] + b[2 * n + i]).tanh() + update * *h;
        }
        return;
    }
    for i in 0..n {
        let sum = |gate: usize| a[gate * n + i] + b[gate * n + i];
        match cell {
            Cell::Tanh => h[i] = sum(0).tanh(),
            Cell::Relu => h[i] = sum(0).max(0.0),
            Cell::Gru | Cell::GruResetBefore => {
                let (reset, update) = (sigmoid(sum(0)), sigmoid(sum(1)));
                let new = (a[2 * n + i] + reset * b[2 * n + i]).tanh();
                h[i] = (1.0 - update) * new + update * h[i];
            }
            Cell::Lstm => {
                c[i] = sigmoid(sum(1)) * c[i] + sigmoid(sum(0)) * sum(2).tanh();
                h[i] = sigmoid(sum(3)) * c[i].tanh();
            }
        }
    }
}

/// `shapes` are those of the outputs.
pub(super) fn recurrent(op: &Recurrent, inputs: &[&Array], shapes: &[Vec<usize>]) -> Result<Vec<Array>, String> {
    let dtype = inputs[0].dtype();
    let x = if op.batch_first { inputs[0].transposed(&[1, 0, 2]) } else { inputs[0].clone() };
    let [length, batch, mut features] = *x.shape() else { return Err("takes rank 3".to_owned()) };
    let (directions, hidden) = (op.directions(), op.hidden);
    let rows = op.layers * directions;
    let states = |index: usize| match op.initial {
        true => inputs[1 + rows * op.weights() + index].to_f64(),
        false => vec![0.0; rows * batch * hidden],
    };
    let mut h = states(0);
    let mut c = if op.cell == Cell::Lstm { states(1) } else { vec![0.0; h.len()] };
    if h.len() != rows * batch * hidden || c.len() != h.len() {
        return Err("the states to begin with have another shape".to_owned());
    }
    let mut sequence = x.to_f64();
    for layer in 0..op.layers {
        let width = directions * hidden;
        let mut output = vec![0.0; length * batch * width];
        for direction in 0..directions {
            let row = layer * directions + direction;
            let weights = Weights::of(op, inputs, row);
            if weights.w_ih.len() != op.cell.gates() * hidden * features {
                return Err("a weight has another shape".to_owned());
            }
            for n in 0..batch {
                let state = (row * batch + n) * hidden..(row * batch + n + 1) * hidden;
                for place in 0..length {
                    let t = if direction == 0 { place } else { length - 1 - place };
                    let from = (t * batch + n) * features;
                    let (h, c) = (&mut h[state.clone()], &mut c[state.clone()]);
                    step(op.cell, &weights, &sequence[from..from + features], h, c);
                    let to = (t * batch + n) * width + direction * hidden;
                    output[to..to + hidden].copy_from_slice(h);
                }
            }
        }
        (sequence, features) = (output, width);
    }
    let y = Array::from_f64(dtype, &[length, batch, features], sequence)?;
    let mut outputs = vec![if op.batch_first { y.transposed(&[1, 0, 2]) } else { y }];
    for (state, shape) in [h, c].into_iter().zip(&shapes[1..]) {
        outputs.push(Array::from_f64(dtype, shape, state)?);
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::apply;
    use crate::op::Op;
    use crate::tensor::DType;

    /// Numbers of `torch.nn.LSTM(1, 1, batch_first=True)` and `GRU` with all weights 0.5 on the sequence 1, 2.
    #[test]
    fn cells_are_pytorchs() {
        let value =
            |shape: &[usize]| Array::from_f64(DType::Float32, shape, vec![0.5; shape.iter().product()]).unwrap();
        let x = Array::from_f64(DType::Float32, &[1, 2, 1], vec![1.0, 2.0]).unwrap();
        let run = |cell: Cell| {
            let op = Recurrent {
                cell,
                hidden: 1,
                layers: 1,
                bidirectional: false,
                batch_first: true,
                bias: true,
                initial: false,
                dropout: 0.0,
            };
            let n = cell.gates();
            let weights = [value(&[n, 1]), value(&[n, 1]), value(&[n]), value(&[n])];
            let inputs: Vec<Option<&Array>> = std::iter::once(&x).chain(&weights).map(Some).collect();
            apply(&Op::Recurrent(op), &inputs).unwrap().iter().map(Array::to_f64).collect::<Vec<_>>()
        };
        let near =
            |got: &[f64], want: &[f64]| assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
        let lstm = run(Cell::Lstm);
        near(&lstm[0], &LSTM);
        near(&lstm[1], &LSTM[1..]);
        near(&run(Cell::Gru)[0], &GRU);
        near(&run(Cell::Tanh)[0], &TANH);
    }

    const LSTM: [f64; 2] = [0.5143859, 0.8280512];
    const GRU: [f64; 2] = [0.1618546, 0.2509943];
    const TANH: [f64; 2] = [0.9051483, 0.9852923];
}
