//! What a model's configuration says of its layers, in Keras 2's form and in Keras 3's.

use std::collections::HashMap;

use serde_json::Value;

use super::{snake_case, text};

/// Deepest models in models.
const MAX_DEPTH: usize = 16;

/// Layers in order.
#[derive(Debug, Default)]
pub struct Config {
    pub layers: Vec<Entry>,
}

/// A layer.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    /// As in paths.
    pub class: String,
    pub config: Value,
    /// Names of the layers that it reads.
    pub reads: Vec<String>,
    /// The layers of a model.
    pub inner: Option<Config>,
    /// An operation has no place among the layers.
    pub is_operation: bool,
}

impl Config {
    pub fn parse(json: &str) -> Result<Config, String> {
        let value: Value =
            serde_json::from_str(json).map_err(|error| format!("has a damaged configuration: {error}"))?;
        let config = value.get("config").ok_or("has a configuration without a model")?;
        Ok(layers(config, 0))
    }

    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.layers.iter().find(|entry| entry.name == name)
    }

    /// The layer of this name, also in models in the model.
    pub fn find_inside(&self, name: &str) -> Option<&Entry> {
        let inner = || self.layers.iter().filter_map(|entry| entry.inner.as_ref()?.find_inside(name)).next();
        self.find(name).or_else(inner)
    }

    /// The layers with the folders that Keras 3 saves them in.
    pub fn folders(&self) -> Vec<(String, &Entry)> {
        let mut used: HashMap<&str, usize> = HashMap::new();
        let layers = self.layers.iter().filter(|entry| !entry.is_operation);
        layers
            .map(|entry| {
                let count = used.entry(&entry.class).or_default();
                let folder = if *count == 0 { entry.class.clone() } else { format!("{}_{count}", entry.class) };
                *count += 1;
                (folder, entry)
            })
            .collect()
    }

    /// Whether the rows of a layer's kernel are in the order of a `Flatten`. Unknown layers on the way count as such.
    pub fn is_after_flatten(&self, name: &str) -> bool {
        let mut flattened = false;
        let mut at = self.find(name);
        for _ in 0..self.layers.len() {
            let Some(source) = at.and_then(|entry| entry.reads.first()).and_then(|name| self.find(name)) else { break };
            let class = source.class.as_str();
            at = Some(source);
            if matches!(class, "flatten" | "reshape") {
                flattened = true;
            } else if class.starts_with("global_") && source.config.get("keepdims") != Some(&Value::Bool(true)) {
                return false;
            } else if ["conv", "pooling", "up_sampling", "zero_padding", "cropping", "concatenate", "resizing"]
                .iter()
                .any(|word| class.contains(word))
                || class == "input_layer"
            {
                return flattened && rank(source) != Some(2);
            } else if ["dense", "lstm", "gru", "rnn", "bidirectional", "embedding"]
                .iter()
                .any(|word| class.contains(word))
            {
                return false;
            }
        }
        false
    }
}

/// The rank of what an input takes, with the batch.
fn rank(entry: &Entry) -> Option<usize> {
    let shape = entry.config.get("batch_shape").or(entry.config.get("batch_input_shape"))?;
    shape.as_array().map(Vec::len)
}

fn layers(config: &Value, depth: usize) -> Config {
    // Old sequential models are a list themselves.
    let list = config.get("layers").unwrap_or(config).as_array();
    let is_sequential = config.get("input_layers").is_none();
    let mut result = Config::default();
    for layer in list.into_iter().flatten() {
        let inner = layer.get("config").unwrap_or(&Value::Null);
        let name = text(layer, "name").or(text(inner, "name")).unwrap_or_default().to_owned();
        let class = snake_case(text(layer, "class_name").unwrap_or_default());
        let module = text(layer, "module").unwrap_or_default();
        let mut reads = Vec::new();
        match layer.get("inbound_nodes") {
            Some(nodes) => sources(nodes, &mut reads, 0),
            None if is_sequential => reads.extend(result.layers.last().map(|entry: &Entry| entry.name.clone())),
            None => {}
        }
        let has_layers = inner.get("layers").is_some_and(Value::is_array) && depth < MAX_DEPTH;
        result.layers.push(Entry {
            name,
            class,
            reads,
            inner: has_layers.then(|| layers(inner, depth + 1)),
            is_operation: module.contains(".ops"),
            config: if has_layers { Value::Null } else { inner.clone() },
        });
    }
    result
}

/// Names of the layers that calls read: `[name, node, tensor]`, wherever they are.
fn sources(value: &Value, into: &mut Vec<String>, depth: usize) {
    match value {
        Value::Array(items) => match items.as_slice() {
            [Value::String(name), Value::Number(_), Value::Number(_), ..] => into.push(name.clone()),
            items if depth < 4 * MAX_DEPTH => items.iter().for_each(|item| sources(item, into, depth + 1)),
            _ => {}
        },
        Value::Object(object) if depth < 4 * MAX_DEPTH => {
            object.values().for_each(|item| sources(item, into, depth + 1));
        }
        _ => {}
    }
}
