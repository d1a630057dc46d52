//! The variables of layers in an HDF5 file.

use modelport_ir::hdf5::{Group, Node};
use serde_json::Value;

use super::config::{Config, Entry};
use super::{Layer, Variable, snake_case, text};

type Outcome<T> = Result<T, String>;

/// Keras 3: `layers/<class>[_n]/vars/<i>`. Names are in the configuration, or are attributes, or are the folders.
pub fn of_weights(root: &Group, config: Option<&Config>) -> Outcome<Vec<Layer>> {
    let mut layers = Vec::new();
    let at = Place { path: String::new(), name: String::new(), class: None, settings: &Value::Null };
    collect(root, &at, config, &mut layers)?;
    Ok(layers)
}

/// A group that may have variables, and what is known of it.
struct Place<'a> {
    path: String,
    name: String,
    class: Option<String>,
    settings: &'a Value,
}

fn collect(group: &Group, at: &Place, config: Option<&Config>, layers: &mut Vec<Layer>) -> Outcome<()> {
    let variables = own(group, at)?;
    if !variables.is_empty() {
        let after_flatten = config.and_then(|config| config.flattened(last(&at.name)));
        let config = at.settings.clone();
        match layers.last_mut() {
            // A cell belongs to its layer.
            Some(layer) if layer.name == at.name => layer.variables.extend(variables),
            _ => {
                layers.push(Layer { name: at.name.clone(), class: at.class.clone(), variables, after_flatten, config })
            }
        }
    }
    let join = |name: &str| if at.name.is_empty() { name.to_owned() } else { format!("{}/{name}", at.name) };
    let path = |name: &str| if at.path.is_empty() { name.to_owned() } else { format!("{}/{name}", at.path) };
    // Keras 2.12 had another name for it.
    let folders = ["layers", "_layer_checkpoint_dependencies"].into_iter();
    let found = folders.filter_map(|name| Some((name, group.members.get(name)?))).next();
    if let Some((folder_of_all, Node::Group(members))) = found {
        match config {
            Some(config) => {
                for (folder, entry) in config.folders() {
                    let Some(Node::Group(layer)) = members.members.get(&folder) else { continue };
                    let path = path(&format!("{folder_of_all}/{folder}"));
                    let class = Some(entry.class.clone());
                    let place = Place { path, name: join(&entry.name), class, settings: &entry.config };
                    if let Some(inner) = &entry.inner {
                        collect(layer, &place, Some(inner), layers)?;
                    } else {
                        let start = layers.len();
                        collect(layer, &place, None, layers)?;
                        let flattened = config.flattened(&entry.name);
                        layers.iter_mut().skip(start).for_each(|layer| layer.after_flatten.clone_from(&flattened));
                    }
                }
            }
            None => {
                let mut folders: Vec<&String> = members.members.keys().collect();
                folders.sort_by_key(|folder| counted(folder));
                for folder in folders {
                    let Some(Node::Group(layer)) = members.members.get(folder) else { continue };
                    let named = layer.group("vars").and_then(|vars| vars.text("name")).filter(|name| !name.is_empty());
                    let path = path(&format!("{folder_of_all}/{folder}"));
                    let class = Some(counted(folder).0.to_owned());
                    let name = join(named.unwrap_or(folder));
                    collect(layer, &Place { path, name, class, settings: &Value::Null }, None, layers)?;
                }
            }
        }
    }
    let mut parts: Vec<(&String, &Node)> = group.members.iter().collect();
    // Attention has them in the order in which it makes them.
    let place =
        |name: &str| ["query_dense", "key_dense", "value_dense", "output_dense"].iter().position(|part| *part == name);
    parts.sort_by_key(|(name, _)| place(name));
    for (name, node) in parts {
        let Node::Group(part) = node else { continue };
        if ["vars", "layers", "seed_generator", "optimizer", "_layer_checkpoint_dependencies"].contains(&name.as_str())
        {
            continue;
        }
        // Wrappers say the class of the layer inside.
        let wrapped = at.settings.get("layer");
        let (label, class, settings) = match (name.as_str(), wrapped) {
            ("cell", _) => (at.name.clone(), at.class.clone(), at.settings),
            (_, Some(inner)) => {
                (join(name), text(inner, "class_name").map(snake_case), inner.get("config").unwrap_or(&Value::Null))
            }
            ("forward_layer" | "backward_layer", None) => (join(name), None, &Value::Null),
            // Parts of attention are dense layers over several axes.
            _ => (join(name), name.ends_with("_dense").then(|| "attention_dense".to_owned()), &Value::Null),
        };
        collect(part, &Place { path: path(name), name: label, class, settings }, None, layers)?;
    }
    Ok(())
}

/// The class and the number that a folder is made of: `conv2d_10` is the tenth of more.
fn counted(folder: &str) -> (&str, usize) {
    match folder.rsplit_once('_').map(|(class, number)| (class, number.parse())) {
        Some((class, Ok(number))) => (class, number),
        _ => (folder, 0),
    }
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The variables in `vars`, by their numbers.
fn own(group: &Group, at: &Place) -> Outcome<Vec<Variable>> {
    let Some(Node::Group(vars)) = group.members.get("vars") else { return Ok(Vec::new()) };
    let mut numbered: Vec<(usize, &String, &Node)> = Vec::new();
    for (name, node) in &vars.members {
        // What can't be read is told by who opened the file.
        if let Node::Dataset(_) = node {
            let number = name.parse().map_err(|_| format!("has a variable {}/vars/{name}, expected a number", at.path));
            numbered.push((number?, name, node));
        }
    }
    numbered.sort_by_key(|(number, ..)| *number);
    let names = names(at.class.as_deref().unwrap_or_default(), numbered.len(), at.settings);
    let folder = if at.path.is_empty() { "vars".to_owned() } else { format!("{}/vars", at.path) };
    let variables = numbered.into_iter().enumerate().filter_map(|(index, (_, key, node))| match node {
        Node::Dataset(dataset) => Some(Variable {
            name: names.get(index).map_or_else(|| key.clone(), |name| (*name).to_owned()),
            path: format!("{folder}/{key}"),
            tensor: dataset.tensor.clone(),
        }),
        _ => None,
    });
    Ok(variables.collect())
}

/// Names of a class' variables in their order, as many as there are; none where they can't be known.
fn names(class: &str, count: usize, settings: &Value) -> Vec<&'static str> {
    let off = |key: &str| settings.get(key) == Some(&Value::Bool(false));
    let is = |word: &str| class.contains(word);
    let names: Vec<&'static str> = if is("separable") {
        vec!["depthwise_kernel", "pointwise_kernel", "bias"]
    } else if is("conv") || is("dense") {
        vec!["kernel", "bias"]
    } else if class.ends_with("normalization") {
        let mut names = Vec::new();
        let moments = if is("batch") { 2 } else { 0 };
        // One of them alone is only known from the settings.
        if !off("scale") && count > moments && (count != moments + 1 || off("center")) {
            names.push("gamma");
        }
        if !off("center") && count > moments && (count != moments + 1 || off("scale")) {
            names.push("beta");
        }
        if moments > 0 {
            names.extend(["moving_mean", "moving_variance"]);
        }
        if names.len() != count { Vec::new() } else { names }
    } else if is("embedding") {
        vec!["embeddings"]
    } else if is("lstm") || is("gru") || is("rnn") || class.is_empty() && count >= 2 {
        vec!["kernel", "recurrent_kernel", "bias"]
    } else if class == "p_re_lu" {
        vec!["alpha"]
    } else {
        Vec::new()
    };
    if names.len() < count { Vec::new() } else { names }
}

/// Keras 2: groups by layer, with lists of the weights' names in order.
pub fn of_legacy(root: &Group, folder: &str, config: Option<&Config>) -> Outcome<Vec<Layer>> {
    let missing = |what: &str| format!("is damaged: {what} is missing");
    let group = root.group(folder).ok_or_else(|| missing(folder))?;
    let names = group.texts("layer_names").ok_or_else(|| missing("the list of layers"))?;
    let mut layers: Vec<Layer> = Vec::new();
    let top = group.group("top_level_model_weights").map(|_| "top_level_model_weights".to_owned());
    for layer in names.into_iter().chain(top) {
        let members = group.group(&layer).ok_or_else(|| missing(&layer))?;
        for weight in members.texts("weight_names").unwrap_or_default() {
            let dataset = members.dataset(&weight).ok_or_else(|| missing(&format!("{layer}/{weight}")))?;
            let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            let (owner, name) = owner(&layer, &weight);
            let variable = Variable { name, path: format!("{prefix}{layer}/{weight}"), tensor: dataset.tensor.clone() };
            let known = layers.iter_mut().rev().find(|known| known.name == owner);
            match known {
                Some(known) => known.variables.push(variable),
                None => {
                    let entry = config.and_then(|config| config.find_inside(last(&owner)).or(config.find(&layer)));
                    let class = entry.map(|entry| class_of(entry, &owner));
                    let after_flatten = config.and_then(|config| config.flattened(last(&owner)));
                    let config = entry.map_or(Value::Null, |entry| settings_of(entry, &owner).clone());
                    layers.push(Layer { name: owner, class, variables: vec![variable], after_flatten, config });
                }
            }
        }
    }
    Ok(layers)
}

/// The layer that a layer wraps, if the owner of a variable is that.
fn wrapped<'a>(entry: &'a Entry, owner: &str) -> Option<&'a Value> {
    entry.config.get("layer").filter(|_| entry.name != last(owner) || entry.class == "time_distributed")
}

/// The class of a layer, or of the one that it wraps. Parts of attention are dense layers over several axes.
fn class_of(entry: &Entry, owner: &str) -> String {
    if entry.class.ends_with("_attention") && entry.name != last(owner) {
        return "attention_dense".to_owned();
    }
    wrapped(entry, owner).and_then(|inner| text(inner, "class_name")).map_or_else(|| entry.class.clone(), snake_case)
}

/// The settings that go with the class.
fn settings_of<'a>(entry: &'a Entry, owner: &str) -> &'a Value {
    wrapped(entry, owner).and_then(|inner| inner.get("config")).unwrap_or(&entry.config)
}

/// The layer and the variable that a weight's name means: `lstm/lstm_cell/kernel:0` is `kernel` of `lstm`.
fn owner(layer: &str, weight: &str) -> (String, String) {
    let weight = weight.rsplit_once(':').filter(|(_, number)| number.parse::<u8>().is_ok()).map_or(weight, |(w, _)| w);
    let (path, name) = weight.rsplit_once('/').unwrap_or((layer, weight));
    let is_cell = |part: &&str| counted(part).0.ends_with("_cell") || *part == "cell";
    let mut parts: Vec<&str> = path.split('/').collect();
    if parts.len() > 1 {
        parts.retain(|part| !is_cell(part));
    }
    let path = parts.join("/");
    let path = if path == layer || path.starts_with(&format!("{layer}/")) { path } else { format!("{layer}/{path}") };
    (path, name.to_owned())
}
