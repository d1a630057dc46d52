//! What a module consists of: its members and calls, in a form that can be compared with that of others.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use modelport_ir::Value;

use super::flow::{self, Part};
use super::tree::{Layer, Reference};
use super::{Made, Planner, is_tensor, series};
use crate::plan::block::Block;
use crate::plan::block::Item;
use crate::plan::leaf::{Member, MemberKind, ModuleForm, Param};
use crate::python::{Arg, Expr, Lit, Namer, Slot, is_attribute};

/// The item of members that no call uses.
pub const REST: &str = "rest";

/// What kind of class a module becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A class with a `forward`.
    Class,
    /// A subclass of the container of chains.
    Chain,
    /// A class that only holds modules, which others call.
    Holder,
}

/// A module's members and calls.
#[derive(Clone, Debug)]
pub struct Form {
    /// The module.
    pub module: usize,
    /// What it becomes.
    pub shape: Shape,
    /// Calls in order, each with the members that it is the first to use; the last one has those that none uses.
    pub items: Vec<Item>,
    /// What enters.
    pub inputs: Vec<Value>,
    /// What leaves.
    pub outputs: Vec<Value>,
    /// Weights that are one.
    pub ties: Vec<(String, String)>,
    /// Which of what enters are lists of tensors.
    pub lists: HashSet<Value>,
    /// What `inputs` are for those who call it.
    pub operands: Vec<Value>,
}

impl Form {
    /// Its calls as a block.
    pub fn block(&self) -> Block {
        let (items, inputs, outputs) = (self.items.clone(), self.inputs.clone(), self.outputs.clone());
        Block { items, operands: self.operands.clone(), results: outputs.clone(), inputs, outputs }
    }

    /// Whether it may be joined with others that differ in a few calls.
    pub fn is_plain(&self) -> bool {
        let looped = |item: &Item| item.role == REST || matches!(item.expr, Expr::For(_));
        let plain = self.shape == Shape::Class && self.module != 0 && self.ties.is_empty() && self.lists.is_empty();
        plain && !self.items.iter().any(looped)
    }

    /// Its calls, with what each is as a module where it can be left out: one that is called once, with one value.
    pub fn open_block(&self) -> Block {
        let mut block = self.block();
        let calls: Vec<String> = block.items.iter().map(|item| item.expr.to_string()).collect();
        for item in &mut block.items {
            let ([member], Expr::Call(module, args)) = (item.members.as_slice(), &item.expr) else { continue };
            let name = format!("self.{}", member.role);
            let called = member.kind == MemberKind::Module
                && module.to_string() == name
                && matches!(args.as_slice(), [Arg { value: Expr::Operand(0), .. }])
                && calls.iter().map(|call| call.matches(&name).count()).sum::<usize>() == 1;
            if called {
                item.modules = Some(vec![ModuleForm { ctor: member.ctor.clone(), params: member.params.clone() }]);
            }
        }
        block
    }

    /// All literals, in order.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for item in &self.items {
            for member in &item.members {
                member.ctor.slots(&mut |slot| slots.push(slot.clone()));
            }
            item.expr.slots(&mut |slot| slots.push(slot.clone()));
        }
        slots
    }

    /// Equal for forms that are one class but for literals.
    pub fn signature(&self) -> String {
        let mut wires: HashMap<Value, String> =
            self.inputs.iter().enumerate().map(|(i, value)| (*value, format!("i{i}"))).collect();
        let blank = |expr: &Expr| expr.map_slots(&mut |_| Expr::name("#")).to_string();
        let mut text = format!("{:?} {:?}", self.shape, self.ties);
        for (index, item) in self.items.iter().enumerate() {
            for Member { kind, role, ctor, .. } in &item.members {
                let _ = write!(text, "|{kind:?} {role} {}", blank(ctor));
            }
            let _ = write!(text, "|{}", blank(&item.expr));
            for operand in &item.operands {
                let _ = write!(text, " {}", wires.get(operand).map_or("?", String::as_str));
            }
            for (output, value) in item.results.iter().enumerate() {
                wires.insert(*value, format!("{index}.{output}"));
            }
        }
        for output in &self.outputs {
            let _ = write!(text, "> {} ", wires.get(output).map_or("?", String::as_str));
        }
        text
    }
}

/// Weights first, then modules, as `nn.Module` registers them.
pub fn in_order<T>(members: Vec<(MemberKind, T)>) -> impl Iterator<Item = (MemberKind, T)> {
    let (tensors, modules): (Vec<_>, Vec<_>) = members.into_iter().partition(|(kind, _)| is_tensor(*kind));
    tensors.into_iter().chain(modules)
}

impl Planner<'_> {
    /// Containers that need no class of their own.
    pub(super) fn container(&self, module: usize) -> Option<Made> {
        let of = &self.tree.modules[module];
        if module == 0 {
            return None;
        }
        let children: Vec<usize> = of.children.iter().copied().filter(|&child| self.is_declared(child)).collect();
        let made = |child: usize| self.made.get(&child);
        let below = |child: usize| {
            let name = &self.tree.modules[child].name;
            made(child).into_iter().flat_map(move |made| made.params.iter().map(move |param| param.below(name)))
        };
        let params: Vec<Param> = children.iter().flat_map(|&child| below(child)).collect();
        if !of.open {
            if !of.is_chain {
                return None;
            }
            let entries = flow::chain(self.tree, self.blocks, module)?;
            let numbered = children.iter().all(|&child| is_number(&self.tree.modules[child].name));
            let ctor = if numbered {
                Expr::call(self.sequential, series::folded(&self.entries(&entries)))
            } else {
                let named: Vec<_> = entries.iter().flatten().filter_map(|&child| self.named(child)).collect();
                let dict = Expr::call("OrderedDict", vec![Arg::new(Expr::List(series::pairs(&named)))]);
                Expr::call(self.sequential, vec![Arg::new(dict)])
            };
            return Some(Made { ctor, params });
        }
        if !of.tensors.is_empty() {
            if !children.is_empty() || !of.tensors.iter().all(|tensor| is_number(&tensor.role)) {
                return None;
            }
            let mut tensors: Vec<&Member> = of.tensors.iter().collect();
            tensors.sort_by_key(|tensor| tensor.role.parse::<usize>().unwrap_or(0));
            let in_row = tensors.iter().enumerate().all(|(i, tensor)| tensor.role == i.to_string());
            let params = tensors.iter().flat_map(|t| t.params.iter().map(|param| param.below(&t.role))).collect();
            let entries = tensors.iter().map(|tensor| tensor.ctor.clone()).collect();
            let ctor = Expr::call("nn.ParameterList", vec![Arg::new(Expr::List(entries))]);
            return in_row.then_some(Made { ctor, params });
        }
        if children.iter().all(|&child| is_number(&self.tree.modules[child].name)) {
            let numbers = children.iter().filter_map(|&child| self.tree.modules[child].name.parse::<usize>().ok());
            let last = numbers.max().filter(|&last| last <= 4 * children.len() + 64)?;
            let mut entries = vec![None; last + 1];
            for &child in &children {
                if let Ok(number) = self.tree.modules[child].name.parse::<usize>() {
                    entries[number] = Some(child);
                }
            }
            let entries = series::folded(&self.entries(&entries));
            let ctor = if of.class == "Sequential" {
                Expr::call(self.sequential, entries)
            } else {
                Expr::call("nn.ModuleList", vec![Arg::new(Expr::List(entries.into_iter().map(|e| e.value).collect()))])
            };
            return Some(Made { ctor, params });
        }
        if matches!(of.class.as_str(), "ModuleDict" | "") {
            let legal = children.iter().all(|&child| is_attribute(&self.tree.modules[child].name));
            let content = if legal {
                let arg = |&child: &usize| {
                    Some(Arg::keyword(&self.tree.modules[child].name, made(child)?.ctor.clone(), None))
                };
                Expr::call("dict", children.iter().filter_map(arg).collect())
            } else {
                Expr::List(series::pairs(&children.iter().filter_map(|&child| self.named(child)).collect::<Vec<_>>()))
            };
            return Some(Made { ctor: Expr::call("nn.ModuleDict", vec![Arg::new(content)]), params });
        }
        None
    }

    fn named(&self, child: usize) -> Option<(String, Expr)> {
        Some((self.tree.modules[child].name.clone(), self.made.get(&child)?.ctor.clone()))
    }

    /// Entries of a chain; what is left of nothing keeps the others' numbers.
    fn entries(&self, entries: &[Option<usize>]) -> Vec<Expr> {
        let ctor = |entry: &Option<usize>| {
            let made = entry.and_then(|child| self.made.get(&child));
            made.map_or_else(|| Expr::call("nn.Identity", Vec::new()), |made| made.ctor.clone())
        };
        entries.iter().map(ctor).collect()
    }

    /// What a module consists of.
    pub(super) fn form(&self, module: usize) -> Form {
        let of = &self.tree.modules[module];
        let flow = self.blocks.get(&module).cloned().unwrap_or_default();
        let mut form = Form {
            module,
            shape: if of.open && module != 0 { Shape::Holder } else { Shape::Class },
            items: Vec::new(),
            inputs: flow.inputs.clone(),
            outputs: flow.outputs.clone(),
            ties: Vec::new(),
            lists: HashSet::new(),
            operands: flow.inputs.clone(),
        };
        // Members by their names in the source.
        let mut declared: Vec<Member> = of.base.iter().map(base_member).chain(of.tensors.iter().cloned()).collect();
        let mut places: HashMap<usize, usize> = HashMap::new();
        for &child in of.children.iter().filter(|&&child| self.is_declared(child)) {
            let Some(made) = self.made.get(&child) else { continue };
            places.insert(child, declared.len());
            declared.push(module_member(&self.tree.modules[child].name, made.clone()));
        }
        let chain = (module != 0 && form.shape == Shape::Class)
            .then(|| flow::chain(self.tree, self.blocks, module))
            .flatten()
            .filter(|_| declared.iter().all(|member| is_number(&member.role)));
        if let Some(entries) = chain {
            form.shape = Shape::Chain;
            form.items = self.chain_items(&entries, &flow);
            return form;
        }
        let namer = Namer::avoiding(declared.iter().map(|member| member.role.as_str()));
        let mut parts = Parts { module, places, seen: HashSet::new(), declared, namer };
        form.items = flow.parts.iter().map(|&part| self.part(&mut parts, part)).collect();
        let rest: Vec<Member> = (0..parts.declared.len())
            .filter(|index| !parts.seen.contains(index))
            .map(|index| parts.declared[index].clone())
            .collect();
        if !rest.is_empty() {
            form.items.push(Item::placed(REST, rest, Expr::name(""), Vec::new(), Vec::new()));
        }
        form.ties = self.ties(module);
        form
    }

    fn chain_items(&self, entries: &[Option<usize>], flow: &flow::Block) -> Vec<Item> {
        let mut parts = flow.parts.iter();
        let item = |(index, (entry, ctor)): (usize, (&Option<usize>, Expr))| {
            let part = entry.and_then(|_| parts.next());
            let operands = part.map(|&part| flow::operands(self.tree, self.blocks, part)).unwrap_or_default();
            let results = part.map(|&part| flow::results(self.tree, self.blocks, part)).unwrap_or_default();
            let params = entry.and_then(|c| self.made.get(&c)).map(|made| made.params.clone()).unwrap_or_default();
            let member = module_member(&index.to_string(), Made { ctor, params });
            Item::placed("layer", vec![member], Expr::name(""), operands, results)
        };
        entries.iter().zip(self.entries(entries)).enumerate().map(item).collect()
    }

    fn part(&self, of: &mut Parts, part: Part) -> Item {
        let operands = match part {
            Part::Module(module) if self.inputs.contains_key(&module) => self.inputs[&module].clone(),
            _ => flow::operands(self.tree, self.blocks, part),
        };
        let results = flow::results(self.tree, self.blocks, part);
        let (references, expr, hints, role) = match part {
            Part::Call(index) => {
                let call = &self.tree.calls[index];
                (call.references.clone(), call.expr.clone(), call.hints.clone(), call.role.clone())
            }
            Part::Module(module) => {
                let name = self.tree.modules[module].name.clone();
                let hints = match results.len() {
                    1 => vec![name.clone()],
                    _ => self.results.get(&module).cloned().unwrap_or_default(),
                };
                (vec![Reference::Module(module)], self.call(module, operands.len()), hints, name)
            }
        };
        let mut used = Vec::new();
        let mut names = Vec::new();
        for reference in references {
            match reference {
                Reference::Module(target) => {
                    // The member through which it is reached.
                    let child = self.tree.upwards(target).find(|at| of.places.contains_key(at));
                    used.extend(
                        child.and_then(|child| of.places.get(&child)).copied().filter(|&at| of.seen.insert(at)),
                    );
                    names.push(self.path(of.module, target));
                }
                Reference::Base => {
                    // The first of the members.
                    used.extend(Some(0).filter(|&at| of.seen.insert(at)));
                    names.push(Expr::name("super().forward"));
                }
                Reference::Extra(extra) => {
                    let name = of.namer.take(&extra.role);
                    used.push(of.declared.len());
                    of.seen.insert(of.declared.len());
                    of.declared.push(Member { role: name.clone(), ..extra });
                    names.push(Expr::name(&format!("self.{name}")));
                }
            }
        }
        // Weights are members, not values.
        let mut values = Vec::new();
        let mut reads = Vec::new();
        for value in &operands {
            let held = self.tree.homes.get(value).filter(|(home, _)| self.tree.is_in(*home, of.module));
            reads.push(match held {
                Some((home, key)) => {
                    let member = of.declared.iter().position(|member| *home == of.module && member.role == *key);
                    let child = self.tree.upwards(*home).find_map(|at| of.places.get(&at).copied());
                    used.extend(member.or(child).filter(|&place| of.seen.insert(place)));
                    attribute(self.path(of.module, *home), key)
                }
                None => {
                    values.push(*value);
                    Expr::Operand(values.len() - 1)
                }
            });
        }
        let expr = expr.rewrite(&mut |e| match e {
            Expr::Member(index) => names.get(*index).cloned(),
            Expr::Operand(index) => reads.get(*index).cloned(),
            _ => None,
        });
        let members = used.iter().map(|&index| of.declared[index].clone()).collect();
        Item { hints, ..Item::placed(&role, members, expr, values, results) }
    }

    /// A call of a module as a whole, some of its operands together as a list.
    fn call(&self, module: usize, operands: usize) -> Expr {
        let (start, length) = self.lists.get(&module).copied().unwrap_or_default();
        let mut args: Vec<Arg> = (0..operands).map(|i| Arg::new(Expr::Operand(i))).collect();
        if length > 0 {
            let list: Vec<Arg> = args.drain(start..start + length).collect();
            args.insert(start, Arg::new(Expr::List(list.into_iter().map(|arg| arg.value).collect())));
        }
        Expr::Call(Box::new(Expr::Member(0)), args)
    }

    /// How the class of `from` reaches a module in it.
    fn path(&self, from: usize, to: usize) -> Expr {
        let mut way: Vec<usize> = self.tree.upwards(to).take_while(|&at| at != from).collect();
        way.reverse();
        let mut expr = Expr::name("self");
        for at in way {
            let name = &self.tree.modules[at].name;
            let parent = self.tree.modules[at].parent;
            // Containers with numbers are lists.
            let listed = parent.is_some_and(|parent| {
                let of = &self.tree.modules[parent];
                parent != from
                    && of.tensors.is_empty()
                    && of.children.iter().all(|&c| !self.is_declared(c) || is_number(&self.tree.modules[c].name))
            });
            expr = match listed && is_number(name) {
                true => expr.index(vec![Expr::name(name)]),
                false => attribute(expr, name),
            };
        }
        expr
    }

    /// The weights in this class that are one, where no class inside it has both.
    fn ties(&self, module: usize) -> Vec<(String, String)> {
        let mut ties = Vec::new();
        for (tied, key, source) in &self.tree.ties {
            let (path, name) = source.rsplit_once('.').unwrap_or(("", source));
            let Some(holder) = self.tree.modules.iter().position(|module| module.path == path) else { continue };
            if self.around(*tied, holder) == module {
                let to = attribute(self.path(module, *tied), key).to_string();
                ties.push((to, attribute(self.path(module, holder), name).to_string()));
            }
        }
        for &(alias, of) in self.tree.aliases.iter().filter(|&&(alias, of)| self.around(alias, of) == module) {
            ties.push((self.path(module, alias).to_string(), self.path(module, of).to_string()));
        }
        ties
    }

    /// The innermost module with a class of its own that has both.
    pub(super) fn around(&self, one: usize, other: usize) -> usize {
        let tree = self.tree;
        let mut both = tree.upwards(one).filter(|&at| tree.is_in(other, at) && at != one && at != other);
        both.find(|&at| at == 0 || (tree.is_called(at) && !tree.modules[at].is_chain)).unwrap_or(0)
    }

    /// The weights of a module's aliases, with keys below it.
    pub(super) fn aliased(&self, module: usize) -> Vec<Param> {
        let key = |at: usize| below(&self.tree.modules[at].path, &self.tree.modules[module].path);
        let mut params = Vec::new();
        for &(alias, of) in self.tree.aliases.iter().filter(|&&(alias, of)| self.around(alias, of) == module) {
            let made = self.made.get(&of).into_iter().flat_map(|made| &made.params);
            params.extend(made.map(|param| param.below(key(alias))));
        }
        params
    }
}

/// Members of a module while its parts are taken one by one.
struct Parts {
    module: usize,
    /// Where in `declared` its children are.
    places: HashMap<usize, usize>,
    /// Members that a part has used.
    seen: HashSet<usize>,
    declared: Vec<Member>,
    namer: Namer,
}

fn base_member(layer: &Layer) -> Member {
    Member { kind: MemberKind::Base, role: String::new(), ctor: layer.ctor.clone(), params: layer.params.clone() }
}

fn module_member(name: &str, made: Made) -> Member {
    Member { kind: MemberKind::Module, role: name.to_owned(), ctor: made.ctor, params: made.params }
}

/// A path as seen from a module.
fn below<'a>(path: &'a str, module: &str) -> &'a str {
    path.strip_prefix(module).unwrap_or(path).trim_start_matches('.')
}

fn is_number(name: &str) -> bool {
    name.parse::<usize>().is_ok_and(|number| number.to_string() == name)
}

fn attribute(expr: Expr, name: &str) -> Expr {
    if is_attribute(name) {
        return Expr::Attr(Box::new(expr), name.to_owned());
    }
    let name = Expr::name(&Lit::Str(name.to_owned()).to_string());
    Expr::call("getattr", vec![Arg::new(expr), Arg::new(name)])
}
