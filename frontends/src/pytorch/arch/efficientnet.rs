//! torchvision's `models/efficientnet.py`.

use super::build::*;
use super::call::{Forward, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::module::ModuleTree;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "EfficientNet" => super::mobilenetv3::features_pool_classifier,
        "MBConv" | "FusedMBConv" => |this, net, x| {
            let x = one(this, net, x)?;
            let out = this.call(net, "block", &x)?;
            if !this.flag("use_res_connect", false) {
                return Ok(out);
            }
            let out = this.call(net, "stochastic_depth", &out)?;
            F::add(net, &out, &x)
        },
        _ => return None,
    })
}

/// The network of these weights. Version 2 is known by its first blocks, which are fused.
pub fn build(at: &At) -> Candidate {
    let features = at.at("features");
    let stages = features.count().saturating_sub(2);
    let blocks: Vec<usize> = (1..=stages).map(|stage| features.at(&stage.to_string()).count()).collect();
    let total: usize = blocks.iter().sum();
    let second = !(0..4).any(|index| features.has(&format!("1.0.block.{index}.fc1")));
    let head = features.size(&format!("{}.0.weight", stages + 1), 0);
    let (name, rate) = match (second, total) {
        (false, 16) => ("efficientnet_b0", 0.2),
        (false, 23) if head <= 1280 => ("efficientnet_b1", 0.2),
        (false, 23) => ("efficientnet_b2", 0.3),
        (false, 26) => ("efficientnet_b3", 0.3),
        (false, 32) => ("efficientnet_b4", 0.4),
        (false, 39) => ("efficientnet_b5", 0.4),
        (false, 45) => ("efficientnet_b6", 0.5),
        (false, 55) => ("efficientnet_b7", 0.5),
        (true, 40) => ("efficientnet_v2_s", 0.2),
        (true, 57) => ("efficientnet_v2_m", 0.3),
        (true, 79) => ("efficientnet_v2_l", 0.4),
        (false, _) => ("efficientnet", 0.2),
        (true, _) => ("efficientnet_v2", 0.2),
    };
    // b5 to b7, the first with three blocks in the first stage, and version 2 have another epsilon.
    let usual = if second || blocks.first().is_some_and(|&count| count >= 3) { 1e-3 } else { 1e-5 };
    let eps = at.number("eps").unwrap_or(usual);
    let strides = [1, 2, 2, 2, 1, 2, 1];
    if stages == 0 || stages > strides.len() {
        at.lacks("features.8.0.weight");
    }
    let stack = sequential(|mut new| {
        new = new.push(conv_norm(stride(2), eps, Some("SiLU")));
        for (&count, step) in blocks.iter().zip(strides) {
            new = new.push(sequential(|new| {
                new.push_each(0..count.max(1), |at, index| block(at, if index == 0 { step } else { 1 }, eps))
            }));
        }
        new.push(conv_norm(stride(1), eps, Some("SiLU")))
    });
    let mut new = New::of("~.efficientnet.EfficientNet", at).add("features", stack);
    if at.has("classifier") {
        new = new
            .add("avgpool", adaptive_avg_pool(1))
            .add("classifier", sequential(|new| new.push(dropout(rate)).push(linear)));
    }
    let listed: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    let candidate = Candidate::new(name, format!("blocks {}, epsilon {eps}", listed.join("-")), new.done());
    candidate.image(if second { 384 } else { 224 })
}

fn block(at: &At, step: usize, eps: f64) -> ModuleTree {
    let inside = at.at("block");
    let count = inside.count();
    let excites = (0..count).any(|index| inside.has(&format!("{index}.fc1")));
    let expands = if excites { count > 3 } else { count > 1 };
    let depthwise_first = excites && !expands;
    let entering = inside.size("0.0.weight", if depthwise_first { 0 } else { 1 });
    let leaving = inside.size(&format!("{}.0.weight", count.saturating_sub(1)), 0);
    let silu = |step: usize| conv_norm(stride(step), eps, Some("SiLU"));
    let linear = || conv_norm(stride(1), eps, None);
    let layers = sequential(|new| match (excites, expands) {
        (true, true) => new.push(silu(1)).push(silu(step)).push(squeeze_excitation("SiLU", "Sigmoid")).push(linear()),
        (true, false) => new.push(silu(step)).push(squeeze_excitation("SiLU", "Sigmoid")).push(linear()),
        (false, true) => new.push(silu(step)).push(linear()),
        (false, false) => new.push(silu(step)),
    });
    let class = if excites { "~.efficientnet.MBConv" } else { "~.efficientnet.FusedMBConv" };
    New::of(class, at)
        .set("use_res_connect", step == 1 && entering == leaving)
        .add("block", layers)
        .add("stochastic_depth", stochastic_depth)
        .done()
}
