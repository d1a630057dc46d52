//! torchvision's `models/squeezenet.py`.

use super::build::*;
use super::call::{Forward, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::module::ModuleTree;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "Fire" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.chain(net, &["squeeze", "squeeze_activation"], &x)?;
            let small = this.chain(net, &["expand1x1", "expand1x1_activation"], &x)?;
            let large = this.chain(net, &["expand3x3", "expand3x3_activation"], &x)?;
            F::cat(net, vec![small, large], 1)
        },
        "SqueezeNet" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.call(net, "features", &x)?;
            if !this.has("classifier") {
                return Ok(x);
            }
            let x = this.call(net, "classifier", &x)?;
            F::flatten(net, &x)
        },
        _ => return None,
    })
}

/// The network of these weights. Pools are where the numbers of the fire modules leave one out.
pub fn build(at: &At) -> Candidate {
    let features = at.at("features");
    let count = features.count();
    let version = if features.size("0.weight", 2) == 7 { "squeezenet1_0" } else { "squeezenet1_1" };
    let stack = sequential(|new| {
        let new = new.push(conv(stride(2).padding(0))).push(layer("ReLU")).push(max_pool(3, 2, 0, true));
        new.push_each(3..count.max(4), |at, _| if at.has("squeeze") { fire(at) } else { max_pool(3, 2, 0, true)(at) })
    });
    let new = New::of("~.squeezenet.SqueezeNet", at).add("features", stack).add_if(
        at.has("classifier"),
        "classifier",
        sequential(|new| new.push(dropout(0.5)).push(conv(stride(1))).push(layer("ReLU")).push(adaptive_avg_pool(1))),
    );
    if !features.has("3.squeeze") {
        features.lacks("3.squeeze.weight");
    }
    let fires = features.names().len().saturating_sub(1);
    Candidate::new(version, format!("{fires} fire modules"), new.done())
}

fn fire(at: &At) -> ModuleTree {
    New::of("~.squeezenet.Fire", at)
        .add("squeeze", conv(stride(1)))
        .add("squeeze_activation", layer("ReLU"))
        .add("expand1x1", conv(stride(1)))
        .add("expand1x1_activation", layer("ReLU"))
        .add("expand3x3", conv(stride(1)))
        .add("expand3x3_activation", layer("ReLU"))
        .done()
}
