//! The neutral graph.
