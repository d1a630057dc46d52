//! Programs of graphs that know their source's modules: the same modules, under the same names, in the same classes.
//!
//! Nothing is renamed, joined or dissolved here, so that every key of the state dict is the source's. [`tree`] says
//! where every leaf and every weight belongs, [`flow`] what is called as a whole, [`form`] what a module consists of;
//! equal forms of one source class become one class.

mod constant;
mod flow;
mod form;
mod series;
mod tree;

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;
use modelport_ir::{Graph, Tensor};

use super::arguments::arguments;
use super::block::Block;
use super::class::{Class, Program};
use super::forward::{self, Step};
use super::leaf::{Leaf, MemberKind, Param};
use super::{Dialect, modules};
use crate::python::{Arg, Expr, Namer, Slot, camel_case, identifier, snake_case};
use flow::Block as Flow;
use form::{Form, Shape};
use tree::{Tree, is_torch_class};

/// Plans the program of a graph with modules.
pub fn program(graph: &Graph, leaves: &[Leaf], dialect: &Dialect) -> Program {
    let leaves = &one_name(graph, leaves);
    let mut tree = Tree::new(graph, leaves);
    let blocks = flow::blocks(&mut tree, graph);
    let mut planner = modules::Planner {
        graph,
        tree: &tree,
        blocks: &blocks,
        sequential: dialect.sequential,
        namer: Namer::default(),
        classes: Vec::new(),
        made: HashMap::new(),
    };
    let root = planner.class_name(0);
    planner.namer.take(&root);
    let mut levels: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    planner.height(0, &mut levels);
    for modules in levels.into_values() {
        planner.level(&modules);
    }
    let params = planner.made.remove(&0).map(|made| made.params).unwrap_or_default();
    Program { classes: planner.classes, params }
}

/// A weight that two operators read in two ways is two constants; they are one entry of the state dict, under the name
/// of the first.
fn one_name(graph: &Graph, leaves: &[Leaf]) -> Vec<Leaf> {
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    let mut leaves = leaves.to_vec();
    let params = |leaf: &Leaf| -> Vec<Param> {
        let functional = leaf.functional.iter().flat_map(|form| &form.members);
        leaf.members.iter().chain(functional).flat_map(|member| member.params.clone()).collect()
    };
    for param in leaves.iter().flat_map(params).filter(|param| !param.source.is_empty()) {
        tensors.entry(param.source.clone()).or_insert(param.tensor);
    }
    let original = |source: &str, tensor: &Tensor| -> Option<String> {
        let (stem, number) = source.rsplit_once('_')?;
        let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let same =
            numbered && graph.find(stem).is_some() && tensors.get(stem).is_some_and(|other| other.is_same(tensor));
        same.then(|| stem.to_owned())
    };
    for leaf in &mut leaves {
        let functional = leaf.functional.iter_mut().flat_map(|form| &mut form.members);
        for param in leaf.members.iter_mut().chain(functional).flat_map(|member| &mut member.params) {
            if let Some(name) = original(&param.source, &param.tensor) {
                param.source = name;
            }
        }
        if let Some(modules) = &mut leaf.modules {
            for param in modules.iter_mut().flat_map(|module| &mut module.params) {
                if let Some(name) = original(&param.source, &param.tensor) {
                    param.source = name;
                }
            }
        }
    }
    leaves
}

/// A module of the source in the target: what makes it, and its weights with keys below it.
#[derive(Clone, Debug)]
struct Made {
    ctor: Expr,
    params: Vec<Param>,
}

struct Planner<'a> {
    graph: &'a Graph,
    tree: &'a Tree,
    blocks: &'a HashMap<usize, Flow>,
    sequential: &'static str,
    namer: Namer,
    classes: Vec<Class>,
    made: HashMap<usize, Made>,
}

impl Planner<'_> {
    /// Whether a module is declared: whether something in it has a call or a weight.
    fn is_declared(&self, module: usize) -> bool {
        let of = &self.tree.modules[module];
        of.used
            && (of.layer.is_some()
                || !of.open
                || !of.tensors.is_empty()
                || of.children.iter().any(|&child| self.is_declared(child)))
    }

    fn height(&self, module: usize, levels: &mut BTreeMap<usize, Vec<usize>>) -> usize {
        let children = self.tree.modules[module].children.iter().filter(|&&child| self.is_declared(child));
        let height = children.map(|&child| 1 + self.height(child, levels)).max().unwrap_or(0);
        levels.entry(height).or_default().push(module);
        height
    }

    /// Makes all modules of one height, equal ones in one class.
    fn level(&mut self, modules: &[usize]) {
        let mut groups: IndexMap<String, Vec<Form>> = IndexMap::new();
        for &module in modules {
            if let Some(layer) = &self.tree.modules[module].layer {
                let made = Made { ctor: layer.ctor.clone(), params: layer.params.clone() };
                self.made.insert(module, made);
            } else if let Some(made) = self.container(module) {
                self.made.insert(module, made);
            } else {
                let form = self.form(module);
                groups.entry(format!("{} {}", self.class_name(module), form.signature())).or_default().push(form);
            }
        }
        for forms in groups.into_values() {
            self.class(&forms);
        }
    }

    fn class_name(&self, module: usize) -> String {
        let of = &self.tree.modules[module];
        let class = of.class.rsplit('.').next().unwrap_or_default();
        let class: String = class.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let name = match class.as_str() {
            "" if module == 0 => camel_case(&self.graph.name),
            "" => camel_case(&of.name),
            class if is_torch_class(class) && module == 0 => format!("{}{class}", camel_case(&self.graph.name)),
            class if is_torch_class(class) => format!("{class}Block"),
            class => class.to_owned(),
        };
        if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            identifier(&name)
        } else {
            format!("Net{name}")
        }
    }

    /// Makes a class of equal forms.
    fn class(&mut self, forms: &[Form]) {
        let Some(first) = forms.first() else { return };
        let is_root = first.module == 0;
        let wish = self.class_name(first.module);
        let name = if is_root { wish } else { self.namer.take(&wish) };
        let slots: Vec<Vec<Slot>> = forms.iter().map(Form::slots).collect();
        let (inputs, outputs) = (first.inputs.clone(), first.outputs.clone());
        let block =
            Block { items: first.items.clone(), operands: inputs.clone(), results: outputs.clone(), inputs, outputs };
        let arguments = arguments(&slots, &block);

        let mut at = 0;
        let mut bound: Vec<Expr> = vec![Expr::name(""); first.declared.len()];
        let mut kept = Vec::new();
        let mut steps = Vec::new();
        for (item, declared) in first.items.iter().zip(&first.declared_by) {
            for &index in declared {
                bound[index] = first.declared[index].ctor.map_slots(&mut |slot| {
                    at += 1;
                    arguments.bind(at - 1, slot, "")
                });
            }
            let expr = item.expr.map_slots(&mut |slot| {
                at += 1;
                kept.extend(arguments.kept(at - 1));
                arguments.bind(at - 1, slot, "self.")
            });
            if first.shape == Shape::Class && !item.results.is_empty() {
                steps.push(Step {
                    expr,
                    operands: item.operands.clone(),
                    results: item.results.clone(),
                    hints: first.hints.get(steps.len()).cloned().unwrap_or_default(),
                    alone: false,
                });
            }
        }
        let names = self.input_names(first);
        let inputs: Vec<_> = first.inputs.iter().copied().zip(names).collect();
        let body = match first.shape {
            Shape::Class => forward::body(steps, &inputs, &first.outputs, Namer::default()),
            Shape::Chain | Shape::Holder => forward::Body::default(),
        };
        kept.sort();
        kept.dedup();
        let chain = (first.shape == Shape::Chain).then(|| bound.iter().cloned().map(Arg::new).collect());
        let members = match first.shape {
            Shape::Chain => Vec::new(),
            _ => first.declared.iter().zip(bound).map(|(d, ctor)| (d.kind, d.name.clone(), ctor)).collect(),
        };
        let members = form::in_order(members);
        self.classes.push(Class {
            name: name.clone(),
            scopes: Vec::new(),
            args: arguments.declared(),
            kept_args: kept,
            members,
            body,
            chain,
            ties: first.ties.clone(),
        });
        for (index, form) in forms.iter().enumerate() {
            let ctor = Expr::call(&name, arguments.call(index));
            let params = form.declared.iter().flat_map(|d| d.params.iter().map(|param| param.below(&d.name))).collect();
            self.made.insert(form.module, Made { ctor, params });
        }
    }

    /// Names of what enters: the network's as they are known, the others by position.
    fn input_names(&self, form: &Form) -> Vec<String> {
        if form.module == 0 && self.graph.inputs.len() > 1 {
            let mut namer = Namer::default();
            let ports = self.graph.inputs.iter();
            return ports.map(|port| namer.take(&snake_case(port.name.rsplit('/').next().unwrap_or("x")))).collect();
        }
        let mut namer = Namer::default();
        let mut letters = ["x", "y", "z"].iter().map(|name| (*name).to_owned()).chain((1..).map(|i| format!("x{i}")));
        let name = |value| match self.tree.homes.get(value) {
            Some((_, key)) => namer.take(key),
            None => letters.next().unwrap_or_default(),
        };
        form.inputs.iter().map(name).collect()
    }
}

/// Whether a weight is one of the network itself or a module's.
fn is_tensor(kind: MemberKind) -> bool {
    kind != MemberKind::Module
}
