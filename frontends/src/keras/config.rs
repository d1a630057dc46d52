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
    /// The shape of what it reads first, without the batch, where it is known.
    pub input: Option<Vec<usize>>,
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

    /// What a model computes in another way than most of PyTorch's, though it has the same parameters.
    pub fn unlike_pytorch(&self) -> Vec<String> {
        let mut layers = Vec::new();
        self.all(&mut layers);
        let mut notes = Vec::new();
        let norms = layers.iter().filter(|entry| entry.class.ends_with("normalization"));
        let epsilons = norms.filter_map(|entry| entry.config.get("epsilon")?.as_f64());
        // Some of Keras' own have 1.001e-5.
        let mut found: Vec<f64> = epsilons.filter(|epsilon| (epsilon / 1e-5 - 1.0).abs() > 0.01).collect();
        found.sort_by(f64::total_cmp);
        for same in found.chunk_by(|a, b| a == b) {
            let value = same.first().copied().unwrap_or_default();
            notes.push(format!("{} norms have epsilon={value}, where PyTorch's have 1e-5 unless told", same.len()));
        }
        let numbers = |entry: &Entry, key: &str| -> Vec<u64> {
            let value = entry.config.get(key);
            let list = value.and_then(Value::as_array).map(|list| list.iter().filter_map(Value::as_u64).collect());
            list.or_else(|| Some(vec![value?.as_u64()?])).unwrap_or_default()
        };
        let pads_at_end = |entry: &&&Entry| {
            let is_strided = numbers(entry, "strides").iter().any(|stride| *stride > 1);
            let kernels = [numbers(entry, "kernel_size"), numbers(entry, "pool_size")].concat();
            let is_same = entry.config.get("padding").and_then(Value::as_str) == Some("same");
            let is_transposed = entry.class.ends_with("transpose");
            let pads = entry.config.get("padding").and_then(Value::as_array).into_iter().flatten();
            let is_uneven = pads.filter_map(Value::as_array).any(|pair| pair.first() != pair.last());
            is_same && is_strided && !is_transposed && kernels.iter().any(|size| *size > 1)
                || entry.class.starts_with("zero_padding") && is_uneven
        };
        let count = layers.iter().filter(pads_at_end).count();
        if count > 0 {
            notes.push(format!(
                "{count} layers pad more at the end than at the beginning (padding=\"same\" with strides, or a padding of \
                 two sizes), where PyTorch's pad both alike: ZeroPadding2D(kernel_size // 2) and padding=\"valid\" do so"
            ));
        }
        notes
    }

    /// All layers, also those of models in the model.
    fn all<'a>(&'a self, into: &mut Vec<&'a Entry>) {
        for entry in &self.layers {
            into.push(entry);
            if let Some(inner) = &entry.inner {
                inner.all(into);
            }
        }
    }

    /// Whether the rows of a layer's kernel are in the order of a `Flatten`, and what that took, if it is known. Unknown
    /// layers on the way count as acting element by element.
    pub fn flattened(&self, name: &str) -> Option<Vec<usize>> {
        let mut flattened: Option<Vec<usize>> = None;
        let mut at = self.find(name);
        for _ in 0..self.layers.len() {
            let Some(source) = at.and_then(|entry| entry.reads.first()).and_then(|name| self.find(name)) else { break };
            let class = source.class.as_str();
            at = Some(source);
            if class == "flatten" {
                flattened = Some(source.input.clone().unwrap_or_default());
            } else if class == "reshape" && !keeps_last_axis(source) {
                flattened = Some(Vec::new());
            } else if class.starts_with("global_") && source.config.get("keepdims") != Some(&Value::Bool(true)) {
                return None;
            } else if ["conv", "pooling", "up_sampling", "zero_padding", "cropping", "concatenate", "resizing"]
                .iter()
                .any(|word| class.contains(word))
                || class == "input_layer"
            {
                return flattened.filter(|_| rank(source) != Some(2));
            } else if ["dense", "lstm", "gru", "rnn", "bidirectional", "embedding"]
                .iter()
                .any(|word| class.contains(word))
            {
                return None;
            }
        }
        None
    }
}

/// Whether a reshape leaves the channels what they are.
fn keeps_last_axis(entry: &Entry) -> bool {
    let last = |shape: &Value| shape.as_array()?.last()?.as_u64();
    let after = entry.config.get("target_shape").and_then(last);
    after.is_some() && after == entry.input.as_ref().and_then(|shape| shape.last()).map(|size| *size as u64)
}

/// The sizes of a shape behind the batch, if all are known.
fn sizes(shape: &Value) -> Option<Vec<usize>> {
    shape.as_array()?.iter().skip(1).map(|size| usize::try_from(size.as_u64()?).ok()).collect()
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
        let mut input = layer.pointer("/build_config/input_shape").and_then(sizes);
        match layer.get("inbound_nodes") {
            Some(nodes) => {
                sources(nodes, &mut reads, 0);
                input = nodes.pointer("/0/args/0/config/shape").and_then(sizes).or(input);
            }
            None if is_sequential => reads.extend(result.layers.last().map(|entry: &Entry| entry.name.clone())),
            None => {}
        }
        let has_layers = inner.get("layers").is_some_and(Value::is_array) && depth < MAX_DEPTH;
        result.layers.push(Entry {
            name,
            class,
            reads,
            input,
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
