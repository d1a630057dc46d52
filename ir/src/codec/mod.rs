//! x
mod json;
mod proto;
