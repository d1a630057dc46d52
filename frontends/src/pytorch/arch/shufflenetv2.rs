//! torchvision's `models/shufflenetv2.py`.

use super::build::*;
use super::call::{Forward, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::module::ModuleTree;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "ShuffleNetV2" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.chain(net, &["conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"], &x)?;
            if !this.has("fc") {
                return Ok(x);
            }
            let x = F::mean(net, &x, [2, 3])?;
            this.call(net, "fc", &x)
        },
        "InvertedResidual" => |this, net, x| {
            let x = one(this, net, x)?;
            let parts = match this.int("stride", 1) {
                1 => {
                    let halves = net.call("aten.chunk", &[x, 2i64.into(), 1i64.into()], &[])?;
                    let Some([left, right]) = halves.list() else {
                        return Err(this.fail(net, "the channels can't be halved"));
                    };
                    vec![left.clone(), this.call(net, "branch2", right)?]
                }
                _ => vec![this.call(net, "branch1", &x)?, this.call(net, "branch2", &x)?],
            };
            let x = F::cat(net, parts, 1)?;
            net.call("aten.channel_shuffle", &[x, 2i64.into()], &[])
        },
        _ => return None,
    })
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let mut new = New::of("~.shufflenetv2.ShuffleNetV2", at)
        .add("conv1", sequential(|new| new.push(conv(stride(2))).push(batch_norm(1e-5)).push(layer("ReLU"))))
        .add("maxpool", max_pool(3, 2, 1, false));
    let mut widths = Vec::new();
    for stage in ["stage2", "stage3", "stage4"] {
        let blocks = at.at(stage).count().max(1);
        new = new.add(stage, sequential(|new| new.push_each(0..blocks, |at, i| block(at, if i == 0 { 2 } else { 1 }))));
        widths.push(2 * at.size(&format!("{stage}.0.branch2.5.weight"), 0));
    }
    new = new.add("conv5", sequential(|new| new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU"))));
    new = new.add_if(at.has("fc"), "fc", linear);
    let name = match widths[0] {
        48 => "shufflenet_v2_x0_5",
        116 => "shufflenet_v2_x1_0",
        176 => "shufflenet_v2_x1_5",
        244 => "shufflenet_v2_x2_0",
        _ => "shufflenet_v2",
    };
    Candidate::new(name, format!("stages of {}, {} and {} channels", widths[0], widths[1], widths[2]), new.done())
}

fn block(at: &At, step: usize) -> ModuleTree {
    let first = sequential(|new| match step {
        1 => new,
        _ => new
            .push(conv(stride(step)))
            .push(batch_norm(1e-5))
            .push(conv(stride(1)))
            .push(batch_norm(1e-5))
            .push(layer("ReLU")),
    });
    let second = sequential(|new| {
        let new = new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU"));
        let new = new.push(conv(stride(step))).push(batch_norm(1e-5));
        new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU"))
    });
    New::of("~.shufflenetv2.InvertedResidual", at)
        .set("stride", step)
        .add("branch1", first)
        .add("branch2", second)
        .done()
}
