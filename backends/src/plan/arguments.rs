//! Arguments of a class: what differs between equal blocks, named by its meaning.

use std::collections::HashSet;

use modelport_ir::Value;

use super::block::Block;
use crate::python::{Arg, Expr, Lit, Namer, Slot, snake_case};

/// Which slots are arguments, and what those are called.
pub struct Arguments {
    /// Per slot: what it is bound to.
    binding: Vec<Option<(usize, Derived)>>,
    /// Name, default, and the value in every block.
    args: Vec<(String, Option<Lit>, Vec<Lit>)>,
}

/// How a slot follows from an argument.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Derived {
    Same,
    Times(i64),
    /// Without remainder, but for the padding of a kernel.
    Divided(i64),
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
    let mut result = Arguments { binding: vec![None; count], args: Vec::new() };
    let mut namer = Namer::default();
    for position in 0..count {
        let values: Vec<Lit> = slots.iter().map(|slots| slots[position].value.clone()).collect();
        if values.iter().all(|value| *value == values[0]) {
            continue;
        }
        if let Some(bound) = result.find(&values, &slots[0][position].role) {
            result.binding[position] = Some(bound);
            continue;
        }
        let role = &slots[0][position].role;
        let wish = argument_name(role, position, block, &result);
        let name = namer.take(&wish);
        let mode = |value: &Lit| values.iter().filter(|v| *v == value).count();
        let default = match natural_default(role) {
            Some(value) if mode(&value) * 3 >= values.len() => Some(value),
            _ if is_channels(role) => None,
            _ => values.iter().max_by_key(|v| mode(v)).filter(|v| mode(v) * 4 >= values.len() * 3).cloned(),
        };
        result.binding[position] = Some((result.args.len(), Derived::Same));
        result.args.push((name, default, values));
    }
    result.rename(&slots[0], block);
    result
}

fn is_channels(role: &str) -> bool {
    ["channels", "features", "filters", "units"].iter().any(|word| role.contains(word))
}

/// A telling name for an argument that is used first at a slot.
fn argument_name(role: &str, position: usize, block: &Block, so_far: &Arguments) -> String {
    let taken = |name: &str| so_far.args.iter().any(|(n, _, _)| n == name);
    if !taken(role) && role != "out_channels" {
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
            if role == "out_channels" && (last || block.items.len() <= 4) && !taken(role) {
                return role.to_owned();
            }
            if role == "out_channels" && !taken("width") && !taken("mid_channels") {
                return "mid_channels".to_owned();
            }
            let own = item.name.as_deref().unwrap_or(&item.role);
            let role = if is_channels(role) { "channels" } else { role };
            return format!("{}_{role}", snake_case(own));
        }
        at += n;
    }
    role.to_owned()
}

impl Arguments {
    /// Sizes are named by what enters and leaves the block, wherever they were met first.
    fn rename(&mut self, slots: &[Slot], block: &Block) {
        // Values that become outputs with nothing but functions in between.
        let mut ends: HashSet<Value> = block.outputs.iter().copied().collect();
        for item in block.items.iter().rev().filter(|item| item.members.is_empty()) {
            if item.results.iter().any(|value| ends.contains(value)) {
                ends.extend(&item.operands);
            }
        }
        let mut places = Vec::with_capacity(slots.len());
        for item in &block.items {
            let mut n = 0;
            item.members.iter().for_each(|member| member.ctor.slots(&mut |_| n += 1));
            item.expr.slots(&mut |_| n += 1);
            let enters = item.operands.iter().any(|value| block.inputs.contains(value));
            let leaves = item.results.iter().any(|value| ends.contains(value));
            places.extend(std::iter::repeat_n((enters, leaves), n));
        }
        for wish in ["in_channels", "out_channels"] {
            if self.args.iter().any(|(name, _, _)| name == wish) {
                continue;
            }
            let found = (0..slots.len()).find_map(|position| {
                let (index, derived) = self.binding[position]?;
                let (enters, leaves) = *places.get(position)?;
                let role = slots[position].role.as_str();
                let fits = match wish {
                    "in_channels" => enters && (role == wish || role == "num_features"),
                    _ => leaves && role == wish,
                };
                let free = is_channels(&self.args[index].0) && self.args[index].0 != "in_channels";
                (fits && free && derived == Derived::Same).then_some(index)
            });
            if let Some(index) = found {
                self.args[index].0 = wish.to_owned();
            }
        }
    }

    /// An argument that gives these values in all blocks.
    fn find(&self, values: &[Lit], role: &str) -> Option<(usize, Derived)> {
        let same = self.args.iter().position(|(_, _, have)| have == values);
        if let Some(index) = same {
            return Some((index, Derived::Same));
        }
        let derivations = (2..=8).map(Derived::Times).chain([2, 3, 4, 8].map(Derived::Divided));
        for derivation in derivations {
            for (index, (name, _, have)) in self.args.iter().enumerate() {
                // Sizes follow from sizes, and a padding from its kernel.
                let counts = is_channels(role) || role == "groups";
                let related = (counts && is_channels(name)) || (role == "padding" && name == "kernel_size");
                if !related || (role == "padding" && derivation != Derived::Divided(2)) {
                    continue;
                }
                let witnesses: HashSet<&Lit> = have.iter().collect();
                let exact = |have: &Lit| match (derivation, have) {
                    (Derived::Divided(k), Lit::Int(have)) => role == "padding" || have % k == 0,
                    _ => true,
                };
                let fits = have
                    .iter()
                    .zip(values)
                    .all(|(have, value)| exact(have) && derivation.apply(have).as_ref() == Some(value));
                if fits && witnesses.len() >= 2 {
                    return Some((index, derivation));
                }
            }
        }
        None
    }

    /// The argument that a slot is bound to.
    pub fn of(&self, position: usize) -> Option<String> {
        self.binding[position].map(|(index, _)| self.args[index].0.clone())
    }

    /// What stands in a slot: its literal, or an argument (read through `prefix`).
    pub fn bind(&self, position: usize, slot: &Slot, prefix: &str) -> Expr {
        let Some((index, derivation)) = self.binding[position] else { return Expr::Slot(slot.clone()) };
        let name = Expr::name(&format!("{prefix}{}", self.args[index].0));
        match derivation {
            Derived::Same => name,
            Derived::Times(k) => Expr::slot("", Lit::Int(k)).binary("*", name),
            Derived::Divided(k) => name.binary("//", Expr::slot("", Lit::Int(k))),
        }
    }

    /// Indices of arguments, those without a default first.
    fn sorted(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.args.len()).collect();
        order.sort_by_key(|&i| self.args[i].1.is_some());
        order
    }

    /// Names and defaults, those without a default first.
    pub fn declared(&self) -> Vec<(String, Option<Lit>)> {
        self.sorted().into_iter().map(|i| (self.args[i].0.clone(), self.args[i].1.clone())).collect()
    }

    /// What is given in the call that makes a block.
    pub fn call(&self, block: usize) -> Vec<Arg> {
        let arg = |i: usize| {
            let (name, default, values) = &self.args[i];
            let value = Expr::slot(name, values[block].clone());
            match default {
                None => Arg::new(value),
                Some(default) => Arg::keyword(name, value, Some(default.clone())),
            }
        };
        self.sorted().into_iter().map(arg).collect()
    }
}
