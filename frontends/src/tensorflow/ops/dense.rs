//! Matrix products and what comes with them.

use std::collections::HashSet;

use modelport_ir::{Result, Shape, Value, op};

use super::call::one;
use super::conv::add_channels;
use super::{Call, Family};
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("MatMul", |call| product(call, ["transpose_a", "transpose_b"])),
    ("BatchMatMul", |call| product(call, ["adj_x", "adj_y"])),
    ("BatchMatMulV2", |call| product(call, ["adj_x", "adj_y"])),
    ("BatchMatMulV3", |call| product(call, ["adj_x", "adj_y"])),
    ("SparseMatMul", |call| product(call, ["transpose_a", "transpose_b"])),
    ("BiasAdd", bias_add),
    ("BiasAddV1", bias_add),
    ("Einsum", einsum),
];

/// A product with a matrix that does not depend on the inputs is a dense layer. A matrix that is read elsewhere too stays as it is, so that it
/// stays one weight.
fn product(call: &mut Call, flags: [&str; 2]) -> Result<Vec<Entry>> {
    let [transpose_a, transpose_b] = flags.map(|flag| call.node.flag(flag));
    let matrix = call.shape(1)?.rank() == 2;
    let shared = call.lower.readers(call.input(1)?) > 1;
    let (a, b) = (call.input(0)?, call.input(1)?);
    let data = !call.lower.is_fixed(a);
    if call.lower.is_fixed(b) && matrix && data && !(transpose_b && shared) {
        let (mut x, shape) = call.shaped(0)?;
        if transpose_a {
            let mut perm: Vec<usize> = (0..shape.rank()).collect();
            let rank = perm.len();
            if rank >= 2 {
                perm.swap(rank - 1, rank - 2);
            }
            x = call.helper("transpose", op::Transpose { perm }, &[x])?;
        }
        let weights = match transpose_b.then(|| call.view(1, |tensor| tensor.permuted(&[1, 0]))).transpose()? {
            Some(Some(Entry::Constant(tensor, name))) => call.lower.constant(&name, tensor),
            Some(None) => {
                let matrix = call.data(1)?;
                call.helper("weights", op::Transpose { perm: vec![1, 0] }, &[matrix])?
            }
            _ => call.data(1)?,
        };
        return Ok(one(call.add(op::Dense {}, &[x, weights])?));
    }
    let (a, b) = (call.data(0)?, call.data(1)?);
    Ok(one(call.add(op::MatMul { transpose_a, transpose_b }, &[a, b])?))
}

fn bias_add(call: &mut Call) -> Result<Vec<Entry>> {
    let x = call.data(0)?;
    Ok(one(add_channels(call, x, 1)?))
}

/// Brings an equation into explicit form without ellipsis.
fn einsum(call: &mut Call) -> Result<Vec<Entry>> {
    let equation: String =
        call.node.text("equation").unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
    let values = (0..call.inputs.len()).map(|slot| call.data(slot)).collect::<Result<Vec<Value>>>()?;
    let shapes: Vec<Shape> = values.iter().map(|value| call.lower.graph.shape(*value).clone()).collect();
    let equation = explicit(&equation, &shapes).map_err(|message| call.fail(message))?;
    Ok(one(call.add(op::Einsum { equation }, &values)?))
}

fn explicit(equation: &str, shapes: &[Shape]) -> std::result::Result<String, String> {
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation, None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != shapes.len() {
        return Err(format!("the equation '{equation}' has {} operands", terms.len()));
    }
    let used: HashSet<char> = equation.chars().collect();
    let free: Vec<char> = ('a'..='z').chain('A'..='Z').filter(|letter| !used.contains(letter)).collect();
    let mut widest = 0;
    for (term, shape) in terms.iter().zip(shapes) {
        if term.contains("...") {
            let covered = shape.rank().checked_sub(term.len() - 3);
            widest = widest.max(covered.ok_or_else(|| format!("'{term}' has more axes than {shape}"))?);
        }
    }
    let Some(names) = free.get(..widest) else { return Err(format!("too many axes for '{equation}'")) };
    // An ellipsis of fewer axes is the last ones: it broadcasts.
    let letters = |count: usize| names[widest - count..].iter().collect::<String>();
    let mut expanded = Vec::new();
    for (term, shape) in terms.iter().zip(shapes) {
        let count = if term.contains("...") { shape.rank() + 3 - term.len() } else { 0 };
        expanded.push(term.replacen("...", &letters(count), 1));
    }
    let result = match right {
        Some(right) => right.replacen("...", &letters(widest), 1),
        None => {
            // What occurs once, in the order of the alphabet, behind the ellipsis.
            let mut once: Vec<char> =
                left.chars().filter(|c| c.is_alphabetic() && left.matches(*c).count() == 1).collect();
            once.sort_unstable();
            letters(widest) + &once.into_iter().collect::<String>()
        }
    };
    Ok(format!("{}->{result}", expanded.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_become_explicit() {
        let shapes = [Shape::known(&[2, 3, 4]), Shape::known(&[4, 5])];
        assert_eq!(explicit("...j,jk", &shapes).unwrap(), "abj,jk->abk");
        assert_eq!(explicit("ij,jk", &[Shape::known(&[2, 3]), Shape::known(&[3, 4])]).unwrap(), "ij,jk->ik");
        assert_eq!(explicit("a...,b->...ab", &[Shape::known(&[2, 3]), Shape::known(&[4])]).unwrap(), "ac,b->cab");
        assert!(explicit("abcd,b->a", &[Shape::known(&[2])]).is_err());
    }
}
