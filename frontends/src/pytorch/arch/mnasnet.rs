//! torchvision's `models/mnasnet.py`.

use super::build::*;
use super::call::{Forward, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::module::ModuleTree;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "MNASNet" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.call(net, "layers", &x)?;
            if !this.has("classifier") {
                return Ok(x);
            }
            let x = F::mean(net, &x, [2, 3])?;
            this.call(net, "classifier", &x)
        },
        "_InvertedResidual" => |this, net, x| {
            let x = one(this, net, x)?;
            let out = this.call(net, "layers", &x)?;
            if this.flag("apply_residual", false) { F::add(net, &out, &x) } else { Ok(out) }
        },
        _ => return None,
    })
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let layers = at.at("layers");
    let strides = [2, 2, 2, 1, 2, 1];
    let stack = sequential(|new| {
        let new = new.push(conv(stride(2))).push(batch_norm(1e-5)).push(layer("ReLU"));
        let new = new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU"));
        let new = new.push(conv(stride(1))).push(batch_norm(1e-5));
        let new = new.push_each((8..).zip(strides), |at, (index, step)| {
            let blocks = layers.at(&format!("{index}")).count().max(1);
            sequential(|new| new.push_each(0..blocks, |at, i| block(at, if i == 0 { step } else { 1 })))(at)
        });
        new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU"))
    });
    let new = New::of("~.mnasnet.MNASNet", at).add("layers", stack).add_if(
        at.has("classifier"),
        "classifier",
        sequential(|new| new.push(dropout(0.2)).push(linear)),
    );
    let name = match at.size("layers.8.0.layers.6.weight", 0) {
        16 => "mnasnet0_5",
        24 if at.size("layers.0.weight", 0) == 24 => "mnasnet0_75",
        24 => "mnasnet1_0",
        32 => "mnasnet1_3",
        _ => "mnasnet",
    };
    Candidate::new(name, "six stacks", new.done())
}

fn block(at: &At, step: usize) -> ModuleTree {
    let (entering, leaving) = (at.size("layers.0.weight", 1), at.size("layers.6.weight", 0));
    let layers = sequential(|new| {
        let new = new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU"));
        let new = new.push(conv(stride(step))).push(batch_norm(1e-5)).push(layer("ReLU"));
        new.push(conv(stride(1))).push(batch_norm(1e-5))
    });
    New::of("~.mnasnet._InvertedResidual", at)
        .set("apply_residual", step == 1 && entering == leaving)
        .add("layers", layers)
        .done()
}
