//! What a module consists of: its members and calls, in a form that can be compared with that of others.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use modelport_ir::Value;

use super::flow::{self, Part};
use super::tree::Reference;
use super::{Made, Planner, is_tensor, series};
use crate::plan::block::Item;
use crate::plan::leaf::{Member, MemberKind, Param};
use crate::python::{Arg, Expr, Lit, Namer, Slot, is_attribute};

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

/// A member of a class.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Kind.
    pub kind: MemberKind,
    /// Its name in the source.
    pub name: String,
    /// What makes it.
    pub ctor: Expr,
    /// Its weights.
    pub params: Vec<Param>,
}

/// A module's members and calls.
#[derive(Clone, Debug)]
pub struct Form {
    /// The module.
    pub module: usize,
    /// What it becomes.
    pub shape: Shape,
    /// Members, in the order of the source.
    pub declared: Vec<Declared>,
    /// Calls in order, each with the members that it is the first to use; the last one has those that none uses.
    pub items: Vec<Item>,
    /// Per item: which members these are.
    pub declared_by: Vec<Vec<usize>>,
    /// Per call: names for its results.
    pub hints: Vec<Vec<String>>,
    /// What enters.
    pub inputs: Vec<Value>,
    /// What leaves.
    pub outputs: Vec<Value>,
    /// Weights that are one.
    pub ties: Vec<(String, String)>,
}

impl Form {
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
        for (index, (item, declared)) in self.items.iter().zip(&self.declared_by).enumerate() {
            for &d in declared {
                let Declared { kind, name, ctor, .. } = &self.declared[d];
                let _ = write!(text, "|{kind:?} {name} {}", blank(ctor));
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
pub fn in_order(members: Vec<(MemberKind, String, Expr)>) -> Vec<(MemberKind, String, Expr)> {
    let (tensors, modules): (Vec<_>, Vec<_>) = members.into_iter().partition(|(kind, _, _)| is_tensor(*kind));
    tensors.into_iter().chain(modules).collect()
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
            declared: Vec::new(),
            items: Vec::new(),
            declared_by: Vec::new(),
            hints: Vec::new(),
            inputs: flow.inputs.clone(),
            outputs: flow.outputs.clone(),
            ties: Vec::new(),
        };
        for tensor in &of.tensors {
            form.declared.push(Declared {
                kind: tensor.kind,
                name: tensor.role.clone(),
                ctor: tensor.ctor.clone(),
                params: tensor.params.clone(),
            });
        }
        let mut places: HashMap<usize, usize> = HashMap::new();
        for &child in of.children.iter().filter(|&&child| self.is_declared(child)) {
            let Some(made) = self.made.get(&child) else { continue };
            places.insert(child, form.declared.len());
            form.declared.push(Declared {
                kind: MemberKind::Module,
                name: self.tree.modules[child].name.clone(),
                ctor: made.ctor.clone(),
                params: made.params.clone(),
            });
        }
        let chain = (module != 0 && form.shape == Shape::Class)
            .then(|| flow::chain(self.tree, self.blocks, module))
            .flatten()
            .filter(|_| form.declared.iter().all(|declared| is_number(&declared.name)));
        if let Some(entries) = chain {
            form.shape = Shape::Chain;
            form.declared = entries
                .iter()
                .zip(self.entries(&entries))
                .enumerate()
                .map(|(index, (child, entry))| Declared {
                    kind: MemberKind::Module,
                    name: index.to_string(),
                    ctor: entry,
                    params: child.and_then(|c| self.made.get(&c)).map(|made| made.params.clone()).unwrap_or_default(),
                })
                .collect();
            self.chain_items(&mut form, &entries, &flow);
            return form;
        }
        let mut namer = Namer::avoiding(form.declared.iter().map(|declared| declared.name.as_str()));
        let mut seen: HashSet<usize> = HashSet::new();
        for &part in &flow.parts {
            self.add_part(&mut form, part, &places, &mut seen, &mut namer);
        }
        let rest: Vec<usize> = (0..form.declared.len()).filter(|index| !seen.contains(index)).collect();
        if !rest.is_empty() {
            let members = rest.iter().map(|&index| member(&form.declared[index])).collect();
            form.items.push(Item::placed("rest", members, Expr::name(""), Vec::new(), Vec::new()));
            form.declared_by.push(rest);
        }
        form.ties = self.ties(module);
        form
    }

    fn chain_items(&self, form: &mut Form, entries: &[Option<usize>], flow: &flow::Block) {
        let mut parts = flow.parts.iter();
        for (index, entry) in entries.iter().enumerate() {
            let part = entry.and_then(|_| parts.next());
            let operands = part.map(|&part| flow::operands(self.tree, self.blocks, part)).unwrap_or_default();
            let results = part.map(|&part| flow::results(self.tree, self.blocks, part)).unwrap_or_default();
            let members = vec![member(&form.declared[index])];
            form.items.push(Item::placed("layer", members, Expr::name(""), operands, results));
            form.declared_by.push(vec![index]);
        }
    }

    fn add_part(
        &self,
        form: &mut Form,
        part: Part,
        places: &HashMap<usize, usize>,
        seen: &mut HashSet<usize>,
        namer: &mut Namer,
    ) {
        let operands = flow::operands(self.tree, self.blocks, part);
        let results = flow::results(self.tree, self.blocks, part);
        let (references, expr, hints, role) = match part {
            Part::Call(index) => {
                let call = &self.tree.calls[index];
                (call.references.clone(), call.expr.clone(), call.hints.clone(), call.role.clone())
            }
            Part::Module(module) => {
                let args = (0..operands.len()).map(|i| Arg::new(Expr::Operand(i))).collect();
                let name = self.tree.modules[module].name.clone();
                let hints = if results.len() == 1 { vec![name.clone()] } else { Vec::new() };
                let expr = Expr::Call(Box::new(Expr::Member(0)), args);
                (vec![Reference::Module(module)], expr, hints, name)
            }
        };
        let mut used = Vec::new();
        let mut names = Vec::new();
        for reference in references {
            match reference {
                Reference::Module(target) => {
                    // The member through which it is reached.
                    let child = self.tree.upwards(target).find(|at| places.contains_key(at));
                    if let Some(&place) = child.and_then(|child| places.get(&child))
                        && seen.insert(place)
                    {
                        used.push(place);
                    }
                    names.push(self.path(form.module, target));
                }
                Reference::Extra(extra) => {
                    let name = namer.take(&extra.role);
                    used.push(form.declared.len());
                    seen.insert(form.declared.len());
                    form.declared.push(Declared {
                        kind: extra.kind,
                        name: name.clone(),
                        ctor: extra.ctor,
                        params: extra.params,
                    });
                    names.push(Expr::name(&format!("self.{name}")));
                }
            }
        }
        // Weights are members, not values.
        let mut values = Vec::new();
        let mut reads = Vec::new();
        for value in &operands {
            let held = self.tree.homes.get(value).filter(|(home, _)| self.tree.is_in(*home, form.module));
            reads.push(match held {
                Some((home, key)) => {
                    let member = form.declared.iter().position(|d| *home == form.module && d.name == *key);
                    let child = self.tree.upwards(*home).find_map(|at| places.get(&at).copied());
                    if let Some(place) = member.or(child)
                        && seen.insert(place)
                    {
                        used.push(place);
                    }
                    attribute(self.path(form.module, *home), key)
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
        let members = used.iter().map(|&index| member(&form.declared[index])).collect();
        form.items.push(Item::placed(&role, members, expr, values, results));
        form.declared_by.push(used);
        form.hints.push(hints);
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
            let common = self.tree.upwards(*tied).find(|&at| self.tree.is_in(holder, at)).unwrap_or(0);
            let class = self
                .tree
                .upwards(common)
                .find(|&at| at == 0 || (self.tree.is_called(at) && !self.tree.modules[at].is_chain));
            if class == Some(module) {
                let to = attribute(self.path(module, *tied), key).to_string();
                ties.push((to, attribute(self.path(module, holder), name).to_string()));
            }
        }
        ties
    }
}

fn member(declared: &Declared) -> Member {
    Member {
        kind: declared.kind,
        role: declared.name.clone(),
        ctor: declared.ctor.clone(),
        params: declared.params.clone(),
    }
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
