//! torchvision's `models/swin_transformer.py`: both versions.

use modelport_ir::{Result, Tensor};

use super::build::*;
use super::call::{Forward, This, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::arg::Arg;
use crate::pytorch::lower::Lower;
use crate::pytorch::module::{ModuleTree, Plain};

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "SwinTransformer" => |this, net, x| {
            let x = one(this, net, x)?;
            let children = ["features", "norm", "permute", "avgpool", "flatten", "head"];
            let children: Vec<&str> = children.into_iter().filter(|child| this.has(child)).collect();
            this.chain(net, &children, &x)
        },
        "SwinTransformerBlock" => |this, net, x| block(this, net, x, [["norm1", "attn"], ["norm2", "mlp"]]),
        "SwinTransformerBlockV2" => |this, net, x| block(this, net, x, [["attn", "norm1"], ["mlp", "norm2"]]),
        "PatchMerging" => |this, net, x| {
            let x = neighbours(this, net, x)?;
            this.chain(net, &["norm", "reduction"], &x)
        },
        "PatchMergingV2" => |this, net, x| {
            let x = neighbours(this, net, x)?;
            this.chain(net, &["reduction", "norm"], &x)
        },
        "ShiftedWindowAttention" => attention,
        "ShiftedWindowAttentionV2" => attention,
        _ => return None,
    })
}

fn block(this: &This, net: &mut Lower, x: &[Arg], parts: [[&str; 2]; 2]) -> Result<Arg> {
    let mut x = one(this, net, x)?;
    for [first, second] in parts {
        let out = this.chain(net, &[first, second, "stochastic_depth"], &x)?;
        x = F::add(net, &x, &out)?;
    }
    Ok(x)
}

/// Every second row and column, four times, side by side in the channels.
fn neighbours(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let (height, width) = extent(this, net, &x)?;
    let x = padded(net, x, height % 2, width % 2)?;
    let every = |net: &mut Lower, x: Arg, axis: i64, start: i64| {
        net.call("aten.slice", &[x, axis.into(), start.into(), Arg::None, 2i64.into()], &[])
    };
    let mut parts = Vec::new();
    for (row, column) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let part = every(net, x.clone(), 1, row)?;
        parts.push(every(net, part, 2, column)?);
    }
    F::cat(net, parts, -1)
}

fn padded(net: &mut Lower, x: Arg, below: i64, right: i64) -> Result<Arg> {
    if below == 0 && right == 0 {
        return Ok(x);
    }
    net.call("aten.constant_pad_nd", &[x, [0, 0, 0, right, 0, below].into(), 0i64.into()], &[])
}

/// Height and width of `[batch, height, width, channels]`.
fn extent(this: &This, net: &Lower, x: &Arg) -> Result<(i64, i64)> {
    let shape = net.info(x).map(|(_, shape)| shape).unwrap_or_default();
    let size = |axis: usize| shape.get(axis).and_then(|dim| i64::try_from(dim.known()?).ok());
    match (size(1), size(2)) {
        (Some(height), Some(width)) => Ok((height, width)),
        _ => Err(this.fail(net, "the windows need a known height and width; give --inputShape")),
    }
}

fn pair(this: &This, name: &str) -> Option<[i64; 2]> {
    match this.attr(name, Arg::None).list()? {
        [a, b] => Some([a.int()?, b.int()?]),
        _ => None,
    }
}

/// Attention within windows, whose grid may be shifted.
fn attention(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let input = one(this, net, x)?;
    let (height, width) = extent(this, net, &input)?;
    let (Some(window), Some(mut shift)) = (pair(this, "window_size"), pair(this, "shift_size")) else {
        return Err(this.fail(net, "the size of the windows is not known"));
    };
    let [rows, columns] = window;
    if rows < 1 || columns < 1 {
        return Err(this.fail(net, "a window is empty"));
    }
    let heads = i64::try_from(this.int("num_heads", 1).max(1)).unwrap_or(1);
    let channels = this.child("proj").and_then(|proj| proj.shape("weight").first().copied()).unwrap_or(1);
    let channels = i64::try_from(channels).unwrap_or(1);
    let area = rows * columns;
    let bias = position_bias(this, net, heads, area)?;

    let (below, right) = ((rows - height % rows) % rows, (columns - width % columns) % columns);
    let mut x = padded(net, input, below, right)?;
    let (full_height, full_width) = (height + below, width + right);
    if rows >= full_height {
        shift[0] = 0;
    }
    if columns >= full_width {
        shift[1] = 0;
    }
    let shifts = shift != [0, 0];
    if shifts {
        x = net.call("aten.roll", &[x, [-shift[0], -shift[1]].into(), [1i64, 2].into()], &[])?;
    }
    let (down, across) = (full_height / rows, full_width / columns);
    let windows = down * across;
    let x = F::reshape(net, &x, &[-1, down, rows, across, columns, channels])?;
    let x = F::permute(net, &x, [0, 1, 3, 2, 4, 5])?;
    let x = F::reshape(net, &x, &[-1, area, channels])?;
    let qkv = projected(this, net, &x)?;
    let qkv = F::reshape(net, &qkv, &[-1, area, 3, heads, channels / heads])?;
    let qkv = F::permute(net, &qkv, [2, 0, 3, 1, 4])?;
    let part = |net: &mut Lower, index: i64| net.call("aten.select", &[qkv.clone(), 0i64.into(), index.into()], &[]);
    let (q, k, v) = (part(net, 0)?, part(net, 1)?, part(net, 2)?);
    let mut scores = scores(this, net, q, k, (channels as f64 / heads as f64).powf(-0.5))?;
    scores = F::add(net, &scores, &bias)?;
    if shifts {
        let mask = mask(net, [full_height, full_width], window, shift)?;
        scores = F::reshape(net, &scores, &[-1, windows, heads, area, area])?;
        scores = F::add(net, &scores, &mask)?;
        scores = F::reshape(net, &scores, &[-1, heads, area, area])?;
    }
    let weights = net.call("aten.softmax", &[scores, (-1i64).into()], &[])?;
    let weights = net.call("aten.dropout", &[weights, this.attr("attention_dropout", 0.0)], &[])?;
    let x = net.call("aten.matmul", &[weights, v], &[])?;
    let x = net.call("aten.transpose", &[x, 1i64.into(), 2i64.into()], &[])?;
    let x = F::reshape(net, &x, &[-1, area, channels])?;
    let x = this.call(net, "proj", &x)?;
    let x = net.call("aten.dropout", &[x, this.attr("dropout", 0.0)], &[])?;
    let x = F::reshape(net, &x, &[-1, down, across, rows, columns, channels])?;
    let x = F::permute(net, &x, [0, 1, 3, 2, 4, 5])?;
    let mut x = F::reshape(net, &x, &[-1, full_height, full_width, channels])?;
    if shifts {
        x = net.call("aten.roll", &[x, shift.into(), [1i64, 2].into()], &[])?;
    }
    for (axis, (size, extra)) in (1i64..).zip([(height, below), (width, right)]) {
        if extra > 0 {
            x = net.call("aten.slice", &[x, axis.into(), 0i64.into(), size.into()], &[])?;
        }
    }
    Ok(x)
}

/// Query, key and value; the second version's keys have no bias, whatever is stored.
fn projected(this: &This, net: &mut Lower, x: &Arg) -> Result<Arg> {
    let Some(qkv) = this.child("qkv") else { return Err(this.fail(net, "has no qkv")) };
    let width = i64::try_from(qkv.shape("bias").first().map_or(0, |width| width / 3)).unwrap_or(0);
    if width == 0 || !this.tree.parameters.contains_key("logit_scale") {
        return this.call(net, "qkv", x);
    }
    net.enter("qkv", "");
    let (weight, bias) = (qkv.weight(net, "weight"), qkv.weight(net, "bias"));
    net.exit();
    let bias = net.call("aten.clone", &[bias], &[])?;
    let part = |net: &mut Lower, start: i64, end: i64| {
        net.call("aten.slice", &[bias.clone(), 0i64.into(), start.into(), end.into()], &[])
    };
    let (query, value) = (part(net, 0, width)?, part(net, 2 * width, 3 * width)?);
    let none = net.call("aten.zeros", &[[width].into()], &[])?;
    let bias = F::cat(net, vec![query, none, value], 0)?;
    net.call("aten.linear", &[x.clone(), weight, bias], &[])
}

fn scores(this: &This, net: &mut Lower, q: Arg, k: Arg, scale: f64) -> Result<Arg> {
    let turned = |net: &mut Lower, k: Arg| net.call("aten.transpose", &[k, (-2i64).into(), (-1i64).into()], &[]);
    if !matches!(this.tree.parameters.get("logit_scale"), Some(Some(_))) {
        let q = net.call("aten.mul", &[q, scale.into()], &[])?;
        let k = turned(net, k)?;
        return net.call("aten.matmul", &[q, k], &[]);
    };
    let unit = |net: &mut Lower, x: Arg| {
        let length = net.call("aten.linalg_vector_norm", &[x.clone(), 2.0.into(), [-1i64].into(), true.into()], &[])?;
        let length = net.call("aten.clamp_min", &[length, 1e-12.into()], &[])?;
        net.call("aten.div", &[x, length], &[])
    };
    let (q, k) = (unit(net, q)?, unit(net, k)?);
    let k = turned(net, k)?;
    let scores = net.call("aten.matmul", &[q, k], &[])?;
    let scale = this.weight(net, "logit_scale");
    let scale = net.call("aten.clamp", &[scale, Arg::None, 100f64.ln().into()], &[])?;
    let scale = net.call("aten.exp", &[scale], &[])?;
    F::mul(net, &scores, &scale)
}

/// What is added for the distance of two places: `[1, heads, area, area]`.
fn position_bias(this: &This, net: &mut Lower, heads: i64, area: i64) -> Result<Arg> {
    let index = this.weight(net, "relative_position_index");
    let index = match index {
        Arg::Weight(mut weight) => {
            // The buffer is a list of places, of one axis.
            weight.tensor = weight.tensor.reshaped(&[weight.tensor.numel()]).unwrap_or(weight.tensor);
            Arg::Weight(weight)
        }
        other => other,
    };
    let second = this.has("cpb_mlp");
    let table = if second {
        let coordinates = this.weight(net, "relative_coords_table");
        let table = this.call(net, "cpb_mlp", &coordinates)?;
        F::reshape(net, &table, &[-1, heads])?
    } else {
        this.weight(net, "relative_position_bias_table")
    };
    let bias = net.call("aten.index_select", &[table, 0i64.into(), index], &[])?;
    let bias = F::reshape(net, &bias, &[area, area, heads])?;
    let bias = F::permute(net, &bias, [2, 0, 1])?;
    let bias = net.call("aten.unsqueeze", &[bias, 0i64.into()], &[])?;
    if !second {
        return Ok(bias);
    }
    let bias = net.call("aten.sigmoid", &[bias], &[])?;
    net.call("aten.mul", &[bias, 16.0.into()], &[])
}

/// -100 between places of one window that were not neighbours before the shift, `[1, windows, 1, area, area]`.
fn mask(net: &mut Lower, size: [i64; 2], window: [i64; 2], shift: [i64; 2]) -> Result<Arg> {
    let band = |at: i64, axis: usize| {
        // Python's slice -0 is the beginning: nothing is in the last band, and all of it in none.
        let (first, second) = (size[axis] - window[axis], size[axis] - shift[axis]);
        if shift[axis] == 0 { 2 } else { i64::from(at >= first) + i64::from(at >= second) }
    };
    let band = &band;
    let regions =
        (0..size[0]).flat_map(|row| (0..size[1]).map(move |column| (band(row, 0) * 3 + band(column, 1)) as f32));
    let regions: Vec<f32> = regions.collect();
    let shape = size.map(|size| usize::try_from(size).unwrap_or(0));
    let name = net.node_name("regions");
    let regions = net.buffer(&name, Tensor::from_f32(&shape, &regions));
    let regions: Arg = net.value(&regions)?.into();
    let (down, across) = (size[0] / window[0], size[1] / window[1]);
    let x = F::reshape(net, &regions, &[down, window[0], across, window[1]])?;
    let x = F::permute(net, &x, [0, 2, 1, 3])?;
    let x = F::reshape(net, &x, &[down * across, window[0] * window[1]])?;
    let rows = net.call("aten.unsqueeze", &[x.clone(), 1i64.into()], &[])?;
    let columns = net.call("aten.unsqueeze", &[x, 2i64.into()], &[])?;
    let between = net.call("aten.sub", &[rows, columns], &[])?;
    let apart = net.call("aten.ne", &[between.clone(), 0.0.into()], &[])?;
    let mask = net.call("aten.masked_fill", &[between, apart, (-100.0).into()], &[])?;
    let mask = net.call("aten.unsqueeze", &[mask, 1i64.into()], &[])?;
    net.call("aten.unsqueeze", &[mask, 0i64.into()], &[])
}

/// The network of these weights. Heads are 32 wide; windows follow from the table of positions.
pub fn build(at: &At) -> Candidate {
    let features = at.at("features");
    let count = features.count();
    let second = features.has("1.0.attn.logit_scale");
    let stack = sequential(|new| {
        let stem = |at: &At| {
            let patch = at.size("0.weight", 2).max(1);
            let order = |at: &At| permute(at, [0, 2, 3, 1]);
            sequential(|new| new.push(conv(stride(patch).padding(0))).push(order).push(layer_norm(1e-5)))(at)
        };
        new.push(stem).push_each(1..count.max(2), |at, index| match index % 2 {
            1 => sequential(|new| new.push_each(0..at.count().max(1), |at, i| swin_block(at, second, i % 2 == 1)))(at),
            _ => {
                let class = if second { "PatchMergingV2" } else { "PatchMerging" };
                let new = New::of(&format!("~.swin_transformer.{class}"), at);
                new.add("reduction", linear).add("norm", layer_norm(1e-5)).done()
            }
        })
    });
    let mut new =
        New::of("~.swin_transformer.SwinTransformer", at).add("features", stack).add("norm", layer_norm(1e-5));
    if at.has("head") {
        let flatten = |at: &At| New::of("torch.nn.Flatten", at).set("start_dim", 1usize).done();
        new = new
            .add("permute", |at| permute(at, [0, 3, 1, 2]))
            .add("avgpool", adaptive_avg_pool(1))
            .add("flatten", flatten)
            .add("head", linear);
    }
    let depths: Vec<String> = (1..count).step_by(2).map(|i| features.at(&i.to_string()).count().to_string()).collect();
    let listed = depths.join("-");
    let version = if second { "swin_v2" } else { "swin" };
    let size = match (listed.as_str(), features.size("0.0.weight", 0)) {
        ("2-2-6-2", 96) => "_t",
        ("2-2-18-2", 96) => "_s",
        ("2-2-18-2", 128) => "_b",
        _ => "",
    };
    let candidate = Candidate::new(format!("{version}{size}"), format!("blocks {listed}"), new.done());
    candidate.image(if second { 256 } else { 224 })
}

fn permute(at: &At, axes: [i64; 4]) -> ModuleTree {
    let axes = Plain::List(axes.into_iter().map(Plain::Int).collect());
    New::of("torchvision.ops.misc.Permute", at).set("dims", axes).done()
}

fn swin_block(at: &At, second: bool, shifted: bool) -> ModuleTree {
    let suffix = if second { "V2" } else { "" };
    let attention = |at: &At| {
        let area = at.size("relative_position_index", 0).isqrt();
        let window = area.isqrt();
        let shift = if shifted { window / 2 } else { 0 };
        let known = if second { at.size("logit_scale", 0) } else { at.size("relative_position_bias_table", 1) };
        let new = New::of(&format!("~.swin_transformer.ShiftedWindowAttention{suffix}"), at)
            .set("window_size", (window, window))
            .set("shift_size", (shift, shift))
            .set("num_heads", known)
            .buffer("relative_position_index", 1)
            .add("qkv", linear)
            .add("proj", linear);
        match second {
            false => new.parameter("relative_position_bias_table", 2).done(),
            true => new
                .parameter("logit_scale", 3)
                .buffer("relative_coords_table", 4)
                .add("cpb_mlp", sequential(|new| new.push(linear).push(layer("ReLU")).push(linear)))
                .done(),
        }
    };
    let mlp = |at: &At| {
        let new = New::of("torchvision.ops.misc.MLP", at).push(linear).push(layer("GELU")).push(dropout(0.0));
        new.push(linear).push(dropout(0.0)).done()
    };
    New::of(&format!("~.swin_transformer.SwinTransformerBlock{suffix}"), at)
        .add("norm1", layer_norm(1e-5))
        .add("attn", attention)
        .add("stochastic_depth", stochastic_depth)
        .add("norm2", layer_norm(1e-5))
        .add("mlp", mlp)
        .done()
}
