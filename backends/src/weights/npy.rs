//! NumPy dictionaries of layers of arrays: a key up to its last dot is the layer, the rest is the array's name.

use std::io::{self, Write};
use std::path::Path;

use modelport_ir::Result;
use modelport_ir::npy::{self, Weights};

use super::Named;
use crate::plan::Param;

pub fn write(out: &mut dyn Write, params: &[Param]) -> io::Result<()> {
    let mut weights = Weights::new();
    for param in params {
        let (layer, name) = param.key.rsplit_once('.').unwrap_or(("", &param.key));
        weights.entry(layer.to_owned()).or_default().insert(name.to_owned(), param.tensor.clone());
    }
    npy::write(out, &weights)
}

pub fn read(path: &Path) -> Result<Vec<Named>> {
    let join = |layer: &str, name: String| if layer.is_empty() { name } else { format!("{layer}.{name}") };
    let weights = npy::read(path)?;
    let layers = weights.into_iter();
    Ok(layers
        .flat_map(|(layer, tensors)| tensors.into_iter().map(move |(name, tensor)| (join(&layer, name), tensor)))
        .collect())
}
