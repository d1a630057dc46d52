//! Resampling in space: `F.interpolate`, pixel shuffle.

use modelport_ir::op::{Coordinates, DepthToSpace, Resize, ResizeMode, SpaceToDepth};
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
    let whole = sizes.as_ref().and_then(|sizes| {
        let mut factors = sizes.iter().zip(&op.size).map(|(&i, &o)| (i > 0 && o % i == 0).then(|| o / i));
        let first = factors.next()??;
        factors.all(|f| f == Some(first)).then_some(first)
    });
    let interpolate =
        |x: Expr, size: &[usize], mode: &str, align: Option<bool>, extra: Vec<Arg>, scale: Option<usize>| {
            let mut args = vec![Arg::new(x)];
            match scale {
                Some(scale) => args.push(Arg::keyword("scale_factor", Expr::int("scale_factor", scale), None)),
                None => args.push(Arg::keyword("size", Expr::slot("size", Lit::tuple(size)), None)),
            }
            args.push(Arg::keyword(
                "mode",
                Expr::slot("mode", Lit::Str(mode.to_owned())),
                Some(Lit::Str("nearest".to_owned())),
            ));
            if let Some(align) = align {
                args.push(Arg::keyword(
                    "align_corners",
                    Expr::slot("align_corners", Lit::Bool(align)),
                    Some(Lit::Bool(false)),
                ));
            }
            args.extend(extra);
            Expr::call("F.interpolate", args)
        };
    let linear = ["linear", "bilinear", "trilinear"].get(spatial - 1).copied().unwrap_or("bilinear");
    Ok(match (op.mode, op.coordinates) {
        (ResizeMode::Nearest, Coordinates::Asymmetric) => {
            if let Some(scale) = whole {
                b.as_module(Expr::call(
                    "nn.Upsample",
                    vec![Arg::keyword("scale_factor", Expr::int("scale_factor", scale), None)],
                ));
            }
            interpolate(x, &op.size, "nearest", None, Vec::new(), whole)
        }
        (ResizeMode::Nearest, Coordinates::HalfPixel) => {
            interpolate(x, &op.size, "nearest-exact", None, Vec::new(), whole)
        }
        (ResizeMode::Linear, Coordinates::HalfPixel) => {
            interpolate(x, &op.size, linear, Some(false), Vec::new(), whole)
        }
        (ResizeMode::Linear, Coordinates::AlignCorners) => {
            interpolate(x, &op.size, linear, Some(true), Vec::new(), None)
        }
        (ResizeMode::Linear, Coordinates::Asymmetric) => {
            // With one more element at the end of both sides, position i * in / out is that of aligned corners.
            let Some(_) = sizes else {
                return Err(b.problem("the size of the input is not known").hint("give it with --inputShape"));
            };
            let more: Vec<usize> = op.size.iter().map(|size| size + 1).collect();
            let pads = vec![(0, 1); spatial];
            let mode = Arg::keyword("mode", Expr::slot("mode", Lit::Str("replicate".to_owned())), None);
            let padded = Expr::call("F.pad", vec![Arg::new(x), Arg::new(Expr::slot("pad", pad_list(&pads))), mode]);
            let resized = interpolate(padded, &more, linear, Some(true), Vec::new(), None);
            let cut = Expr::Range(None, Some(Box::new(Expr::slot("end", Lit::Int(-1)))), None);
            resized.index([all(), all()].into_iter().chain(vec![cut; spatial]).collect())
        }
        _ => {
            let Some(sizes) = sizes else {
                return Err(b.problem("the size of the input is not known").hint("give it with --inputShape"));
            };
            by_matrices(b, op, &sizes, x)?
        }
    })
}

/// Any resizing is linear along every axis: a product with one matrix per axis.
fn by_matrices(b: &mut Builder<'_>, op: &Resize, sizes: &[usize], mut x: Expr) -> Built {
    let names = ["rows", "columns", "planes"];
    let spatial = sizes.len();
    for (i, (&from, &to)) in sizes.iter().zip(&op.size).enumerate() {
        if from == to {
            continue;
        }
        let weights = crate::resample::matrix(op, from, to).map_err(|message| b.problem(message))?;
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
