//! The configuration of a model in Keras 2's form. What that can't say, as operations (`keras.ops`), is in Keras 3's.

use modelport_ir::{Error, Problem, Result};
use serde_json::{Map, Value, json};

use crate::keras::model::{Argument, Call, Layer, Model, TensorRef};

/// What is `model_config` in an `.h5` file that Keras of this version reads.
///
/// # Errors
/// For Keras 2: all operations, and calls that its form can't say.
pub fn config(model: &Model, version: u8) -> Result<Value> {
    let mut problems = Vec::new();
    let mut layers = Vec::with_capacity(model.layers.len());
    for layer in &model.layers {
        let said = match layer.is_operation() {
            true => Err("Keras 2 has no such operation in its files".to_owned()),
            false => layer.calls.iter().map(|call| node(model, call)).collect::<std::result::Result<Vec<Value>, _>>(),
        };
        match said {
            Ok(nodes) => layers.push(json!({
                "class_name": layer.class_name,
                "config": layer_config(layer, version),
                "name": layer.name,
                "inbound_nodes": nodes,
            })),
            // Keras 3 reads its own form as well where the module is said, which it leaves out when it writes itself.
            Err(_) if version > 2 => layers.push(model.entry(layer)),
            Err(message) => problems.push(
                Problem::new(message)
                    .op(&layer.class_name)
                    .node(&layer.name)
                    .hint("write .safetensors or .npy instead: weights for the code, which makes the model"),
            ),
        }
    }
    Error::collect(problems)?;
    // One that is alone in a list would make Keras 3 expect lists.
    let ends = |ends: &[TensorRef]| match ends {
        [one] => one.history(model),
        several => several.iter().map(|end| end.history(model)).collect::<Value>(),
    };
    Ok(json!({
        "class_name": "Functional",
        "config": {
            "name": model.name,
            "trainable": true,
            "layers": layers,
            "input_layers": ends(&model.inputs),
            "output_layers": ends(&model.outputs),
        },
    }))
}

/// `[[layer, node, tensor, arguments], …]`: tensors that are called on, the other arguments with the first.
fn node(model: &Model, call: &Call) -> std::result::Result<Value, String> {
    let mut kwargs = Map::new();
    for (name, argument) in &call.kwargs {
        let value = match argument {
            Argument::Plain(value) => value.clone(),
            Argument::Tensor(tensor) => tensor.history(model),
            Argument::List(_) => return Err(format!("Keras 2's form can't say a list as the argument {name}")),
        };
        kwargs.insert(name.clone(), value);
    }
    let tensors = match call.args.as_slice() {
        [Argument::Tensor(tensor)] => vec![tensor],
        [Argument::List(items)] => {
            let tensors = items.iter().map(|item| match item {
                Argument::Tensor(tensor) => Some(tensor),
                _ => None,
            });
            tensors
                .collect::<Option<Vec<_>>>()
                .ok_or("Keras 2's form can't say a list with other things than tensors")?
        }
        _ => return Err("Keras 2's form can't say such a call: it has one tensor or a list of tensors".to_owned()),
    };
    let calls = tensors.iter().enumerate().map(|(index, tensor)| {
        let mut call = tensor.history(model);
        if let Value::Array(call) = &mut call {
            call.push(Value::Object(if index == 0 { kwargs.clone() } else { Map::new() }));
        }
        call
    });
    Ok(calls.collect())
}

fn layer_config(layer: &Layer, version: u8) -> Value {
    let mut config = Map::new();
    for (key, value) in &layer.config {
        let key = match (layer.class_name.as_str(), key.as_str()) {
            ("InputLayer", "batch_shape") => "batch_input_shape",
            ("LeakyReLU", "negative_slope") if version == 2 => "alpha",
            // What Keras 2 does not have, with the values that mean what it does.
            ("InputLayer", "optional") | ("BatchNormalization", "renorm") => continue,
            (_, "lora_rank" | "quantization_config" | "use_cudnn") => continue,
            (_, key) => key,
        };
        config.insert(key.to_owned(), plain(value));
    }
    if layer.class_name == "InputLayer" {
        for key in ["sparse", "ragged"] {
            config.entry(key).or_insert(Value::Bool(false));
        }
    }
    Value::Object(config)
}

/// Without what Keras 3 says of classes: initialisers are a name and a configuration, types a name.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(object) => match (object.get("class_name"), object.get("config")) {
            (Some(Value::String(class)), Some(config)) if class == "DTypePolicy" => {
                config.get("name").cloned().unwrap_or(Value::Null)
            }
            // A layer in a layer: Keras 3 needs to know whose class it is, Keras 2 takes it.
            (Some(class), Some(config)) if object.get("module").is_some_and(|module| module == "keras.layers") => {
                json!({
                    "module": "keras.layers", "class_name": class, "config": plain(config), "registered_name": null,
                })
            }
            (Some(class), Some(config)) if object.contains_key("module") => {
                json!({"class_name": class, "config": plain(config)})
            }
            _ => object.iter().map(|(key, value)| (key.clone(), plain(value))).collect::<Map<_, _>>().into(),
        },
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}
