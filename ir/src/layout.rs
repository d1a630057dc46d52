//! Channels first or last: the only module that knows the difference.

use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_inverse() {
        let to_first = Layout::ChannelsLast.permutation_to(Layout::ChannelsFirst, 4);
        let to_last = Layout::ChannelsFirst.permutation_to(Layout::ChannelsLast, 4);
        assert_eq!((to_first.as_slice(), to_last.as_slice()), ([0, 3, 1, 2].as_slice(), [0, 2, 3, 1].as_slice()));
        assert_eq!(Layout::ChannelsLast.spatial_axes(4), 1..3);
        assert_eq!(Layout::ChannelsFirst.spatial_axes(5), 2..5);
    }
}
