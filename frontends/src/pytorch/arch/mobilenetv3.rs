//! torchvision's `models/mobilenetv3.py`.

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
        "MobileNetV3" => features_pool_classifier,
        "InvertedResidual" => |this, net, x| super::mobilenetv2::residual(this, net, x, "block", "use_res_connect"),
        // As it was until torchvision 0.10.
        "SqueezeExcitation" => |this, net, x| {
            let x = one(this, net, x)?;
            let scale = F::adaptive_avg_pool2d(net, &x, 1)?;
            let scale = this.chain(net, &["fc1", "relu", "fc2"], &scale)?;
            let scale = net.call("aten.hardsigmoid", &[scale], &[])?;
            F::mul(net, &scale, &x)
        },
        _ => return None,
    })
}

/// Features, and the head if there is one.
pub fn features_pool_classifier(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let x = this.call(net, "features", &x)?;
    if !this.has("classifier") {
        return Ok(x);
    }
    let x = this.call(net, "avgpool", &x)?;
    let x = F::flatten(net, &x)?;
    this.call(net, "classifier", &x)
}

/// Where blocks step, from which on the activation is Hardswish, and from which on a dilated network does not step.
struct Shape {
    steps: &'static [usize],
    hardswish: usize,
    dilated: usize,
}

const LARGE: Shape = Shape { steps: &[2, 4, 7, 13], hardswish: 7, dilated: 13 };
const SMALL: Shape = Shape { steps: &[1, 2, 4, 9], hardswish: 4, dilated: 9 };

/// Where the features of a network of so many blocks step.
pub fn steps(blocks: usize) -> &'static [usize] {
    if blocks == 11 { SMALL.steps } else { LARGE.steps }
}

/// Adds the layers of `features`, which are here, to a module.
pub fn features<'a>(new: New<'a>, at: &At<'a>, dilated: bool) -> New<'a> {
    let count = at.count().saturating_sub(2);
    let shape = match count {
        15 => LARGE,
        11 => SMALL,
        _ => {
            at.lacks("16.0.weight");
            LARGE
        }
    };
    let hardswish = |step: usize| conv_norm(stride(step), 1e-3, Some("Hardswish"));
    let mut new = new.push(hardswish(2));
    for index in 1..=count {
        let step = if shape.steps.contains(&index) { 2 } else { 1 };
        let window = if dilated && index >= shape.dilated { stride(1).dilation(2) } else { stride(step) };
        let activation = if index >= shape.hardswish { "Hardswish" } else { "ReLU" };
        new = new.push(|at| block(at, window, step, activation));
    }
    new.push(hardswish(1))
}

fn block(at: &At, window: Window, step: usize, activation: &'static str) -> ModuleTree {
    let inside = at.at("block");
    let count = inside.count();
    let excites = (0..count).any(|index| inside.has(&format!("{index}.fc1")));
    let expands = count > 2 + usize::from(excites);
    let entering = inside.size("0.0.weight", if expands { 1 } else { 0 });
    let leaving = inside.size(&format!("{}.0.weight", count.saturating_sub(1)), 0);
    let layers = sequential(|new| {
        let new = if expands { new.push(conv_norm(stride(1), 1e-3, Some(activation))) } else { new };
        let new = new.push(conv_norm(window, 1e-3, Some(activation)));
        let new = if excites { new.push(squeeze_excitation("ReLU", "Hardsigmoid")) } else { new };
        new.push(conv_norm(stride(1), 1e-3, None))
    });
    New::of("~.mobilenetv3.InvertedResidual", at)
        .set("use_res_connect", step == 1 && entering == leaving)
        .add("block", layers)
        .done()
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let inside = at.at("features");
    let blocks = inside.count().saturating_sub(2);
    let dilated = at.arg("dilated") == Some("true");
    let mut new =
        New::of("~.mobilenetv3.MobileNetV3", at).add("features", sequential(|new| features(new, &inside, dilated)));
    if at.has("classifier") {
        new = new.add("avgpool", adaptive_avg_pool(1)).add(
            "classifier",
            sequential(|new| new.push(linear).push(layer("Hardswish")).push(dropout(0.2)).push(linear)),
        );
    }
    let name = if blocks == 11 { "mobilenet_v3_small" } else { "mobilenet_v3_large" };
    Candidate::new(name, format!("{blocks} inverted residuals"), new.done())
}
