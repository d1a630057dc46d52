//! Functions of two elements, selection, casts, running sums.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, check_axis, input};
use crate::graph::ValueInfo;
use crate::shape::broadcast;
use crate::tensor::DType;

/// A function of two elements; operands broadcast as in NumPy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    /// True division for floats; for integers it rounds toward zero.
    Div,
    /// Rounds toward negative infinity.
    FloorDiv,
    /// Remainder of [`Binary::FloorDiv`]: has the divisor's sign.
    Mod,
    /// Remainder with the dividend's sign, as in C.
    Fmod,
    Pow,
    Maximum,
    Minimum,
    SquaredDifference,
    Atan2,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// Of truth values, or of the bits of whole numbers.
    And,
    /// Of truth values, or of the bits of whole numbers.
    Or,
    /// Of truth values, or of the bits of whole numbers.
    Xor,
}

impl Binary {
    /// All of them.
    pub const ALL: &[Binary] = &[
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::FloorDiv,
        Binary::Mod,
        Binary::Fmod,
        Binary::Pow,
        Binary::Maximum,
        Binary::Minimum,
        Binary::SquaredDifference,
        Binary::Atan2,
        Binary::Equal,
        Binary::NotEqual,
        Binary::Less,
        Binary::LessEqual,
        Binary::Greater,
        Binary::GreaterEqual,
        Binary::And,
        Binary::Or,
        Binary::Xor,
    ];

    /// Whether the operands may change places.
    pub fn is_commutative(self) -> bool {
        use Binary::*;
        matches!(self, Add | Mul | Maximum | Minimum | SquaredDifference | Equal | NotEqual | And | Or | Xor)
    }

    /// Whether the result is boolean whatever the operands are.
    pub fn is_predicate(self) -> bool {
        use Binary::*;
        matches!(self, Equal | NotEqual | Less | LessEqual | Greater | GreaterEqual)
    }
}

impl Operator for Binary {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "a", Data "b"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        let dtype = if self.is_predicate() { DType::Bool } else { a.dtype };
        Ok(vec![ValueInfo::new(dtype, broadcast(&a.shape, &b.shape)?)])
    }
}

/// `a` where the condition holds, else `b`; all three broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select {}

impl Operator for Select {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "condition", Data "a", Data "b"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (condition, a, b) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let shape = broadcast(&condition.shape, &broadcast(&a.shape, &b.shape)?)?;
        Ok(vec![ValueInfo::new(a.dtype, shape)])
    }
}

/// Another element type; reals are cut off toward zero when they become integers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cast {
    /// The new type.
    pub dtype: DType,
}

impl Operator for Cast {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        Ok(vec![ValueInfo::new(self.dtype, input(inputs, 0)?.shape.clone())])
    }
}

/// Running sum along an axis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CumSum {
    /// The axis.
    pub axis: usize,
    /// Whether an element's own value is left out of its sum.
    pub exclusive: bool,
    /// Whether it runs from the end.
    pub reverse: bool,
}

impl Operator for CumSum {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        check_axis(self.axis, x.shape.rank())?;
        Ok(vec![x.clone()])
    }
}
