//! torchvision's `models/vgg.py`.

use super::build::*;
use super::call::Forward;
use super::recognise::Candidate;

/// What a module of this class computes.
pub fn forward(class: &str) -> Option<Forward> {
    (class == "VGG").then_some(super::alexnet::features_and_classifier as Forward)
}

/// The network of these weights. Pools are where the numbers of the convolutions leave one out.
pub fn build(at: &At) -> Candidate {
    let features = at.at("features");
    let convs: Vec<usize> = features
        .indices()
        .into_iter()
        .filter(|i| features.shape(&format!("{i}.weight")).is_some_and(|s| s.len() == 4))
        .collect();
    let normed = features.has("1.running_mean");
    let per_conv = if normed { 3 } else { 2 };
    // AlexNet has as plain a chain, with other kernels.
    if convs.first() != Some(&0) || features.size("0.weight", 2) != 3 {
        at.lacks("features.0.weight");
    }
    let stack = sequential(|mut new| {
        for (index, &place) in convs.iter().enumerate() {
            new = new.push(conv(stride(1)));
            if normed {
                new = new.push(batch_norm(1e-5));
            }
            new = new.push(layer("ReLU"));
            // The last convolution has a pool behind it.
            let next = convs.get(index + 1).copied().unwrap_or(place + per_conv + 1);
            if next > place + per_conv {
                new = new.push(max_pool(2, 2, 0, false));
            }
        }
        new
    });
    let mut new = New::of("~.vgg.VGG", at).add("features", stack);
    let linears = at.at("classifier").indices();
    if let (Some(&first), Some(last)) = (linears.first(), convs.last()) {
        let channels = features.size(&format!("{last}.weight"), 0);
        let side = super::alexnet::pooled(at, channels, &format!("classifier.{first}.weight"));
        if at.arg("avgpool") != Some("false") {
            new = new.add("avgpool", adaptive_avg_pool(side));
        }
        let end = at.at("classifier").count();
        new = new.add(
            "classifier",
            sequential(|new| {
                new.push_each(0..end, |at, index| match index % 3 {
                    _ if at.has("weight") => linear(at),
                    1 => layer("ReLU")(at),
                    _ => dropout(0.5)(at),
                })
            }),
        );
    }
    let name = format!("vgg{}{}", convs.len() + linears.len(), if normed { "_bn" } else { "" });
    Candidate::new(name, format!("{} convolutions", convs.len()), new.done())
}
