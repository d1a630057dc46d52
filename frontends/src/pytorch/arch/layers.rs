//! The layers of `torch.nn`, by their attributes, and what torchvision makes of them.

use modelport_ir::{Dim, Result};

use super::call::{Forward, This, functional as F};
use crate::pytorch::arg::Arg;
use crate::pytorch::lower::Lower;

/// Calls an operator on the input and these attributes.
macro_rules! calls {
    ($($class:literal => $op:literal $(, $name:literal = $default:expr)*;)*) => {
        fn simple(class: &str) -> Option<Forward> {
            Some(match class {
                $($class => |this, net, x| {
                    let x = one(this, net, x)?;
                    let args: Vec<(&str, Arg)> = vec![$(($name, this.attr($name, $default))),*];
                    let mut all = vec![x];
                    all.extend(args.into_iter().map(|(_, arg)| arg));
                    net.call(concat!("aten.", $op), &all, &[])
                },)*
                _ => return None,
            })
        }
    };
}

calls! {
    "ReLU" => "relu"; "ReLU6" => "relu6"; "Sigmoid" => "sigmoid"; "Tanh" => "tanh"; "SELU" => "selu"; "SiLU" => "silu";
    "Mish" => "mish"; "Hardsigmoid" => "hardsigmoid"; "Hardswish" => "hardswish"; "Softsign" => "softsign";
    "LogSigmoid" => "log_sigmoid"; "Tanhshrink" => "tanhshrink";
    "LeakyReLU" => "leaky_relu", "negative_slope" = 0.01;
    "ELU" => "elu", "alpha" = 1.0;
    "CELU" => "celu", "alpha" = 1.0;
    "GELU" => "gelu", "approximate" = "none";
    "Hardtanh" => "hardtanh", "min_val" = -1.0, "max_val" = 1.0;
    "Softplus" => "softplus", "beta" = 1.0, "threshold" = 20.0;
    "Hardshrink" => "hardshrink", "lambd" = 0.5;
    "Softshrink" => "softshrink", "lambd" = 0.5;
    "Threshold" => "threshold", "threshold" = 0.0, "value" = 0.0;
    "RReLU" => "rrelu", "lower" = 0.125, "upper" = 1.0 / 3.0;
    "GLU" => "glu", "dim" = -1i64;
    "PixelShuffle" => "pixel_shuffle", "upscale_factor" = 1i64;
    "PixelUnshuffle" => "pixel_unshuffle", "downscale_factor" = 1i64;
    "ChannelShuffle" => "channel_shuffle", "groups" = 1i64;
    "Flatten" => "flatten", "start_dim" = 1i64, "end_dim" = -1i64;
    "Dropout" => "dropout", "p" = 0.5;
    "Dropout1d" => "feature_dropout", "p" = 0.5;
    "Dropout2d" => "feature_dropout", "p" = 0.5;
    "Dropout3d" => "feature_dropout", "p" = 0.5;
    "AlphaDropout" => "alpha_dropout", "p" = 0.5;
    "FeatureAlphaDropout" => "feature_alpha_dropout", "p" = 0.5;
    "MaxPool1d" => "max_pool1d", "kernel_size" = 1i64, "stride" = Arg::None, "padding" = 0i64, "dilation" = 1i64, "ceil_mode" = false;
    "MaxPool2d" => "max_pool2d", "kernel_size" = 1i64, "stride" = Arg::None, "padding" = 0i64, "dilation" = 1i64, "ceil_mode" = false;
    "MaxPool3d" => "max_pool3d", "kernel_size" = 1i64, "stride" = Arg::None, "padding" = 0i64, "dilation" = 1i64, "ceil_mode" = false;
    "AvgPool1d" => "avg_pool1d", "kernel_size" = 1i64, "stride" = Arg::None, "padding" = 0i64, "ceil_mode" = false, "count_include_pad" = true;
    "AvgPool2d" => "avg_pool2d", "kernel_size" = 1i64, "stride" = Arg::None, "padding" = 0i64, "ceil_mode" = false, "count_include_pad" = true, "divisor_override" = Arg::None;
    "AvgPool3d" => "avg_pool3d", "kernel_size" = 1i64, "stride" = Arg::None, "padding" = 0i64, "ceil_mode" = false, "count_include_pad" = true, "divisor_override" = Arg::None;
    "LPPool1d" => "lp_pool1d", "norm_type" = 2i64, "kernel_size" = 1i64, "stride" = Arg::None, "ceil_mode" = false;
    "LPPool2d" => "lp_pool2d", "norm_type" = 2i64, "kernel_size" = 1i64, "stride" = Arg::None, "ceil_mode" = false;
    "LocalResponseNorm" => "local_response_norm", "size" = 5i64, "alpha" = 1e-4, "beta" = 0.75, "k" = 1.0;
}

/// What a layer of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    if let Some(forward) = simple(class) {
        return Some(forward);
    }
    Some(match class {
        "Identity" => |this, net, x| one(this, net, x),
        "Sequential" => |this, net, x| {
            let x = one(this, net, x)?;
            this.sequence(net, &x)
        },
        // They have no forward() of their own: the class around them calls what is in them.
        "ModuleList" | "ModuleDict" => |this, net, _| Err(this.fail(net, "is called, which nn.ModuleList can't be")),
        "Conv1d" => |this, net, x| conv(this, net, x, 1),
        "Conv2d" => |this, net, x| conv(this, net, x, 2),
        "Conv3d" => |this, net, x| conv(this, net, x, 3),
        "ConvTranspose1d" => |this, net, x| conv_transpose(this, net, x, "aten.conv_transpose1d"),
        "ConvTranspose2d" => |this, net, x| conv_transpose(this, net, x, "aten.conv_transpose2d"),
        "ConvTranspose3d" => |this, net, x| conv_transpose(this, net, x, "aten.conv_transpose3d"),
        "AdaptiveAvgPool1d" => |this, net, x| adaptive(this, net, x, "aten.adaptive_avg_pool1d", 1),
        "AdaptiveAvgPool2d" => |this, net, x| adaptive(this, net, x, "aten.adaptive_avg_pool2d", 2),
        "AdaptiveAvgPool3d" => |this, net, x| adaptive(this, net, x, "aten.adaptive_avg_pool3d", 3),
        "AdaptiveMaxPool1d" => |this, net, x| adaptive(this, net, x, "aten.adaptive_max_pool1d", 1),
        "AdaptiveMaxPool2d" => |this, net, x| adaptive(this, net, x, "aten.adaptive_max_pool2d", 2),
        "AdaptiveMaxPool3d" => |this, net, x| adaptive(this, net, x, "aten.adaptive_max_pool3d", 3),
        "BatchNorm1d" | "BatchNorm2d" | "BatchNorm3d" | "SyncBatchNorm" => batch_norm,
        "LayerNorm" => layer_norm,
        "RMSNorm" => |this, net, x| {
            let x = one(this, net, x)?;
            let weight = this.weight(net, "weight");
            let args =
                [x, shape_of(&this.shape("weight"), this, "normalized_shape"), weight, this.attr("eps", Arg::None)];
            net.call("aten.rms_norm", &args, &[])
        },
        "GroupNorm" => |this, net, x| {
            let x = one(this, net, x)?;
            let (weight, bias) = (this.weight(net, "weight"), this.weight(net, "bias"));
            net.call("aten.group_norm", &[x, this.attr("num_groups", 1i64), weight, bias, this.attr("eps", 1e-5)], &[])
        },
        "InstanceNorm1d" | "InstanceNorm2d" | "InstanceNorm3d" => instance_norm,
        "Linear" | "NonDynamicallyQuantizableLinear" => |this, net, x| {
            let x = one(this, net, x)?;
            let (weight, bias) = (this.weight(net, "weight"), this.weight(net, "bias"));
            net.call("aten.linear", &[x, weight, bias], &[])
        },
        "Bilinear" => |this, net, x| {
            let [a, b] = x else { return Err(this.fail(net, "takes two inputs")) };
            let (weight, bias) = (this.weight(net, "weight"), this.weight(net, "bias"));
            net.call("aten.bilinear", &[a.clone(), b.clone(), weight, bias], &[])
        },
        "Embedding" => |this, net, x| {
            let x = one(this, net, x)?;
            let weight = this.weight(net, "weight");
            net.call("aten.embedding", &[weight, x], &[])
        },
        "PReLU" => |this, net, x| {
            let x = one(this, net, x)?;
            let weight = this.weight(net, "weight");
            net.call("aten.prelu", &[x, weight], &[])
        },
        "Softmax" => |this, net, x| softmax(this, net, x, "aten.softmax"),
        "LogSoftmax" => |this, net, x| softmax(this, net, x, "aten.log_softmax"),
        "Softmin" => |this, net, x| softmax(this, net, x, "aten.softmin"),
        "Softmax2d" => |this, net, x| {
            let x = one(this, net, x)?;
            net.call("aten.softmax", &[x, (-3i64).into()], &[])
        },
        "Unflatten" => |this, net, x| {
            let x = one(this, net, x)?;
            net.call("aten.unflatten", &[x, this.attr("dim", 1i64), this.attr("unflattened_size", Arg::None)], &[])
        },
        "Unfold" => |this, net, x| {
            let x = one(this, net, x)?;
            let args = [("kernel_size", 1i64), ("dilation", 1), ("padding", 0), ("stride", 1)];
            let mut all = vec![x];
            all.extend(args.into_iter().map(|(name, default)| pair(this.attr(name, default), 2)));
            net.call("aten.im2col", &all, &[])
        },
        "Fold" => |this, net, x| {
            let x = one(this, net, x)?;
            let args = [("output_size", 1i64), ("kernel_size", 1), ("dilation", 1), ("padding", 0), ("stride", 1)];
            let mut all = vec![x];
            all.extend(args.into_iter().map(|(name, default)| pair(this.attr(name, default), 2)));
            net.call("aten.col2im", &all, &[])
        },
        "ZeroPad1d" | "ZeroPad2d" | "ZeroPad3d" | "ConstantPad1d" | "ConstantPad2d" | "ConstantPad3d" => {
            |this, net, x| {
                let x = one(this, net, x)?;
                net.call("aten.constant_pad_nd", &[x, this.attr("padding", 0i64), this.attr("value", 0i64)], &[])
            }
        }
        "ReflectionPad1d" | "ReflectionPad2d" | "ReflectionPad3d" => |this, net, x| pad(this, net, x, "reflect"),
        "ReplicationPad1d" | "ReplicationPad2d" | "ReplicationPad3d" => |this, net, x| pad(this, net, x, "replicate"),
        "CircularPad1d" | "CircularPad2d" | "CircularPad3d" => |this, net, x| pad(this, net, x, "circular"),
        "Upsample" | "UpsamplingNearest2d" | "UpsamplingBilinear2d" => upsample,
        "CosineSimilarity" | "PairwiseDistance" => return None,
        _ => return None,
    })
}

/// What a class of `torchvision.ops` computes.
pub fn torchvision(class: &str) -> Option<Forward> {
    Some(match class {
        "ConvNormActivation" | "Conv2dNormActivation" | "Conv3dNormActivation" | "MLP" => |this, net, x| {
            let x = one(this, net, x)?;
            this.sequence(net, &x)
        },
        "SqueezeExcitation" => |this, net, x| {
            let x = one(this, net, x)?;
            let scale = this.chain(net, &["avgpool", "fc1", "activation", "fc2", "scale_activation"], &x)?;
            F::mul(net, &scale, &x)
        },
        "Permute" => |this, net, x| {
            let x = one(this, net, x)?;
            net.call("aten.permute", &[x, this.attr("dims", Arg::None)], &[])
        },
        "FrozenBatchNorm2d" => batch_norm,
        // It drops whole samples while training.
        "StochasticDepth" => |this, net, x| one(this, net, x),
        _ => return None,
    })
}

/// The only input of a layer.
pub fn one(this: &This, net: &Lower, x: &[Arg]) -> Result<Arg> {
    match x {
        [x, ..] => Ok(x.clone()),
        [] => Err(this.fail(net, "takes an input")),
    }
}

fn pair(arg: Arg, rank: usize) -> Arg {
    match arg {
        Arg::Int(_) => Arg::List(vec![arg; rank]),
        arg => arg,
    }
}

fn shape_of(shape: &[usize], this: &This, attribute: &str) -> Arg {
    if shape.is_empty() { this.attr(attribute, Arg::None) } else { shape.into() }
}

fn conv(this: &This, net: &mut Lower, x: &[Arg], rank: usize) -> Result<Arg> {
    let mut x = one(this, net, x)?;
    let (weight, bias) = (this.weight(net, "weight"), this.weight(net, "bias"));
    // A state dict has only the channels of a group.
    let groups = match (this.attr("groups", Arg::None), net.info(&x).and_then(|(_, shape)| shape.get(1).cloned())) {
        (Arg::None, Some(Dim::Known(channels))) => match this.shape("weight").get(1) {
            Some(&per_group) if per_group > 0 && channels % per_group == 0 => (channels / per_group).into(),
            _ => 1i64.into(),
        },
        (Arg::None, _) => 1i64.into(),
        (groups, _) => groups,
    };
    let mut padding = this.attr("padding", 0i64);
    let mode = this.text("padding_mode").unwrap_or("zeros");
    if mode != "zeros" {
        let repeated = this.attr("_reversed_padding_repeated_twice", Arg::None);
        let mode = if mode == "constant" { mode } else { mode.trim_end_matches("ed") };
        x = net.call("aten.pad", &[x, repeated, mode.into()], &[])?;
        padding = 0i64.into();
    }
    let args = [x, weight, bias, this.attr("stride", 1i64), padding, this.attr("dilation", 1i64), groups];
    net.call(["aten.conv1d", "aten.conv2d", "aten.conv3d"][rank - 1], &args, &[])
}

fn conv_transpose(this: &This, net: &mut Lower, x: &[Arg], op: &str) -> Result<Arg> {
    let x = one(this, net, x)?;
    let (weight, bias) = (this.weight(net, "weight"), this.weight(net, "bias"));
    let args = [
        x,
        weight,
        bias,
        this.attr("stride", 1i64),
        this.attr("padding", 0i64),
        this.attr("output_padding", 0i64),
        this.attr("groups", 1i64),
        this.attr("dilation", 1i64),
    ];
    net.call(op, &args, &[])
}

fn adaptive(this: &This, net: &mut Lower, x: &[Arg], op: &str, rank: usize) -> Result<Arg> {
    let x = one(this, net, x)?;
    let result = net.call(op, &[x, pair(this.attr("output_size", 1i64), rank)], &[])?;
    Ok(match result {
        // The second is where the largest element was.
        Arg::List(mut list) if !list.is_empty() => list.swap_remove(0),
        result => result,
    })
}

fn batch_norm(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let args = [
        x,
        this.weight(net, "weight"),
        this.weight(net, "bias"),
        this.weight(net, "running_mean"),
        this.weight(net, "running_var"),
        false.into(),
        0.1.into(),
        this.attr("eps", 1e-5),
    ];
    net.call("aten.batch_norm", &args, &[])
}

fn layer_norm(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let (weight, bias) = (this.weight(net, "weight"), this.weight(net, "bias"));
    let shape = shape_of(&this.shape("weight"), this, "normalized_shape");
    net.call("aten.layer_norm", &[x, shape, weight, bias, this.attr("eps", 1e-5)], &[])
}

fn instance_norm(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let (weight, bias) = (this.weight(net, "weight"), this.weight(net, "bias"));
    if this.flag("track_running_stats", false) {
        return batch_norm(this, net, x);
    }
    let x = one(this, net, x)?;
    let (none, eps) = (Arg::None, this.attr("eps", 1e-5));
    net.call(
        "aten.instance_norm",
        &[x, weight, bias, none.clone(), none, true.into(), 0.1.into(), eps, true.into()],
        &[],
    )
}

fn softmax(this: &This, net: &mut Lower, x: &[Arg], op: &str) -> Result<Arg> {
    let x = one(this, net, x)?;
    let rank = net.info(&x).map_or(2, |(_, shape)| shape.rank());
    // What softmax takes without being told.
    let implicit = if matches!(rank, 0 | 1 | 3) { 0i64 } else { 1 };
    let axis = match this.attr("dim", Arg::None) {
        Arg::None => implicit.into(),
        axis => axis,
    };
    net.call(op, &[x, axis], &[])
}

fn pad(this: &This, net: &mut Lower, x: &[Arg], mode: &str) -> Result<Arg> {
    let x = one(this, net, x)?;
    net.call("aten.pad", &[x, this.attr("padding", 0i64), mode.into()], &[])
}

fn upsample(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let Some((_, shape)) = net.info(&x) else { return Err(this.fail(net, "takes a tensor")) };
    let rank = shape.rank().saturating_sub(2);
    let mode = this.text("mode").unwrap_or("nearest");
    let (size, scale) = (pair(this.attr("size", Arg::None), rank), this.attr("scale_factor", Arg::None));
    let scale = match scale {
        Arg::Float(_) => Arg::List(vec![scale; rank]),
        Arg::Int(_) => Arg::List(vec![scale.float().map_or(Arg::None, Arg::Float); rank]),
        scale => scale,
    };
    interpolate(this, net, &x, (size, scale), mode, this.attr("align_corners", false))
}

/// `F.interpolate` to a size, or by a scale.
pub fn interpolate(
    this: &This,
    net: &mut Lower,
    x: &Arg,
    (size, scale): (Arg, Arg),
    mode: &str,
    align_corners: Arg,
) -> Result<Arg> {
    let rank = net.info(x).map_or(0, |(_, shape)| shape.rank().saturating_sub(2));
    let align = if align_corners.is_none() { false.into() } else { align_corners };
    let op = match (mode, rank) {
        ("nearest", 1..=3) => format!("aten.upsample_nearest{rank}d.vec"),
        ("nearest-exact", 1..=3) => format!("aten._upsample_nearest_exact{rank}d.vec"),
        ("linear", 1) => "aten.upsample_linear1d.vec".to_owned(),
        ("bilinear", 2) => "aten.upsample_bilinear2d.vec".to_owned(),
        ("trilinear", 3) => "aten.upsample_trilinear3d.vec".to_owned(),
        ("bicubic", 2) => "aten.upsample_bicubic2d.vec".to_owned(),
        ("area", 2) if !size.is_none() => return net.call("aten.adaptive_avg_pool2d", &[x.clone(), size], &[]),
        _ => return Err(this.fail(net, format!("the mode '{mode}' of resizing is not translated"))),
    };
    let args = match mode.starts_with("nearest") {
        true => vec![x.clone(), size, scale],
        false => vec![x.clone(), size, align, scale],
    };
    net.call(&op, &args, &[])
}
