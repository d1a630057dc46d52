//! Sampling at computed places.

use super::array::{Array, check_size};
use crate::op::{GridSample, Outside};

pub(super) fn grid_sample(op: &GridSample, x: &Array, grid: &Array) -> Result<Array, String> {
    let (shape, places) = (x.shape().to_vec(), grid.shape().to_vec());
    let [batch, channels, sizes @ ..] = shape.as_slice() else { return Err("takes rank 4 or 5".to_owned()) };
    let [images, out @ .., axes] = places.as_slice() else { return Err("takes a grid".to_owned()) };
    if images != batch || *axes != sizes.len() {
        return Err(format!("a grid of shape {places:?} does not fit {shape:?}"));
    }
    let (area, count) = (sizes.iter().product::<usize>(), out.iter().product::<usize>());
    let result: Vec<usize> = [*batch, *channels].iter().chain(out).copied().collect();
    check_size(&result)?;
    if area == 0 && count > 0 {
        return Err("an empty image can't be sampled".to_owned());
    }
    let (values, grid) = (x.to_f64(), grid.to_f64());
    let mut sampled = vec![0.0; batch * channels * count];
    for (at, place) in grid.chunks_exact((*axes).max(1)).enumerate() {
        let (image, position) = (at / count, at % count);
        for (offset, weight) in corners(op, sizes, place) {
            for channel in image * channels..(image + 1) * channels {
                sampled[channel * count + position] += weight * values[channel * area + offset];
            }
        }
    }
    Array::from_f64(x.dtype(), &result, sampled)
}

/// Which elements of an image a place is made of, and their weights.
fn corners(op: &GridSample, sizes: &[usize], place: &[f64]) -> Vec<(usize, f64)> {
    let mut found = vec![(0, 1.0)];
    for (&size, &x) in sizes.iter().zip(place.iter().rev()) {
        let x = bounded(op, size as f64, x);
        let ends: Vec<(f64, f64)> = match op.linear {
            true => vec![(x.floor(), 1.0 - (x - x.floor())), (x.floor() + 1.0, x - x.floor())],
            false => vec![(x.round_ties_even(), 1.0)],
        };
        let inside = ends.into_iter().filter(|(end, _)| *end >= 0.0 && *end < size as f64);
        let inside: Vec<(usize, f64)> = inside.map(|(end, weight)| (end as usize, weight)).collect();
        let joined = |(offset, weight): (usize, f64)| {
            inside.iter().map(move |&(end, own)| (offset * size + end, weight * own)).collect::<Vec<_>>()
        };
        found = found.into_iter().flat_map(joined).collect();
    }
    found
}

/// The position along an axis, in elements (`grid_sampler_compute_source_index` in PyTorch's `GridSampler.h`).
fn bounded(op: &GridSample, size: f64, x: f64) -> f64 {
    let x = if op.align_corners { (x + 1.0) / 2.0 * (size - 1.0) } else { ((x + 1.0) * size - 1.0) / 2.0 };
    let (low, high) = if op.align_corners { (0.0, size - 1.0) } else { (-0.5, size - 0.5) };
    match op.outside {
        Outside::Zeros => x,
        Outside::Edge => x.clamp(0.0, size - 1.0),
        Outside::Mirrored if high == low => 0.0,
        Outside::Mirrored => {
            let (distance, span) = ((x - low).abs(), high - low);
            let (rest, turns) = (distance % span, (distance / span).floor());
            let mirrored = if turns % 2.0 == 0.0 { rest + low } else { span - rest + low };
            mirrored.clamp(0.0, size - 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, ramp, reals};
    use super::*;

    /// As PyTorch 2.x computes them.
    #[test]
    fn samples_agree_with_pytorch() {
        let grid = reals(&[1, 1, 4, 2], &[-1.0, -1.0, 0.3, -0.2, 1.4, 0.5, -1.7, 2.9]);
        let sample = |linear, outside, align_corners, want: &[f64]| {
            check(GridSample { linear, outside, align_corners }, &[&ramp(&[1, 1, 3, 4]), &grid], &[1, 1, 1, 4], want);
        };
        sample(true, Outside::Zeros, false, &[-0.3125, 0.5325, 0.0, 0.0]);
        sample(true, Outside::Zeros, true, &[-1.25, 0.64, -0.25, 0.0]);
        sample(true, Outside::Edge, false, &[-1.25, 0.5325, -0.9375, -1.0]);
        sample(true, Outside::Edge, true, &[-1.25, 0.64, -0.625, -1.0]);
        sample(true, Outside::Mirrored, false, &[-1.25, 0.5325, -0.6375, 0.325]);
        sample(true, Outside::Mirrored, true, &[-1.25, 0.64, -0.025, 0.33875]);
        sample(false, Outside::Zeros, false, &[-1.25, 1.0, 0.0, 0.0]);
        sample(false, Outside::Zeros, true, &[-1.25, 1.0, 0.0, 0.0]);
        sample(false, Outside::Edge, false, &[-1.25, 1.0, -1.25, -1.0]);
        sample(false, Outside::Edge, true, &[-1.25, 1.0, -1.25, -1.0]);
        sample(false, Outside::Mirrored, false, &[-1.25, 1.0, -1.25, 0.5]);
        sample(false, Outside::Mirrored, true, &[-1.25, 1.0, -0.25, 0.5]);
    }
}
