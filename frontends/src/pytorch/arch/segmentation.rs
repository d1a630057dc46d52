//! torchvision's `models/segmentation/fcn.py`.

use modelport_ir::Result;

use super::build::*;
use super::call::{Forward, This, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::arg::Arg;
use crate::pytorch::lower::Lower;
use crate::pytorch::module::ModuleTree;

use super::layers::interpolate;
use super::recognise::numbers;
use crate::pytorch::module::Plain;

/// What a module of this class computes. Dictionaries of features are lists of pairs of name and tensor.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "IntermediateLayerGetter" => layers,
        "FCN" | "DeepLabV3" | "_SimpleSegmentationModel" => |this, net, x| {
            let x = one(this, net, x)?;
            let features = this.call(net, "backbone", &x)?;
            let mut result = Vec::new();
            for (name, head) in [("out", "classifier"), ("aux", "aux_classifier")] {
                if this.has(head) {
                    let feature = named(this, net, &features, name)?;
                    let y = this.call(net, head, &feature)?;
                    let y = resized(this, net, &y, &x)?;
                    result.push(vec![name.into(), y].into());
                }
            }
            Ok(Arg::List(result))
        },
        "FCNHead" | "DeepLabHead" | "ASPPConv" => |this, net, x| {
            let x = one(this, net, x)?;
            this.sequence(net, &x)
        },
        "ASPPPooling" => |this, net, x| {
            let x = one(this, net, x)?;
            let y = this.sequence(net, &x)?;
            resized(this, net, &y, &x)
        },
        "ASPP" => |this, net, x| {
            let x = one(this, net, x)?;
            let Some(convs) = this.child("convs") else { return Err(this.fail(net, "has no convolutions")) };
            net.enter("convs", convs.tree.class_name());
            let parts = convs.children().map(|child| convs.call(net, child, &x)).collect::<Result<Vec<Arg>>>();
            net.exit();
            let x = F::cat(net, parts?, 1)?;
            this.call(net, "project", &x)
        },
        "LRASPP" => |this, net, x| {
            let x = one(this, net, x)?;
            let features = this.call(net, "backbone", &x)?;
            let y = this.call(net, "classifier", &features)?;
            let y = resized(this, net, &y, &x)?;
            Ok(vec![vec!["out".into(), y].into()].into())
        },
        "LRASPPHead" => |this, net, features| {
            let features = one(this, net, features)?;
            let (low, high) = (named(this, net, &features, "low")?, named(this, net, &features, "high")?);
            let x = this.call(net, "cbr", &high)?;
            let s = this.call(net, "scale", &high)?;
            let x = F::mul(net, &x, &s)?;
            let x = resized(this, net, &x, &low)?;
            let (a, b) = (this.call(net, "low_classifier", &low)?, this.call(net, "high_classifier", &x)?);
            F::add(net, &a, &b)
        },
        _ => return None,
    })
}

/// Runs the children, and keeps what those that `return_layers` names compute.
fn layers(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let mut x = one(this, net, x)?;
    let Some(Plain::Dict(wanted)) = this.tree.attributes.get("return_layers") else {
        return Err(this.fail(net, "does not say which layers it returns"));
    };
    let mut result = Vec::new();
    for child in this.children() {
        x = this.call(net, child, &x)?;
        let is_wanted = |key: &Plain| match key {
            Plain::Text(text) => text == child,
            Plain::Int(int) => int.to_string() == child,
            _ => false,
        };
        for (_, name) in wanted.iter().filter(|(key, _)| is_wanted(key)) {
            if let Plain::Text(name) = name {
                result.push(vec![name.as_str().into(), x.clone()].into());
            }
        }
    }
    Ok(Arg::List(result))
}

fn named(this: &This, net: &Lower, features: &Arg, name: &str) -> Result<Arg> {
    let all = features.list().unwrap_or_default().iter();
    let found = all.filter_map(Arg::list).find(|pair| matches!(pair, [Arg::Str(key), _] if &**key == name));
    match found {
        Some([_, x]) => Ok(x.clone()),
        _ => Err(this.fail(net, format!("the features have no '{name}'"))),
    }
}

/// Resized to the height and width of another one.
fn resized(this: &This, net: &mut Lower, x: &Arg, like: &Arg) -> Result<Arg> {
    let value = net.value(like)?;
    let size: Arg = vec![net.size(value, 2).into(), net.size(value, 3).into()].into();
    interpolate(this, net, x, (size, Arg::None), "bilinear", false.into())
}

fn return_layers(pairs: &[(String, &str)]) -> Plain {
    Plain::Dict(pairs.iter().map(|(layer, name)| (layer.as_str().into(), (*name).into())).collect())
}

/// The trunk without its head: a ResNet, or the features of a MobileNetV3.
fn backbone(at: &At, names: (&str, &str), aux: bool) -> ModuleTree {
    let mut new = New::of("~._utils.IntermediateLayerGetter", at);
    let (last, middle) = if at.has("layer1") {
        let dilate = at.arg("replace_stride_with_dilation").map_or_else(|| vec![0, 1, 1], numbers);
        for (name, child) in super::resnet::tree(at, &dilate).children {
            if let Some(child) = child.filter(|_| name != "avgpool" && name != "fc") {
                new = new.add(&name, |_| (*child).clone());
            }
        }
        ("layer4".to_owned(), "layer3".to_owned())
    } else {
        new = super::mobilenetv3::features(new, at, true);
        let blocks = at.count().saturating_sub(2);
        // As torchvision counts: the first, those that step, the last; the fourth from the end.
        let steps = super::mobilenetv3::steps(blocks);
        let middle = steps.get(steps.len().saturating_sub(3)).copied().unwrap_or(1);
        ((blocks + 1).to_string(), middle.to_string())
    };
    let mut pairs = vec![(last, names.0)];
    if aux {
        pairs.push((middle, names.1));
    }
    new.set("return_layers", return_layers(&pairs)).done()
}

fn fcn_head(at: &At) -> ModuleTree {
    let new = New::of("~.segmentation.fcn.FCNHead", at);
    let new = new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU")).push(dropout(0.1));
    new.push(conv(stride(1))).done()
}

fn deeplab_head(at: &At) -> ModuleTree {
    let new = New::of("~.segmentation.deeplabv3.DeepLabHead", at).push(aspp);
    new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU")).push(conv(stride(1))).done()
}

fn aspp(at: &At) -> ModuleTree {
    let count = at.at("convs").count();
    let rates = at.arg("atrous_rates").map_or_else(|| vec![12, 24, 36], numbers);
    if count != rates.len() + 2 {
        at.lacks("convs.4.1.weight");
    }
    let convs = |at: &At| {
        let mut new = New::of("torch.nn.ModuleList", at);
        new = new.push(sequential(|new| new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU"))));
        for &rate in &rates {
            new = new.push(|at| {
                let new = New::of("~.segmentation.deeplabv3.ASPPConv", at);
                new.push(conv(stride(1).dilation(rate))).push(batch_norm(1e-5)).push(layer("ReLU")).done()
            });
        }
        new.push(|at| {
            let new = New::of("~.segmentation.deeplabv3.ASPPPooling", at).push(adaptive_avg_pool(1));
            new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU")).done()
        })
        .done()
    };
    let project =
        sequential(|new| new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU")).push(dropout(0.5)));
    New::of("~.segmentation.deeplabv3.ASPP", at).add("convs", convs).add("project", project).done()
}

fn trunk_name(at: &At) -> String {
    match at.has("backbone.layer1") {
        true => {
            let blocks: usize = (1..=4).map(|i| at.at(&format!("backbone.layer{i}")).count()).sum();
            let per_block = if at.has("backbone.layer1.0.conv3") { 3 } else { 2 };
            format!("resnet{}", blocks * per_block + 2)
        }
        false if at.at("backbone").count() == 13 => "mobilenet_v3_small".to_owned(),
        false => "mobilenet_v3_large".to_owned(),
    }
}

fn segmentation(at: &At, class: &str, name: &str, head: fn(&At) -> ModuleTree) -> Candidate {
    let aux = at.has("aux_classifier");
    let new = New::of(class, at)
        .add("backbone", |at| backbone(at, ("out", "aux"), aux))
        .add("classifier", head)
        .add_if(aux, "aux_classifier", fcn_head);
    let details = if aux { "with an auxiliary head" } else { "without an auxiliary head" };
    Candidate::new(format!("{name}_{}", trunk_name(at)), details, new.done()).image(520)
}

/// The FCN of these weights.
pub fn fcn(at: &At) -> Candidate {
    segmentation(at, "~.segmentation.fcn.FCN", "fcn", fcn_head)
}

/// The DeepLabV3 of these weights.
pub fn deeplabv3(at: &At) -> Candidate {
    segmentation(at, "~.segmentation.deeplabv3.DeepLabV3", "deeplabv3", deeplab_head)
}

/// The LR-ASPP of these weights.
pub fn lraspp(at: &At) -> Candidate {
    let head = |at: &At| {
        New::of("~.segmentation.lraspp.LRASPPHead", at)
            .add("cbr", sequential(|new| new.push(conv(stride(1))).push(batch_norm(1e-5)).push(layer("ReLU"))))
            .add("scale", sequential(|new| new.push(adaptive_avg_pool(1)).push(conv(stride(1))).push(layer("Sigmoid"))))
            .add("low_classifier", conv(stride(1)))
            .add("high_classifier", conv(stride(1)))
            .done()
    };
    let new = New::of("~.segmentation.lraspp.LRASPP", at)
        .add("backbone", |at| backbone(at, ("high", "low"), true))
        .add("classifier", head);
    Candidate::new(format!("lraspp_{}", trunk_name(at)), "light head", new.done()).image(520)
}
