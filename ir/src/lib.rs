//! The neutral graph of modelport: typed operators on a petgraph graph, lazily read tensors, shapes with a free
//! batch, layouts, passes and a reference evaluator. Knows no framework.

pub mod atomic;
pub mod codec;
pub mod diagnostic;
pub mod eval;
pub mod graph;
pub mod hdf5;
pub mod layout;
pub mod npy;
pub mod op;
pub mod pass;
pub mod pickle;
pub mod shape;
pub mod tensor;
pub mod validate;
pub mod weight_norm;

pub use diagnostic::{Error, Problem, Result};
pub use graph::{Graph, Node, NodeId, Port, Value, ValueInfo};
pub use layout::Layout;
pub use op::Op;
pub use shape::{Dim, Shape};
pub use tensor::{DType, Tensor};
pub use weight_norm::WeightNorm;
