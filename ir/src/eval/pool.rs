//! Pooling.

use super::array::{Array, check_size};
use super::window::{Space, Window};
use crate::op::{AdaptivePool, Pool, PoolKind};

pub(super) fn pool(op: &Pool, x: &Array, shape: &[usize]) -> Result<Array, String> {
    let (input, dtype) = Space::of(x, op.layout)?;
    let outs: Vec<usize> = op.layout.spatial_axes(shape.len()).map(|axis| shape[axis]).collect();
    let windows = (0..outs.len())
        .map(|i| {
            let size = input.sizes[i];
            Window::new(size, outs[i], op.kernel[i], op.strides[i], op.dilations[i], op.pads.0[i].0)
        })
        .collect::<Result<Vec<_>, _>>()?;
    // A window that hangs over the far padding (ceil mode) is cut there, as PyTorch does.
    let counted = |i: usize, position: usize| {
        let (before, after) = op.pads.0[i];
        let high = (windows[i].size + after.min(1 << 30)) as i64;
        windows[i].taps_between(position, -(before as i64), high).len()
    };
    pooled(&input, &windows, op.kind, |taps| {
        let count = |(i, (position, range)): (usize, &(usize, std::ops::Range<usize>))| {
            if op.count_include_pad { counted(i, *position) } else { range.len() }
        };
        taps.iter().enumerate().map(count).product()
    })
    .placed(shape, op.layout, dtype)
}

fn pooled(
    input: &Space,
    windows: &[Window],
    kind: PoolKind,
    divisor: impl Fn(&[(usize, std::ops::Range<usize>)]) -> usize,
) -> Space {
    let c = input.channels;
    let start = match kind {
        PoolKind::Max => f64::NEG_INFINITY,
        PoolKind::Avg => 0.0,
    };
    let pixels: usize = windows.iter().map(|w| w.out).product();
    let area = input.sizes.iter().product::<usize>() * c;
    let mut values = vec![start; input.batch * pixels * c];
    if !values.is_empty() {
        for (b, out) in values.chunks_exact_mut(pixels * c).enumerate() {
            let image = &input.values[b * area..(b + 1) * area];
            Window::each(windows, |pixel, taps| {
                let out = &mut out[pixel * c..(pixel + 1) * c];
                Window::each_tap(windows, taps, |_, place| {
                    let x = &image[place * c..(place + 1) * c];
                    fold(kind, out, x);
                });
                if kind == PoolKind::Avg {
                    let divisor = divisor(taps) as f64;
                    out.iter_mut().for_each(|x| *x /= divisor);
                }
            });
        }
    }
    Space { values, batch: input.batch, sizes: windows.iter().map(|w| w.out).collect(), channels: c }
}

fn fold(kind: PoolKind, out: &mut [f64], x: &[f64]) {
    let pairs = out.iter_mut().zip(x);
    match kind {
        PoolKind::Max => pairs.for_each(|(out, x)| {
            if *x > *out || x.is_nan() {
                *out = *x;
            }
        }),
        PoolKind::Avg => pairs.for_each(|(out, x)| *out += x),
    }
}

/// One axis after the other: the mean of means is the mean, as all windows of an axis are the same for the others.
pub(super) fn adaptive(op: &AdaptivePool, x: &Array, shape: &[usize]) -> Result<Array, String> {
    let (mut space, dtype) = Space::of(x, op.layout)?;
    for (i, &out) in op.output_size.iter().enumerate() {
        let size = space.sizes[i];
        let outer = space.batch * space.sizes[..i].iter().product::<usize>();
        let inner = space.sizes[i + 1..].iter().product::<usize>() * space.channels;
        check_size(&[outer, out, inner])?;
        let mut values = Vec::with_capacity(outer * out * inner);
        for block in (0..outer).map(|o| &space.values[o * size * inner..(o + 1) * size * inner]) {
            for position in 0..out {
                let (from, to) = (position * size / out, ((position + 1) * size).div_ceil(out));
                let mut folded = vec![if op.kind == PoolKind::Max { f64::NEG_INFINITY } else { 0.0 }; inner];
                for row in from..to {
                    fold(op.kind, &mut folded, &block[row * inner..(row + 1) * inner]);
                }
                if op.kind == PoolKind::Avg {
                    folded.iter_mut().for_each(|x| *x /= (to - from) as f64);
                }
                values.append(&mut folded);
            }
        }
        space.sizes[i] = out;
        space.values = values;
    }
    space.placed(shape, op.layout, dtype)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, ramp};
    use super::*;
    use crate::layout::Layout;
    use crate::op::Pads;

    /// Uneven pads, dilation, ceil mode, both ways to count.
    #[test]
    fn pools_agree_with_pytorch() {
        check(
            Pool {
                kind: PoolKind::Max,
                kernel: vec![2, 3],
                strides: vec![1, 2],
                pads: Pads(vec![(0, 1), (1, 0)]),
                dilations: vec![1, 1],
                ceil_mode: false,
                count_include_pad: false,
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 3, 4, 2])],
            &[1, 3, 2, 2],
            &[-0.25, 1.25, 1.25, 1.25, 0., 1., 1.25, 0.5, 0., 1., 0.75, 0.5],
        );
        check(
            Pool {
                kind: PoolKind::Max,
                kernel: vec![2, 2],
                strides: vec![2, 2],
                pads: Pads(vec![(0, 0), (1, 1)]),
                dilations: vec![2, 1],
                ceil_mode: true,
                count_include_pad: false,
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 1, 5, 5])],
            &[1, 1, 2, 3],
            &[-0.25, 0.5, 1.25, 0.75, 0.5, 1.25],
        );
        check(
            Pool {
                kind: PoolKind::Avg,
                kernel: vec![2, 3],
                strides: vec![2, 2],
                pads: Pads(vec![(0, 1), (1, 1)]),
                dilations: vec![1, 1],
                ceil_mode: false,
                count_include_pad: false,
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 3, 4, 2])],
            &[1, 2, 2, 2],
            &[-0.75, 0.3125, 0.375, -0.166666667, -0.375, 0., -0.166666667, -0.25],
        );
        check(
            Pool {
                kind: PoolKind::Avg,
                kernel: vec![3, 3],
                strides: vec![2, 2],
                pads: Pads(vec![(1, 1), (1, 1)]),
                dilations: vec![1, 1],
                ceil_mode: true,
                count_include_pad: true,
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 1, 4, 5])],
            &[1, 1, 3, 3],
            &[
                -0.0555555556,
                0.138888889,
                0.138888889,
                -0.194444444,
                -0.111111111,
                -0.0555555556,
                -0.0833333333,
                0.0416666667,
                -0.166666667,
            ],
        );
        check(
            Pool {
                kind: PoolKind::Avg,
                kernel: vec![3, 3],
                strides: vec![2, 2],
                pads: Pads(vec![(1, 1), (1, 1)]),
                dilations: vec![1, 1],
                ceil_mode: true,
                count_include_pad: false,
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 1, 4, 5])],
            &[1, 1, 3, 3],
            &[-0.125, 0.208333333, 0.3125, -0.291666667, -0.111111111, -0.0833333333, -0.25, 0.0833333333, -0.5],
        );
        check(
            Pool {
                kind: PoolKind::Avg,
                kernel: vec![2],
                strides: vec![2],
                pads: Pads(vec![(1, 1)]),
                dilations: vec![1],
                ceil_mode: false,
                count_include_pad: true,
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[2, 5, 1])],
            &[2, 3, 1],
            &[-0.625, 0., 0.75, -0.375, 0.5, -0.125],
        );
        check(
            Pool {
                kind: PoolKind::Max,
                kernel: vec![2, 1, 2],
                strides: vec![1, 1, 1],
                pads: Pads(vec![(0, 0), (0, 0), (0, 0)]),
                dilations: vec![1, 1, 1],
                ceil_mode: false,
                count_include_pad: false,
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 1, 2, 2, 3])],
            &[1, 1, 1, 2, 2],
            &[1., 0.5, 1.25, 0.25],
        );
    }

    /// Windows overlap where sizes do not divide.
    #[test]
    fn adaptive_pools_agree_with_pytorch() {
        check(
            AdaptivePool { kind: PoolKind::Max, output_size: vec![2, 3], layout: Layout::ChannelsFirst },
            &[&ramp(&[1, 1, 3, 5])],
            &[1, 1, 2, 3],
            &[1., 1.25, 1.25, 1., 1., 1.25],
        );
        check(
            AdaptivePool { kind: PoolKind::Avg, output_size: vec![2, 3], layout: Layout::ChannelsFirst },
            &[&ramp(&[1, 1, 3, 5])],
            &[1, 1, 2, 3],
            &[-0.125, 0.208333333, 0.3125, -0.3125, -0.208333333, 0.125],
        );
    }
}
