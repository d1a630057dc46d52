//! torchvision's `models/alexnet.py`.

use modelport_ir::Result;

use super::build::*;
use super::call::{Forward, This, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::arg::Arg;
use crate::pytorch::lower::Lower;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    (class == "AlexNet").then_some(features_and_classifier as Forward)
}

/// Features, pooled to a fixed size if there is a head.
pub fn features_and_classifier(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let x = this.call(net, "features", &x)?;
    if !this.has("classifier") {
        return Ok(x);
    }
    let x = if this.has("avgpool") { this.call(net, "avgpool", &x)? } else { x };
    let x = F::flatten(net, &x)?;
    this.call(net, "classifier", &x)
}

/// The size to which the features are pooled, from the widths on both sides.
pub fn pooled(at: &At, channels: usize, linear: &str) -> usize {
    let area = at.size(linear, 1) / channels.max(1);
    let side = area.isqrt();
    if side * side * channels != at.size(linear, 1) {
        at.lacks(linear);
    }
    side.max(1)
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let side =
        if at.has("classifier") { pooled(at, at.size("features.10.weight", 0), "classifier.1.weight") } else { 6 };
    let features = sequential(|new| {
        let new = new.push(conv(stride(4).padding(2))).push(layer("ReLU")).push(max_pool(3, 2, 0, false));
        let new = new.push(conv(stride(1))).push(layer("ReLU")).push(max_pool(3, 2, 0, false));
        let new = new.push(conv(stride(1))).push(layer("ReLU")).push(conv(stride(1))).push(layer("ReLU"));
        new.push(conv(stride(1))).push(layer("ReLU")).push(max_pool(3, 2, 0, false))
    });
    let mut new = New::of("~.alexnet.AlexNet", at).add("features", features);
    if at.has("classifier") {
        new = new.add("avgpool", adaptive_avg_pool(side)).add(
            "classifier",
            sequential(|new| {
                let new = new.push(dropout(0.5)).push(linear).push(layer("ReLU"));
                new.push(dropout(0.5)).push(linear).push(layer("ReLU")).push(linear)
            }),
        );
    }
    Candidate::new("alexnet", "five convolutions", new.done())
}
