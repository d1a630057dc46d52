//! Channels first or last: the only module that knows the difference.
//!
//! [`convert`] brings a graph to the layout of a target. It never looks at sizes to find out what an axis is:
//!
//! 1. `trace` gives axes their roles (batch, channel, other), from the spatial operators on, as every operator
//!    carries them (`carry`, and `groups` for reshapes);
//! 2. the roles say in which order a value would be in the target's layout (`role`);
//! 3. `plan` says what every node accepts, and `cut` decides with a minimum cut which nodes work in the target's
//!    order and which in the source's, such that the least data is transposed;
//! 4. `relabel` renumbers the axes of all operators and puts transposes where the cut is.

mod carry;
mod cut;
mod groups;
mod plan;
#[cfg(test)]
mod random;
mod relabel;
mod role;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trace;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Result;
use crate::graph::Graph;
use crate::op::Op;

/// Where a spatial operator has its channel axis. The batch is always axis 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layout {
    /// `[batch, spatial…, channels]`
    #[serde(rename = "channels_last")]
    ChannelsLast,
    /// `[batch, channels, spatial…]`
    #[serde(rename = "channels_first")]
    ChannelsFirst,
}

impl Layout {
    /// The channel axis of a value of this rank (at least 2).
    pub fn channel_axis(self, rank: usize) -> usize {
        match self {
            Layout::ChannelsLast => rank.saturating_sub(1),
            Layout::ChannelsFirst => 1,
        }
    }

    /// The spatial axes of a value of this rank.
    pub fn spatial_axes(self, rank: usize) -> std::ops::Range<usize> {
        match self {
            Layout::ChannelsLast => 1..rank.saturating_sub(1).max(1),
            Layout::ChannelsFirst => 2..rank.max(2),
        }
    }

    /// The permutation that takes a value of this rank and layout to `target`: `new.axis[i] = old.axis[perm[i]]`.
    pub fn permutation_to(self, target: Layout, rank: usize) -> Vec<usize> {
        let mut axes: Vec<usize> = (0..rank).collect();
        if self != target && rank > 2 {
            let channel = axes.remove(self.channel_axis(rank));
            axes.insert(target.channel_axis(rank), channel);
        }
        axes
    }
}

/// Which layout the inputs and outputs of a converted graph have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ports {
    /// The target's: [`Port::permutation`](crate::Port::permutation) tells how they differ from the source's.
    #[default]
    Target,
    /// The source's: a transpose at the border does the rest.
    Source,
}

impl Op {
    /// The layout of a spatial operator, and of what normalises channels.
    pub fn layout(&self) -> Option<Layout> {
        match self {
            Op::Conv(op) => Some(op.layout),
            Op::ConvTranspose(op) => Some(op.layout),
            Op::Pool(op) => Some(op.layout),
            Op::AdaptivePool(op) => Some(op.layout),
            Op::BatchNorm(op) => Some(op.layout),
            Op::InstanceNorm(op) => Some(op.layout),
            Op::GroupNorm(op) => Some(op.layout),
            Op::Lrn(op) => Some(op.layout),
            Op::PRelu(op) => Some(op.layout),
            Op::Resize(op) => Some(op.layout),
            Op::SpaceToDepth(op) => Some(op.layout),
            Op::DepthToSpace(op) => Some(op.layout),
            _ => None,
        }
    }

    /// Sets the layout of an operator that has one.
    fn set_layout(&mut self, layout: Layout) {
        match self {
            Op::Conv(op) => op.layout = layout,
            Op::ConvTranspose(op) => op.layout = layout,
            Op::Pool(op) => op.layout = layout,
            Op::AdaptivePool(op) => op.layout = layout,
            Op::BatchNorm(op) => op.layout = layout,
            Op::InstanceNorm(op) => op.layout = layout,
            Op::GroupNorm(op) => op.layout = layout,
            Op::Lrn(op) => op.layout = layout,
            Op::PRelu(op) => op.layout = layout,
            Op::Resize(op) => op.layout = layout,
            Op::SpaceToDepth(op) => op.layout = layout,
            Op::DepthToSpace(op) => op.layout = layout,
            _ => {}
        }
    }
}

/// Brings every spatial operator to `target`, and everything around it along, with the fewest data transposed.
///
/// Axes of operators are renumbered, weights and constants are rearranged as views (nothing is read), transposes are
/// inserted only where order is meaning, once per value. A convolutional network gets none.
///
/// # Errors
/// When the graph has a cycle, or a node that can't take its inputs.
pub fn convert(graph: &mut Graph, target: Layout, ports: Ports) -> Result<()> {
    let order = graph.order()?;
    let roles = trace::Roles::trace(graph, &order, target);
    let plan = plan::Plan::new(graph, &order, &roles, target, ports);
    let moved = cut::solve(graph, &order, &plan);
    relabel::relabel(graph, &order, &plan, &moved, target)
}
