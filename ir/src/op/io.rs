//! Where values come from: inputs, constants, fills, ranges, sizes; and source operators that nobody has translated.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Operator, Slot, optional};
use crate::graph::ValueInfo;
use crate::shape::{Dim, Shape};
use crate::tensor::{DType, Tensor};

/// An input of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Element type.
    pub dtype: DType,
    /// Shape; the batch is a symbol.
    pub shape: Shape,
}

impl Operator for Input {
    fn slots(&self) -> &'static [Slot] {
        &[]
    }
    fn infer(&self, _: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        Ok(vec![ValueInfo::new(self.dtype, self.shape.clone())])
    }
}

/// A tensor: a weight where it enters a parameter slot, else a number in the computation. Named by its variable.
#[derive(Clone, Debug)]
pub struct Constant {
    /// The elements, read when needed.
    pub tensor: Tensor,
    /// Whether it was a variable that training changes.
    pub trainable: bool,
}

impl Serialize for Constant {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a constant is saved as a tensor, not as attributes"))
    }
}

impl<'de> Deserialize<'de> for Constant {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("a constant is saved as a tensor, not as attributes"))
    }
}

impl Operator for Constant {
    fn slots(&self) -> &'static [Slot] {
        &[]
    }
    fn infer(&self, _: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        Ok(vec![ValueInfo::new(self.tensor.dtype(), Shape::known(&self.tensor.shape()))])
    }
}

/// A value of one number everywhere. Free dimensions are those of the `like` input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    /// Shape of the result.
    pub shape: Shape,
    /// The number.
    pub value: f32,
    /// Element type of the result.
    pub dtype: DType,
}

impl Operator for Fill {
    fn slots(&self) -> &'static [Slot] {
        slots![Like "like"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        check_like(&self.shape, inputs, 0)?;
        Ok(vec![ValueInfo::new(self.dtype, self.shape.clone())])
    }
}

/// `start, start + delta, …` before `limit`, which may be free (a dimension of the `like` input).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// First number.
    pub start: i64,
    /// Where it ends (exclusive).
    pub limit: Dim,
    /// Step; 1 when the limit is free.
    pub delta: i64,
    /// Element type.
    pub dtype: DType,
}

impl Operator for Range {
    fn slots(&self) -> &'static [Slot] {
        slots![Like "like"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        check_like(&Shape(vec![self.limit.clone()]), inputs, 0)?;
        let size = match &self.limit {
            Dim::Known(limit) if self.delta != 0 => {
                let span = (*limit as i64).saturating_sub(self.start);
                let reach = span.saturating_add(self.delta).saturating_sub(self.delta.signum());
                let count = reach.checked_div(self.delta).unwrap_or(0);
                Dim::Known(usize::try_from(count).unwrap_or(0))
            }
            limit if self.start == 0 && self.delta == 1 => limit.clone(),
            _ => return Err("a range to a free size starts at 0 and has step 1".to_owned()),
        };
        Ok(vec![ValueInfo::new(self.dtype, Shape(vec![size]))])
    }
}

/// The sizes of dimensions as numbers: an integer vector, for shape arithmetic that nothing else could take up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dims {
    /// The dimensions; free ones are those of the `like` input.
    pub dims: Shape,
    /// Element type of the result.
    pub dtype: DType,
}

impl Operator for Dims {
    fn slots(&self) -> &'static [Slot] {
        slots![Like "like"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        check_like(&self.dims, inputs, 0)?;
        Ok(vec![ValueInfo::new(self.dtype, Shape::known(&[self.dims.rank()]))])
    }
}

/// An operator of the source that has no translation yet: random numbers in front of a dropout, say, until a pass
/// takes the pattern. One that is left at the end is an error that names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Foreign {
    /// The source's name of the operator.
    pub op: String,
    /// Element type of its only output.
    pub dtype: DType,
    /// Shape of its only output.
    pub shape: Shape,
}

impl Operator for Foreign {
    fn slots(&self) -> &'static [Slot] {
        slots![Like "input", Like "input"]
    }
    fn infer(&self, _: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        Ok(vec![ValueInfo::new(self.dtype, self.shape.clone())])
    }
}

/// Fails unless every symbol in `shape` is a dimension (of factor 1) of the `like` input in `slot`.
pub(super) fn check_like(shape: &Shape, inputs: &[Option<&ValueInfo>], slot: usize) -> Result<(), String> {
    for dim in shape.iter() {
        match dim {
            Dim::Known(_) => {}
            Dim::Unknown => return Err(format!("the size {shape} is not known")),
            Dim::Symbol { name, .. } => {
                let known = optional(inputs, slot).is_some_and(|like| {
                    like.shape.iter().any(|d| matches!(d, Dim::Symbol { name: n, .. } if n == name))
                });
                if !known {
                    return Err(format!("nothing tells the free size {name} of {shape}"));
                }
            }
        }
    }
    Ok(())
}
