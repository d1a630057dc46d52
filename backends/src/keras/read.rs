//! Weights that know their model: a `.weights.h5` carries the model's configuration, so that a whole model can be made of
//! it without running the code.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use modelport_ir::atomic::AtomicFile;
use modelport_ir::hdf5::{Attribute, Group};
use modelport_ir::{DType, Dim, Problem, Result, Shape};
use serde_json::{Map, Value};

use super::files::{self, FileFormat, snake_case};
use super::model::{Argument, Call, Layer, Model, TensorRef};
use crate::plan::Param;
use crate::weights::Progress;

/// Where a file keeps the configuration, and a checksum of the code that goes with it.
const CONFIG: &str = "model_config";
const CODE: &str = "code_crc32";

/// What a file of weights says of its model.
fn described(model: &Model, code: &str) -> Vec<(String, String)> {
    vec![(CONFIG.to_owned(), model.config().to_string()), (CODE.to_owned(), checksum(code))]
}

fn checksum(code: &str) -> String {
    format!("{:08x}", crc32fast::hash(code.as_bytes()))
}

/// Writes a `.weights.h5` that says what model it is of.
///
/// # Errors
/// When a tensor can't be read, or the file can't be written.
pub fn write_weights(file: &mut AtomicFile, model: &Model, code: &str, progress: Progress) -> Result<()> {
    let path = file.path().to_owned();
    let mut root = files::weights(model).map_err(|error| error.in_file(&path))?;
    let attributes = described(model, code).into_iter().map(|(name, text)| (name, Attribute::Text(text)));
    root.attributes.extend(attributes);
    files::write_hdf5(file, &root, progress)
}

/// The model that a file of weights is of. `code` is the generated file that goes with it, which must be unchanged.
///
/// # Errors
/// When the file does not say what model it is of, is damaged, or the code was changed.
pub fn read(path: &Path, code: Option<(&Path, &str)>) -> Result<Model> {
    let silent = || {
        let problem = Problem::new("does not say what model its weights are of").file(path);
        problem.hint("give the .weights.h5 that `modelport to-code -f keras` has written")
    };
    let damaged = |message: String| Problem::new(format!("has a damaged configuration: {message}")).file(path);
    let check = |stored: Option<&str>| match (code, stored) {
        (Some((code_path, text)), Some(stored)) if checksum(text) != stored => {
            let problem = Problem::new("is not the code that these weights were written with").file(code_path);
            Err(problem.hint("a model of changed code is saved in Python: load(weights).save(\"model.keras\")"))
        }
        _ => Ok(()),
    };
    let parsed = |config: &str| -> std::result::Result<Model, Problem> {
        let config: Value = serde_json::from_str(config).map_err(|error| damaged(error.to_string()))?;
        model(&config).ok_or_else(|| damaged("it is no functional model".to_owned()))
    };
    if FileFormat::of(path) != Some(FileFormat::Weights) {
        return Err(silent().into());
    }
    let root = Group::open(path)?;
    check(root.text(CODE))?;
    let mut model = parsed(root.text(CONFIG).ok_or_else(silent)?)?;
    fill(&mut model, &root).map_err(damaged)?;
    Ok(model)
}

/// A layer's variables, in Keras' order, as the layer's weights call them.
fn variables(layer: &Layer) -> Vec<String> {
    let cell = |config: &Map<String, Value>, above: &str| -> Vec<String> {
        let bias = config.get("use_bias").and_then(Value::as_bool).unwrap_or(true);
        let names = ["kernel", "recurrent_kernel"].into_iter().chain(bias.then_some("bias"));
        names.map(|name| format!("{above}{name}")).collect()
    };
    match layer.class_name.as_str() {
        "LSTM" | "GRU" | "SimpleRNN" => cell(&layer.config, ""),
        "Bidirectional" => {
            let inner = layer.config.get("layer").and_then(|layer| layer.get("config")).and_then(Value::as_object);
            let both = ["forward_layer/", "backward_layer/"].into_iter();
            both.flat_map(|above| inner.into_iter().flat_map(move |inner| cell(inner, above))).collect()
        }
        _ => own_variables(layer).into_iter().map(str::to_owned).collect(),
    }
}

fn own_variables(layer: &Layer) -> Vec<&'static str> {
    let is_on = |key: &str| layer.config.get(key).and_then(Value::as_bool).unwrap_or(true);
    let affine = [("scale", "gamma"), ("center", "beta")];
    let mut names: Vec<&str> = match layer.class_name.as_str() {
        "Embedding" => vec!["embeddings"],
        "PReLU" => vec!["alpha"],
        "BatchNormalization" | "LayerNormalization" | "GroupNormalization" => {
            affine.into_iter().filter(|(key, _)| is_on(key)).map(|(_, name)| name).collect()
        }
        class if class == "Dense" || class.contains("Conv") => {
            std::iter::once("kernel").chain(is_on("use_bias").then_some("bias")).collect()
        }
        _ => Vec::new(),
    };
    if layer.class_name == "BatchNormalization" {
        names.extend(["moving_mean", "moving_variance"]);
    }
    names
}

fn fill(model: &mut Model, root: &Group) -> std::result::Result<(), String> {
    let mut used: HashMap<String, usize> = HashMap::new();
    let mut read: HashSet<String> = HashSet::new();
    for layer in model.layers.iter_mut().filter(|layer| !layer.is_operation()) {
        let class = snake_case(&layer.class_name);
        let count = used.entry(class.clone()).or_default();
        let folder = if *count == 0 { format!("layers/{class}") } else { format!("layers/{class}_{count}") };
        *count += 1;
        let names = variables(layer);
        let places = files::places(&layer.class_name, names.iter().map(String::as_str));
        for (place, name) in places.into_iter().zip(names) {
            let path = format!("{folder}/{place}");
            let dataset = root.dataset(&path);
            read.insert(path);
            let dataset = dataset.ok_or_else(|| format!("there are no weights for '{}/{name}'", layer.name))?;
            let tensor = dataset.tensor.clone();
            layer.weights.push(Param { key: name, tensor, source: String::new() });
        }
    }
    // What no layer took would be lost.
    let lost = root.datasets().into_iter().map(|(path, _)| path).find(|path| {
        let path = path.trim_start_matches('/');
        !read.contains(path) && !path.contains("seed_generator/")
    });
    lost.map_or(Ok(()), |path| Err(format!("no layer has the weights '{path}'")))
}

/// A model of Keras 3's configuration, without its weights.
fn model(config: &Value) -> Option<Model> {
    let config = config.get("config")?;
    let entries = config.get("layers")?.as_array()?;
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let places: HashMap<String, usize> =
        entries.iter().enumerate().filter_map(|(i, entry)| Some((text(entry, "name")?, i))).collect();
    let layer = |entry: &Value| {
        let calls = entry.get("inbound_nodes")?.as_array()?.iter().map(|node| {
            let args = node.get("args")?.as_array()?.iter().map(|arg| argument(arg, &places));
            let kwargs = node.get("kwargs")?.as_object()?.iter();
            let kwargs = kwargs.map(|(name, arg)| Some((name.clone(), argument(arg, &places)?)));
            Some(Call { args: args.collect::<Option<_>>()?, kwargs: kwargs.collect::<Option<_>>()? })
        });
        Some(Layer {
            name: text(entry, "name")?,
            class_name: text(entry, "class_name")?,
            module: text(entry, "module")?,
            config: entry.get("config").and_then(Value::as_object).cloned().unwrap_or_default(),
            calls: calls.collect::<Option<_>>()?,
            weights: Vec::new(),
        })
    };
    let layers: Vec<Layer> = entries.iter().map(layer).collect::<Option<_>>()?;
    let ends = |key: &str| -> Option<Vec<TensorRef>> {
        let list = config.get(key)?.as_array()?;
        match list.first()? {
            Value::String(_) => Some(vec![history(list, &places)?]),
            _ => list.iter().map(|end| history(end.as_array()?, &places)).collect(),
        }
    };
    let (inputs, outputs) = (ends("input_layers")?, ends("output_layers")?);
    Some(Model { name: text(config, "name")?, layers, inputs, outputs })
}

fn history(parts: &[Value], places: &HashMap<String, usize>) -> Option<TensorRef> {
    let [name, node, tensor] = parts else { return None };
    let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let layer = *places.get(name.as_str()?)?;
    Some(TensorRef { layer, node: number(node)?, tensor: number(tensor)?, shape: None, dtype: DType::Float32 })
}

fn argument(value: &Value, places: &HashMap<String, usize>) -> Option<Argument> {
    match value {
        Value::Array(items) => {
            Some(Argument::List(items.iter().map(|item| argument(item, places)).collect::<Option<_>>()?))
        }
        Value::Object(object) if object.get("class_name").and_then(Value::as_str) == Some("__keras_tensor__") => {
            let config: &Map<String, Value> = object.get("config")?.as_object()?;
            let mut tensor = history(config.get("keras_history")?.as_array()?, places)?;
            let size = |size: &Value| size.as_u64().map_or(Dim::Unknown, |size| Dim::Known(size as usize));
            tensor.shape = config.get("shape").and_then(Value::as_array).map(|s| Shape(s.iter().map(size).collect()));
            let dtype = config.get("dtype").and_then(Value::as_str);
            tensor.dtype = DType::ALL.into_iter().find(|d| Some(d.name()) == dtype).unwrap_or(DType::Float32);
            Some(Argument::Tensor(tensor))
        }
        other => Some(Argument::Plain(other.clone())),
    }
}
