//! State dicts: the tensors of a network by name, wherever they are in a file.
//!
//! A checkpoint of a training run has much besides. What is taken of it:
//!
//! 1. what `--weights-key` names (`model`, or a path such as `ema.module`);
//! 2. else the file itself, if at least half of its entries are tensors;
//! 3. else the dictionary of tensors, or module, under the first of these keys that is there: `state_dict`,
//!    `model_state_dict`, `model_state`, `model`, `module`, `net`, `network`, `weights`, `params`, and with `--ema`
//!    those of moving averages before them;
//! 4. else the largest one, by elements, outside of the optimizer's and the scheduler's.
//!
//! Then prefixes that all keys have and that wrappers give (`module.`, `_orig_mod.`, …) are taken off.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use modelport_ir::pickle::{Id, Object};
use modelport_ir::{Error, Problem, Result, Tensor};

use super::content::{self, Content, Opened};
use super::module;
use super::objects::Objects;

/// Keys under which checkpoints have their weights, the likeliest first.
const KEYS: &[&str] =
    &["state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params"];
/// Keys of exponential moving averages.
const AVERAGES: &[&str] =
    &["state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema", "averaged_model"];
/// What wrappers put before all keys: data-parallel and compiled modules, training frameworks, trunks of tasks.
const PREFIXES: &[&str] = &[
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "encoder.",
    "base_model.",
    "_model.",
    "trunk.",
];
/// Levels of dictionaries that are looked into.
const MAX_NESTING: usize = 4;
/// Dictionaries that are looked into.
const MAX_LOOKED: usize = 10_000;

/// What to take of a file.
#[derive(Clone, Debug, Default)]
pub struct Selection<'a> {
    /// The key or path of keys of the state dict.
    pub key: Option<&'a str>,
    /// Moving averages rather than the weights themselves.
    pub moving_averages: bool,
}

/// The tensors of a network.
#[derive(Clone, Debug, Default)]
pub struct StateDict {
    /// The file.
    pub path: PathBuf,
    /// What it is, in words.
    pub format: &'static str,
    /// The keys that lead to the state dict in the file; empty if it is the file's root.
    pub key: String,
    /// The class of the module that the tensors are of, if the file holds a whole one.
    pub class: Option<String>,
    /// Where else there are tensors.
    pub others: Vec<String>,
    /// What was taken off all keys.
    pub prefix: String,
    /// Keys and tensors in the order of the file. A tensor that occurs under several keys is the same view of the same
    /// storage ([`Tensor::is_same`]).
    pub tensors: IndexMap<String, Tensor>,
    /// `num_batches_tracked`, which no network computes with.
    pub counters: IndexMap<String, Tensor>,
    /// Entries that are no tensors.
    pub not_tensors: Vec<String>,
}

impl StateDict {
    /// The state dict with `prefix` taken off the keys that have it, and without the others. `None` if none has it.
    pub fn under(&self, prefix: &str) -> Option<StateDict> {
        let strip = |tensors: &IndexMap<String, Tensor>| -> IndexMap<String, Tensor> {
            let named = tensors.iter().filter_map(|(key, tensor)| Some((key.strip_prefix(prefix)?, tensor)));
            named.map(|(key, tensor)| (key.to_owned(), tensor.clone())).collect()
        };
        let tensors = strip(&self.tensors);
        let prefix = format!("{}{prefix}", self.prefix);
        let counters = strip(&self.counters);
        (!tensors.is_empty()).then(|| StateDict { prefix, tensors, counters, ..self.clone() })
    }

    /// The state dict with all keys as they are in the file.
    #[must_use]
    pub fn unstripped(&self) -> StateDict {
        let full = |tensors: &IndexMap<String, Tensor>| {
            tensors.iter().map(|(key, tensor)| (format!("{}{key}", self.prefix), tensor.clone())).collect()
        };
        let (tensors, counters) = (full(&self.tensors), full(&self.counters));
        StateDict { prefix: String::new(), tensors, counters, ..self.clone() }
    }

    /// What was taken of which file, for people.
    pub fn origin(&self) -> String {
        let mut text = self.format.to_owned();
        if !self.key.is_empty() {
            text.push_str(&format!(", under '{}'", self.key));
        }
        if !self.prefix.is_empty() {
            text.push_str(&format!(", without '{}'", self.prefix));
        }
        if !self.others.is_empty() {
            text.push_str(&format!(" (--weights-key takes one of the others: {})", self.others.join(", ")));
        }
        text
    }
}

/// Reads the state dict of a file. Tensors stay in the file until they are used.
///
/// # Errors
/// When the file is none of PyTorch's, is damaged, or has no state dict; all tensors that can't be read are named.
pub fn read_state(path: &Path) -> Result<StateDict> {
    select(path, &Selection::default())
}

/// Reads the state dict of a file that `selection` asks for.
///
/// # Errors
/// As [`read_state`], and when there is none of the key that was asked for.
pub fn select(path: &Path, selection: &Selection) -> Result<StateDict> {
    of_content(path, content::open(path)?, selection)
}

/// All tensors of a file of weights, in its order and with its names: what `torch.save`, safetensors or modelport's own
/// steps wrote.
///
/// # Errors
/// As [`read_state`].
pub fn read_weights(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let mut state = StateDict { path: path.to_owned(), ..StateDict::default() };
    let tensors = state.take(content::open(path)?, &Selection::default())?;
    Ok(tensors.into_iter().collect())
}

/// The state dict in a file that was opened.
///
/// # Errors
/// As [`select`].
pub fn of_content(path: &Path, opened: Opened, selection: &Selection) -> Result<StateDict> {
    let mut state = StateDict { path: path.to_owned(), format: opened.format, ..StateDict::default() };
    let tensors = state.take(opened, selection)?;
    state.fill(tensors);
    Ok(state)
}

impl StateDict {
    /// The tensors that are to be taken of a file.
    fn take(&mut self, opened: Opened, selection: &Selection) -> Result<IndexMap<String, Tensor>> {
        let path = self.path.clone();
        let failed = |message: String| Problem::new(message).file(&path);
        let objects = match opened.content {
            Content::Tensors(tensors) => return Ok(tensors.into_iter().collect()),
            Content::Objects(objects) => objects,
            Content::Script(_) | Content::Exported(_) => {
                return Err(failed(format!("is a {}, not a state dict", opened.format)).into());
            }
        };
        let found = find(&objects);
        let chosen = choose(&objects, &found, selection).map_err(|problem| problem.file(&path))?;
        self.key = chosen.path.join(".");
        self.class = objects.class(chosen.id).filter(|_| chosen.module).map(str::to_owned);
        let others = found.iter().filter(|other| other.path != chosen.path && !other.path.is_empty());
        self.others = others.map(|other| other.path.join(".")).collect();
        let (tensors, not_tensors, problems) = tensors(&objects, chosen);
        Error::collect(problems.into_iter().map(failed).collect())?;
        self.not_tensors = not_tensors;
        Ok(tensors)
    }

    fn fill(&mut self, tensors: IndexMap<String, Tensor>) {
        self.prefix = common_prefix(&tensors);
        for (key, tensor) in tensors {
            let key = key.strip_prefix(&self.prefix).unwrap_or(&key).to_owned();
            let is_counter = key == "num_batches_tracked" || key.ends_with(".num_batches_tracked");
            let part = if is_counter { &mut self.counters } else { &mut self.tensors };
            part.insert(key, tensor);
        }
    }
}

/// What wrappers have put before all keys.
fn common_prefix(tensors: &IndexMap<String, Tensor>) -> String {
    let mut prefix = String::new();
    while let Some(next) = PREFIXES.iter().find(|next| {
        let longer = format!("{prefix}{next}");
        !tensors.is_empty() && tensors.keys().all(|key| key.strip_prefix(&longer).is_some_and(|rest| !rest.is_empty()))
    }) {
        prefix.push_str(next);
    }
    prefix
}

/// A place in a file that has tensors.
struct Found {
    path: Vec<String>,
    id: Id,
    /// Whether it is a module rather than a dictionary.
    module: bool,
    /// Whether at least half of the entries are tensors.
    mostly: bool,
    elements: usize,
}

/// All places with tensors, outer ones first.
fn find(objects: &Objects) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let root = match objects.call(objects.root()) {
        // A whole network that modelport wrote.
        Some((name, &[state])) if name.ends_with("._restore") => state,
        _ => objects.root(),
    };
    let mut level = vec![(Vec::new(), root)];
    for _ in 0..=MAX_NESTING {
        let mut next = Vec::new();
        for (path, id) in level {
            if seen.len() >= MAX_LOOKED || !seen.insert(id) {
                continue;
            }
            if module::is_module(objects, id) {
                found.push(Found { path, id, module: true, mostly: true, elements: usize::MAX });
                continue;
            }
            let Some(entries) = objects.entries(id).or_else(|| objects.entries(objects.state(id)?)) else { continue };
            let (mut tensors, mut elements) = (0, 0usize);
            for &(key, value) in entries {
                let Some(name) = objects.text(key) else { continue };
                if objects.is_tensor(value) {
                    tensors += 1;
                    elements = elements.saturating_add(objects.elements(value));
                } else if !is_training_state(&name) {
                    let mut path: Vec<String> = path.clone();
                    path.push(name);
                    next.push((path, value));
                }
            }
            if tensors > 0 {
                found.push(Found { path, id, module: false, mostly: tensors * 2 >= entries.len(), elements });
            }
        }
        level = next;
    }
    found
}

/// Whether a key holds what the training has, not the network.
fn is_training_state(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["optim", "sched", "scaler", "amp", "callbacks", "loops", "rng", "args", "config", "hyper"]
        .iter()
        .any(|start| key.starts_with(start) || key.starts_with("lr_"))
}

fn choose<'f>(objects: &Objects, found: &'f [Found], selection: &Selection) -> std::result::Result<&'f Found, Problem> {
    let list = || {
        let names: Vec<String> =
            found.iter().map(|found| found.path.join(".")).filter(|path| !path.is_empty()).collect();
        format!("tensors are under: {}", if names.is_empty() { "no key".to_owned() } else { names.join(", ") })
    };
    if let Some(key) = selection.key {
        let at = found.iter().find(|found| found.path.join(".") == key);
        return at.ok_or_else(|| Problem::new(format!("has no state dict under '{key}'")).hint(list()));
    }
    if found.is_empty() {
        let problem = Problem::new(format!("holds {}, expected a state dict", objects.describe(objects.root())));
        return Err(problem.hint("save one with torch.save(model.state_dict(), 'model.pth')"));
    }
    let averages = if selection.moving_averages { AVERAGES } else { &[] };
    if selection.moving_averages {
        let at = |key: &&str| found.iter().find(|found| found.path.last().is_some_and(|last| last == key));
        let nested = |key: &&str| found.iter().find(|found| found.path.first().is_some_and(|first| first == key));
        return averages.iter().find_map(|key| at(key).or_else(|| nested(key))).ok_or_else(|| {
            Problem::new("has no moving averages").hint(format!("leave out --ema, or name them: {}", list()))
        });
    }
    if let Some(root) = found.iter().find(|found| found.path.is_empty() && found.mostly) {
        return Ok(root);
    }
    let named = KEYS.iter().find_map(|key| {
        let first = |found: &&Found| found.mostly && found.path.first().is_some_and(|first| first == key);
        found.iter().find(first)
    });
    let largest = || {
        found.iter().filter(|found| found.mostly).max_by_key(|found| (found.elements, std::cmp::Reverse(&found.path)))
    };
    named.or_else(largest).or_else(|| found.first()).ok_or_else(|| Problem::new("holds no state dict"))
}

type Tensors = (IndexMap<String, Tensor>, Vec<String>, Vec<String>);

/// The tensors at a place, the names of what is none there, and what is wrong.
fn tensors(objects: &Objects, found: &Found) -> Tensors {
    let (mut tensors, mut others, mut problems) = (IndexMap::new(), Vec::new(), Vec::new());
    if found.module {
        match module::module_in(objects, found.id) {
            Some(Ok(module)) => tensors.extend(module.state()),
            Some(Err(message)) => problems.push(message),
            None => {}
        }
        return (tensors, others, problems);
    }
    let entries = objects.entries(found.id).or_else(|| objects.entries(objects.state(found.id)?));
    for &(key, value) in entries.unwrap_or_default() {
        let Some(name) = objects.text(key) else { continue };
        if !objects.is_tensor(value) {
            if !matches!(objects.get(value), Object::None) {
                others.push(name);
            }
            continue;
        }
        match objects.tensor(value) {
            Ok(tensor) => {
                if tensors.insert(name.clone(), tensor).is_some() {
                    problems.push(format!("has the key '{name}' twice"));
                }
            }
            Err(message) => problems.push(format!("'{name}' {message}")),
        }
    }
    (tensors, others, problems)
}
