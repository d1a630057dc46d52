//! Writing at computed places.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, check_axis, input};
use crate::graph::ValueInfo;

/// `x` with elements of `source` at the places along `axis` that `index` says: written there, or added. With several
/// elements for one place all are added; which one is written is not said. A number may be written everywhere. PyTorch's
/// `scatter`, `index_copy` and `index_fill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scatter {
    /// The axis of `x`.
    pub axis: usize,
    /// Whether `index` says a place for every element of `source` and has its shape, that of `x` on the other axes;
    /// else it is a list, of one place for a whole slice of `source`.
    pub elements: bool,
    /// Adds to what is there.
    pub add: bool,
}

impl Operator for Scatter {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x", Data "index", Data "source"]
    }

    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let (x, index, source) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        check_axis(self.axis, x.shape.rank())?;
        let mut expected = x.shape.clone();
        let along = if self.elements { self.axis } else { 0 };
        let fits_index = index.shape.rank() == if self.elements { expected.rank() } else { 1 };
        if let Some(count) = index.shape.get(along).filter(|_| fits_index) {
            expected[self.axis] = count.clone();
        }
        let fits_source = source.shape == expected || (source.shape.rank() == 0 && !self.add);
        if !fits_index || !fits_source || (self.elements && index.shape != expected) {
            return Err(format!("writes {} into {} at places {}", source.shape, x.shape, index.shape));
        }
        if source.dtype != x.dtype {
            return Err(format!("writes {} into {}", source.dtype, x.dtype));
        }
        Ok(vec![x.clone()])
    }
}
