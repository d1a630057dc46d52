//! Layers that repeat along flat chains: a function lists them, the chain and its numbers stay.
//!
//! `nn.Sequential(*conv_bn_relu(3, 64), *conv_bn_relu(64, 64), nn.MaxPool2d(2))` has the state dict of the chain with
//! all layers written out.

use std::collections::HashSet;

use indexmap::IndexMap;
use modelport_ir::{NodeId, Value};

use super::arguments::{Declared, arguments};
use super::block::{Block, Item};
use super::class::{Class, Program};
use super::leaf::{Member, MemberKind};
use crate::python::{Arg, Expr, Lit, Namer, Slot, snake_case};

/// A function that gives a list of layers.
#[derive(Clone, Debug)]
pub struct LayerList {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub args: Vec<Declared>,
    /// The layers.
    pub layers: Vec<Expr>,
}

/// Most layers of one list.
const LONGEST: usize = 8;
/// A list is made where it is used so often, ...
const USES: usize = 3;
/// ... saves so many lines, ...
const SAVED: usize = 5;
/// ... and takes no more arguments than these.
const ARGUMENTS: usize = 4;
/// Most words of a list's name.
const WORDS: usize = 4;

/// Replaces layers that repeat along chains by calls of functions that list them.
pub fn find(program: &mut Program, sequential: &str) {
    let mut namer = Namer::avoiding(program.classes.iter().map(|class| class.name.as_str()));
    while let Some(list) = best(program, sequential, &mut namer) {
        program.lists.push(list);
    }
}

/// Makes the list that saves most.
fn best(program: &mut Program, sequential: &str, namer: &mut Namer) -> Option<LayerList> {
    let mut chains: Vec<Vec<Entry>> = Vec::new();
    rewrite(program, sequential, &mut |entries, names| {
        chains.push(entries.iter().map(|entry| Entry::new(&entry.value, names)).collect());
        None
    });
    let mut patterns: IndexMap<Vec<&str>, Pattern> = IndexMap::new();
    for (number, chain) in chains.iter().enumerate() {
        for length in 2..=LONGEST.min(chain.len()) {
            for (at, window) in chain.windows(length).enumerate() {
                let Some(key) = window.iter().map(|entry| entry.form.as_deref()).collect::<Option<Vec<_>>>() else {
                    continue;
                };
                patterns.entry(key).or_default().meet(number, at, window);
            }
        }
    }
    let mut found: Vec<(usize, Vec<String>, Pattern)> = patterns
        .into_iter()
        .filter_map(|(key, pattern)| Some((pattern.saved(key.len())?, key, pattern)))
        .map(|(saved, key, pattern)| (saved, key.into_iter().map(str::to_owned).collect(), pattern))
        .collect();
    found.sort_by_key(|(saved, ..)| std::cmp::Reverse(*saved));
    let (key, layers, arguments) = found.into_iter().find_map(|(_, key, pattern)| {
        let block = block(&pattern.first);
        let arguments = arguments(&pattern.slots, &block);
        (arguments.declared().len() <= ARGUMENTS).then_some((key, pattern.first, arguments))
    })?;
    let name = namer.take(&name_of(&layers));
    let mut at = 0;
    let mut bound = |slot: &Slot| {
        at += 1;
        arguments.bind(at - 1, slot, "")
    };
    let list = LayerList {
        name: name.clone(),
        args: arguments.declared(),
        layers: layers.iter().map(|layer| layer.map_slots(&mut bound)).collect(),
    };
    let mut uses = 0;
    rewrite(program, sequential, &mut |entries, names| {
        let forms: Vec<Option<String>> = entries.iter().map(|entry| Entry::new(&entry.value, names).form).collect();
        let mut new = Vec::new();
        let mut at = 0;
        while at < entries.len() {
            let rest = forms[at..].iter().map(Option::as_deref).take(key.len());
            if rest.eq(key.iter().map(|form| Some(form.as_str()))) {
                let call = Expr::call(&name, arguments.call(uses));
                new.push(Arg::new(Expr::Prefix("*", Box::new(call))));
                uses += 1;
                at += key.len();
            } else {
                new.push(entries[at].clone());
                at += 1;
            }
        }
        Some(new)
    });
    Some(list)
}

/// An entry of a chain.
struct Entry {
    layer: Expr,
    /// Equal for layers that differ in literals only; none where it can't stand in a function of its own.
    form: Option<String>,
}

impl Entry {
    /// `names` are those that mean something in its class alone.
    fn new(layer: &Expr, names: &HashSet<&str>) -> Entry {
        let local = |part: &Expr| matches!(part, Expr::Name(name) if names.contains(name.as_str()));
        let is_layer = matches!(layer, Expr::Call(..)) && layer.count(&local) == 0 && !has_modules(layer);
        let form = is_layer.then(|| layer.map_slots(&mut |_| Expr::name("#")).to_string());
        Entry { layer: layer.clone(), form }
    }
}

/// Whether a module is among the literals, or a row of them.
fn has_modules(layer: &Expr) -> bool {
    layer.count(&|part| match part {
        Expr::Slot(slot) => matches!(slot.value, Lit::Module(_)),
        other => matches!(other, Expr::Repeat(..)),
    }) > 0
}

/// Layers that occur again and again.
#[derive(Default)]
struct Pattern {
    first: Vec<Expr>,
    /// The literals of each time.
    slots: Vec<Vec<Slot>>,
    /// The chain of the last time, and where that ended.
    last: (usize, usize),
}

impl Pattern {
    fn meet(&mut self, chain: usize, at: usize, window: &[Entry]) {
        if self.slots.is_empty() {
            self.first = window.iter().map(|entry| entry.layer.clone()).collect();
        } else if self.last.0 == chain && at < self.last.1 {
            return;
        }
        self.last = (chain, at + window.len());
        let mut slots = Vec::new();
        window.iter().for_each(|entry| entry.layer.slots(&mut |slot| slots.push(slot.clone())));
        self.slots.push(slots);
    }

    /// How many lines a list of so many layers saves.
    fn saved(&self, length: usize) -> Option<usize> {
        let uses = self.slots.len();
        let saved = (uses * (length - 1)).checked_sub(length + 3)?;
        (uses >= USES && saved >= SAVED).then_some(saved)
    }
}

/// What takes the place of a chain's entries, if something does. It is given the names that mean something in the class
/// alone.
type New<'a> = &'a mut dyn FnMut(&[Arg], &HashSet<&str>) -> Option<Vec<Arg>>;

/// Replaces what is in chains, those inside of others first, where `new` says so.
fn rewrite(program: &mut Program, sequential: &str, new: New) {
    for class in &mut program.classes {
        let Class { args, chain, members, .. } = class;
        let names: HashSet<&str> = args.iter().map(|arg| arg.name.as_str()).chain(["i"]).collect();
        if let Some(entries) = chain {
            for entry in entries.iter_mut() {
                entry.value = inside(&entry.value, sequential, &names, new);
            }
            if let Some(new) = new(entries, &names) {
                *entries = new;
            }
        }
        for (_, _, ctor) in members {
            *ctor = inside(ctor, sequential, &names, new);
        }
    }
}

fn inside(expr: &Expr, sequential: &str, names: &HashSet<&str>, new: New) -> Expr {
    expr.rewrite(&mut |part| match part {
        Expr::Call(function, args) if **function == Expr::name(sequential) => {
            let arg = |arg: &Arg| Arg { value: inside(&arg.value, sequential, names, new), ..arg.clone() };
            let args: Vec<Arg> = args.iter().map(arg).collect();
            let args = new(&args, names).unwrap_or(args);
            Some(Expr::Call(function.clone(), args))
        }
        _ => None,
    })
}

/// The layers as calls one after the other.
fn block(layers: &[Expr]) -> Block {
    let value = |number: usize| Value { node: NodeId::new(number), output: 0 };
    let item = |(number, layer): (usize, &Expr)| {
        let role = word(layer);
        let member = Member { kind: MemberKind::Module, role: role.clone(), ctor: layer.clone(), params: Vec::new() };
        Item::placed(&role, vec![member], Expr::name(""), vec![value(number)], vec![value(number + 1)])
    };
    let (inputs, outputs) = (vec![value(0)], vec![value(layers.len())]);
    let items = layers.iter().enumerate().map(item).collect();
    Block { items, operands: inputs.clone(), results: outputs.clone(), inputs, outputs }
}

/// `conv_bn_relu`
fn name_of(layers: &[Expr]) -> String {
    let words: Vec<String> = layers.iter().map(word).collect();
    if words.len() > WORDS { "layers".to_owned() } else { words.join("_") }
}

/// What a layer is called: `conv`, `bn`, `leaky_relu`.
fn word(layer: &Expr) -> String {
    let Expr::Call(class, _) = layer else { return "layer".to_owned() };
    let class = class.to_string();
    let name = class.rsplit('.').next().unwrap_or_default();
    let name = ["1d", "2d", "3d"].iter().find_map(|rank| name.strip_suffix(rank)).unwrap_or(name);
    match name {
        "BatchNorm" => "bn".to_owned(),
        "MaxPool" => "pool".to_owned(),
        "PReLU" | "RReLU" => name.to_ascii_lowercase(),
        name if name.bytes().all(|c| c.is_ascii_uppercase()) => name.to_ascii_lowercase(),
        name => snake_case(&name.replace("LU", "lu")),
    }
}
