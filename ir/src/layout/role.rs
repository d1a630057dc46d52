//! What an axis is for, and the order of axes that follows from it in the target's layout.
//!
//! Sizes never take part: an axis keeps its role wherever it goes, and the order is that of the roles.

use std::sync::Arc;

use super::Layout;
use crate::shape::{Dim, Shape};
use crate::tensor::Tensor;

/// What an axis is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// The batch, and whatever else stays in front.
    Lead,
    /// The channels, or a part of them after a split.
    Channel,
    /// Space and everything else.
    Other,
    /// Axes of these sizes and roles, flattened into one in C order.
    Flat(Arc<[(usize, Role)]>),
}

impl Role {
    pub(super) fn is_flat(&self) -> bool {
        matches!(self, Role::Flat(_))
    }

    fn rank(&self, target: Layout) -> u8 {
        match (self, target) {
            (Role::Lead, _) => 0,
            (Role::Channel, Layout::ChannelsFirst) => 1,
            (Role::Channel, Layout::ChannelsLast) => 3,
            (Role::Other | Role::Flat(_), _) => 2,
        }
    }
}

/// The roles of a spatial operator's data: the batch, the channels where `layout` has them, space.
pub(super) fn spatial_roles(layout: Layout, rank: usize) -> Vec<Role> {
    let role = |axis| match axis {
        0 => Role::Lead,
        axis if axis == layout.channel_axis(rank) => Role::Channel,
        _ => Role::Other,
    };
    (0..rank).map(role).collect()
}

fn sorted<'a>(roles: impl ExactSizeIterator<Item = &'a Role>, target: Layout) -> Vec<usize> {
    let ranks: Vec<u8> = roles.map(|role| role.rank(target)).collect();
    let mut perm: Vec<usize> = (0..ranks.len()).collect();
    perm.sort_by_key(|&axis| ranks.get(axis).copied());
    perm
}

/// An order of a value's axes, and of the factors inside of flattened ones, relative to the source's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Order {
    /// `axis[i] = source.axis[perm[i]]`
    pub(super) perm: Vec<usize>,
    /// Per source axis: how its factors are reordered, if they are.
    inner: Vec<Option<Inner>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Inner {
    /// In the source's order.
    sizes: Vec<usize>,
    perm: Vec<usize>,
}

impl Order {
    /// The source's order.
    pub(super) fn source(rank: usize) -> Self {
        Order::permutation((0..rank).collect())
    }

    /// A plain permutation.
    pub(super) fn permutation(perm: Vec<usize>) -> Self {
        Order { inner: vec![None; perm.len()], perm }
    }

    /// The target's order for axes of these roles. Axes of equal roles keep their order.
    pub(super) fn of(roles: &[Role], target: Layout) -> Self {
        let inner = |role: &Role| {
            let Role::Flat(factors) = role else { return None };
            let perm = sorted(factors.iter().map(|(_, role)| role), target);
            let sizes = factors.iter().map(|(size, _)| *size).collect();
            (!perm.is_sorted()).then_some(Inner { sizes, perm })
        };
        Order { perm: sorted(roles.iter(), target), inner: roles.iter().map(inner).collect() }
    }

    pub(super) fn is_source(&self) -> bool {
        self.perm.is_sorted() && !self.is_factored()
    }

    /// Whether the inside of an axis is reordered.
    pub(super) fn is_factored(&self) -> bool {
        self.inner.iter().any(Option::is_some)
    }

    /// Whether the last two axes change places and nothing else happens.
    pub(super) fn swaps_matrix(&self) -> bool {
        let rank = self.perm.len();
        let swapped = (0..rank.saturating_sub(2)).chain([rank.wrapping_sub(1), rank.wrapping_sub(2)]);
        rank >= 2 && !self.is_factored() && self.perm.iter().copied().eq(swapped)
    }

    /// Where an axis of the source is now.
    pub(super) fn place(&self, axis: usize) -> usize {
        self.perm.iter().position(|&a| a == axis).unwrap_or(axis)
    }

    /// Where axes of the source are now, sorted.
    pub(super) fn places(&self, axes: &[usize]) -> Vec<usize> {
        let mut places: Vec<usize> = axes.iter().map(|&axis| self.place(axis)).collect();
        places.sort_unstable();
        places
    }

    /// A list with one element per source axis, in this order.
    pub(super) fn list<T: Clone>(&self, list: &[T]) -> Vec<T> {
        self.perm.iter().filter_map(|&axis| list.get(axis).cloned()).collect()
    }

    /// This order of a transposed value, as an order of the value before the transpose.
    pub(super) fn after(&self, transpose: &[usize]) -> Order {
        Order::permutation(self.list(transpose))
    }

    /// The order of one axis alone, as a vector over it has it.
    pub(super) fn of_axis(&self, axis: usize) -> Order {
        Order { perm: vec![0], inner: vec![self.inner.get(axis).cloned().flatten()] }
    }

    /// The order of a kernel whose rows are the last axis of the one and whose columns that of the other.
    pub(super) fn kernel(rows: &Order, columns: &Order) -> Order {
        let last = |order: &Order| order.inner.last().cloned().flatten();
        Order { perm: vec![0, 1], inner: vec![last(rows), last(columns)] }
    }

    /// The order of a value over some axes of this one, in the order in which they are listed.
    pub(super) fn of_axes(&self, axes: &[usize]) -> Order {
        let mut perm: Vec<usize> = (0..axes.len()).collect();
        perm.sort_by_key(|&i| axes.get(i).map(|&axis| self.place(axis)));
        Order { perm, inner: axes.iter().map(|&axis| self.inner.get(axis).cloned().flatten()).collect() }
    }

    /// The sizes of a source axis' factors, in the order in which this order has them.
    fn factors(&self, axis: usize, sizes: Option<&[usize]>, whole: &Dim) -> (Vec<Dim>, Vec<usize>) {
        match (self.inner.get(axis).and_then(Option::as_ref), sizes) {
            (Some(inner), _) => {
                let dims = inner.perm.iter().filter_map(|&i| inner.sizes.get(i).copied().map(Dim::Known)).collect();
                (dims, inner.perm.clone())
            }
            (None, Some(sizes)) => (sizes.iter().copied().map(Dim::Known).collect(), (0..sizes.len()).collect()),
            (None, None) => (vec![whole.clone()], vec![0]),
        }
    }

    /// The steps from this order to another, for a value that has `shape` in the source's order; `None` when the two
    /// factor the same axis differently.
    pub(super) fn steps(&self, to: &Order, shape: &Shape) -> Option<Steps> {
        let split = |axis: usize| {
            let at = |order: &Order| order.inner.get(axis).cloned().flatten().map(|inner| inner.sizes);
            match (at(self), at(to)) {
                (Some(a), Some(b)) if a != b => None,
                (a, b) => Some(a.or(b)),
            }
        };
        let splits: Vec<Option<Vec<usize>>> = (0..shape.rank()).map(split).collect::<Option<_>>()?;
        let sequence = |order: &Order| {
            let mut dims = Vec::new();
            let mut labels = Vec::new();
            for &axis in &order.perm {
                let (Some(dim), Some(sizes)) = (shape.get(axis), splits.get(axis)) else { continue };
                let (factors, perm) = order.factors(axis, sizes.as_deref(), dim);
                dims.extend(factors);
                labels.extend(perm.into_iter().map(|factor| (axis, factor)));
            }
            (dims, labels)
        };
        let ((dims, have), (_, want)) = (sequence(self), sequence(to));
        let perm = want.iter().map(|label| have.iter().position(|l| l == label)).collect::<Option<Vec<_>>>()?;
        let factored = splits.iter().any(Option::is_some);
        Some(Steps { factors: factored.then_some(Shape(dims)), perm, shape: shape.permuted(&to.perm) })
    }

    /// A tensor of the source, in this order. Nothing is read.
    pub(super) fn tensor(&self, tensor: &Tensor) -> Result<Tensor, String> {
        let shape = Shape::known(&tensor.shape());
        let Some(steps) = Order::source(shape.rank()).steps(self, &shape) else { return Ok(tensor.clone()) };
        let sizes = |shape: &Shape| shape.sizes().unwrap_or_default();
        let factored = steps.factors.as_ref().map_or_else(|| Ok(tensor.clone()), |f| tensor.reshaped(&sizes(f)))?;
        factored.permuted(&steps.perm)?.reshaped(&sizes(&steps.shape))
    }
}

/// How a value is brought from one order to another: reshape to factors, transpose, reshape to the final shape.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    /// The shape to split into first, when axes are factored.
    pub(super) factors: Option<Shape>,
    /// The transposition.
    pub(super) perm: Vec<usize>,
    /// The shape afterwards.
    pub(super) shape: Shape,
}

impl Steps {
    /// Whether nothing is to be done.
    pub(super) fn is_nothing(&self) -> bool {
        self.perm.is_sorted()
    }

    /// Whether a value of `from` only moves axes of size 1, so that a reshape says the same.
    pub(super) fn is_reshape(&self, from: &Shape) -> bool {
        let long: Vec<usize> =
            self.perm.iter().copied().filter(|&axis| from.get(axis).is_none_or(|dim| *dim != Dim::Known(1))).collect();
        let open = self.shape.iter().filter(|dim| **dim == Dim::Unknown).count();
        self.factors.is_none() && long.is_sorted() && open <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_sort_into_the_target() {
        let roles = spatial_roles(Layout::ChannelsLast, 4);
        assert_eq!(Order::of(&roles, Layout::ChannelsFirst).perm, [0, 3, 1, 2]);
        assert!(Order::of(&roles, Layout::ChannelsLast).is_source());
        let video = [Role::Lead, Role::Lead, Role::Other, Role::Other, Role::Channel];
        assert_eq!(Order::of(&video, Layout::ChannelsFirst).perm, [0, 1, 4, 2, 3]);
        let shuffled = [Role::Lead, Role::Channel, Role::Channel, Role::Other, Role::Other];
        assert_eq!(Order::of(&shuffled, Layout::ChannelsLast).perm, [0, 3, 4, 1, 2]);
    }

    #[test]
    fn flattened_axes_are_reordered_inside() {
        let flat = Role::Flat([(2, Role::Other), (3, Role::Channel)].into());
        let order = Order::of(&[Role::Lead, flat], Layout::ChannelsFirst);
        assert!(order.perm.is_sorted() && order.is_factored());
        let rows = Tensor::from_i64(&[6, 1], &[0, 1, 2, 3, 4, 5]);
        let moved = Order::kernel(&order, &Order::source(2)).tensor(&rows).unwrap();
        assert_eq!(moved.to_i64().unwrap(), [0, 3, 1, 4, 2, 5]);
        let shape = Shape(vec![Dim::symbol("N"), Dim::Known(6)]);
        let steps = order.steps(&Order::source(2), &shape).unwrap();
        assert_eq!((steps.factors.unwrap().to_string(), steps.perm), ("[N, 3, 2]".to_owned(), vec![0, 2, 1]));
    }
}
