//! Resizing of images.

use modelport_ir::{DType, Layout, Result, op};

use super::call::one;
use super::{Call, Family};
use crate::tensorflow::lower::Entry;

pub const OPS: Family = &[
    ("ResizeBilinear", |call| resize(call, op::ResizeMode::Linear)),
    ("ResizeNearestNeighbor", |call| resize(call, op::ResizeMode::Nearest)),
    ("ResizeBicubic", |call| resize(call, op::ResizeMode::Cubic)),
    ("ResizeArea", area),
];

fn new_size(call: &Call) -> Result<Vec<usize>> {
    let size = call.ints(1, "the new size")?;
    let sizes: Option<Vec<usize>> = size.iter().map(|&n| usize::try_from(n).ok().filter(|&n| n > 0)).collect();
    sizes.filter(|sizes| sizes.len() == 2).ok_or_else(|| call.fail(format!("the new size is {size:?}")))
}

fn resize(call: &mut Call, mode: op::ResizeMode) -> Result<Vec<Entry>> {
    let mut x = call.data(0)?;
    let size = new_size(call)?;
    let half_pixel = call.node.flag("half_pixel_centers");
    let coordinates = match (call.node.flag("align_corners"), half_pixel) {
        (true, _) => op::Coordinates::AlignCorners,
        (false, true) => op::Coordinates::HalfPixel,
        (false, false) => op::Coordinates::Asymmetric,
    };
    if mode != op::ResizeMode::Nearest && !call.dtype(0)?.is_float() {
        x = call.helper("float", op::Cast { dtype: DType::Float32 }, &[x])?;
    }
    let mode = match mode {
        op::ResizeMode::Cubic if half_pixel => op::ResizeMode::CatmullRom,
        op::ResizeMode::Cubic => op::ResizeMode::CubicTable,
        mode => mode,
    };
    let resize = op::Resize { mode, size, coordinates, scale: Vec::new(), layout: Layout::ChannelsLast };
    Ok(one(call.add(resize, &[x])?))
}

/// The mean of what each new pixel covers; whole numbers of pixels are an average pooling.
fn area(call: &mut Call) -> Result<Vec<Entry>> {
    let (mut x, shape) = call.shaped(0)?;
    let size = new_size(call)?;
    let mut kernel = Vec::new();
    for (axis, &new) in [1, 2].into_iter().zip(&size) {
        let old = call.known(&shape, axis, "the size")?;
        if old % new != 0 || call.node.flag("align_corners") {
            return Err(call.fail(format!("resizing by area from {shape} to {size:?}, which is no whole factor")));
        }
        kernel.push(old / new);
    }
    if !call.dtype(0)?.is_float() {
        x = call.helper("float", op::Cast { dtype: DType::Float32 }, &[x])?;
    }
    let pool = op::Pool {
        kind: op::PoolKind::Avg,
        strides: kernel.clone(),
        kernel,
        pads: op::Pads::none(2),
        dilations: vec![1; 2],
        ceil_mode: false,
        count_include_pad: false,
        layout: Layout::ChannelsLast,
    };
    Ok(one(call.add(pool, &[x])?))
}
