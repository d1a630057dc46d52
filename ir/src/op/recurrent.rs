//! Recurrent layers.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, input};
use crate::graph::ValueInfo;
use crate::shape::{Dim, Shape};

/// Which cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cell {
    /// Long short-term memory; gates in the order input, forget, cell, output.
    Lstm,
    /// Gated recurrent unit, whose reset gate comes after the product; gates in the order reset, update, new.
    Gru,
    /// The same with the reset gate before the product: `tanh(W x + U (r * h))`, as in TensorFlow 1.
    #[serde(rename = "gru_reset_before")]
    GruResetBefore,
    /// `tanh` of the sum.
    Tanh,
    /// `relu` of the sum.
    Relu,
}

impl Cell {
    /// Rows of the weights per unit.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru | Cell::GruResetBefore => 3,
            Cell::Tanh | Cell::Relu => 1,
        }
    }
}

/// Layers of recurrent cells over a sequence, as PyTorch has them. Inputs: `x` `[length, batch, features]` (or
/// `[batch, length, features]`); per layer and direction `w_ih` `[gates * hidden, features]`, `w_hh`
/// `[gates * hidden, hidden]` and, with `bias`, `b_ih` and `b_hh` `[gates * hidden]`; with `initial` the states
/// `[layers * directions, batch, hidden]`. Outputs: the sequence `[…, directions * hidden]`, the last hidden state, and
/// for an LSTM the last cell state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recurrent {
    /// Which cell.
    pub cell: Cell,
    /// Units per direction.
    pub hidden: usize,
    /// Layers, each on the output of the one before.
    pub layers: usize,
    /// Whether every layer runs in both directions.
    pub bidirectional: bool,
    /// Whether the batch is the first axis of `x`.
    pub batch_first: bool,
    /// Whether there are biases.
    pub bias: bool,
    /// Whether the states to begin with are given; else they are zero.
    pub initial: bool,
    /// Dropout between layers while training.
    pub dropout: f32,
}

impl Recurrent {
    /// How many directions a layer has.
    pub fn directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }

    /// How many weights a direction of a layer has.
    pub fn weights(&self) -> usize {
        if self.bias { 4 } else { 2 }
    }

    /// How many states there are.
    pub fn states(&self) -> usize {
        1 + usize::from(self.cell == Cell::Lstm)
    }
}

impl Operator for Recurrent {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Variadic "weight"]
    }

    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let [first, second, features] = x.shape.as_slice() else {
            return Err(format!("a recurrent layer takes rank 3, got {}", x.shape));
        };
        let rows = self.layers.checked_mul(self.directions()).filter(|rows| (1..=1 << 10).contains(rows));
        let rows = rows.ok_or_else(|| format!("{} layers can't be", self.layers))?;
        let too_large = || format!("{} units can't be", self.hidden);
        let gates = self.cell.gates().checked_mul(self.hidden).filter(|&n| n > 0).ok_or_else(too_large)?;
        let width = self.hidden.checked_mul(self.directions()).ok_or_else(too_large)?;
        let count = 1 + rows * self.weights() + if self.initial { self.states() } else { 0 };
        if inputs.len() != count {
            return Err(format!("takes {count} inputs, got {}", inputs.len()));
        }
        let batch = if self.batch_first { first } else { second };
        for row in 0..rows {
            let features = if row < self.directions() { features.clone() } else { Dim::Known(width) };
            let expected = [
                Shape(vec![Dim::Known(gates), features]),
                Shape::known(&[gates, self.hidden]),
                Shape::known(&[gates]),
                Shape::known(&[gates]),
            ];
            for (i, expected) in expected.iter().take(self.weights()).enumerate() {
                let weight = input(inputs, 1 + row * self.weights() + i)?;
                if weight.shape != *expected && expected.sizes().is_some() {
                    return Err(format!("a weight has shape {}, expected {expected}", weight.shape));
                }
            }
        }
        let state = ValueInfo::new(x.dtype, Shape(vec![rows.into(), batch.clone(), self.hidden.into()]));
        let y = Shape(vec![first.clone(), second.clone(), width.into()]);
        Ok(std::iter::once(ValueInfo::new(x.dtype, y)).chain(vec![state; self.states()]).collect())
    }
}
