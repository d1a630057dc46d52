//! What every node accepts: for each of its values an order, and the variable that decides whether it is taken.

use std::collections::HashMap;

use super::carry::{Place, View, spatial_layout};
use super::role::{Order, Role};
use super::trace::Roles;
use super::{Layout, Ports};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Op, SlotKind};

/// A decision of the cut: whether a part of a node works in the target's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Var(pub(super) usize);

impl Var {
    /// Always in the source's order.
    pub(super) const KEPT: Var = Var(0);
    /// Always in the target's order.
    pub(super) const MOVED: Var = Var(1);
}

/// How one value of a node is made or read: in `order` when the variable says so, else in the source's.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) var: Var,
    pub(super) order: Order,
}

/// The ends of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodePlan {
    /// By slot; `None` where any order will do: only the shape is used, or a transpose takes it as it comes.
    pub(super) inputs: Vec<Option<End>>,
    /// By output.
    pub(super) outputs: Vec<End>,
}

/// The ends of all nodes, and how many variables there are.
pub(super) struct Plan {
    pub(super) nodes: HashMap<NodeId, NodePlan>,
    /// Per output of the graph; `None` when it takes the order that comes.
    pub(super) ports: Vec<Option<End>>,
    pub(super) vars: usize,
}

impl Plan {
    pub(super) fn new(graph: &Graph, order: &[NodeId], roles: &Roles<'_>, target: Layout, ports: Ports) -> Plan {
        let mut plan = Plan { nodes: HashMap::with_capacity(order.len()), ports: Vec::new(), vars: 2 };
        for &id in order {
            let node = plan.node(graph, id, roles, target, ports);
            plan.nodes.insert(id, node);
        }
        for port in &graph.outputs {
            let made = plan.nodes.get(&port.value.node).and_then(|node| node.outputs.get(port.value.output));
            let free = ports == Ports::Target && made.is_none_or(|end| !end.order.is_factored());
            plan.ports.push((!free).then(|| kept(graph, port.value)));
        }
        plan
    }

    fn fresh(&mut self) -> Var {
        self.vars += 1;
        Var(self.vars - 1)
    }

    fn node(&mut self, graph: &Graph, id: NodeId, roles: &Roles<'_>, target: Layout, ports: Ports) -> NodePlan {
        let view = roles.view(id);
        let mut plan = NodePlan { inputs: vec![None; view.inputs.len()], outputs: Vec::new() };
        for (slot, end) in plan.inputs.iter_mut().enumerate() {
            let like = view.op.slot(slot).is_some_and(|slot| slot.kind == SlotKind::Like);
            if !like || matches!(view.op, Op::Foreign(_)) {
                *end = view.value(Place::Input(slot)).map(|value| kept(graph, value));
            }
        }
        plan.outputs = view.outputs.iter().map(|&value| kept(graph, value)).collect();
        let given = |place: Place| view.value(place).and_then(|value| roles.get(value));
        match view.op {
            Op::Constant(_) => return plan,
            Op::Dense(_) => {
                if let (Some(x), true) = (flat_features(&view, given(Place::Input(0)), 0, target), constant(&view)) {
                    set(&mut plan.inputs, 0, Some(End { var: self.fresh(), order: x }));
                }
                if let (Some(y), true) = (flat_features(&view, given(Place::Output(0)), 1, target), constant(&view)) {
                    set(&mut plan.outputs, 0, End { var: self.fresh(), order: y });
                }
                return plan;
            }
            Op::MatMul(_) => {
                // An operand whose matrices are transposed is read as such.
                for slot in 0..2 {
                    let order = given(Place::Input(slot)).map(|roles| Order::of(roles, target));
                    if let Some(order) = order.filter(Order::swaps_matrix) {
                        set(&mut plan.inputs, slot, Some(End { var: self.fresh(), order }));
                    }
                }
                return plan;
            }
            Op::Transpose(_) => {
                set(&mut plan.inputs, 0, None);
                if let Some(roles) = given(Place::Output(0)).filter(|roles| !roles.iter().any(Role::is_flat)) {
                    set(&mut plan.outputs, 0, End { var: self.fresh(), order: Order::of(roles, target) });
                }
                return plan;
            }
            _ => {}
        }
        let Some(carried) = roles.of_node(id) else { return plan };
        let var = match view.op {
            op if spatial_layout(graph, op, view.inputs).is_some() => Var::MOVED,
            Op::Input(_) if ports == Ports::Source => Var::KEPT,
            _ => self.fresh(),
        };
        let end = |roles: &Vec<Role>| End { var, order: Order::of(roles, target) };
        for (slot, roles) in carried.inputs.iter().enumerate() {
            if let Some(roles) = roles {
                set(&mut plan.inputs, slot, Some(end(roles)));
            }
        }
        for (output, roles) in carried.outputs.iter().enumerate() {
            if let Some(roles) = roles {
                set(&mut plan.outputs, output, end(roles));
            }
        }
        plan
    }
}

fn set<T>(list: &mut [T], index: usize, value: T) {
    if let Some(place) = list.get_mut(index) {
        *place = value;
    }
}

fn kept(graph: &Graph, value: Value) -> End {
    End { var: Var::KEPT, order: Order::source(graph.shape(value).rank()) }
}

/// Whether the parameters can be rearranged.
fn constant(view: &View<'_>) -> bool {
    view.inputs.iter().skip(1).flatten().all(|&value| view.graph.tensor(value).is_some())
}

/// The order of a dense layer's data when only its features, flattened from several axes, are reordered: then the
/// rows (`side` 0) or columns (`side` 1) of the kernel can be reordered instead.
fn flat_features(view: &View<'_>, roles: Option<&[Role]>, side: usize, target: Layout) -> Option<Order> {
    let (last, lead) = roles?.split_last()?;
    let Role::Flat(factors) = last else { return None };
    let size: usize = factors.iter().map(|(size, _)| size).product();
    let kernel = view.value(Place::Input(1)).and_then(|kernel| view.graph.shape(kernel).get(side)?.known());
    let order = Order::of(roles?, target);
    let fits = kernel == Some(size) && order.perm.is_sorted() && !lead.iter().any(Role::is_flat);
    fits.then_some(order)
}
