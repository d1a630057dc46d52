//! Forms that differ in a few steps share a class: `downsample=None`.
//!
//! Two forms are walked from their outputs, both at once. Where one has a step with a single operand that the other
//! lacks, the step is optional (the identity stands in its place); where they have different ones, the module is given
//! by whoever makes the block; an addition that one lacks is optional too, as residuals are. What is left must be equal.

use std::collections::{BTreeSet, HashMap};

use modelport_ir::{Graph, NodeId, Value};

use super::arguments::{TEST, is_channels};
use super::block::{Block, Item, form, is_layers};
use super::forward;
use super::leaf::{Member, MemberKind, ModuleForm};
use super::words::{common_name, is_number};
use crate::python::{Arg, Expr, Lit, Slot};

/// Most pairs of values that are tried for two forms.
const BUDGET: usize = 4000;

/// Lines of a class, beside those of its members.
const CLASS: usize = 9;
/// A module that is given to a block may be so long.
const LINE: usize = 70;

/// Regions of one form, with their blocks.
pub type Group = Vec<(usize, Block)>;

/// What unifying must know.
pub struct Context<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The container of a chain of modules.
    pub sequential: &'static str,
    /// The module that gives back what it gets; none where members keep the source's names, and what is missing is
    /// `None`.
    pub identity: Option<&'static str>,
    /// Whether classes become functions, to which no module can be given.
    pub functional: bool,
    /// Whether functions and layers keep the source's names to the letter.
    pub exact: bool,
    /// Where a region will be written: regions of one place are one text.
    pub place: &'a dyn Fn(usize) -> (String, usize),
}

/// Merges groups whose forms differ in a few steps. `chains` says which are chains of modules, that need no class.
pub fn unify(groups: Vec<Group>, chains: &[bool], context: &Context<'_>) -> Vec<Group> {
    let mut forms: Vec<(Form, bool)> =
        groups.iter().zip(chains).map(|(group, &chain)| (Form::new(group, context), chain)).collect();
    let mut merged: Vec<Vec<usize>> = (0..groups.len()).map(|i| vec![i]).collect();
    let mut at = 0;
    while at < forms.len() {
        let partner = (at + 1..forms.len()).find_map(|other| {
            let (left, right) = (&forms[at], &forms[other]);
            let form = if left.1 && right.1 { None } else { Form::merge(&left.0, &right.0, context) };
            form.map(|form| (other, form))
        });
        match partner {
            Some((other, form)) => {
                forms[at] = (form, false);
                forms.remove(other);
                let more = merged.remove(other);
                merged[at].extend(more);
            }
            None => at += 1,
        }
    }
    let mut groups: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    forms
        .into_iter()
        .zip(merged)
        .map(|((form, _), from)| match from.as_slice() {
            [one] => groups[*one].take().unwrap_or_default(),
            _ => form.blocks(context),
        })
        .collect()
}

/// A value inside a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wire {
    Input(usize),
    Result(usize, usize),
}

/// A value of a merged form: what it is on either side.
type Pair = (Wire, Wire);

/// A call, in all blocks of a form.
#[derive(Clone)]
struct Step {
    operands: Vec<Wire>,
    results: usize,
    /// What it is, in the blocks that have it.
    forms: BTreeSet<String>,
    /// Some blocks lack it: there this operand takes the place of its result.
    through: Option<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Can be a module of one operand.
    Module,
    /// A sum of two values.
    Sum,
    Other,
}

struct Form {
    steps: Vec<Step>,
    inputs: usize,
    outputs: Vec<Wire>,
    uses: Vec<Use>,
    layers: bool,
}

/// One block of a form.
#[derive(Clone)]
struct Use {
    region: usize,
    items: Vec<Option<Item>>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

impl Form {
    fn new(group: &Group, context: &Context<'_>) -> Form {
        let block = &group[0].1;
        let mut wires: HashMap<Value, Wire> =
            block.inputs.iter().enumerate().map(|(i, value)| (*value, Wire::Input(i))).collect();
        let layers = context.identity.is_some() && is_layers(block);
        let mut steps = Vec::with_capacity(block.items.len());
        for (index, item) in block.items.iter().enumerate() {
            steps.push(Step {
                operands: item.operands.iter().filter_map(|value| wires.get(value).copied()).collect(),
                results: item.results.len(),
                forms: BTreeSet::from([match context.identity {
                    Some(_) => form(item, context.sequential, context.exact),
                    None => named_form(item),
                }]),
                through: None,
                kind: kind(item, layers, context.functional),
            });
            wires.extend(item.results.iter().enumerate().map(|(i, value)| (*value, Wire::Result(index, i))));
        }
        let uses = group.iter().map(|(region, block)| Use {
            region: *region,
            items: block.items.iter().cloned().map(Some).collect(),
            inputs: block.operands.clone(),
            outputs: block.results.clone(),
        });
        let outputs = block.outputs.iter().filter_map(|value| wires.get(value).copied()).collect();
        Form { steps, inputs: block.inputs.len(), outputs, uses: uses.collect(), layers }
    }

    /// Steps that not all blocks have alike.
    fn holes(&self) -> usize {
        self.steps.iter().filter(|step| step.is_hole()).count()
    }

    fn merge(left: &Form, right: &Form, context: &Context<'_>) -> Option<Form> {
        let comparable = (left.layers == right.layers || context.functional)
            && left.outputs.len() == right.outputs.len()
            && left.steps.len().abs_diff(right.steps.len()) <= 3
            && !left.ties_weights()
            && !right.ties_weights();
        if !comparable {
            return None;
        }
        let steps = left.steps.len().max(right.steps.len());
        let most = match steps {
            _ if left.layers && right.layers && !context.functional => 1,
            4.. if context.functional => 3,
            0..=2 => 1,
            3..=6 => 2,
            _ => 3,
        };
        (0..=most).find_map(|holes| {
            let mut search = Search::new(left, right, holes, context);
            let outputs: Vec<Pair> = left.outputs.iter().copied().zip(right.outputs.iter().copied()).collect();
            let found = outputs.iter().all(|&pair| search.pair(pair))
                && search.used.iter().all(|side| side.iter().all(|&used| used))
                && search.inputs.len() <= left.inputs.max(right.inputs);
            let form = (found && search.agrees(context.exact)).then(|| search.form(&outputs))?;
            let fixed =
                form.steps.iter().any(|step| !step.is_hole()) && !(context.identity.is_none() && form.names_twice());
            (form.holes() <= most && fixed && form.is_shorter(left, right, context)).then_some(form)
        })
    }

    /// Whether one class for all blocks is shorter than two, though modules are given to each block.
    fn is_shorter(&self, left: &Form, right: &Form, context: &Context<'_>) -> bool {
        let class = CLASS + left.members().min(right.members());
        let open: Vec<usize> = (0..self.steps.len()).filter(|&index| self.is_given(index)).collect();
        if context.functional && (!open.is_empty() || self.exchanges()) {
            return false;
        }
        let mut given = 0;
        let mut places = BTreeSet::new();
        for block in &self.uses {
            let items = open.iter().filter_map(|&index| block.items[index].as_ref());
            let modules = items.map(|item| item.modules.as_deref().unwrap_or_default());
            let mut lengths = Vec::new();
            for module in modules.flatten() {
                let text = module.ctor.to_string();
                if text.starts_with(context.sequential) {
                    return false;
                }
                lengths.push(text.len());
            }
            if places.insert((context.place)(block.region)) && lengths.iter().sum::<usize>() > LINE {
                given += 1 + lengths.len();
            }
        }
        given < class
    }

    /// Whether one of two optional steps in a row is there in each block, but never both: that is one step of two kinds.
    fn exchanges(&self) -> bool {
        let is_optional = |index: usize| self.steps[index].through.is_some();
        let has = |block: &Use, index: usize| block.items[index].is_some();
        (0..self.steps.len()).filter(|&index| is_optional(index)).any(|index| {
            let sources = self.steps[index].operands.iter().filter_map(|wire| match wire {
                Wire::Result(source, _) if is_optional(*source) => Some(*source),
                _ => None,
            });
            sources.into_iter().any(|source| !self.uses.iter().any(|block| has(block, index) && has(block, source)))
        })
    }

    /// Whether the module of a step is given to a block by whoever makes it: where there are several, and where there
    /// is one whose arguments are its own.
    fn is_given(&self, index: usize) -> bool {
        let step = &self.steps[index];
        if step.kind != Kind::Module || !step.is_hole() {
            return false;
        }
        if step.forms.len() > 1 {
            return true;
        }
        let present: Vec<usize> = (0..self.uses.len()).filter(|&i| self.uses[i].items[index].is_some()).collect();
        let columns = |index: usize| -> Vec<(String, Vec<Lit>)> {
            let mut columns: Vec<(String, Vec<Lit>)> = Vec::new();
            for &block in &present {
                let mut slots = Vec::new();
                if let Some(item) = &self.uses[block].items[index] {
                    match item.modules.as_deref() {
                        Some(modules) => {
                            modules.iter().for_each(|module| module.ctor.slots(&mut |slot| slots.push(slot.clone())))
                        }
                        None => item
                            .members
                            .iter()
                            .for_each(|member| member.ctor.slots(&mut |slot| slots.push(slot.clone()))),
                    }
                }
                columns.resize(slots.len().max(columns.len()), (String::new(), Vec::new()));
                for (column, slot) in columns.iter_mut().zip(slots) {
                    column.0 = slot.role;
                    column.1.push(slot.value);
                }
            }
            columns
        };
        let fixed = (0..self.steps.len()).filter(|&other| other != index && !self.is_open_hole(other));
        let known: Vec<Vec<Lit>> = fixed.flat_map(columns).map(|(_, values)| values).collect();
        let own = columns(index).into_iter().filter(|(role, values)| {
            let varies = values.iter().any(|value| *value != values[0]);
            varies && !is_channels(role) && role != "groups" && !known.contains(values)
        });
        own.count() > 1
    }

    fn is_open_hole(&self, index: usize) -> bool {
        self.steps[index].forms.len() > 1
    }

    /// The name of what a step calls.
    fn member(&self, step: usize) -> Option<&str> {
        let item = self.uses.iter().find_map(|block| block.items[step].as_ref())?;
        item.members.first().map(|member| member.role.as_str())
    }

    /// Whether two steps are members of one name.
    fn names_twice(&self) -> bool {
        let mut names = BTreeSet::new();
        (0..self.steps.len()).filter_map(|step| self.member(step)).any(|name| !names.insert(name))
    }

    /// Steps with members.
    fn members(&self) -> usize {
        let items = self.uses.first().map_or(&[] as &[Option<Item>], |block| &block.items);
        items.iter().flatten().filter(|item| !item.members.is_empty()).count()
    }

    /// Whether calls of a block have weights in common.
    fn ties_weights(&self) -> bool {
        let items = self.uses.first().map_or(&[] as &[Option<Item>], |block| &block.items);
        let keys: Vec<&String> = items.iter().flatten().filter_map(|item| item.shared.as_ref()).collect();
        keys.iter().collect::<BTreeSet<_>>().len() < keys.len()
    }

    /// The blocks, all of one signature.
    fn blocks(&self, context: &Context<'_>) -> Group {
        let value = |wire: Wire| match wire {
            Wire::Input(i) => Value { node: NodeId::new(usize::from(u16::MAX) + i), output: 0 },
            Wire::Result(step, output) => Value { node: NodeId::new(step), output },
        };
        let outputs: Vec<Value> = self.outputs.iter().copied().map(value).collect();
        let wires: Vec<(Vec<Value>, Vec<Value>)> = self
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| {
                let results = (0..step.results).map(|output| value(Wire::Result(index, output))).collect();
                (step.operands.iter().copied().map(value).collect(), results)
            })
            .collect();
        let order = forward::order(&wires, &outputs);
        let mut inputs: Vec<usize> = Vec::new();
        for wire in order.iter().flat_map(|&index| &self.steps[index].operands) {
            if let Wire::Input(i) = wire
                && !inputs.contains(i)
            {
                inputs.push(*i);
            }
        }
        let block = |block: &Use| Block {
            items: order
                .iter()
                .map(|&index| {
                    let (operands, results) = wires[index].clone();
                    Item { operands, results, ..self.item(index, block, context) }
                })
                .collect(),
            inputs: inputs.iter().map(|&i| value(Wire::Input(i))).collect(),
            outputs: outputs.clone(),
            operands: inputs.iter().map(|&i| block.inputs[i]).collect(),
            results: block.outputs.clone(),
        };
        self.uses.iter().map(|each| (each.region, block(each))).collect()
    }

    /// A step in one block, in the form that it has in all.
    fn item(&self, index: usize, block: &Use, context: &Context<'_>) -> Item {
        let step = &self.steps[index];
        let own = block.items[index].as_ref();
        let present = || self.uses.iter().filter_map(|block| block.items[index].as_ref());
        let named = present().find(|item| item.name.is_some());
        let Some(model) = own.or(named).or_else(|| present().next()) else {
            return Item::nothing();
        };
        let mut item = model.clone();
        if let (None, true) = (context.identity, step.kind == Kind::Module && step.is_hole()) {
            return self.named_item(index, block, item, context);
        }
        if own.is_none() {
            item.hints = present().next().map(|item| item.hints.clone()).unwrap_or_default();
        }
        if !step.is_hole() {
            return item;
        }
        item.name = named.and_then(|item| item.name.clone());
        let name = self.hole_name(index, &item);
        let test = || Box::new(Expr::slot(&format!("{TEST}{name}"), Lit::Bool(own.is_some())));
        // A function is told the sizes of what is there.
        let open = |expr: &Expr, channels: Option<usize>| {
            expr.map_slots(&mut |slot| match (own, channels) {
                (Some(_), _) => Expr::Slot(slot.clone()),
                (None, Some(size)) if is_channels(&slot.role) => Expr::int(&slot.role, size),
                (None, _) => Expr::Slot(Slot { value: Lit::Any, role: slot.role.clone() }),
            })
        };
        if step.kind == Kind::Sum {
            let through = Expr::Operand(step.through.unwrap_or(0));
            item.expr = Expr::If(Box::new(open(&item.expr, None)), test(), Box::new(through));
            return item;
        }
        let Some(module) = item.modules.as_deref().map(|modules| chain(modules, context.sequential)) else {
            return item;
        };
        let composite = item.members.first().is_some_and(|member| member.role == "block");
        let identity = || Expr::call(context.identity.unwrap_or_default(), Vec::new());
        let ctor = if !self.is_given(index) {
            let first = step.operands.first().filter(|_| !context.functional);
            let channels = first.and_then(|wire| self.channels(*wire, block, context.graph));
            Expr::If(Box::new(open(&module.ctor, channels)), test(), Box::new(identity()))
        } else {
            let value = own.map_or(Lit::None, |_| Lit::Module(Box::new(module.ctor)));
            Expr::slot(&name, value)
        };
        let params = if own.is_some() { module.params } else { Vec::new() };
        let role = if composite { "block".to_owned() } else { name.clone() };
        item.members = vec![Member { kind: MemberKind::Module, role, ctor, params }];
        item.expr = Expr::Call(Box::new(Expr::Member(0)), vec![Arg::new(Expr::Operand(0))]);
        item.role = name;
        item.modules = None;
        item
    }

    /// A module that has its name in all blocks, and is missing in some or another one.
    fn named_item(&self, index: usize, block: &Use, mut item: Item, context: &Context<'_>) -> Item {
        let step = &self.steps[index];
        let own = block.items[index].is_some();
        let Some(member) = item.members.first_mut() else { return item };
        member.ctor = if self.is_given(index) {
            let ctor = std::mem::replace(&mut member.ctor, Expr::name("None"));
            Expr::slot(&member.role, if own { Lit::Module(Box::new(ctor)) } else { Lit::None })
        } else {
            let channels = step.operands.first().and_then(|wire| self.channels(*wire, block, context.graph));
            let ctor = member.ctor.map_slots(&mut |slot| match channels {
                _ if own => Expr::Slot(slot.clone()),
                Some(size) if is_channels(&slot.role) => Expr::int(&slot.role, size),
                _ => Expr::Slot(Slot { value: Lit::Any, role: slot.role.clone() }),
            });
            let test = Expr::slot(&format!("{TEST}{}", member.role), Lit::Bool(own));
            Expr::If(Box::new(ctor), Box::new(test), Box::new(Expr::name("None")))
        };
        if !own {
            member.params = Vec::new();
        }
        if let (Some(through), Expr::Call(module, _)) = (step.through, &item.expr) {
            let missing = Expr::name(&format!("{module} is None"));
            item.expr = Expr::If(Box::new(Expr::Operand(through)), Box::new(missing), Box::new(item.expr.clone()));
        }
        item
    }

    /// What an optional step is called: by its source, or by where it stands.
    fn hole_name(&self, index: usize, item: &Item) -> String {
        let step = &self.steps[index];
        let summed = self.steps.iter().any(|s| s.kind == Kind::Sum && s.operands.contains(&Wire::Result(index, 0)));
        match (&item.name, item.role.as_str()) {
            _ if step.kind == Kind::Sum => "residual".to_owned(),
            (Some(name), _) if is_number(name) => item.word(),
            (Some(name), _) => crate::python::snake_case(name),
            _ if summed && matches!(step.operands.first(), Some(Wire::Input(_))) => "shortcut".to_owned(),
            (None, "padded") => "pad".to_owned(),
            (None, role) => role.to_owned(),
        }
    }

    /// How many channels a value has in one block.
    fn channels(&self, wire: Wire, block: &Use, graph: &Graph) -> Option<usize> {
        let value = match wire {
            Wire::Input(i) => *block.inputs.get(i)?,
            Wire::Result(step, output) => match block.items.get(step)?.as_ref() {
                Some(item) => *item.results.get(output)?,
                None => {
                    let through = self.steps[step].through?;
                    return self.channels(*self.steps[step].operands.get(through)?, block, graph);
                }
            },
        };
        let shape = graph.shape(value);
        shape.get(1).and_then(modelport_ir::Dim::known)
    }
}

impl Step {
    fn is_hole(&self) -> bool {
        self.through.is_some() || self.forms.len() > 1
    }

    /// Whether it may be missing, or be another module.
    fn is_open(&self) -> bool {
        self.kind == Kind::Module && self.results == 1 && self.operands.len() == 1
    }
}

/// Whether a call can be left out or exchanged. In a block of layers only what has no weights: a convolution that may
/// or may not be there is no layer.
fn kind(item: &Item, layers: bool, functional: bool) -> Kind {
    let plain = item.members.is_empty();
    // A function can be told which activation, or none.
    let activation = plain && !functional && ACTIVATIONS.contains(&item.role.as_str());
    let operands = |a: &Expr, b: &Expr| matches!((a, b), (Expr::Operand(_), Expr::Operand(_)));
    let sum = |expr: &Expr| match expr {
        Expr::Binary(a, "+", b) => operands(a, b),
        Expr::Call(layer, args) => match (layer.as_ref(), args.as_slice()) {
            (Expr::Call(class, _), [Arg { value: Expr::List(items), .. }]) => {
                **class == Expr::name("layers.Add") && matches!(items.as_slice(), [a, b] if operands(a, b))
            }
            _ => false,
        },
        _ => false,
    };
    match &item.modules {
        Some(_) if !activation && (plain || !layers) => Kind::Module,
        _ if sum(&item.expr) && item.operands.len() == 2 => Kind::Sum,
        _ => Kind::Other,
    }
}

/// Equal for calls of members with names that may stand for each other: everything but literals and wires.
fn named_form(item: &Item) -> String {
    let blank = |expr: &Expr| expr.map_slots(&mut |_| Expr::name("#")).to_string();
    let members =
        item.members.iter().map(|member| format!("|{:?} {} {}", member.kind, member.role, blank(&member.ctor)));
    std::iter::once(blank(&item.expr)).chain(members).collect()
}

const ACTIVATIONS: &[&str] = &[
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "swish",
    "silu",
    "hardswish",
    "leaky_relu",
    "elu",
    "gelu",
    "clipped",
    "softmax",
    "softplus",
];

/// Modules in a chain as one.
fn chain(modules: &[ModuleForm], sequential: &str) -> ModuleForm {
    if let [one] = modules {
        return one.clone();
    }
    let args = modules.iter().map(|module| Arg::new(module.ctor.clone())).collect();
    let below = |(i, module): (usize, &ModuleForm)| {
        let key = i.to_string();
        module.params.iter().map(|param| param.below(&key)).collect::<Vec<_>>()
    };
    ModuleForm { ctor: Expr::call(sequential, args), params: modules.iter().enumerate().flat_map(below).collect() }
}

/// Steps of two forms that are one step of the merged form; `None`: that side lacks it.
type Sides = (Option<usize>, Option<usize>);

/// A walk over two forms at once.
struct Search<'a> {
    left: &'a Form,
    right: &'a Form,
    state: State,
    budget: usize,
    /// Whether members have the source's names.
    named: bool,
    /// Whether a step must be the same on both sides, where both have it.
    strict: bool,
}

#[derive(Clone)]
struct State {
    /// How many more steps may differ.
    holes: usize,
    used: [Vec<bool>; 2],
    inputs: Vec<Pair>,
    /// Steps in the order in which they must be done: the sides, operands, and which operand passes where a side lacks
    /// it.
    steps: Vec<(Sides, Vec<Pair>, Option<usize>)>,
    /// Values that are there: inputs, and results by step.
    wires: Vec<(Pair, Wire)>,
}

impl std::ops::Deref for Search<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl<'a> Search<'a> {
    fn new(left: &'a Form, right: &'a Form, holes: usize, context: &Context<'_>) -> Self {
        let used = [vec![false; left.steps.len()], vec![false; right.steps.len()]];
        let state = State { holes, used, inputs: Vec::new(), steps: Vec::new(), wires: Vec::new() };
        let (named, strict) = (context.identity.is_none(), context.functional);
        Search { left, right, state, budget: BUDGET, named, strict }
    }

    /// Whether this value of the left can be that of the right; then the state says how.
    fn pair(&mut self, pair: Pair) -> bool {
        if self.wires.iter().any(|(known, _)| *known == pair) {
            return true;
        }
        let Some(budget) = self.budget.checked_sub(1) else { return false };
        self.budget = budget;
        if let (Wire::Input(_), Wire::Input(_)) = pair {
            let wire = Wire::Input(self.inputs.len());
            self.state.inputs.push(pair);
            self.state.wires.push((pair, wire));
            return true;
        }
        let before = self.state.clone();
        if self.both(pair) {
            return true;
        }
        for side in [0, 1] {
            let (wire, form) = if side == 0 { (pair.0, self.left) } else { (pair.1, self.right) };
            let Wire::Result(index, 0) = wire else { continue };
            let step = &form.steps[index];
            if self.used[side][index] || step.results != 1 {
                continue;
            }
            let operands = match (step.through, step.kind) {
                (Some(through), _) => through..through + 1,
                (None, Kind::Sum) => 0..2,
                (None, _) if step.is_open() => 0..1,
                _ => 0..0,
            };
            for through in operands {
                self.state = before.clone();
                if self.lacking(pair, side, index, through) {
                    return true;
                }
            }
        }
        self.state = before;
        false
    }

    /// Whether one module can be given in the place of another: they have one name, where the source's are kept.
    fn may_be_exchanged(&self, left: usize, right: usize) -> bool {
        !self.named || self.left.member(left) == self.right.member(right)
    }

    fn pay(&mut self, holes: usize) -> bool {
        match self.state.holes.checked_sub(holes) {
            Some(left) => {
                self.state.holes = left;
                true
            }
            None => false,
        }
    }

    /// The pair as the results of a step that both sides have.
    fn both(&mut self, pair: Pair) -> bool {
        let (Wire::Result(i, a), Wire::Result(j, b)) = pair else { return false };
        let (left, right) = (&self.left.steps[i], &self.right.steps[j]);
        let through = left.through.or(right.through);
        let fits = a == b
            && !self.used[0][i]
            && !self.used[1][j]
            && left.results == right.results
            && left.operands.len() == right.operands.len()
            && left.through.is_none_or(|t| Some(t) == through)
            && right.through.is_none_or(|t| Some(t) == through);
        let price = match left.forms == right.forms {
            true => 0,
            false if self.strict => return false,
            false if !(left.is_open() && right.is_open() && self.may_be_exchanged(i, j)) => return false,
            false => usize::from(!left.is_hole() && !right.is_hole()),
        };
        if !fits || !self.pay(price) {
            return false;
        }
        self.state.used[0][i] = true;
        self.state.used[1][j] = true;
        let operands: Vec<Pair> = left.operands.iter().copied().zip(right.operands.iter().copied()).collect();
        if !operands.iter().all(|&operand| self.pair(operand)) {
            return false;
        }
        self.done((Some(i), Some(j)), operands, through);
        true
    }

    /// The pair as the result of a step that only one side has, and what passes by on the other.
    fn lacking(&mut self, pair: Pair, side: usize, index: usize, through: usize) -> bool {
        let step = if side == 0 { &self.left.steps[index] } else { &self.right.steps[index] };
        let operands = step.operands.clone();
        if !self.pay(usize::from(step.through.is_none())) {
            return false;
        }
        self.state.used[side][index] = true;
        let passing = if side == 0 { pair.1 } else { pair.0 };
        let pair_of = |own: Wire, other: Wire| if side == 0 { (own, other) } else { (other, own) };
        if !self.pair(pair_of(operands[through], passing)) {
            return false;
        }
        let mut pairs = Vec::with_capacity(operands.len());
        for (i, &operand) in operands.iter().enumerate() {
            let own = |pair: Pair| if side == 0 { pair.0 } else { pair.1 };
            let known = match i == through {
                true => Some(pair_of(operand, passing)),
                false => self.wires.iter().map(|(pair, _)| *pair).find(|pair| own(*pair) == operand),
            };
            let Some(known) = known else { return false };
            pairs.push(known);
        }
        let sides = if side == 0 { (Some(index), None) } else { (None, Some(index)) };
        let wire = Wire::Result(self.steps.len(), 0);
        self.state.steps.push((sides, pairs, Some(through)));
        self.state.wires.push((pair, wire));
        true
    }

    fn done(&mut self, sides: Sides, operands: Vec<Pair>, through: Option<usize>) {
        let (Some(i), Some(j)) = sides else { return };
        let number = self.steps.len();
        self.state.steps.push((sides, operands, through));
        for output in 0..self.left.steps[i].results {
            self.state.wires.push(((Wire::Result(i, output), Wire::Result(j, output)), Wire::Result(number, output)));
        }
    }

    /// Whether most layers that are taken for the same have one name (if that is kept to the letter, all), or one kernel
    /// where there are no names.
    fn agrees(&self, exact: bool) -> bool {
        let item = |form: &'a Form, index: usize| form.uses.first().and_then(|block| block.items[index].as_ref());
        let pairs = self.steps.iter().filter_map(|(sides, _, _)| {
            let (left, right) = (item(self.left, sides.0?)?, item(self.right, sides.1?)?);
            (!left.members.is_empty() && !right.members.is_empty()).then_some((left, right))
        });
        let kernel = |item: &Item| {
            let mut found = None;
            for member in &item.members {
                member.ctor.slots(&mut |slot| {
                    if slot.role == "kernel_size" {
                        found = Some(slot.value.clone());
                    }
                });
            }
            found
        };
        let (mut same, mut other) = (0, 0);
        for (left, right) in pairs {
            let agree = match (&left.name, &right.name) {
                (Some(a), Some(b)) if exact => a == b,
                (Some(a), Some(b)) => a == b || common_name([Some(a.as_str()), Some(b.as_str())].into_iter()).is_some(),
                _ => kernel(left) == kernel(right),
            };
            *(if agree { &mut same } else { &mut other }) += 1;
        }
        if exact { other == 0 } else { same >= other }
    }

    /// The merged form.
    fn form(&self, outputs: &[Pair]) -> Form {
        let wire =
            |pair: &Pair| self.wires.iter().find(|(known, _)| known == pair).map_or(Wire::Input(0), |(_, wire)| *wire);
        let step = |(sides, operands, through): &(Sides, Vec<Pair>, Option<usize>)| {
            let known = [sides.0.map(|i| &self.left.steps[i]), sides.1.map(|i| &self.right.steps[i])];
            let mut known = known.into_iter().flatten();
            let mut step = known.next().cloned()?;
            for other in known {
                step.forms.extend(other.forms.iter().cloned());
            }
            step.operands = operands.iter().map(wire).collect();
            step.through = *through;
            Some(step)
        };
        let uses = |form: &Form, left: bool| {
            let own = move |sides: &Sides| if left { sides.0 } else { sides.1 };
            let each = |block: &Use| Use {
                region: block.region,
                items: self.steps.iter().map(|(sides, _, _)| block.items[own(sides)?].clone()).collect(),
                inputs: self
                    .inputs
                    .iter()
                    .filter_map(|pair| match if left { pair.0 } else { pair.1 } {
                        Wire::Input(i) => Some(block.inputs[i]),
                        Wire::Result(..) => None,
                    })
                    .collect(),
                outputs: block.outputs.clone(),
            };
            form.uses.iter().map(each).collect::<Vec<_>>()
        };
        let mut all = uses(self.left, true);
        all.extend(uses(self.right, false));
        Form {
            steps: self.steps.iter().filter_map(step).collect(),
            inputs: self.inputs.len(),
            outputs: outputs.iter().map(wire).collect(),
            uses: all,
            layers: self.left.layers && self.right.layers,
        }
    }
}
