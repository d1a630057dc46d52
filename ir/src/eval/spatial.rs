//! Resizing, and blocks that move between space and depth.

use super::array::{Array, check_size};
use super::window::Space;
use crate::layout::Layout;
use crate::op::{Coordinates, Resize, ResizeMode};

/// For one output position: which elements of an axis it is made of, and their weights.
type Blend = Vec<(usize, f64)>;

pub(super) fn resize(op: &Resize, x: &Array, shape: &[usize]) -> Result<Array, String> {
    let (mut space, dtype) = Space::of(x, op.layout)?;
    for (i, &out) in op.size.iter().enumerate() {
        let size = space.sizes[i];
        if size == 0 && out > 0 {
            return Err("an empty value can't be resized".to_owned());
        }
        let blends: Vec<Blend> = (0..out).map(|position| blend(op, position, size, out)).collect();
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

/// Coordinates are computed in float32, as both frameworks do: where a position falls on an element decides.
fn blend(op: &Resize, position: usize, size: usize, out: usize) -> Blend {
    let scale = match op.coordinates {
        Coordinates::AlignCorners if out > 1 => (size - 1) as f32 / (out - 1) as f32,
        _ => size as f32 / out as f32,
    };
    let last = size.saturating_sub(1);
    let i = position as f32;
    let source = match op.coordinates {
        Coordinates::HalfPixel => (i + 0.5) * scale - 0.5,
        Coordinates::Asymmetric | Coordinates::AlignCorners => i * scale,
    };
    match op.mode {
        ResizeMode::Nearest => {
            let place = match op.coordinates {
                Coordinates::Asymmetric => source.floor(),
                Coordinates::HalfPixel => ((i + 0.5) * scale).floor(),
                Coordinates::AlignCorners => source.round(),
            };
            vec![((place as usize).min(last), 1.0)]
        }
        ResizeMode::Linear => {
            let below = source.floor();
            let (low, high) = (below.max(0.0) as usize, source.ceil().max(0.0) as usize);
            let share = f64::from(source - below);
            vec![(low.min(last), 1.0 - share), (high.min(last), share)]
        }
        ResizeMode::Cubic => cubic(op, source, size),
    }
}

/// Cubic convolution (Keys 1981) over the four nearest elements.
///
/// With the coefficient -0.5 it is TensorFlow's with half-pixel centres: elements outside have no weight and the
/// others add up to 1. Else elements outside are those of the edge. TensorFlow rounds the place to 1/1024 (it looks
/// weights up in a table), and so is done for the forms that only TensorFlow has.
fn cubic(op: &Resize, source: f32, size: usize) -> Blend {
    let a = f64::from(op.cubic_coefficient.unwrap_or(-0.75));
    let keys = a == -0.5;
    let below = source.floor();
    let mut share = f64::from(source - below);
    if keys || op.coordinates == Coordinates::Asymmetric {
        share = (share * 1024.0).round_ties_even() / 1024.0;
    }
    let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    let weights = [far(share + 1.0), near(share), near(1.0 - share), far(2.0 - share)];
    let places = (0..4).map(|k| below as i64 - 1 + k);
    let mut blend: Blend = Vec::with_capacity(4);
    for (place, weight) in places.zip(weights) {
        let bound = place.clamp(0, size as i64 - 1);
        blend.push((bound as usize, if keys && bound != place { 0.0 } else { weight }));
    }
    let sum: f64 = blend.iter().map(|(_, weight)| weight).sum();
    if keys && sum.abs() >= 1000.0 * f64::from(f32::MIN_POSITIVE) {
        blend.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
    blend
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
    use crate::op::{DepthToSpace, SpaceToDepth};

    /// All three places to look, larger and smaller.
    #[test]
    fn resizes_agree_with_tensorflow() {
        check(
            Resize {
                mode: ResizeMode::Nearest,
                size: vec![1, 7],
                coordinates: Coordinates::Asymmetric,
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-1.25, -0.5, 0.25],
        );
        check(
            Resize {
                mode: ResizeMode::Cubic,
                size: vec![1, 7],
                coordinates: Coordinates::Asymmetric,
                cubic_coefficient: Some(-0.75),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, -0.130027503, 0.493967772, -0.350381851, -0.146853015, 1.02564859, 1.43364358],
        );
        check(
            Resize {
                mode: ResizeMode::Cubic,
                size: vec![1, 3],
                coordinates: Coordinates::Asymmetric,
                cubic_coefficient: Some(-0.75),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-1.25, -0.2829023, 1.12998211],
        );
        check(
            Resize {
                mode: ResizeMode::Cubic,
                size: vec![1, 7],
                coordinates: Coordinates::HalfPixel,
                cubic_coefficient: Some(-0.5),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.38862872, -0.682638824, 0.451643348, 0., -0.451643288, 0.682638824, 1.38862872],
        );
        check(
            Resize {
                mode: ResizeMode::Cubic,
                size: vec![1, 3],
                coordinates: Coordinates::HalfPixel,
                cubic_coefficient: Some(-0.5),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 5, 1])],
            &[1, 1, 3, 1],
            &[-0.733427823, -0.5, 0.585765004],
        );
        check(
            Resize {
                mode: ResizeMode::Cubic,
                size: vec![1, 7],
                coordinates: Coordinates::AlignCorners,
                cubic_coefficient: Some(-0.75),
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 4, 1])],
            &[1, 1, 7, 1],
            &[-1.25, -0.28125, 0.5, 0., -0.5, 0.28125, 1.25],
        );
        check(
            Resize {
                mode: ResizeMode::Cubic,
                size: vec![1, 3],
                coordinates: Coordinates::AlignCorners,
                cubic_coefficient: Some(-0.75),
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
                cubic_coefficient: Some(-0.75),
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
                cubic_coefficient: None,
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
                cubic_coefficient: None,
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
