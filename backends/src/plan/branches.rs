//! Branches that meet in a concatenation, and cells that read more than one value, where scopes say nothing.

use std::collections::{HashMap, HashSet};

use modelport_ir::{Graph, NodeId, Op, Value};

use super::leaf::Leaf;
use super::region::{Child, Tree};
use super::structure::wrap;

/// Fewest values that meet at the end of a cell.
const MEETING: usize = 3;

/// Who makes and who reads the values of a region's children.
struct Flow {
    children: Vec<Child>,
    leaves: Vec<Vec<usize>>,
    owner: HashMap<NodeId, usize>,
}

impl Flow {
    fn new(tree: &Tree, leaves: &[Leaf], region: usize) -> Flow {
        let children = tree.regions[region].children.clone();
        let below = |&child: &Child| {
            let mut below = Vec::new();
            tree.leaves_of(child, &mut below);
            below
        };
        let below: Vec<Vec<usize>> = children.iter().map(below).collect();
        let nodes = below.iter().enumerate().flat_map(|(i, below)| below.iter().map(move |&leaf| (leaf, i)));
        let owner = nodes.map(|(leaf, i)| (leaves[leaf].node, i)).collect();
        Flow { children, leaves: below, owner }
    }

    /// Children that read what a child makes; `None`: something outside does.
    fn readers(&self, graph: &Graph, leaves: &[Leaf], child: usize) -> Option<HashSet<usize>> {
        let mut readers = HashSet::new();
        for &leaf in &self.leaves[child] {
            let node = leaves[leaf].node;
            if graph.outputs.iter().any(|port| port.value.node == node) {
                return None;
            }
            for output in 0..graph.node(node).outputs.len() {
                for (reader, _) in graph.consumers(Value { node, output }) {
                    readers.insert(*self.owner.get(&reader)?);
                }
            }
        }
        readers.remove(&child);
        Some(readers)
    }

    /// The concatenations among the children: which child, and the values that meet in it.
    fn joins<'a>(&'a self, graph: &'a Graph, leaves: &'a [Leaf]) -> impl Iterator<Item = (usize, &'a [Value])> {
        self.children.iter().enumerate().filter_map(|(index, child)| match child {
            Child::Leaf(leaf) if matches!(graph.op(leaves[*leaf].node), Op::Concat(_)) => {
                Some((index, leaves[*leaf].operands.as_slice()))
            }
            _ => None,
        })
    }
}

/// A concatenation of several values, with all that is read for it alone, is a cell, where there are more of them. Unlike
/// a block it may read any number of values. Returns the cells.
pub fn cells(tree: &mut Tree, graph: &Graph, leaves: &[Leaf], region: usize) -> Vec<usize> {
    let flow = Flow::new(tree, leaves, region);
    let readers: Vec<_> = (0..flow.children.len()).map(|child| flow.readers(graph, leaves, child)).collect();
    let joins = flow.joins(graph, leaves).filter(|(_, values)| values.len() >= MEETING);
    let joins: Vec<usize> = joins.map(|(join, _)| join).collect();
    let mut found = Vec::new();
    for &join in &joins {
        let mut cell = HashSet::from([join]);
        loop {
            let alone = |child: &usize| {
                let readers = readers[*child].as_ref();
                !cell.contains(child)
                    && !joins.contains(child)
                    && readers.is_some_and(|readers| !readers.is_empty() && readers.is_subset(&cell))
            };
            let more: Vec<usize> = (0..flow.children.len()).filter(alone).collect();
            if more.is_empty() {
                break;
            }
            cell.extend(more);
        }
        let layers =
            cell.iter().flat_map(|&child| &flow.leaves[child]).filter(|&&leaf| !leaves[leaf].members.is_empty());
        if layers.count() > 1 {
            found.push(cell);
        }
    }
    if found.len() < 2 {
        return Vec::new();
    }
    let mut made = Vec::new();
    for (number, cell) in found.into_iter().enumerate() {
        let mut cell: Vec<usize> = cell.into_iter().collect();
        cell.sort_unstable();
        let children: Vec<Child> = cell.into_iter().map(|child| flow.children[child]).collect();
        wrap(tree, region, &children, &format!("cell{}", number + 1));
        made.push(tree.regions.len() - 1);
    }
    made
}

/// Chains of layers that meet in a concatenation are its branches, numbered by their places in it.
pub fn find(tree: &mut Tree, graph: &Graph, leaves: &[Leaf], region: usize) {
    let flow = Flow::new(tree, leaves, region);
    let is_layer = |child: usize| {
        let plain = |&leaf: &usize| leaves[leaf].modules.is_some() && graph.node(leaves[leaf].node).outputs.len() == 1;
        flow.leaves[child].iter().all(plain)
    };
    let source = |child: usize| -> Option<usize> {
        let operands = flow.leaves[child].iter().flat_map(|&leaf| leaves[leaf].operands.iter());
        let mut makers = operands.map(|value| flow.owner.get(&value.node).copied()).filter(|from| *from != Some(child));
        let first = makers.next()??;
        makers.all(|maker| maker == Some(first)).then_some(first)
    };
    let alone = |child: usize, reader: usize| {
        flow.readers(graph, leaves, child).is_some_and(|readers| readers == HashSet::from([reader]))
    };
    let mut rows: Vec<(String, Vec<usize>)> = Vec::new();
    for (join, values) in flow.joins(graph, leaves) {
        let ends: Option<Vec<usize>> = values.iter().map(|value| flow.owner.get(&value.node).copied()).collect();
        // Where one of the values comes from outside, the others are no branches beside it.
        let Some(ends) = ends else { continue };
        let mut own = Vec::new();
        for (number, &end) in ends.iter().enumerate() {
            let mut row = Vec::new();
            let (mut at, mut reader) = (Some(end), join);
            while let Some(child) = at.filter(|&child| is_layer(child) && alone(child, reader)) {
                row.push(child);
                (at, reader) = (source(child), child);
            }
            row.reverse();
            own.push((format!("branch{}", number + 1), row));
        }
        if own.iter().any(|(_, row)| row.len() > 1) {
            rows.extend(own);
        }
    }
    for (name, row) in rows {
        let has_weights = |&child: &usize| flow.leaves[child].iter().any(|&leaf| !leaves[leaf].members.is_empty());
        let children: Vec<Child> = row.iter().map(|&child| flow.children[child]).collect();
        match children.as_slice() {
            _ if !row.iter().any(has_weights) => {}
            [Child::Region(inner)] if !tree.regions[*inner].scope => tree.regions[*inner].name = name,
            [] | [_] => {}
            _ => wrap(tree, region, &children, &name),
        }
    }
}
