//! Arguments of a class: what differs between equal blocks, named by its meaning.

use std::collections::HashSet;
use std::fmt;

use modelport_ir::Value;

use super::block::{Block, Item, is_composite};
use super::words::is_number;
use crate::python::{Arg, Expr, Lit, Namer, Slot, snake_case};

/// Which slots are arguments, and what those are called.
pub struct Arguments {
    /// Per slot: what it is bound to.
    binding: Vec<Binding>,
    args: Vec<Argument>,
    /// When there is padding of its own before a layer: the condition, and whether it holds in every block.
    padded: Vec<(Expr, Vec<bool>)>,
}

/// An argument as the constructor declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// What it is when it is not given.
    pub default: Option<Lit>,
    /// Its types, where the default alone does not tell them.
    pub types: Vec<String>,
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match (&self.default, self.types.as_slice()) {
            (None, _) => Ok(()),
            (Some(default), []) => write!(f, "={default}"),
            (Some(default), types) => write!(f, ": {} = {default}", types.join(" | ")),
        }
    }
}

/// The types of an argument, if there are others than its default's.
fn types(default: &Lit, values: &[Lit]) -> Vec<String> {
    let mut types: Vec<String> = default.python_type().into_iter().collect();
    if !types.is_empty() {
        for other in values.iter().filter_map(Lit::python_type) {
            if !types.contains(&other) {
                types.push(other);
            }
        }
        types.sort_by_key(String::len);
    }
    if types.len() < 2 { Vec::new() } else { types }
}

struct Argument {
    name: String,
    /// The role of the slot where it was met first.
    role: String,
    default: Option<Lit>,
    /// The value in every block.
    values: Vec<Lit>,
}

/// What stands in a slot.
#[derive(Clone, Debug)]
enum Binding {
    /// The same in all blocks.
    Constant(Lit),
    /// An argument, or what follows from it.
    Argument(usize, Derived),
    /// A condition on arguments, and a name for it.
    Test(String, Expr),
    /// Nothing where there is padding of its own before (by number), else `same`.
    SameUnless(usize),
}

/// Roles of conditions begin so: `if shortcut` says whether there is a shortcut.
pub const TEST: &str = "if ";

/// How a slot follows from an argument.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Derived {
    Same,
    Times(i64),
    /// Without remainder, but for the padding of a kernel.
    Divided(i64),
    /// Half, unless there is padding before (by number); then nothing.
    HalfUnless(usize),
}

impl Derived {
    fn apply(self, value: &Lit) -> Option<Lit> {
        match (self, value) {
            (Derived::Same, value) => Some(value.clone()),
            (Derived::Times(k), Lit::Int(value)) => value.checked_mul(k).map(Lit::Int),
            (Derived::Divided(k), Lit::Int(value)) => Some(Lit::Int(value.div_euclid(k))),
            _ => None,
        }
    }
}

/// Whether slots of these roles may be one argument, if they are equal in all blocks.
fn is_related(a: &str, b: &str) -> bool {
    let size = |role: &str| is_channels(role) || role == "groups" || is_size(role);
    let step = |role: &str| role == "padding" || role == "dilation";
    a == b || (size(a) && size(b)) || (step(a) && step(b))
}

/// Literals whose natural value makes a good default.
fn natural_default(role: &str) -> Option<Lit> {
    match role {
        "stride" | "strides" | "dilation" | "groups" => Some(Lit::Int(1)),
        "padding" | "output_padding" => Some(Lit::Int(0)),
        "bias" => Some(Lit::Bool(true)),
        _ => None,
    }
}

/// Finds the arguments of equal blocks, from the slots of each and the calls of the first.
pub fn arguments(slots: &[Vec<Slot>], block: &Block) -> Arguments {
    let count = slots.first().map_or(0, Vec::len);
    let mut result =
        Arguments { binding: vec![Binding::Constant(Lit::Any); count], args: Vec::new(), padded: Vec::new() };
    let mut namer = Namer::default();
    let mut late = Vec::new();
    let places = places(block);
    for position in 0..count {
        let values: Vec<Lit> = slots.iter().map(|slots| slots[position].value.clone()).collect();
        let mut known = values.iter().filter(|value| **value != Lit::Any);
        let first = known.next().cloned().unwrap_or(Lit::Any);
        if known.all(|value| *value == first) {
            result.binding[position] = Binding::Constant(first);
            continue;
        }
        let role = &slots[0][position].role;
        if role.starts_with(TEST) || role == "padding" {
            late.push((position, values));
            continue;
        }
        if let Some((index, derived)) = result.find(&values, role) {
            result.fill(index, &values);
            result.binding[position] = Binding::Argument(index, derived);
            continue;
        }
        let meets = places.get(position).is_some_and(|place| place.meets.is_some());
        let wish = argument_name(role, position, meets, block, &result);
        result.add(position, namer.take(&wish), role, values);
    }
    // What only some blocks have follows an argument of the same meaning, if that fits: a shortcut has the block's stride.
    for position in 0..count {
        let values = || slots.iter().map(|slots| &slots[position].value);
        let role = &slots[0][position].role;
        if matches!(role.as_str(), "stride" | "strides") && values().any(|value| *value == Lit::Any) {
            let fits = |arg: &Argument| {
                arg.role == *role && arg.values.iter().zip(values()).all(|(a, b)| *b == Lit::Any || a == b)
            };
            if let Some(index) = result.args.iter().position(fits) {
                result.binding[position] = Binding::Argument(index, Derived::Same);
            }
        }
    }
    result.rename(&slots[0], &places);
    result.name_sizes(&slots[0]);
    let (paddings, tests): (Vec<_>, Vec<_>) =
        late.into_iter().partition(|(position, _)| slots[0][*position].role == "padding");
    for (position, values) in tests {
        let name = slots[0][position].role.trim_start_matches(TEST);
        match result.test(&values) {
            Some(test) => result.binding[position] = Binding::Test(name.to_owned(), test),
            None => result.add(position, namer.take(name), TEST, values.clone()),
        }
        if name == "pad" {
            let holds = values.iter().map(|value| *value == Lit::Bool(true)).collect();
            let condition = result.bind(position, &slots[0][position], "");
            result.padded.push((condition, holds));
        }
    }
    for (position, values) in paddings {
        match result.find(&values, "padding") {
            Some((index, derived)) => {
                result.fill(index, &values);
                result.binding[position] = Binding::Argument(index, derived);
            }
            None if let Some(number) = result.same_unless(&values) => {
                result.binding[position] = Binding::SameUnless(number);
            }
            None => {
                let wish = argument_name("padding", position, false, block, &result);
                result.add(position, namer.take(&wish), "padding", values);
            }
        }
    }
    result.set_defaults();
    result
}

/// Whether a role is a size in a shape: `size`, `size2`.
fn is_size(role: &str) -> bool {
    role.strip_prefix("size").is_some_and(|rest| rest.bytes().all(|c| c.is_ascii_digit()))
}

/// Whether a role counts channels.
pub fn is_channels(role: &str) -> bool {
    ["channels", "features", "filters", "units"].iter().any(|word| role.contains(word))
}

/// Where in its block a slot stands.
#[derive(Clone, Copy)]
struct Place {
    /// In a layer that reads what enters the block.
    enters: bool,
    /// In a layer whose result leaves the block, with nothing but functions in between.
    leaves: bool,
    /// In the call, by number, whose result is concatenated with others.
    meets: Option<usize>,
}

/// The place of every slot.
fn places(block: &Block) -> Vec<Place> {
    let resizes = |item: &Item| {
        let mut found = false;
        for member in &item.members {
            let resizes = |role: &str| role.starts_with("out_") || matches!(role, "filters" | "units");
            member.ctor.slots(&mut |slot| found |= resizes(&slot.role));
        }
        found || item.members.iter().any(is_composite)
    };
    let joins = |item: &Item| {
        let called = |expr: &Expr, names: &[&str]| names.iter().any(|name| *expr == Expr::name(name));
        item.expr.count(&|expr| called(expr, &["torch.cat", "layers.Concatenate", "ops.concatenate"])) > 0
    };
    let mut ends: HashSet<Value> = block.outputs.iter().copied().collect();
    let mut meeting: HashSet<Value> = HashSet::new();
    for item in block.items.iter().rev().filter(|item| !resizes(item)) {
        if joins(item) {
            meeting.extend(&item.operands);
        } else if item.results.iter().any(|value| ends.contains(value)) {
            ends.extend(&item.operands);
        }
    }
    let mut places = Vec::new();
    for (number, item) in block.items.iter().enumerate() {
        let enters = item.operands.iter().any(|value| block.inputs.contains(value));
        let leaves = item.results.iter().any(|value| ends.contains(value));
        let meets = item.results.iter().any(|value| meeting.contains(value)).then_some(number);
        for member in &item.members {
            // Of a chain only the first layer reads what enters, and only the last makes what leaves.
            let parts: Vec<(usize, bool)> = parts(&member.ctor).into_iter().map(slots_of).collect();
            let first = parts.iter().position(|(_, sized)| *sized).unwrap_or(0);
            let last = parts.iter().rposition(|(_, sized)| *sized).unwrap_or(parts.len());
            for (index, (count, _)) in parts.into_iter().enumerate() {
                let (begins, finishes) = (index <= first, index >= last);
                let place = Place { enters: enters && begins, leaves: leaves && finishes, meets };
                places.extend(std::iter::repeat_n(place, count));
            }
        }
        let (count, _) = slots_of(&item.expr);
        places.extend(std::iter::repeat_n(Place { enters, leaves, meets }, count));
    }
    places
}

/// The modules of a chain, or what is none.
fn parts(ctor: &Expr) -> Vec<&Expr> {
    match ctor {
        Expr::Call(_, args) if args.len() > 1 && args.iter().all(|arg| matches!(arg.value, Expr::Call(..))) => {
            args.iter().map(|arg| &arg.value).collect()
        }
        other => vec![other],
    }
}

/// How many slots an expression has, and whether one of them counts channels.
fn slots_of(expr: &Expr) -> (usize, bool) {
    let (mut count, mut sized) = (0, false);
    expr.slots(&mut |slot| {
        count += 1;
        sized |= is_channels(&slot.role);
    });
    (count, sized)
}

/// A telling name for an argument that is used first at a slot.
fn argument_name(role: &str, position: usize, meets: bool, block: &Block, so_far: &Arguments) -> String {
    let taken = |name: &str| so_far.args.iter().any(|arg| arg.name == name);
    if (!taken(role) && role != "out_channels") || is_size(role) {
        return role.to_owned();
    }
    // Which call the slot belongs to.
    let mut at = 0;
    for (index, item) in block.items.iter().enumerate() {
        let mut n = 0;
        item.members.iter().for_each(|member| member.ctor.slots(&mut |_| n += 1));
        item.expr.slots(&mut |_| n += 1);
        if position < at + n {
            let last = index + 1 == block.items.len() || item.results.iter().any(|v| block.outputs.contains(v));
            if role == "out_channels" && last && !taken(role) {
                return role.to_owned();
            }
            if role == "out_channels" && !meets && !taken("width") && !taken("mid_channels") {
                return "mid_channels".to_owned();
            }
            let own = match &item.name {
                Some(name) if !is_number(name) => name.clone(),
                _ => item.word(),
            };
            let role = match role {
                "filters" | "units" => role,
                role if is_channels(role) => "channels",
                role => role,
            };
            return format!("{}_{role}", snake_case(&own));
        }
        at += n;
    }
    role.to_owned()
}

impl Arguments {
    fn add(&mut self, position: usize, name: String, role: &str, values: Vec<Lit>) {
        self.binding[position] = Binding::Argument(self.args.len(), Derived::Same);
        self.args.push(Argument { name, role: role.to_owned(), default: None, values });
    }

    /// Sizes are named by what enters and leaves the block, wherever they were met first.
    fn rename(&mut self, slots: &[Slot], places: &[Place]) {
        // What several of the branches have in common is named after none of them.
        for index in 0..self.args.len() {
            let bound =
                |position: &usize| matches!(self.binding[*position], Binding::Argument(bound, _) if bound == index);
            let branches = (0..slots.len()).filter(bound).map(|position| places.get(position)?.meets);
            let branches: HashSet<usize> = branches.flatten().collect();
            let free = |name: &&str| self.args.iter().all(|arg| arg.name != *name);
            if branches.len() > 1
                && self.args[index].role == "out_channels"
                && let Some(name) = ["mid_channels", "width"].into_iter().find(free)
            {
                name.clone_into(&mut self.args[index].name);
            }
        }
        for wish in ["in_channels", "out_channels", "filters", "units"] {
            let holder = self.args.iter().position(|arg| arg.name == wish);
            if holder.is_some() && wish.ends_with("channels") {
                continue;
            }
            let found = (0..slots.len()).find_map(|position| {
                let Binding::Argument(index, derived) = self.binding[position] else { return None };
                let Place { enters, leaves, .. } = *places.get(position)?;
                let role = slots[position].role.as_str();
                let fits = match wish {
                    "in_channels" => enters && (role == wish || role == "num_features"),
                    _ => leaves && role == wish,
                };
                let free = is_channels(&self.args[index].name) && self.args[index].name != "in_channels";
                (fits && free && derived == Derived::Same).then_some(index)
            });
            if let Some(index) = found {
                if let Some(holder) = holder.filter(|&holder| holder != index) {
                    let free = |name: &String| self.args.iter().all(|arg| arg.name != *name);
                    let names = ["mid", "inner", "first"].map(|word| format!("{word}_{wish}"));
                    self.args[holder].name = names.into_iter().find(free).unwrap_or_else(|| "width".to_owned());
                }
                self.args[index].name = wish.to_owned();
            }
        }
    }

    /// A size that is also what a layer has of units or filters is called so.
    fn name_sizes(&mut self, slots: &[Slot]) {
        for (position, slot) in slots.iter().enumerate() {
            let Binding::Argument(index, Derived::Same) = self.binding[position] else { continue };
            let taken = self.args.iter().any(|arg| arg.name == slot.role);
            if is_size(&self.args[index].name) && matches!(slot.role.as_str(), "units" | "filters") && !taken {
                self.args[index].name.clone_from(&slot.role);
            }
        }
    }

    /// Defaults: the natural one, or what most blocks have.
    fn set_defaults(&mut self) {
        for Argument { role, default, values, .. } in &mut self.args {
            let unknown = values.contains(&Lit::Any);
            let optional = values.contains(&Lit::None);
            let modules = values.iter().any(|value| matches!(value, Lit::Module(_)));
            let mode = |value: &Lit| values.iter().filter(|v| *v == value).count();
            let most = values.iter().filter(|v| **v != Lit::Any).max_by_key(|v| mode(v));
            *default = match natural_default(role) {
                _ if optional || modules => optional.then_some(Lit::None),
                _ if role == TEST => most.cloned(),
                Some(value) if mode(&value) * 3 >= values.len() => Some(value),
                _ if unknown => most.cloned(),
                _ if is_channels(role) || is_size(role) => None,
                _ => most.filter(|v| mode(v) * 4 >= values.len() * 3).cloned(),
            };
        }
    }

    /// Values that were open get what a slot bound to the argument needs.
    fn fill(&mut self, index: usize, values: &[Lit]) {
        for (have, value) in self.args[index].values.iter_mut().zip(values) {
            if *have == Lit::Any {
                *have = value.clone();
            }
        }
    }

    /// A condition on arguments that holds in just those blocks whose value is true.
    fn test(&mut self, values: &[Lit]) -> Option<Expr> {
        let wanted: Vec<bool> = values.iter().map(|value| *value == Lit::Bool(true)).collect();
        let is = |test: &dyn Fn(usize) -> bool| (0..wanted.len()).all(|block| test(block) == wanted[block]);
        // What is given to the optional part alone says whether it is there.
        let given = self.args.iter().position(|arg| {
            let truthy = |value: &Lit| match value {
                Lit::Int(n) => *n != 0,
                value => matches!(value, Lit::Tuple(_) | Lit::Str(_)),
            };
            is(&|block| truthy(&arg.values[block])) && is(&|block| arg.values[block] != Lit::Any)
        });
        if let Some(index) = given {
            let arg = &mut self.args[index];
            arg.values.iter_mut().filter(|value| **value == Lit::Any).for_each(|value| *value = Lit::None);
            return Some(Expr::name(&arg.name));
        }
        let known: Vec<&Argument> = self.args.iter().filter(|arg| !arg.values.contains(&Lit::Any)).collect();
        let stride = known.iter().find(|arg| matches!(arg.name.as_str(), "stride" | "strides"));
        let strided = |block: usize| stride.is_some_and(|arg| arg.values[block] != Lit::Int(1));
        let stride_name = Expr::name(stride.map_or("", |arg| arg.name.as_str()));
        let stride_is = |operator| stride_name.clone().binary(operator, Expr::slot("", Lit::Int(1)));
        if stride.is_some() && is(&strided) {
            return Some(stride_is("!="));
        }
        if stride.is_some() && is(&|block| !strided(block)) {
            return Some(stride_is("=="));
        }
        let sizes: Vec<&Argument> = known.iter().copied().filter(|arg| is_channels(&arg.name)).collect();
        for (at, a) in sizes.iter().enumerate() {
            for b in &sizes[at + 1..] {
                let differ = |block: usize| a.values[block] != b.values[block];
                let pair = |operator| Expr::name(&a.name).binary(operator, Expr::name(&b.name));
                if is(&differ) {
                    return Some(pair("!="));
                }
                if is(&|block| !differ(block)) {
                    return Some(pair("=="));
                }
                if stride.is_some() && is(&|block| differ(block) || strided(block)) {
                    return Some(stride_is("!=").binary("or", pair("!=")));
                }
                if stride.is_some() && is(&|block| !differ(block) && !strided(block)) {
                    return Some(stride_is("==").binary("and", pair("==")));
                }
            }
        }
        None
    }

    /// An argument that gives these values in all blocks.
    fn find(&self, values: &[Lit], role: &str) -> Option<(usize, Derived)> {
        // A module is made for one place.
        if values.iter().any(|value| matches!(value, Lit::Module(_))) {
            return None;
        }
        if let Some(index) = self.args.iter().position(|arg| arg.values == values && is_related(&arg.role, role)) {
            return Some((index, Derived::Same));
        }
        // Where it does not matter what is given to some blocks, it is given what the same argument gives to others.
        let open = |arg: &Argument| {
            let pairs = || arg.values.iter().zip(values).filter(|(a, b)| **a != Lit::Any && **b != Lit::Any);
            is_related(&arg.role, role) && pairs().count() > 0 && pairs().all(|(a, b)| a == b)
        };
        let any = |values: &[Lit]| values.contains(&Lit::Any);
        if let Some(index) = self.args.iter().position(|arg| (any(values) || any(&arg.values)) && open(arg)) {
            return Some((index, Derived::Same));
        }
        let derivations = (2..=8).map(Derived::Times).chain([2, 3, 4, 6, 8].map(Derived::Divided));
        for derivation in derivations {
            for (index, arg) in self.args.iter().enumerate() {
                // Sizes follow from sizes, and a padding from its kernel.
                let counts = is_channels(role) || role == "groups" || is_size(role);
                let counted = is_channels(&arg.name) || is_size(&arg.role);
                let related = (counts && counted) || (role == "padding" && arg.role == "kernel_size");
                if !related || (role == "padding" && derivation != Derived::Divided(2)) {
                    continue;
                }
                let pairs = || arg.values.iter().zip(values).filter(|(_, value)| **value != Lit::Any);
                let witnesses: HashSet<&Lit> = pairs().map(|(have, _)| have).collect();
                let exact = |have: &Lit| match (derivation, have) {
                    (Derived::Divided(k), Lit::Int(have)) => role == "padding" || have % k == 0,
                    _ => true,
                };
                let fits = pairs().all(|(have, value)| exact(have) && derivation.apply(have).as_ref() == Some(value));
                if fits && witnesses.len() >= 2 {
                    return Some((index, derivation));
                }
            }
        }
        (role == "padding").then(|| self.half_unless(values)).flatten()
    }

    /// A padding that is half the kernel where nothing pads before.
    fn half_unless(&self, values: &[Lit]) -> Option<(usize, Derived)> {
        let fits = |kernel: &Argument, holds: &[bool]| {
            (0..values.len()).all(|block| match (holds[block], &kernel.values[block], &values[block]) {
                (true, _, value) => *value == Lit::Int(0),
                (false, Lit::Int(kernel), Lit::Int(value)) => *value == kernel / 2,
                (false, ..) => false,
            })
        };
        self.padded.iter().enumerate().find_map(|(number, (_, holds))| {
            let kernel = self.args.iter().position(|arg| arg.role == "kernel_size" && fits(arg, holds))?;
            Some((kernel, Derived::HalfUnless(number)))
        })
    }

    /// `same` where nothing pads before.
    fn same_unless(&self, values: &[Lit]) -> Option<usize> {
        let text = |text: &str| Lit::Str(text.to_owned());
        self.padded.iter().position(|(_, holds)| {
            let fits = |(value, &holds): (&Lit, &bool)| {
                *value == Lit::Any || *value == text(if holds { "valid" } else { "same" })
            };
            values.iter().zip(holds).all(fits)
        })
    }

    /// What a slot of `forward` makes the module keep: a name, and what it is.
    pub fn kept(&self, position: usize) -> Option<(String, Expr)> {
        match &self.binding[position] {
            Binding::Constant(_) | Binding::SameUnless(_) => None,
            Binding::Argument(index, _) => Some((self.args[*index].name.clone(), Expr::name(&self.args[*index].name))),
            Binding::Test(name, test) => Some((name.clone(), test.clone())),
        }
    }

    /// What stands in a slot: its literal, or an argument (read through `prefix`).
    pub fn bind(&self, position: usize, slot: &Slot, prefix: &str) -> Expr {
        let (index, derivation) = match &self.binding[position] {
            Binding::Constant(Lit::Any) => return Expr::Slot(slot.clone()),
            Binding::Constant(value) => return Expr::slot(&slot.role, value.clone()),
            Binding::Test(_, test) if prefix.is_empty() => return test.clone(),
            Binding::Test(name, _) => return Expr::name(&format!("{prefix}{name}")),
            Binding::Argument(index, derivation) => (*index, *derivation),
            Binding::SameUnless(other) => {
                let text = |text: &str| Box::new(Expr::slot("", Lit::Str(text.to_owned())));
                return Expr::If(text("valid"), Box::new(self.padded[*other].0.clone()), text("same"));
            }
        };
        let name = Expr::name(&format!("{prefix}{}", self.args[index].name));
        match derivation {
            Derived::Same => name,
            Derived::Times(k) => Expr::slot("", Lit::Int(k)).binary("*", name),
            Derived::Divided(k) => name.binary("//", Expr::slot("", Lit::Int(k))),
            Derived::HalfUnless(other) => Expr::If(
                Box::new(Expr::slot("", Lit::Int(0))),
                Box::new(self.padded[other].0.clone()),
                Box::new(name.binary("//", Expr::slot("", Lit::Int(2)))),
            ),
        }
    }

    /// Whether a slot is a module that may be `None`.
    pub fn is_optional(&self, position: usize) -> bool {
        let Binding::Argument(index, _) = &self.binding[position] else { return false };
        let arg = &self.args[*index];
        arg.default == Some(Lit::None) && arg.values.iter().any(|value| matches!(value, Lit::Module(_)))
    }

    /// Indices of arguments, those without a default first.
    fn sorted(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.args.len()).collect();
        order.sort_by_key(|&i| self.args[i].default.is_some());
        order
    }

    /// What is declared, those without a default first.
    pub fn declared(&self) -> Vec<Declared> {
        let declared = |Argument { name, default, values, .. }: &Argument| Declared {
            name: name.clone(),
            default: default.clone(),
            types: default.as_ref().map(|default| types(default, values)).unwrap_or_default(),
        };
        self.sorted().into_iter().map(|i| declared(&self.args[i])).collect()
    }

    /// What is given in the call that makes a block.
    pub fn call(&self, block: usize) -> Vec<Arg> {
        let arg = |i: usize| {
            let Argument { name, default, values, .. } = &self.args[i];
            let value = match (&values[block], default) {
                (Lit::Module(ctor), _) => (**ctor).clone(),
                (Lit::Any, Some(default)) => Expr::slot(name, default.clone()),
                (value, _) => Expr::slot(name, value.clone()),
            };
            match default {
                None => Arg::new(value),
                Some(default) => Arg::keyword(name, value, Some(default.clone())),
            }
        };
        self.sorted().into_iter().map(arg).collect()
    }
}
