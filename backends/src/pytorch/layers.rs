//! Layers with weights, pooling and dropout as `torch.nn` modules.

use modelport_ir::op::{AdaptivePool, BatchNorm, Conv, ConvTranspose, GroupNorm, LayerNorm, Pads, Pool, PoolKind};
use modelport_ir::{Layout, Shape, Tensor};

use super::build::{Builder, Built};
use crate::plan::Param;
use crate::python::{Arg, Expr, Lit};

/// `F.pad`'s order: the last axis first, before and after.
pub fn pad_list(pads: &[(usize, usize)]) -> Lit {
    Lit::Tuple(pads.iter().rev().flat_map(|&(before, after)| [Lit::size(before), Lit::size(after)]).collect())
}

fn check_layout(b: &Builder<'_>, layout: Layout) -> Result<(), modelport_ir::Problem> {
    if layout == Layout::ChannelsFirst {
        Ok(())
    } else {
        Err(b.problem("a layer was left with channels last, expected channels first"))
    }
}

/// The permutation of a kernel `[spatial…, a, b]` to `[b, a, spatial…]`.
fn kernel_perm(rank: usize) -> Vec<usize> {
    let spatial = rank - 2;
    [rank - 1, rank - 2].into_iter().chain(0..spatial).collect()
}

fn rank_suffix(rank: usize) -> usize {
    rank.saturating_sub(2)
}

/// `nn.Conv2d`, with `F.pad` in front where the padding is not symmetric.
pub fn conv(b: &mut Builder<'_>, op: &Conv) -> Built {
    check_layout(b, op.layout)?;
    let rank = b.shape(0)?.rank();
    let symmetric = op.pads.is_symmetric();
    let padding = if symmetric { op.pads.begins() } else { vec![0; rank - 2] };
    if !b.is_constant(1) {
        return functional_conv(b, op, &padding, symmetric);
    }
    let mut params = Vec::new();
    params.extend(b.param(1, "weight", Some(&kernel_perm(rank)))?);
    params.extend(b.param(2, "bias", None)?);
    let shape = params.first().map(|p| p.tensor.shape()).unwrap_or_default();
    let ctor = Expr::call(
        &format!("nn.Conv{}d", rank_suffix(rank)),
        vec![
            Arg::new(Expr::int("in_channels", shape[1] * op.groups)),
            Arg::new(Expr::int("out_channels", shape[0])),
            Arg::new(Expr::slot("kernel_size", Lit::sizes(&shape[2..]))),
            Arg::or("stride", Expr::slot("stride", Lit::sizes(&op.strides)), Lit::Int(1)),
            Arg::or("padding", Expr::slot("padding", Lit::sizes(&padding)), Lit::Int(0)),
            Arg::or("dilation", Expr::slot("dilation", Lit::sizes(&op.dilations)), Lit::Int(1)),
            Arg::or("groups", Expr::int("groups", op.groups), Lit::Int(1)),
            Arg::keyword("bias", Expr::slot("bias", Lit::Bool(params.len() > 1)), Some(Lit::Bool(true))),
        ],
    );
    let called = b.layer("conv", ctor, params)?;
    Ok(if symmetric { called } else { padded(b, called, &op.pads) })
}

/// Puts zeros around the operand of a layer.
fn padded(b: &mut Builder<'_>, called: Expr, pads: &Pads) -> Expr {
    let list = Expr::slot("pad", pad_list(&pads.0));
    let module = match pads.0.len() {
        1 => "nn.ConstantPad1d",
        2 => "nn.ZeroPad2d",
        _ => "nn.ConstantPad3d",
    };
    let mut args = vec![Arg::new(list.clone())];
    if pads.0.len() != 2 {
        args.push(Arg::new(Expr::slot("value", Lit::float(0.0))));
    }
    b.before_module(Expr::call(module, args));
    called.rewrite(&mut |expr| match expr {
        Expr::Operand(_) => Some(Expr::call("F.pad", vec![Arg::new(expr.clone()), Arg::new(list.clone())])),
        _ => None,
    })
}

fn functional_conv(b: &mut Builder<'_>, op: &Conv, padding: &[usize], symmetric: bool) -> Built {
    let rank = b.shape(0)?.rank();
    let mut x = b.tensor(0)?;
    if !symmetric {
        x = Expr::call("F.pad", vec![Arg::new(x), Arg::new(Expr::slot("pad", pad_list(&op.pads.0)))]);
    }
    let perm = kernel_perm(rank).into_iter().map(|axis| Arg::new(Expr::int("axis", axis))).collect();
    let weight = b.tensor(1)?.method("permute", perm);
    let bias = if b.has(2).is_some() { b.tensor(2)? } else { Expr::slot("bias", Lit::None) };
    Ok(Expr::call(
        &format!("F.conv{}d", rank_suffix(rank)),
        vec![
            Arg::new(x),
            Arg::new(weight),
            Arg::or("bias", bias, Lit::None),
            Arg::or("stride", Expr::slot("stride", Lit::sizes(&op.strides)), Lit::Int(1)),
            Arg::or("padding", Expr::slot("padding", Lit::sizes(padding)), Lit::Int(0)),
            Arg::or("dilation", Expr::slot("dilation", Lit::sizes(&op.dilations)), Lit::Int(1)),
            Arg::or("groups", Expr::int("groups", op.groups), Lit::Int(1)),
        ],
    ))
}

/// `nn.ConvTranspose2d`. PyTorch cuts the same off both ends: what else must go is sliced off the end.
pub fn conv_transpose(b: &mut Builder<'_>, op: &ConvTranspose) -> Built {
    check_layout(b, op.layout)?;
    let rank = b.shape(0)?.rank();
    let mut padding = Vec::new();
    let mut output_padding = Vec::new();
    let mut cut = Vec::new();
    for (i, &(before, after)) in op.pads.0.iter().enumerate() {
        let more = op.output_padding[i] as i64 + before as i64 - after as i64;
        let limit = op.strides[i].max(op.dilations[i]) as i64;
        if more >= limit && more > 0 {
            return Err(
                b.problem("a transposed convolution that appends more than its stride can't be said in PyTorch")
            );
        }
        padding.push(before);
        output_padding.push(more.max(0) as usize);
        cut.push((-more).max(0) as usize);
    }
    let mut params = Vec::new();
    params.extend(b.param(1, "weight", Some(&kernel_perm(rank)))?);
    params.extend(b.param(2, "bias", None)?);
    let shape = params.first().map(|p| p.tensor.shape()).unwrap_or_default();
    let ctor = Expr::call(
        &format!("nn.ConvTranspose{}d", rank_suffix(rank)),
        vec![
            Arg::new(Expr::int("in_channels", shape[0])),
            Arg::new(Expr::int("out_channels", shape[1] * op.groups)),
            Arg::new(Expr::slot("kernel_size", Lit::sizes(&shape[2..]))),
            Arg::or("stride", Expr::slot("stride", Lit::sizes(&op.strides)), Lit::Int(1)),
            Arg::or("padding", Expr::slot("padding", Lit::sizes(&padding)), Lit::Int(0)),
            Arg::or("output_padding", Expr::slot("output_padding", Lit::sizes(&output_padding)), Lit::Int(0)),
            Arg::or("groups", Expr::int("groups", op.groups), Lit::Int(1)),
            Arg::or("bias", Expr::slot("bias", Lit::Bool(params.len() > 1)), Lit::Bool(true)),
            Arg::or("dilation", Expr::slot("dilation", Lit::sizes(&op.dilations)), Lit::Int(1)),
        ],
    );
    let called = b.layer("conv", ctor, params)?;
    if cut.iter().all(|&n| n == 0) {
        return Ok(called);
    }
    b.no_module();
    let mut items = vec![Expr::name(":"), Expr::name(":")];
    items.extend(cut.iter().map(|&n| match n {
        0 => Expr::name(":"),
        n => Expr::Range(None, Some(Box::new(Expr::slot("end", Lit::Int(-(n as i64))))), None),
    }));
    Ok(called.index(items))
}

/// `nn.Linear`.
pub fn dense(b: &mut Builder<'_>) -> Built {
    if !b.is_constant(1) {
        let x = b.tensor(0)?;
        let w = b.tensor(1)?;
        let product = x.binary("@", w);
        return Ok(if b.has(2).is_some() { product.binary("+", b.tensor(2)?) } else { product });
    }
    let mut params = Vec::new();
    params.extend(b.param(1, "weight", Some(&[1, 0]))?);
    params.extend(b.param(2, "bias", None)?);
    let shape = params.first().map(|p| p.tensor.shape()).unwrap_or_default();
    let ctor = Expr::call(
        "nn.Linear",
        vec![
            Arg::new(Expr::int("in_features", shape[1])),
            Arg::new(Expr::int("out_features", shape[0])),
            Arg::keyword("bias", Expr::slot("bias", Lit::Bool(params.len() > 1)), Some(Lit::Bool(true))),
        ],
    );
    b.layer("fc", ctor, params)
}

fn channels(b: &Builder<'_>) -> Result<usize, modelport_ir::Problem> {
    b.shape(0)?.get(1).and_then(modelport_ir::Dim::known).ok_or_else(|| {
        b.problem("the number of channels is not known").hint("give the input's shape with --inputShape")
    })
}

/// Constant ones or zeros for a parameter that the source leaves out but PyTorch has.
fn filled(key: &str, size: usize, value: f32) -> Param {
    Param { key: key.to_owned(), tensor: Tensor::from_f32(&[size], &vec![value; size]), source: String::new() }
}

/// `weight` and `bias` of a normalisation: both or none.
fn affine(b: &Builder<'_>, size: usize) -> Result<Vec<Param>, modelport_ir::Problem> {
    let (scale, bias) = (b.param(1, "weight", None)?, b.param(2, "bias", None)?);
    Ok(match (scale, bias) {
        (None, None) => Vec::new(),
        (scale, bias) => vec![
            scale.unwrap_or_else(|| filled("weight", size, 1.0)),
            bias.unwrap_or_else(|| filled("bias", size, 0.0)),
        ],
    })
}

/// Scale and bias of a normalisation as arguments of its function, for those that are computed.
fn functional_affine(b: &mut Builder<'_>) -> Result<Vec<Arg>, modelport_ir::Problem> {
    let mut args = Vec::new();
    for (slot, name) in [(1, "weight"), (2, "bias")] {
        let value = if b.has(slot).is_some() { b.tensor(slot)? } else { Expr::slot(name, Lit::None) };
        args.push(Arg::keyword(name, value, Some(Lit::None)));
    }
    Ok(args)
}

/// Whether scale or bias are computed.
fn is_computed(b: &Builder<'_>) -> bool {
    (1..3).any(|slot| b.has(slot).is_some() && !b.is_constant(slot))
}

/// `nn.BatchNorm2d`.
pub fn batch_norm(b: &mut Builder<'_>, op: &BatchNorm) -> Built {
    let rank = b.shape(0)?.rank();
    if rank > 2 {
        check_layout(b, op.layout)?;
    }
    if (1..5).any(|slot| b.has(slot).is_some() && !b.is_constant(slot)) {
        let (x, mean, var) = (b.tensor(0)?, b.tensor(3)?, b.tensor(4)?);
        let mut args = vec![Arg::new(x), Arg::new(mean), Arg::new(var)];
        args.extend(functional_affine(b)?);
        args.push(Arg::keyword("eps", Expr::slot("eps", Lit::float(op.epsilon)), Some(Lit::float(1e-5))));
        return Ok(Expr::call("F.batch_norm", args));
    }
    let size = channels(b)?;
    let mut params = affine(b, size)?;
    let has_affine = !params.is_empty();
    params.extend(b.param(3, "running_mean", None)?);
    params.extend(b.param(4, "running_var", None)?);
    let tracked = Tensor::from_i64(&[], &[0]);
    params.push(Param { key: "num_batches_tracked".to_owned(), tensor: tracked, source: String::new() });
    let momentum = op.momentum.map_or(Lit::float(0.1), Lit::float);
    let ctor = Expr::call(
        &format!("nn.BatchNorm{}d", rank_suffix(rank).max(1)),
        vec![
            Arg::new(Expr::int("num_features", size)),
            Arg::keyword("eps", Expr::slot("eps", Lit::float(op.epsilon)), Some(Lit::float(1e-5))),
            Arg::keyword("momentum", Expr::slot("momentum", momentum), Some(Lit::float(0.1))),
            Arg::keyword("affine", Expr::slot("affine", Lit::Bool(has_affine)), Some(Lit::Bool(true))),
        ],
    );
    b.layer("bn", ctor, params)
}

/// `nn.LayerNorm` where the normalised axes are the last ones, else written out.
pub fn layer_norm(b: &mut Builder<'_>, op: &LayerNorm) -> Built {
    let shape = b.shape(0)?.clone();
    let rank = shape.rank();
    let eps = Expr::slot("eps", Lit::float(op.epsilon));
    let sizes: Option<Vec<usize>> =
        op.axes.iter().map(|&axis| shape.get(axis).and_then(modelport_ir::Dim::known)).collect();
    let trailing = op.axes.iter().copied().eq(rank - op.axes.len()..rank);
    if let (true, Some(sizes), true) = (trailing, &sizes, is_computed(b)) {
        let mut args = vec![Arg::new(b.tensor(0)?), Arg::new(Expr::slot("features", Lit::tuple(sizes)))];
        args.extend(functional_affine(b)?);
        args.push(Arg::keyword("eps", eps, Some(Lit::float(1e-5))));
        return Ok(Expr::call("F.layer_norm", args));
    }
    if let (true, Some(sizes)) = (trailing, &sizes) {
        let mut params = Vec::new();
        params.extend(b.param(1, "weight", None)?);
        params.extend(b.param(2, "bias", None)?);
        if b.has(1).is_none() && b.has(2).is_some() {
            let ones = Tensor::from_f32(sizes, &vec![1.0; sizes.iter().product()]);
            params.insert(0, Param { key: "weight".to_owned(), tensor: ones, source: String::new() });
        }
        let normalized = if let [size] = sizes.as_slice() { Lit::size(*size) } else { Lit::tuple(sizes) };
        let ctor = Expr::call(
            "nn.LayerNorm",
            vec![
                Arg::new(Expr::slot("features", normalized)),
                Arg::keyword("eps", eps, Some(Lit::float(1e-5))),
                Arg::keyword(
                    "elementwise_affine",
                    Expr::slot("affine", Lit::Bool(!params.is_empty())),
                    Some(Lit::Bool(true)),
                ),
                Arg::keyword("bias", Expr::slot("bias", Lit::Bool(params.len() != 1)), Some(Lit::Bool(true))),
            ],
        );
        return b.layer("norm", ctor, params);
    }
    // Over other axes: move them to the end, normalise, move them back.
    let Some(sizes) = sizes else { return Err(b.problem("the size of a normalised axis is not known")) };
    let others: Vec<usize> = (0..rank).filter(|axis| !op.axes.contains(axis)).collect();
    let perm: Vec<usize> = others.iter().chain(&op.axes).copied().collect();
    let mut inverse = vec![0; rank];
    for (to, &from) in perm.iter().enumerate() {
        inverse[from] = to;
    }
    let axes = |perm: &[usize]| perm.iter().map(|&axis| Arg::new(Expr::int("axis", axis))).collect::<Vec<_>>();
    let mut params = Vec::new();
    params.extend(b.param(1, "weight", None)?);
    params.extend(b.param(2, "bias", None)?);
    if b.has(1).is_none() && b.has(2).is_some() {
        let ones = Tensor::from_f32(&sizes, &vec![1.0; sizes.iter().product()]);
        params.insert(0, Param { key: "weight".to_owned(), tensor: ones, source: String::new() });
    }
    let ctor = Expr::call(
        "nn.LayerNorm",
        vec![
            Arg::new(Expr::slot("features", Lit::tuple(&sizes))),
            Arg::keyword("eps", eps, Some(Lit::float(1e-5))),
            Arg::keyword(
                "elementwise_affine",
                Expr::slot("affine", Lit::Bool(!params.is_empty())),
                Some(Lit::Bool(true)),
            ),
            Arg::keyword("bias", Expr::slot("bias", Lit::Bool(params.len() != 1)), Some(Lit::Bool(true))),
        ],
    );
    let x = b.tensor(0)?.method("permute", axes(&perm));
    let member = b.module("norm", ctor, params);
    Ok(Expr::Call(Box::new(member), vec![Arg::new(x)]).method("permute", axes(&inverse)))
}

/// `nn.InstanceNorm2d`.
pub fn instance_norm(b: &mut Builder<'_>, epsilon: f32, layout: Layout) -> Built {
    check_layout(b, layout)?;
    let rank = b.shape(0)?.rank();
    if is_computed(b) {
        let mut args = vec![Arg::new(b.tensor(0)?)];
        args.extend(functional_affine(b)?);
        args.push(Arg::keyword("eps", Expr::slot("eps", Lit::float(epsilon)), Some(Lit::float(1e-5))));
        return Ok(Expr::call("F.instance_norm", args));
    }
    let size = channels(b)?;
    let params = affine(b, size)?;
    let ctor = Expr::call(
        &format!("nn.InstanceNorm{}d", rank_suffix(rank).max(1)),
        vec![
            Arg::new(Expr::int("num_features", size)),
            Arg::keyword("eps", Expr::slot("eps", Lit::float(epsilon)), Some(Lit::float(1e-5))),
            Arg::keyword("affine", Expr::slot("affine", Lit::Bool(!params.is_empty())), Some(Lit::Bool(false))),
        ],
    );
    b.layer("norm", ctor, params)
}

/// `nn.GroupNorm`.
pub fn group_norm(b: &mut Builder<'_>, op: &GroupNorm) -> Built {
    check_layout(b, op.layout)?;
    if is_computed(b) {
        let mut args = vec![Arg::new(b.tensor(0)?), Arg::new(Expr::int("num_groups", op.groups))];
        args.extend(functional_affine(b)?);
        args.push(Arg::keyword("eps", Expr::slot("eps", Lit::float(op.epsilon)), Some(Lit::float(1e-5))));
        return Ok(Expr::call("F.group_norm", args));
    }
    let size = channels(b)?;
    let params = affine(b, size)?;
    let ctor = Expr::call(
        "nn.GroupNorm",
        vec![
            Arg::new(Expr::int("num_groups", op.groups)),
            Arg::new(Expr::int("num_channels", size)),
            Arg::keyword("eps", Expr::slot("eps", Lit::float(op.epsilon)), Some(Lit::float(1e-5))),
            Arg::keyword("affine", Expr::slot("affine", Lit::Bool(!params.is_empty())), Some(Lit::Bool(true))),
        ],
    );
    b.layer("norm", ctor, params)
}

/// `nn.PReLU`.
pub fn prelu(b: &mut Builder<'_>) -> Built {
    if !b.is_constant(1) {
        let (x, slope) = (b.tensor(0)?, b.tensor(1)?);
        return Ok(Expr::call("F.prelu", vec![Arg::new(x), Arg::new(slope)]));
    }
    let params: Vec<Param> = b.param(1, "weight", None)?.into_iter().collect();
    let size = params.first().map_or(1, |p| p.tensor.numel());
    let ctor = Expr::call("nn.PReLU", vec![Arg::or("num_parameters", Expr::int("num_parameters", size), Lit::Int(1))]);
    b.layer("prelu", ctor, params)
}

/// `nn.Dropout`.
pub fn dropout(b: &mut Builder<'_>, rate: f32) -> Built {
    let ctor = Expr::call("nn.Dropout", vec![Arg::or("p", Expr::slot("dropout", Lit::float(rate)), Lit::float(0.5))]);
    b.layer("dropout", ctor, Vec::new())
}

/// `nn.Embedding`.
pub fn embedding(b: &mut Builder<'_>) -> Built {
    let params: Vec<Param> = b.param(0, "weight", None)?.into_iter().collect();
    let shape = params.first().map(|p| p.tensor.shape()).unwrap_or_default();
    let ctor = Expr::call(
        "nn.Embedding",
        vec![Arg::new(Expr::int("num_embeddings", shape[0])), Arg::new(Expr::int("embedding_dim", shape[1]))],
    );
    let ids = b.tensor(1)?;
    let member = b.module("embedding", ctor, params);
    Ok(Expr::Call(Box::new(member), vec![Arg::new(ids)]))
}

/// `F.max_pool2d` and `F.avg_pool2d`, in a chain `nn.MaxPool2d` and `nn.AvgPool2d`.
pub fn pool(b: &mut Builder<'_>, op: &Pool) -> Built {
    check_layout(b, op.layout)?;
    let input = b.shape(0)?.clone();
    let output = b.output_shape(0).clone();
    let rank = input.rank();
    let padding: Vec<usize> = op.pads.begins();
    // PyTorch pads both sides alike. More at the end than at the beginning is what ceil_mode does, where it gives the
    // same number of windows; less is windows too many at the end, which are cut off.
    let out_with = |ceil: bool| -> Option<Vec<usize>> {
        (0..rank - 2)
            .map(|i| {
                let pads = (padding[i], padding[i]);
                let size = &input[i + 2];
                modelport_ir::shape::window_output(size, op.kernel[i], op.strides[i], op.dilations[i], pads, ceil)
                    .ok()
                    .and_then(|dim| dim.known())
            })
            .collect()
    };
    let wanted: Option<Vec<usize>> = output.iter().skip(2).map(modelport_ir::Dim::known).collect();
    let counts_all = op.kind == PoolKind::Avg && op.count_include_pad;
    let mut cut = false;
    let mut explicit = false;
    let ceil = if op.pads.is_symmetric() {
        op.ceil_mode
    } else {
        match (wanted, out_with(false), out_with(true)) {
            (Some(wanted), Some(floor), _) if wanted == floor && !counts_all => false,
            (Some(wanted), _, Some(ceil)) if wanted == ceil && !counts_all => true,
            (Some(wanted), Some(floor), _) if !counts_all && wanted.iter().zip(&floor).all(|(w, f)| w <= f) => {
                cut = true;
                false
            }
            _ if op.kind == PoolKind::Max || counts_all => {
                explicit = true;
                op.ceil_mode
            }
            _ => return weighted_pool(b, op, &input, &output),
        }
    };
    let kind = if op.kind == PoolKind::Max { "Max" } else { "Avg" };
    let n = rank_suffix(rank);
    let kernel = Lit::sizes(&op.kernel);
    let stride = Lit::sizes(&op.strides);
    let padding = if explicit { vec![0; rank - 2] } else { padding };
    let mut args = vec![
        Arg::new(Expr::slot("kernel_size", kernel.clone())),
        Arg::keyword("stride", Expr::slot("stride", stride), Some(kernel)),
        Arg::keyword("padding", Expr::slot("padding", Lit::sizes(&padding)), Some(Lit::Int(0))),
    ];
    // PyTorch wants at most half the kernel on each side.
    if padding.iter().zip(&op.kernel).any(|(p, k)| p * 2 > *k) {
        return Err(b.problem("a pool with more padding than half its window can't be said in PyTorch"));
    }
    if op.kind == PoolKind::Max {
        args.push(Arg::keyword("dilation", Expr::slot("dilation", Lit::sizes(&op.dilations)), Some(Lit::Int(1))));
    } else if op.dilations.iter().any(|&d| d != 1) {
        return Err(b.problem("an average pool with dilation can't be said in PyTorch"));
    }
    args.push(Arg::keyword("ceil_mode", Expr::slot("ceil_mode", Lit::Bool(ceil)), Some(Lit::Bool(false))));
    if op.kind == PoolKind::Avg {
        // Says nothing where no window touches padding.
        let touches = padding.iter().any(|&p| p > 0) || ceil;
        let count = op.count_include_pad || !touches;
        args.push(Arg::keyword(
            "count_include_pad",
            Expr::slot("count_include_pad", Lit::Bool(count)),
            Some(Lit::Bool(true)),
        ));
    }
    let mut x = b.tensor(0)?;
    if explicit {
        let value = if op.kind == PoolKind::Max { f32::NEG_INFINITY } else { 0.0 };
        x = Expr::call(
            "F.pad",
            vec![
                Arg::new(x),
                Arg::new(Expr::slot("pad", pad_list(&op.pads.0))),
                Arg::keyword("value", Expr::slot("value", Lit::float(value)), Some(Lit::float(0.0))),
            ],
        );
    } else if !cut {
        b.as_module(Expr::call(&format!("nn.{kind}Pool{n}d"), args.clone()));
    }
    args.insert(0, Arg::new(x));
    let pooled = Expr::call(&format!("F.{}_pool{n}d", kind.to_lowercase()), args);
    if !cut {
        return Ok(pooled);
    }
    let mut items = vec![Expr::name(":"), Expr::name(":")];
    for dim in output.iter().skip(2) {
        let end = Expr::int("end", dim.known().unwrap_or(0));
        items.push(Expr::Range(None, Some(Box::new(end)), None));
    }
    Ok(pooled.index(items))
}

/// An average that leaves out padding which PyTorch can't place: over zeros, weighted by how much of each window lies
/// inside of the input.
fn weighted_pool(b: &mut Builder<'_>, op: &Pool, input: &Shape, output: &Shape) -> Built {
    let spatial = op.kernel.len();
    let known = |shape: &Shape| shape.iter().skip(2).map(modelport_ir::Dim::known).collect::<Option<Vec<usize>>>();
    let (Some(sizes), Some(outputs)) = (known(input), known(output)) else {
        return Err(b.problem("the size of the input is not known").hint("give the input's shape with --inputShape"));
    };
    let mut weights = vec![1f32];
    for axis in 0..spatial {
        let (before, kernel, stride) = (op.pads.0[axis].0, op.kernel[axis], op.strides[axis]);
        let inside = |i: usize| {
            let start = i * stride;
            let first = start.max(before);
            let last = (start + kernel).min(sizes[axis] + before);
            last.saturating_sub(first).max(1)
        };
        weights = weights
            .iter()
            .flat_map(|w| (0..outputs[axis]).map(move |i| w * kernel as f32 / inside(i) as f32))
            .collect();
    }
    let shape: Vec<usize> = outputs.clone();
    let tensor = Tensor::from_f32(&shape, &weights);
    let x = b.tensor(0)?;
    let weights = b.buffer("coverage", tensor, "");
    let padded = Expr::call("F.pad", vec![Arg::new(x), Arg::new(Expr::slot("pad", pad_list(&op.pads.0)))]);
    let kernel = Lit::sizes(&op.kernel);
    let pooled = Expr::call(
        &format!("F.avg_pool{spatial}d"),
        vec![
            Arg::new(padded),
            Arg::new(Expr::slot("kernel_size", kernel.clone())),
            Arg::keyword("stride", Expr::slot("stride", Lit::sizes(&op.strides)), Some(kernel)),
        ],
    );
    Ok(pooled.binary("*", weights))
}

/// `F.adaptive_avg_pool2d`.
pub fn adaptive_pool(b: &mut Builder<'_>, op: &AdaptivePool) -> Built {
    check_layout(b, op.layout)?;
    let rank = b.shape(0)?.rank();
    let kind = if op.kind == PoolKind::Max { "Max" } else { "Avg" };
    let n = rank_suffix(rank);
    let size = Expr::slot("output_size", Lit::sizes(&op.output_size));
    b.as_module(Expr::call(&format!("nn.Adaptive{kind}Pool{n}d"), vec![Arg::new(size.clone())]));
    let x = b.tensor(0)?;
    Ok(Expr::call(&format!("F.adaptive_{}_pool{n}d", kind.to_lowercase()), vec![Arg::new(x), Arg::new(size)]))
}
