//! Loops (`tf.while_loop`, `dynamic_rnn`, recurrent layers of Keras) that run a number of steps which is known: their
//! steps are written one after the other.
//!
//! ```text
//! Enter -> Merge -> Switch -> body -> NextIteration -> Merge
//!          Merge -> condition -> LoopCond        Switch -> Exit
//! ```
//! is how TensorFlow 1 writes a loop (`core/graph/control_flow.h`); those of control flow 2 are brought into this form
//! by [`functions`](super::functions). A loop's condition is taken if it compares counters with bounds.
//!
//! With `sequence_length` a loop also ends behind the longest sequence. All steps are written then: those behind the end
//! of a sequence keep its state and give zeros, as what is never written is.

use std::collections::{HashMap, HashSet};

use super::graphdef::NodeDef;
use super::net::{Net, Ref};

/// The attribute of a `LoopCond` that tells from which operator it was made.
pub const SOURCE: &str = "_source";
/// Most steps of a loop.
const MAX_STEPS: i64 = 4096;
/// Most nodes of a graph whose loops are written out.
const MAX_NODES: usize = 1 << 18;
/// How many nodes that pass a value on may follow each other.
const MAX_PASSED: usize = 64;

/// A loop.
#[derive(Debug)]
pub struct Loop {
    /// The name of what it computes, without its last part: `rnn/while`.
    pub name: String,
    /// The operator that it was written with.
    pub op: String,
    variables: Vec<Variable>,
    /// The condition, if it is understood.
    counters: Option<Vec<Counter>>,
    /// Where counters leave the loop that is written with more steps than it runs.
    overrun: Vec<usize>,
    /// Nodes that depend on a variable, among them all that belong to the loop's form.
    inside: HashSet<usize>,
}

/// What a step hands on to the next.
#[derive(Debug)]
struct Variable {
    merge: usize,
    start: Ref,
    next: Ref,
    exits: Vec<usize>,
}

/// A part of the condition: the loop goes on while a counter is below its bound.
#[derive(Debug)]
struct Counter {
    /// The `Merge` of its variable.
    variable: usize,
    start: Ref,
    step: Ref,
    bound: Ref,
    /// Whether it goes on at the bound itself.
    inclusive: bool,
}

impl Loop {
    /// The numbers that say how many steps there are.
    pub fn numbers(&self) -> impl Iterator<Item = Ref> {
        self.counters.iter().flatten().flat_map(|counter| [counter.start, counter.step, counter.bound])
    }

    /// How many steps there are, when `number` knows its [numbers](Loop::numbers).
    pub fn steps(&self, number: impl Fn(Ref) -> Option<i64>) -> Option<usize> {
        let steps = self.counters.as_ref()?.iter().map(|counter| {
            let (start, step, bound) = (number(counter.start)?, number(counter.step)?, number(counter.bound)?);
            let distance = bound.checked_sub(start)?.checked_add(i64::from(counter.inclusive))?.max(0);
            (step > 0).then(|| distance / step + i64::from(distance % step > 0))
        });
        let steps = steps.collect::<Option<Vec<i64>>>()?.into_iter().min()?;
        usize::try_from(steps).ok().filter(|_| steps <= MAX_STEPS)
    }

    /// Whether two loops lie in each other.
    pub fn overlaps(&self, other: &Loop) -> bool {
        !self.inside.is_disjoint(&other.inside)
    }

    /// Whether a node is part of the loop.
    pub fn contains(&self, node: usize) -> bool {
        self.inside.contains(&node)
    }

    /// Whether a node has a value for every step, and none behind the loop.
    pub fn repeats(&self, node: usize) -> bool {
        self.contains(node) && !self.variables.iter().any(|variable| variable.exits.contains(&node))
    }
}

/// All loops of a graph, in file order.
pub fn find(net: &Net) -> Vec<Loop> {
    (0..net.len()).filter(|&index| net.op(index) == "LoopCond").filter_map(|index| found(net, index)).collect()
}

fn found(net: &Net, condition: usize) -> Option<Loop> {
    let mut variables = Vec::new();
    let mut own = HashSet::from([condition]);
    for &switch in net.readers(condition) {
        let merge = net.input(switch, 0)?.node;
        if !matches!(net.op(switch), "Switch" | "RefSwitch") || !matches!(net.op(merge), "Merge" | "RefMerge") {
            return None;
        }
        let (mut start, mut next) = (None, None);
        for value in net.inputs(merge).iter().flatten() {
            match net.op(value.node) {
                "Enter" | "RefEnter" => start = net.input(value.node, 0),
                "NextIteration" | "RefNextIteration" => {
                    next = net.input(value.node, 0);
                    own.insert(value.node);
                }
                _ => return None,
            }
        }
        let exits = net.readers(switch).iter().copied().filter(|&exit| matches!(net.op(exit), "Exit" | "RefExit"));
        let exits: Vec<usize> = exits.collect();
        own.extend([merge, switch].iter().chain(&exits));
        variables.push(Variable { merge, start: start?, next: next?, exits });
    }
    let mut inside = HashSet::new();
    let mut stack: Vec<usize> = variables.iter().map(|variable| variable.merge).collect();
    let exits: HashSet<usize> = variables.iter().flat_map(|variable| &variable.exits).copied().collect();
    while let Some(index) = stack.pop() {
        if inside.insert(index) && !exits.contains(&index) {
            stack.extend_from_slice(net.readers(index));
        }
    }
    inside.extend(own);
    let name = net.node(condition).name.rsplit_once('/').map_or(String::new(), |(scope, _)| scope.to_owned());
    let op = net.node(condition).text(SOURCE).unwrap_or("LoopCond").to_owned();
    let mut found = Loop { name, op, variables, counters: None, overrun: Vec::new(), inside };
    let counters = net.input(condition, 0).and_then(|value| found.conjuncts(net, value, 0));
    if let Some((counters, all)) = counters.map(|counters| found.without_idle(net, counters)) {
        found.overrun = if all { Vec::new() } else { found.counter_exits(net) };
        found.counters = Some(counters);
    }
    Some(found)
}

impl Loop {
    fn conjuncts(&self, net: &Net, value: Ref, depth: usize) -> Option<Vec<Counter>> {
        let value = passed(net, value);
        let operand = |slot| net.input(value.node, slot).map(|value| passed(net, value));
        let (left, right) = (operand(0)?, operand(1)?);
        let inclusive = net.op(value.node).ends_with("Equal");
        match net.op(value.node) {
            "LogicalAnd" if depth < MAX_PASSED => {
                let mut all = self.conjuncts(net, left, depth + 1)?;
                all.extend(self.conjuncts(net, right, depth + 1)?);
                Some(all)
            }
            "Less" | "LessEqual" => self.counters(net, left, right, inclusive),
            "Greater" | "GreaterEqual" => self.counters(net, right, left, inclusive),
            _ => None,
        }
    }

    /// A variable that grows by a number which stays the same, below each of some bounds.
    fn counters(&self, net: &Net, value: Ref, bound: Ref, inclusive: bool) -> Option<Vec<Counter>> {
        let variable = self.variables.iter().find(|variable| variable.merge == value.node)?;
        let step = increment(net, variable)?;
        let (step, bound) = (self.fixed(net, step)?, self.fixed(net, bound)?);
        let counter = |bound| Counter { variable: variable.merge, start: variable.start, step, bound, inclusive };
        Some(operands(net, bound, "Minimum").into_iter().map(counter).collect())
    }

    /// The counters without those whose bound is the length of the longest sequence, where steps beyond it do nothing;
    /// and whether these are all.
    fn without_idle(&self, net: &Net, counters: Vec<Counter>) -> (Vec<Counter>, bool) {
        let count = counters.len();
        let is_idle = |counter: &Counter| {
            let longest = |value: &Ref| (net.op(value.node) == "Max").then(|| net.input(value.node, 0)).flatten();
            let lengths = operands(net, counter.bound, "Maximum").iter().find_map(longest);
            !counter.inclusive && lengths.is_some_and(|lengths| self.idles(net, counter.variable, passed(net, lengths)))
        };
        let left: Vec<Counter> = counters.into_iter().filter(|counter| !is_idle(counter)).collect();
        let all = left.len() == count;
        (left, all)
    }

    /// Whether steps at `time >= lengths` keep every variable and write zeros at most.
    fn idles(&self, net: &Net, time: usize, lengths: Ref) -> bool {
        let time = Ref { node: time, output: 0 };
        let input = |value: Ref, slot| net.input(value.node, slot).map(|value| passed(net, value));
        let outside = |value: Ref| self.fixed(net, value).map(|value| passed(net, value));
        // What a step has in place of its result when the sequence has ended.
        let ended = |value: Ref| {
            let condition = input(value, 0)?;
            let is_end = net.op(condition.node) == "GreaterEqual"
                && input(condition, 0) == Some(time)
                && input(condition, 1).and_then(outside) == Some(lengths);
            (matches!(net.op(value.node), "Select" | "SelectV2") && is_end).then(|| input(value, 1)).flatten()
        };
        let keeps = |variable: &Variable| {
            let (before, after) = (Ref { node: variable.merge, output: 0 }, passed(net, variable.next));
            match net.op(after.node) {
                "TensorArrayWriteV3" | "TensorListSetItem" => {
                    let item = input(after, 2).and_then(ended);
                    input(after, 1) == Some(time) && item.and_then(outside).is_some_and(|item| is_zero(net, item))
                }
                _ => after == before || ended(after) == Some(before) || increment(net, variable).is_some(),
            }
        };
        self.variables.iter().all(keeps)
    }

    fn counter_exits(&self, net: &Net) -> Vec<usize> {
        let counters = self.variables.iter().filter(|variable| increment(net, variable).is_some());
        counters.flat_map(|variable| variable.exits.iter().copied()).collect()
    }

    /// What a value is in every step, if it is always the same: from outside, or a variable that is handed on as it is.
    fn fixed(&self, net: &Net, value: Ref) -> Option<Ref> {
        if !self.inside.contains(&value.node) {
            return Some(value);
        }
        let variable = self.variables.iter().find(|variable| variable.merge == value.node)?;
        (passed(net, variable.next) == value).then_some(variable.start)
    }

    /// The graph's nodes with this loop's `steps` in place of the loop: what changes, and new nodes behind the end.
    /// `None` when there would be too many, or when a count is read that they change. Results in `wanted` stay if nothing reads them.
    pub fn unrolled(&self, net: &Net, steps: usize, wanted: &HashSet<usize>) -> Option<Vec<(usize, NodeDef)>> {
        if self.overrun.iter().any(|&node| is_read(net, Ref { node, output: 0 }, wanted, 0)) {
            return None;
        }
        let switches: HashMap<usize, usize> = self.merges(net);
        let form = |index: usize| switches.contains_key(&index);
        // What a step computes, as far as the next one needs it.
        let mut body = Vec::new();
        let mut seen = HashSet::new();
        let mut stack: Vec<usize> = self.variables.iter().map(|variable| variable.next.node).collect();
        while let Some(index) = stack.pop() {
            if self.inside.contains(&index) && !form(index) && seen.insert(index) {
                body.push(index);
                stack.extend(net.inputs(index).iter().flatten().map(|value| value.node));
            }
        }
        body.sort_unstable();
        if body.len().checked_mul(steps).is_none_or(|count| count + net.len() > MAX_NODES) {
            return None;
        }
        let mut edits: Vec<(usize, NodeDef)> = Vec::with_capacity(self.inside.len() + body.len() * steps);
        let mut current: Vec<String> = self.variables.iter().map(|variable| text(net, variable.start)).collect();
        let mut taken = HashSet::new();
        for step in 0..steps {
            let names: HashMap<usize, String> =
                body.iter().map(|&index| (index, self.copy_name(net, index, step, &mut taken))).collect();
            let mapped = |value: Ref| match (switches.get(&value.node), names.get(&value.node)) {
                (Some(&variable), _) => current[variable].clone(),
                (None, Some(name)) if value.output == 0 => name.clone(),
                (None, Some(name)) => format!("{name}:{}", value.output),
                (None, None) => text(net, value),
            };
            for &index in &body {
                let node = net.node(index);
                // An input that is not in the graph keeps its name, to be reported.
                let data = node.inputs.iter().filter(|input| !input.starts_with('^'));
                let inputs = data.zip(net.inputs(index));
                let inputs = inputs.map(|(name, input)| input.map_or_else(|| name.clone(), &mapped)).collect();
                let copy =
                    NodeDef { name: names[&index].clone(), op: node.op.clone(), inputs, attrs: node.attrs.clone() };
                edits.push((usize::MAX, copy));
            }
            current = self.variables.iter().map(|variable| mapped(variable.next)).collect();
        }
        let mut results: HashMap<usize, String> = HashMap::new();
        for (variable, value) in self.variables.iter().zip(current) {
            let read = |exit: &&usize| !net.readers(**exit).is_empty() || wanted.contains(*exit);
            results.extend(variable.exits.iter().filter(read).map(|&exit| (exit, value.clone())));
        }
        // What is left of the loop must not look like ends of the network, nor like a cycle.
        edits.extend(self.inside.iter().map(|&index| {
            let name = net.node(index).name.clone();
            let (op, inputs) = match results.remove(&index) {
                Some(value) => ("Identity", vec![value]),
                None => ("NoOp", Vec::new()),
            };
            (index, NodeDef { name, op: op.to_owned(), inputs, attrs: Default::default() })
        }));
        Some(edits)
    }

    /// The number of the variable that a `Merge` or `Switch` of the loop hands on.
    fn merges(&self, net: &Net) -> HashMap<usize, usize> {
        let merges = self.variables.iter().map(|variable| variable.merge).enumerate();
        let both = merges.flat_map(|(number, merge)| {
            let readers = net.readers(merge).iter().copied();
            let switches = readers.filter(|&reader| {
                let condition = net.input(reader, 1).map(|value| net.op(value.node));
                net.op(reader).ends_with("Switch") && condition == Some("LoopCond")
            });
            switches.chain([merge]).map(move |index| (index, number))
        });
        both.collect()
    }

    /// The loop's own scope says nothing, and variables are outside of it: `rnn/while/cell/MatMul` is
    /// `rnn/cell/MatMul_3` in the fourth step.
    fn copy_name(&self, net: &Net, index: usize, step: usize, taken: &mut HashSet<String>) -> String {
        let name = &net.node(index).name;
        let inner = name.strip_prefix(&self.name).and_then(|inner| inner.strip_prefix('/'));
        let name = match (inner, self.name.rsplit_once('/')) {
            (Some(inner), outer) => {
                let inner = inner.strip_prefix("body/").unwrap_or(inner);
                outer.map_or_else(|| inner.to_owned(), |(outer, _)| format!("{outer}/{inner}"))
            }
            (None, _) => name.clone(),
        };
        let mut copy = format!("{name}_{step}");
        while net.find(&copy).is_some() || !taken.insert(copy.clone()) {
            copy.push('_');
        }
        copy
    }
}

/// Whether something computes with a value, or it is wanted.
fn is_read(net: &Net, value: Ref, wanted: &HashSet<usize>, depth: usize) -> bool {
    let reads = |reader: usize| {
        net.inputs(reader).iter().enumerate().filter(|(_, input)| **input == Some(value)).any(|(slot, _)| {
            let output = match net.op(reader) {
                "Identity" => 0,
                "IdentityN" => slot,
                _ => return true,
            };
            depth >= MAX_PASSED || is_read(net, Ref { node: reader, output }, wanted, depth + 1)
        })
    };
    wanted.contains(&value.node) || net.readers(value.node).iter().any(|reader| reads(*reader))
}

/// What a variable grows by in every step.
fn increment(net: &Net, variable: &Variable) -> Option<Ref> {
    let sum = passed(net, variable.next);
    let operand = |slot| net.input(sum.node, slot).map(|value| passed(net, value));
    let value = Ref { node: variable.merge, output: 0 };
    match (net.op(sum.node), operand(0)?, operand(1)?) {
        ("Add" | "AddV2", left, step) if left == value => Some(step),
        ("Add" | "AddV2", step, right) if right == value => Some(step),
        _ => None,
    }
}

/// What a nested `Minimum` or `Maximum` compares, or the value itself.
fn operands(net: &Net, value: Ref, op: &str) -> Vec<Ref> {
    let (mut found, mut stack) = (Vec::new(), vec![value]);
    while let Some(value) = stack.pop() {
        let value = passed(net, value);
        if net.op(value.node) == op && found.len() + stack.len() < MAX_PASSED {
            stack.extend(net.inputs(value.node).iter().flatten());
        } else {
            found.push(value);
        }
    }
    found
}

fn is_zero(net: &Net, value: Ref) -> bool {
    let number = match net.op(value.node) {
        "ZerosLike" => return true,
        "Fill" => net.input(value.node, 1).map(|value| passed(net, value)),
        _ => Some(value),
    };
    let tensor = number.and_then(|number| net.node(number.node).tensor("value"));
    tensor.is_some_and(|tensor| tensor.to_f64().is_ok_and(|numbers| numbers.iter().all(|number| *number == 0.0)))
}

/// What a value is, seen through nodes that pass it on: a variable of a loop is its `Merge`.
fn passed(net: &Net, mut value: Ref) -> Ref {
    for _ in 0..MAX_PASSED {
        let slot = match net.op(value.node) {
            "Identity" | "Enter" | "RefEnter" | "Switch" | "RefSwitch" => 0,
            "IdentityN" => value.output,
            _ => break,
        };
        match net.input(value.node, slot) {
            Some(source) => value = source,
            None => break,
        }
    }
    value
}

fn text(net: &Net, value: Ref) -> String {
    let name = &net.node(value.node).name;
    if value.output == 0 { name.clone() } else { format!("{name}:{}", value.output) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorflow::testing::net;

    const LOOP: &str = "
        zero = Const() | value=i32<>[0]
        bound = Const() | value=i32<>[3]
        x = Placeholder() | dtype=:float shape=<?,4>
        rnn/while/Enter = Enter(zero)
        rnn/while/Enter_1 = Enter(x)
        rnn/while/Merge = Merge(rnn/while/Enter, rnn/while/NextIteration)
        rnn/while/Merge_1 = Merge(rnn/while/Enter_1, rnn/while/NextIteration_1)
        rnn/while/Less/Enter = Enter(bound)
        rnn/while/Less = Less(rnn/while/Merge, rnn/while/Less/Enter)
        rnn/while/LoopCond = LoopCond(rnn/while/Less)
        rnn/while/Switch = Switch(rnn/while/Merge, rnn/while/LoopCond)
        rnn/while/Switch_1 = Switch(rnn/while/Merge_1, rnn/while/LoopCond)
        rnn/while/Identity = Identity(rnn/while/Switch:1)
        rnn/while/one = Const(^rnn/while/Identity) | value=i32<>[2]
        rnn/while/add = AddV2(rnn/while/Identity, rnn/while/one)
        rnn/while/cell/Tanh = Tanh(rnn/while/Switch_1:1)
        rnn/while/NextIteration = NextIteration(rnn/while/add)
        rnn/while/NextIteration_1 = NextIteration(rnn/while/cell/Tanh)
        rnn/while/Exit = Exit(rnn/while/Switch)
        rnn/while/Exit_1 = Exit(rnn/while/Switch_1)
        y = Relu(rnn/while/Exit_1)";

    #[test]
    fn steps_follow_each_other() {
        let net = net(LOOP);
        let found = find(&net);
        let [found] = found.as_slice() else { panic!("one loop") };
        let number = |value: Ref| net.node(value.node).tensor("value")?.to_i64().ok()?.first().copied();
        assert_eq!((found.name.as_str(), found.steps(number)), ("rnn/while", Some(2)));

        let edits = found.unrolled(&net, 2, &HashSet::new()).unwrap();
        let line = |node: &NodeDef| format!("{} = {}({})", node.name, node.op, node.inputs.join(", "));
        let lines: Vec<String> = edits.iter().map(|(_, node)| line(node)).filter(|l| !l.contains("NoOp")).collect();
        assert_eq!(
            lines,
            [
                "rnn/Identity_0 = Identity(zero)",
                "rnn/add_0 = AddV2(rnn/Identity_0, rnn/while/one)",
                "rnn/cell/Tanh_0 = Tanh(x)",
                "rnn/Identity_1 = Identity(rnn/add_0)",
                "rnn/add_1 = AddV2(rnn/Identity_1, rnn/while/one)",
                "rnn/cell/Tanh_1 = Tanh(rnn/cell/Tanh_0)",
                "rnn/while/Exit_1 = Identity(rnn/cell/Tanh_1)",
            ]
        );
    }

    /// As `dynamic_rnn` writes it, with `sequence_length`.
    const LENGTHS: &str = "
        lengths = Placeholder() | dtype=:int32 shape=<?>
        axis = Const() | value=i32<1>[0]
        longest = Max(lengths, axis)
        one = Const() | value=i32<>[1]
        some = Maximum(one, longest)
        all = Const() | value=i32<>[3]
        bound = Minimum(all, some)
        time = Const() | value=i32<>[0]
        x = Placeholder() | dtype=:float shape=<?,4>
        null = Const() | value=f32<>[0]
        zeros = ZerosLike(x)
        array = TensorArrayV3(all)
        rnn/Enter = Enter(time)
        rnn/Enter_1 = Enter(x)
        rnn/Enter_2 = Enter(array:1)
        rnn/Merge = Merge(rnn/Enter, rnn/Next)
        rnn/Merge_1 = Merge(rnn/Enter_1, rnn/Next_1)
        rnn/Merge_2 = Merge(rnn/Enter_2, rnn/Next_2)
        rnn/Less/Enter = Enter(bound)
        rnn/Less = Less(rnn/Merge, rnn/Less/Enter)
        rnn/LoopCond = LoopCond(rnn/Less)
        rnn/Switch = Switch(rnn/Merge, rnn/LoopCond)
        rnn/Switch_1 = Switch(rnn/Merge_1, rnn/LoopCond)
        rnn/Switch_2 = Switch(rnn/Merge_2, rnn/LoopCond)
        rnn/add = AddV2(rnn/Switch:1, one)
        rnn/Tanh = Tanh(rnn/Switch_1:1)
        rnn/lengths = Enter(lengths)
        rnn/ended = GreaterEqual(rnn/Switch:1, rnn/lengths)
        rnn/zeros = Enter(zeros)
        rnn/output = Select(rnn/ended, rnn/zeros, rnn/Tanh)
        rnn/state = Select(rnn/ended, rnn/Switch_1:1, rnn/Tanh)
        rnn/array = Enter(array)
        rnn/write = TensorArrayWriteV3(rnn/array, rnn/Switch:1, rnn/output, rnn/Switch_2:1)
        rnn/Next = NextIteration(rnn/add)
        rnn/Next_1 = NextIteration(rnn/state)
        rnn/Next_2 = NextIteration(rnn/write)
        rnn/Exit = Exit(rnn/Switch)
        rnn/Exit_1 = Exit(rnn/Switch_1)
        rnn/Exit_2 = Exit(rnn/Switch_2)
        y = Relu(rnn/Exit_1)";

    /// A number that is a constant.
    fn constant(net: &Net, value: Ref) -> Option<i64> {
        net.node(value.node).tensor("value")?.to_i64().ok()?.first().copied()
    }

    #[test]
    fn steps_behind_the_longest_sequence_do_nothing() {
        let net = net(LENGTHS);
        let found = &find(&net)[0];
        assert_eq!(found.steps(|value| constant(&net, value)), Some(3));
        assert!(found.unrolled(&net, 3, &HashSet::new()).is_some());
        // The number of steps that ran is another one than that of those written.
        let exit = net.find("rnn/Exit").unwrap().node;
        assert!(found.unrolled(&net, 3, &HashSet::from([exit])).is_none());
    }

    #[test]
    fn steps_that_do_something_must_be_counted() {
        let ended = "Select(rnn/ended, rnn/Switch_1:1, rnn/Tanh)";
        let misses = [
            LENGTHS.replace(ended, "Identity(rnn/Tanh)"),
            LENGTHS.replace(ended, "Select(rnn/ended, rnn/Tanh, rnn/Switch_1:1)"),
            LENGTHS.replace("Select(rnn/ended, rnn/zeros,", "Select(rnn/ended, rnn/Switch_1:1,"),
            LENGTHS.replace("ZerosLike(x)", "Relu(x)"),
            LENGTHS.replace("GreaterEqual(rnn/Switch:1,", "Greater(rnn/Switch:1,"),
            LENGTHS.replace("rnn/lengths = Enter(lengths)", "rnn/lengths = Enter(others)\nothers = Neg(lengths)"),
            LENGTHS.replace("rnn/array, rnn/Switch:1,", "rnn/array, one,"),
            LENGTHS.replace("Less(rnn/Merge,", "LessEqual(rnn/Merge,"),
        ];
        for (index, text) in misses.iter().enumerate() {
            let net = net(text);
            assert_eq!(find(&net)[0].steps(|value| constant(&net, value)), None, "{index}");
        }
    }

    #[test]
    fn what_depends_on_data_is_no_counter() {
        let changed = LOOP.replace("Less(rnn/while/Merge, ", "Less(rnn/while/Merge_1, ");
        let grown = LOOP.replace("AddV2(rnn/while/Identity, ", "Mul(rnn/while/Identity, ");
        for text in [changed, grown] {
            assert_eq!(find(&net(&text))[0].steps(|_| Some(1)), None);
        }
    }
}
