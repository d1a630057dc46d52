//! One step of a recurrent layer: which cell it is, and what enters its gates.

use super::super::pattern::{binary, number, orders, unary};
use super::lengths::{Ended, ended};
use crate::graph::{Graph, Value};
use crate::op::{Binary, Cell, Op, Unary};

/// How deep a sum may be nested.
const DEPTH: usize = 16;
/// Most terms of what enters a gate.
const TERMS: usize = 8;

/// A part of a constant matrix `[in, out]`.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Block {
    pub(super) matrix: Value,
    pub(super) rows: (usize, usize),
    pub(super) columns: (usize, usize),
}

/// What enters a gate.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Sum {
    pub(super) products: Vec<(Value, Block)>,
    pub(super) bias: Bias,
    /// What is added to the product of the state alone, where the reset gate follows that.
    pub(super) state_bias: Bias,
}

/// The constant part of what enters a gate.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Bias {
    /// Vectors, with the part of them that counts.
    pub(super) vectors: Vec<(Value, (usize, usize))>,
    pub(super) number: f64,
}

/// One step.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) cell: Cell,
    /// What the cell computes.
    pub(super) result: Value,
    /// The hidden state: the result, or that of the step before where the sequence has ended.
    pub(super) h: Value,
    /// The cell state, and that of the step before.
    pub(super) c: Option<(Value, Value)>,
    pub(super) gates: Vec<Sum>,
    /// Where the sequence has ended.
    pub(super) ended: Option<Ended>,
}

impl Step {
    fn new(cell: Cell, h: Value, c: Option<(Value, Value)>, gates: Vec<Sum>) -> Step {
        Step { cell, result: h, h, c, gates, ended: None }
    }
}

/// The step that ends in the hidden state `h`.
pub(super) fn step(graph: &Graph, h: Value) -> Option<Step> {
    if graph.shape(h).rank() != 2 {
        return None;
    }
    if let Some((ended, kept, result)) = ended(graph, h) {
        let step = cell(graph, result)?;
        // Both states stay, or it is another selection.
        let selected = |(c, before): (Value, Value)| {
            let mut readers = graph.consumers(c).into_iter().map(|(reader, _)| Value::from(reader));
            let same = |value: &Value| self::ended(graph, *value) == Some((ended, before, c));
            (readers.find(same).unwrap_or(c), before)
        };
        let is_state = step.gates.iter().any(|gate| gate.products.iter().any(|(source, _)| *source == kept));
        let c = step.c.map(selected);
        return is_state.then_some(Step { h, c, ended: Some(ended), ..step });
    }
    cell(graph, h)
}

/// What a cell computes in one step.
fn cell(graph: &Graph, h: Value) -> Option<Step> {
    if let Some(sum) = unary(graph, h, Unary::Tanh) {
        let gate = gate(graph, sum)?;
        return Some(Step::new(Cell::Tanh, h, None, vec![gate]));
    }
    if let Some((cell, gates)) = gru(graph, h) {
        return Some(Step::new(cell, h, None, gates));
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
                return Some(Step::new(Cell::Lstm, h, Some((c, before)), gates));
            }
        }
    }
    None
}

/// The gates of `h = z * h + (1 - z) * tanh(x' + r * h')`: `r`, `z`, and the new state, whose second product is that
/// of the state. Or those of `h = z * h + (1 - z) * tanh(x' + (r * h)')`.
fn gru(graph: &Graph, h: Value) -> Option<(Cell, Vec<Sum>)> {
    orders(graph, h, Binary::Add).into_iter().find_map(|(kept, new)| {
        orders(graph, kept, Binary::Mul).into_iter().find_map(|(update, before)| {
            let z = sigmoid(graph, update)?;
            let rest = |value: Value| {
                binary(graph, value, Binary::Sub).is_some_and(|(one, z)| z == update && number(graph, one) == Some(1.0))
            };
            let (_, new) = orders(graph, new, Binary::Mul).into_iter().find(|(left, _)| rest(*left))?;
            let new = unary(graph, new, Unary::Tanh)?;
            let after = reset_after(graph, new, before).map(|(r, new)| (Cell::Gru, r, new));
            let (cell, r, new) = after.or_else(|| {
                let (r, new) = reset_before(graph, new, before)?;
                Some((Cell::GruResetBefore, r, new))
            })?;
            Some((cell, vec![r, z, new]))
        })
    })
}

/// The reset gate that a product of the state goes through, and the sum that it enters.
fn reset_after(graph: &Graph, new: Value, before: Value) -> Option<(Sum, Sum)> {
    orders(graph, new, Binary::Add).into_iter().find_map(|(input, gated)| {
        orders(graph, gated, Binary::Mul).into_iter().find_map(|(reset, state)| {
            let r = sigmoid(graph, reset)?;
            let (input, state) = (sum(graph, input)?, sum(graph, state)?);
            let ([x], [(source, block)]) = (input.products.as_slice(), state.products.as_slice()) else {
                return None;
            };
            let products = vec![*x, (*source, *block)];
            let new = Sum { products, bias: input.bias, state_bias: state.bias };
            (*source == before).then_some((r, new))
        })
    })
}

/// The reset gate that the state goes through in front of its product, and the sum that this enters.
fn reset_before(graph: &Graph, new: Value, before: Value) -> Option<(Sum, Sum)> {
    let mut new = gate(graph, new)?;
    let gated = |value: Value| {
        let factors = orders(graph, value, Binary::Mul).into_iter();
        factors.filter(|(_, state)| *state == before).find_map(|(reset, _)| sigmoid(graph, reset))
    };
    let (at, r) = new.products.iter().enumerate().find_map(|(at, product)| Some((at, gated(product.0)?)))?;
    new.products[at].0 = before;
    Some((r, new))
}

/// What enters a gate, whose function may stand in front of where the gates are parted.
fn sigmoid(graph: &Graph, value: Value) -> Option<Sum> {
    if let Some(sum) = unary(graph, value, Unary::Sigmoid) {
        return gate(graph, sum);
    }
    let Op::Split(split) = graph.op(value.node) else { return None };
    let whole = unary(graph, graph.input_of(value.node, 0)?, Unary::Sigmoid)?;
    let first: usize = split.sizes.get(..value.output)?.iter().sum();
    let mut sum = Sum::default();
    collect(graph, whole, (first, first + split.sizes.get(value.output)?), DEPTH, &mut sum)?;
    (split.axis == 1 && sum.products.len() == 2).then_some(sum)
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
