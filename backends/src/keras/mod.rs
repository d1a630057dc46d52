//! Keras: every operator as layers and functions, the code around them, and the model as Keras' files have it.

pub mod files;
pub mod model;
