//! Which scope every leaf belongs to.
//!
//! A node with weights lies where its variables lie: variable names are what the author wrote, while operator names
//! double roots (`InceptionV3/InceptionV3/Mixed_5b/…`) and get suffixes (`block_1/…`). Nodes with weights show which
//! operator scope is which variable scope; the others follow the longest scope that they share with one of those.

use std::collections::HashMap;

use modelport_ir::op::SlotKind;
use modelport_ir::{Graph, NodeId, Op};

use super::leaf::Leaf;

/// The scope of every leaf, outermost first.
pub fn paths(graph: &Graph, leaves: &[Leaf]) -> Vec<Vec<String>> {
    if !graph.modules.is_empty() {
        let path = |leaf: &Leaf| graph.module_of(leaf.node).unwrap_or_default().split('.');
        return leaves.iter().map(|leaf| path(leaf).filter(|s| !s.is_empty()).map(str::to_owned).collect()).collect();
    }
    let split = |name: &str| -> Vec<String> { name.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect() };
    let scope_of = |name: &str| {
        let mut path = split(name);
        path.pop();
        path
    };
    let variables: Vec<Option<Vec<String>>> =
        leaves.iter().map(|leaf| variable(graph, leaf.node).map(|name| scope_of(&name))).collect();

    // Operator scope -> variable scope, for every prefix of what nodes with weights prove.
    let mut known: HashMap<Vec<String>, Vec<String>> = HashMap::new();
    for (leaf, variable) in leaves.iter().zip(&variables) {
        let Some(variable) = variable else { continue };
        let operator = scope_of(&graph.node(leaf.node).name);
        if operator.last() != variable.last() {
            continue;
        }
        for cut in 0..=operator.len().min(variable.len()) {
            let (op_rest, var_rest) = (operator.len() - cut, variable.len() - cut);
            if cut > 0 && operator[op_rest] != variable[var_rest] {
                break;
            }
            known.entry(operator[..op_rest].to_vec()).or_insert_with(|| variable[..var_rest].to_vec());
        }
    }

    let follow = |operator: Vec<String>| {
        for length in (1..=operator.len()).rev() {
            if let Some(scope) = known.get(&operator[..length]) {
                let mut path = scope.clone();
                path.extend_from_slice(&operator[length..]);
                return path;
            }
        }
        operator
    };
    let path = |(leaf, variable): (&Leaf, Option<Vec<String>>)| {
        variable.unwrap_or_else(|| follow(scope_of(&graph.node(leaf.node).name)))
    };
    leaves.iter().zip(variables).map(path).collect()
}

/// The name of the constant that says best where a node's weights come from.
fn variable(graph: &Graph, node: NodeId) -> Option<String> {
    let op = graph.op(node);
    let slots: Vec<usize> = match op {
        // Scale and bias may be plain constants; the statistics are always variables.
        Op::BatchNorm(_) => vec![3, 1, 2],
        Op::Gather(_) => vec![0],
        op => (0..op.slots().len())
            .filter(|&i| matches!(op.slots()[i].kind, SlotKind::Param | SlotKind::OptionalParam))
            .collect(),
    };
    slots.into_iter().find_map(|slot| {
        let value = graph.input_of(node, slot)?;
        graph.tensor(value)?;
        let name = &graph.node(value.node).name;
        name.contains('/').then(|| name.clone())
    })
}
