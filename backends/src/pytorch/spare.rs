//! Weights that no output needs: heads that only train. Their modules stay, so that the source's state dict loads.
//! Nothing says what these compute; what layers they are, their weights tell well enough to hold them.

use modelport_ir::{Graph, Tensor};

use super::build::zeros;
use crate::plan::{Member, MemberKind, Param, Spare};
use crate::python::{Arg, Expr, Lit};

/// The spare weights of a graph.
pub fn weights(graph: &Graph) -> Vec<Spare> {
    // Norms count batches, whether the source's file says so or not.
    let counter = |key: &String| {
        let counter = format!("{}num_batches_tracked", key.strip_suffix("running_mean")?);
        (!graph.spare.contains_key(&counter)).then(|| (counter, Tensor::from_i64(&[], &[0])))
    };
    let counters: Vec<(String, Tensor)> = graph.spare.keys().filter_map(counter).collect();
    let all = graph.spare.iter().chain(counters.iter().map(|(key, tensor)| (key, tensor)));
    let spare = all.map(|(source, tensor)| {
        let (path, key) = source.rsplit_once('.').unwrap_or(("", source));
        let kind = if tensor.dtype().is_float() { MemberKind::Parameter } else { MemberKind::Buffer };
        let param = Param { key: String::new(), tensor: tensor.clone(), source: source.clone() };
        let tensor = Member { kind, role: key.to_owned(), ctor: zeros(tensor), params: vec![param] };
        Spare { path: path.to_owned(), tensor }
    });
    spare.collect()
}

/// A layer with these weights.
pub fn layer(params: &[Param]) -> Option<Expr> {
    let shape = |key: &str| params.iter().find(|param| param.key == key).map(|param| param.tensor.shape());
    let known = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"];
    if params.iter().any(|param| !known.contains(&param.key.as_str())) {
        return None;
    }
    let (weight, bias) = (shape("weight"), shape("bias"));
    if let Some(mean) = shape("running_mean") {
        let affine = Expr::slot("affine", Lit::Bool(weight.is_some()));
        let count = Arg::new(Expr::int("num_features", *mean.first()?));
        let affine = Arg::keyword("affine", affine, Some(Lit::Bool(true)));
        return (shape("running_var").is_some() && weight == bias)
            .then(|| Expr::call("nn.BatchNorm2d", vec![count, affine]));
    }
    let weight = weight?;
    let biased = Arg::keyword("bias", Expr::slot("bias", Lit::Bool(bias.is_some())), Some(Lit::Bool(true)));
    match weight.as_slice() {
        [size] if bias.as_ref() == Some(&weight) => {
            Some(Expr::call("nn.LayerNorm", vec![Arg::new(Expr::int("num_features", *size))]))
        }
        [outputs, inputs, kernel @ ..] if kernel.len() <= 3 && bias.is_none_or(|bias| bias == [*outputs]) => {
            let (from, to) =
                if kernel.is_empty() { ("in_features", "out_features") } else { ("in_channels", "out_channels") };
            let mut args = vec![Arg::new(Expr::int(from, *inputs)), Arg::new(Expr::int(to, *outputs))];
            if kernel.is_empty() {
                args.push(biased);
                return Some(Expr::call("nn.Linear", args));
            }
            args.extend([Arg::new(Expr::slot("kernel_size", Lit::sizes(kernel))), biased]);
            Some(Expr::call(&format!("nn.Conv{}d", kernel.len()), args))
        }
        _ => None,
    }
}
