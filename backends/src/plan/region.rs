//! The tree of regions: nested groups of leaves, each of which can be one call.
//!
//! Invariant: among the children of every region the calls do not depend on each other in a circle.

use std::collections::{BTreeMap, HashMap, HashSet};

use modelport_ir::op::SlotKind;
use modelport_ir::{Graph, NodeId, Op, Value};

use super::leaf::Leaf;

/// A child of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Child {
    /// A leaf, by number.
    Leaf(usize),
    /// A region, by number.
    Region(usize),
}

/// A group of leaves and regions.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// The scope's own name (that of the outermost of scopes that hold nothing but each other).
    pub name: String,
    /// The name of the innermost of these scopes.
    pub inner: String,
    /// Whether its name is a scope's.
    pub scope: bool,
    /// The class of the source's module that it is, without its package; empty where there is none.
    pub class: String,
    /// What is in it.
    pub children: Vec<Child>,
}

/// Regions by number; the last is the root.
#[derive(Debug)]
pub struct Tree {
    /// All regions; dissolved ones are empty.
    pub regions: Vec<Region>,
    /// The root.
    pub root: usize,
    /// Names of leaves that had a scope of their own.
    pub leaf_names: HashMap<usize, String>,
    /// Whether scopes are the source's modules: then names are kept to the letter, as paths with dots.
    pub exact: bool,
}

impl Tree {
    /// Groups leaves by their scopes.
    pub fn new(graph: &Graph, leaves: &[Leaf], mut paths: Vec<Vec<String>>) -> Tree {
        join_shared(graph, leaves, &mut paths);
        let exact = graph.has_modules();
        let mut tree = Tree { regions: vec![Region::default()], root: 0, leaf_names: HashMap::new(), exact };
        let class_of = |path: &[String]| {
            let class = graph.modules.get(&path.join(".")).map_or("", String::as_str);
            class.rsplit('.').next().unwrap_or_default().to_owned()
        };
        tree.regions[0].class = class_of(&[]);
        let mut by_path: HashMap<Vec<String>, usize> = HashMap::from([(Vec::new(), 0)]);
        for (leaf, path) in paths.iter().enumerate() {
            let mut parent = 0;
            for length in 1..=path.len() {
                parent = match by_path.get(&path[..length]) {
                    Some(&region) => region,
                    None => {
                        let name = path[length - 1].clone();
                        let region = tree.regions.len();
                        let class = class_of(&path[..length]);
                        tree.regions.push(Region {
                            inner: name.clone(),
                            name,
                            scope: true,
                            class,
                            children: Vec::new(),
                        });
                        tree.regions[parent].children.push(Child::Region(region));
                        by_path.insert(path[..length].to_vec(), region);
                        region
                    }
                };
            }
            tree.regions[parent].children.push(Child::Leaf(leaf));
        }
        tree.adopt(graph, leaves);
        tree.dissolve_plain(leaves, tree.root);
        tree.collapse(tree.root);
        tree.untangle(leaves, tree.root);
        tree.collapse(tree.root);
        if exact {
            tree.open_containers(tree.root);
        } else {
            tree.open_only_region(leaves);
            super::structure::find(&mut tree, graph, leaves);
            tree.reunite(graph, leaves);
        }
        tree.open_single_layers(leaves);
        tree
    }

    /// Opens regions that hold only some of the leaves which share weights: these are one layer, called several times.
    fn reunite(&mut self, graph: &Graph, leaves: &[Leaf]) {
        let mut paths: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut stack = vec![(self.root, Vec::new())];
        while let Some((region, mut path)) = stack.pop() {
            path.push(region);
            for child in &self.regions[region].children {
                match child {
                    Child::Leaf(leaf) => _ = paths.insert(*leaf, path.clone()),
                    Child::Region(inner) => stack.push((*inner, path.clone())),
                }
            }
        }
        let mut open = HashSet::new();
        for group in sharing(graph, leaves) {
            let paths: Vec<&Vec<usize>> = group.iter().filter_map(|leaf| paths.get(leaf)).collect();
            let Some(first) = paths.first() else { continue };
            let common = paths.iter().fold(first.len(), |length, path| {
                first.iter().zip(path.iter()).take(length).take_while(|(a, b)| a == b).count()
            });
            open.extend(paths.iter().flat_map(|path| &path[common..]).copied());
        }
        for region in 0..self.regions.len() {
            let mut at = 0;
            while let Some(&child) = self.regions[region].children.get(at) {
                match child {
                    Child::Region(inner) if open.contains(&inner) => {
                        let content = std::mem::take(&mut self.regions[inner]);
                        self.regions[region].children.splice(at..=at, content.children);
                    }
                    _ => at += 1,
                }
            }
        }
    }

    /// All leaves below a child.
    pub fn leaves_of(&self, child: Child, into: &mut Vec<usize>) {
        match child {
            Child::Leaf(leaf) => into.push(leaf),
            Child::Region(region) => {
                for &child in &self.regions[region].children {
                    self.leaves_of(child, into);
                }
            }
        }
    }

    /// A leaf that lies directly in the root, between leaves of one region, belongs to that region.
    fn adopt(&mut self, graph: &Graph, leaves: &[Leaf]) {
        let by_node: HashMap<NodeId, usize> = leaves.iter().enumerate().map(|(i, leaf)| (leaf.node, i)).collect();
        let mut home: HashMap<usize, usize> = HashMap::new();
        for (number, region) in self.regions.iter().enumerate() {
            for &child in &region.children {
                if let Child::Leaf(leaf) = child {
                    home.insert(leaf, number);
                }
            }
        }
        let root = self.root;
        let loose: Vec<usize> = home.iter().filter(|&(_, &r)| r == root).map(|(&leaf, _)| leaf).collect();
        let mut loose = loose;
        loose.sort_unstable();
        for leaf in loose {
            if !leaves[leaf].members.is_empty() {
                continue;
            }
            let node = leaves[leaf].node;
            let outputs = graph.node(node).outputs.len();
            let is_output = graph.outputs.iter().any(|port| port.value.node == node);
            let readers: Vec<NodeId> = (0..outputs)
                .flat_map(|output| graph.consumers(Value { node, output }))
                .map(|(reader, _)| reader)
                .collect();
            let sources = leaves[leaf].operands.iter().map(|value| value.node);
            let homes: HashSet<Option<usize>> = readers
                .iter()
                .copied()
                .chain(sources)
                .map(|n| by_node.get(&n).and_then(|leaf| home.get(leaf)).copied())
                .collect();
            let target = homes.iter().next().copied().flatten();
            if let (false, false, 1, Some(region)) = (is_output, readers.is_empty(), homes.len(), target)
                && region != root
            {
                self.regions[root].children.retain(|&child| child != Child::Leaf(leaf));
                self.regions[region].children.push(Child::Leaf(leaf));
                home.insert(leaf, region);
            }
        }
    }

    /// Regions without any member are only names: their leaves move up.
    fn dissolve_plain(&mut self, leaves: &[Leaf], region: usize) {
        let children = std::mem::take(&mut self.regions[region].children);
        let mut kept = Vec::with_capacity(children.len());
        for child in children {
            let Child::Region(inner) = child else {
                kept.push(child);
                continue;
            };
            let mut below = Vec::new();
            self.leaves_of(child, &mut below);
            if below.iter().any(|&leaf| !leaves[leaf].members.is_empty()) {
                self.dissolve_plain(leaves, inner);
                kept.push(child);
            } else {
                if let [leaf] = below.as_slice() {
                    self.leaf_names.insert(*leaf, self.regions[inner].name.clone());
                }
                kept.extend(below.into_iter().map(Child::Leaf));
            }
        }
        self.regions[region].children = kept;
    }

    /// Scopes that hold a single thing are that thing.
    fn collapse(&mut self, region: usize) {
        let children = self.regions[region].children.clone();
        for child in &children {
            if let Child::Region(inner) = child {
                self.collapse(*inner);
            }
        }
        let children: Vec<Child> = children
            .into_iter()
            .map(|child| match child {
                Child::Region(inner) => match self.regions[inner].children.as_slice() {
                    [Child::Leaf(leaf)] => {
                        let leaf = *leaf;
                        let outer = self.regions[inner].name.clone();
                        match self.leaf_names.get_mut(&leaf) {
                            Some(name) if self.exact => *name = format!("{outer}.{name}"),
                            _ => _ = self.leaf_names.insert(leaf, outer),
                        }
                        Child::Leaf(leaf)
                    }
                    _ => child,
                },
                leaf => leaf,
            })
            .collect();
        self.regions[region].children = children;
        if let [Child::Region(inner)] = self.regions[region].children.as_slice() {
            let inner = *inner;
            let content = std::mem::take(&mut self.regions[inner]);
            let this = &mut self.regions[region];
            this.children = content.children;
            if self.exact {
                this.inner = content.inner;
                // A container is no more than a part of the name.
                if is_container(&this.class) && region != self.root {
                    this.class = content.class;
                    this.name = format!("{}.{}", this.name, content.name);
                } else {
                    self.prefix(region, &content.name);
                }
            } else {
                this.inner = content.inner;
                if this.name.is_empty() {
                    (this.name, this.scope) = (content.name, content.scope);
                }
            }
        }
    }

    /// Puts the name of a scope that is no more in front of the names of what was in it.
    fn prefix(&mut self, region: usize, name: &str) {
        for child in self.regions[region].children.clone() {
            let inner = match child {
                Child::Region(inner) => Some(&mut self.regions[inner].name),
                Child::Leaf(leaf) => self.leaf_names.get_mut(&leaf),
            };
            if let Some(inner) = inner {
                *inner = format!("{name}.{inner}");
            }
        }
    }

    /// Containers of the source that hold modules say nothing but a name.
    fn open_containers(&mut self, region: usize) {
        let mut at = 0;
        while let Some(&child) = self.regions[region].children.get(at) {
            let Child::Region(inner) = child else {
                at += 1;
                continue;
            };
            let of = &self.regions[inner];
            let holds_modules = of.children.iter().any(|child| matches!(child, Child::Region(_)));
            if holds_modules && is_container(&of.class) {
                self.prefix(inner, &self.regions[inner].name.clone());
                let content = std::mem::take(&mut self.regions[inner]);
                self.regions[region].children.splice(at..=at, content.children);
            } else {
                self.open_containers(inner);
                at += 1;
            }
        }
    }

    /// A network whose one scope has only functions beside it is that scope.
    fn open_only_region(&mut self, leaves: &[Leaf]) {
        let children = self.regions[self.root].children.clone();
        let is_function = |child: &Child| matches!(child, Child::Leaf(leaf) if leaves[*leaf].members.is_empty());
        let mut others = children.iter().filter(|child| !is_function(child));
        let (Some(&Child::Region(inner)), None) = (others.next(), others.next()) else { return };
        let content = std::mem::take(&mut self.regions[inner]);
        let place = children.iter().position(|child| *child == Child::Region(inner)).unwrap_or(0);
        let root = &mut self.regions[self.root];
        root.children.splice(place..=place, content.children);
        if root.name.is_empty() {
            (root.name, root.inner) = (content.name, content.inner);
        }
    }

    /// A scope that is the only one of its kind and holds one layer between functions is no module: the layer gets its
    /// name.
    fn open_single_layers(&mut self, leaves: &[Leaf]) {
        let plain = |region: &Region| -> Option<(String, usize)> {
            let numbers = region.children.iter().map(|child| match child {
                Child::Leaf(leaf) => Some(*leaf),
                Child::Region(_) => None,
            });
            let numbers: Vec<usize> = numbers.collect::<Option<_>>()?;
            let layers: Vec<usize> = numbers.iter().copied().filter(|&leaf| !leaves[leaf].members.is_empty()).collect();
            let roles: Vec<&str> = numbers.iter().map(|&leaf| leaves[leaf].role.as_str()).collect();
            match layers.as_slice() {
                [layer] if numbers.len() > 1 => Some((roles.join(" "), *layer)),
                _ => None,
            }
        };
        let found: Vec<Option<(String, usize)>> = self.regions.iter().map(plain).collect();
        let mut kinds: HashMap<&str, usize> = HashMap::new();
        for (kind, _) in found.iter().flatten() {
            *kinds.entry(kind).or_default() += 1;
        }
        for parent in 0..self.regions.len() {
            let mut at = 0;
            while let Some(&child) = self.regions[parent].children.get(at) {
                let Child::Region(inner) = child else {
                    at += 1;
                    continue;
                };
                match &found[inner] {
                    Some((kind, layer)) if kinds[kind.as_str()] == 1 => {
                        let content = std::mem::take(&mut self.regions[inner]);
                        match self.leaf_names.get_mut(layer) {
                            Some(name) if self.exact => *name = format!("{}.{name}", content.name),
                            _ if content.name.is_empty() => {}
                            _ => _ = self.leaf_names.insert(*layer, content.name),
                        }
                        at += content.children.len();
                        let place = at - content.children.len();
                        self.regions[parent].children.splice(place..=place, content.children);
                    }
                    _ => at += 1,
                }
            }
        }
    }

    /// Splits regions until no calls depend on each other in a circle, in this region and all below.
    fn untangle(&mut self, leaves: &[Leaf], region: usize) {
        loop {
            let children = self.regions[region].children.clone();
            let edges = self.edges(leaves, &children);
            let Some(circle) = circle(children.len(), &edges) else { break };
            // Split the smallest region on the circle that the flow leaves and enters again; if there is none, give up
            // the smallest.
            let size = |index: usize| {
                let mut below = Vec::new();
                self.leaves_of(children[index], &mut below);
                below.len()
            };
            let mut victims: Vec<usize> =
                circle.into_iter().filter(|&i| matches!(children[i], Child::Region(_))).collect();
            victims.sort_by_key(|&i| (size(i), i));
            let Some(&smallest) = victims.first() else { break };
            let groups = victims.iter().map(|&i| (i, self.groups(leaves, &children, i)));
            let (victim, groups) =
                groups.into_iter().find(|(_, groups)| groups.len() > 1).unwrap_or((smallest, Vec::new()));
            let pieces = self.pieces(leaves, children[victim], groups);
            let mut next = children.clone();
            next.splice(victim..=victim, pieces);
            self.regions[region].children = next;
        }
        for child in self.regions[region].children.clone() {
            if let Child::Region(inner) = child {
                self.untangle(leaves, inner);
            }
        }
    }

    /// The content of one child, grouped by how often the flow has left it and come back through its siblings.
    fn groups(&self, leaves: &[Leaf], siblings: &[Child], victim: usize) -> Vec<Vec<Child>> {
        let Child::Region(region) = siblings[victim] else { return Vec::new() };
        let inside = &self.regions[region].children;
        let mut atoms: Vec<Child> = inside.clone();
        atoms.extend(siblings.iter().enumerate().filter(|&(i, _)| i != victim).map(|(_, &child)| child));
        let edges = self.edges(leaves, &atoms);
        // Bounded by the number of things inside, since siblings may still form circles of their own.
        let mut level = vec![0usize; atoms.len()];
        let mut reached: Vec<bool> = (0..atoms.len()).map(|i| i < inside.len()).collect();
        for _ in 0..=atoms.len() {
            let mut changed = false;
            for &(from, to) in &edges {
                if !reached[from] {
                    continue;
                }
                let returns = from >= inside.len() && to < inside.len();
                let wanted = (level[from] + usize::from(returns)).min(inside.len());
                if !reached[to] || level[to] < wanted {
                    reached[to] = true;
                    level[to] = wanted;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        let mut groups: BTreeMap<usize, Vec<Child>> = BTreeMap::new();
        for (i, &child) in inside.iter().enumerate() {
            groups.entry(level[i]).or_default().push(child);
        }
        groups.into_values().collect()
    }

    /// A region cut into groups, each a region again where that is worth one; no groups: all that is in it.
    fn pieces(&mut self, leaves: &[Leaf], victim: Child, groups: Vec<Vec<Child>>) -> Vec<Child> {
        let Child::Region(region) = victim else { return vec![victim] };
        let origin = std::mem::take(&mut self.regions[region]);
        let groups =
            if groups.is_empty() { origin.children.iter().map(|&child| vec![child]).collect() } else { groups };
        let mut pieces = Vec::new();
        for group in groups {
            let mut below = Vec::new();
            group.iter().for_each(|&child| self.leaves_of(child, &mut below));
            let members = below.iter().filter(|&&leaf| !leaves[leaf].members.is_empty()).count();
            if group.len() > 1 && members > 0 {
                self.regions.push(Region { children: group, ..origin.clone() });
                pieces.push(Child::Region(self.regions.len() - 1));
                continue;
            }
            // What leaves its scope keeps the scope's name in its own.
            let joint = if self.exact { '.' } else { '_' };
            for child in group {
                match child {
                    Child::Region(inner) => {
                        let name = format!("{}{joint}{}", origin.name, self.regions[inner].name);
                        self.regions[inner].name = name;
                    }
                    Child::Leaf(leaf) => {
                        if let Some(name) = self.leaf_names.get_mut(&leaf) {
                            *name = format!("{}{joint}{name}", origin.name);
                        }
                    }
                }
                pieces.push(child);
            }
        }
        pieces
    }

    /// Which of `children` reads from which.
    pub fn edges(&self, leaves: &[Leaf], children: &[Child]) -> Vec<(usize, usize)> {
        let mut owner: HashMap<NodeId, usize> = HashMap::new();
        let mut below = Vec::new();
        for (index, &child) in children.iter().enumerate() {
            let start = below.len();
            self.leaves_of(child, &mut below);
            for &leaf in &below[start..] {
                owner.insert(leaves[leaf].node, index);
            }
        }
        let mut edges = Vec::new();
        let mut seen = HashSet::new();
        for &leaf in &below {
            let to = owner[&leaves[leaf].node];
            for value in &leaves[leaf].operands {
                if let Some(&from) = owner.get(&value.node)
                    && from != to
                    && seen.insert((from, to))
                {
                    edges.push((from, to));
                }
            }
        }
        edges
    }
}

/// Whether a class of modules does nothing but hold others.
fn is_container(class: &str) -> bool {
    matches!(class, "Sequential" | "ModuleList" | "ModuleDict" | "")
}

/// More elements than this are not written twice, even if they are not trained.
const LARGE: usize = 4096;

/// The constants by which a leaf is known to be the same layer as another: its weights, and what else is trained or
/// large. A few numbers that happen to be shared are no reason to tear a scope apart.
pub fn weights_of(graph: &Graph, leaf: &Leaf) -> Vec<NodeId> {
    if leaf.members.is_empty() {
        return Vec::new();
    }
    let op = graph.op(leaf.node);
    let inputs = graph.inputs_of(leaf.node).into_iter().enumerate();
    let is_weight = |(slot, value): (usize, Option<Value>)| {
        let value = value?;
        let Op::Constant(constant) = graph.op(value.node) else { return None };
        let parameter = op.slot(slot).is_some_and(|s| matches!(s.kind, SlotKind::Param | SlotKind::OptionalParam));
        let kept = parameter || constant.trainable || constant.tensor.numel() > LARGE;
        kept.then_some(value.node)
    };
    inputs.filter_map(is_weight).collect()
}

/// Groups of leaves that share weights.
fn sharing(graph: &Graph, leaves: &[Leaf]) -> impl Iterator<Item = Vec<usize>> {
    let mut by_weights: HashMap<Vec<NodeId>, Vec<usize>> = HashMap::new();
    for (index, leaf) in leaves.iter().enumerate() {
        let weights = weights_of(graph, leaf);
        if !weights.is_empty() {
            by_weights.entry(weights).or_default().push(index);
        }
    }
    by_weights.into_values().filter(|group| group.len() > 1)
}

/// Leaves that share weights live in one place: the innermost scope that holds them all.
fn join_shared(graph: &Graph, leaves: &[Leaf], paths: &mut [Vec<String>]) {
    for group in sharing(graph, leaves) {
        let first = paths[group[0]].clone();
        let common = group.iter().fold(first.len(), |length, &leaf| {
            first.iter().zip(&paths[leaf]).take(length).take_while(|(a, b)| a == b).count()
        });
        for leaf in group {
            paths[leaf].truncate(common);
        }
    }
}

/// The members of one circle among `n` things, if there is one.
fn circle(n: usize, edges: &[(usize, usize)]) -> Option<Vec<usize>> {
    let mut missing = vec![0usize; n];
    let mut readers = vec![Vec::new(); n];
    for &(from, to) in edges {
        missing[to] += 1;
        readers[from].push(to);
    }
    let mut ready: Vec<usize> = (0..n).filter(|&i| missing[i] == 0).collect();
    let mut done = 0;
    while let Some(i) = ready.pop() {
        done += 1;
        for &to in &readers[i] {
            missing[to] -= 1;
            if missing[to] == 0 {
                ready.push(to);
            }
        }
    }
    if done == n {
        return None;
    }
    // Every stuck thing reads from a stuck thing: walking backwards must come round.
    let mut sources = vec![None; n];
    for &(from, to) in edges {
        if missing[from] > 0 && missing[to] > 0 && sources[to].is_none() {
            sources[to] = Some(from);
        }
    }
    let mut at = (0..n).find(|&i| missing[i] > 0 && sources[i].is_some())?;
    let mut trail: Vec<usize> = Vec::new();
    while !trail.contains(&at) {
        trail.push(at);
        at = sources[at]?;
    }
    let start = trail.iter().position(|&i| i == at)?;
    Some(trail.split_off(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found() {
        assert_eq!(circle(3, &[(0, 1), (1, 2)]), None);
        let mut found = circle(4, &[(0, 1), (1, 2), (2, 1), (2, 3)]).unwrap();
        found.sort_unstable();
        assert_eq!(found, [1, 2]);
    }
}
