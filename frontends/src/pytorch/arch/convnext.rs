//! torchvision's `models/convnext.py`.

use super::build::*;
use super::call::{Forward, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::module::ModuleTree;

use crate::pytorch::module::Plain;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "ConvNeXt" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.call(net, "features", &x)?;
            if this.has("classifier") { this.chain(net, &["avgpool", "classifier"], &x) } else { Ok(x) }
        },
        "LayerNorm2d" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = F::permute(net, &x, [0, 2, 3, 1])?;
            let (weight, bias) = (this.weight(net, "weight"), this.weight(net, "bias"));
            let shape = this.shape("weight").as_slice().into();
            let x = net.call("aten.layer_norm", &[x, shape, weight, bias, this.attr("eps", 1e-5)], &[])?;
            F::permute(net, &x, [0, 3, 1, 2])
        },
        "CNBlock" => |this, net, x| {
            let x = one(this, net, x)?;
            let out = this.call(net, "block", &x)?;
            let scale = this.weight(net, "layer_scale");
            let out = F::mul(net, &scale, &out)?;
            let out = this.call(net, "stochastic_depth", &out)?;
            F::add(net, &out, &x)
        },
        _ => return None,
    })
}

fn norm(at: &At) -> ModuleTree {
    New::of("~.convnext.LayerNorm2d", at).set("eps", 1e-6).parameter("weight", 1).parameter("bias", 1).done()
}

fn order(axes: [i64; 4]) -> impl Fn(&At) -> ModuleTree {
    move |at| {
        let axes = Plain::List(axes.into_iter().map(Plain::Int).collect());
        New::of("torchvision.ops.misc.Permute", at).set("dims", axes).done()
    }
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let features = at.at("features");
    let count = features.count();
    let stack = sequential(|new| {
        let stem = |at: &At| {
            let new = New::of("torchvision.ops.misc.Conv2dNormActivation", at);
            new.push(conv(stride(at.size("0.weight", 2)).padding(0))).push(norm).done()
        };
        new.push(stem).push_each(1..count.max(2), |at, index| match index % 2 {
            1 => sequential(|new| new.push_each(0..at.count().max(1), |at, _| block(at)))(at),
            _ => sequential(|new| new.push(norm).push(conv(stride(2).padding(0))))(at),
        })
    });
    let blocks: Vec<String> = (1..count).step_by(2).map(|i| features.at(&i.to_string()).count().to_string()).collect();
    let mut new = New::of("~.convnext.ConvNeXt", at).add("features", stack);
    if at.has("classifier") {
        let flatten = |at: &At| New::of("torch.nn.Flatten", at).set("start_dim", 1usize).done();
        new = new
            .add("avgpool", adaptive_avg_pool(1))
            .add("classifier", sequential(|new| new.push(norm).push(flatten).push(linear)));
    }
    let listed = blocks.join("-");
    let name = match (listed.as_str(), features.size("0.0.weight", 0)) {
        ("3-3-9-3", 96) => "convnext_tiny",
        ("3-3-27-3", 96) => "convnext_small",
        ("3-3-27-3", 128) => "convnext_base",
        ("3-3-27-3", 192) => "convnext_large",
        _ => "convnext",
    };
    Candidate::new(name, format!("blocks {listed}"), new.done())
}

fn block(at: &At) -> ModuleTree {
    let layers = sequential(|new| {
        let new = new.push(conv(stride(1))).push(order([0, 2, 3, 1])).push(layer_norm(1e-6));
        new.push(linear).push(layer("GELU")).push(linear).push(order([0, 3, 1, 2]))
    });
    New::of("~.convnext.CNBlock", at)
        .parameter("layer_scale", 3)
        .add("block", layers)
        .add("stochastic_depth", stochastic_depth)
        .done()
}
