//! Programs of graphs that know their source's modules: the same modules, under the same names, in the same classes.
//!
//! Nothing is renamed, joined or dissolved here, so that every key of the state dict is the source's. [`tree`] says
//! where every leaf and every weight belongs, [`flow`] what is called as a whole, [`form`] what a module consists of;
//! equal forms of one source class become one class.

mod constant;
mod flow;
mod form;
mod rows;
mod series;
mod tree;

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexMap;
use modelport_ir::{Graph, Tensor, Value};

use super::arguments::arguments;
use super::block::Block;
use super::class::{Class, Program};
use super::forward::{self, Step};
use super::leaf::{Leaf, Member, MemberKind, Param, Spare};
use super::{Dialect, modules, unify};
use crate::python::{Arg, Expr, Namer, Slot, camel_case, identifier, snake_case};
use flow::Block as Flow;
use form::{Form, Shape};
use tree::Tree;
pub use tree::is_torch_class;

/// Plans the program of a graph with modules.
pub fn program(graph: &Graph, leaves: &[Leaf], spare: Vec<Spare>, dialect: &Dialect) -> Program {
    let leaves = &one_name(graph, leaves);
    let mut tree = Tree::new(graph, leaves, spare, dialect.holder);
    let blocks = flow::blocks(&mut tree, graph);
    let mut planner = modules::Planner {
        graph,
        tree: &tree,
        blocks: &blocks,
        sequential: dialect.sequential,
        namer: Namer::default(),
        classes: Vec::new(),
        made: HashMap::new(),
        lists: HashMap::new(),
        inputs: HashMap::new(),
        results: HashMap::new(),
    };
    let root = planner.class_name(0);
    planner.namer.take(&root);
    for modules in planner.levels() {
        planner.level(&modules);
    }
    let params = planner.made.remove(&0).map(|made| made.params).unwrap_or_default();
    Program { classes: planner.classes, lists: Vec::new(), params }
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

/// Most levels of modules, beside one for each class, at which a class is kept together.
const MAX_HEIGHT: usize = 64;

struct Planner<'a> {
    graph: &'a Graph,
    tree: &'a Tree,
    blocks: &'a HashMap<usize, Flow>,
    sequential: &'static str,
    namer: Namer,
    classes: Vec<Class>,
    made: HashMap<usize, Made>,
    /// Modules that take some of what enters as a list: where it begins and how long it is.
    lists: HashMap<usize, (usize, usize)>,
    /// What enters modules, in the order in which their classes take it, where that is not the order of first use.
    inputs: HashMap<usize, Vec<Value>>,
    /// What several results of modules are called.
    results: HashMap<usize, Vec<String>>,
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

    /// Modules by height, all of a class at that of its highest: what is in a module is made before it, and all
    /// modules of a class at once.
    fn levels(&self) -> Vec<Vec<usize>> {
        let mut order = vec![0];
        let mut at = 0;
        while let Some(&module) = order.get(at) {
            order.extend(self.tree.modules[module].children.iter().copied().filter(|&child| self.is_declared(child)));
            at += 1;
        }
        let classes: Vec<&str> = self.tree.modules.iter().map(|module| module.class.as_str()).collect();
        let distinct: HashSet<&str> = classes.iter().copied().collect();
        let mut heights: HashMap<usize, usize> = HashMap::new();
        let mut lowest: HashMap<&str, usize> = HashMap::new();
        loop {
            let mut raised = false;
            for &module in order.iter().rev() {
                let children = self.tree.modules[module].children.iter().filter_map(|child| heights.get(child));
                let own = children.max().map_or(0, |height| height + 1);
                let class = classes[module];
                let height = own.max(lowest.get(class).copied().unwrap_or(0));
                heights.insert(module, height);
                // A class in itself has no height.
                let bounded = height <= distinct.len() + order.len().min(MAX_HEIGHT);
                if !class.is_empty() && !is_torch_class(class) && bounded && lowest.get(class) != Some(&height) {
                    raised |= lowest.contains_key(class);
                    lowest.insert(class, height);
                }
            }
            if !raised {
                break;
            }
        }
        let mut levels: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut depth_first = Vec::new();
        self.depth_first(0, &mut depth_first);
        for module in depth_first {
            levels.entry(heights.get(&module).copied().unwrap_or(0)).or_default().push(module);
        }
        levels.into_values().collect()
    }

    fn depth_first(&self, module: usize, order: &mut Vec<usize>) {
        for &child in self.tree.modules[module].children.iter().filter(|&&child| self.is_declared(child)) {
            self.depth_first(child, order);
        }
        order.push(module);
    }

    /// Makes all modules of one height, equal ones in one class.
    fn level(&mut self, modules: &[usize]) {
        let mut classes: IndexMap<String, Vec<Form>> = IndexMap::new();
        for &module in modules {
            if let Some(layer) = &self.tree.modules[module].layer {
                let made = Made { ctor: layer.ctor.clone(), params: layer.params.clone() };
                self.made.insert(module, made);
            } else if let Some(made) = self.container(module) {
                self.made.insert(module, made);
            } else {
                let form = self.form(module);
                classes.entry(self.class_name(module)).or_default().push(form);
            }
        }
        for mut forms in classes.into_values() {
            self.lists.extend(rows::lists(&mut forms));
            let mut groups: IndexMap<String, Vec<Form>> = IndexMap::new();
            for mut form in forms {
                let module = form.module;
                rows::fold(&mut form, &|list| self.list_size(module, list));
                groups.entry(form.signature()).or_default().push(form);
            }
            for forms in self.unified(groups.into_values().collect()) {
                self.class(&forms);
            }
        }
    }

    /// Groups of equal forms, those that differ in a few calls joined.
    fn unified(&mut self, groups: Vec<Vec<Form>>) -> Vec<Vec<Form>> {
        let (plain, mut others): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|forms| forms.iter().all(Form::is_plain));
        if plain.len() < 2 {
            others.splice(0..0, plain);
            return others;
        }
        let blocks = plain.iter().map(|forms| forms.iter().map(|form| (form.module, form.open_block())).collect());
        let context = unify::Context {
            graph: self.graph,
            sequential: self.sequential,
            identity: None,
            functional: false,
            exact: false,
            place: &|module| (self.tree.modules[module].path.clone(), 0),
        };
        let joined = unify::unify(blocks.collect(), &vec![false; plain.len()], &context);
        let form = |(module, block): (usize, Block)| Form {
            module,
            shape: Shape::Class,
            items: block.items,
            inputs: block.inputs,
            outputs: block.outputs,
            ties: Vec::new(),
            lists: HashSet::new(),
            operands: block.operands,
        };
        let joined: Vec<Vec<Form>> = joined.into_iter().map(|group| group.into_iter().map(form).collect()).collect();
        self.inputs.extend(joined.iter().flatten().map(|form| (form.module, form.operands.clone())));
        joined.into_iter().chain(others).collect()
    }

    /// How many modules a list has that a module calls `self.layers`.
    fn list_size(&self, module: usize, list: &str) -> usize {
        let Some(path) = list.strip_prefix("self.") else { return 0 };
        let path = format!("{}.{path}", self.tree.modules[module].path);
        let found = self.tree.modules.iter().find(|of| of.path == path.trim_start_matches('.'));
        found.map_or(0, |of| of.children.iter().filter(|&&child| self.is_declared(child)).count())
    }

    fn class_name(&self, module: usize) -> String {
        let of = &self.tree.modules[module];
        let class = of.class.rsplit('.').next().unwrap_or_default();
        let class: String = class.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let name = match class.as_str() {
            "" if module == 0 => camel_case(&self.graph.name),
            // `aux1`, `aux2`
            "" => camel_case(of.name.trim_end_matches(|c: char| c.is_ascii_digit())),
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
        let arguments = arguments(&slots, &first.block());

        let taken: HashSet<&str> = first.items.iter().flat_map(|item| &item.members).map(|m| m.role.as_str()).collect();

        let mut at = 0;
        let mut members = Vec::new();
        let mut kept = Vec::new();
        let mut steps = Vec::new();
        for item in &first.items {
            for member in &item.members {
                let ctor = member.ctor.map_slots(&mut |slot| {
                    at += 1;
                    arguments.bind(at - 1, slot, "")
                });
                members.push((member.kind, (member.role.clone(), ctor)));
            }
            let expr = item.expr.map_slots(&mut |slot| {
                at += 1;
                let bound = arguments.bind(at - 1, slot, "self.");
                let Some((name, value)) = arguments.kept(at - 1) else { return bound };
                // A member of the source may have its name.
                let free = if taken.contains(name.as_str()) { format!("{name}_value") } else { name.clone() };
                let (from, to) = (Expr::name(&format!("self.{name}")), Expr::name(&format!("self.{free}")));
                kept.push((free, value));
                bound.rewrite(&mut |e| (*e == from).then(|| to.clone()))
            });
            if first.shape == Shape::Class && item.role != form::REST {
                steps.push(Step {
                    expr,
                    operands: item.operands.clone(),
                    results: item.results.clone(),
                    hints: item.hints.clone(),
                    alone: matches!(item.expr, Expr::List(_) | Expr::For(_)),
                });
            }
        }
        let names = self.input_names(first);
        let inputs: Vec<_> = first.inputs.iter().copied().zip(names).collect();
        let mut body = match first.shape {
            Shape::Class => forward::body(steps, &inputs, &first.outputs, Namer::default()),
            Shape::Chain | Shape::Holder => forward::Body::default(),
        };
        body.lists = inputs.iter().map(|(value, _)| first.lists.contains(value)).collect();
        kept.sort();
        kept.dedup();
        let (bases, members): (Vec<_>, Vec<_>) = members.into_iter().partition(|(kind, _)| *kind == MemberKind::Base);
        let (chain, members) = match first.shape {
            Shape::Chain => (Some(members.into_iter().map(|(_, (_, ctor))| Arg::new(ctor)).collect()), Vec::new()),
            _ => (None, form::in_order(members).map(|(kind, (name, ctor))| (kind, name, ctor)).collect()),
        };
        self.classes.push(Class {
            name: name.clone(),
            scopes: Vec::new(),
            notes: BTreeMap::new(),
            shapes: String::new(),
            args: arguments.declared(),
            kept_args: kept,
            members,
            body,
            chain,
            base: bases.into_iter().next().map(|(_, (_, ctor))| ctor),
            ties: first.ties.clone(),
        });
        for (index, form) in forms.iter().enumerate() {
            let plain = Expr::call(&name, arguments.call(index));
            let ctor = match &self.tree.modules[form.module].wrapper {
                Some(wrapper) => wrapper.rewrite(&mut |e| matches!(e, Expr::Operand(_)).then(|| plain.clone())),
                None => plain,
            };
            let members =
                form.items.iter().flat_map(|item| &item.members).map(|member| (member.kind, member)).collect();
            let below = |member: &Member| -> Vec<Param> {
                match member.kind {
                    MemberKind::Row | MemberKind::Base => member.params.clone(),
                    _ => member.params.iter().map(|param| param.below(&member.role)).collect(),
                }
            };
            let mut params: Vec<Param> = form::in_order(members).flat_map(|(_, member)| below(member)).collect();
            params.extend(self.aliased(form.module));
            self.made.insert(form.module, Made { ctor, params });
            self.results.insert(form.module, form.block().result_names());
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
            None if form.lists.contains(value) => namer.take("features"),
            None => letters.next().unwrap_or_default(),
        };
        form.operands.iter().map(name).collect()
    }
}

/// Whether a weight is one of the network itself or a module's.
fn is_tensor(kind: MemberKind) -> bool {
    !matches!(kind, MemberKind::Module | MemberKind::Row)
}
