//! Resizing, and blocks that move between space and depth.

use super::array::{Array, check_size};
use super::window::Space;
use crate::layout::Layout;
use crate::op::Resize;

pub(super) fn resize(op: &Resize, x: &Array, shape: &[usize]) -> Result<Array, String> {
    let (mut space, dtype) = Space::of(x, op.layout)?;
    for (i, &out) in op.size.iter().enumerate() {
        let size = space.sizes[i];
        let blends = op.blends(i, size)?;
        let outer = space.batch * space.sizes[..i].iter().product::<usize>();
        let inner = space.sizes[i + 1..].iter().product::<usize>() * space.channels;
        check_size(&[outer, out, inner])?;
        let mut values = vec![0.0; outer * out * inner];
        for o in 0..outer {
            let block = &space.values[o * size * inner..(o + 1) * size * inner];
            for (position, blend) in blends.iter().enumerate() {
                let target = &mut values[(o * out + position) * inner..(o * out + position + 1) * inner];
                for &(place, weight) in blend {
                    let row = &block[place * inner..(place + 1) * inner];
                    target.iter_mut().zip(row).for_each(|(t, x)| *t += weight * x);
                }
            }
        }
        space.values = values;
        space.sizes[i] = out;
    }
    space.placed(shape, op.layout, dtype)
}

/// The axes `[batch, y, by, x, bx, c]` between space and depth, in the order that depth has them.
fn depth_axes(channel_major: bool) -> [usize; 6] {
    if channel_major { [0, 1, 3, 5, 2, 4] } else { [0, 1, 3, 2, 4, 5] }
}

pub(super) fn space_to_depth(block: usize, channel_major: bool, layout: Layout, x: &Array) -> Result<Array, String> {
    let x = x.transposed(&layout.permutation_to(Layout::ChannelsLast, 4));
    let [n, h, w, c] = *x.shape() else { return Err("takes rank 4".to_owned()) };
    let split = x.reshaped(&[n, h / block, block, w / block, block, c])?;
    let depth = split.transposed(&depth_axes(channel_major)).reshaped(&[n, h / block, w / block, block * block * c])?;
    Ok(depth.transposed(&Layout::ChannelsLast.permutation_to(layout, 4)))
}

pub(super) fn depth_to_space(block: usize, channel_major: bool, layout: Layout, x: &Array) -> Result<Array, String> {
    let x = x.transposed(&layout.permutation_to(Layout::ChannelsLast, 4));
    let [n, h, w, c] = *x.shape() else { return Err("takes rank 4".to_owned()) };
    let c = c / (block * block);
    let order = depth_axes(channel_major);
    let sizes = [n, h, block, w, block, c];
    let split = x.reshaped(&order.map(|axis| sizes[axis]))?;
    let mut inverse = [0; 6];
    for (new, &old) in order.iter().enumerate() {
        inverse[old] = new;
    }
    let space = split.transposed(&inverse).reshaped(&[n, h * block, w * block, c])?;
    Ok(space.transposed(&Layout::ChannelsLast.permutation_to(layout, 4)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, ramp};
    use super::*;
    use crate::op::{Coordinates, DepthToSpace, ResizeMode, SpaceToDepth};

    /// All three places to look, larger and smaller.
    #[test]
    fn resizes_agree_with_tensorflow() {
        check(
            Resize {
                mode: ResizeMode::Nearest,
                size: vec![1, 7],
                coordinates: Coordinates::Asymmetric,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, -1.25, 0.5, 0.5, -0.5, -0.5, 1.25],
        );
        check(
            Resize {
                mode: ResizeMode::Nearest,
                size: vec![1, 3],
                coordinates: Coordinates::Asymmetric,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-1.25, 0.5, 1.25],
        );
        check(
            Resize {
                mode: ResizeMode::Nearest,
                size: vec![1, 7],
                coordinates: Coordinates::HalfPixel,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, -1.25, 0.5, -0.5, -0.5, 1.25, 1.25],
        );
        check(
            Resize {
                mode: ResizeMode::Nearest,
                size: vec![1, 3],
                coordinates: Coordinates::HalfPixel,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-1.25, -0.5, 0.25],
        );
        check(
            Resize {
                mode: ResizeMode::Nearest,
                size: vec![1, 7],
                coordinates: Coordinates::AlignCorners,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, 0.5, 0.5, -0.5, -0.5, 1.25, 1.25],
        );
        check(
            Resize {
                mode: ResizeMode::Nearest,
                size: vec![1, 3],
                coordinates: Coordinates::AlignCorners,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-1.25, -0.5, 0.25],
        );
        check(
            Resize {
                mode: ResizeMode::Linear,
                size: vec![1, 7],
                coordinates: Coordinates::Asymmetric,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, -0.25, 0.357142806, -0.214285851, 1.78813934e-07, 1.00000012, 1.25],
        );
        check(
            Resize {
                mode: ResizeMode::Linear,
                size: vec![1, 3],
                coordinates: Coordinates::Asymmetric,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-1.25, -0.166666627, 0.916666746],
        );
        check(
            Resize {
                mode: ResizeMode::Linear,
                size: vec![1, 7],
                coordinates: Coordinates::HalfPixel,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, -0.624999881, 0.375, 0., -0.374999642, 0.625000238, 1.25],
        );
        check(
            Resize {
                mode: ResizeMode::Linear,
                size: vec![1, 3],
                coordinates: Coordinates::HalfPixel,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-0.666666687, -0.5, 0.583333492],
        );
        check(
            Resize {
                mode: ResizeMode::Linear,
                size: vec![1, 7],
                coordinates: Coordinates::AlignCorners,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, -0.375, 0.5, 0., -0.5, 0.375, 1.25],
        );
        check(
            Resize {
                mode: ResizeMode::Linear,
                size: vec![1, 3],
                coordinates: Coordinates::AlignCorners,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-1.25, -0.5, 0.25],
        );
        check(
            Resize {
                mode: ResizeMode::CubicTable,
                size: vec![1, 7],
                coordinates: Coordinates::Asymmetric,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, -0.130027503, 0.493967772, -0.350381851, -0.146853015, 1.02564859, 1.43364358],
        );
        check(
            Resize {
                mode: ResizeMode::CubicTable,
                size: vec![1, 3],
                coordinates: Coordinates::Asymmetric,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-1.25, -0.2829023, 1.12998211],
        );
        check(
            Resize {
                mode: ResizeMode::CatmullRom,
                size: vec![1, 7],
                coordinates: Coordinates::HalfPixel,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.38862872, -0.682638824, 0.451643348, 0., -0.451643288, 0.682638824, 1.38862872],
        );
        check(
            Resize {
                mode: ResizeMode::CatmullRom,
                size: vec![1, 3],
                coordinates: Coordinates::HalfPixel,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-0.733427823, -0.5, 0.585765004],
        );
        check(
            Resize {
                mode: ResizeMode::CubicTable,
                size: vec![1, 7],
                coordinates: Coordinates::AlignCorners,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, -0.28125, 0.5, 0., -0.5, 0.28125, 1.25],
        );
        check(
            Resize {
                mode: ResizeMode::CubicTable,
                size: vec![1, 3],
                coordinates: Coordinates::AlignCorners,
                scale: Vec::new(),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-1.25, -0.5, 0.25],
        );
    }

    /// What only PyTorch has.
    #[test]
    fn resizes_agree_with_pytorch() {
        check(
            Resize {
                mode: ResizeMode::Cubic,
                size: vec![1, 3],
                coordinates: Coordinates::HalfPixel,
                scale: Vec::new(),
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 1, 1, 5])],
            &[1, 1, 1, 3],
            &[-0.643518519, -0.5, 0.662037037],
        );
        check(
            Resize {
                mode: ResizeMode::Linear,
                size: vec![2, 3, 2],
                coordinates: Coordinates::HalfPixel,
                scale: Vec::new(),
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 1, 3, 2, 1])],
            &[1, 1, 2, 3, 2],
            &[-1.0625, -1.0625, -0.1875, -0.1875, 0.6875, 0.6875, 0.0625, 0.0625, -0.09375, -0.09375, -0.25, -0.25],
        );
        check(
            Resize {
                mode: ResizeMode::Nearest,
                size: vec![3],
                coordinates: Coordinates::HalfPixel,
                scale: Vec::new(),
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 1, 5])],
            &[1, 1, 3],
            &[-1.25, -0.5, 0.25],
        );
    }

    /// TensorFlow has the block first, PyTorch the channel.
    #[test]
    fn blocks_agree_with_both() {
        check(
            DepthToSpace { block: 2, channel_major: false, layout: Layout::ChannelsLast },
            &[&ramp(&[1, 1, 2, 8])],
            &[1, 2, 4, 2],
            &[-1.25, 0.5, -0.5, 1.25, -1., 0.75, -0.25, -1.25, 0.25, -0.75, 1., 0., 0.5, -0.5, 1.25, 0.25],
        );
        check(
            SpaceToDepth { block: 2, channel_major: false, layout: Layout::ChannelsLast },
            &[&ramp(&[1, 2, 4, 2])],
            &[1, 1, 2, 8],
            &[-1.25, 0.5, -0.5, 1.25, -1., 0.75, -0.25, -1.25, 0.25, -0.75, 1., 0., 0.5, -0.5, 1.25, 0.25],
        );
        check(
            DepthToSpace { block: 2, channel_major: true, layout: Layout::ChannelsFirst },
            &[&ramp(&[1, 8, 1, 2])],
            &[1, 2, 2, 4],
            &[-1.25, -0.5, 0.5, 1.25, 0.25, 1., -0.75, 0., -1., -0.25, 0.75, -1.25, 0.5, 1.25, -0.5, 0.25],
        );
        check(
            SpaceToDepth { block: 2, channel_major: true, layout: Layout::ChannelsFirst },
            &[&ramp(&[1, 2, 2, 4])],
            &[1, 8, 1, 2],
            &[-1.25, -0.5, 0.5, 1.25, 0.25, 1., -0.75, 0., -1., -0.25, 0.75, -1.25, 0.5, 1.25, -0.5, 0.25],
        );
    }
}
