//! Which modules can be called as a whole, and what enters and leaves them.
//!
//! In the source every module that was called is one call. Where passes moved something, or where the source calls
//! parts of a module from outside, the module is opened: it keeps its parts and their names, and the module around it
//! calls these.

use std::collections::{BTreeSet, HashMap, HashSet};

use modelport_ir::{Graph, Value};

use super::tree::{Tree, is_torch_class};

/// One call in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A leaf, by the number of its call.
    Call(usize),
    /// A module that is called as a whole.
    Module(usize),
}

/// The content of a module that is called: its calls in order.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Calls, in the order of the source.
    pub parts: Vec<Part>,
    /// What enters.
    pub inputs: Vec<Value>,
    /// What leaves.
    pub outputs: Vec<Value>,
}

/// Blocks of all modules that are called, the root's included.
pub fn blocks(tree: &mut Tree, graph: &Graph) -> HashMap<usize, Block> {
    dissolve(tree);
    loop {
        let (blocks, bad) = attempt(tree, graph);
        match bad {
            Some(module) => tree.modules[module].open = true,
            None => return blocks,
        }
    }
}

/// Functions that the source wrote as modules without weights, and that no module of the target says: they are written
/// out where they are used, unless a chain needs them.
fn dissolve(tree: &mut Tree) {
    for index in 1..tree.modules.len() {
        let module = &tree.modules[index];
        let in_chain = module.name.parse::<usize>().is_ok();
        let plain = module.tensors.is_empty() && module.children.iter().all(|&child| !tree.modules[child].used);
        if module.layer.is_none() && plain && !in_chain && is_torch_class(&module.class) {
            tree.modules[index].open = true;
        }
    }
}

/// The modules above each call that are called as a whole, from the inside out.
fn callers(tree: &Tree, home: usize) -> Vec<usize> {
    tree.upwards(home).filter(|&at| at == 0 || tree.is_called(at)).collect()
}

fn attempt(tree: &Tree, graph: &Graph) -> (HashMap<usize, Block>, Option<usize>) {
    let mut blocks: HashMap<usize, Block> = HashMap::from([(0, Block::default())]);
    let mut readers: HashMap<Value, Vec<usize>> = HashMap::new();
    let mut above: Vec<Vec<usize>> = Vec::with_capacity(tree.calls.len());
    for (index, call) in tree.calls.iter().enumerate() {
        for value in &call.operands {
            readers.entry(*value).or_default().push(index);
        }
        let callers = callers(tree, call.home);
        let mut part = Part::Call(index);
        for &caller in &callers {
            let parts = &mut blocks.entry(caller).or_default().parts;
            if !parts.contains(&part) {
                parts.push(part);
            }
            part = Part::Module(caller);
        }
        above.push(callers);
    }
    let makers: HashMap<Value, usize> =
        tree.calls.iter().enumerate().flat_map(|(i, call)| call.results.iter().map(move |&value| (value, i))).collect();
    // Part of a block in which a call lies.
    let part_in = |block: usize, call: usize| -> Option<Part> {
        let place = above[call].iter().position(|&at| at == block)?;
        Some(if place == 0 { Part::Call(call) } else { Part::Module(above[call][place - 1]) })
    };
    let mut order: Vec<usize> = blocks.keys().copied().collect();
    // The innermost first, so that the smallest is opened.
    order.sort_by_key(|&block| (std::cmp::Reverse(tree.upwards(block).count()), block));
    for &block in &order {
        let parts = blocks[&block].parts.clone();
        let place: HashMap<Key, usize> = parts.iter().enumerate().map(|(i, part)| (key(*part), i)).collect();
        let mut sources: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); parts.len()];
        let mut leaving = Vec::new();
        let inside = (0..tree.calls.len()).filter(|&call| above[call].contains(&block));
        for call in inside {
            let Some(to) = part_in(block, call).and_then(|part| place.get(&key(part)).copied()) else { continue };
            for value in &tree.calls[call].operands {
                let from = makers.get(value).and_then(|&maker| part_in(block, maker));
                if let Some(from) = from.and_then(|part| place.get(&key(part)).copied())
                    && from != to
                {
                    sources[to].insert(from);
                }
            }
            for value in &tree.calls[call].results {
                let read = readers.get(value).is_some_and(|all| all.iter().any(|&r| !above[r].contains(&block)));
                if read || (block != 0 && graph.outputs.iter().any(|port| port.value == *value)) {
                    leaving.push(*value);
                }
            }
        }
        let (sorted, stuck) = topological(&sources);
        if !stuck.is_empty() {
            // The smallest module on the circle is opened.
            let size = |module: usize| above.iter().filter(|callers| callers.contains(&module)).count();
            let modules = stuck.iter().filter_map(|&i| match parts[i] {
                Part::Module(module) => Some(module),
                Part::Call(_) => None,
            });
            if let Some(module) = modules.min_by_key(|&module| (size(module), module)) {
                return (blocks, Some(module));
            }
        }
        let parts: Vec<Part> = sorted.into_iter().map(|i| parts[i]).collect();
        let outputs = if block == 0 { graph.outputs.iter().map(|port| port.value).collect() } else { leaving };
        if let Some(entry) = blocks.get_mut(&block) {
            entry.parts = parts;
            entry.outputs = outputs;
        }
        // What enters: values from outside, and weights that others hold, by first use.
        let mut seen = HashSet::new();
        let mut inputs = Vec::new();
        for part in blocks[&block].parts.clone() {
            for value in operands(tree, &blocks, part) {
                let made = makers.get(&value).is_some_and(|&maker| above[maker].contains(&block));
                let held = tree.homes.get(&value).is_some_and(|(home, _)| tree.is_in(*home, block));
                if !made && !held && seen.insert(value) {
                    inputs.push(value);
                }
            }
        }
        if block == 0 {
            inputs = graph.inputs.iter().map(|port| port.value).collect();
        }
        if let Some(entry) = blocks.get_mut(&block) {
            entry.inputs = inputs;
        }
        if tree.modules[block].is_chain && chain(tree, &blocks, block).is_none() {
            return (blocks, Some(block));
        }
    }
    (blocks, None)
}

/// What can be hashed of a part.
type Key = (bool, usize);

fn key(part: Part) -> Key {
    match part {
        Part::Call(call) => (false, call),
        Part::Module(module) => (true, module),
    }
}

/// An order in which each follows its sources, else as given; and those that lie on circles.
fn topological(sources: &[BTreeSet<usize>]) -> (Vec<usize>, Vec<usize>) {
    let mut missing: Vec<usize> = sources.iter().map(BTreeSet::len).collect();
    let mut readers = vec![Vec::new(); sources.len()];
    for (to, from) in sources.iter().enumerate() {
        from.iter().for_each(|&from| readers[from].push(to));
    }
    let mut ready: BTreeSet<usize> = (0..sources.len()).filter(|&i| missing[i] == 0).collect();
    let mut order = Vec::with_capacity(sources.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &to in &readers[i] {
            missing[to] -= 1;
            if missing[to] == 0 {
                ready.insert(to);
            }
        }
    }
    // Of what is stuck, only what something stuck reads lies on a circle.
    let mut stuck: BTreeSet<usize> = (0..sources.len()).filter(|&i| missing[i] > 0).collect();
    while let Some(&end) = stuck.iter().find(|&&i| !stuck.iter().any(|&reader| sources[reader].contains(&i))) {
        stuck.remove(&end);
    }
    (order, stuck.into_iter().collect())
}

/// What a part reads.
pub fn operands(tree: &Tree, blocks: &HashMap<usize, Block>, part: Part) -> Vec<Value> {
    match part {
        Part::Call(call) => tree.calls[call].operands.clone(),
        Part::Module(module) => blocks.get(&module).map(|block| block.inputs.clone()).unwrap_or_default(),
    }
}

/// What a part makes.
pub fn results(tree: &Tree, blocks: &HashMap<usize, Block>, part: Part) -> Vec<Value> {
    match part {
        Part::Call(call) => tree.calls[call].results.clone(),
        Part::Module(module) => blocks.get(&module).map(|block| block.outputs.clone()).unwrap_or_default(),
    }
}

/// The children of a module in order, if its calls are a chain of them, each called once: what `nn.Sequential` does.
/// `None` stands for an index at which nothing is left.
pub fn chain(tree: &Tree, blocks: &HashMap<usize, Block>, module: usize) -> Option<Vec<Option<usize>>> {
    let block = blocks.get(&module)?;
    let ([input], [output]) = (block.inputs.as_slice(), block.outputs.as_slice()) else { return None };
    if !tree.modules[module].tensors.is_empty() {
        return None;
    }
    let mut at = *input;
    let mut called = Vec::new();
    for (index, &part) in block.parts.iter().enumerate() {
        let child = match part {
            Part::Module(child) => child,
            Part::Call(call) => match tree.calls[call].references.as_slice() {
                [super::tree::Reference::Module(child)] if tree.modules[*child].layer.is_some() => *child,
                _ => return None,
            },
        };
        let (read, made) = (operands(tree, blocks, part), results(tree, blocks, part));
        let (&[operand], &[result]) = (read.as_slice(), made.as_slice()) else { return None };
        let last = index + 1 == block.parts.len();
        if operand != at || tree.modules[child].parent != Some(module) || (!last && result == *output) {
            return None;
        }
        at = result;
        called.push(child);
    }
    if at != *output || called.is_empty() {
        return None;
    }
    let numbers: Option<Vec<usize>> = called.iter().map(|&child| tree.modules[child].name.parse().ok()).collect();
    let Some(numbers) = numbers else { return Some(called.into_iter().map(Some).collect()) };
    // Numbers must rise; what is missing did nothing.
    let last = *numbers.last()?;
    if !numbers.windows(2).all(|pair| pair[0] < pair[1]) || last > 4 * called.len() + 64 {
        return None;
    }
    let mut entries = vec![None; last + 1];
    for (number, child) in numbers.into_iter().zip(called) {
        entries[number] = Some(child);
    }
    Some(entries)
}
