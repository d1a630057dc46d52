//! torchvision's `models/inception.py`.

use modelport_ir::Result;

use super::build::*;
use super::call::{Forward, This, functional as F};
use super::layers::one;
use super::recognise::Candidate;
use crate::pytorch::arg::Arg;
use crate::pytorch::lower::Lower;
use crate::pytorch::module::ModuleTree;

use super::googlenet::{basic, basic_conv, transform_input};

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    Some(match class {
        "Inception3" => inception3,
        "BasicConv2d" => basic_conv,
        "InceptionA" => |this, net, x| {
            let x = one(this, net, x)?;
            let branch1x1 = this.call(net, "branch1x1", &x)?;
            let branch5x5 = this.chain(net, &["branch5x5_1", "branch5x5_2"], &x)?;
            let branch3x3dbl = this.chain(net, &["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"], &x)?;
            let branch_pool = pooled(this, net, &x)?;
            F::cat(net, vec![branch1x1, branch5x5, branch3x3dbl, branch_pool], 1)
        },
        "InceptionB" => |this, net, x| {
            let x = one(this, net, x)?;
            let branch3x3 = this.call(net, "branch3x3", &x)?;
            let branch3x3dbl = this.chain(net, &["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"], &x)?;
            let branch_pool = F::max_pool2d(net, &x, 3, 2)?;
            F::cat(net, vec![branch3x3, branch3x3dbl, branch_pool], 1)
        },
        "InceptionC" => |this, net, x| {
            let x = one(this, net, x)?;
            let branch1x1 = this.call(net, "branch1x1", &x)?;
            let branch7x7 = this.chain(net, &["branch7x7_1", "branch7x7_2", "branch7x7_3"], &x)?;
            let double = ["branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"];
            let branch7x7dbl = this.chain(net, &double, &x)?;
            let branch_pool = pooled(this, net, &x)?;
            F::cat(net, vec![branch1x1, branch7x7, branch7x7dbl, branch_pool], 1)
        },
        "InceptionD" => |this, net, x| {
            let x = one(this, net, x)?;
            let branch3x3 = this.chain(net, &["branch3x3_1", "branch3x3_2"], &x)?;
            let parts = ["branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"];
            let branch7x7x3 = this.chain(net, &parts, &x)?;
            let branch_pool = F::max_pool2d(net, &x, 3, 2)?;
            F::cat(net, vec![branch3x3, branch7x7x3, branch_pool], 1)
        },
        "InceptionE" => |this, net, x| {
            let x = one(this, net, x)?;
            let branch1x1 = this.call(net, "branch1x1", &x)?;
            let branch3x3 = this.call(net, "branch3x3_1", &x)?;
            let branch3x3 = forked(this, net, &branch3x3, ["branch3x3_2a", "branch3x3_2b"])?;
            let branch3x3dbl = this.chain(net, &["branch3x3dbl_1", "branch3x3dbl_2"], &x)?;
            let branch3x3dbl = forked(this, net, &branch3x3dbl, ["branch3x3dbl_3a", "branch3x3dbl_3b"])?;
            let branch_pool = pooled(this, net, &x)?;
            F::cat(net, vec![branch1x1, branch3x3, branch3x3dbl, branch_pool], 1)
        },
        // Only training computes it.
        "InceptionAux" => |this, net, _| Err(this.fail(net, "an auxiliary head was called")),
        _ => return None,
    })
}

fn pooled(this: &This, net: &mut Lower, x: &Arg) -> Result<Arg> {
    let x = F::avg_pool2d(net, x, 3, 1, 1)?;
    this.call(net, "branch_pool", &x)
}

fn forked(this: &This, net: &mut Lower, x: &Arg, children: [&str; 2]) -> Result<Arg> {
    let (a, b) = (this.call(net, children[0], x)?, this.call(net, children[1], x)?);
    F::cat(net, vec![a, b], 1)
}

/// The children, and the class or window of each.
const TRUNK: [(&str, &str); 18] = [
    ("Conv2d_1a_3x3", "step"),
    ("Conv2d_2a_3x3", "valid"),
    ("Conv2d_2b_3x3", "same"),
    ("maxpool1", "pool"),
    ("Conv2d_3b_1x1", "same"),
    ("Conv2d_4a_3x3", "valid"),
    ("maxpool2", "pool"),
    ("Mixed_5b", "A"),
    ("Mixed_5c", "A"),
    ("Mixed_5d", "A"),
    ("Mixed_6a", "B"),
    ("Mixed_6b", "C"),
    ("Mixed_6c", "C"),
    ("Mixed_6d", "C"),
    ("Mixed_6e", "C"),
    ("Mixed_7a", "D"),
    ("Mixed_7b", "E"),
    ("Mixed_7c", "E"),
];

fn inception3(this: &This, net: &mut Lower, x: &[Arg]) -> Result<Arg> {
    let x = one(this, net, x)?;
    let x = transform_input(this, net, x)?;
    let x = this.chain(net, &TRUNK.map(|(child, _)| child), &x)?;
    if !this.has("fc") {
        return Ok(x);
    }
    let x = this.chain(net, &["avgpool", "dropout"], &x)?;
    let x = F::flatten(net, &x)?;
    this.call(net, "fc", &x)
}

/// The network of these weights.
pub fn build(at: &At) -> Candidate {
    let simple = |window: Window| basic("~.inception.BasicConv2d", window);
    let mut new =
        New::of("~.inception.Inception3", at).set("transform_input", at.arg("transform_input") == Some("true"));
    for (child, kind) in TRUNK {
        new = match kind {
            "step" => new.add(child, simple(stride(2).padding(0))),
            "valid" => new.add(child, simple(stride(1).padding(0))),
            "same" => new.add(child, simple(stride(1))),
            "pool" => new.add(child, max_pool(3, 2, 0, false)),
            kind => new.add(child, |at| mixed(at, kind)),
        };
    }
    at.ignore("AuxLogits");
    if at.has("fc") {
        new = new.add("avgpool", adaptive_avg_pool(1)).add("dropout", dropout(0.5)).add("fc", linear);
    }
    Candidate::new("inception_v3", "eleven inception modules", new.done()).image(299)
}

fn mixed(at: &At, kind: &str) -> ModuleTree {
    let children: &[&str] = match kind {
        "A" => &[
            "branch1x1",
            "branch5x5_1",
            "branch5x5_2",
            "branch3x3dbl_1",
            "branch3x3dbl_2",
            "branch3x3dbl_3",
            "branch_pool",
        ],
        "B" => &["branch3x3", "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"],
        "C" => &[
            "branch1x1",
            "branch7x7_1",
            "branch7x7_2",
            "branch7x7_3",
            "branch7x7dbl_1",
            "branch7x7dbl_2",
            "branch7x7dbl_3",
            "branch7x7dbl_4",
            "branch7x7dbl_5",
            "branch_pool",
        ],
        "D" => &["branch3x3_1", "branch3x3_2", "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"],
        _ => &[
            "branch1x1",
            "branch3x3_1",
            "branch3x3_2a",
            "branch3x3_2b",
            "branch3x3dbl_1",
            "branch3x3dbl_2",
            "branch3x3dbl_3a",
            "branch3x3dbl_3b",
            "branch_pool",
        ],
    };
    let steps: &[&str] = match kind {
        "B" => &["branch3x3", "branch3x3dbl_3"],
        "D" => &["branch3x3_2", "branch7x7x3_4"],
        _ => &[],
    };
    let window = |child: &str| if steps.contains(&child) { stride(2).padding(0) } else { stride(1) };
    let class = format!("~.inception.Inception{kind}");
    let mut new = New::of(&class, at);
    for child in children {
        new = new.add(child, basic("~.inception.BasicConv2d", window(child)));
    }
    new.done()
}
