//! NumPy dictionaries of layers of arrays: a key up to its last dot (PyTorch) or slash (Keras) is the layer, the rest is
//! the array's name.

use std::io::{self, Write};

use modelport_ir::npy::{self, Weights};

use crate::plan::Param;

pub fn write(out: &mut dyn Write, params: &[Param]) -> io::Result<()> {
    let mut weights = Weights::new();
    for param in params {
        let (layer, name) =
            param.key.rsplit_once('/').or_else(|| param.key.rsplit_once('.')).unwrap_or(("", &param.key));
        weights.entry(layer.to_owned()).or_default().insert(name.to_owned(), param.tensor.clone());
    }
    npy::write(out, &weights)
}
