//! Backends: plan a program for a graph, print it through templates, and write its weights.

mod docstring;
mod gates;
pub mod keras;
pub mod plan;
pub mod python;
pub mod pytorch;
pub mod transfer;
pub mod weights;
