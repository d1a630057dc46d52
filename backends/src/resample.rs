//! Resizing along one axis as a matrix, for the modes that the framework does not have.

use modelport_ir::op::{Coordinates, Resize, ResizeMode};

/// The matrix `[to, from]` in C order that resizes an axis of `from` elements to `to` elements.
///
/// # Errors
/// When an axis is empty.
pub fn matrix(op: &Resize, from: usize, to: usize) -> Result<Vec<f32>, String> {
    if from == 0 || to == 0 {
        return Err("an empty axis can't be resized".to_owned());
    }
    let mut rows = vec![0f32; to.checked_mul(from).ok_or("a resized axis is too large")?];
    for (i, row) in rows.chunks_exact_mut(from).enumerate() {
        let scale = from as f64 / to as f64;
        let place = match op.coordinates {
            Coordinates::Asymmetric => i as f64 * scale,
            Coordinates::HalfPixel => (i as f64 + 0.5) * scale - 0.5,
            Coordinates::AlignCorners if to > 1 => i as f64 * (from - 1) as f64 / (to - 1) as f64,
            Coordinates::AlignCorners => 0.0,
        };
        let mut add = |index: i64, weight: f64| {
            row[index.clamp(0, from as i64 - 1) as usize] += weight as f32;
        };
        match op.mode {
            ResizeMode::Nearest => {
                let index = match op.coordinates {
                    Coordinates::Asymmetric => place.floor(),
                    Coordinates::HalfPixel => (place + 0.5).floor(),
                    Coordinates::AlignCorners => (place + 0.5).floor(),
                };
                add(index as i64, 1.0);
            }
            ResizeMode::Linear => {
                let low = place.max(0.0).floor();
                let part = (place.max(0.0) - low).clamp(0.0, 1.0);
                add(low as i64, 1.0 - part);
                add(low as i64 + 1, part);
            }
            ResizeMode::Cubic => cubic(op, place, from, &mut add),
        }
    }
    Ok(rows)
}

/// Keys' kernel. TensorFlow looks weights up in a table of 1024 steps; with half-pixel centres it leaves out what is
/// outside of the image and lets the rest add up to 1, else it repeats the edge
/// (`tensorflow/core/kernels/image/resize_bicubic_op.cc`).
fn cubic(op: &Resize, place: f64, from: usize, add: &mut dyn FnMut(i64, f64)) {
    const STEPS: f64 = 1024.0;
    let a = f64::from(op.cubic_coefficient.unwrap_or(-0.75));
    let low = place.floor();
    let part = ((place - low) * STEPS).round() / STEPS;
    let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    let weights = [far(part + 1.0), near(part), near(1.0 - part), far(2.0 - part)];
    let renormalised = op.coordinates == Coordinates::HalfPixel && op.cubic_coefficient == Some(-0.5);
    let inside = |k: usize| (0..from as i64).contains(&(low as i64 - 1 + k as i64));
    let total: f64 = (0..4).filter(|&k| inside(k)).map(|k| weights[k]).sum();
    for (k, weight) in weights.into_iter().enumerate() {
        let index = low as i64 - 1 + k as i64;
        if !renormalised {
            add(index, weight);
        } else if inside(k) && total.abs() > 1e-12 {
            add(index, weight / total);
        }
    }
}
