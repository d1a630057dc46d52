//! torchvision's `models/densenet.py`.

use super::build::*;
use super::call::{Forward, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::arg::Arg;
use crate::pytorch::module::ModuleTree;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "DenseNet" => |this, net, x| {
            let x = one(this, net, x)?;
            let x = this.call(net, "features", &x)?;
            let x = F::relu(net, &x)?;
            if !this.has("classifier") {
                return Ok(x);
            }
            let x = F::adaptive_avg_pool2d(net, &x, 1)?;
            let x = F::flatten(net, &x)?;
            this.call(net, "classifier", &x)
        },
        "_DenseBlock" => |this, net, x| {
            let mut features = vec![one(this, net, x)?];
            for layer in this.children() {
                let new = this.call_all(net, layer, &[features.clone().into()])?;
                features.push(new);
            }
            F::cat(net, features, 1)
        },
        "_DenseLayer" => |this, net, x| {
            let x = match one(this, net, x)? {
                Arg::List(features) if features.len() == 1 => features.into_iter().next().unwrap_or_default(),
                Arg::List(features) => F::cat(net, features, 1)?,
                x => x,
            };
            let x = this.chain(net, &["norm1", "relu1", "conv1", "norm2", "relu2", "conv2"], &x)?;
            match this.attr("drop_rate", 0.0) {
                rate if rate.float().is_some_and(|rate| rate > 0.0) => net.call("aten.dropout", &[x, rate], &[]),
                _ => Ok(x),
            }
        },
        "_Transition" => |this, net, x| {
            let x = one(this, net, x)?;
            this.sequence(net, &x)
        },
        _ => return None,
    })
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let features = at.at("features");
    let mut blocks = Vec::new();
    while blocks.len() < 64 {
        let names = features.at(&format!("denseblock{}", blocks.len() + 1)).names();
        if names.is_empty() {
            break;
        }
        blocks.push(names.len());
    }
    let (step, pool) = at.at("features").stem("conv0");
    let stack = sequential(|new| {
        let mut new = new
            .add("conv0", conv(stride(step)))
            .add("norm0", batch_norm(1e-5))
            .add("relu0", layer("ReLU"))
            .add_if(pool, "pool0", max_pool(3, 2, 1, false));
        for (index, &layers) in blocks.iter().enumerate() {
            let number = index + 1;
            new = new.add(&format!("denseblock{number}"), |at| {
                (1..=layers)
                    .fold(New::of("~.densenet._DenseBlock", at), |new, i| {
                        new.add(&format!("denselayer{i}"), dense_layer)
                    })
                    .done()
            });
            if number < blocks.len() {
                new = new.add(&format!("transition{number}"), transition);
            }
        }
        new.add("norm5", batch_norm(1e-5))
    });
    let new =
        New::of("~.densenet.DenseNet", at).add("features", stack).add_if(at.has("classifier"), "classifier", linear);
    let listed: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    let depth = blocks.iter().sum::<usize>() * 2 + blocks.len() + 1;
    Candidate::new(format!("densenet{depth}"), format!("blocks {}", listed.join("-")), new.done())
}

fn dense_layer(at: &At) -> ModuleTree {
    New::of("~.densenet._DenseLayer", at)
        .add("norm1", batch_norm(1e-5))
        .add("relu1", layer("ReLU"))
        .add("conv1", conv(stride(1)))
        .add("norm2", batch_norm(1e-5))
        .add("relu2", layer("ReLU"))
        .add("conv2", conv(stride(1)))
        .done()
}

fn transition(at: &At) -> ModuleTree {
    let pool = |at: &At| New::of("torch.nn.AvgPool2d", at).set("kernel_size", 2usize).set("stride", 2usize).done();
    New::of("~.densenet._Transition", at)
        .add("norm", batch_norm(1e-5))
        .add("relu", layer("ReLU"))
        .add("conv", conv(stride(1)))
        .add("pool", pool)
        .done()
}
