//! What a TorchScript archive holds: code, constants, and the tree of modules with their attributes.

use std::collections::HashMap;

use indexmap::IndexMap;
use modelport_ir::pickle::{Id, Object};
use modelport_ir::{DType, Tensor};

use super::interpret::Program;
use super::syntax;
use super::value::Value;
use crate::pytorch::archive::Archive;
use crate::pytorch::arg::{Arg, Weight};
use crate::pytorch::content::archive_objects;
use crate::pytorch::objects::{Objects, Outcome};

/// Most bytes of one file of code.
const MAX_CODE: u64 = 1 << 24;
/// Most bytes of all files of code.
const MAX_ALL_CODE: u64 = 1 << 25;
/// Deepest nesting of modules and lists.
const MAX_DEPTH: usize = 64;
/// Most modules, and most attributes that are looked at.
const MAX_OBJECTS: usize = 1 << 18;

/// A module, or another object that code works with.
#[derive(Debug)]
pub struct Instance {
    /// The full name of its class.
    pub class: String,
    /// Its path from the root, dotted; where there are several, the first.
    pub path: String,
    /// What it keeps.
    pub fields: IndexMap<String, Value>,
}

/// A network: its code and its modules, the first of which is the root.
pub struct Model {
    /// Functions and classes.
    pub program: Program,
    /// Modules by number.
    pub instances: Vec<Instance>,
    /// `CONSTANTS`
    pub constants: Vec<Value>,
    /// Type and shape of each input, where the archive tells them.
    pub traced: Vec<(DType, Vec<usize>)>,
}

/// Reads an archive. Weights stay in the file.
///
/// # Errors
/// One sentence: what is missing or damaged.
pub fn read(archive: &Archive) -> Outcome<Model> {
    let program = program(archive)?;
    let constants = match archive.has("constants.pkl") {
        true => constants(&archive_objects(archive.clone(), "constants.pkl", "constants")?)?,
        false => Vec::new(),
    };
    let objects = archive_objects(archive.clone(), "data.pkl", "data")?;
    let mut reader =
        Reader { objects: &objects, program: &program, instances: Vec::new(), numbers: HashMap::new(), seen: 0 };
    match reader.value(objects.root(), "", MAX_DEPTH)? {
        Value::Object(0) => {}
        _ => return Err(format!("holds {}, expected a module", objects.describe(objects.root()))),
    }
    let instances = reader.instances;
    Ok(Model { program, instances, constants, traced: traced(archive) })
}

/// `code/__torch__/torch/nn/modules/conv.py` defines `__torch__.torch.nn.modules.conv.Conv2d`.
fn program(archive: &Archive) -> Outcome<Program> {
    let mut program = Program::default();
    let mut total = 0;
    let files: Vec<String> =
        archive.names().filter(|name| name.starts_with("code/") && name.ends_with(".py")).map(str::to_owned).collect();
    for file in files {
        let text = archive.text(&file, MAX_CODE)?;
        total += text.len() as u64;
        if total > MAX_ALL_CODE {
            return Err(format!("has more than {MAX_ALL_CODE} bytes of code"));
        }
        let module = syntax::parse(&text).map_err(|error| format!("has code that can't be read: {file}, {error}"))?;
        let prefix = file.trim_start_matches("code/").trim_end_matches(".py").replace('/', ".");
        for function in module.functions {
            program.functions.insert(format!("{prefix}.{}", function.name), (file.clone(), function));
        }
        for class in module.classes {
            program.classes.insert(format!("{prefix}.{}", class.name), (file.clone(), class));
        }
    }
    if program.classes.is_empty() {
        return Err("has no code".to_owned());
    }
    Ok(program)
}

fn constants(objects: &Objects) -> Outcome<Vec<Value>> {
    let items = objects.items(objects.root()).ok_or("has constants that are no tuple")?;
    let named = items.iter().enumerate();
    named.map(|(index, &item)| plain(objects, item, &format!("c{index}"), true, MAX_DEPTH)).collect()
}

/// A value that is no module. A tensor of one number without axes is that number: traces have sizes so.
fn plain(objects: &Objects, id: Id, name: &str, trainable: bool, depth: usize) -> Outcome<Value> {
    if depth == 0 {
        return Err(format!("nests {name} too deep"));
    }
    if objects.is_tensor(id) {
        let weight = weight(objects, id, name)?;
        if weight.tensor.rank() == 0 {
            return number(&weight.tensor);
        }
        let trainable = trainable && weight.tensor.dtype().is_float();
        return Ok(Value::Tensor(Arg::Weight(Weight { trainable, ..weight })));
    }
    let items = |items: &[Id]| -> Outcome<Vec<Value>> {
        items
            .iter()
            .enumerate()
            .map(|(i, &item)| plain(objects, item, &format!("{name}.{i}"), trainable, depth - 1))
            .collect()
    };
    Ok(match objects.get(id) {
        Object::None => Value::None,
        Object::Bool(value) => Value::Bool(*value),
        Object::Int(value) => Value::Int(*value),
        Object::Float(value) => Value::Float(*value),
        Object::Text(_) | Object::Bytes(_) => Value::text(&objects.text(id).unwrap_or_default()),
        Object::Tuple(list) => Value::tuple(items(list)?),
        Object::List(list) => Value::list(items(list)?),
        Object::Dict(_) => dictionary(objects, id, name, depth)?,
        Object::Call(_) => match objects.call(id) {
            // Lists of numbers, and values with their types.
            Some((class, &[value, ..])) if class.starts_with("torch.jit._pickle.") || class == "torch.device" => {
                return plain(objects, value, name, trainable, depth - 1);
            }
            Some(("collections.OrderedDict", _)) => dictionary(objects, id, name, depth)?,
            _ => Value::Uninitialized,
        },
        _ => Value::Uninitialized,
    })
}

fn weight(objects: &Objects, id: Id, name: &str) -> Outcome<Weight> {
    let tensor = objects.tensor(id).map_err(|error| format!("has a tensor {name} that {error}"))?;
    Ok(Weight { name: name.into(), tensor, trainable: true })
}

fn dictionary(objects: &Objects, id: Id, name: &str, depth: usize) -> Outcome<Value> {
    let entries = objects.entries(id).unwrap_or_default();
    let entry = |&(key, value): &(Id, Id)| {
        Ok((plain(objects, key, name, false, depth - 1)?, plain(objects, value, name, false, depth - 1)?))
    };
    let entries = entries.iter().map(entry).collect::<Outcome<Vec<_>>>()?;
    Ok(Value::Dict(std::rc::Rc::new(entries.into())))
}

fn number(tensor: &Tensor) -> Outcome<Value> {
    let read = |error: std::io::Error| format!("can't be read: {error}");
    Ok(match tensor.dtype() {
        dtype if dtype.is_float() => Value::Float(tensor.to_f64().map_err(read)?.first().copied().unwrap_or(0.0)),
        DType::Bool => Value::Bool(tensor.to_i64().map_err(read)?.first().is_some_and(|&value| value != 0)),
        _ => Value::Int(tensor.to_i64().map_err(read)?.first().copied().unwrap_or(0)),
    })
}

/// The inputs that a trace was made with.
fn traced(archive: &Archive) -> Vec<(DType, Vec<usize>)> {
    let read = || -> Outcome<Vec<(DType, Vec<usize>)>> {
        let objects = archive_objects(archive.clone(), "traced_inputs.pkl", "traced_inputs")?;
        let mut id = objects.root();
        if let Some((_, &[value, ..])) = objects.call(id) {
            id = value;
        }
        let mut list = objects.value(id, "forward").ok_or("has no traced inputs")?;
        while let Some((class, &[value, ..])) = objects.call(list) {
            if !class.starts_with("torch.jit._pickle.") {
                break;
            }
            list = value;
        }
        Ok(objects.items(list).unwrap_or_default().iter().map_while(|&item| objects.tensor_type(item)).collect())
    };
    match archive.has("traced_inputs.pkl") {
        true => read().unwrap_or_default(),
        false => Vec::new(),
    }
}

struct Reader<'a> {
    objects: &'a Objects,
    program: &'a Program,
    instances: Vec<Instance>,
    /// Modules that were read, by their object.
    numbers: HashMap<Id, usize>,
    seen: usize,
}

impl Reader<'_> {
    fn value(&mut self, id: Id, path: &str, depth: usize) -> Outcome<Value> {
        if depth == 0 {
            return Err(format!("nests modules too deep, at {path}"));
        }
        self.seen += 1;
        if self.seen > MAX_OBJECTS {
            return Err(format!("has more than {MAX_OBJECTS} attributes"));
        }
        if let Some(&number) = self.numbers.get(&id) {
            return Ok(Value::Object(number));
        }
        let class = self.objects.call(id).map(|(class, _)| class.to_owned());
        let class = class.filter(|class| class.starts_with("__torch__."));
        let Some(class) = class else { return plain(self.objects, id, path, false, MAX_DEPTH) };
        let number = self.instances.len();
        self.numbers.insert(id, number);
        self.instances.push(Instance { class: class.clone(), path: path.to_owned(), fields: IndexMap::new() });
        let parameters =
            self.program.classes.get(&class).map(|(_, class)| class.parameters.clone()).unwrap_or_default();
        let state = self.objects.state(id);
        let entries = state.and_then(|state| self.objects.entries(state)).unwrap_or_default().to_vec();
        for (key, value) in entries {
            let Some(name) = self.objects.text(key) else { continue };
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let is_parameter = parameters.contains(&name);
            let mut value = match self.objects.is_tensor(value) && is_parameter {
                // Also one without axes is no number: training changes it.
                true => Value::Tensor(Arg::Weight(weight(self.objects, value, &below)?)),
                false => self.value(value, &below, depth - 1)?,
            };
            if let Value::Tensor(Arg::Weight(weight)) = &mut value {
                weight.trainable = is_parameter;
            }
            if let Some(instance) = self.instances.get_mut(number) {
                instance.fields.insert(name, value);
            }
        }
        if let Some(instance) = self.instances.get(number) {
            name_listed(&instance.fields);
        }
        Ok(Value::Object(number))
    }
}

/// Weights in a module's lists have the names that they have as its attributes: `_flat_weights` of recurrent layers.
fn name_listed(fields: &IndexMap<String, Value>) {
    let weight = |value: &Value| match value {
        Value::Tensor(Arg::Weight(weight)) => Some(weight.clone()),
        _ => None,
    };
    let own: Vec<Weight> = fields.values().filter_map(weight).collect();
    for value in fields.values() {
        let Value::List(items) = value else { continue };
        for item in items.borrow_mut().iter_mut() {
            let Value::Tensor(Arg::Weight(listed)) = item else { continue };
            if let Some(named) = own.iter().find(|named| named.tensor.is_same(&listed.tensor)) {
                *listed = named.clone();
            }
        }
    }
}

/// The name of a class without its file, and without what PyTorch puts in to make names unique.
pub fn short(class: &str) -> &str {
    class.rsplit('.').next().unwrap_or(class)
}
