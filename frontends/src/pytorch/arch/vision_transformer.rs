//! torchvision's `models/vision_transformer.py`.

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
        "VisionTransformer" => vision_transformer,
        "MLPBlock" => |this, net, x| {
            let x = one(this, net, x)?;
            this.sequence(net, &x)
        },
        "EncoderBlock" => |this, net, input| {
            let input = one(this, net, input)?;
            let x = this.call(net, "ln_1", &input)?;
            let x = super::transformer::self_attention(this, net, "self_attention", &x)?;
            let x = this.call(net, "dropout", &x)?;
            let x = F::add(net, &x, &input)?;
            let y = this.chain(net, &["ln_2", "mlp"], &x)?;
            F::add(net, &x, &y)
        },
        "Encoder" => |this, net, x| {
            let x = one(this, net, x)?;
            let embedding = this.weight(net, "pos_embedding");
            let x = F::add(net, &x, &embedding)?;
            this.chain(net, &["dropout", "layers", "ln"], &x)
        },
        _ => return None,
    })
}

fn vision_transformer(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let batch = net.value(&x)?;
    let batch: Arg = net.size(batch, 0).into();
    let x = this.call(net, "conv_proj", &x)?;
    let width = this.shape("class_token").get(2).copied().unwrap_or(1);
    let x = net.call("aten.flatten", &[x, 2i64.into()], &[])?;
    let x = F::permute(net, &x, [0, 2, 1])?;
    let token = this.weight(net, "class_token");
    let shape: Arg = vec![batch, 1i64.into(), width.into()].into();
    let token = net.call("aten.expand", &[token, shape], &[])?;
    let x = F::cat(net, vec![token, x], 1)?;
    let x = this.call(net, "encoder", &x)?;
    let x = net.call("aten.select", &[x, 1i64.into(), 0i64.into()], &[])?;
    if this.has("heads") { this.call(net, "heads", &x) } else { Ok(x) }
}

/// The network of these weights. Heads are 64 wide, and 80 in `vit_h_14`.
pub fn build(at: &At) -> Candidate {
    let (width, patch) = (at.size("conv_proj.weight", 0), at.size("conv_proj.weight", 2));
    let layers = at.at("encoder.layers").names().len();
    let usual = if width == 1280 { 16 } else { width / 64 };
    let heads = at.number("num_heads").unwrap_or(usual).max(1);
    let image = at.size("encoder.pos_embedding", 1).saturating_sub(1).isqrt() * patch;
    let encoder = |at: &At| {
        New::of("~.vision_transformer.Encoder", at)
            .parameter("pos_embedding", 3)
            .add("dropout", dropout(0.0))
            .add(
                "layers",
                sequential(|new| {
                    (0..layers.max(1)).fold(new, |new, i| new.add(&format!("encoder_layer_{i}"), |at| block(at, heads)))
                }),
            )
            .add("ln", layer_norm(1e-6))
            .done()
    };
    let mut new = New::of("~.vision_transformer.VisionTransformer", at)
        .set("image_size", image)
        .parameter("class_token", 3)
        .add("conv_proj", conv(stride(patch).padding(0)))
        .add("encoder", encoder);
    if at.has("heads") {
        let head = sequential(|new| match at.has("heads.pre_logits") {
            true => new.add("pre_logits", linear).add("act", layer("Tanh")).add("head", linear),
            false => new.add("head", linear),
        });
        new = new.add("heads", head);
    }
    let size = match width {
        768 => "vit_b",
        1024 => "vit_l",
        1280 => "vit_h",
        _ => "vit",
    };
    let details = format!("{layers} layers of {width} in {heads} heads, patches of {patch}");
    Candidate::new(format!("{size}_{patch}"), details, new.done()).image(image)
}

fn block(at: &At, heads: usize) -> ModuleTree {
    let attention = |at: &At| {
        New::of("torch.nn.MultiheadAttention", at)
            .set("num_heads", heads)
            .set("batch_first", true)
            .parameter("in_proj_weight", 2)
            .parameter("in_proj_bias", 1)
            .add("out_proj", linear)
            .done()
    };
    let mlp = |at: &At| {
        let mut new = New::of("~.vision_transformer.MLPBlock", at);
        // Before torchvision 0.13 the layers had names.
        if at.has("linear_1") {
            return new.add("linear_1", linear).add("act", layer("GELU")).add("linear_2", linear).done();
        }
        new = new.push(linear).push(layer("GELU")).push(dropout(0.0));
        new.push(linear).push(dropout(0.0)).done()
    };
    New::of("~.vision_transformer.EncoderBlock", at)
        .add("ln_1", layer_norm(1e-6))
        .add("self_attention", attention)
        .add("dropout", dropout(0.0))
        .add("ln_2", layer_norm(1e-6))
        .add("mlp", mlp)
        .done()
}
