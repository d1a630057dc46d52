//! Recognises scaled dot-product attention written out, for targets that have it as one function.
//!
//! ```text
//! Softmax(query @ keyᵀ * scale) @ value                                 Attention { scale }
//! Softmax(query @ keyᵀ * scale + mask) @ value                          … with that mask
//! Softmax(Select(mask, query @ keyᵀ * scale, -inf)) @ value             … with that mask, of booleans
//! Softmax(Select(column <= row, query @ keyᵀ * scale, -inf)) @ value    … causal
//! ```
//!
//! All attentions of a network or none: where one is computed otherwise (with dropout between, in windows), a reader
//! had better find the others alike.

use super::pattern::{binary, is_regrouping, operands, orders, with_number};
use super::rewrite::{Scopes, backward, fuse};
use crate::diagnostic::Result;
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Attention, Binary, MatMul, Op, Softmax, Transpose, Unary};
use crate::shape::Dim;
use crate::tensor::DType;

/// What a mask puts in place of a score counts as minus infinity from here: no score makes up for it.
const EXCLUDED: f64 = -1e9;

/// Operators between a product and the softmax over it.
const DEPTH: usize = 8;

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    let attends =
        |&id: &NodeId| weighs(graph, id).is_some_and(|(softmax, _)| comes_from_product(graph, softmax, DEPTH));
    let all: Vec<NodeId> = graph.ids().into_iter().filter(attends).collect();
    if all.iter().any(|&id| find(graph, id).is_none()) {
        return Ok(0);
    }
    let scopes = Scopes::of(graph);
    backward(graph, |graph, id| {
        let Some(found) = find(graph, id) else { return Ok(false) };
        let key = match found.turned_key {
            true => turned(graph, found.key)?,
            false => found.key,
        };
        let mask = match found.mask {
            Mask::Given(mask) => Some(mask),
            Mask::Opposite(mask) => Some(opposite(graph, mask)?),
            Mask::None | Mask::Causal => None,
        };
        let op = Attention { scale: found.scale as f32, causal: matches!(found.mask, Mask::Causal) };
        fuse(graph, &scopes, id, op, &[Some(found.query), Some(key), Some(found.value), mask])?;
        Ok(true)
    })
}

enum Mask {
    None,
    Causal,
    Given(Value),
    /// True where the other masks are false.
    Opposite(Value),
}

struct Found {
    query: Value,
    key: Value,
    /// Whether the key has its last two axes the other way round.
    turned_key: bool,
    value: Value,
    scale: f64,
    mask: Mask,
}

/// Softmax over the last axis and the values that it weighs.
fn weighs(graph: &Graph, id: NodeId) -> Option<(Value, Value)> {
    let Op::MatMul(MatMul { transpose_a: false, transpose_b: false }) = graph.op(id) else { return None };
    let (mut weights, value) = operands(graph, id.into())?;
    while let Op::Dropout(_) = graph.op(weights.node) {
        weights = graph.input_of(weights.node, 0)?;
    }
    match graph.op(weights.node) {
        Op::Softmax(Softmax { axis }) if axis + 1 == graph.shape(weights).rank() => Some((weights, value)),
        _ => None,
    }
}

/// Whether scores are a product, whatever is done to it before the softmax.
fn comes_from_product(graph: &Graph, scores: Value, budget: usize) -> bool {
    let op = graph.op(scores.node);
    let passes = is_regrouping(op) || matches!(op, Op::Softmax(_) | Op::Binary(_) | Op::Select(_));
    let through =
        || graph.inputs_of(scores.node).into_iter().flatten().any(|x| comes_from_product(graph, x, budget - 1));
    matches!(op, Op::MatMul(_)) || (budget > 0 && passes && through())
}

fn find(graph: &Graph, id: NodeId) -> Option<Found> {
    let (weights, value) = weighs(graph, id)?;
    let together = |value: Value| graph.uses(value) == 1 && graph.module_of(value.node) == graph.module_of(id);
    // Dropout in between is a layer of its own.
    if graph.input_of(id, 0) != Some(weights) || !together(weights) {
        return None;
    }
    let scores = graph.input_of(weights.node, 0).filter(|&scores| together(scores))?;
    let masked = masked(graph, scores).into_iter().find_map(|(scores, mask)| {
        (scores == weights || together(scores)).then(|| product(graph, scores)).flatten().map(|product| (product, mask))
    });
    let ((product, mut scale), mask) = masked?;
    if !together(product) {
        return None;
    }
    let Op::MatMul(MatMul { transpose_a: false, transpose_b }) = graph.op(product.node) else { return None };
    let (mut query, mut key) = operands(graph, product)?;
    for operand in [&mut query, &mut key] {
        if let Some((x, factor)) = scaled(graph, *operand)
            && together(*operand)
        {
            scale *= factor;
            *operand = x;
        }
    }
    let lead = |value: Value| graph.shape(value).split_last_chunk::<2>().map(|(lead, _)| lead.to_vec());
    let (of_query, of_key, of_value) = (lead(query)?, lead(key)?, lead(value)?);
    let alike = !of_query.is_empty() && of_query == of_key && of_query == of_value;
    let fits = match mask {
        Mask::Given(mask) | Mask::Opposite(mask) => fits(graph, mask, product),
        Mask::None | Mask::Causal => true,
    };
    (alike && fits).then_some(Found { query, key, turned_key: !transpose_b, value, scale, mask })
}

/// Whether a mask broadcasts to the scores, and is of a type that counts as one.
fn fits(graph: &Graph, mask: Value, scores: Value) -> bool {
    let (shape, of) = (graph.shape(mask), graph.shape(scores));
    let axes = shape.iter().rev().zip(of.iter().rev());
    let dtype = graph.info(mask).dtype;
    (2..=of.rank()).contains(&shape.rank())
        && axes.into_iter().all(|(a, b)| a == b || *a == Dim::Known(1))
        && (dtype == DType::Bool || dtype == graph.info(scores).dtype)
}

/// `x` and `factor` of `x * factor`, or of a quotient.
fn scaled(graph: &Graph, value: Value) -> Option<(Value, f64)> {
    let inverse =
        || with_number(graph, value, Binary::Div).filter(|(x, _)| operands(graph, value).map(|o| o.0) == Some(*x));
    with_number(graph, value, Binary::Mul).or_else(|| inverse().map(|(x, number)| (x, 1.0 / number)))
}

/// The product that scores come from, and its factor.
fn product(graph: &Graph, scores: Value) -> Option<(Value, f64)> {
    let (product, factor) = scaled(graph, scores).unwrap_or((scores, 1.0));
    matches!(graph.op(product.node), Op::MatMul(_)).then_some((product, factor))
}

/// What scores may be made of: other scores and a mask.
fn masked(graph: &Graph, scores: Value) -> Vec<(Value, Mask)> {
    let mut all = vec![(scores, Mask::None)];
    if let Op::Select(_) = graph.op(scores.node) {
        let input = |slot: usize| graph.input_of(scores.node, slot);
        if let (Some(mask), Some(yes), Some(no)) = (input(0), input(1), input(2)) {
            let limit = if looks_somewhere(graph, mask) { EXCLUDED } else { f64::NEG_INFINITY };
            let excluded = |value: Value| graph.scalar(value).is_some_and(|number| number <= limit);
            if excluded(no) {
                all.push((yes, if is_causal(graph, mask) { Mask::Causal } else { Mask::Given(mask) }));
            } else if excluded(yes) {
                all.push((no, Mask::Opposite(mask)));
            }
        }
    }
    for (inner, mask) in orders(graph, scores, Binary::Add) {
        all.push((inner, if is_causal(graph, mask) { Mask::Causal } else { Mask::Given(mask) }));
    }
    all
}

/// Whether a mask leaves something to look at to everyone. Where it does not, what is put in place of the scores
/// decides about the weights.
fn looks_somewhere(graph: &Graph, mask: Value) -> bool {
    let Some(truth) = elements(graph, mask) else { return is_causal(graph, mask) };
    let columns = graph.shape(mask).last().and_then(Dim::known).unwrap_or(0);
    columns > 0 && truth.chunks(columns).all(|row| row.iter().any(|&seen| seen != 0.0))
}

/// The elements of a constant that is not too large to be looked at.
fn elements(graph: &Graph, mask: Value) -> Option<Vec<f64>> {
    graph.tensor(mask).filter(|mask| mask.numel() <= 1 << 24)?.to_f64().ok()
}

/// Whether a mask hides from each what comes later and no more. One that the source keeps in its state is a part of
/// the network that its files have, and stays.
fn is_causal(graph: &Graph, mask: Value) -> bool {
    if let Some(rule) = binary(graph, mask, Binary::LessEqual) {
        return is_distance(graph, rule);
    }
    let sizes: Option<Vec<usize>> = graph.shape(mask).iter().map(Dim::known).collect();
    let Some([lead @ .., rows, columns]) = sizes.as_deref() else { return false };
    if rows != columns || lead.iter().any(|&size| size != 1) || graph.is_state(mask) {
        return false;
    }
    let Some(numbers) = elements(graph, mask) else { return false };
    let boolean = graph.info(mask).dtype == DType::Bool;
    let fits = |(i, &number): (usize, &f64)| match (i % columns <= i / columns, boolean) {
        (seen, true) => (number != 0.0) == seen,
        (true, false) => number == 0.0,
        (false, false) => number <= EXCLUDED,
    };
    numbers.iter().enumerate().all(fits)
}

/// `column - row <= 0` for places that count from 0.
fn is_distance(graph: &Graph, (distance, limit): (Value, Value)) -> bool {
    let counts = |value: Value, axes: usize| {
        let source = super::pattern::regrouped(graph, value);
        let range = matches!(graph.op(source.node), Op::Range(range) if range.start == 0 && range.delta == 1);
        let ends = graph.shape(value).iter().rev().skip(axes).all(|dim| *dim == Dim::Known(1));
        range && ends && (axes == 1 || graph.shape(value).last() == Some(&Dim::Known(1)))
    };
    let Some((column, row)) = binary(graph, distance, Binary::Sub) else { return false };
    graph.scalar(limit) == Some(0.0) && counts(column, 1) && counts(row, 2)
}

/// The value with its last two axes changed.
fn turned(graph: &mut Graph, value: Value) -> Result<Value> {
    let rank = graph.shape(value).rank();
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    let mut source = value;
    if let Op::Transpose(first) = graph.op(value.node)
        && let Some(x) = graph.input_of(value.node, 0)
    {
        perm = perm.into_iter().map(|axis| first.perm[axis]).collect();
        source = x;
    }
    if perm.is_sorted() {
        return Ok(source);
    }
    let name = graph.node(value.node).name.clone();
    let turned = graph.add(Transpose { perm }, &format!("{name}/turned"), &[source])?;
    graph.place_beside(turned, value.node);
    Ok(turned.into())
}

/// The mask that is true where this one is false.
fn opposite(graph: &mut Graph, mask: Value) -> Result<Value> {
    if let Op::Unary(Unary::Not) = graph.op(mask.node)
        && let Some(x) = graph.input_of(mask.node, 0)
    {
        return Ok(x);
    }
    let name = graph.node(mask.node).name.clone();
    let equality = match graph.op(mask.node) {
        Op::Binary(Binary::Equal) => Some(Binary::NotEqual),
        Op::Binary(Binary::NotEqual) => Some(Binary::Equal),
        _ => None,
    };
    let node = match (equality, operands(graph, mask)) {
        (Some(op), Some((a, b))) => graph.add(op, &format!("{name}/opposite"), &[a, b])?,
        _ => graph.add(Unary::Not, &format!("{name}/opposite"), &[mask])?,
    };
    graph.place_beside(node, mask.node);
    Ok(node.into())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Net, the};
    use super::*;
    use crate::op::{Range, Select, Unsqueeze};
    use crate::tensor::Tensor;

    /// Query, key and value of 2 heads, with a free batch.
    fn heads(net: &mut Net, length: usize, others: usize) -> [Value; 3] {
        let x = net.x(&[6]);
        [length, others, others].map(|length| {
            let w = net.weight("w", &[2, 6, length * 4]);
            let x = net.op(Unsqueeze { axes: vec![1, 2] }, &[x]);
            let y = net.op(MatMul { transpose_a: false, transpose_b: false }, &[x, w]);
            let shape = ["N", "2", &length.to_string(), "4"].map(|dim| Dim::parse(dim).unwrap());
            net.reshape(y, shape.into_iter().collect())
        })
    }

    fn scores(net: &mut Net, query: Value, key: Value) -> Value {
        let product = net.op(MatMul { transpose_a: false, transpose_b: true }, &[query, key]);
        net.times(0.5, product)
    }

    fn weighed(net: &mut Net, scores: Value, value: Value) -> Value {
        let weights = net.op(Softmax { axis: 3 }, &[scores]);
        net.op(MatMul { transpose_a: false, transpose_b: false }, &[weights, value])
    }

    fn hidden(net: &mut Net, mask: Value, scores: Value, number: f32) -> Value {
        let number = net.num(number);
        net.op(Select {}, &[mask, scores, number])
    }

    fn found(net: Net, y: Value) -> (Attention, bool) {
        let graph = net.check(&[y], run);
        let id = the(&graph, "Attention");
        let Op::Attention(op) = graph.op(id) else { panic!("no attention") };
        (op.clone(), graph.input_of(id, 3).is_some())
    }

    #[test]
    fn plain_and_with_a_mask_that_is_added() {
        for with_mask in [false, true] {
            let mut net = Net::new();
            let [query, key, value] = heads(&mut net, 3, 5);
            let mut scores = scores(&mut net, query, key);
            if with_mask {
                let mask = net.weight("mask", &[3, 5]);
                scores = net.add(mask, scores);
            }
            let y = weighed(&mut net, scores, value);
            assert_eq!(found(net, y), (Attention { scale: 0.5, causal: false }, with_mask));
        }
    }

    #[test]
    fn a_factor_of_either_side_and_a_key_that_is_turned() {
        let mut net = Net::new();
        let [query, key, value] = heads(&mut net, 3, 5);
        let (query, key) = (net.times(0.5, query), net.times(0.5, key));
        let key = net.op(Transpose { perm: vec![0, 1, 3, 2] }, &[key]);
        let product = net.op(MatMul { transpose_a: false, transpose_b: false }, &[query, key]);
        let four = net.num(4.0);
        let scores = net.div(product, four);
        let y = weighed(&mut net, scores, value);
        assert_eq!(found(net, y).0.scale, 0.125);
    }

    #[test]
    fn causal_by_constants_and_by_places() {
        let below = |yes: f64, no: f64| (0..9).map(move |i| if i % 3 <= i / 3 { yes } else { no });
        for kind in 0..3 {
            let mut net = Net::new();
            let [query, key, value] = heads(&mut net, 3, 3);
            let mut scores = scores(&mut net, query, key);
            if kind == 0 {
                let mask = Tensor::from_f64(DType::Float32, &[1, 3, 3], below(0.0, f64::NEG_INFINITY));
                let mask = net.graph.constant("mask", mask);
                scores = net.add(scores, mask);
            } else if kind == 1 {
                let mask = net.graph.constant("mask", Tensor::from_f64(DType::Bool, &[3, 3], below(1.0, 0.0)));
                scores = hidden(&mut net, mask, scores, -1e10);
            } else {
                let range = Range { start: 0, limit: Dim::Known(3), delta: 1, dtype: DType::Int64 };
                let column = net.op(range, &[]);
                let row = net.op(Unsqueeze { axes: vec![1] }, &[column]);
                let distance = net.sub(column, row);
                let zero = net.graph.constant("zero", Tensor::from_i64(&[], &[0]));
                let mask = net.bin(Binary::LessEqual, distance, zero);
                scores = hidden(&mut net, mask, scores, f32::NEG_INFINITY);
            }
            let y = weighed(&mut net, scores, value);
            assert_eq!(found(net, y), (Attention { scale: 0.5, causal: true }, false), "{kind}");
        }
    }

    #[test]
    fn a_mask_of_what_is_hidden() {
        let mut net = Net::new();
        let [query, key, value] = heads(&mut net, 2, 3);
        let scores = scores(&mut net, query, key);
        let bits = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        let mask = net.graph.constant("mask", Tensor::from_f64(DType::Bool, &[2, 3], bits));
        let number = net.num(f32::NEG_INFINITY);
        let scores = net.op(Select {}, &[mask, number, scores]);
        let y = weighed(&mut net, scores, value);
        assert_eq!(found(net, y), (Attention { scale: 0.5, causal: false }, true));
    }

    #[test]
    fn near_misses_stay() {
        for kind in 0..4 {
            let mut net = Net::new();
            let [query, key, value] = heads(&mut net, 3, 3);
            let mut first = scores(&mut net, query, key);
            let mut outputs = Vec::new();
            match kind {
                // Who sees nothing at all sees the mean, with a number that is not infinite.
                0 => {
                    let none = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
                    let mask = net.graph.constant("mask", Tensor::from_f64(DType::Bool, &[3, 3], none));
                    first = hidden(&mut net, mask, first, -1e10);
                }
                // The weights are read elsewhere.
                1 => outputs.push(net.op(Softmax { axis: 3 }, &[first])),
                // Another axis.
                2 => {
                    let weights = net.op(Softmax { axis: 2 }, &[first]);
                    outputs.push(net.op(MatMul { transpose_a: false, transpose_b: false }, &[weights, value]));
                }
                // One of two is written in another way.
                _ => {
                    let other = scores(&mut net, key, query);
                    let doubled = net.add(other, other);
                    outputs.push(weighed(&mut net, doubled, value));
                }
            }
            if kind == 1 {
                let weights = outputs[0];
                outputs.push(net.op(MatMul { transpose_a: false, transpose_b: false }, &[weights, value]));
            } else if kind != 2 {
                outputs.push(weighed(&mut net, first, value));
            }
            let ops = net.ops(&outputs, run);
            assert!(!ops.contains(&"Attention".to_owned()), "{kind}: {ops:?}");
        }
    }
}
