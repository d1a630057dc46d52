//! Words for classes and members, and which names of the source say something.

use crate::python::camel_case;

/// The word for a role in the name of a chain: `ConvBNReLU`.
pub fn role_word(role: &str) -> String {
    match role {
        "bn" => "BN".to_owned(),
        "fc" => "Linear".to_owned(),
        "relu" => "ReLU".to_owned(),
        "relu6" => "ReLU6".to_owned(),
        role => camel_case(role),
    }
}

/// Names that only repeat the layer's type say nothing.
pub fn is_generic(name: &str) -> bool {
    // A number behind an underscore only makes a name unique; `conv3` says which one it is.
    let digits = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = if digits.ends_with('_') { digits } else { name }.to_ascii_lowercase();
    let stem: String = stem.chars().filter(|c| *c != '_').collect();
    const GENERIC: &[&str] = &[
        "batchnorm",
        "batchnormalization",
        "fusedbatchnorm",
        "bn",
        "conv",
        "convd",
        "conv2d",
        "convolution",
        "dense",
        "fullyconnected",
        "linear",
        "dropout",
        "matmul",
        "depthwise",
        "layernorm",
        "layernormalization",
        "prelu",
        "embedding",
        "separableconv2d",
    ];
    GENERIC.contains(&stem.as_str())
}

/// What all names begin with.
pub fn common_prefix<'a>(names: &[&'a str]) -> &'a str {
    let Some(first) = names.first() else { return "" };
    let length = names.iter().fold(first.len(), |length, name| {
        first.bytes().zip(name.bytes()).take(length).take_while(|(a, b)| a == b).count()
    });
    first.get(..length).unwrap_or(first)
}
