//! TensorFlow: graphs (meta graphs, frozen graphs) and checkpoints.

pub mod graphdef;
