//! Normalisation and dropout.

use std::collections::HashSet;

use modelport_ir::{Layout, Op, Result, Value, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

const LAYOUT: Layout = Layout::ChannelsFirst;

pub const OPS: &[Entry] = &[
    op(
        "batch_norm",
        "input weight=None bias=None running_mean=None running_var=None training=False momentum=0.1 eps=1e-5 \
         cudnn_enabled=True",
        |call| {
            if call.has("running_mean") && call.bool("training")? {
                return Err(call.fail("batch normalisation was saved while training: save it after model.eval()"));
            }
            batch_norm(call)
        },
    ),
    op("_native_batch_norm_legit_no_training", "input weight bias running_mean running_var momentum eps", |call| {
        Ok(vec![batch_norm(call)?, Arg::None, Arg::None].into())
    }),
    op(
        "instance_norm",
        "input weight=None bias=None running_mean=None running_var=None use_input_stats=True momentum=0.1 eps=1e-5 \
        cudnn_enabled=True",
        instance_norm,
    ),
    op("layer_norm", "input normalized_shape weight=None bias=None eps=1e-5 cudnn_enable=True", layer_norm),
    op("native_layer_norm", "input normalized_shape weight bias eps", |call| {
        Ok(vec![layer_norm(call)?, Arg::None, Arg::None].into())
    }),
    op("group_norm", "input num_groups weight=None bias=None eps=1e-5 cudnn_enabled=True", |call| {
        let groups = call.size("num_groups")?;
        group_norm(call, groups)
    }),
    op("native_group_norm", "input weight bias N C HxW group eps", |call| {
        let groups = call.size("group")?;
        Ok(vec![group_norm(call, groups)?, Arg::None, Arg::None].into())
    }),
    op("rms_norm", "input normalized_shape weight=None eps=None", rms_norm),
    op("local_response_norm", "input size alpha=1e-4 beta=0.75 k=1.0", local_response_norm),
    op("dropout", "input p=0.5 train=False", dropout),
    op("native_dropout", "input p train=None", |call| Ok(vec![dropout(call)?, Arg::None].into())),
    op("feature_dropout", "input p=0.5 train=False", dropout),
    op("alpha_dropout", "input p=0.5 train=False", dropout),
    op("feature_alpha_dropout", "input p=0.5 train=False", dropout),
    op("_fused_dropout", "input p=0.5", dropout),
];

fn batch_norm(call: &mut Call) -> Result<Arg> {
    let x = call.value("input")?;
    if !call.has("running_mean") || !call.has("running_var") {
        if is_of_weights(call, x) {
            return standardised(call, x);
        }
        let message = "batch normalisation without running statistics depends on the whole batch";
        return Err(call.fail(message));
    }
    let inputs = [
        Some(x),
        call.optional("weight")?,
        call.optional("bias")?,
        call.optional("running_mean")?,
        call.optional("running_var")?,
    ];
    let momentum = call.arg("momentum").float().map(|momentum| momentum as f32);
    let norm = op::BatchNorm { epsilon: call.float("eps")? as f32, momentum, layout: LAYOUT };
    Ok(call.add_with(norm, &inputs)?.into())
}

/// Whether a value is computed from weights alone.
fn is_of_weights(call: &Call, value: Value) -> bool {
    let graph = &call.lower.graph;
    let (mut open, mut seen) = (vec![value.node], HashSet::new());
    while let Some(node) = open.pop() {
        if matches!(graph.op(node), Op::Input(_)) {
            return false;
        }
        let inputs = graph.inputs_of(node).into_iter().flatten().map(|value| value.node);
        open.extend(inputs.filter(|node| seen.insert(*node)));
    }
    true
}

/// `(x - mean) / sqrt(variance + eps) * weight + bias` per channel: what is done to weights that are standardised.
fn standardised(call: &mut Call, x: Value) -> Result<Arg> {
    let rank = call.lower.graph.shape(x).rank();
    let axes: Vec<Arg> = (0..rank).filter(|axis| *axis != 1).map(Arg::from).collect();
    let statistics = [x.into(), axes.into(), false.into(), true.into()];
    let statistics = call.call("var_mean", &statistics)?;
    let Some([variance, mean]) = statistics.list() else { return Err(call.fail("has no statistics")) };
    let difference = call.call("sub", &[x.into(), mean.clone()])?;
    let sum = call.call("add", &[variance.clone(), call.arg("eps")])?;
    let scale = call.call("rsqrt", &[sum])?;
    let mut y = call.call("mul", &[difference, scale])?;
    let mut sides = vec![1_i64; rank];
    sides.iter_mut().skip(1).take(1).for_each(|side| *side = -1);
    for (name, function) in [("weight", "mul"), ("bias", "add")] {
        if call.has(name) {
            let factor = call.call("reshape", &[call.arg(name), sides.as_slice().into()])?;
            y = call.call(function, &[y, factor])?;
        }
    }
    Ok(y)
}

fn instance_norm(call: &mut Call) -> Result<Arg> {
    if !call.bool("use_input_stats")? {
        return batch_norm(call);
    }
    let inputs = [Some(call.value("input")?), call.optional("weight")?, call.optional("bias")?];
    let norm = op::InstanceNorm { epsilon: call.float("eps")? as f32, layout: LAYOUT };
    Ok(call.add_with(norm, &inputs)?.into())
}

/// The last axes, as many as the normalised shape has.
fn last_axes(call: &Call, x: Value) -> Result<Vec<usize>> {
    let rank = call.lower.graph.shape(x).rank();
    let count = call.elems("normalized_shape")?.len();
    match rank.checked_sub(count) {
        Some(first) => Ok((first..rank).collect()),
        None => Err(call.fail(format!("there are no {count} axes to normalise"))),
    }
}

fn layer_norm(call: &mut Call) -> Result<Arg> {
    let x = call.value("input")?;
    let norm = op::LayerNorm { axes: last_axes(call, x)?, epsilon: call.float("eps")? as f32 };
    let inputs = [Some(x), call.optional("weight")?, call.optional("bias")?];
    Ok(call.add_with(norm, &inputs)?.into())
}

fn group_norm(call: &mut Call, groups: usize) -> Result<Arg> {
    let inputs = [Some(call.value("input")?), call.optional("weight")?, call.optional("bias")?];
    let norm = op::GroupNorm { groups, epsilon: call.float("eps")? as f32, layout: LAYOUT };
    Ok(call.add_with(norm, &inputs)?.into())
}

/// `x / sqrt(mean(x²) + eps) * weight`
fn rms_norm(call: &mut Call) -> Result<Arg> {
    let x = call.value("input")?;
    let axes = last_axes(call, x)?;
    let dtype = call.lower.graph.info(x).dtype;
    let eps = call.arg("eps").float().unwrap_or(match dtype {
        modelport_ir::DType::Float64 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    });
    let square = call.add(op::Unary::Square, &[x])?;
    let mean = call.add(op::Reduce { kind: op::ReduceKind::Mean, axes, keep_dims: true }, &[square])?;
    let eps = call.scalar(dtype, eps);
    let sum = call.add(op::Binary::Add, &[mean, eps])?;
    let scale = call.add(op::Unary::Rsqrt, &[sum])?;
    let mut y = call.add(op::Binary::Mul, &[x, scale])?;
    if let Some(weight) = call.optional("weight")? {
        y = call.add(op::Binary::Mul, &[y, weight])?;
    }
    Ok(y.into())
}

/// PyTorch divides alpha by the size, and an even window has more channels before.
fn local_response_norm(call: &mut Call) -> Result<Arg> {
    let x = call.value("input")?;
    let size = call.size("size")?;
    if size % 2 == 0 {
        return Err(call.fail(format!("a window of {size} channels has no middle")));
    }
    let alpha = (call.float("alpha")? / size as f64) as f32;
    let (beta, k) = (call.float("beta")? as f32, call.float("k")? as f32);
    Ok(call.add(op::Lrn { size, alpha, beta, k, layout: LAYOUT }, &[x])?.into())
}

/// Does nothing at inference; the rate stays for training.
fn dropout(call: &mut Call) -> Result<Arg> {
    if let Some(weight) = call.weight("input") {
        return Ok(weight.into());
    }
    let x = call.value("input")?;
    let rate = call.float("p")? as f32;
    Ok(match rate > 0.0 {
        true => call.add(op::Dropout { rate }, &[x])?,
        false => x,
    }
    .into())
}
