//! Where Keras keeps the weights of layers: by class and order in Keras 3, by name in Keras 2.

use std::collections::HashMap;

use modelport_ir::hdf5::{Attribute, Group, Node};
use modelport_ir::{DType, Problem, Result, Tensor};

use crate::keras::model::{Layer, Model};

/// Weights as Keras 3 saves them: `layers/<class>[_n]/vars/<i>`, in the order of `model.layers`.
///
/// # Errors
/// When two weights would be in one place.
pub fn weights(model: &Model) -> Result<Group> {
    let mut root = Group::default();
    let mut used: HashMap<String, usize> = HashMap::new();
    let mut problems = Vec::new();
    named(&mut root, "vars", &model.name);
    for layer in model.layers.iter().filter(|layer| !layer.is_operation()) {
        let class = snake_case(&layer.class_name);
        let count = used.entry(class.clone()).or_default();
        let folder = match count {
            0 => format!("layers/{class}"),
            _ => format!("layers/{class}_{count}"),
        };
        *count += 1;
        named(&mut root, &format!("{folder}/vars"), &layer.name);
        let mut put = |path: String, tensor: &Tensor| {
            if let Err(message) = root.put(&path, tensor.clone()) {
                problems.push(Problem::new(message).node(&layer.name));
            }
        };
        let places = places(&layer.class_name, layer.weights.iter().map(|param| param.key.as_str()));
        for (place, param) in places.iter().zip(&layer.weights) {
            put(format!("{folder}/{place}"), &param.tensor);
        }
        if is_random(layer) {
            // The state of its random numbers; Keras makes a new one where it is zero.
            put(format!("{folder}/seed_generator/vars/0"), &Tensor::from_f64(DType::UInt32, &[2], [0.0, 0.0]));
        }
    }
    modelport_ir::Error::collect(problems)?;
    Ok(root)
}

/// Weights as Keras 2 saves them: `layer/layer/kernel:0`, and lists of layers' and weights' names.
///
/// # Errors
/// When two weights would be in one place.
pub fn legacy_weights(model: &Model) -> Result<Group> {
    let mut root = Group::default();
    let mut problems = Vec::new();
    let layers = || model.layers.iter().filter(|layer| !layer.is_operation());
    root.set_texts("layer_names", layers().map(|layer| layer.name.clone()).collect());
    for (name, value) in [("backend", "tensorflow"), ("keras_version", super::KERAS_2)] {
        root.attributes.insert(name.to_owned(), Attribute::Text(value.to_owned()));
    }
    for layer in layers() {
        let mut group = Group::default();
        let names: Vec<String> = layer
            .weights
            .iter()
            .map(|param| {
                let cell = match part(&layer.class_name, &param.key).as_str() {
                    "cell/" => format!("{}_cell/", snake_case(&layer.class_name)),
                    "forward_layer/cell/" => "forward/cell/".to_owned(),
                    "backward_layer/cell/" => "backward/cell/".to_owned(),
                    _ => String::new(),
                };
                let key = param.key.rsplit('/').next().filter(|_| !cell.is_empty()).unwrap_or(&param.key);
                format!("{}/{cell}{key}:0", layer.name)
            })
            .collect();
        for (name, param) in names.iter().zip(&layer.weights) {
            if let Err(message) = group.put(name, param.tensor.clone()) {
                problems.push(Problem::new(message).node(&layer.name));
            }
        }
        group.set_texts("weight_names", names);
        root.members.insert(layer.name.clone(), Node::Group(group));
    }
    root.make("top_level_model_weights").map_err(Problem::new)?.set_texts("weight_names", Vec::new());
    modelport_ir::Error::collect(problems)?;
    Ok(root)
}

/// Where a layer's variables are, below its folder: in the part that has them, by their number there.
pub fn places<'a>(class: &str, keys: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let place = |key: &str| {
        let part = part(class, key);
        let number = counts.entry(part.clone()).or_default();
        *number += 1;
        format!("{part}vars/{}", *number - 1)
    };
    keys.map(place).collect()
}

/// The part of a layer that a weight belongs to, with a slash behind; nothing for the layer itself.
fn part(class: &str, key: &str) -> String {
    let above = key.rsplit_once('/').map(|(above, _)| format!("{above}/")).unwrap_or_default();
    match class {
        "LSTM" | "GRU" | "SimpleRNN" | "Bidirectional" => format!("{above}cell/"),
        "MultiHeadAttention" | "MultiheadAttention" => match key.split_once('/') {
            Some((part, _)) => format!("{}_dense/", part.trim_start_matches("attention_")),
            None => String::new(),
        },
        _ => above,
    }
}

/// Whether Keras gives the layer a state of random numbers.
fn is_random(layer: &Layer) -> bool {
    let is_class = matches!(
        layer.class_name.as_str(),
        "Dropout"
            | "SpatialDropout1D"
            | "SpatialDropout2D"
            | "SpatialDropout3D"
            | "GaussianDropout"
            | "GaussianNoise"
            | "AlphaDropout"
    );
    // Without a rate there is nothing random.
    let rate = layer.config.get("rate").or(layer.config.get("stddev")).and_then(serde_json::Value::as_f64);
    is_class && rate != Some(0.0)
}

fn named(root: &mut Group, path: &str, name: &str) {
    if let Ok(group) = root.make(path) {
        group.attributes.insert("name".to_owned(), Attribute::Text(name.to_owned()));
    }
}

/// Keras' name for a class in paths: `BatchNormalization` is `batch_normalization`, `Conv2D` is `conv2d`.
pub fn snake_case(class: &str) -> String {
    let chars: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut name = String::with_capacity(class.len() + 4);
    for (index, c) in chars.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|at| chars.get(at));
        let begins_word = c.is_ascii_uppercase() && chars.get(index + 1).is_some_and(char::is_ascii_lowercase);
        let after_lower = c.is_ascii_uppercase() && before.is_some_and(char::is_ascii_lowercase);
        if (begins_word && before.is_some() || after_lower) && before != Some(&'_') {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name
}
