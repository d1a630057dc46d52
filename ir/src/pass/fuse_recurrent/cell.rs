//! One step of a recurrent layer: which cell it is, and what enters its gates.

use super::super::pattern::{binary, number, orders, unary};
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
    pub(super) h: Value,
    /// The cell state, and that of the step before.
    pub(super) c: Option<(Value, Value)>,
    pub(super) gates: Vec<Sum>,
}

/// The step that ends in the hidden state `h`.
pub(super) fn step(graph: &Graph, h: Value) -> Option<Step> {
    if graph.shape(h).rank() != 2 {
        return None;
    }
    if let Some(sum) = unary(graph, h, Unary::Tanh) {
        let gate = gate(graph, sum)?;
        return Some(Step { cell: Cell::Tanh, h, c: None, gates: vec![gate] });
    }
    if let Some(gates) = gru(graph, h) {
        return Some(Step { cell: Cell::Gru, h, c: None, gates });
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
                return Some(Step { cell: Cell::Lstm, h, c: Some((c, before)), gates });
            }
        }
    }
    None
}

/// The gates of `h = z * h + (1 - z) * tanh(x' + r * h')`: `r`, `z`, and the new state, whose second product is that
/// of the state.
fn gru(graph: &Graph, h: Value) -> Option<Vec<Sum>> {
    orders(graph, h, Binary::Add).into_iter().find_map(|(kept, new)| {
        orders(graph, kept, Binary::Mul).into_iter().find_map(|(update, before)| {
            let z = unary(graph, update, Unary::Sigmoid)?;
            let rest = |value: Value| {
                binary(graph, value, Binary::Sub).is_some_and(|(one, z)| z == update && number(graph, one) == Some(1.0))
            };
            let (_, new) = orders(graph, new, Binary::Mul).into_iter().find(|(left, _)| rest(*left))?;
            orders(graph, unary(graph, new, Unary::Tanh)?, Binary::Add).into_iter().find_map(|(input, gated)| {
                orders(graph, gated, Binary::Mul).into_iter().find_map(|(reset, state)| {
                    let r = unary(graph, reset, Unary::Sigmoid)?;
                    let (input, state) = (sum(graph, input)?, sum(graph, state)?);
                    let ([x], [(source, block)]) = (input.products.as_slice(), state.products.as_slice()) else {
                        return None;
                    };
                    let products = vec![*x, (*source, *block)];
                    let new = Sum { products, bias: input.bias, state_bias: state.bias };
                    (*source == before).then_some(vec![gate(graph, r)?, gate(graph, z)?, new])
                })
            })
        })
    })
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
