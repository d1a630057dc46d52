//! torchvision's `models/resnet.py`: ResNet, ResNeXt and Wide ResNet.

use modelport_ir::Result;

use super::build::{At, New, adaptive_avg_pool, batch_norm, conv, layer, linear, max_pool, sequential, stride};
use super::call::{Forward, This, functional as F};
use super::recognise::{Candidate, numbers};
use crate::pytorch::arg::Arg;
use crate::pytorch::lower::Lower;
use crate::pytorch::module::ModuleTree;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "ResNet" => resnet,
        "BasicBlock" => |this, net, x| block(this, net, x, &["conv1", "bn1", "relu", "conv2", "bn2"]),
        "Bottleneck" => {
            |this, net, x| block(this, net, x, &["conv1", "bn1", "relu", "conv2", "bn2", "relu", "conv3", "bn3"])
        }
        _ => return None,
    })
}

fn block(this: &This, net: &mut Lower, x: &[Arg], children: &[&str]) -> Result<Arg> {
    let [x, ..] = x else { return Err(this.fail(net, "takes one input")) };
    let out = this.chain(net, children, x)?;
    let identity = if this.has("downsample") { this.call(net, "downsample", x)? } else { x.clone() };
    let out = F::add(net, &out, &identity)?;
    this.call(net, "relu", &out)
}

fn resnet(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let [x, ..] = x else { return Err(this.fail(net, "takes one input")) };
    let children = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"];
    let children: Vec<&str> = children.into_iter().filter(|child| this.has(child)).collect();
    let x = this.chain(net, &children, x)?;
    if !this.has("fc") {
        return Ok(x);
    }
    let x = this.call(net, "avgpool", &x)?;
    let x = F::flatten(net, &x)?;
    this.call(net, "fc", &x)
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let bottleneck = at.has("layer1.0.conv3");
    let layers: Vec<usize> = (1..=4).map(|i| at.at(&format!("layer{i}")).count()).collect();
    let width = at.size("layer1.0.conv2.weight", 0);
    let groups = width / at.size("layer1.0.conv2.weight", 1).max(1);
    let dilate = numbers(at.arg("replace_stride_with_dilation").unwrap_or_default());
    let tree = tree(at, &dilate);
    let listed = layers.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
    let depth = layers.iter().sum::<usize>() * if bottleneck { 3 } else { 2 } + 2;
    let name = match (bottleneck, groups, width) {
        (true, 2.., _) => format!("resnext{depth}_{groups}x{}d", width / groups),
        (true, _, 128) => format!("wide_resnet{depth}_2"),
        _ => format!("resnet{depth}"),
    };
    let block = if bottleneck { "Bottleneck" } else { "BasicBlock" };
    Candidate::new(name, format!("{block} {listed}"), tree)
}

/// The network; `dilate` says for the last three layers whether they dilate instead of stepping.
pub fn tree(at: &At, dilate: &[usize]) -> ModuleTree {
    let bottleneck = at.has("layer1.0.conv3");
    let (step, pool) = at.stem("conv1");
    let mut new = New::of("~.resnet.ResNet", at)
        .add("conv1", conv(stride(step)))
        .add("bn1", batch_norm(1e-5))
        .add("relu", layer("ReLU"))
        .add_if(pool, "maxpool", max_pool(3, 2, 1, false));
    let mut dilation = 1;
    for i in 1..=4 {
        let name = format!("layer{i}");
        let mut step = if i == 1 { 1 } else { 2 };
        let before = dilation;
        if i > 1 && dilate.get(i - 2).is_some_and(|&flag| flag != 0) {
            dilation *= step;
            step = 1;
        }
        let blocks = at.at(&name).count();
        if blocks == 0 && i > 2 {
            // A trunk that ends here has no head either.
            break;
        }
        new = new.add(
            &name,
            sequential(|new| {
                new.push_each(0..blocks.max(1), |at, index| match index {
                    0 => residual(at, bottleneck, step, before),
                    _ => residual(at, bottleneck, 1, dilation),
                })
            }),
        );
    }
    if at.has("fc") {
        new = new.add("avgpool", adaptive_avg_pool(1)).add("fc", linear);
    }
    new.done()
}

fn residual(at: &At, bottleneck: bool, step: usize, dilation: usize) -> ModuleTree {
    let new = match bottleneck {
        true => New::of("~.resnet.Bottleneck", at)
            .add("conv1", conv(stride(1)))
            .add("bn1", batch_norm(1e-5))
            .add("conv2", conv(stride(step).dilation(dilation)))
            .add("bn2", batch_norm(1e-5))
            .add("conv3", conv(stride(1)))
            .add("bn3", batch_norm(1e-5)),
        false => New::of("~.resnet.BasicBlock", at)
            .add("conv1", conv(stride(step).dilation(dilation)))
            .add("bn1", batch_norm(1e-5))
            .add("conv2", conv(stride(1).dilation(dilation)))
            .add("bn2", batch_norm(1e-5)),
    };
    new.add("relu", layer("ReLU"))
        .add_if(
            at.has("downsample"),
            "downsample",
            sequential(|new| new.push(conv(stride(step))).push(batch_norm(1e-5))),
        )
        .done()
}
