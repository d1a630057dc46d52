//! Dense layers and matrix products.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, input, optional};
use crate::graph::ValueInfo;
use crate::shape::{Dim, Shape, broadcast};

/// A dense layer on the last axis: `x @ weights + bias`, `weights` `[in, out]`, `bias` `[out]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dense {}

impl Operator for Dense {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Param "weights", OptionalParam "bias"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (x, w) = (input(inputs, 0)?, input(inputs, 1)?);
        let [features, out] = w.shape.as_slice() else {
            return Err(format!("the weights have shape {}, expected [in, out]", w.shape));
        };
        let mut shape = x.shape.clone();
        match shape.last_mut() {
            Some(last) if last == features || last.known().is_none() || features.known().is_none() => {
                *last = out.clone();
            }
            _ => return Err(format!("weights {} do not take an input {}", w.shape, x.shape)),
        }
        if let Some(bias) = optional(inputs, 2)
            && bias.shape != Shape(vec![out.clone()])
        {
            return Err(format!("the bias has shape {}, expected [{out}]", bias.shape));
        }
        Ok(vec![ValueInfo::new(x.dtype, shape)])
    }
}

/// The product of matrices in the last two axes; leading axes broadcast. Both have at least rank 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatMul {
    /// Whether the last two axes of `a` change places first.
    pub transpose_a: bool,
    /// Whether the last two axes of `b` change places first.
    pub transpose_b: bool,
}

impl Operator for MatMul {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "a", Data "b"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        let split = |info: &ValueInfo, transposed: bool| match info.shape.as_slice() {
            [lead @ .., x, y] if transposed => Ok((Shape(lead.to_vec()), y.clone(), x.clone())),
            [lead @ .., x, y] => Ok((Shape(lead.to_vec()), x.clone(), y.clone())),
            _ => Err(format!("a matrix product takes rank 2 and more, got {}", info.shape)),
        };
        let (lead_a, rows, inner_a) = split(a, self.transpose_a)?;
        let (lead_b, inner_b, columns) = split(b, self.transpose_b)?;
        if let (Dim::Known(x), Dim::Known(y)) = (&inner_a, &inner_b)
            && x != y
        {
            return Err(format!("inner sizes of {} and {} differ: {x} and {y}", a.shape, b.shape));
        }
        let mut shape = broadcast(&lead_a, &lead_b)?;
        shape.extend([rows, columns]);
        Ok(vec![ValueInfo::new(a.dtype, shape)])
    }
}

/// Einstein summation, in explicit form (`abc,cd->abd`), without ellipsis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Einsum {
    /// The equation.
    pub equation: String,
}

impl Operator for Einsum {
    fn slots(&self) -> &'static [Slot] {
        slots![Variadic "operand"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let bad = || format!("the equation '{}' does not fit its operands", self.equation);
        let (left, right) = self.equation.split_once("->").ok_or_else(bad)?;
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != inputs.len() {
            return Err(bad());
        }
        let mut sizes = std::collections::BTreeMap::new();
        for (index, term) in terms.iter().enumerate() {
            let operand = input(inputs, index)?;
            if term.chars().count() != operand.shape.rank() {
                return Err(bad());
            }
            for (letter, dim) in term.chars().zip(operand.shape.iter()) {
                let old = sizes.insert(letter, dim.clone());
                match (old, dim) {
                    (Some(Dim::Known(a)), Dim::Known(b)) if a != *b => return Err(bad()),
                    (Some(old @ Dim::Known(_)), _) => drop(sizes.insert(letter, old)),
                    _ => {}
                }
            }
        }
        let shape =
            right.chars().map(|letter| sizes.get(&letter).cloned().ok_or_else(bad)).collect::<Result<_, _>>()?;
        Ok(vec![ValueInfo::new(input(inputs, 0)?.dtype, shape)])
    }
}
