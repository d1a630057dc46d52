//! Layers whose weight is kept as a direction and a length: `weight_norm(nn.Conv1d(…))`, with the keys of the source.

use modelport_ir::Graph;
use modelport_ir::weight_norm::ENDINGS;

use crate::plan::Param;
use crate::python::{Arg, Expr, Lit};

/// PyTorch's function for keys that begin with `parametrizations`, as it is imported.
pub const CURRENT: &str = "weight_norm";
/// The one for `weight_g` and `weight_v`, which is deprecated but has no successor with these keys.
pub const OLD: &str = "nn.utils.weight_norm";

/// The layer with its weights, as the source makes them.
pub fn layer(graph: &Graph, ctor: Expr, mut params: Vec<Param>) -> (Expr, Vec<Param>) {
    let made = params.iter().enumerate().find_map(|(place, param)| {
        let norm = graph.weight_norms.get(&param.source).filter(|_| param.key == "weight")?;
        let fits = param.tensor.shape() == norm.direction.tensor.shape();
        let path = param.source.strip_suffix("weight").filter(|_| fits)?;
        let endings = ENDINGS.iter().position(|[ending, _]| norm.length.key.strip_prefix(path) == Some(ending))?;
        Some((place, norm, endings))
    });
    let Some((place, norm, endings)) = made else { return (ctor, params) };
    params.remove(place);
    for (key, entry) in ENDINGS[endings].iter().zip([&norm.length, &norm.direction]) {
        params.push(Param { key: (*key).to_owned(), tensor: entry.tensor.clone(), source: entry.key.clone() });
    }
    let dim = Expr::slot("dim", norm.axis.map_or(Lit::None, Lit::size));
    let function = if endings == 0 { CURRENT } else { OLD };
    let dim = Arg::keyword("dim", dim, Some(Lit::Int(0)));
    (Expr::call(function, vec![Arg::new(ctor), dim]), params)
}

/// Whether this makes such a layer.
pub fn is_normed(ctor: &Expr) -> bool {
    matches!(ctor, Expr::Call(function, _) if [CURRENT, OLD].iter().any(|name| **function == Expr::name(name)))
}
