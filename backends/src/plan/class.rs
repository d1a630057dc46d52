//! Classes: equal regions become one class, and what differs between them becomes its arguments.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexMap;
use modelport_ir::{Graph, NodeId, Value};

use super::Dialect;
use super::arguments::{Arguments, Declared, arguments, is_channels};
use super::block::{Block, Item, call_item, is_layers, member_role, signature, slots, split};
use super::forward::{self, Body, Step};
use super::leaf::{Leaf, MemberKind, Param};
use super::lists::LayerList;
use super::modules::is_torch_class;
use super::region::{self, Child, Region, Tree};
use super::structure;
use super::titles::{self, Wish};
use super::unify;
use super::words::{common_prefix, is_generic, is_number, member_name, note, role_word};
use crate::python::{Arg, Expr, Lit, Namer, Slot, camel_case, identifier, snake_case};

/// A module: what it keeps and what it does.
#[derive(Clone, Debug)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// The scopes that are of this class, where there are few.
    pub scopes: Vec<String>,
    /// Members whose names do not show which scopes of the source they are, and these.
    pub notes: BTreeMap<String, String>,
    /// What enters and leaves it, where that is the same for all of them: `[N, 4] to [N, 2]`.
    pub shapes: String,
    /// Constructor arguments, with defaults.
    pub args: Vec<Declared>,
    /// What `forward` reads of the arguments, kept as `self.…`: a name, and what it is.
    pub kept_args: Vec<(String, Expr)>,
    /// Members in order: kind, name, what makes them.
    pub members: Vec<(MemberKind, String, Expr)>,
    /// What it computes.
    pub body: Body,
    /// What it is made of, if it is a chain of modules.
    pub chain: Option<Vec<Arg>>,
    /// What makes the layer that it extends, if it extends one.
    pub base: Option<Expr>,
    /// Weights that are one: what gets which other's.
    pub ties: Vec<(String, String)>,
}

/// A whole program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Classes, the ones that are used before those that use them; the last is the network.
    pub classes: Vec<Class>,
    /// Functions that list layers.
    pub lists: Vec<LayerList>,
    /// All weights, in the order in which the network registers them.
    pub params: Vec<Param>,
}

struct Planner<'a> {
    graph: &'a Graph,
    tree: &'a Tree,
    leaves: Vec<Leaf>,
    dialect: &'a Dialect,
    namer: Namer,
    classes: Vec<Class>,
    /// What the classes would be called, each for itself.
    wishes: Vec<Wish>,
    items: HashMap<usize, Item>,
    readers: HashMap<Value, Vec<usize>>,
    /// Per region: roles of leaves, nested.
    forms: HashMap<usize, String>,
    /// Per region: its parent, and which child it is.
    parents: HashMap<usize, (usize, usize)>,
}

/// Deepest nesting for which modules of one class are brought together.
const LEVELS: usize = 64;
/// Longest chain that is always written out where it stands.
const INLINE: usize = 3;
/// Lines of a class, beside those of its members.
const CLASS: usize = 12;
/// Most modules of one class that are listed by their paths.
const PATHS: usize = 4;

/// Makes classes of regions, the innermost first.
pub fn program(graph: &Graph, leaves: Vec<Leaf>, tree: &Tree, dialect: &Dialect) -> Program {
    let mut readers: HashMap<Value, Vec<usize>> = HashMap::new();
    for (index, leaf) in leaves.iter().enumerate() {
        for value in &leaf.operands {
            readers.entry(*value).or_default().push(index);
        }
    }
    let mut planner = Planner {
        graph,
        tree,
        leaves,
        dialect,
        namer: Namer::default(),
        classes: Vec::new(),
        wishes: Vec::new(),
        items: HashMap::new(),
        readers,
        forms: HashMap::new(),
        parents: HashMap::new(),
    };
    planner.form(tree.root);
    let levels = planner.levels();
    let root_name = planner.root_name();
    planner.namer.take(&root_name);
    for regions in levels.into_values() {
        planner.level(regions.into_iter().filter(|&region| region != tree.root).collect());
    }
    let block = planner.block(tree.root);
    let args = planner.input_names();
    let params = planner.class(vec![&block], root_name, Vec::new(), Some(args)).1.pop().unwrap_or_default();
    if !tree.exact {
        titles::tell_apart(&mut planner.classes, &planner.wishes);
    }
    Program { classes: planner.classes, lists: Vec::new(), params }
}

impl Planner<'_> {
    /// Regions by how deeply others are nested in them. Modules of one class of the source are of one level.
    fn levels(&self) -> BTreeMap<usize, Vec<usize>> {
        let mut order = Vec::new();
        self.inside_out(self.tree.root, &mut order);
        let mut heights: HashMap<usize, usize> = HashMap::new();
        let mut raised = HashMap::new();
        // A class that holds itself never comes to rest.
        for _ in 0..=self.tree.regions.len().min(LEVELS) {
            let before = heights.clone();
            for &region in &order {
                let of = &self.tree.regions[region];
                let inner = of.children.iter().filter_map(|child| match child {
                    Child::Region(inner) => heights.get(inner).map(|height| height + 1),
                    Child::Leaf(_) => None,
                });
                let height = inner.max().unwrap_or(0);
                let class = raised.entry(of.class.as_str()).or_insert(0);
                *class = height.max(*class);
                let kin = self.tree.exact && region != self.tree.root && !is_torch_class(&of.class);
                heights.insert(region, if kin && !of.class.is_empty() { *class } else { height });
            }
            if heights == before {
                break;
            }
        }
        let mut levels: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for region in order {
            levels.entry(heights[&region]).or_default().push(region);
        }
        levels
    }

    /// A region after all that are in it.
    fn inside_out(&self, region: usize, order: &mut Vec<usize>) {
        for child in &self.tree.regions[region].children {
            if let Child::Region(inner) = child {
                self.inside_out(*inner, order);
            }
        }
        order.push(region);
    }

    fn root_name(&self) -> String {
        let root = &self.tree.regions[self.tree.root];
        if self.tree.exact && !root.class.is_empty() && !is_torch_class(&root.class) {
            return root.class.clone();
        }
        let scope = &root.name;
        let name = if scope.is_empty() { &self.graph.name } else { scope };
        let name = camel_case(name);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) { format!("Net{name}") } else { name }
    }

    fn input_names(&self) -> Vec<String> {
        if let [_] = self.graph.inputs.as_slice() {
            return vec!["x".to_owned()];
        }
        let mut namer = Namer::default();
        self.graph
            .inputs
            .iter()
            .map(|port| namer.take(&snake_case(port.name.rsplit('/').next().unwrap_or("x"))))
            .collect()
    }

    /// The calls of a region, ordered by a walk from its outputs.
    fn block(&self, region: usize) -> Block {
        let children = &self.tree.regions[region].children;
        let items: Vec<Item> = children.iter().map(|&child| self.item(child)).flat_map(split).collect();
        let made: HashSet<Value> = items.iter().flat_map(|item| item.results.iter().copied()).collect();
        let (inputs, outputs) = if region == self.tree.root {
            let inputs = self.graph.inputs.iter().map(|port| port.value).collect();
            (inputs, self.graph.outputs.iter().map(|port| port.value).collect())
        } else {
            (Vec::new(), self.outputs_of(region))
        };
        let wires: Vec<(Vec<Value>, Vec<Value>)> =
            items.iter().map(|item| (item.operands.clone(), item.results.clone())).collect();
        let items: Vec<Item> = forward::order(&wires, &outputs).into_iter().map(|i| items[i].clone()).collect();
        let inputs = if region == self.tree.root {
            inputs
        } else {
            let mut seen = HashSet::new();
            let reads = items.iter().flat_map(|item| item.operands.iter().copied());
            reads.filter(|value| !made.contains(value) && seen.insert(*value)).collect()
        };
        Block { items, operands: inputs.clone(), results: outputs.clone(), inputs, outputs }
    }

    /// Values that leave a region, by the order in which they are made in the source.
    fn outputs_of(&self, region: usize) -> Vec<Value> {
        let mut below = Vec::new();
        self.tree.leaves_of(Child::Region(region), &mut below);
        let inside: HashSet<usize> = below.iter().copied().collect();
        below.sort_unstable();
        let mut outputs = Vec::new();
        for leaf in below {
            let node = self.leaves[leaf].node;
            for output in 0..self.graph.node(node).outputs.len() {
                let value = Value { node, output };
                let leaves_region = self.readers.get(&value).is_some_and(|r| r.iter().any(|l| !inside.contains(l)));
                if leaves_region || self.graph.outputs.iter().any(|port| port.value == value) {
                    outputs.push(value);
                }
            }
        }
        outputs
    }

    fn item(&self, child: Child) -> Item {
        match child {
            Child::Region(region) => {
                let Region { name, scope, .. } = &self.tree.regions[region];
                let scope = (*scope && !self.tree.exact && !name.is_empty()).then(|| name.clone());
                Item { scope, ..self.items[&region].clone() }
            }
            Child::Leaf(index) => {
                let leaf = &self.leaves[index];
                let results = 0..self.graph.node(leaf.node).outputs.len();
                let own = || self.tree.exact.then(|| weight_name(leaf)).flatten();
                let name = self.tree.leaf_names.get(&index).cloned().or_else(own);
                let mut hints = leaf.results.clone();
                if hints.is_empty() {
                    hints = vec![name.clone().unwrap_or_else(|| leaf.role.clone())];
                }
                let weights = region::weights_of(self.graph, leaf);
                let shared = (!weights.is_empty()).then(|| {
                    let ctors: Vec<String> = leaf.members.iter().map(|member| member.ctor.to_string()).collect();
                    format!("{weights:?}|{}", ctors.join("|"))
                });
                Item {
                    scope: name.clone().filter(|_| !self.tree.exact),
                    name,
                    role: leaf.role.clone(),
                    members: leaf.members.clone(),
                    expr: leaf.expr.clone(),
                    operands: leaf.operands.clone(),
                    results: results.map(|output| Value { node: leaf.node, output }).collect(),
                    hints,
                    modules: leaf.modules.clone(),
                    shared,
                }
            }
        }
    }

    /// Turns all regions of one height into calls.
    fn level(&mut self, regions: Vec<usize>) {
        let mut groups: IndexMap<String, Vec<(usize, Block)>> = IndexMap::new();
        for region in regions {
            let block = self.block(region);
            groups
                .entry(signature(&block, self.dialect.sequential, self.tree.exact))
                .or_default()
                .push((region, block));
        }
        let groups: Vec<_> = groups.into_values().collect();
        let chains: Vec<bool> = groups.iter().map(|group| self.chains(group).is_some()).collect();
        let Dialect { sequential, identity, functional, .. } = *self.dialect;
        let place = |region: usize| {
            let (form, index) = self.place(region);
            (form.to_owned(), index)
        };
        let context = unify::Context {
            graph: self.graph,
            sequential,
            identity: Some(identity),
            functional,
            exact: self.tree.exact,
            place: &place,
        };
        let plain: HashMap<usize, Block> = groups.iter().flatten().cloned().collect();
        let again = |part: Vec<(usize, Block)>| {
            // What only the other parts had is gone.
            let mut groups: IndexMap<String, Vec<(usize, Block)>> = IndexMap::new();
            for (region, _) in part {
                let block = plain[&region].clone();
                groups
                    .entry(signature(&block, self.dialect.sequential, self.tree.exact))
                    .or_default()
                    .push((region, block));
            }
            let chains = vec![false; groups.len()];
            unify::unify(groups.into_values().collect(), &chains, &context)
        };
        let groups: Vec<_> = unify::unify(groups, &chains, &context)
            .into_iter()
            .flat_map(|group| match apart(group) {
                parts if parts.len() > 1 => parts.into_iter().flat_map(again).collect(),
                parts => parts,
            })
            .collect();
        for mut group in groups {
            group.sort_by_key(|(region, _)| *region);
            if let Some(chains) = self.chains(&group) {
                for ((region, block), item) in group.iter().zip(chains) {
                    debug_assert_eq!(block.outputs.len(), 1);
                    self.items.insert(*region, item);
                }
                continue;
            }
            let name = self.class_name(&group);
            let lists_layers = is_layers(&group[0].1);
            let projects = group.iter().all(|(region, _)| structure::projects(self.graph, &self.nodes_of(*region)));
            let shrinks = group.iter().all(|(_, block)| structure::shrinks(self.graph, block));
            self.wishes.push(Wish { name: name.clone(), lists_layers, projects, shrinks });
            // Scopes tell what a block is; a chain of layers says that itself.
            let named = group.iter().filter(|(region, _)| !self.tree.regions[*region].inner.is_empty());
            let scopes = match is_layers(&group[0].1) {
                true => Vec::new(),
                false => named.map(|(region, _)| self.tree.regions[*region].name.clone()).collect(),
            };
            let paths = || group.iter().map(|(region, _)| self.path(*region)).collect::<Vec<_>>();
            let scopes = match (self.tree.exact, group.as_slice()) {
                (true, [(first, _), .., (last, _)]) if group.len() > PATHS => {
                    vec![format!("{} modules from {} to {}", group.len(), self.path(*first), self.path(*last))]
                }
                (true, _) => paths(),
                (false, _) => self.told_apart(&group, scopes),
            };
            let blocks: Vec<&Block> = group.iter().map(|(_, block)| block).collect();
            let (ctors, params) = self.class(blocks, name, scopes, None);
            for (((region, block), ctor), params) in group.iter().zip(ctors).zip(params) {
                let name = self.tree.regions[*region].name.clone();
                let item = call_item(name, ctor, params, block);
                self.items.insert(*region, item);
            }
        }
    }

    /// Regions that are chains of modules need no class of their own.
    fn chains(&self, group: &[(usize, Block)]) -> Option<Vec<Item>> {
        let (_, first) = group.first()?;
        if is_layers(first) && group.len() > 1 {
            return None;
        }
        // A long chain that would be written out in many places is shorter as a class.
        let mut modules: Vec<&Expr> =
            first.items.iter().flat_map(|item| item.modules.iter().flatten()).map(|module| &module.ctor).collect();
        modules.dedup();
        let length = modules.len();
        let places: HashSet<(&str, usize)> = group.iter().map(|(region, _)| self.place(*region)).collect();
        if length > INLINE && places.len() * (length + 2) > length + CLASS {
            return None;
        }
        group.iter().map(|(region, block)| self.chain(*region, block)).collect()
    }

    /// Where a region will be written: regions of one form, at one place in parents of one form, are one text.
    fn place(&self, region: usize) -> (&str, usize) {
        match self.parents.get(&region) {
            Some(&(parent, index)) => (self.forms.get(&parent).map_or("", String::as_str), index),
            None => ("", 0),
        }
    }

    /// The names of a region and of those around it, in order.
    fn path(&self, region: usize) -> String {
        let outwards = std::iter::successors(Some(region), |at| Some(self.parents.get(at)?.0));
        let names: Vec<&str> = outwards.map(|at| self.tree.regions[at].name.as_str()).collect();
        names.into_iter().rev().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".")
    }

    /// Scopes of blocks, with those around them where the names alone are no names.
    fn told_apart(&self, group: &[(usize, Block)], scopes: Vec<String>) -> Vec<String> {
        let regions = || self.tree.regions.iter().filter(|region| !region.children.is_empty());
        let repeats = |name: &String| regions().filter(|region| region.name == *name).count() > 1;
        if !scopes.iter().any(|scope| is_number(scope) || repeats(scope)) {
            return scopes;
        }
        let path = |region: usize| {
            let outwards = std::iter::successors(Some(region), |at| Some(self.parents.get(at)?.0));
            let regions = outwards.filter(|&at| at != self.tree.root).map(|at| &self.tree.regions[at]);
            let names: Vec<&str> = regions.filter(|region| region.scope).map(|region| region.name.as_str()).collect();
            names.into_iter().rev().collect::<Vec<_>>().join("/")
        };
        let scopes: Vec<String> = group
            .iter()
            .filter(|(region, _)| !self.tree.regions[*region].inner.is_empty())
            .map(|(region, _)| path(*region))
            .collect();
        match scopes.as_slice() {
            [first, .., last] if scopes.len() > PATHS => {
                vec![format!("{} blocks from {first} to {last}", scopes.len())]
            }
            _ => scopes,
        }
    }

    /// What enters and leaves blocks, where they have it in common.
    fn shapes(&self, blocks: &[&Block]) -> String {
        let said = |block: &&Block| {
            let all = |values: &[Value]| {
                let shapes: Vec<String> = values.iter().map(|value| self.graph.shape(*value).to_string()).collect();
                shapes.join(", ")
            };
            format!("{} to {}", all(&block.operands), all(&block.results))
        };
        let first = blocks.first().map(said).unwrap_or_default();
        if blocks.iter().all(|block| said(block) == first) { first } else { String::new() }
    }

    /// Notes the form of a region and of all below: the roles of its leaves, nested as the scopes are.
    fn form(&mut self, region: usize) -> String {
        let mut form = String::from("(");
        for (index, child) in self.tree.regions[region].children.clone().into_iter().enumerate() {
            match child {
                Child::Leaf(leaf) => form.push_str(&self.leaves[leaf].role),
                Child::Region(inner) => {
                    self.parents.insert(inner, (region, index));
                    let inner = self.form(inner);
                    form.push_str(&inner);
                }
            }
            form.push(' ');
        }
        form.push(')');
        self.forms.insert(region, form.clone());
        form
    }

    fn chain(&self, region: usize, block: &Block) -> Option<Item> {
        let ([input], [_]) = (block.inputs.as_slice(), block.outputs.as_slice()) else { return None };
        let mut at = *input;
        let mut args = Vec::new();
        let mut params = Vec::new();
        let mut namer = Namer::default();
        for (index, item) in block.items.iter().enumerate() {
            let ([operand], [result]) = (item.operands.as_slice(), item.results.as_slice()) else { return None };
            let last = index + 1 == block.items.len();
            if *operand != at || (!last && block.outputs.contains(result)) {
                return None;
            }
            at = *result;
            for module in item.modules.as_ref()? {
                params.extend(module.params.iter().map(|param| param.below(&args.len().to_string())));
                let named = self.dialect.functional && (!module.params.is_empty() || item.members.len() == 1);
                args.push(match (named, &item.name) {
                    (false, _) => Arg::new(module.ctor.clone()),
                    (true, Some(name)) if self.tree.exact => {
                        Arg::keyword(&namer.take_text(name), module.ctor.clone(), None)
                    }
                    (true, Some(name)) if !is_generic(name) => {
                        Arg::keyword(&namer.take(name), module.ctor.clone(), None)
                    }
                    (true, _) => Arg::keyword(&namer.take(&item.role), module.ctor.clone(), None),
                });
            }
        }
        let ctor = Expr::call(self.dialect.sequential, args);
        Some(call_item(self.tree.regions[region].name.clone(), ctor, params, block))
    }

    /// The nodes of a region.
    fn nodes_of(&self, region: usize) -> Vec<NodeId> {
        let mut below = Vec::new();
        self.tree.leaves_of(Child::Region(region), &mut below);
        below.into_iter().map(|leaf| self.leaves[leaf].node).collect()
    }

    fn class_name(&self, group: &[(usize, Block)]) -> String {
        let (_, first) = &group[0];
        let class = &self.tree.regions[group[0].0].class;
        // A longer container is what it is called, if that is the same everywhere.
        let name = &self.tree.regions[group[0].0].inner;
        let same = group.iter().all(|(region, _)| self.tree.regions[*region].inner == *name);
        if self.tree.exact && is_torch_class(class) && first.items.len() > 2 && same && !is_number(name) {
            return camel_case(name);
        }
        if !class.is_empty() && !is_torch_class(class) {
            return class.trim_start_matches('_').to_owned();
        }
        let telling = first.items.iter().all(|item| !matches!(item.role.as_str(), "y" | "part" | "picked"));
        let layered = first.items.iter().any(|item| !item.members.is_empty());
        if is_layers(first) && first.items.len() <= 4 && layered && telling {
            if let Some("SeparableConv") = structure::textbook_name(self.graph, &self.nodes_of(group[0].0)) {
                return "SeparableConv".to_owned();
            }
            let words: Vec<String> = first.items.iter().map(|item| role_word(&item.role)).collect();
            return words.concat();
        }
        let (region, _) = group[0];
        let textbook = || structure::textbook_name(self.graph, &self.nodes_of(region)).unwrap_or("Block").to_owned();
        if self.tree.regions[region].inner.is_empty() {
            return textbook();
        }
        let inner: Vec<&str> = group.iter().map(|(region, _)| self.tree.regions[*region].inner.as_str()).collect();
        let prefix = common_prefix(&inner);
        let stem = prefix.trim_end_matches(['_', '-', '.']);
        let name = camel_case(stem);
        let letters = name.chars().filter(char::is_ascii_alphabetic).count();
        if letters < 2 || name.starts_with(|c: char| c.is_ascii_digit()) {
            return textbook();
        }
        name
    }

    /// Makes a class of equal blocks. Returns for every block what constructs it, and its weights.
    fn class(
        &mut self,
        blocks: Vec<&Block>,
        name: String,
        scopes: Vec<String>,
        inputs: Option<Vec<String>>,
    ) -> (Vec<Expr>, Vec<Vec<Param>>) {
        let is_root = inputs.is_some();
        let name = if is_root { name } else { self.namer.take(&name) };
        let slots: Vec<Vec<Slot>> = blocks.iter().map(|block| slots(block)).collect();
        let arguments = arguments(&slots, blocks[0]);

        // Members of the first block, with arguments in the place of what differs.
        let first = blocks[0];
        let mut members = Vec::new();
        let mut member_names: Vec<Vec<String>> = Vec::new();
        let mut notes = BTreeMap::new();
        let mut kept = Vec::new();
        // A module keeps such an argument under its name.
        let kept_names = if self.dialect.functional { Vec::new() } else { kept_names(first, &arguments) };
        let mut namer = Namer::avoiding(kept_names.iter().map(String::as_str));
        // What is shared is one member.
        let mut met: HashSet<&String> = HashSet::new();
        let roles: Vec<String> = first
            .items
            .iter()
            .filter(|item| item.shared.as_ref().is_none_or(|key| met.insert(key)))
            .flat_map(|item| item.members.iter().map(|member| member_role(item, member).to_owned()))
            .collect();
        let mut seen_roles: HashMap<String, usize> = HashMap::new();
        let mut shared: HashMap<String, Vec<String>> = HashMap::new();
        let mut steps = Vec::new();
        let mut at = 0;
        for (index, item) in first.items.iter().enumerate() {
            let calls = || blocks.iter().map(|block| &block.items[index]);
            let source_name = member_name(&calls().map(|item| item.name.as_deref()).collect::<Vec<_>>());
            let item_scopes: Vec<&str> = calls().filter_map(|item| item.scope.as_deref()).collect();
            let known = item.shared.as_ref().and_then(|key| shared.get(key)).cloned();
            let mut names = Vec::new();
            for (i, member) in item.members.iter().enumerate() {
                let ctor = member.ctor.map_slots(&mut |slot| {
                    at += 1;
                    match arguments.bind(at - 1, slot, "") {
                        module if arguments.is_optional(at - 1) => {
                            module.binary("or", Expr::call(self.dialect.identity, Vec::new()))
                        }
                        bound => bound,
                    }
                });
                let ctor = decided(&ctor);
                if let Some(known) = &known {
                    names.push(known[i].clone());
                    continue;
                }
                let role = member_role(item, member);
                let same = roles.iter().filter(|other| *other == role).count();
                let wish = match &source_name {
                    Some(name) if self.tree.exact && i == 0 => name.clone(),
                    Some(name) if self.tree.exact => format!("{name}.{role}"),
                    Some(name) if i == 0 && !(is_generic(name) && same == 1) => identifier(name),
                    Some(name) if i > 0 && !is_generic(name) => format!("{}_{role}", identifier(name)),
                    _ if same > 1 => {
                        let number = seen_roles.entry(role.to_owned()).or_default();
                        *number += 1;
                        format!("{role}{number}")
                    }
                    _ => role.to_owned(),
                };
                let member_name = if self.tree.exact { namer.take_text(&wish) } else { namer.take(&wish) };
                if let Some(said) = note(&member_name, &item_scopes).filter(|_| i == 0) {
                    notes.insert(member_name.clone(), said);
                }
                members.push((
                    member.kind,
                    member_name.clone(),
                    if self.dialect.functional { ctor } else { fold_runs(&ctor, self.dialect.sequential) },
                ));
                names.push(member_name);
            }
            if let (Some(key), None) = (&item.shared, known) {
                shared.insert(key.clone(), names.clone());
            }
            let expr = item.expr.map_slots(&mut |slot| {
                at += 1;
                kept.extend(arguments.kept(at - 1));
                if self.dialect.functional {
                    // A function has its arguments at hand; the prefix tells them from its values.
                    return own(&arguments.bind(at - 1, slot, ""));
                }
                arguments.bind(at - 1, slot, "self.")
            });
            let expr = decided(&expr).rewrite(&mut |e| match e {
                Expr::Member(i) => Some(Expr::name(&format!("self.{}", names.get(*i).map_or("", String::as_str)))),
                _ => None,
            });
            steps.push(Step {
                expr,
                operands: item.operands.clone(),
                results: item.results.clone(),
                alone: false,
                hints: match (&source_name, item.hints.as_slice()) {
                    (Some(name), [_]) if self.tree.exact && is_number(name) => {
                        let stem = name.trim_end_matches(|c: char| c == '.' || c.is_ascii_digit());
                        vec![if stem.is_empty() { "y".to_owned() } else { stem.to_owned() }]
                    }
                    (None, [_]) if item.name.is_some() => vec![names.first().unwrap_or(&item.role).clone()],
                    (Some(name), [_]) if item.name.is_some() => vec![name.clone()],
                    (_, hints) => hints.to_vec(),
                },
            });
            member_names.push(names);
        }

        let inputs = inputs.unwrap_or_else(|| {
            let mut names = ["x", "y", "z"].iter().map(|name| (*name).to_owned()).chain((1..).map(|i| format!("x{i}")));
            let given: HashMap<Value, String> = match self.graph.inputs.as_slice() {
                [_] => HashMap::new(),
                ports => ports.iter().map(|port| port.value).zip(self.input_names()).collect(),
            };
            // What comes into the network by a name of its own keeps that.
            let name = |(index, operand): (usize, &Value)| {
                let same = blocks.iter().all(|block| block.operands.get(index) == Some(operand));
                let known = given.get(operand).filter(|name| same && name.len() > 1).cloned();
                known.or_else(|| names.next()).unwrap_or_default()
            };
            first.operands.iter().enumerate().map(name).collect()
        });
        let inputs: Vec<(Value, String)> = first.inputs.iter().copied().zip(inputs).collect();
        let body = forward::body(steps, &inputs, &first.outputs, Namer::default());

        kept.sort();
        kept.dedup();
        let mut distinct_scopes = scopes;
        distinct_scopes.dedup();
        let mut seen = HashSet::new();
        distinct_scopes.retain(|scope| seen.insert(scope.clone()));
        self.classes.push(Class {
            name: name.clone(),
            scopes: distinct_scopes,
            notes,
            shapes: if is_root { String::new() } else { self.shapes(&blocks) },
            args: arguments.declared(),
            kept_args: kept,
            members,
            body,
            chain: None,
            base: None,
            ties: Vec::new(),
        });

        let ctors = (0..blocks.len()).map(|i| Expr::call(&name, arguments.call(i))).collect();
        let params = blocks
            .iter()
            .map(|block| {
                // A state dict has a module's own tensors first.
                let mut own: [Vec<Param>; 3] = Default::default();
                let mut seen: HashSet<&str> = HashSet::new();
                for (item, names) in block.items.iter().zip(&member_names) {
                    for (member, name) in item.members.iter().zip(names) {
                        if seen.insert(name) {
                            let place = match member.kind {
                                MemberKind::Parameter | MemberKind::Base => 0,
                                MemberKind::Buffer | MemberKind::Constant => 1,
                                MemberKind::Module | MemberKind::Row => 2,
                            };
                            own[place].extend(member.params.iter().map(|param| param.below(name)));
                        }
                    }
                }
                own.into_iter().flatten().collect()
            })
            .collect();
        (ctors, params)
    }
}

/// The names of the arguments that `forward` reads, which the module keeps.
fn kept_names(block: &Block, arguments: &Arguments) -> Vec<String> {
    let (mut names, mut at) = (Vec::new(), 0);
    for item in &block.items {
        item.members.iter().for_each(|member| member.ctor.slots(&mut |_| at += 1));
        item.expr.slots(&mut |_| {
            names.extend(arguments.kept(at).map(|(name, _)| name));
            at += 1;
        });
    }
    names
}

/// A layer that is no module of the source is called as its weights are there: `in_proj_weight` is of `in_proj`.
fn weight_name(leaf: &Leaf) -> Option<String> {
    let [member] = leaf.members.as_slice() else { return None };
    let source = member.params.first()?.source.rsplit(['.', '/']).next()?;
    let name = source.strip_suffix("_weight").unwrap_or(source);
    (member.kind == MemberKind::Module && name != "weight" && !name.is_empty()).then(|| name.to_owned())
}

/// The expression without conditions that are the same in all blocks.
fn decided(expr: &Expr) -> Expr {
    expr.rewrite(&mut |e| match e {
        Expr::If(some, test, none) => match test.as_ref() {
            Expr::Slot(Slot { value: Lit::Bool(true), .. }) => Some(decided(some)),
            Expr::Slot(Slot { value: Lit::Bool(false), .. }) => Some(decided(none)),
            _ => None,
        },
        _ => None,
    })
}

/// Arguments in an expression as what the class keeps.
fn own(expr: &Expr) -> Expr {
    expr.rewrite(&mut |e| match e {
        Expr::Name(name) => Some(Expr::name(&format!("self.{name}"))),
        _ => None,
    })
}

/// Most arguments of a class that a reader still follows.
const ARGUMENTS: usize = 6;

/// Blocks of one form that differ in too many things, by what they have in common: kernels, strides and the like.
fn apart(group: Vec<(usize, Block)>) -> Vec<Vec<(usize, Block)>> {
    let all: Vec<Vec<Slot>> = group.iter().map(|(_, block)| slots(block)).collect();
    let arguments_of = |members: &[usize]| match members {
        [] => 0,
        [first, ..] => {
            let slots: Vec<Vec<Slot>> = members.iter().map(|&i| all[i].clone()).collect();
            arguments(&slots, &group[*first].1).declared().len()
        }
    };
    let everyone: Vec<usize> = (0..group.len()).collect();
    let before = arguments_of(&everyone);
    if before <= ARGUMENTS {
        return vec![group];
    }
    let mut parts: IndexMap<Vec<Lit>, Vec<usize>> = IndexMap::new();
    for (index, slots) in all.iter().enumerate() {
        let others = slots.iter().filter(|slot| !is_channels(&slot.role) && slot.role != "groups");
        parts.entry(others.map(|slot| slot.value.clone()).collect()).or_default().push(index);
    }
    let fewer = parts.values().all(|part| arguments_of(part) + 3 <= before);
    if parts.len() > 3 || !fewer {
        return vec![group];
    }
    let mut group: Vec<Option<(usize, Block)>> = group.into_iter().map(Some).collect();
    parts.into_values().map(|part| part.into_iter().filter_map(|index| group[index].take()).collect()).collect()
}

/// Runs of equal modules in a chain become a comprehension.
fn fold_runs(ctor: &Expr, sequential: &str) -> Expr {
    ctor.rewrite(&mut |expr| {
        let Expr::Call(function, args) = expr else { return None };
        if **function != Expr::name(sequential) {
            return None;
        }
        let mut folded: Vec<Arg> = Vec::new();
        let mut index = 0;
        while index < args.len() {
            let run = args[index..].iter().take_while(|arg| **arg == args[index]).count();
            let item = fold_runs(&args[index].value, sequential);
            if run > 2 {
                folded.push(Arg::new(Expr::Repeat(Box::new(item), Box::new(Expr::int("count", run)))));
                index += run;
            } else {
                folded.push(Arg::new(item));
                index += 1;
            }
        }
        Some(Expr::Call(function.clone(), folded))
    })
}
