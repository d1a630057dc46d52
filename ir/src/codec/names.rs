//! What operators are called in files, where MMdnn has no name of its own for them.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::fields::{KIND, to_fields};
use super::proto::{AttrValue, Attributes};
use crate::op::{ArgReduce, Binary, Extreme, FAMILIES, Op, Reduce, ReduceKind, Unary};
use crate::tensor::DType;

/// Functions that have a name of their own: family and kind.
static FUNCTIONS: LazyLock<HashMap<String, (&'static str, AttrValue)>> = LazyLock::new(|| {
    use ReduceKind::*;
    let reduce = [Sum, Mean, Max, Min, Prod, All, Any, L2, LogSumExp];
    let reduce = reduce.map(|kind| Op::Reduce(Reduce { kind, axes: Vec::new(), keep_dims: false }));
    let arg = |kind| Op::ArgReduce(ArgReduce { kind, axis: 0, keep_dims: false, dtype: DType::Int64 });
    let unary = Unary::ALL.iter().map(|&op| Op::Unary(op));
    let binary = Binary::ALL.iter().map(|&op| Op::Binary(op));
    unary
        .chain(binary)
        .chain(reduce)
        .chain([Extreme::Max, Extreme::Min].map(arg))
        .filter_map(|op| {
            let (family, mut fields) = to_fields(&op).ok()?;
            Some((op.name(), (family, fields.remove(KIND)?)))
        })
        .collect()
});

/// The name of an operator; takes the kind out of its fields when the name says it.
pub(crate) fn name(op: &Op, fields: &mut Attributes) -> String {
    let name = op.name();
    match FUNCTIONS.get(&name) {
        Some((family, kind)) if *family == op.family() && fields.get(KIND) == Some(kind) => {
            fields.remove(KIND);
            name
        }
        _ => op.family().to_owned(),
    }
}

/// The family that a name stands for, and the kind that it says.
pub(crate) fn family(name: &str) -> Option<(&'static str, Option<&'static AttrValue>)> {
    // MMdnn's list of operators spells it like this, its programs as everybody.
    let name = if name == "Matmul" { "MatMul" } else { name };
    match FUNCTIONS.get(name) {
        Some((family, kind)) => Some((family, Some(kind))),
        None => FAMILIES.iter().find(|family| **family == name).map(|&family| (family, None)),
    }
}
