//! Takes a weight that is kept as a direction and a length for the weight that it is.
//!
//! ```text
//! g * (v / ReduceL2(v)) -> Conv      w -> Conv, and of w: it is g * v / |v|
//! ```
//!
//! Only where the state dict's keys say that PyTorch's functions made it so: a target with these functions then has
//! the same keys, and for all others it is a weight like any.

use super::pattern::{reduction, squared, unary};
use super::rewrite::forward;
use super::terms::{Factor, expand};
use crate::diagnostic::Result;
use crate::graph::{Graph, Value};
use crate::op::{Binary, Op, ReduceKind, Unary};
use crate::weight_norm::{Entry, WeightNorm};

/// Runs the pass.
pub fn run(graph: &mut Graph) -> Result<usize> {
    if graph.modules.is_empty() {
        return Ok(0);
    }
    let count = forward(graph, |graph, id| {
        let Some((norm, key)) = find(graph, id.into()) else { return Ok(false) };
        let known = graph.find(&key).filter(|_| graph.weight_norms.contains_key(&key));
        let weight = match known {
            Some(known) => known.into(),
            None => graph.variable(&key, norm.weight()?),
        };
        graph.replace_uses(id.into(), weight);
        graph.weight_norms.insert(key, norm);
        Ok(true)
    })?;
    for key in graph.weight_norms.keys() {
        plain_module(&mut graph.modules, key);
    }
    Ok(count)
}

/// Takes what is kept so for weights like any.
pub fn forget(graph: &mut Graph) -> Result<usize> {
    Ok(std::mem::take(&mut graph.weight_norms).len())
}

/// Modules that only compute the weight are none of the network's, and the layer is what it was before.
fn plain_module(modules: &mut std::collections::BTreeMap<String, String>, key: &str) {
    let path = key.strip_suffix("weight").unwrap_or_default();
    let inner = format!("{path}parametrizations");
    modules.retain(|other, _| !other.strip_prefix(&inner).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
    if let Some(class) = modules.get_mut(path.trim_end_matches('.')) {
        let (file, name) = class.rsplit_once('.').map_or(("", class.as_str()), |(file, name)| (file, name));
        if let Some(layer) = name.strip_prefix("Parametrized") {
            // The class is made on the way, in a file of PyTorch's.
            let own = file.is_empty() || file.ends_with("parametrize");
            *class = if own { layer.to_owned() } else { format!("{file}.{layer}") };
        }
    }
}

/// Whether a value is a weight that is kept so, and the key that it has then.
fn find(graph: &Graph, value: Value) -> Option<(WeightNorm, String)> {
    if !matches!(graph.op(value.node), Op::Binary(Binary::Mul | Binary::Div)) {
        return None;
    }
    let sum = expand(graph, value, &|at| is_trained(graph, at))?;
    let [term] = sum.terms.as_slice() else { return None };
    let divisor = term.factors.iter().find_map(|factor| {
        let (direction, axes) = match *factor {
            Factor::Inverse(length) => norm(graph, length)?,
            Factor::InverseRoot(squares) => sum_of_squares(graph, squares)?,
            _ => return None,
        };
        Some((*factor, direction, axes))
    });
    let (divisor, direction, axes) = divisor?;
    let rest = term.without(&[divisor, direction.into()]).filter(|_| term.coefficient == 1.0)?;
    let [Factor::Value(length)] = rest.as_slice() else { return None };
    let entry = |value: Value| {
        let tensor = graph.tensor(value)?.clone();
        Some(Entry { key: graph.node(value.node).name.clone(), tensor })
    };
    let (length, direction) = (entry(*length)?, entry(direction)?);
    let kept: Vec<usize> = (0..direction.tensor.rank()).filter(|axis| !axes.contains(axis)).collect();
    let axis = match kept.as_slice() {
        [] => None,
        [axis] => Some(*axis),
        _ => return None,
    };
    let norm = WeightNorm { axis, length, direction };
    let key = norm.key().filter(|key| graph.find(key).is_none() || graph.weight_norms.contains_key(key))?;
    Some((norm, key))
}

fn is_trained(graph: &Graph, value: Value) -> bool {
    matches!(graph.op(value.node), Op::Constant(constant) if constant.trainable)
}

fn sum_of_squares(graph: &Graph, value: Value) -> Option<(Value, Vec<usize>)> {
    let (squares, axes) = reduction(graph, value, ReduceKind::Sum)?;
    Some((squared(graph, squares)?, axes))
}

fn norm(graph: &Graph, value: Value) -> Option<(Value, Vec<usize>)> {
    match unary(graph, value, Unary::Sqrt) {
        Some(squares) => sum_of_squares(graph, squares),
        None => reduction(graph, value, ReduceKind::L2),
    }
}
