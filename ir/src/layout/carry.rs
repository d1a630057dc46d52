//! How every operator carries the roles of axes from one of its values to the others.

use super::Layout;
use super::groups::reshaped_roles;
use super::role::{Order, Role, spatial_roles};
use crate::graph::{Graph, NodeId, Value};
use crate::op::{Op, SlotKind};
use crate::shape::{Dim, Shape};

/// One of a node's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Input(usize),
    Output(usize),
}

/// The roles of all values of a node, such that the operator can work in the target's order.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    /// By slot; `None` for what stays in the source's order.
    pub(super) inputs: Vec<Option<Vec<Role>>>,
    /// By output.
    pub(super) outputs: Vec<Option<Vec<Role>>>,
    /// Whether a role was chosen that could as well have been another: that of a new axis.
    pub(super) guessed: bool,
}

/// A node as seen by the layout: its operator and values, and what is known of them.
pub(super) struct View<'a> {
    pub(super) graph: &'a Graph,
    pub(super) op: &'a Op,
    pub(super) inputs: &'a [Option<Value>],
    pub(super) outputs: Vec<Value>,
    pub(super) target: Layout,
}

/// The layout that a spatial operator has and must leave for the target's; `None` for what is not spatial, or has no
/// space: normalisation of rank 2.
pub(super) fn spatial_layout(graph: &Graph, op: &Op, inputs: &[Option<Value>]) -> Option<Layout> {
    let rank = inputs.first().copied().flatten().map(|x| graph.shape(x).rank())?;
    let layout = op.layout()?;
    let shared_slope = matches!(op, Op::PRelu(_))
        && inputs.get(1).copied().flatten().is_some_and(|slope| graph.shape(slope).sizes().as_deref() == Some(&[1]));
    (rank >= 3 && !shared_slope).then_some(layout)
}

impl<'a> View<'a> {
    pub(super) fn new(graph: &'a Graph, id: NodeId, inputs: &'a [Option<Value>], target: Layout) -> Self {
        let node = graph.node(id);
        let outputs = (0..node.outputs.len()).map(|output| Value { node: id, output }).collect();
        View { graph, op: &node.op, inputs, outputs, target }
    }

    pub(super) fn value(&self, place: Place) -> Option<Value> {
        match place {
            Place::Input(slot) => self.inputs.get(slot).copied().flatten(),
            Place::Output(output) => self.outputs.get(output).copied(),
        }
    }

    /// The inputs that are data, and the outputs.
    pub(super) fn places(&self) -> Vec<Place> {
        let data = |&slot: &usize| {
            let kind = self.op.slot(slot).map(|slot| slot.kind);
            matches!(kind, Some(SlotKind::Data | SlotKind::Variadic)) && self.value(Place::Input(slot)).is_some()
        };
        let inputs = (0..self.inputs.len()).filter(data).map(Place::Input);
        inputs.chain((0..self.outputs.len()).map(Place::Output)).collect()
    }

    fn shape(&self, place: Place) -> Option<&'a Shape> {
        self.value(place).map(|value| self.graph.shape(value))
    }

    fn is_constant(&self, slot: usize) -> bool {
        self.value(Place::Input(slot)).is_some_and(|value| self.graph.tensor(value).is_some())
    }

    /// Whether all parameters are constants, which can be rearranged, or absent.
    fn has_constant_parameters(&self) -> bool {
        (1..self.inputs.len()).all(|slot| self.value(Place::Input(slot)).is_none() || self.is_constant(slot))
    }

    /// The roles of all values when the one at `anchor` has these; `None` when the operator's order is its meaning.
    /// `known` tells the roles of values that have some already: new axes take theirs.
    pub(super) fn carry(
        &self,
        anchor: Place,
        roles: &[Role],
        known: &dyn Fn(Value) -> Option<&'a [Role]>,
    ) -> Option<Carried> {
        if let Some(layout) = spatial_layout(self.graph, self.op, self.inputs) {
            let roles = |value: Value| Some(spatial_roles(layout, self.graph.shape(value).rank()));
            let mut inputs = vec![None; self.inputs.len()];
            *inputs.first_mut()? = self.value(Place::Input(0)).and_then(roles);
            let outputs = self.outputs.iter().map(|&value| roles(value)).collect();
            return Some(Carried { inputs, outputs, guessed: false });
        }
        let hint = |place: Place| self.value(place).and_then(known);
        let untouched = |axes: &[usize]| axes.iter().all(|&axis| roles.get(axis).is_some_and(|role| !role.is_flat()));
        let whole = || !roles.iter().any(Role::is_flat);
        match self.op {
            Op::Constant(_) | Op::Foreign(_) | Op::Range(_) | Op::Dims(_) => None,
            Op::Scatter(_) => None,
            Op::Dense(_) | Op::MatMul(_) | Op::Einsum(_) | Op::Attention(_) | Op::Recurrent(_) => None,
            Op::GatherNd(_) | Op::GridSample(_) => None,
            Op::Fill(_) => self.all(roles),
            Op::Input(_) => whole().then(|| self.all(roles)).flatten(),
            Op::Unary(_) | Op::LeakyRelu(_) | Op::Elu(_) | Op::Gelu(_) | Op::Clip(_) | Op::Cast(_) | Op::Dropout(_) => {
                self.all(roles)
            }
            Op::Softmax(_) | Op::LogSoftmax(_) | Op::L2Normalize(_) => self.all(roles),
            Op::Binary(_) | Op::Select(_) | Op::Expand(_) => self.elementwise(anchor, roles),
            // Frameworks normalise over the last axis: moved, it would be moved back and forth inside of the layer.
            Op::LayerNorm(op) if op.axes.len() == 1 && op.axes.first().map(|axis| axis + 1) == Some(roles.len()) => {
                None
            }
            Op::BatchNorm(_) | Op::InstanceNorm(_) | Op::PRelu(_) | Op::LayerNorm(_) => {
                let simple = whole() && !matches!(self.op, Op::LayerNorm(op) if op.axes.len() > 1);
                let movable = simple || self.has_constant_parameters();
                movable.then(|| self.all(roles)).flatten()
            }
            Op::GroupNorm(_) | Op::Lrn(_) => whole().then(|| self.all(roles)).flatten(),
            Op::Conv(_)
            | Op::ConvTranspose(_)
            | Op::Pool(_)
            | Op::AdaptivePool(_)
            | Op::Resize(_)
            | Op::SpaceToDepth(_)
            | Op::DepthToSpace(_) => None,
            Op::CumSum(op) => untouched(&[op.axis]).then(|| self.all(roles)).flatten(),
            Op::Concat(op) => untouched(&[op.axis]).then(|| self.all(roles)).flatten(),
            Op::Split(op) => untouched(&[op.axis]).then(|| self.all(roles)).flatten(),
            Op::Reverse(op) => untouched(&op.axes).then(|| self.all(roles)).flatten(),
            Op::Slice(op) => {
                let cut: Vec<usize> = (0..roles.len()).filter(|&axis| !op.takes_all(axis)).collect();
                untouched(&cut).then(|| self.all(roles)).flatten()
            }
            Op::Pad(op) => {
                let padded = |axis: &usize| op.pads.0.get(*axis) != Some(&(0, 0));
                let padded: Vec<usize> = (0..roles.len()).filter(padded).collect();
                untouched(&padded).then(|| self.all(roles)).flatten()
            }
            Op::Tile(op) => {
                let repeated = |axis: &usize| op.repeats.get(*axis) != Some(&Dim::Known(1));
                let repeated: Vec<usize> = (0..roles.len()).filter(repeated).collect();
                untouched(&repeated).then(|| self.all(roles)).flatten()
            }
            Op::TopK(_) => {
                let last = roles.len().checked_sub(1)?;
                let stays = Order::of(roles, self.target).perm.last() == Some(&last);
                (stays && untouched(&[last])).then(|| self.all(roles)).flatten()
            }
            Op::Reduce(op) if op.keep_dims => {
                // An axis of size 1 is no longer a flattened one.
                let mut x = roles.to_vec();
                let mut y = roles.to_vec();
                for &axis in &op.axes {
                    if let Some(known) = hint(Place::Input(0)).and_then(|known| known.get(axis)) {
                        x.get_mut(axis)?.clone_from(known);
                    }
                    if let Some(role) = y.get_mut(axis).filter(|role| role.is_flat()) {
                        *role = Role::Other;
                    }
                }
                self.pair(x, y, false)
            }
            Op::Reduce(op) => self.removing(anchor, roles, &op.axes, hint(Place::Input(0))),
            Op::ArgReduce(op) => {
                if matches!(anchor, Place::Input(_)) && !untouched(&[op.axis]) {
                    None
                } else if op.keep_dims {
                    untouched(&[op.axis]).then(|| self.all(roles)).flatten()
                } else {
                    self.removing(anchor, roles, &[op.axis], hint(Place::Input(0)))
                }
            }
            Op::Squeeze(op) => self.removing(anchor, roles, &op.axes, hint(Place::Input(0))),
            Op::Unpack(op) => {
                if matches!(anchor, Place::Input(_)) && !untouched(&[op.axis]) {
                    return None;
                }
                self.removing(anchor, roles, &[op.axis], hint(Place::Input(0)))
            }
            Op::Unsqueeze(op) => self.inserting(anchor, roles, &op.axes, hint(Place::Output(0))),
            Op::Pack(op) => self.inserting(anchor, roles, &[op.axis], hint(Place::Output(0))),
            Op::OneHot(op) => self.inserting(anchor, roles, &[op.axis], hint(Place::Output(0))),
            Op::Gather(op) => {
                let indices = self.shape(Place::Input(1))?.rank();
                if op.batch_dims > 0 || self.is_constant(0) || matches!(anchor, Place::Input(1..)) {
                    return None;
                }
                self.gather(anchor, roles, op.axis, indices, hint(Place::Input(0)))
            }
            Op::Reshape(_) => {
                let (x, y) = (self.shape(Place::Input(0))?, self.shape(Place::Output(0))?);
                if matches!(anchor, Place::Input(_)) {
                    let (y, guessed) = filled(reshaped_roles(x, roles, y, self.target)?, hint(Place::Output(0)));
                    self.pair(roles.to_vec(), y, guessed)
                } else {
                    let (x, guessed) = filled(reshaped_roles(y, roles, x, self.target)?, hint(Place::Input(0)));
                    self.pair(x, roles.to_vec(), guessed)
                }
            }
            Op::Transpose(op) => {
                // The two sides don't bind each other: what roles the one gives the other is a guess.
                if !whole() {
                    return None;
                }
                if matches!(anchor, Place::Input(_)) {
                    let y = op.perm.iter().filter_map(|&axis| roles.get(axis).cloned()).collect();
                    self.pair(roles.to_vec(), y, true)
                } else {
                    let at = |axis: usize| op.perm.iter().position(|&a| a == axis);
                    let x = (0..roles.len()).filter_map(|axis| roles.get(at(axis)?).cloned()).collect();
                    self.pair(x, roles.to_vec(), true)
                }
            }
        }
    }

    /// The same roles for all data.
    fn all(&self, roles: &[Role]) -> Option<Carried> {
        let mut inputs = vec![None; self.inputs.len()];
        for place in self.places() {
            if let Place::Input(slot) = place {
                *inputs.get_mut(slot)? = Some(roles.to_vec());
            }
        }
        Some(Carried { inputs, outputs: vec![Some(roles.to_vec()); self.outputs.len()], guessed: false })
    }

    /// Roles for all data inputs and for all outputs.
    fn pair(&self, x: Vec<Role>, y: Vec<Role>, guessed: bool) -> Option<Carried> {
        let mut carried = self.all(&x)?;
        carried.outputs = vec![Some(y); self.outputs.len()];
        carried.guessed = guessed;
        Some(carried)
    }

    /// The input has `axes`, the output has not.
    fn removing(&self, anchor: Place, roles: &[Role], axes: &[usize], hint: Option<&[Role]>) -> Option<Carried> {
        match anchor {
            Place::Input(_) => self.pair(roles.to_vec(), without(roles, axes), false),
            Place::Output(_) => {
                let (x, guessed) = filled(opened(roles, axes), hint);
                self.pair(x, roles.to_vec(), guessed)
            }
        }
    }

    /// The output has `axes`, the input has not.
    fn inserting(&self, anchor: Place, roles: &[Role], axes: &[usize], hint: Option<&[Role]>) -> Option<Carried> {
        match anchor {
            Place::Input(_) => {
                let (y, guessed) = filled(opened(roles, axes), hint);
                self.pair(roles.to_vec(), y, guessed)
            }
            Place::Output(_) if axes.iter().any(|&axis| roles.get(axis).is_none_or(Role::is_flat)) => None,
            Place::Output(_) => self.pair(without(roles, axes), roles.to_vec(), false),
        }
    }

    /// An axis that becomes the axes of the indices.
    fn gather(
        &self,
        anchor: Place,
        roles: &[Role],
        axis: usize,
        indices: usize,
        hint: Option<&[Role]>,
    ) -> Option<Carried> {
        let (x, y, guessed) = match anchor {
            Place::Input(_) => {
                let role = roles.get(axis).filter(|role| !role.is_flat())?.clone();
                let mut y = roles.to_vec();
                y.splice(axis..=axis, vec![role; indices]);
                (roles.to_vec(), y, false)
            }
            Place::Output(_) => {
                let picked = roles.get(axis..axis.checked_add(indices)?)?;
                if picked.iter().any(|role| role.is_flat() || Some(role) != picked.first()) {
                    return None;
                }
                let mut x: Vec<Option<Role>> = roles.iter().cloned().map(Some).collect();
                x.splice(axis..axis + indices, [picked.first().cloned()]);
                let (x, guessed) = filled(x, hint);
                (x, roles.to_vec(), guessed)
            }
        };
        let mut carried = self.pair(x, y, guessed)?;
        // Which elements are picked has nothing to do with their order.
        *carried.inputs.get_mut(1)? = None;
        Some(carried)
    }

    /// Operands that broadcast: each has the roles of the result's last axes.
    fn elementwise(&self, anchor: Place, roles: &[Role]) -> Option<Carried> {
        let result = self.shape(Place::Output(0))?;
        // From an operand of lower rank nothing is known of the axes in front.
        if self.shape(anchor)?.rank() != result.rank() {
            return None;
        }
        let mut inputs = vec![None; self.inputs.len()];
        for place in self.places() {
            let Place::Input(slot) = place else { continue };
            let shape = self.shape(place)?;
            let offset = result.rank().checked_sub(shape.rank())?;
            let mut own = roles.get(offset..)?.to_vec();
            for (role, dim) in own.iter_mut().zip(shape.iter()) {
                if let Role::Flat(factors) = &*role {
                    let size = factors.iter().map(|(size, _)| size).product::<usize>();
                    match dim {
                        Dim::Known(1) => *role = Role::Other,
                        Dim::Known(n) if *n == size => {}
                        _ => return None,
                    }
                }
            }
            *inputs.get_mut(slot)? = Some(own);
        }
        Some(Carried { inputs, outputs: vec![Some(roles.to_vec()); self.outputs.len()], guessed: false })
    }
}

fn without(roles: &[Role], axes: &[usize]) -> Vec<Role> {
    roles.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, role)| role.clone()).collect()
}

/// Places for axes that are yet to get a role.
fn opened(roles: &[Role], axes: &[usize]) -> Vec<Option<Role>> {
    let mut result: Vec<Option<Role>> = roles.iter().cloned().map(Some).collect();
    for &axis in axes {
        result.insert(axis.min(result.len()), None);
    }
    result
}

/// Roles for axes that have none: those that are known already, else of what is around; then it is a guess.
fn filled(roles: Vec<Option<Role>>, known: Option<&[Role]>) -> (Vec<Role>, bool) {
    let mut guessed = false;
    let mut result: Vec<Role> = Vec::with_capacity(roles.len());
    for (axis, role) in roles.iter().enumerate() {
        let known = || known.filter(|known| known.len() == roles.len())?.get(axis).filter(|role| !role.is_flat());
        let role = role.as_ref().or_else(known).cloned().unwrap_or_else(|| {
            guessed = true;
            let leads = axis == 0 || roles.get(axis + 1) == Some(&Some(Role::Lead));
            if leads { Role::Lead } else { Role::Other }
        });
        result.push(role);
    }
    (result, guessed)
}
