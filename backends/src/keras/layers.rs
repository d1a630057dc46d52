//! Layers with weights, and dropout.

use modelport_ir::op::{BatchNorm, Conv, ConvTranspose, GroupNorm, LayerNorm, PRelu, Pads};
use modelport_ir::shape::same_padding;
use modelport_ir::{Dim, Layout, Problem, Tensor};

use super::build::{Builder, Built, call_layer, pad_lit};
use crate::plan::Param;
use crate::python::{Arg, Expr, Lit};

/// Fails unless the channels are last.
pub fn check_layout(b: &Builder<'_>, layout: Layout) -> Result<(), Problem> {
    match layout {
        Layout::ChannelsLast => Ok(()),
        Layout::ChannelsFirst => Err(b.problem("a layer was left with channels first, expected channels last")),
    }
}

/// Whether padding is what Keras calls `same` for an input of this shape, `[N, spatial…, C]`. With strides that depends
/// on the size; a source whose padding does not is taken at its word.
pub fn is_same(b: &Builder<'_>, kernel: &[usize], strides: &[usize], dilations: &[usize], pads: &Pads) -> bool {
    let Ok(input) = b.shape(0) else { return false };
    let strided = strides.iter().any(|&stride| stride > 1);
    if strided && !b.graph.modules.is_empty() && pads.0.iter().all(|(before, after)| before == after) {
        return false;
    }
    pads.0.iter().enumerate().all(|(i, &pad)| match input[i + 1].known() {
        Some(size) => pad == same_padding(size, kernel[i], strides[i], dilations[i]),
        // With stride 1 it does not depend on the size.
        None if strides[i] == 1 => {
            let total = kernel[i].saturating_sub(1) * dilations[i];
            pad == (total / 2, total - total / 2)
        }
        None => false,
    })
}

/// `layers.ZeroPadding2D(…)(x)`.
pub fn zero_padding(pads: &[(usize, usize)], x: Expr) -> Expr {
    let padding = Arg::or("padding", Expr::slot("padding", pad_lit(pads)), Lit::Int(1));
    call_layer(&format!("ZeroPadding{}D", pads.len()), vec![padding], x)
}

/// `layers.Cropping2D(…)(x)`.
pub fn cropping(crops: &[(usize, usize)], x: Expr) -> Expr {
    let crop = Arg::or("cropping", Expr::slot("cropping", pad_lit(crops)), Lit::None);
    call_layer(&format!("Cropping{}D", crops.len()), vec![crop], x)
}

/// A kernel of one element has no padding, whatever is said.
fn padding(same: bool, kernel: &[usize]) -> Arg {
    let value = match same {
        true => Lit::Str("same".to_owned()),
        false if kernel.iter().all(|&size| size == 1) => Lit::Any,
        false => Lit::Str("valid".to_owned()),
    };
    Arg::keyword("padding", Expr::slot("padding", value), Some(Lit::Str("valid".to_owned())))
}

fn flag(name: &str, value: bool) -> Arg {
    Arg::keyword(name, Expr::slot(name, Lit::Bool(value)), Some(Lit::Bool(true)))
}

/// `layers.Conv2D`, or `layers.DepthwiseConv2D`, with `ZeroPadding2D` in front where the padding is not `same`.
pub fn conv(b: &mut Builder<'_>, op: &Conv) -> Built {
    check_layout(b, op.layout)?;
    let n = b.shape(0)?.rank() - 2;
    if !b.is_constant(1) {
        return functional_conv(b, op);
    }
    let mut kernel = b.required(1, "kernel")?;
    let shape = kernel.tensor.shape();
    let size = &shape[..n];
    let (per_group, out) = (shape[n], shape[n + 1]);
    let strided = op.strides.iter().any(|&s| s > 1);
    let dilated = op.dilations.iter().any(|&d| d > 1);
    // Keras has no dilation with strides: every stride-th element of a convolution without is the same.
    let picked = strided && dilated;
    let strides = if picked { vec![1; n] } else { op.strides.clone() };
    let same = is_same(b, size, &strides, &op.dilations, &op.pads);
    let needs_pad = !same && !op.pads.is_zero();
    let same = same && !op.pads.is_zero();
    // TensorFlow's depthwise kernels want one stride for both axes.
    let even = strides.windows(2).all(|pair| pair[0] == pair[1]) && op.dilations.windows(2).all(|p| p[0] == p[1]);
    let depthwise = op.groups > 1 && per_group == 1 && n <= 2 && even;
    let mut args = Vec::new();
    let class = if depthwise {
        let multiplier = out / op.groups;
        let to: Vec<usize> = size.iter().copied().chain([op.groups, multiplier]).collect();
        kernel.tensor = kernel.tensor.reshaped(&to).map_err(|message| b.problem(message))?;
        args.push(Arg::or("kernel_size", Expr::slot("kernel_size", Lit::sizes(size)), Lit::None));
        args.push(Arg::or("strides", Expr::slot("strides", Lit::sizes(&strides)), Lit::Int(1)));
        args.push(padding(same, if needs_pad { &[0] } else { size }));
        args.push(Arg::keyword("depth_multiplier", Expr::int("multiplier", multiplier), Some(Lit::Int(1))));
        format!("DepthwiseConv{n}D")
    } else {
        args.push(Arg::or("filters", Expr::int("filters", out), Lit::None));
        args.push(Arg::or("kernel_size", Expr::slot("kernel_size", Lit::sizes(size)), Lit::None));
        args.push(Arg::or("strides", Expr::slot("strides", Lit::sizes(&strides)), Lit::Int(1)));
        args.push(padding(same, if needs_pad { &[0] } else { size }));
        format!("Conv{n}D")
    };
    let dilation = Expr::slot("dilation", Lit::sizes(&op.dilations));
    args.push(Arg::keyword("dilation_rate", dilation, Some(Lit::Int(1))));
    if !depthwise {
        args.push(Arg::keyword("groups", Expr::int("groups", op.groups), Some(Lit::Int(1))));
    }
    let mut params = vec![kernel];
    params.extend(b.param(2, "bias")?);
    args.push(flag("use_bias", params.len() > 1));
    let ctor = Expr::call(&format!("layers.{class}"), args);
    let pads = op.pads.0.clone();
    let before = move |x: Expr| zero_padding(&pads, x);
    let before: Option<&dyn Fn(Expr) -> Expr> = if needs_pad { Some(&before) } else { None };
    let called = b.layer("conv", ctor, params, before)?;
    if !picked {
        return Ok(called);
    }
    b.no_module();
    let step = |&s: &usize| match s {
        1 => Expr::name(":"),
        s => Expr::Range(None, None, Some(Box::new(Expr::int("stride", s)))),
    };
    Ok(called.index(std::iter::once(Expr::name(":")).chain(op.strides.iter().map(step)).collect()))
}

fn functional_conv(b: &mut Builder<'_>, op: &Conv) -> Built {
    let n = op.strides.len();
    let strided = op.strides.iter().any(|&s| s > 1);
    if op.groups > 1 || (strided && op.dilations.iter().any(|&d| d > 1)) {
        let message = "a convolution in groups or with strides and dilation needs a kernel that is constant in Keras";
        return Err(b.problem(message));
    }
    let mut x = b.tensor(0)?;
    if !op.pads.is_zero() {
        x = zero_padding(&op.pads.0, x);
    }
    let kernel = b.tensor(1)?;
    let strides = Expr::slot("strides", if n == 0 { Lit::Int(1) } else { Lit::sizes(&op.strides) });
    let dilation = Expr::slot("dilation", Lit::sizes(&op.dilations));
    let y = Expr::call(
        "ops.conv",
        vec![
            Arg::new(x),
            Arg::new(kernel),
            Arg::or("strides", strides, Lit::Int(1)),
            Arg::keyword("dilation_rate", dilation, Some(Lit::Int(1))),
        ],
    );
    Ok(if b.has(2).is_some() { y.binary("+", b.tensor(2)?) } else { y })
}

/// `layers.Conv2DTranspose`, cropped. Zeros behind the input give what is appended beyond the full result.
pub fn conv_transpose(b: &mut Builder<'_>, op: &ConvTranspose) -> Built {
    check_layout(b, op.layout)?;
    let n = b.shape(0)?.rank() - 2;
    let input = b.shape(0)?.clone();
    let kernel = b.required(1, "kernel")?;
    let shape = kernel.tensor.shape();
    let dilated = op.dilations.iter().any(|&d| d > 1);
    if dilated && op.strides.iter().any(|&s| s > 1) {
        return Err(b.problem("a transposed convolution with strides and dilation can't be said in Keras"));
    }
    // Keras' `valid` result has `max((size - 1) * stride + reach, size * stride)` elements.
    let mut more = vec![(0, 0); n];
    let mut crops = vec![(0, 0); n];
    let mut same = true;
    for i in 0..n {
        let (before, after) = op.pads.0[i];
        let (stride, reach) = (op.strides[i], (shape[i] - 1) * op.dilations[i] + 1);
        let beyond = (stride as i64 - reach as i64).max(0);
        // What is left over at the end of Keras' result; negative: what it lacks.
        let rest = beyond + after as i64 - op.output_padding[i] as i64;
        let lacking = usize::try_from(-rest).unwrap_or(0).div_ceil(stride);
        more[i] = (0, lacking);
        let rest = usize::try_from(rest + (lacking * stride) as i64).unwrap_or(0);
        crops[i] = (before, rest);
        let total = reach.saturating_sub(stride);
        same &= op.dilations[i] == 1 && total % 2 == 0 && lacking == 0 && crops[i] == (total / 2, total / 2);
    }
    let cropped = !same && crops.iter().any(|&crop| crop != (0, 0));
    let same = same && crops.iter().any(|&crop| crop != (0, 0));
    let padded = more.iter().any(|&pad| pad != (0, 0));
    let ctor = |filters: usize, bias: bool| {
        Expr::call(
            &format!("layers.Conv{n}DTranspose"),
            vec![
                Arg::or("filters", Expr::int("filters", filters), Lit::None),
                Arg::or("kernel_size", Expr::slot("kernel_size", Lit::sizes(&shape[..n])), Lit::None),
                Arg::or("strides", Expr::slot("strides", Lit::sizes(&op.strides)), Lit::Int(1)),
                padding(same, &[0]),
                Arg::keyword("dilation_rate", Expr::slot("dilation", Lit::sizes(&op.dilations)), Some(Lit::Int(1))),
                flag("use_bias", bias),
            ],
        )
    };
    let bias = b.param(2, "bias")?;
    let crop = |y: Expr| if cropped { cropping(&crops, y) } else { y };
    let pads = more.clone();
    let before = move |x: Expr| zero_padding(&pads, x);
    if op.groups == 1 {
        let before: Option<&dyn Fn(Expr) -> Expr> = if padded { Some(&before) } else { None };
        let ctor = ctor(shape[n], bias.is_some());
        let params = std::iter::once(kernel).chain(bias).collect();
        let called = b.layer("conv", ctor, params, before)?;
        if cropped {
            b.no_module();
        }
        return Ok(crop(called));
    }
    // Keras has no groups here: a layer for each, on its share of the channels.
    let channels = input.last().and_then(Dim::known).ok_or_else(|| b.unknown("the number of channels"))?;
    let mut x = b.tensor(0)?;
    if padded {
        x = before(x);
    }
    let (per_in, per_out) = (channels / op.groups, shape[n]);
    let mut parts = Vec::new();
    for group in 0..op.groups {
        let cut = |tensor: &Tensor, axis: usize, size: usize| {
            tensor.sliced(axis, group * size, (group + 1) * size).map_err(|message| b.problem(message))
        };
        let mut params = vec![Param { tensor: cut(&kernel.tensor, n + 1, per_in)?, ..kernel.clone() }];
        if let Some(bias) = &bias {
            params.push(Param { tensor: cut(&bias.tensor, 0, per_out)?, ..bias.clone() });
        }
        let bounds = |i: usize| Some(Box::new(Expr::int("channel", i * per_in)));
        let part = Expr::Range(bounds(group), bounds(group + 1), None);
        let part = x.clone().index(vec![Expr::name(":"); n + 1].into_iter().chain([part]).collect());
        let ctor = ctor(per_out, bias.is_some());
        parts.push(b.layer_of("conv", ctor, params, part));
    }
    Ok(crop(call_layer("Concatenate", Vec::new(), Expr::List(parts))))
}

/// `layers.Dense`.
pub fn dense(b: &mut Builder<'_>) -> Built {
    if !b.is_constant(1) {
        let (x, w) = (b.tensor(0)?, b.tensor(1)?);
        let product = Expr::call("ops.matmul", vec![Arg::new(x), Arg::new(w)]);
        return Ok(if b.has(2).is_some() { product.binary("+", b.tensor(2)?) } else { product });
    }
    let kernel = b.required(1, "kernel")?;
    let units = kernel.tensor.shape()[1];
    if b.shape(0)?.rank() == 1 {
        return Err(b.problem("a dense layer on a vector without a batch can't be said in Keras"));
    }
    let params: Vec<Param> = std::iter::once(kernel).chain(b.param(2, "bias")?).collect();
    let ctor = Expr::call(
        "layers.Dense",
        vec![Arg::or("units", Expr::int("units", units), Lit::None), flag("use_bias", params.len() > 1)],
    );
    b.layer("fc", ctor, params, None)
}

fn channels(b: &Builder<'_>) -> Result<usize, Problem> {
    b.shape(0)?.last().and_then(Dim::known).ok_or_else(|| b.unknown("the number of channels"))
}

/// `gamma` and `beta` of a normalisation.
fn affine(b: &Builder<'_>) -> Result<Vec<Param>, Problem> {
    Ok(b.param(1, "gamma")?.into_iter().chain(b.param(2, "beta")?).collect())
}

/// Whether scale or bias are computed.
fn is_computed(b: &Builder<'_>, slots: std::ops::Range<usize>) -> bool {
    slots.into_iter().any(|slot| b.has(slot).is_some() && !b.is_constant(slot))
}

fn epsilon(value: f32) -> Arg {
    Arg::keyword("epsilon", Expr::slot("epsilon", Lit::float(value)), Some(Lit::float(1e-3)))
}

/// What layers of normalisation have in common.
fn norm_args(b: &Builder<'_>, eps: f32) -> Vec<Arg> {
    vec![
        epsilon(eps),
        Arg::keyword("center", Expr::slot("center", Lit::Bool(b.has(2).is_some())), Some(Lit::Bool(true))),
        Arg::keyword("scale", Expr::slot("scale", Lit::Bool(b.has(1).is_some())), Some(Lit::Bool(true))),
    ]
}

/// `layers.BatchNormalization`.
pub fn batch_norm(b: &mut Builder<'_>, op: &BatchNorm) -> Built {
    if b.shape(0)?.rank() > 2 {
        check_layout(b, op.layout)?;
    }
    if is_computed(b, 1..5) {
        let (x, mean, variance) = (b.tensor(0)?, b.tensor(3)?, b.tensor(4)?);
        let eps = Expr::slot("epsilon", Lit::float(op.epsilon));
        let deviation = Expr::call("ops.sqrt", vec![Arg::new(variance.binary("+", eps))]);
        return scaled(b, x.binary("-", mean).binary("/", deviation));
    }
    let mut params = affine(b)?;
    params.push(b.required(3, "moving_mean")?);
    params.push(b.required(4, "moving_variance")?);
    // The share that the old statistics keep.
    let momentum = op.momentum.map_or(0.99, |new| (1.0 - f64::from(new)) as f32);
    // 1 - 0.1 in float32 is not 0.9.
    let momentum = (momentum * 1e6).round() / 1e6;
    let mut args = norm_args(b, op.epsilon);
    let default = Some(Lit::float(0.99));
    args.insert(0, Arg::keyword("momentum", Expr::slot("momentum", Lit::float(momentum)), default));
    b.layer("bn", Expr::call("layers.BatchNormalization", args), params, None)
}

/// `x * scale + bias` with what stands in slots 1 and 2.
fn scaled(b: &mut Builder<'_>, mut x: Expr) -> Built {
    if b.has(1).is_some() {
        x = x.binary("*", b.tensor(1)?);
    }
    if b.has(2).is_some() {
        x = x.binary("+", b.tensor(2)?);
    }
    Ok(x)
}

/// `layers.LayerNormalization`.
pub fn layer_norm(b: &mut Builder<'_>, op: &LayerNorm) -> Built {
    let rank = b.shape(0)?.rank();
    let sorted = op.axes.is_sorted();
    // A parameter has the shape of the axes in their order; Keras' are sorted.
    if is_computed(b, 1..3) || !sorted || op.axes.contains(&0) {
        if !sorted || !op.axes.iter().copied().eq(rank - op.axes.len()..rank) {
            return Err(b.problem("a layer normalisation over these axes can't be said in Keras with computed weights"));
        }
        let x = b.tensor(0)?;
        let moment = |name: &str, x: Expr| {
            let axis = Expr::slot("axis", Lit::tuple(&op.axes));
            let keep = Arg::keyword("keepdims", Expr::slot("keepdims", Lit::Bool(true)), None);
            Expr::call(name, vec![Arg::new(x), Arg::keyword("axis", axis, None), keep])
        };
        let eps = Expr::slot("epsilon", Lit::float(op.epsilon));
        let deviation = Expr::call("ops.sqrt", vec![Arg::new(moment("ops.var", x.clone()).binary("+", eps))]);
        return scaled(b, x.clone().binary("-", moment("ops.mean", x)).binary("/", deviation));
    }
    let params = affine(b)?;
    let axis = match op.axes.as_slice() {
        [axis] if axis + 1 == rank => Lit::Int(-1),
        [axis] => Lit::size(*axis),
        axes => Lit::List(axes.iter().copied().map(Lit::size).collect()),
    };
    let mut args = norm_args(b, op.epsilon);
    args.insert(0, Arg::or("axis", Expr::slot("axis", axis), Lit::Int(-1)));
    b.layer("norm", Expr::call("layers.LayerNormalization", args), params, None)
}

/// `layers.GroupNormalization`; instance normalisation has as many groups as channels.
pub fn group_norm(b: &mut Builder<'_>, op: &GroupNorm) -> Built {
    check_layout(b, op.layout)?;
    group_layer(b, op.groups, op.epsilon)
}

/// As [`group_norm`].
pub fn instance_norm(b: &mut Builder<'_>, eps: f32, layout: Layout) -> Built {
    check_layout(b, layout)?;
    let groups = channels(b)?;
    group_layer(b, groups, eps)
}

fn group_layer(b: &mut Builder<'_>, groups: usize, eps: f32) -> Built {
    let mut args = vec![Arg::or("groups", Expr::int("groups", groups), Lit::Int(32)), epsilon(eps)];
    if is_computed(b, 1..3) {
        args.extend(["center", "scale"].map(|name| flag(name, false)));
        let x = b.tensor(0)?;
        let x = call_layer("GroupNormalization", args, x);
        return scaled(b, x);
    }
    let params = affine(b)?;
    args.extend(norm_args(b, eps).split_off(1));
    b.layer("norm", Expr::call("layers.GroupNormalization", args), params, None)
}

/// `layers.PReLU`, its slope shared over space.
pub fn prelu(b: &mut Builder<'_>, op: &PRelu) -> Built {
    let rank = b.shape(0)?.rank();
    if rank > 2 {
        check_layout(b, op.layout)?;
    }
    if !b.is_constant(1) {
        let (x, slope) = (b.tensor(0)?, b.tensor(1)?);
        let zero = || Expr::slot("value", Lit::float(0.0));
        let call = |name: &str, x: Expr| Expr::call(name, vec![Arg::new(x), Arg::new(zero())]);
        let negative = slope.binary("*", call("ops.minimum", x.clone()));
        return Ok(call("ops.maximum", x).binary("+", negative));
    }
    let mut slope = b.required(1, "alpha")?;
    let channels = channels(b)?;
    let one = slope.tensor.numel() == 1 && channels != 1;
    if one && rank < 2 {
        return Err(b.problem("a PReLU on a vector without a batch can't be said in Keras"));
    }
    let shared: Vec<usize> = if one { (1..rank).collect() } else { (1..rank - 1).collect() };
    let mut shape = vec![1; rank - 1];
    if let (false, Some(last)) = (one, shape.last_mut()) {
        *last = channels;
    }
    slope.tensor = slope.tensor.reshaped(&shape).map_err(|message| b.problem(message))?;
    let shared = match shared.as_slice() {
        [] => Lit::None,
        axes => Lit::List(axes.iter().copied().map(Lit::size).collect()),
    };
    let arg = Arg::keyword("shared_axes", Expr::slot("shared_axes", shared), Some(Lit::None));
    b.layer("prelu", Expr::call("layers.PReLU", vec![arg]), vec![slope], None)
}

/// `layers.Dropout`.
pub fn dropout(b: &mut Builder<'_>, rate: f32) -> Built {
    let ctor = Expr::call("layers.Dropout", vec![Arg::or("rate", Expr::slot("rate", Lit::float(rate)), Lit::None)]);
    b.layer("dropout", ctor, Vec::new(), None)
}

/// `layers.Embedding`.
pub fn embedding(b: &mut Builder<'_>) -> Built {
    let table = b.required(0, "embeddings")?;
    let shape = table.tensor.shape();
    let ctor = Expr::call(
        "layers.Embedding",
        vec![
            Arg::or("input_dim", Expr::int("input_dim", shape[0]), Lit::None),
            Arg::or("output_dim", Expr::int("output_dim", shape[1]), Lit::None),
        ],
    );
    let ids = b.tensor(1)?;
    Ok(b.layer_of("embedding", ctor, vec![table], ids))
}
