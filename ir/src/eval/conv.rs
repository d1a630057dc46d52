//! Convolution and its transpose: windows gathered into a matrix (im2col), and a matrix product.

use ndarray::{ArrayView2, s};

use super::array::{Array, check_size, flat};
use super::window::{Space, Window};
use crate::layout::Layout;
use crate::op::{Conv, ConvTranspose};

/// Elements of the matrix that windows are gathered into at a time.
const BLOCK: usize = 1 << 21;

/// The sizes of a convolution whose input has `c` channels; `groups` divides `c` and `out`.
struct Sizes {
    c: usize,
    out: usize,
    groups: usize,
}

pub(super) fn conv(
    op: &Conv,
    x: &Array,
    weights: &Array,
    bias: Option<&Array>,
    shape: &[usize],
) -> Result<Array, String> {
    let (input, dtype) = Space::of(x, op.layout)?;
    let kernel = weights.shape();
    let windows = windows(&input.sizes, shape, op.layout, kernel, &op.strides, &op.dilations, &op.pads.begins())?;
    let weights = flat(weights.reals()?.0);
    let sizes = Sizes { c: input.channels, out: kernel.last().copied().unwrap_or(0), groups: op.groups };
    let mut values = vec![0.0; shape.iter().product()];
    let pixels = windows.iter().map(|w| w.out).product::<usize>();
    if sizes.c > 0 && sizes.out > 0 && pixels > 0 {
        let image = input.sizes.iter().product::<usize>() * sizes.c;
        for (b, out) in values.chunks_exact_mut(pixels * sizes.out).enumerate() {
            let image = &input.values[b * image..(b + 1) * image];
            if sizes.c == sizes.groups {
                depthwise(image, &weights, &windows, &sizes, out);
            } else {
                grouped(image, &weights, &windows, &sizes, out)?;
            }
        }
    }
    add_bias(&mut values, sizes.out, bias)?;
    Space { values, channels: sizes.out, ..input }.placed(shape, op.layout, dtype)
}

/// The windows of an operator, whose `size` is that of the smaller-stepped side: `sizes`.
fn windows(
    sizes: &[usize],
    shape: &[usize],
    layout: Layout,
    kernel: &[usize],
    strides: &[usize],
    dilations: &[usize],
    before: &[usize],
) -> Result<Vec<Window>, String> {
    let outs: Vec<usize> = layout.spatial_axes(shape.len()).map(|axis| shape[axis]).collect();
    let window = |i: usize| Window::new(sizes[i], outs[i], kernel[i], strides[i], dilations[i], before[i]);
    (0..sizes.len()).map(window).collect()
}

fn add_bias(values: &mut [f64], channels: usize, bias: Option<&Array>) -> Result<(), String> {
    if let Some(bias) = bias {
        let bias = flat(bias.reals()?.0);
        for pixel in values.chunks_exact_mut(channels.max(1)) {
            pixel.iter_mut().zip(bias.iter()).for_each(|(x, b)| *x += b);
        }
    }
    Ok(())
}

/// One input channel per group.
fn depthwise(image: &[f64], weights: &[f64], windows: &[Window], sizes: &Sizes, out: &mut [f64]) {
    let multiplier = sizes.out / sizes.c;
    Window::each(windows, |pixel, taps| {
        let out = &mut out[pixel * sizes.out..(pixel + 1) * sizes.out];
        Window::each_tap(windows, taps, |tap, place| {
            let x = &image[place * sizes.c..(place + 1) * sizes.c];
            let w = &weights[tap * sizes.out..(tap + 1) * sizes.out];
            if multiplier == 1 {
                out.iter_mut().zip(x).zip(w).for_each(|((out, x), w)| *out += x * w);
            } else {
                let products = x.iter().zip(w.chunks_exact(multiplier)).flat_map(|(x, w)| w.iter().map(move |w| x * w));
                out.iter_mut().zip(products).for_each(|(out, product)| *out += product);
            }
        });
    });
}

fn grouped(image: &[f64], weights: &[f64], windows: &[Window], sizes: &Sizes, out: &mut [f64]) -> Result<(), String> {
    let (per_group, out_per_group) = (sizes.c / sizes.groups, sizes.out / sizes.groups);
    let taps: usize = windows.iter().map(|w| w.kernel).product();
    let row = taps * per_group;
    let weights = matrix(row, sizes.out, weights)?;
    let pixels: usize = windows.iter().map(|w| w.out).product();
    let block = (BLOCK / row.max(1)).clamp(1, pixels.max(1));
    check_size(&[block, row])?;
    let mut gathered = vec![0.0; block * row];
    for group in 0..sizes.groups {
        let columns = group * out_per_group..(group + 1) * out_per_group;
        let weights = weights.slice(s![.., columns.clone()]);
        let mut start = 0;
        while start < pixels {
            let count = block.min(pixels - start);
            gathered.fill(0.0);
            Window::each_in(windows, start..start + count, |pixel, ranges| {
                let row = &mut gathered[(pixel - start) * row..(pixel - start + 1) * row];
                Window::each_tap(windows, ranges, |tap, place| {
                    let from = place * sizes.c + group * per_group;
                    row[tap * per_group..(tap + 1) * per_group].copy_from_slice(&image[from..from + per_group]);
                });
            });
            let product = matrix(count, row, &gathered[..count * row])?.dot(&weights);
            for (pixel, values) in product.outer_iter().enumerate() {
                let from = (start + pixel) * sizes.out;
                let target = &mut out[from + columns.start..from + columns.end];
                target.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
            }
            start += count;
        }
    }
    Ok(())
}

fn matrix(rows: usize, columns: usize, values: &[f64]) -> Result<ArrayView2<'_, f64>, String> {
    ArrayView2::from_shape((rows, columns), values)
        .map_err(|_| format!("no matrix of {rows} rows and {columns} columns"))
}

/// Scatters what every input element gives to its window of the output: the transpose of [`conv`].
pub(super) fn conv_transpose(
    op: &ConvTranspose,
    x: &Array,
    weights: &Array,
    bias: Option<&Array>,
    shape: &[usize],
) -> Result<Array, String> {
    let (input, dtype) = Space::of(x, op.layout)?;
    let kernel = weights.shape();
    let sizes: Vec<usize> = op.layout.spatial_axes(shape.len()).map(|axis| shape[axis]).collect();
    // Seen from the other side: the windows slide over the output.
    let windows = windows(&sizes, x.shape(), op.layout, kernel, &op.strides, &op.dilations, &op.pads.begins())?;
    let taps: usize = windows.iter().map(|w| w.kernel).product();
    let (c, out) = (input.channels, shape[op.layout.channel_axis(shape.len())]);
    let (per_group, out_per_group) = (c / op.groups.max(1), out / op.groups.max(1));
    let row = taps * out_per_group;
    let weights = flat(weights.reals()?.0);
    let weights = matrix(row, c, &weights)?;
    let pixels = windows.iter().map(|w| w.out).product::<usize>();
    let area = sizes.iter().product::<usize>() * out;
    let mut values = vec![0.0; shape.iter().product()];
    let block = (BLOCK / row.max(1)).clamp(1, pixels.max(1));
    check_size(&[block, row])?;
    for (b, target) in values.chunks_exact_mut(area.max(1)).enumerate() {
        let image = matrix(pixels, c, &input.values[b * pixels * c..(b + 1) * pixels * c])?;
        for group in 0..op.groups {
            let channels = group * per_group..(group + 1) * per_group;
            let weights = weights.slice(s![.., channels.clone()]);
            let mut start = 0;
            while start < pixels {
                let count = block.min(pixels - start);
                let product = image.slice(s![start..start + count, channels.clone()]).dot(&weights.t());
                Window::each_in(&windows, start..start + count, |pixel, ranges| {
                    let given = product.row(pixel - start);
                    Window::each_tap(&windows, ranges, |tap, place| {
                        let from = place * out + group * out_per_group;
                        let given = given.slice(s![tap * out_per_group..(tap + 1) * out_per_group]);
                        target[from..from + out_per_group].iter_mut().zip(given).for_each(|(t, g)| *t += g);
                    });
                });
                start += count;
            }
        }
    }
    add_bias(&mut values, out, bias)?;
    Space { values, channels: out, sizes, batch: input.batch }.placed(shape, op.layout, dtype)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, ramp};
    use super::*;
    use crate::op::Pads;

    /// Strides, uneven pads, dilations, groups, depthwise, both layouts, one to three axes.
    #[test]
    fn convolutions_agree_with_pytorch() {
        check(
            Conv {
                strides: vec![2, 1],
                pads: Pads(vec![(1, 0), (0, 1)]),
                dilations: vec![1, 1],
                groups: 1,
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 2, 4, 3]), &ramp(&[3, 2, 2, 2]), &ramp(&[2])],
            &[1, 2, 2, 3],
            &[-0.3125, -2.3125, -0.5, -5.0625, -1.0625, 0.9375, -0.875, 3.75, -3.1875, 2.1875, 3.75, -2.0625],
        );
        check(
            Conv {
                strides: vec![1, 1],
                pads: Pads(vec![(0, 0), (1, 0)]),
                dilations: vec![2, 3],
                groups: 2,
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 4, 4, 4]), &ramp(&[2, 2, 2, 4])],
            &[1, 2, 2, 4],
            &[
                0.375, -1.125, -1.0625, -0.75, 1.3125, -1.875, 0.75, -1.5625, 0.375, -0.375, -0.9375, -1.25, 0.8125,
                -0.875, 1.1875, -0.3125,
            ],
        );
        check(
            Conv {
                strides: vec![1, 2],
                pads: Pads(vec![(0, 0), (0, 1)]),
                dilations: vec![1, 1],
                groups: 2,
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 3, 3, 2]), &ramp(&[2, 2, 1, 4]), &ramp(&[4])],
            &[1, 2, 2, 4],
            &[
                -1.3125, 1.5, 1.4375, 2.0625, -1.3125, 0.4375, 0.1875, 1.875, -2.625, 1.5, 0.6875, 1.9375, -0.1875,
                -0.1875, -0.125, -1.5625,
            ],
        );
        check(
            Conv {
                strides: vec![2, 1],
                pads: Pads(vec![(1, 1), (0, 0)]),
                dilations: vec![1, 2],
                groups: 2,
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[2, 2, 3, 3]), &ramp(&[2, 2, 1, 2]), &ramp(&[2])],
            &[2, 2, 2, 1],
            &[-2.0625, -3.1875, -0.0625, 2.125, -0.5, -1.0625, 1.0625, 0.625],
        );
        check(
            Conv {
                strides: vec![2],
                pads: Pads(vec![(1, 1)]),
                dilations: vec![1],
                groups: 1,
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[2, 5, 1]), &ramp(&[3, 1, 1]), &ramp(&[1])],
            &[2, 3, 1],
            &[-2.125, -2.75, -2.6875, -2.125, -2., 0.375],
        );
        check(
            Conv {
                strides: vec![1, 1, 1],
                pads: Pads(vec![(0, 0), (0, 1), (0, 0)]),
                dilations: vec![1, 1, 1],
                groups: 1,
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 1, 2, 2, 3]), &ramp(&[2, 1, 2, 1, 2]), &ramp(&[2])],
            &[1, 2, 1, 3, 2],
            &[0.3125, -2.625, -3., -2.5, -1.25, -1.25, -0.25, 0.125, 0.875, -0.125, 0.5, 0.5],
        );
    }

    /// Uneven pads are cut off the full result.
    #[test]
    fn transposed_convolutions_agree_with_pytorch() {
        check(
            ConvTranspose {
                strides: vec![2, 2],
                pads: Pads(vec![(1, 1), (1, 1)]),
                output_padding: vec![1, 0],
                dilations: vec![1, 1],
                groups: 1,
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 2, 2, 2]), &ramp(&[3, 3, 2, 2]), &ramp(&[2])],
            &[1, 4, 3, 2],
            &[
                0.1875, 0., -3.1875, 2., 0.375, -0.75, -1.875, 2.375, -1.8125, -1.0625, -1.5, 2.9375, -2.1875, 1.25,
                -0.375, 1.0625, -2., 0.5, -1., -0.3125, -0.875, 1.25, -0.25, -0.5,
            ],
        );
        check(
            ConvTranspose {
                strides: vec![1, 3],
                pads: Pads(vec![(0, 0), (0, 0)]),
                output_padding: vec![0, 2],
                dilations: vec![2, 1],
                groups: 2,
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[1, 4, 2, 1]), &ramp(&[2, 2, 1, 4]), &ramp(&[2])],
            &[1, 2, 4, 4],
            &[
                0.0625, -1.1875, -1.25, -1.25, -1.25, -2.0625, -1.25, -1.25, -0.375, -1.625, -1.25, -1.25, -0.8125,
                -1.625, -1.25, -1.25, 1.625, 0.75, 0.5, 0.5, 0.875, -0.25, 0.5, 0.5, -0.8125, 1.0625, 0.5, 0.5, 0.6875,
                -0.4375, 0.5, 0.5,
            ],
        );
        check(
            ConvTranspose {
                strides: vec![2],
                pads: Pads(vec![(0, 1)]),
                output_padding: vec![0],
                dilations: vec![1],
                groups: 1,
                layout: Layout::ChannelsFirst,
            },
            &[&ramp(&[2, 1, 3]), &ramp(&[3, 2, 1]), &ramp(&[2])],
            &[2, 2, 6],
            &[
                0.3125, -0.625, -2.1875, -1.5, -0.5, -1., -0.125, -1.0625, 1.6875, 1.125, -0.125, -0.125, -2.8125,
                -1.875, -1.25, -1.375, -0.25, -0.875, 1.125, 2.0625, -0.3125, 0.8125, -0.0625, -0.4375,
            ],
        );
        check(
            ConvTranspose {
                strides: vec![1, 2, 1],
                pads: Pads(vec![(0, 0), (0, 0), (0, 0)]),
                output_padding: vec![0, 1, 0],
                dilations: vec![1, 1, 1],
                groups: 1,
                layout: Layout::ChannelsLast,
            },
            &[&ramp(&[1, 1, 2, 1, 1]), &ramp(&[2, 2, 1, 1, 1]), &ramp(&[1])],
            &[1, 2, 5, 1, 1],
            &[0.3125, -1.875, -1.875, -1., -1.25, -0.625, -2.8125, -1.5, -0.625, -1.25],
        );
    }
}
