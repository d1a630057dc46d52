//! Which role every axis of every value plays: spread from the spatial operators through the graph.
//!
//! What follows strictly is spread first. Roles of new axes, and those beyond a transpose of the source, are choices:
//! they are made one at a time, only where nothing else was said.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::Layout;
use super::carry::{Carried, Place, View, spatial_layout};
use super::role::{Role, spatial_roles};
use crate::graph::{Graph, NodeId, Value};
use crate::op::Op;
use crate::shape::Dim;

/// The roles of the axes of values; values that are absent stay in the source's order.
pub(super) struct Roles<'a> {
    graph: &'a Graph,
    target: Layout,
    known: HashMap<Value, Vec<Role>>,
    /// The inputs of all nodes, by slot.
    inputs: HashMap<NodeId, Vec<Option<Value>>>,
}

impl<'a> Roles<'a> {
    /// Roles for the values of a graph whose nodes are given in order.
    pub(super) fn trace(graph: &'a Graph, order: &[NodeId], target: Layout) -> Self {
        let inputs = order.iter().map(|&id| (id, graph.inputs_of(id))).collect();
        let mut roles = Roles { graph, target, known: HashMap::new(), inputs };
        let place: HashMap<NodeId, usize> = order.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let mut news = VecDeque::new();
        for &id in order {
            let inputs = roles.inputs_of(id);
            if let Some(layout) = spatial_layout(graph, graph.op(id), inputs) {
                let view = View::new(graph, id, inputs, target);
                for value in view.places().into_iter().filter_map(|place| view.value(place)).collect::<Vec<_>>() {
                    roles.learn(value, &spatial_roles(layout, graph.shape(value).rank()), &mut news);
                }
            }
        }
        let readers = roles.readers(order);
        let (mut choices, mut done) = (BTreeSet::new(), HashSet::new());
        loop {
            while let Some(value) = news.pop_front() {
                let producer = (value.node, Place::Output(value.output));
                let readers = readers.get(&value).into_iter().flatten();
                for (node, anchor) in std::iter::once(producer).chain(readers.copied()) {
                    if done.contains(&node) {
                        continue;
                    }
                    if let Some(carried) = roles.carried(node, anchor) {
                        if carried.guessed {
                            choices.insert((place.get(&node).copied(), node, anchor));
                        } else {
                            roles.learn_all(node, &carried, &mut news);
                            done.insert(node);
                        }
                    }
                }
            }
            let Some((_, node, anchor)) = choices.pop_first() else { return roles };
            if let Some(carried) = roles.carried(node, anchor) {
                roles.learn_all(node, &carried, &mut news);
            }
        }
    }

    /// Who reads a value, by value, in the order of the nodes.
    fn readers(&self, order: &[NodeId]) -> HashMap<Value, Vec<(NodeId, Place)>> {
        let mut readers: HashMap<Value, Vec<(NodeId, Place)>> = HashMap::new();
        for &id in order {
            for (slot, value) in self.inputs_of(id).iter().enumerate() {
                if let Some(value) = value {
                    readers.entry(*value).or_default().push((id, Place::Input(slot)));
                }
            }
        }
        readers
    }

    /// The roles of a value, if it has some.
    pub(super) fn get(&self, value: Value) -> Option<&[Role]> {
        self.known.get(&value).map(Vec::as_slice)
    }

    /// The inputs of a node, by slot.
    pub(super) fn inputs_of(&self, node: NodeId) -> &[Option<Value>] {
        self.inputs.get(&node).map_or(&[], Vec::as_slice)
    }

    pub(super) fn view(&self, node: NodeId) -> View<'_> {
        View::new(self.graph, node, self.inputs_of(node), self.target)
    }

    /// How a node carries the roles that its values have: those that follow strictly are preferred.
    pub(super) fn of_node(&self, node: NodeId) -> Option<Carried> {
        let anchors = self.view(node).places();
        let mut carried = anchors.into_iter().filter_map(|anchor| self.carried(node, anchor));
        let first = carried.next()?;
        if !first.guessed {
            return Some(first);
        }
        Some(carried.find(|carried| !carried.guessed).unwrap_or(first))
    }

    fn carried(&self, node: NodeId, anchor: Place) -> Option<Carried> {
        let view = self.view(node);
        let roles = self.get(view.value(anchor)?)?;
        view.carry(anchor, roles, &|value| self.get(value))
    }

    fn learn_all(&mut self, node: NodeId, carried: &Carried, news: &mut VecDeque<Value>) {
        let inputs = carried.inputs.iter().enumerate().map(|(slot, roles)| (Place::Input(slot), roles));
        let outputs = carried.outputs.iter().enumerate().map(|(output, roles)| (Place::Output(output), roles));
        let view = self.view(node);
        let learned: Vec<(Value, Vec<Role>)> =
            inputs.chain(outputs).filter_map(|(place, roles)| Some((view.value(place)?, roles.clone()?))).collect();
        for (value, roles) in learned {
            self.learn(value, &roles, news);
        }
    }

    /// Gives a value its roles, unless it has some. Only values of rank 3 and more have an order worth speaking of,
    /// and those with a flattened axis.
    fn learn(&mut self, value: Value, roles: &[Role], news: &mut VecDeque<Value>) {
        let shape = self.graph.shape(value);
        let flat = roles.iter().any(Role::is_flat);
        let open = shape.iter().filter(|dim| **dim == Dim::Unknown).count();
        let fits = roles.len() == shape.rank() && (roles.len() >= 3 || flat) && !(flat && open > 1);
        if fits && !matches!(self.graph.op(value.node), Op::Constant(_)) && !self.known.contains_key(&value) {
            self.known.insert(value, roles.to_vec());
            news.push_back(value);
        }
    }
}
