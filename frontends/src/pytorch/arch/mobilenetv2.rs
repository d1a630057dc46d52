//! torchvision's `models/mobilenetv2.py`.

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
        "MobileNetV2" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.call(net, "features", &x)?;
            if !this.has("classifier") {
                return Ok(x);
            }
            let x = F::adaptive_avg_pool2d(net, &x, 1)?;
            let x = F::flatten(net, &x)?;
            this.call(net, "classifier", &x)
        },
        "InvertedResidual" => |this, net, x| residual(this, net, x, "conv", "use_res_connect"),
        // Its name until torchvision 0.8.
        "ConvBNReLU" | "ConvBNActivation" => |this, net, x| {
            let x = one(this, net, x)?;
            this.sequence(net, &x)
        },
        _ => return None,
    })
}

/// What a child computes, and the input added to it if the attribute says so.
pub fn residual(this: &This, net: &mut Lower, x: &[Arg], child: &str, attribute: &str) -> Result<Arg> {
    let x = one(this, net, x)?;
    let out = this.call(net, child, &x)?;
    if this.flag(attribute, false) { F::add(net, &x, &out) } else { Ok(out) }
}

/// The stride of every block. With as many blocks as torchvision's the strides are at its places; else at the blocks
/// where the width changes, in the same order.
fn strides(features: &At, blocks: usize) -> Vec<usize> {
    const STAGES: [(usize, usize); 7] = [(1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)];
    if blocks == 17 {
        return STAGES
            .iter()
            .flat_map(|&(count, step)| (0..count).map(move |i| if i == 0 { step } else { 1 }))
            .collect();
    }
    let mut stages = STAGES.iter().map(|&(_, step)| step);
    let mut before = 0;
    (1..=blocks)
        .map(|index| {
            let conv = features.at(&format!("{index}.conv"));
            let last = conv.count().saturating_sub(2);
            let width = conv.size(&format!("{last}.weight"), 0);
            let step = if width == before { 1 } else { stages.next().unwrap_or(1) };
            before = width;
            step
        })
        .collect()
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let features = at.at("features");
    let blocks = features.count().saturating_sub(2);
    let strides = strides(&features, blocks);
    let relu6 = |step: usize| conv_norm(stride(step), 1e-5, Some("ReLU6"));
    let stack = sequential(|new| {
        let new = new.push(relu6(2)).push_each(strides, block);
        new.push(relu6(1))
    });
    let new = New::of("~.mobilenetv2.MobileNetV2", at).add("features", stack).add_if(
        at.has("classifier"),
        "classifier",
        sequential(|new| new.push(dropout(0.2)).push(linear)),
    );
    Candidate::new("mobilenet_v2", format!("{blocks} inverted residuals"), new.done())
}

fn block(at: &At, step: usize) -> ModuleTree {
    let expands = at.at("conv").count() > 3;
    let depthwise = if expands { "conv.1.0.weight" } else { "conv.0.0.weight" };
    let entering = if expands { at.size("conv.0.0.weight", 1) } else { at.size(depthwise, 0) };
    let leaving = at.size(if expands { "conv.2.weight" } else { "conv.1.weight" }, 0);
    let layers = sequential(|new| {
        let new = if expands { new.push(conv_norm(stride(1), 1e-5, Some("ReLU6"))) } else { new };
        new.push(conv_norm(stride(step), 1e-5, Some("ReLU6"))).push(conv(stride(1))).push(batch_norm(1e-5))
    });
    New::of("~.mobilenetv2.InvertedResidual", at)
        .set("use_res_connect", step == 1 && entering == leaving)
        .add("conv", layers)
        .done()
}
