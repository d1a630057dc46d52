//! torchvision's `models/maxvit.py`.

use modelport_ir::Result;

use super::build::*;
use super::call::{Forward, This, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::arg::Arg;
use crate::pytorch::lower::Lower;
use crate::pytorch::module::ModuleTree;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "MaxVit" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.call(net, "stem", &x)?;
            let x = this.each(net, "blocks", &x)?;
            if this.has("classifier") { this.call(net, "classifier", &x) } else { Ok(x) }
        },
        "MaxVitBlock" => |this, net, x| {
            let x = one(this, net, x)?;
            this.each(net, "layers", &x)
        },
        "MaxVitLayer" => |this, net, x| {
            let x = one(this, net, x)?;
            this.call(net, "layers", &x)
        },
        "MBConv" => |this, net, x| {
            let x = one(this, net, x)?;
            let shortcut = this.call(net, "proj", &x)?;
            let x = this.chain(net, &["layers", "stochastic_depth"], &x)?;
            F::add(net, &shortcut, &x)
        },
        "PartitionAttentionLayer" => partition_attention,
        "RelativePositionalMultiHeadAttention" => attention,
        "SwapAxes" => |this, net, x| {
            let x = one(this, net, x)?;
            net.call("aten.transpose", &[x, this.attr("a", -2i64), this.attr("b", -3i64)], &[])
        },
        "WindowPartition" => partition,
        "WindowDepartition" => departition,
        _ => return None,
    })
}

/// The known size of an axis.
fn size(this: &This, net: &Lower, x: &Arg, axis: usize) -> Result<i64> {
    let dim = net.info(x).and_then(|(_, shape)| shape.get(axis)?.known());
    let size = dim.and_then(|size| i64::try_from(size).ok()).filter(|&size| size > 0);
    size.ok_or_else(|| this.fail(net, "the windows need a known height and width; give --inputShape"))
}

/// Attention within windows of `partition_size`, or between the places that are as far apart as there are windows.
fn partition_attention(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let (height, width) = (size(this, net, &x, 2)?, size(this, net, &x, 3)?);
    let Some(p) = this.attr("p", Arg::None).int().filter(|&p| p > 0) else {
        return Err(this.fail(net, "the size of the windows is not known"));
    };
    let p = match this.text("partition_type") {
        Some("grid") => height / this.attr("g", 1i64).int().unwrap_or(1).max(1),
        _ => p,
    };
    if p == 0 || height % p != 0 || width % p != 0 {
        let message = format!("takes {height} x {width} places, which windows of {p} x {p} do not divide");
        return Err(this.fail(net, message));
    }
    let x = this.call_all(net, "partition_op", &[x, p.into()])?;
    let mut x = this.call(net, "partition_swap", &x)?;
    for layer in ["attn_layer", "mlp_layer"] {
        let out = this.chain(net, &[layer, "stochastic_dropout"], &x)?;
        x = F::add(net, &x, &out)?;
    }
    let x = this.call(net, "departition_swap", &x)?;
    this.call_all(net, "departition_op", &[x, p.into(), (height / p).into(), (width / p).into()])
}

/// The whole numbers after the tensor.
fn numbers<const N: usize>(args: &[Arg]) -> Option<[i64; N]> {
    let numbers: Vec<i64> = args.iter().skip(1).map(Arg::int).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// `[batch, channels, height, width]` as `[batch, windows, places, channels]`.
fn partition(this: &This, net: &mut Lower, args: &[Arg]) -> Result<Arg> {
    let ([x, ..], Some([p])) = (args, numbers(args)) else {
        return Err(this.fail(net, "takes a tensor and the size of a window"));
    };
    let (channels, height, width) = (size(this, net, x, 1)?, size(this, net, x, 2)?, size(this, net, x, 3)?);
    let (down, across) = (height / p, width / p);
    let x = F::reshape(net, x, &[-1, channels, down, p, across, p])?;
    let x = F::permute(net, &x, [0, 2, 4, 3, 5, 1])?;
    F::reshape(net, &x, &[-1, down * across, p * p, channels])
}

fn departition(this: &This, net: &mut Lower, args: &[Arg]) -> Result<Arg> {
    let ([x, ..], Some([p, down, across])) = (args, numbers(args)) else {
        return Err(this.fail(net, "takes a tensor, the size of a window, and how many there are"));
    };
    let channels = size(this, net, x, 3)?;
    let x = F::reshape(net, x, &[-1, down, across, p, p, channels])?;
    let x = F::permute(net, &x, [0, 5, 1, 3, 2, 4])?;
    F::reshape(net, &x, &[-1, channels, down * p, across * p])
}

fn attention(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let (windows, places, width) = (size(this, net, &x, 1)?, size(this, net, &x, 2)?, size(this, net, &x, 3)?);
    let heads = this.shape("relative_position_bias_table").get(1).copied().unwrap_or(1).max(1);
    let heads = i64::try_from(heads).unwrap_or(1);
    let qkv = this.call(net, "to_qkv", &x)?;
    let parts = net.call("aten.chunk", &[qkv, 3i64.into(), (-1i64).into()], &[])?;
    let Some([q, k, v]) = parts.list() else {
        return Err(this.fail(net, "query, key and value can't be told apart"));
    };
    let split = |net: &mut Lower, x: &Arg| {
        let x = F::reshape(net, x, &[-1, windows, places, heads, width / heads])?;
        F::permute(net, &x, [0, 1, 3, 2, 4])
    };
    let (q, k, v) = (split(net, q)?, split(net, k)?, split(net, v)?);
    let scale = this.attr("scale_factor", (width as f64).powf(-0.5));
    let k = net.call("aten.mul", &[k, scale], &[])?;
    let k = net.call("aten.transpose", &[k, (-2i64).into(), (-1i64).into()], &[])?;
    let scores = net.call("aten.matmul", &[q, k], &[])?;
    let bias = position_bias(this, net, places)?;
    let scores = F::add(net, &scores, &bias)?;
    let weights = net.call("aten.softmax", &[scores, (-1i64).into()], &[])?;
    let x = net.call("aten.matmul", &[weights, v], &[])?;
    let x = F::permute(net, &x, [0, 1, 3, 2, 4])?;
    let x = F::reshape(net, &x, &[-1, windows, places, width])?;
    this.call(net, "merge", &x)
}

/// What is added for the distance of two places: `[1, heads, places, places]`.
fn position_bias(this: &This, net: &mut Lower, places: i64) -> Result<Arg> {
    let (table, index) =
        (this.weight(net, "relative_position_bias_table"), this.weight(net, "relative_position_index"));
    let index = F::reshape(net, &index, &[-1])?;
    let bias = net.call("aten.index_select", &[table, 0i64.into(), index], &[])?;
    let bias = F::reshape(net, &bias, &[places, places, -1])?;
    let bias = F::permute(net, &bias, [2, 0, 1])?;
    net.call("aten.unsqueeze", &[bias, 0i64.into()], &[])
}

const EPS: f64 = 1e-3;

/// The network of these weights. Windows follow from the table of positions.
pub fn build(at: &At) -> Candidate {
    let blocks = at.at("blocks");
    let depths: Vec<usize> = (0..blocks.count()).map(|block| blocks.at(&format!("{block}.layers")).count()).collect();
    if depths.is_empty() {
        at.lacks("blocks.0.layers.0.layers.MBconv.layers.conv_c.weight");
    }
    let plain = |at: &At| New::of("torchvision.ops.misc.Conv2dNormActivation", at).push(conv(stride(1))).done();
    let block = |at: &At, depth: usize| {
        let layers = |at: &At| New::of("torch.nn.ModuleList", at).push_each(0..depth, |at, _| max_vit_layer(at)).done();
        New::of("~.maxvit.MaxVitBlock", at).add("layers", layers).done()
    };
    let list =
        |at: &At| New::of("torch.nn.ModuleList", at).push_each(&depths, |at, &depth| block(at, depth.max(1))).done();
    let mut new = New::of("~.maxvit.MaxVit", at)
        .add("stem", sequential(|new| new.push(conv_norm(stride(2), EPS, Some("GELU"))).push(plain)))
        .add("blocks", list);
    if at.has("classifier") {
        let head = sequential(|new| {
            let new = new.push(adaptive_avg_pool(1)).push(layer("Flatten")).push(layer_norm(1e-5)).push(linear);
            new.push(layer("Tanh")).push(linear)
        });
        new = new.add("classifier", head);
    }
    let listed: Vec<String> = depths.iter().map(ToString::to_string).collect();
    let listed = listed.join("-");
    let window = window(&blocks.at("0.layers.0.layers.window_attention"));
    let tiny = (listed.as_str(), at.size("stem.0.0.weight", 0), window) == ("2-2-5-2", 64, 7);
    let name = if tiny { "maxvit_t" } else { "maxvit" };
    // The stem and every block halve the image; what is left is one window.
    let size = depths.iter().take(8).fold(window * 2, |size, _| size * 2);
    Candidate::new(name, format!("blocks {listed}, windows of {window}"), new.done()).image(size)
}

/// How many places a window is wide.
fn window(at: &At) -> usize {
    at.size("attn_layer.1.relative_position_index", 0).isqrt().clamp(1, 1 << 16)
}

fn max_vit_layer(at: &At) -> ModuleTree {
    let layers = |at: &At| {
        New::of("torch.nn.Sequential", at)
            .add("MBconv", mb_conv)
            .add("window_attention", |at| partition_layer(at, "window"))
            .add("grid_attention", |at| partition_layer(at, "grid"))
            .done()
    };
    New::of("~.maxvit.MaxVitLayer", at).add("layers", layers).done()
}

/// A block that halves has a pool before its projection.
fn mb_conv(at: &At) -> ModuleTree {
    let halves = at.has("proj.1");
    let pool = |at: &At| {
        let new = New::of("torch.nn.AvgPool2d", at).set("kernel_size", 3usize).set("stride", 2usize);
        new.set("padding", 1usize).done()
    };
    let project = |at: &At| match (halves, at.has("0")) {
        (true, _) => sequential(|new| new.push(pool).push(conv(stride(1))))(at),
        (false, true) => sequential(|new| new.push(conv(stride(1))))(at),
        (false, false) => layer("Identity")(at),
    };
    let step = if halves { 2 } else { 1 };
    let layers = |at: &At| {
        New::of("torch.nn.Sequential", at)
            .add("pre_norm", batch_norm(EPS))
            .add("conv_a", conv_norm(stride(1), EPS, Some("GELU")))
            .add("conv_b", conv_norm(stride(step), EPS, Some("GELU")))
            .add("squeeze_excitation", squeeze_excitation("SiLU", "Sigmoid"))
            .add("conv_c", conv(stride(1)))
            .done()
    };
    New::of("~.maxvit.MBConv", at)
        .add("proj", project)
        .add("stochastic_depth", stochastic_depth)
        .add("layers", layers)
        .done()
}

fn partition_layer(at: &At, kind: &'static str) -> ModuleTree {
    let window = window(at);
    let swap = |at: &At| match kind {
        "grid" => New::of("~.maxvit.SwapAxes", at).done(),
        _ => layer("Identity")(at),
    };
    let attention = |at: &At| {
        New::of("~.maxvit.RelativePositionalMultiHeadAttention", at)
            .parameter("relative_position_bias_table", 2)
            .buffer("relative_position_index", 2)
            .add("to_qkv", linear)
            .add("merge", linear)
            .done()
    };
    New::of("~.maxvit.PartitionAttentionLayer", at)
        .set("partition_type", kind)
        .set("p", window)
        .set("g", window)
        .add("partition_op", |at| New::of("~.maxvit.WindowPartition", at).done())
        .add("departition_op", |at| New::of("~.maxvit.WindowDepartition", at).done())
        .add("partition_swap", swap)
        .add("departition_swap", swap)
        .add("attn_layer", sequential(|new| new.push(layer_norm(1e-5)).push(attention).push(dropout(0.0))))
        .add(
            "mlp_layer",
            sequential(|new| {
                let new = new.push(layer_norm(1e-5)).push(linear).push(layer("GELU"));
                new.push(linear).push(dropout(0.0))
            }),
        )
        .add("stochastic_dropout", stochastic_depth)
        .done()
}
