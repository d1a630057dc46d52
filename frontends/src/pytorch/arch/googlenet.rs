//! torchvision's `models/googlenet.py`.

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
        "GoogLeNet" => googlenet,
        "BasicConv2d" => basic_conv,
        "Inception" => |this, net, x| {
            let x = one(this, net, x)?;
            let branches = ["branch1", "branch2", "branch3", "branch4"];
            let branches =
                branches.into_iter().map(|branch| this.call(net, branch, &x)).collect::<Result<Vec<Arg>>>()?;
            F::cat(net, branches, 1)
        },
        // Only training computes it.
        "InceptionAux" => |this, net, _| Err(this.fail(net, "an auxiliary head was called")),
        _ => return None,
    })
}

/// Convolution, batch norm and ReLU.
pub fn basic_conv(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let x = this.chain(net, &["conv", "bn"], &x)?;
    F::relu(net, &x)
}

/// From ImageNet's normalisation to that which the first weights were trained with.
pub fn transform_input(this: &This, net: &mut Lower, x: Arg) -> Result<Arg> {
    if !this.flag("transform_input", false) {
        return Ok(x);
    }
    let channels = [(0.229, 0.485), (0.224, 0.456), (0.225, 0.406)];
    let mut parts = Vec::new();
    for (index, (deviation, mean)) in (0i64..).zip(channels) {
        let part = net.call("aten.slice", &[x.clone(), 1i64.into(), index.into(), (index + 1).into()], &[])?;
        let part = net.call("aten.mul", &[part, (deviation / 0.5).into()], &[])?;
        parts.push(net.call("aten.add", &[part, ((mean - 0.5) / 0.5).into()], &[])?);
    }
    F::cat(net, parts, 1)
}

const TRUNK: [&str; 16] = [
    "conv1",
    "maxpool1",
    "conv2",
    "conv3",
    "maxpool2",
    "inception3a",
    "inception3b",
    "maxpool3",
    "inception4a",
    "inception4b",
    "inception4c",
    "inception4d",
    "inception4e",
    "maxpool4",
    "inception5a",
    "inception5b",
];

fn googlenet(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let x = transform_input(this, net, x)?;
    let x = this.chain(net, &TRUNK, &x)?;
    if !this.has("fc") {
        return Ok(x);
    }
    let x = this.call(net, "avgpool", &x)?;
    let x = F::flatten(net, &x)?;
    this.chain(net, &["dropout", "fc"], &x)
}

/// `BasicConv2d`
pub fn basic(class: &'static str, window: Window) -> impl Fn(&At) -> ModuleTree {
    move |at| New::of(class, at).add("conv", conv(window)).add("bn", batch_norm(1e-3)).done()
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let simple = |step: usize| basic("~.googlenet.BasicConv2d", stride(step));
    let mut new =
        New::of("~.googlenet.GoogLeNet", at).set("transform_input", at.arg("transform_input") == Some("true"));
    for child in TRUNK {
        new = match child {
            "conv1" => new.add(child, simple(2)),
            "maxpool4" => new.add(child, max_pool(2, 2, 0, true)),
            _ if child.starts_with("maxpool") => new.add(child, max_pool(3, 2, 0, true)),
            _ if child.starts_with("conv") => new.add(child, simple(1)),
            _ => new.add(child, inception),
        };
    }
    at.ignore("aux1");
    at.ignore("aux2");
    if at.has("fc") {
        new = new.add("avgpool", adaptive_avg_pool(1)).add("dropout", dropout(0.2)).add("fc", linear);
    }
    Candidate::new("googlenet", "nine inception modules, with batch norm", new.done())
}

fn inception(at: &At) -> ModuleTree {
    let simple = || basic("~.googlenet.BasicConv2d", stride(1));
    New::of("~.googlenet.Inception", at)
        .add("branch1", simple())
        .add("branch2", sequential(|new| new.push(simple()).push(simple())))
        .add("branch3", sequential(|new| new.push(simple()).push(simple())))
        .add("branch4", sequential(|new| new.push(max_pool(3, 1, 1, true)).push(simple())))
        .done()
}
