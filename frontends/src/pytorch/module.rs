//! Whole modules that `torch.save(model)` wrote, as trees of data: class names, attributes, tensors, children.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use modelport_ir::pickle::{Id, Object};
use modelport_ir::{Problem, Result, Tensor};

use super::content::{self, Content};
use super::objects::{Objects, Outcome};

/// Deepest tree of modules.
const MAX_DEPTH: usize = 256;
/// Most modules, with shared ones counted wherever they occur.
const MAX_MODULES: usize = 1 << 18;
/// Deepest nesting of an attribute, and most values in it.
const MAX_PLAIN: (usize, usize) = (16, 1 << 16);

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Plain {
    /// `None`
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number.
    Float(f64),
    /// A string.
    Text(String),
    /// A tuple, or a `torch.Size`.
    Tuple(Vec<Plain>),
    /// A list or set.
    List(Vec<Plain>),
    /// A dictionary.
    Dict(Vec<(Plain, Plain)>),
    /// A function or class, such as `torch.nn.functional.relu`.
    Global(String),
    /// An object of a class: `functools.partial`, say; with its arguments.
    Object(String, Vec<Plain>),
    /// Something else, in words.
    Other(String),
}

/// A module of a network.
#[derive(Clone, Debug, Default)]
pub struct ModuleTree {
    /// Modules of the same number are one object that occurs several times.
    pub id: usize,
    /// The full name of the class, such as `torchvision.models.resnet.ResNet`.
    pub class: String,
    /// The attributes that are neither tensors nor modules nor PyTorch's own (hooks and the like).
    pub attributes: IndexMap<String, Plain>,
    /// `None` for what was registered as `None`, such as the bias of a layer that has none.
    pub parameters: IndexMap<String, Option<Tensor>>,
    /// The same of buffers, with those that a state dict does not have.
    pub buffers: IndexMap<String, Option<Tensor>>,
    /// Names of buffers that a state dict does not have.
    pub not_persistent: HashSet<String>,
    /// The modules in it; `None` for what was registered as `None`.
    pub children: IndexMap<String, Option<Arc<ModuleTree>>>,
}

impl ModuleTree {
    /// The last part of the class's name.
    pub fn class_name(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or(&self.class)
    }

    /// The state dict of the network: keys and tensors in the order in which PyTorch has them.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        // What is left to do, last first; a module's own tensors come before its children's.
        let mut stack = vec![(String::new(), self)];
        while let Some((prefix, module)) = stack.pop() {
            let buffers = module.buffers.iter().filter(|(name, _)| !module.not_persistent.contains(*name));
            for (name, tensor) in module.parameters.iter().chain(buffers) {
                state.extend(tensor.clone().map(|tensor| (format!("{prefix}{name}"), tensor)));
            }
            let children = module.children.iter().rev();
            stack.extend(children.filter_map(|(name, child)| Some((format!("{prefix}{name}."), child.as_deref()?))));
        }
        state
    }
}

/// Reads the module that a file holds, as the whole or somewhere in a checkpoint. `None` if it holds none.
///
/// # Errors
/// When the file is damaged or none of PyTorch's, and all tensors in the module that can't be read.
pub fn read_module(path: &Path) -> Result<Option<ModuleTree>> {
    let failed = |message: String| Problem::new(message).file(path);
    match content::open(path)?.content {
        Content::Objects(objects) => Ok(module_in(&objects, objects.root()).transpose().map_err(failed)?),
        _ => Ok(None),
    }
}

/// The module that an object is, if it is one.
pub fn module_in(objects: &Objects, id: Id) -> Option<Outcome<ModuleTree>> {
    is_module(objects, id).then(|| {
        let mut reader = Reader { objects, made: HashMap::new(), expanded: 0 };
        let root = reader.module(id, 0)?;
        Ok(Arc::unwrap_or_clone(root))
    })
}

/// Whether an object is a module: it has children and parameters, whatever its class.
pub fn is_module(objects: &Objects, id: Id) -> bool {
    let state = objects.class(id).and_then(|_| objects.state(id));
    state.is_some_and(|state| {
        let has = |key: &str| objects.value(state, key).is_some();
        has("_parameters") && has("_buffers") && has("_modules")
    })
}

struct Reader<'a> {
    objects: &'a Objects,
    /// Modules that were read, and the number of modules in each.
    made: HashMap<Id, (Arc<ModuleTree>, usize)>,
    expanded: usize,
}

impl Reader<'_> {
    fn module(&mut self, id: Id, depth: usize) -> Outcome<Arc<ModuleTree>> {
        if let Some((module, size)) = self.made.get(&id) {
            self.expanded += size;
            return if self.expanded > MAX_MODULES { Err(too_many()) } else { Ok(module.clone()) };
        }
        let before = self.expanded;
        self.expanded += 1;
        if depth > MAX_DEPTH || self.expanded > MAX_MODULES {
            return Err(too_many());
        }
        let objects = self.objects;
        let class = objects.class(id).unwrap_or_default().to_owned();
        let state = objects.state(id).ok_or_else(|| format!("has a module of {class} without attributes"))?;
        let mut module = ModuleTree { id, class, ..ModuleTree::default() };
        for &(key, value) in objects.entries(state).unwrap_or_default() {
            let Some(name) = objects.text(key) else { continue };
            match name.as_str() {
                "_parameters" => module.parameters = self.tensors(value)?,
                "_buffers" => module.buffers = self.tensors(value)?,
                "_modules" => module.children = self.children(value, depth)?,
                "_non_persistent_buffers_set" => {
                    let names = self.elements(value);
                    module.not_persistent = names.into_iter().filter_map(|name| objects.text(name)).collect();
                }
                name if name.starts_with("_backward") || name.ends_with("_hooks") || is_own(name) => {}
                _ => {
                    let plain = plain(objects, value);
                    module.attributes.insert(name, plain);
                }
            }
        }
        let module = Arc::new(module);
        self.made.insert(id, (module.clone(), self.expanded - before));
        Ok(module)
    }

    /// The elements of a set.
    fn elements(&self, id: Id) -> Vec<Id> {
        match (self.objects.get(id), self.objects.call(id)) {
            (Object::Set(items), _) => items.clone(),
            (_, Some((_, &[items]))) => self.objects.items(items).unwrap_or_default().to_vec(),
            _ => Vec::new(),
        }
    }

    fn tensors(&self, dict: Id) -> Outcome<IndexMap<String, Option<Tensor>>> {
        let mut tensors = IndexMap::new();
        for &(key, value) in self.objects.entries(dict).unwrap_or_default() {
            let name = self.objects.text(key).ok_or("has a parameter without a name")?;
            let tensor = match self.objects.get(value) {
                Object::None => None,
                _ => Some(
                    self.objects.tensor(value).map_err(|message| format!("has a parameter '{name}' that {message}"))?,
                ),
            };
            tensors.insert(name, tensor);
        }
        Ok(tensors)
    }

    fn children(&mut self, dict: Id, depth: usize) -> Outcome<IndexMap<String, Option<Arc<ModuleTree>>>> {
        let mut children = IndexMap::new();
        for &(key, value) in self.objects.entries(dict).unwrap_or_default() {
            let name = self.objects.text(key).ok_or("has a module without a name")?;
            let child = match self.objects.get(value) {
                Object::None => None,
                _ if is_module(self.objects, value) => Some(self.module(value, depth + 1)?),
                _ => return Err(format!("has {} for its module '{name}'", self.objects.describe(value))),
            };
            children.insert(name, child);
        }
        Ok(children)
    }
}

fn too_many() -> String {
    "has modules that are nested too deeply, or too many of them".to_owned()
}

/// Attributes that every module has and no network is described by.
fn is_own(name: &str) -> bool {
    matches!(
        name,
        "_is_full_backward_hook"
            | "_forward_hooks_with_kwargs"
            | "_forward_hooks_always_called"
            | "_forward_pre_hooks_with_kwargs"
            | "_is_hf_initialized"
            | "_compiled_call_impl"
    )
}

/// The data that an object is.
pub fn plain(objects: &Objects, id: Id) -> Plain {
    let mut left = MAX_PLAIN.1;
    plain_within(objects, id, MAX_PLAIN.0, &mut left)
}

fn plain_within(objects: &Objects, id: Id, depth: usize, left: &mut usize) -> Plain {
    if depth == 0 || *left == 0 {
        return Plain::Other("more than can be looked at".to_owned());
    }
    *left -= 1;
    let mut all = |items: &[Id]| items.iter().map(|&item| plain_within(objects, item, depth - 1, left)).collect();
    match objects.get(id) {
        Object::None => Plain::None,
        Object::Bool(value) => Plain::Bool(*value),
        Object::Int(value) => Plain::Int(*value),
        Object::Float(value) => Plain::Float(*value),
        Object::Text(_) | Object::Bytes(_) => {
            objects.text(id).map_or_else(|| Plain::Other(objects.describe(id)), Plain::Text)
        }
        Object::Tuple(items) => Plain::Tuple(all(items)),
        Object::List(items) | Object::Set(items) => Plain::List(all(items)),
        Object::Global(name) => Plain::Global(name.clone()),
        _ if objects.is_tensor(id) || is_module(objects, id) => Plain::Other(objects.describe(id)),
        _ => match (objects.entries(id), objects.items(id), objects.call(id)) {
            (Some(entries), ..) => Plain::Dict(
                entries
                    .iter()
                    .map(|&(key, value)| {
                        let key = plain_within(objects, key, depth - 1, left);
                        (key, plain_within(objects, value, depth - 1, left))
                    })
                    .collect(),
            ),
            (_, Some(items), _) => Plain::Tuple(all(items)),
            (.., Some((class, args))) => Plain::Object(class.to_owned(), all(args)),
            _ => Plain::Other(objects.describe(id)),
        },
    }
}
