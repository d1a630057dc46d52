//! What a value really is: looks through nodes that pass values on, and takes the side of every branch that a
//! training flag or a constant decides.
//!
//! Dropout that a flag switches is taken on either side: the network's own `eval` switches it then.
//!
//! Nothing is rewritten: [`Resolver::resolve`] answers for one value which node computes it.

use std::collections::{HashMap, HashSet};

use modelport_ir::DType;

use super::dropout::is_dropout;
use super::net::{Net, Ref};

/// Operators whose first output is their first input.
const PASS_ON: &[&str] = &[
    "Identity",
    "Enter",
    "RefEnter",
    "StopGradient",
    "CheckNumerics",
    "CheckNumericsV2",
    "PreventGradient",
    "Snapshot",
    "EnsureShape",
    "Print",
    "RefIdentity",
    "DeepCopy",
    "Copy",
    "CopyHost",
    "DebugIdentity",
    "DebugIdentityV2",
    "ReadVariableOp",
    "_Retval",
    "PlaceholderWithDefault",
];

/// Looks through a graph. Made for one phase: the inference graph or the training graph.
pub struct Resolver<'a> {
    net: &'a Net,
    training: bool,
    /// Nodes that are inputs because somebody said so.
    cuts: HashSet<usize>,
    /// Per node: whether it lies on a side that is not taken.
    dead: Vec<bool>,
    /// Per node: the boolean that it is at conversion time.
    truths: Vec<Option<bool>>,
    /// What values of nodes that pass values on really are.
    targets: HashMap<Ref, Ref>,
}

impl<'a> Resolver<'a> {
    /// Decides all branches of a graph. Training flags are `training`; nodes in `cuts` are not looked through.
    pub fn new(net: &'a Net, training: bool, cuts: HashSet<usize>) -> Resolver<'a> {
        let (dead, truths) = (vec![false; net.len()], vec![None; net.len()]);
        let mut resolver = Resolver { net, training, cuts, dead, truths, targets: HashMap::new() };
        // Producers first: everything is decided by what was decided before. What lies on a cycle stays undecided.
        for index in order(net) {
            resolver.dead[index] = resolver.is_dead(index);
            resolver.truths[index] = resolver.evaluate(index);
            let outputs = match net.op(index) {
                "IdentityN" => net.inputs(index).len(),
                op if is_switch(op) => 2,
                _ => 1,
            };
            for output in 0..outputs {
                let value = Ref { node: index, output };
                if let Some(next) = resolver.step(value) {
                    let target = resolver.resolve(next);
                    resolver.targets.insert(value, target);
                }
            }
        }
        resolver
    }

    /// The graph.
    pub fn net(&self) -> &'a Net {
        self.net
    }

    /// Whether training flags are set.
    pub fn training(&self) -> bool {
        self.training
    }

    /// The value that really arrives where `value` is read.
    pub fn resolve(&self, value: Ref) -> Ref {
        self.targets.get(&value).copied().unwrap_or(value)
    }

    /// The data inputs of a node, resolved.
    pub fn inputs(&self, index: usize) -> Vec<Option<Ref>> {
        self.net.inputs(index).iter().map(|input| input.map(|value| self.resolve(value))).collect()
    }

    /// The boolean that a value has at conversion time, if it is one: a training flag, a constant, or made of those.
    pub fn truth(&self, value: Ref) -> Option<bool> {
        let value = self.resolve(value);
        self.truths.get(value.node).copied().flatten().filter(|_| value.output == 0)
    }

    /// Whether the node is a scalar boolean that somebody feeds: a training flag.
    pub fn is_flag(&self, index: usize) -> bool {
        let node = self.net.node(index);
        matches!(node.op.as_str(), "Placeholder" | "PlaceholderV2" | "PlaceholderWithDefault")
            && node.dtype("dtype") == Some(DType::Bool)
            && node.shape("shape").is_none_or(<[i64]>::is_empty)
            && !self.cuts.contains(&index)
    }

    fn step(&self, value: Ref) -> Option<Ref> {
        let Ref { node, output } = value;
        if self.cuts.contains(&node) {
            return None;
        }
        match self.net.op(node) {
            "IdentityN" => self.net.input(node, output),
            "PlaceholderWithDefault" if self.is_flag(node) || !self.has_scalar_default(node) => None,
            op if PASS_ON.contains(&op) => self.net.input(node, 0),
            op if is_switch(op) => self.side(node).and_then(|_| self.net.input(node, 0)),
            "Merge" | "RefMerge" if output == 0 => {
                self.live_input(node).map(|live| self.dropout(node, live).unwrap_or(live))
            }
            _ => None,
        }
    }

    fn has_scalar_default(&self, index: usize) -> bool {
        let default = self.net.input(index, 0).and_then(|default| self.net.node(default.node).tensor("value"));
        self.net.node(index).shape("shape").is_none_or(<[i64]>::is_empty) && default.is_some_and(|t| t.rank() == 0)
    }

    /// Which output of a switch is taken.
    fn side(&self, switch: usize) -> Option<bool> {
        self.net.input(switch, 1).and_then(|predicate| self.truth(predicate))
    }

    fn live_input(&self, merge: usize) -> Option<Ref> {
        let mut live = self.net.inputs(merge).iter().flatten().filter(|value| !self.is_dead_value(**value));
        let first = live.next().copied();
        // Two live inputs: the branch is not decided.
        if live.next().is_some() { None } else { first }
    }

    /// The side of a branch that is not taken, where it is dropout of the one that is.
    fn dropout(&self, merge: usize, live: Ref) -> Option<Ref> {
        let mut others = self.net.inputs(merge).iter().flatten().copied().filter(|value| *value != live);
        others.find(|other| is_dropout(self.net, |value| self.resolve(value), *other, self.resolve(live)))
    }

    fn is_dead_value(&self, value: Ref) -> bool {
        let not_taken = || self.side(value.node).is_some_and(|side| side != (value.output == 1));
        self.dead[value.node] || (is_switch(self.net.op(value.node)) && not_taken())
    }

    fn is_dead(&self, index: usize) -> bool {
        if self.cuts.contains(&index) {
            return false;
        }
        let inputs = self.net.inputs(index);
        if matches!(self.net.op(index), "Merge" | "RefMerge") {
            return !inputs.is_empty() && inputs.iter().flatten().all(|value| self.is_dead_value(*value));
        }
        inputs.iter().flatten().any(|value| self.is_dead_value(*value))
            || self.net.controls(index).iter().any(|&control| self.dead[control])
    }

    fn evaluate(&self, index: usize) -> Option<bool> {
        let node = self.net.node(index);
        let operand = |slot| self.net.input(index, slot).and_then(|value| self.truth(value));
        match node.op.as_str() {
            _ if self.cuts.contains(&index) => None,
            _ if self.is_flag(index) => Some(self.training),
            "Const" => {
                let tensor = node.tensor("value")?;
                let single = tensor.numel() == 1 && tensor.dtype() == DType::Bool;
                if single { tensor.to_i64().ok()?.first().map(|x| *x != 0) } else { None }
            }
            "LogicalNot" => operand(0).map(|x| !x),
            "LogicalAnd" => match (operand(0), operand(1)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (a, b) => Some(a? && b?),
            },
            "LogicalOr" => match (operand(0), operand(1)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (a, b) => Some(a? || b?),
            },
            _ => None,
        }
    }
}

/// Whether the operator sends its input to one of two outputs.
pub fn is_switch(op: &str) -> bool {
    matches!(op, "Switch" | "RefSwitch")
}

/// The nodes, producers and controls first; those on cycles and behind them are left out.
fn order(net: &Net) -> Vec<usize> {
    let mut missing = vec![0usize; net.len()];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); net.len()];
    for (index, count) in missing.iter_mut().enumerate() {
        let sources = net.inputs(index).iter().flatten().map(|value| value.node);
        for source in sources.chain(net.controls(index).iter().copied()) {
            after[source].push(index);
            *count += 1;
        }
    }
    let mut order: Vec<usize> = (0..net.len()).filter(|&index| missing[index] == 0).collect();
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        next += 1;
        for &reader in &after[index] {
            missing[reader] -= 1;
            if missing[reader] == 0 {
                order.push(reader);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::testing::net;

    fn resolved(net: &Net, name: &str, training: bool) -> String {
        let resolver = Resolver::new(net, training, HashSet::new());
        let value = resolver.resolve(net.find(name).unwrap());
        format!("{}:{}", net.node(value.node).name, value.output)
    }

    const COND: &str = "
        x = Placeholder() | dtype=:float shape=<?,4>
        flag = Placeholder() | dtype=:bool
        switch = Switch(flag, flag)
        switch_t = Identity(switch:1)
        switch_f = Identity(switch)
        pred = Identity(flag)
        in_t = Switch(x, pred)
        in_f = Switch(x, pred)
        t = Dropout(in_t:1)
        f = Identity(in_f)
        merge = Merge(f, t)
        constant_t = Const(^switch_t)
        constant_f = Const(^switch_f)
        choice = Merge(constant_f, constant_t)";

    #[test]
    fn a_flag_decides_a_branch() {
        let net = net(COND);
        assert_eq!(resolved(&net, "merge", false), "x:0");
        assert_eq!(resolved(&net, "merge", true), "t:0");
        assert_eq!(resolved(&net, "in_t:1", true), "x:0");
    }

    #[test]
    fn dropout_is_taken_on_either_side() {
        let cond = |dropout: &str| {
            net(&format!(
                "
                x = Placeholder() | dtype=:float shape=<?,4>
                flag = Placeholder() | dtype=:bool
                in_t = Switch(x, flag)
                in_f = Switch(x, flag)
                shape = Shape(in_t:1)
                rate = Const() | value=f32<>[0.4]
                random = RandomUniform(shape)
                mask = GreaterEqual(random, rate)
                cast = Cast(mask)
                {dropout}
                f = Identity(in_f)
                merge = Merge(f, t)"
            ))
        };
        let dropout = cond("scaled = RealDiv(in_t:1, rate)\nt = Mul(scaled, cast)");
        assert_eq!(
            (resolved(&dropout, "merge", false), resolved(&dropout, "merge", true)),
            ("t:0".into(), "t:0".into())
        );
        // Without a scale it is something else, and so is what adds.
        for other in
            ["t = Mul(in_t:1, cast)", "sum = Add(in_t:1, rate)\nscaled = RealDiv(sum, rate)\nt = Mul(scaled, cast)"]
        {
            assert_eq!(resolved(&cond(other), "merge", false), "x:0");
        }
    }

    #[test]
    fn control_inputs_tell_the_side_of_a_constant() {
        let net = net(COND);
        assert_eq!(resolved(&net, "choice", false), "constant_f:0");
        assert_eq!(resolved(&net, "choice", true), "constant_t:0");
    }

    #[test]
    fn flags_combine_and_data_decides_nothing() {
        let net = net("
            flag = PlaceholderWithDefault(yes) | dtype=:bool shape=<>
            yes = Const() | value=bool<>[1]
            not = LogicalNot(flag)
            and = LogicalAnd(not, yes)
            data = Greater(a, b)
            a = Placeholder() | dtype=:float shape=<>
            b = Placeholder() | dtype=:float shape=<>
            s = Switch(a, data)
            m = Merge(s, s:1)");
        let resolver = Resolver::new(&net, false, HashSet::new());
        assert_eq!(resolver.truth(net.find("and").unwrap()), Some(true));
        assert_eq!(resolver.truth(net.find("data").unwrap()), None);
        assert_eq!(resolved(&net, "m", false), "m:0");
    }

    #[test]
    fn defaults_of_scalars_count_and_those_of_data_do_not() {
        let net = net("
            k = Const() | value=f32<>[1]
            keep = PlaceholderWithDefault(k) | dtype=:float shape=<>
            q = QueueDequeueV2(queue)
            queue = FIFOQueueV2()
            data = PlaceholderWithDefault(q) | dtype=:float shape=<?,4>
            y = Identity(data)");
        assert_eq!(resolved(&net, "keep", false), "k:0");
        assert_eq!(resolved(&net, "y", false), "data:0");
    }

    #[test]
    fn loops_of_identities_end() {
        let net = net("a = Identity(b)\nb = Identity(a)");
        let name = resolved(&net, "a", false);
        assert!(name == "a:0" || name == "b:0");
    }
}
