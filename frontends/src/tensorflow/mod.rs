//! TensorFlow: graphs (meta graphs, frozen graphs) and checkpoints.

mod bundle;
pub mod checkpoint;
pub mod graphdef;
pub mod kind;
pub mod locate;
pub mod metagraph;
mod near;
mod slices;
mod sstable;
mod stored;
mod tensor;
mod v1;
pub mod wire;
