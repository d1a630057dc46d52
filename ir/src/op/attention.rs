//! Attention.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, input, optional};
use crate::graph::ValueInfo;
use crate::shape::{Dim, Shape, broadcast};
use crate::tensor::DType;

/// Scaled dot-product attention (Vaswani et al., 2017): `softmax(query @ keyᵀ * scale + mask) @ value`, with `query`
/// `[…, length, size]`, `key` `[…, others, size]` and `value` `[…, others, width]` of the same leading axes. A `mask` of
/// booleans, `[…, length, others]` or what broadcasts to that, says who looks at whom; one of numbers is added. Made by
/// [`fuse_attention`](crate::pass::fuse_attention), for targets that have it as one function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Factor of the scores.
    pub scale: f32,
    /// Whether nobody looks at what comes later. There is no other mask then.
    pub causal: bool,
}

impl Operator for Attention {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "query", Data "key", Data "value", OptionalParam "mask"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (query, key, value) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let split = |info: &ValueInfo| match info.shape.as_slice() {
            [lead @ .., rows, columns] if !lead.is_empty() => Ok((Shape(lead.to_vec()), rows.clone(), columns.clone())),
            _ => Err(format!("attention takes rank 3 and more, got {}", info.shape)),
        };
        let ((lead, length, size), (of_key, others, key_size), (of_value, values, width)) =
            (split(query)?, split(key)?, split(value)?);
        let fits = |a: &Dim, b: &Dim| a == b || a.known().is_none() || b.known().is_none();
        if lead != of_key || lead != of_value || !fits(&size, &key_size) || !fits(&others, &values) {
            let shapes = format!("{}, {} and {}", query.shape, key.shape, value.shape);
            return Err(format!("query, key and value of shapes {shapes} do not fit each other"));
        }
        if let Some(mask) = optional(inputs, 3) {
            let mut scores = lead.clone();
            scores.extend([length.clone(), others]);
            if self.causal || mask.shape.rank() < 2 || broadcast(&scores, &mask.shape).as_ref() != Ok(&scores) {
                return Err(format!("a mask of shape {} does not fit scores of shape {scores}", mask.shape));
            }
            if mask.dtype != DType::Bool && mask.dtype != query.dtype {
                return Err(format!("a mask of type {} does not fit scores of type {}", mask.dtype, query.dtype));
            }
        }
        let mut shape = lead;
        shape.extend([length, width]);
        Ok(vec![ValueInfo::new(query.dtype, shape)])
    }
}
