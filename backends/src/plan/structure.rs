//! Structure where scopes say nothing: layers with their norm and activation, blocks between cut vertices, stages.
//!
//! A region with many loose children is cut where all dataflow passes through one value: what lies between two
//! neighbouring cuts is a block (a residual or inception block is exactly that), and neighbouring blocks of one output
//! shape are a stage. Equal blocks become one class later, as equal scopes do.

use std::collections::{BTreeMap, HashMap, HashSet};

use modelport_ir::{Graph, NodeId, Op, Value};

use super::block::Block;
use super::branches;
use super::leaf::Leaf;
use super::region::{Child, Region, Tree};

/// Fewest equal chains of layers that are worth a class.
const CHAINS: usize = 3;
/// Most loose children of a region that is left as it is.
const LOOSE: usize = 14;

/// Groups the loose children of all regions.
pub fn find(tree: &mut Tree, graph: &Graph, leaves: &[Leaf]) {
    for region in 0..tree.regions.len() {
        chains(tree, graph, leaves, region);
        if tree.regions[region].children.len() > LOOSE {
            let before = tree.regions.len();
            blocks(tree, graph, leaves, region);
            let cells = branches::cells(tree, graph, leaves, region);
            for block in before..tree.regions.len() {
                branches::find(tree, graph, leaves, block);
            }
            for cell in cells {
                runs(tree, graph, leaves, cell);
            }
            runs(tree, graph, leaves, region);
            stages(tree, graph, leaves, region);
        }
    }
}

/// Layers in a row, each read by the next alone, that occur several times in a region: a block each.
fn runs(tree: &mut Tree, graph: &Graph, leaves: &[Leaf], region: usize) {
    let children = tree.regions[region].children.clone();
    let kinds: Vec<Option<String>> = children.iter().map(|&child| layer_kind(tree, graph, leaves, child)).collect();
    let mut owner: HashMap<NodeId, usize> = HashMap::new();
    let mut reads: Vec<HashSet<Value>> = Vec::with_capacity(children.len());
    for (index, &child) in children.iter().enumerate() {
        let mut below = Vec::new();
        tree.leaves_of(child, &mut below);
        owner.extend(below.iter().map(|&leaf| (leaves[leaf].node, index)));
        let values = below.iter().flat_map(|&leaf| leaves[leaf].operands.iter().copied());
        reads.push(values.filter(|value| owner.get(&value.node) != Some(&index)).collect());
    }
    // What each child reads, if it is the only one that reads it.
    let source = |index: usize| -> Option<usize> {
        let (Some(value), 1) = (reads[index].iter().next(), reads[index].len()) else { return None };
        let before = *owner.get(&value.node)?;
        let alone = graph
            .consumers(*value)
            .iter()
            .all(|(reader, _)| owner.get(reader).is_some_and(|&reader| reader == index || reader == before));
        let output = graph.outputs.iter().any(|port| port.value == *value);
        (alone && !output && kinds[before].is_some()).then_some(before)
    };
    let mut next: HashMap<usize, usize> = HashMap::new();
    let mut heads = Vec::new();
    for index in (0..children.len()).filter(|&index| kinds[index].is_some() && reads[index].len() == 1) {
        match source(index) {
            Some(before) => _ = next.insert(before, index),
            None => heads.push(index),
        }
    }
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for head in heads {
        let mut row = vec![head];
        while let Some(&following) = row.last().and_then(|last| next.get(last)) {
            row.push(following);
        }
        rows.push(row);
    }
    let words = |row: &[usize]| -> Vec<&str> { row.iter().filter_map(|&index| kinds[index].as_deref()).collect() };
    let mut count: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.len() > 1) {
        *count.entry(words(row)).or_default() += 1;
    }
    let mut frequent: Vec<Vec<&str>> = count.into_iter().filter(|(_, n)| *n >= CHAINS).map(|(row, _)| row).collect();
    frequent.sort_by_key(|row| std::cmp::Reverse(row.len()));
    // The longest first, then what of it is in longer rows.
    let mut found: Vec<Vec<Child>> = Vec::new();
    for row in &rows {
        let mut at = 0;
        while at < row.len() {
            let rest = words(&row[at..]);
            match frequent.iter().find(|pattern| rest.starts_with(pattern)) {
                Some(pattern) => {
                    found.push(row[at..at + pattern.len()].iter().map(|&index| children[index]).collect());
                    at += pattern.len();
                }
                None => at += 1,
            }
        }
    }
    for row in found {
        wrap(tree, region, &row, "");
    }
}

/// What a child is, if it is a layer or a chain of layers.
fn layer_kind(tree: &Tree, graph: &Graph, leaves: &[Leaf], child: Child) -> Option<String> {
    let mut below = Vec::new();
    tree.leaves_of(child, &mut below);
    let named = match child {
        Child::Region(inner) => !tree.regions[inner].inner.is_empty() || tree.regions[inner].name.starts_with("block"),
        Child::Leaf(leaf) => leaves[leaf].members.is_empty(),
    };
    let depthwise = |op: &Op| matches!(op, Op::Conv(conv) if conv.groups > 1);
    let word = |&leaf: &usize| {
        let leaf = &leaves[leaf];
        let plain = leaf.modules.is_some() && graph.node(leaf.node).outputs.len() == 1;
        plain.then(|| format!("{}{}", if depthwise(graph.op(leaf.node)) { "depthwise " } else { "" }, leaf.role))
    };
    let words: Vec<String> = below.iter().map(word).collect::<Option<_>>()?;
    (!named).then(|| words.join(" "))
}

fn is_activation(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::LeakyRelu(_) | Op::Elu(_) | Op::PRelu(_) | Op::Gelu(_) | Op::Clip(_))
}

/// Convolution or dense layer, norm, activation: one chain, where each is read by the next alone.
fn chains(tree: &mut Tree, graph: &Graph, leaves: &[Leaf], region: usize) {
    let loose: HashMap<NodeId, usize> = tree.regions[region]
        .children
        .iter()
        .filter_map(|child| match child {
            Child::Leaf(leaf) => Some((leaves[*leaf].node, *leaf)),
            Child::Region(_) => None,
        })
        .collect();
    let next = |leaf: usize| -> Option<usize> {
        let value = Value::from(leaves[leaf].node);
        let consumers = graph.consumers(value);
        match (consumers.as_slice(), graph.uses(value)) {
            ([(reader, 0)], 1) => loose.get(reader).copied(),
            _ => None,
        }
    };
    let mut found: BTreeMap<String, Vec<Vec<usize>>> = BTreeMap::new();
    let mut numbers: Vec<usize> = loose.values().copied().collect();
    numbers.sort_unstable();
    for first in numbers {
        if !matches!(graph.op(leaves[first].node), Op::Conv(_) | Op::ConvTranspose(_) | Op::Dense(_)) {
            continue;
        }
        let mut chain = vec![first];
        let mut at = first;
        if let Some(norm) = next(at).filter(|&leaf| matches!(graph.op(leaves[leaf].node), Op::BatchNorm(_))) {
            chain.push(norm);
            at = norm;
        }
        if let Some(activation) = next(at).filter(|&leaf| is_activation(graph.op(leaves[leaf].node))) {
            chain.push(activation);
        }
        if chain.len() > 1 {
            let roles: Vec<&str> = chain.iter().map(|&leaf| leaves[leaf].role.as_str()).collect();
            found.entry(roles.join(" ")).or_default().push(chain);
        }
    }
    for group in found.into_values().filter(|group| group.len() >= CHAINS) {
        for chain in group {
            let name = tree.leaf_names.get(&chain[0]).cloned().unwrap_or_default();
            wrap(tree, region, &chain.into_iter().map(Child::Leaf).collect::<Vec<_>>(), &name);
            if let Some(made) = tree.regions.last_mut() {
                made.scope = !name.is_empty();
            }
        }
    }
}

/// Puts children of a region into a region of their own, in the place of the first.
pub fn wrap(tree: &mut Tree, region: usize, group: &[Child], name: &str) {
    let new = tree.regions.len();
    let name = name.to_owned();
    tree.regions.push(Region { name, children: group.to_vec(), ..Region::default() });
    let inside: HashSet<Child> = group.iter().copied().collect();
    let children = &mut tree.regions[region].children;
    let place = children.iter().position(|child| inside.contains(child)).unwrap_or(0);
    children.retain(|child| !inside.contains(child));
    children.insert(place, Child::Region(new));
}

/// Children in an order in which each follows what it reads, and after each whether it is a cut: the only one of
/// those so far that later ones read.
fn cuts(tree: &Tree, graph: &Graph, leaves: &[Leaf], region: usize) -> Vec<(Child, bool)> {
    let children = &tree.regions[region].children;
    let edges = tree.edges(leaves, children);
    let mut missing = vec![0usize; children.len()];
    let mut readers = vec![Vec::new(); children.len()];
    for &(from, to) in &edges {
        missing[to] += 1;
        readers[from].push(to);
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..children.len()).filter(|&i| missing[i] == 0).collect();
    let mut order = Vec::with_capacity(children.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &to in &readers[i] {
            missing[to] -= 1;
            if missing[to] == 0 {
                ready.insert(to);
            }
        }
    }
    let mut place = vec![0; children.len()];
    for (at, &i) in order.iter().enumerate() {
        place[i] = at;
    }
    // What comes from outside must have been read for the last time before a cut.
    let mut made: HashSet<NodeId> = HashSet::new();
    let mut below = Vec::new();
    children.iter().for_each(|&child| tree.leaves_of(child, &mut below));
    made.extend(below.iter().map(|&leaf| leaves[leaf].node));
    let mut last_outside = 0;
    for (at, &i) in order.iter().enumerate() {
        let mut below = Vec::new();
        tree.leaves_of(children[i], &mut below);
        let outside = |value: &Value| !made.contains(&value.node) && graph.tensor(*value).is_none();
        if below.iter().any(|&leaf| leaves[leaf].operands.iter().any(outside)) {
            last_outside = at;
        }
    }
    order
        .iter()
        .enumerate()
        .map(|(at, &i)| {
            let crossing = edges.iter().filter(|&&(from, to)| place[from] <= at && place[to] > at);
            let alone = crossing.map(|&(from, _)| from).all(|from| from == i);
            let values = outputs(tree, graph, leaves, children[i]);
            (children[i], alone && at >= last_outside && values <= 1)
        })
        .collect()
}

/// How many values leave a child.
fn outputs(tree: &Tree, graph: &Graph, leaves: &[Leaf], child: Child) -> usize {
    let mut below = Vec::new();
    tree.leaves_of(child, &mut below);
    let inside: HashSet<NodeId> = below.iter().map(|&leaf| leaves[leaf].node).collect();
    let mut count = 0;
    for &node in &inside {
        for output in 0..graph.node(node).outputs.len() {
            let value = Value { node, output };
            if graph.consumers(value).iter().any(|(reader, _)| !inside.contains(reader)) {
                count += 1;
            }
        }
    }
    count
}

/// What lies between two cuts becomes a block, with the activation that follows it.
fn blocks(tree: &mut Tree, graph: &Graph, leaves: &[Leaf], region: usize) {
    let cuts = cuts(tree, graph, leaves, region);
    let mut segments: Vec<Vec<Child>> = vec![Vec::new()];
    for (child, cut) in cuts {
        let activation = match child {
            Child::Leaf(leaf) => is_activation(graph.op(leaves[leaf].node)),
            Child::Region(_) => false,
        };
        // An activation alone between two cuts ends the block before it.
        let open = segments.last().is_some_and(Vec::is_empty);
        let count = segments.len();
        if activation && cut && open && count > 1 && segments[count - 2].len() > 1 {
            segments[count - 2].push(child);
            continue;
        }
        if let Some(last) = segments.last_mut() {
            last.push(child);
        }
        if cut {
            segments.push(Vec::new());
        }
    }
    let worth = |segment: &Vec<Child>| {
        let mut below = Vec::new();
        segment.iter().for_each(|&child| tree.leaves_of(child, &mut below));
        segment.len() > 1 && below.iter().filter(|&&leaf| !leaves[leaf].members.is_empty()).count() > 1
    };
    let segments: Vec<Vec<Child>> = segments.into_iter().filter(worth).collect();
    if segments.len() < 2 {
        return;
    }
    for (number, segment) in segments.into_iter().enumerate() {
        wrap(tree, region, &segment, &format!("block{}", number + 1));
    }
}

/// Neighbouring blocks of one output shape become a stage.
fn stages(tree: &mut Tree, graph: &Graph, leaves: &[Leaf], region: usize) {
    let cuts = cuts(tree, graph, leaves, region);
    let mut stages: Vec<(String, Vec<Child>)> = Vec::new();
    let mut previous_cut = true;
    for (child, cut) in cuts {
        let block = matches!(child, Child::Region(inner) if tree.regions[inner].inner.is_empty() && tree.regions[inner].name.starts_with("block"));
        let mut below = Vec::new();
        tree.leaves_of(child, &mut below);
        let shape = below.iter().map(|&leaf| leaves[leaf].node).find(|&node| {
            let value = Value::from(node);
            graph.consumers(value).iter().any(|(reader, _)| !below.iter().any(|&leaf| leaves[leaf].node == *reader))
        });
        let shape = shape.map(|node| graph.shape(node.into()).to_string()).unwrap_or_default();
        if !(block && cut && previous_cut) {
            stages.push((String::new(), Vec::new()));
        } else if let Some(last) = stages.last_mut().filter(|last| last.0 == shape) {
            last.1.push(child);
        } else {
            stages.push((shape, vec![child]));
        }
        previous_cut = cut;
    }
    let stages: Vec<Vec<Child>> = stages.into_iter().map(|stage| stage.1).filter(|stage| stage.len() > 1).collect();
    for (number, stage) in stages.into_iter().enumerate() {
        wrap(tree, region, &stage, &format!("stage{}", number + 1));
    }
}

/// Whether a block is a sum whose shortcut is one layer, beside several.
pub fn projects(graph: &Graph, nodes: &[NodeId]) -> bool {
    let inside: HashSet<NodeId> = nodes.iter().copied().collect();
    let ends = |node: &&NodeId| graph.consumers((**node).into()).iter().all(|(reader, _)| !inside.contains(reader));
    let mut ends = nodes.iter().filter(ends);
    let (Some(&end), None) = (ends.next(), ends.next()) else { return false };
    let mut end = Some(end);
    while let Some(node) = end.filter(|&node| is_activation(graph.op(node))) {
        end = graph.input_of(node, 0).map(|value| value.node);
    }
    let Some(end) = end.filter(|&node| matches!(graph.op(node), Op::Binary(modelport_ir::op::Binary::Add))) else {
        return false;
    };
    let layers = |slot: usize| {
        let step = |node: &NodeId| graph.input_of(*node, 0).map(|value| value.node);
        let chain = std::iter::successors(graph.input_of(end, slot).map(|value| value.node), step);
        let weighted = |node: &NodeId| matches!(graph.op(*node), Op::Conv(_) | Op::Dense(_));
        chain.take_while(|node| inside.contains(node)).filter(weighted).count()
    };
    let (a, b) = (layers(0), layers(1));
    a.min(b) == 1 && a.max(b) > 1
}

/// Whether what leaves a block has fewer positions than what enters.
pub fn shrinks(graph: &Graph, block: &Block) -> bool {
    let ([input, ..], [output, ..]) = (block.operands.as_slice(), block.results.as_slice()) else { return false };
    let sizes = graph.shape(*input).iter().zip(graph.shape(*output).iter()).skip(1);
    sizes
        .filter(|(before, after)| after.known().zip(before.known()).is_some_and(|(after, before)| after < before))
        .count()
        > 1
}

/// The textbook's name of a structure, where it is one: ResNet's, DenseNet's, SqueezeNet's, MobileNet's, Inception's
/// blocks, by the operators in it and how it ends.
pub fn textbook_name(graph: &Graph, nodes: &[NodeId]) -> Option<&'static str> {
    let inside: HashSet<NodeId> = nodes.iter().copied().collect();
    // Kernels of convolutions in order, and whether each is depthwise.
    let mut convs = Vec::new();
    for &node in nodes {
        if let (Op::Conv(conv), Some(kernel)) = (graph.op(node), graph.input_of(node, 1)) {
            let shape = graph.shape(kernel);
            let sizes: Option<Vec<usize>> =
                shape.iter().take(shape.rank().saturating_sub(2)).map(modelport_ir::Dim::known).collect();
            convs.push((sizes?.into_iter().max()?, conv.groups > 1 && shape[shape.rank() - 2].known() == Some(1)));
        }
    }
    let ends: Vec<NodeId> = nodes
        .iter()
        .copied()
        .filter(|&node| graph.consumers(node.into()).iter().all(|(reader, _)| !inside.contains(reader)))
        .collect();
    let &[mut end] = ends.as_slice() else { return None };
    while is_activation(graph.op(end)) {
        end = graph.input_of(end, 0)?.node;
    }
    let sources = graph.inputs_of(end).into_iter().flatten();
    let reads_outside = sources.clone().any(|value| !inside.contains(&value.node));
    let sums = |values: &mut dyn Iterator<Item = Value>| {
        values.filter(|value| matches!(graph.op(value.node), Op::Binary(modelport_ir::op::Binary::Add))).count()
    };
    let large = convs.iter().filter(|(kernel, _)| *kernel > 1).count();
    let depthwise = convs.iter().any(|(_, depthwise)| *depthwise);
    match graph.op(end) {
        Op::Binary(modelport_ir::op::Binary::Add) => Some(match (convs.len(), large) {
            _ if depthwise => "InvertedResidual",
            (3 | 4, 1) => "Bottleneck",
            (2 | 3, 2) => "BasicBlock",
            _ => "ResidualBlock",
        }),
        Op::Concat(_) if sums(&mut sources.clone()) > 1 => Some("Cell"),
        Op::Concat(_) if reads_outside && convs.len() <= 2 => Some("DenseLayer"),
        Op::Concat(_) if convs.len() == 3 && sources.count() == 2 => Some("Fire"),
        Op::Concat(_) => Some("Inception"),
        Op::Binary(modelport_ir::op::Binary::Mul) if reads_outside => Some("SqueezeExcite"),
        _ if depthwise && convs.len() == 3 => Some("InvertedResidual"),
        _ if !convs.is_empty() && convs.len() % 2 == 0 && convs.chunks(2).all(|pair| pair[0].1 && pair[1].0 == 1) => {
            Some("SeparableConv")
        }
        _ => None,
    }
}
