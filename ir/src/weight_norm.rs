//! Weights that the source keeps as a direction and a length, and multiplies out whenever it runs.

use crate::diagnostic::{Error, Result};
use crate::tensor::Tensor;

/// `length * direction / |direction|`, where the norm is over all axes but one.
#[derive(Clone, Debug)]
pub struct WeightNorm {
    /// The axis that the norm is not over; none if it is over all.
    pub axis: Option<usize>,
    /// The lengths, as the source has them.
    pub length: Entry,
    /// The direction, as the source has it.
    pub direction: Entry,
}

/// An entry of the source's state dict.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its elements.
    pub tensor: Tensor,
}

/// How the keys of the two parts end, behind the path of their module: the length's, and the direction's.
pub const ENDINGS: [[&str; 2]; 2] =
    [["parametrizations.weight.original0", "parametrizations.weight.original1"], ["weight_g", "weight_v"]];

impl Entry {
    fn values(&self) -> Result<Vec<f64>> {
        self.tensor.to_f64().map_err(|error| Error::new(format!("can't be read: {error}")).at_node(&self.key))
    }
}

impl WeightNorm {
    /// The key that the weight itself would have, if the keys of its parts are those of PyTorch's functions.
    pub fn key(&self) -> Option<String> {
        ENDINGS.iter().find_map(|[length, direction]| {
            let path = self.length.key.strip_suffix(length)?;
            let whole = path.is_empty() || path.ends_with('.');
            (whole && self.direction.key.strip_suffix(direction) == Some(path)).then(|| format!("{path}weight"))
        })
    }

    /// The weight. The direction is read for its norms, and stays where it is.
    ///
    /// # Errors
    /// When the parts do not fit each other, or can't be read.
    pub fn weight(&self) -> Result<Tensor> {
        let direction = &self.direction.tensor;
        let [lengths, values] = [self.length.values()?, self.direction.values()?];
        let shape = direction.shape();
        let (axis, count) = match self.axis {
            Some(axis) => (axis, shape.get(axis).copied().unwrap_or(0)),
            None => (0, 1),
        };
        if lengths.len() != count {
            let message = format!("{} has {} lengths, expected {count}", self.length.key, lengths.len());
            return Err(Error::new(message));
        }
        let inner: usize = shape.iter().skip(axis + 1).product();
        let mut squares = vec![0.0; count];
        for (place, value) in values.into_iter().enumerate() {
            if let Some(sum) = squares.get_mut(place / inner.max(1) % count.max(1)) {
                *sum += value * value;
            }
        }
        let factors = lengths.iter().zip(&squares).map(|(length, squares)| length / squares.sqrt());
        let factors: Vec<f64> = match self.axis {
            Some(_) => factors.collect(),
            None => factors.cycle().take(shape.first().copied().unwrap_or(0)).collect(),
        };
        direction.scaled(axis, &factors).map_err(Error::new)
    }
}
