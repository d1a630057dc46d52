//! Interpolation.

use modelport_ir::op::{Coordinates, ResizeMode};
use modelport_ir::{Layout, Result, op};

use super::{Call, Entry, op};
use crate::pytorch::arg::Arg;

const NEAREST_1D: &str = "self output_size=None scales=None scale_factors=None";
const NEAREST: &str = "self output_size=None scales_h=None scales_w=None scales_d=None scale_factors=None";
const ALIGNED_1D: &str = "self output_size align_corners scales=None scale_factors=None";
const ALIGNED: &str = "self output_size align_corners scales_h=None scales_w=None scales_d=None scale_factors=None";

pub const OPS: &[Entry] = &[
    op("upsample_nearest1d", NEAREST_1D, |call| resize(call, 1, ResizeMode::Nearest, Coordinates::Asymmetric)),
    op("upsample_nearest2d", NEAREST, |call| resize(call, 2, ResizeMode::Nearest, Coordinates::Asymmetric)),
    op("upsample_nearest3d", NEAREST, |call| resize(call, 3, ResizeMode::Nearest, Coordinates::Asymmetric)),
    op("_upsample_nearest_exact1d", NEAREST_1D, |call| resize(call, 1, ResizeMode::Nearest, Coordinates::HalfPixel)),
    op("_upsample_nearest_exact2d", NEAREST, |call| resize(call, 2, ResizeMode::Nearest, Coordinates::HalfPixel)),
    op("_upsample_nearest_exact3d", NEAREST, |call| resize(call, 3, ResizeMode::Nearest, Coordinates::HalfPixel)),
    op("upsample_linear1d", ALIGNED_1D, |call| aligned(call, 1, ResizeMode::Linear)),
    op("upsample_bilinear2d", ALIGNED, |call| aligned(call, 2, ResizeMode::Linear)),
    op("upsample_trilinear3d", ALIGNED, |call| aligned(call, 3, ResizeMode::Linear)),
    op("upsample_bicubic2d", ALIGNED, |call| aligned(call, 2, ResizeMode::Cubic)),
    op("_upsample_bilinear2d_aa", ALIGNED, |call| area(call, ResizeMode::AreaLinear)),
    op("_upsample_bicubic2d_aa", ALIGNED, |call| area(call, ResizeMode::AreaCubic)),
    // `F.interpolate` as TorchScript may have it.
    op(
        "interpolate",
        "self size=None scale_factor=None mode=nearest align_corners=None recompute_scale_factor=None antialias=False",
        interpolate,
    ),
];

fn aligned(call: &mut Call, spatial: usize, mode: ResizeMode) -> Result<Arg> {
    let coordinates =
        if call.arg("align_corners").bool() == Some(true) { Coordinates::AlignCorners } else { Coordinates::HalfPixel };
    resize(call, spatial, mode, coordinates)
}

/// `antialias=True`.
fn area(call: &mut Call, mode: ResizeMode) -> Result<Arg> {
    if call.arg("align_corners").bool() == Some(true) {
        return Err(call.fail("aligned corners with antialias=True are not translated"));
    }
    resize(call, 2, mode, Coordinates::HalfPixel)
}

/// The new sizes: given, or what the factors give. Factors that are not the quotient of the sizes move the grid.
fn resize(call: &mut Call, spatial: usize, mode: ResizeMode, coordinates: Coordinates) -> Result<Arg> {
    let x = call.value("self")?;
    let shape = call.lower.graph.shape(x).clone();
    // In TorchScript's short form the list of factors stands where the first scale is.
    let listed =
        ["scale_factors", "scales", "scales_h"].iter().map(|name| call.arg(name)).find(|arg| arg.list().is_some());
    let single: Vec<Arg> = match spatial {
        1 => vec![call.arg("scales")],
        2 => vec![call.arg("scales_h"), call.arg("scales_w")],
        _ => vec![call.arg("scales_d"), call.arg("scales_h"), call.arg("scales_w")],
    };
    let factors: Vec<Option<f64>> = match &listed {
        Some(Arg::List(list)) => list.iter().map(Arg::float).collect(),
        _ => single.iter().map(Arg::float).collect(),
    };
    let given = match call.arg("output_size") {
        Arg::None => None,
        Arg::List(list) if list.is_empty() => None,
        _ => Some(call.spatial("output_size", spatial)?),
    };
    let (mut size, mut scale, mut uneven) = (Vec::new(), Vec::new(), false);
    for axis in 0..spatial {
        let factor = factors.get(axis).copied().flatten();
        let fixed = given.as_ref().and_then(|given| given.get(axis)).copied();
        let new = match (fixed, factor) {
            (Some(size), _) => size,
            (None, Some(factor)) => {
                (call.known(&shape, axis + 2, "the size to scale")? as f64 * factor).floor() as usize
            }
            (None, None) => return Err(call.fail("neither a size nor a factor is known")),
        };
        // Given factors count instead of the quotient of the sizes.
        if let (Some(factor), Some(old), false) =
            (factor, shape.get(axis + 2).and_then(|dim| dim.known()), coordinates == Coordinates::AlignCorners)
        {
            uneven |= (new as f64 / factor - old as f64).abs() > 1e-6 * old as f64;
            scale.push(1.0 / factor);
        }
        size.push(new);
    }
    if !uneven || scale.len() != spatial {
        scale.clear();
    }
    let resize = op::Resize { mode, size, coordinates, scale, layout: Layout::ChannelsFirst };
    Ok(call.add(resize, &[x])?.into())
}

fn interpolate(call: &mut Call) -> Result<Arg> {
    let spatial = call.shape("self")?.rank().saturating_sub(2);
    let antialias = call.bool("antialias")?;
    let mode = call.text("mode")?;
    let (x, size, aligned) = (call.arg("self"), call.arg("size"), call.arg("align_corners"));
    let repeated = |arg: Arg| match arg {
        Arg::None | Arg::List(_) => arg,
        one => Arg::List(vec![one; spatial]),
    };
    let (size, factors) = (repeated(size), repeated(call.arg("scale_factor")));
    match mode.as_str() {
        "area" => {
            let size = match size {
                Arg::None => {
                    let shape = call.shape("self")?;
                    let factors: Vec<f64> = factors.list().unwrap_or(&[]).iter().filter_map(Arg::float).collect();
                    let mut sizes = Vec::new();
                    for (axis, factor) in factors.into_iter().enumerate() {
                        sizes.push(Arg::from((call.known(&shape, axis + 2, "the size")? as f64 * factor) as usize));
                    }
                    Arg::List(sizes)
                }
                size => size,
            };
            call.call(&format!("adaptive_avg_pool{spatial}d"), &[x, size])
        }
        "nearest" | "nearest-exact" => {
            let name = if mode == "nearest" { "upsample_nearest" } else { "_upsample_nearest_exact" };
            call.lower.call(&format!("{name}{spatial}d"), &[x, size], &[("scale_factors", factors)])
        }
        mode => {
            let name = match (mode, spatial) {
                ("bilinear", 2) if antialias => "_upsample_bilinear2d_aa",
                ("bicubic", 2) if antialias => "_upsample_bicubic2d_aa",
                ("linear", 1) => "upsample_linear1d",
                ("bilinear", 2) => "upsample_bilinear2d",
                ("trilinear", 3) => "upsample_trilinear3d",
                ("bicubic", 2) => "upsample_bicubic2d",
                _ => return Err(call.fail(format!("the mode '{mode}' is not for {spatial} axes"))),
            };
            let aligned = if aligned.is_none() { false.into() } else { aligned };
            call.lower.call(name, &[x, size, aligned], &[("scale_factors", factors)])
        }
    }
}
