//! Resizing in space.

use serde::{Deserialize, Serialize};

use super::{Operator, Slot, input};
use crate::graph::ValueInfo;
use crate::layout::Layout;
use crate::shape::Dim;

/// Elements that an axis may have before and after.
const LONGEST: usize = 1 << 24;

/// For one output position: which elements of an axis it is made of, and their weights.
pub type Blend = Vec<(usize, f64)>;

/// How new elements are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ResizeMode {
    Nearest,
    /// Linear along every spatial axis.
    Linear,
    /// Cubic convolution (Keys 1981) with the coefficient -0.75; elements outside are those of the edge. PyTorch's.
    Cubic,
    /// The same, with places rounded to 1/1024: TensorFlow looks weights up in a table
    /// (`tensorflow/core/kernels/image/resize_bicubic_op.cc`).
    CubicTable,
    /// Likewise, with the coefficient -0.5; elements outside have no weight, and the others add up to 1. TensorFlow's
    /// with half-pixel centres.
    CatmullRom,
    /// Linear, over as many elements as a new one covers: PyTorch's `antialias=True`.
    AreaLinear,
    /// Cubic likewise, with the coefficient -0.5.
    AreaCubic,
}

/// Which place in the input an output position `i` looks at, with `scale = in / out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordinates {
    /// `i * scale`; nearest takes the floor. TensorFlow's default, and PyTorch's `nearest`.
    Asymmetric,
    /// `(i + 0.5) * scale - 0.5`; nearest takes `floor((i + 0.5) * scale)`.
    HalfPixel,
    /// `i * (in - 1) / (out - 1)`; nearest rounds half away from zero.
    AlignCorners,
}

/// Resizes the spatial axes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resize {
    /// How.
    pub mode: ResizeMode,
    /// New size per spatial axis.
    pub size: Vec<usize>,
    /// Where output positions look.
    pub coordinates: Coordinates,
    /// `scale` per spatial axis, where it is not `in / out`; else empty. Aligned corners take none. The last
    /// place must be inside: `out * scale <= in`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub scale: Vec<f64>,
    /// Of the input and the output.
    pub layout: Layout,
}

impl Operator for Resize {
    fn slots(&self) -> &'static [Slot] {
        slots![Data "x"]
    }
    fn infer(&self, inputs: &[Option<&ValueInfo>]) -> Result<Vec<ValueInfo>, String> {
        let x = input(inputs, 0)?;
        let rank = x.shape.rank();
        if !self.scale.is_empty() && self.scale.len() != self.size.len() {
            return Err(format!("{} scales for a size {:?}", self.scale.len(), self.size));
        }
        if !(3..=5).contains(&rank) || self.size.len() != rank - 2 {
            return Err(format!("a size {:?} does not fit the input {}", self.size, x.shape));
        }
        let mut shape = x.shape.clone();
        for (axis, &size) in self.layout.spatial_axes(rank).zip(&self.size) {
            shape[axis] = Dim::Known(size);
        }
        Ok(vec![ValueInfo::new(x.dtype, shape)])
    }
}

impl Resize {
    /// What the elements of spatial axis `axis` are made of, that has `from` elements before.
    ///
    /// # Errors
    /// When the axis was empty and is no longer, or is too long; when the scale leads out of it.
    pub fn blends(&self, axis: usize, from: usize) -> Result<Vec<Blend>, String> {
        let to = self.size.get(axis).copied().unwrap_or(0);
        if from == 0 && to > 0 {
            return Err("an empty value can't be resized".to_owned());
        }
        if from.max(to) > LONGEST {
            return Err(format!("an axis of {} elements is too long to be resized", from.max(to)));
        }
        let scale = self.scale.get(axis).copied();
        if scale.is_some_and(|scale| !(scale > 0.0 && scale * to as f64 <= from as f64 + 0.5)) {
            return Err(format!("a scale of {scale:?} does not take {from} elements to {to}"));
        }
        Ok((0..to).map(|position| self.blend(position, from, to, scale)).collect())
    }

    /// The same as a matrix `[to, from]` in C order.
    ///
    /// # Errors
    /// As of [`Resize::blends`].
    pub fn matrix(&self, axis: usize, from: usize) -> Result<Vec<f32>, String> {
        let blends = self.blends(axis, from)?;
        let mut matrix = vec![0.0; blends.len().checked_mul(from).ok_or("a resized axis is too large")?];
        for (row, blend) in matrix.chunks_exact_mut(from.max(1)).zip(blends) {
            blend.into_iter().for_each(|(place, weight)| row[place] += weight as f32);
        }
        Ok(matrix)
    }

    /// Coordinates are computed in float32, as both frameworks do: where a position falls on an element decides.
    fn blend(&self, position: usize, from: usize, to: usize, scale: Option<f64>) -> Blend {
        let scale = match (self.coordinates, scale) {
            (Coordinates::AlignCorners, _) if to > 1 => (from - 1) as f32 / (to - 1) as f32,
            (Coordinates::HalfPixel | Coordinates::Asymmetric, Some(scale)) => scale as f32,
            _ => from as f32 / to as f32,
        };
        let last = from.saturating_sub(1);
        let i = position as f32;
        let source = match self.coordinates {
            Coordinates::HalfPixel => (i + 0.5) * scale - 0.5,
            Coordinates::Asymmetric | Coordinates::AlignCorners => i * scale,
        };
        match self.mode {
            ResizeMode::Nearest => {
                let place = match self.coordinates {
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
            ResizeMode::Cubic | ResizeMode::CubicTable | ResizeMode::CatmullRom => cubic(self.mode, source, from),
            ResizeMode::AreaLinear => covered(position, from, scale, 1.0, |x| 1.0 - x),
            ResizeMode::AreaCubic => covered(position, from, scale, 2.0, |x| keys(-0.5, x)),
        }
    }
}

/// The cubic kernel at a distance of less than 2.
fn keys(a: f64, x: f64) -> f64 {
    if x < 1.0 { ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0 } else { ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a }
}

/// Over the four nearest elements.
fn cubic(mode: ResizeMode, source: f32, from: usize) -> Blend {
    let catmull_rom = mode == ResizeMode::CatmullRom;
    let a = if catmull_rom { -0.5 } else { -0.75 };
    let below = source.floor();
    let mut share = f64::from(source - below);
    if mode != ResizeMode::Cubic {
        share = (share * 1024.0).round_ties_even() / 1024.0;
    }
    let weights = [share + 1.0, share, 1.0 - share, 2.0 - share].map(|x| keys(a, x));
    let places = (0..4).map(|k| below as i64 - 1 + k);
    let mut blend: Blend = Vec::with_capacity(4);
    for (place, weight) in places.zip(weights) {
        let bound = place.clamp(0, from as i64 - 1);
        blend.push((bound as usize, if catmull_rom && bound != place { 0.0 } else { weight }));
    }
    let sum: f64 = blend.iter().map(|(_, weight)| weight).sum();
    if catmull_rom && sum.abs() >= 1000.0 * f64::from(f32::MIN_POSITIVE) {
        blend.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
    blend
}

/// Over all elements that the kernel covers when it is as wide as the step; their weights add up to 1
/// (`HelperInterpBase::_compute_indices_min_size_weights_aa` in PyTorch's `UpSampleKernel.cpp`).
fn covered(position: usize, from: usize, scale: f32, radius: f64, kernel: impl Fn(f64) -> f64) -> Blend {
    let scale = f64::from(scale);
    let width = scale.max(1.0);
    let (center, support) = (scale * (position as f64 + 0.5), radius * width);
    let first = (center - support + 0.5).max(0.0) as usize;
    let end = ((center + support + 0.5).max(0.0) as usize).min(from);
    let weight = |place: usize| {
        let distance = ((place as f64 - center + 0.5) / width).abs();
        if distance < radius { kernel(distance) } else { 0.0 }
    };
    let mut blend: Blend = (first..end).map(|place| (place, weight(place))).collect();
    let sum: f64 = blend.iter().map(|(_, weight)| weight).sum();
    if sum != 0.0 {
        blend.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
    blend
}
