//! Sampling at computed places.

use modelport_ir::op::{GridSample, Outside};
use modelport_ir::{Dim, Result, Shape, Tensor, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

const GRID: &str = "input grid interpolation_mode padding_mode align_corners";
/// Elements that a grid may have at conversion time.
const LARGEST: usize = 1 << 24;

pub const OPS: &[Entry] = &[
    op("grid_sampler", GRID, grid_sample),
    op("grid_sampler_2d", GRID, grid_sample),
    op("grid_sampler_3d", GRID, grid_sample),
    op("affine_grid_generator", "theta size align_corners", affine_grid),
];

fn grid_sample(call: &mut Call) -> Result<Arg> {
    let (x, grid) = (call.value("input")?, call.value("grid")?);
    let linear = match call.int("interpolation_mode")? {
        0 => true,
        1 => false,
        _ => return Err(call.fail("only bilinear and nearest sampling are translated")),
    };
    let outside = match call.int("padding_mode")? {
        0 => Outside::Zeros,
        1 => Outside::Edge,
        _ => Outside::Mirrored,
    };
    let sample = GridSample { linear, outside, align_corners: call.bool("align_corners")? };
    Ok(call.add(sample, &[x, grid])?.into())
}

/// The places of an image's elements, the last axis first and a one at the end, times a matrix for each image.
fn affine_grid(call: &mut Call) -> Result<Arg> {
    let theta = call.value("theta")?;
    let shape = call.lower.graph.shape(theta).clone();
    let size = call.arg("size");
    let sizes: Vec<usize> = size
        .list()
        .unwrap_or(&[])
        .iter()
        .skip(2)
        .map(|arg| arg.int().and_then(|size| usize::try_from(size).ok()))
        .collect::<Option<_>>()
        .ok_or_else(|| call.fail("the size of the image is not known"))?;
    let axes = sizes.len();
    let count = sizes.iter().try_fold(1usize, |count, &size| count.checked_mul(size)).filter(|&n| n < LARGEST);
    let (Some(count), 2..=3) = (count, axes) else {
        return Err(call.fail(format!("a grid for an image of {sizes:?}")));
    };
    let aligned = call.bool("align_corners")?;
    let along = |size: usize, i: usize| match (size, aligned) {
        (0..=1, _) => 0.0,
        (_, true) => -1.0 + 2.0 * i as f64 / (size - 1) as f64,
        (_, false) => (2 * i + 1) as f64 / size as f64 - 1.0,
    };
    let place = |mut at: usize| {
        let mut row: Vec<f64> = Vec::with_capacity(axes + 1);
        for &size in sizes.iter().rev() {
            row.push(along(size, at % size));
            at /= size;
        }
        row.push(1.0);
        row
    };
    let base: Vec<f32> = (0..count).flat_map(place).map(|x| x as f32).collect();
    let base = call.constant(Tensor::from_f32(&[count, axes + 1], &base));
    let product = call.add(op::MatMul { transpose_a: false, transpose_b: true }, &[base, theta])?;
    let batch = shape.first().cloned().unwrap_or(Dim::Unknown);
    let space = sizes.iter().map(|&size| Dim::Known(size));
    let shape = Shape([batch].into_iter().chain(space).chain([Dim::Known(axes)]).collect());
    Ok(call.add(op::Reshape { shape }, &[product])?.into())
}
