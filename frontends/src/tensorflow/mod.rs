//! TensorFlow: graphs (meta graphs, frozen graphs) and checkpoints, and their way into the neutral graph.
//!
//! [`read`] opens the files, takes the network out of what training left around it ([`clean`], [`functions`],
//! [`loops`], [`training`], [`dilation`]), and lowers it ([`lower`], [`ops`]) to the graph that passes bring into normal form.

mod bundle;
pub mod checkpoint;
mod clean;
mod dilation;
mod dropout;
mod fold;
mod functions;
pub mod graphdef;
mod inputs;
mod inspect;
pub mod locate;
mod loops;
mod lower;
pub mod metagraph;
mod near;
mod net;
mod ops;
mod outputs;
mod read;
mod sizes;
mod slices;
pub(crate) mod sstable;
mod stored;
mod strided;
mod tensor;
#[cfg(test)]
mod testing;
mod training;
mod v1;
mod variables;
pub mod wire;

pub use inspect::{Inspection, Layer, inspect};
pub use outputs::Candidate;
pub use read::{candidates, read};

/// The names of all TensorFlow operators that can be converted, sorted. Some are taken out rather than translated.
pub fn supported_ops() -> Vec<&'static str> {
    ops::supported()
}
