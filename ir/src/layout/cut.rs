//! Where transposes cost least: a minimum cut between what must be in the target's order and what must not.
//!
//! The network has a vertex per variable of the plan. A value that is made in one order and read in the other costs
//! as much as a transpose moves, once for all its readers. Among the cheapest cuts that with the most in the
//! target's order is taken, which is unique.

use std::collections::{BTreeMap, HashMap, VecDeque};

use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::unionfind::UnionFind;
use petgraph::visit::EdgeRef;

use super::plan::{End, Plan, Var};
use super::role::Order;
use crate::graph::{Graph, NodeId, Value};
use crate::op::Op;
use crate::shape::{Dim, Shape};

/// One element; smaller costs only break ties, so that not even a reshape is made without need.
const ELEMENT: u64 = 1 << 16;
/// So that the sum over all values can't overflow.
const MOST: u64 = 1 << 40;
const ENDLESS: u64 = u64::MAX / 4;

/// The cost of bringing a value, whose shape is given in the source's order, from one order to another.
fn cost(from: &Order, to: &Order, shape: &Shape) -> u64 {
    let Some(steps) = from.steps(to, shape) else {
        let source = Order::source(shape.rank());
        return cost(from, &source, shape).saturating_add(cost(&source, to, shape));
    };
    if steps.is_nothing() {
        return 0;
    }
    if steps.is_reshape(&shape.permuted(&from.perm)) {
        return 1;
    }
    let elements = shape.iter().enumerate().fold(1u64, |product, (axis, dim)| {
        let free = if axis == 0 { 1 } else { 16 };
        let size = match dim {
            Dim::Known(size) => *size as u64,
            Dim::Symbol { factor, .. } => (*factor as u64).saturating_mul(free),
            Dim::Unknown => free,
        };
        product.saturating_mul(size)
    });
    // Reshaping around a transpose is worse than a transpose alone.
    let around = u64::from(steps.factors.is_some());
    elements.saturating_mul(ELEMENT).saturating_add(2 + around).min(MOST)
}

/// Decides every variable: whether it is moved to the target's order.
pub(super) fn solve(graph: &Graph, order: &[NodeId], plan: &Plan) -> Vec<bool> {
    let mut network = Network::new(plan.vars);
    let mut readers: HashMap<Value, Vec<&End>> = HashMap::new();
    for &id in order {
        let ends = plan.nodes.get(&id).map(|node| node.inputs.as_slice()).unwrap_or_default();
        for (value, end) in graph.inputs_of(id).iter().zip(ends) {
            if let (Some(value), Some(end)) = (value, end) {
                readers.entry(*value).or_default().push(end);
            }
        }
    }
    for (port, end) in graph.outputs.iter().zip(&plan.ports) {
        if let Some(end) = end {
            readers.entry(port.value).or_default().push(end);
        }
    }
    for &id in order {
        if matches!(graph.op(id), Op::Constant(_)) {
            continue;
        }
        let Some(node) = plan.nodes.get(&id) else { continue };
        for (output, made) in node.outputs.iter().enumerate() {
            let value = Value { node: id, output };
            network.value(made, readers.get(&value).map(Vec::as_slice).unwrap_or_default(), graph.shape(value));
        }
        if let (Op::Transpose(op), Some(made)) = (graph.op(id), node.outputs.first())
            && let Some(x) = graph.input_of(id, 0)
            && let Some(read) = plan.nodes.get(&x.node).and_then(|node| node.outputs.get(x.output))
        {
            network.transpose(read, made, &op.perm, graph.shape(x));
        }
    }
    network.solve(plan.vars)
}

struct Network {
    graph: DiGraph<(), u64>,
    joined: Vec<(Var, Var)>,
}

fn vertex(var: Var) -> NodeIndex {
    NodeIndex::new(var.0)
}

impl Network {
    fn new(vars: usize) -> Self {
        let mut graph = DiGraph::with_capacity(vars, 2 * vars);
        for _ in 0..vars {
            graph.add_node(());
        }
        Network { graph, joined: Vec::new() }
    }

    /// `cost` when `a` is moved and `b` is kept.
    fn edge(&mut self, a: NodeIndex, b: NodeIndex, cost: u64) {
        if a != b && a != vertex(Var::KEPT) && b != vertex(Var::MOVED) && cost > 0 {
            self.graph.add_edge(a, b, cost);
        }
    }

    /// `cost`, once, when `made` is moved and any of `read` is kept.
    fn leaving(&mut self, made: Var, read: &[Var], cost: u64) {
        self.joined.extend(read.iter().map(|&read| (made, read)));
        match read {
            [] => {}
            [read] => self.edge(vertex(made), vertex(*read), cost),
            many => {
                let any = self.graph.add_node(());
                self.edge(vertex(made), any, cost);
                for &read in many {
                    self.edge(any, vertex(read), ENDLESS);
                }
            }
        }
    }

    /// `cost`, once, when any of `read` is moved and `made` is kept.
    fn entering(&mut self, read: &[Var], made: Var, cost: u64) {
        self.joined.extend(read.iter().map(|&read| (read, made)));
        match read {
            [] => {}
            [read] => self.edge(vertex(*read), vertex(made), cost),
            many => {
                let any = self.graph.add_node(());
                self.edge(any, vertex(made), cost);
                for &read in many {
                    self.edge(vertex(read), any, ENDLESS);
                }
            }
        }
    }

    /// The cost of one value.
    fn value(&mut self, made: &End, readers: &[&End], shape: &Shape) {
        let source = Order::source(shape.rank());
        // Every reader that is kept, and every one that never wants anything but the source's order.
        let leaving = cost(&made.order, &source, shape);
        let mut kept: Vec<Var> = Vec::new();
        let mut moved: BTreeMap<&Order, Vec<Var>> = BTreeMap::new();
        for end in readers {
            kept.push(if end.order.is_source() { Var::KEPT } else { end.var });
            if !end.order.is_source() {
                moved.entry(&end.order).or_default().push(end.var);
            }
        }
        for vars in moved.values_mut().chain([&mut kept]) {
            vars.sort_unstable();
            vars.dedup();
        }
        if leaving > 0 {
            self.leaving(made.var, &kept, leaving);
        }
        for (order, vars) in moved {
            let entering = cost(&source, order, shape);
            // In another order than the value is ever made in: it costs that whenever it is read so.
            let from = if *order == made.order { made.var } else { Var::KEPT };
            self.entering(&vars, from, entering);
        }
    }

    /// The cost of a transpose of the source for each of the four cases; what is not submodular is rounded up.
    fn transpose(&mut self, read: &End, made: &End, perm: &[usize], shape: &Shape) {
        let rank = shape.rank();
        let at = |x: &Order, y: &Order| {
            let to = y.after(perm);
            if x.is_factored() {
                return cost(x, &Order::source(rank), shape).saturating_add(cost(&Order::source(rank), &to, shape));
            }
            cost(x, &to, shape)
        };
        let source = Order::source(rank);
        let [kept, entering] = [&source, &made.order].map(|y| at(&source, y));
        let [leaving, moved] = [&source, &made.order].map(|y| at(&read.order, y));
        self.joined.push((read.var, made.var));
        self.unary(read.var, kept, leaving);
        self.unary(made.var, leaving, moved);
        let both = entering.saturating_add(leaving).saturating_sub(kept.saturating_add(moved));
        self.edge(vertex(made.var), vertex(read.var), both);
    }

    fn unary(&mut self, var: Var, kept: u64, moved: u64) {
        self.edge(vertex(var), vertex(Var::KEPT), moved.saturating_sub(kept));
        self.edge(vertex(Var::MOVED), vertex(var), kept.saturating_sub(moved));
    }

    fn solve(self, vars: usize) -> Vec<bool> {
        let (kept, moved) = (vertex(Var::KEPT), vertex(Var::MOVED));
        let (_, flows) = petgraph::algo::dinics(&self.graph, moved, kept);
        // Kept is what could still send flow to where everything is kept.
        let mut reaches = vec![false; self.graph.node_count()];
        let mut queue = VecDeque::from([kept]);
        if let Some(first) = reaches.first_mut() {
            *first = true;
        }
        while let Some(to) = queue.pop_front() {
            let flow = |index: usize| flows.get(index).copied().unwrap_or(0);
            let into = self.graph.edges_directed(to, petgraph::Direction::Incoming);
            let forward = into.filter(|e| flow(e.id().index()) < *e.weight()).map(|e| e.source());
            let out = self.graph.edges_directed(to, petgraph::Direction::Outgoing);
            let backward = out.filter(|e| flow(e.id().index()) > 0).map(|e| e.target());
            for from in forward.chain(backward) {
                if let Some(seen) = reaches.get_mut(from.index()).filter(|seen| !**seen) {
                    *seen = true;
                    queue.push_back(from);
                }
            }
        }
        // What no spatial operator has to do with is left alone.
        let mut regions = UnionFind::<usize>::new(vars);
        for (a, b) in self.joined {
            if a != Var::KEPT && b != Var::KEPT {
                regions.union(a.0, b.0);
            }
        }
        reaches
            .iter()
            .take(vars)
            .enumerate()
            .map(|(var, reaches)| !reaches && regions.equiv(var, Var::MOVED.0))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Dice;
    use super::*;

    /// The cheapest decisions of all, those with the most moved first, by trying every one.
    fn tried(vars: usize, edges: &[(usize, usize, u64)]) -> (u64, Vec<bool>) {
        let decisions = (0..1usize << (vars - 2)).map(|bits| {
            let moved: Vec<bool> = (0..vars).map(|var| var == 1 || var > 1 && bits >> (var - 2) & 1 == 1).collect();
            let cost = edges.iter().filter(|(a, b, _)| moved[*a] && !moved[*b]).map(|edge| edge.2).sum::<u64>();
            (cost, vars - moved.iter().filter(|moved| **moved).count(), moved)
        });
        let (cost, _, moved) = decisions.min().unwrap();
        (cost, moved)
    }

    #[test]
    fn the_cut_is_the_cheapest_with_the_most_moved() {
        let mut dice = Dice::new(3);
        for _ in 0..500 {
            let vars = 3 + dice.below(7);
            let mut network = Network::new(vars);
            let mut edges = Vec::new();
            // Joined in a row, so that everything has to do with everything.
            for var in 1..vars {
                let next = (var + 1) % vars;
                network.joined.push((Var(var), Var(next.max(1))));
            }
            for _ in 0..dice.below(4 * vars) {
                let (a, b, cost) = (dice.below(vars), dice.below(vars), 1 + dice.below(9) as u64);
                network.edge(NodeIndex::new(a), NodeIndex::new(b), cost);
                if a != b {
                    edges.push((a, b, cost));
                }
            }
            let (cost, moved) = tried(vars, &edges);
            let got = network.solve(vars);
            let paid = edges.iter().filter(|(a, b, _)| got[*a] && !got[*b]).map(|edge| edge.2).sum::<u64>();
            assert_eq!((paid, got), (cost, moved), "{edges:?}");
        }
    }

    #[test]
    fn a_value_costs_once_whoever_reads_it() {
        let order = Order::permutation(vec![0, 2, 1]);
        let shape = Shape::known(&[1, 5, 7]);
        let end = |var| End { var, order: order.clone() };
        let (free, other, moved, kept) = (end(Var(2)), end(Var(3)), end(Var::MOVED), end(Var::KEPT));
        // Two readers that must be kept against one that must be moved: once either way, so it is moved late.
        let mut network = Network::new(4);
        network.value(&moved, &[&free], &shape);
        network.value(&free, &[&kept, &kept, &other, &moved], &shape);
        assert_eq!(network.solve(4), [false, true, true, true]);
    }
}
