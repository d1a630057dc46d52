//! torchvision's `models/regnet.py`.

use super::build::*;
use super::call::{Forward, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::module::ModuleTree;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "RegNet" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.chain(net, &["stem", "trunk_output"], &x)?;
            if !this.has("fc") {
                return Ok(x);
            }
            let x = this.call(net, "avgpool", &x)?;
            let x = F::flatten(net, &x)?;
            this.call(net, "fc", &x)
        },
        "SimpleStemIN" | "AnyStage" | "BottleneckTransform" => |this, net, x| {
            let x = one(this, net, x)?;
            this.sequence(net, &x)
        },
        "ResBottleneckBlock" => |this, net, x| {
            let x = one(this, net, x)?;
            let short = if this.has("proj") { this.call(net, "proj", &x)? } else { x.clone() };
            let out = this.call(net, "f", &x)?;
            let x = F::add(net, &short, &out)?;
            this.call(net, "activation", &x)
        },
        _ => return None,
    })
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let trunk = at.at("trunk_output");
    let stages = trunk.names().len();
    let mut blocks = Vec::new();
    let stem = |at: &At| {
        New::of("~.regnet.SimpleStemIN", at).push(conv(stride(2))).push(batch_norm(1e-5)).push(layer("ReLU")).done()
    };
    let stack = sequential(|mut new| {
        for stage in 1..=stages.max(1) {
            let count = trunk.at(&format!("block{stage}")).names().len().max(1);
            blocks.push(count);
            new = new.add(&format!("block{stage}"), |at| {
                (0..count)
                    .fold(New::of("~.regnet.AnyStage", at), |new, i| {
                        new.add(&format!("block{stage}-{i}"), |at| block(at, if i == 0 { 2 } else { 1 }))
                    })
                    .done()
            });
        }
        new
    });
    let mut new = New::of("~.regnet.RegNet", at).add("stem", stem).add("trunk_output", stack);
    if at.has("fc") {
        new = new.add("avgpool", adaptive_avg_pool(1)).add("fc", linear);
    }
    let kind = if trunk.has("block1.block1-0.f.se") { "regnet_y" } else { "regnet_x" };
    let listed: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    Candidate::new(kind, format!("blocks {}", listed.join("-")), new.done())
}

fn block(at: &At, step: usize) -> ModuleTree {
    let transform = |at: &At| {
        let new = New::of("~.regnet.BottleneckTransform", at)
            .add("a", conv_norm(stride(1), 1e-5, Some("ReLU")))
            .add("b", conv_norm(stride(step), 1e-5, Some("ReLU")));
        new.add_if(at.has("se"), "se", squeeze_excitation("ReLU", "Sigmoid"))
            .add("c", conv_norm(stride(1), 1e-5, None))
            .done()
    };
    New::of("~.regnet.ResBottleneckBlock", at)
        .add_if(at.has("proj"), "proj", conv_norm(stride(step), 1e-5, None))
        .add("f", transform)
        .add("activation", layer("ReLU"))
        .done()
}
