//! Resampling in space: `F.interpolate`, pixel shuffle.

use modelport_ir::op::{Coordinates, DepthToSpace, GridSample, Outside, Resize, ResizeMode, SpaceToDepth};
use modelport_ir::{Dim, Layout, Tensor};

use super::build::{Builder, Built};
use super::layers::pad_list;
use crate::python::{Arg, Expr, Lit};

fn all() -> Expr {
    Expr::name(":")
}

/// `F.interpolate`, which knows half-pixel and aligned grids; others are brought to one of these.
pub fn resize(b: &mut Builder<'_>, op: &Resize) -> Built {
    if op.layout != Layout::ChannelsFirst {
        return Err(b.problem("a layer was left with channels last, expected channels first"));
    }
    let shape = b.shape(0)?.clone();
    let spatial = shape.rank() - 2;
    let x = b.tensor(0)?;
    let sizes: Option<Vec<usize>> = shape.iter().skip(2).map(Dim::known).collect();
    let factor = factor(op, sizes.as_deref());
    let interpolate = |x: Expr, size: &[usize], mode: &str, align: Option<bool>, factor: Option<&Lit>| {
        let mut args = vec![Arg::new(x)];
        args.push(match factor {
            Some(factor) => Arg::keyword("scale_factor", Expr::slot("scale_factor", factor.clone()), None),
            None => Arg::keyword("size", Expr::slot("size", Lit::tuple(size)), None),
        });
        let nearest = Lit::Str("nearest".to_owned());
        args.push(Arg::keyword("mode", Expr::slot("mode", Lit::Str(mode.to_owned())), Some(nearest)));
        if let Some(align) = align {
            let align = Expr::slot("align_corners", Lit::Bool(align));
            args.push(Arg::keyword("align_corners", align, Some(Lit::Bool(false))));
        }
        if matches!(op.mode, ResizeMode::AreaLinear | ResizeMode::AreaCubic) {
            args.push(Arg::keyword("antialias", Expr::slot("antialias", Lit::Bool(true)), None));
        }
        Expr::call("F.interpolate", args)
    };
    let sized = op.scale.is_empty() || factor.is_some();
    let mode = match op.mode {
        ResizeMode::Nearest if op.coordinates == Coordinates::HalfPixel => "nearest-exact",
        ResizeMode::Nearest => "nearest",
        ResizeMode::Linear => ["linear", "bilinear", "trilinear"].get(spatial - 1).copied().unwrap_or("bilinear"),
        ResizeMode::AreaLinear => "bilinear",
        _ => "bicubic",
    };
    let planar = match op.mode {
        ResizeMode::Nearest | ResizeMode::Linear => true,
        ResizeMode::Cubic | ResizeMode::AreaLinear | ResizeMode::AreaCubic => spatial == 2,
        ResizeMode::CubicTable | ResizeMode::CatmullRom => false,
    };
    Ok(match (op.mode, op.coordinates) {
        (ResizeMode::Nearest, Coordinates::Asymmetric) if sized => {
            if let Some(factor @ Lit::Int(_)) = &factor {
                let factor = Expr::slot("scale_factor", factor.clone());
                b.as_module(Expr::call("nn.Upsample", vec![Arg::keyword("scale_factor", factor, None)]));
            }
            interpolate(x, &op.size, mode, None, factor.as_ref())
        }
        (ResizeMode::Nearest, Coordinates::HalfPixel) if sized => interpolate(x, &op.size, mode, None, factor.as_ref()),
        (ResizeMode::Linear, Coordinates::Asymmetric) if op.scale.is_empty() => {
            // With one more element at the end of both sides, position i * in / out is that of aligned corners.
            let Some(_) = sizes else {
                return Err(b.problem("the size of the input is not known").hint("give it with --inputShape"));
            };
            let more: Vec<usize> = op.size.iter().map(|size| size + 1).collect();
            let pads = vec![(0, 1); spatial];
            let replicate = Arg::keyword("mode", Expr::slot("mode", Lit::Str("replicate".to_owned())), None);
            let padded =
                Expr::call("F.pad", vec![Arg::new(x), Arg::new(Expr::slot("pad", pad_list(&pads))), replicate]);
            let resized = interpolate(padded, &more, mode, Some(true), None);
            let cut = Expr::Range(None, Some(Box::new(Expr::slot("end", Lit::Int(-1)))), None);
            resized.index([all(), all()].into_iter().chain(vec![cut; spatial]).collect())
        }
        (mode_of, Coordinates::HalfPixel) if sized && planar && mode_of != ResizeMode::Nearest => {
            interpolate(x, &op.size, mode, Some(false), factor.as_ref())
        }
        (ResizeMode::Linear | ResizeMode::Cubic, Coordinates::AlignCorners) if planar => {
            interpolate(x, &op.size, mode, Some(true), None)
        }
        _ => {
            let Some(sizes) = sizes else {
                return Err(b.problem("the size of the input is not known").hint("give it with --inputShape"));
            };
            by_matrices(b, op, &sizes, x)?
        }
    })
}

/// What sizes are multiplied by, where that says the same as the new size: a whole number, or what the source has.
fn factor(op: &Resize, sizes: Option<&[usize]>) -> Option<Lit> {
    let sizes = sizes?;
    if op.scale.is_empty() {
        let mut factors = sizes.iter().zip(&op.size).map(|(&i, &o)| (i > 0 && o % i == 0).then(|| o / i));
        let first = factors.next()??;
        return factors.all(|factor| factor == Some(first)).then_some(Lit::size(first));
    }
    let factors: Vec<f64> = op.scale.iter().map(|scale| 1.0 / scale).collect();
    let fits = |(&factor, (&from, &to)): (&f64, (&usize, &usize))| (from as f64 * factor).floor() == to as f64;
    if !factors.iter().zip(sizes.iter().zip(&op.size)).all(fits) {
        return None;
    }
    let mut items = factors.iter().map(|&factor| Lit::float(factor as f32)).collect::<Vec<Lit>>();
    if factors.windows(2).all(|pair| pair[0] == pair[1]) { items.pop() } else { Some(Lit::Tuple(items)) }
}

/// Any resizing is linear along every axis: a product with one matrix per axis.
fn by_matrices(b: &mut Builder<'_>, op: &Resize, sizes: &[usize], mut x: Expr) -> Built {
    let names = ["rows", "columns", "planes"];
    let spatial = sizes.len();
    for (i, (&from, &to)) in sizes.iter().zip(&op.size).enumerate() {
        if from == to && op.scale.is_empty() {
            continue;
        }
        let weights = op.matrix(i, from).map_err(|message| b.problem(message))?;
        let tensor = Tensor::from_f32(&[to, from], &weights);
        let last = i + 1 == spatial;
        x = if last {
            let tensor = tensor.permuted(&[1, 0]).map_err(|message| b.problem(message))?;
            let matrix = b.buffer("columns", tensor, "");
            x.binary("@", matrix)
        } else if i + 2 == spatial {
            let matrix = b.buffer(names[0], tensor, "");
            matrix.binary("@", x)
        } else {
            let matrix = b.buffer(names[2], tensor, "");
            Expr::call(
                "torch.einsum",
                vec![
                    Arg::new(Expr::slot("equation", Lit::Str("ncdhw,ed->ncehw".to_owned()))),
                    Arg::new(x),
                    Arg::new(matrix),
                ],
            )
        };
    }
    Ok(x)
}

/// `F.grid_sample`.
pub fn grid_sample(b: &mut Builder<'_>, op: &GridSample) -> Built {
    let (x, grid) = (b.tensor(0)?, b.tensor(1)?);
    let text = |role: &str, text: &str| Expr::slot(role, Lit::Str(text.to_owned()));
    let word = |role: &str, said: &str, default: &str| {
        Arg::keyword(role, text(role, said), Some(Lit::Str(default.to_owned())))
    };
    let outside = match op.outside {
        Outside::Zeros => "zeros",
        Outside::Edge => "border",
        Outside::Mirrored => "reflection",
    };
    let align = Arg::keyword("align_corners", Expr::slot("align_corners", Lit::Bool(op.align_corners)), None);
    let mode = word("mode", if op.linear { "bilinear" } else { "nearest" }, "bilinear");
    Ok(Expr::call(
        "F.grid_sample",
        vec![Arg::new(x), Arg::new(grid), mode, word("padding_mode", outside, "zeros"), align],
    ))
}

/// `F.pixel_unshuffle`; its channels are ordered by channel first, TensorFlow's by place first.
pub fn space_to_depth(b: &mut Builder<'_>, op: &SpaceToDepth) -> Built {
    check(b, op.layout)?;
    let channels = b.shape(0)?.get(1).and_then(Dim::known);
    let x = b.tensor(0)?;
    let block = Expr::int("downscale_factor", op.block);
    let moved = Expr::call("F.pixel_unshuffle", vec![Arg::new(x), Arg::new(block)]);
    if op.channel_major || channels == Some(1) {
        return Ok(moved);
    }
    let channels = channels.ok_or_else(|| b.problem("the number of channels is not known"))?;
    Ok(swap_channels(moved, channels, op.block * op.block))
}

/// `F.pixel_shuffle`, likewise.
pub fn depth_to_space(b: &mut Builder<'_>, op: &DepthToSpace) -> Built {
    check(b, op.layout)?;
    let channels = b.output_shape(0).get(1).and_then(Dim::known);
    let mut x = b.tensor(0)?;
    if !op.channel_major && channels != Some(1) {
        let channels = channels.ok_or_else(|| b.problem("the number of channels is not known"))?;
        x = swap_channels(x, op.block * op.block, channels);
    }
    Ok(Expr::call("F.pixel_shuffle", vec![Arg::new(x), Arg::new(Expr::int("upscale_factor", op.block))]))
}

/// Channels ordered as [a, b] become [b, a].
fn swap_channels(x: Expr, a: usize, b: usize) -> Expr {
    let int = |role: &str, value: usize| Arg::new(Expr::int(role, value));
    x.method("unflatten", vec![int("dim", 1), Arg::new(Expr::slot("sizes", Lit::tuple(&[a, b])))])
        .method("transpose", vec![int("dim", 1), int("dim", 2)])
        .method("flatten", vec![int("dim", 1), int("dim", 2)])
}

fn check(b: &Builder<'_>, layout: Layout) -> Result<(), modelport_ir::Problem> {
    if layout == Layout::ChannelsFirst {
        Ok(())
    } else {
        Err(b.problem("a layer was left with channels last, expected channels first"))
    }
}
