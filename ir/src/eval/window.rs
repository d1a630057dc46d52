//! Windows that slide over space, and values with their channels last.

use std::ops::Range;

use super::array::Array;
use crate::layout::Layout;
use crate::tensor::DType;

/// A value with the channels last, in C order.
pub(super) struct Space {
    /// `[batch, spatial…, channels]`
    pub values: Vec<f64>,
    pub batch: usize,
    /// Of the spatial axes.
    pub sizes: Vec<usize>,
    pub channels: usize,
}

impl Space {
    /// Reads a value; whole numbers become reals.
    pub(super) fn of(x: &Array, layout: Layout) -> Result<(Space, DType), String> {
        let dtype = x.dtype();
        if dtype == DType::Bool {
            return Err("takes numbers, got bool".to_owned());
        }
        let perm = layout.permutation_to(Layout::ChannelsLast, x.shape().len());
        let moved = x.transposed(&perm);
        match moved.shape() {
            [batch, sizes @ .., channels] => {
                let (batch, sizes, channels) = (*batch, sizes.to_vec(), *channels);
                Ok((Space { values: moved.to_f64(), batch, sizes, channels }, dtype))
            }
            shape => Err(format!("takes a batch and channels, got shape {shape:?}")),
        }
    }

    /// The value in its layout; `shape` is its shape there.
    pub(super) fn placed(self, shape: &[usize], layout: Layout, dtype: DType) -> Result<Array, String> {
        let rank = shape.len();
        let last: Vec<usize> =
            layout.permutation_to(Layout::ChannelsLast, rank).into_iter().map(|axis| shape[axis]).collect();
        let array = Array::from_f64(dtype, &last, self.values)?;
        Ok(array.transposed(&Layout::ChannelsLast.permutation_to(layout, rank)))
    }
}

/// A window along one axis: its tap `k` at position `o` lies at `o * stride + k * dilation - before`.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Elements of the axis it slides over.
    pub size: usize,
    /// Positions that it takes.
    pub out: usize,
    /// Taps.
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub before: usize,
}

impl Window {
    /// # Errors
    /// When numbers are so large that places could not be computed.
    pub(super) fn new(
        size: usize,
        out: usize,
        kernel: usize,
        stride: usize,
        dilation: usize,
        before: usize,
    ) -> Result<Window, String> {
        if dilation == 0 {
            return Err("a dilation is 0".to_owned());
        }
        let largest = [size, out, kernel, dilation, before].into_iter().max().unwrap_or(0);
        if largest > 1 << 30 {
            return Err(format!("a window with the number {largest} is too large to evaluate"));
        }
        // A stride beyond all elements is taken once, at most.
        Ok(Window { size, out, kernel, stride: stride.min(1 << 31), dilation, before })
    }

    /// Where tap 0 lies.
    fn start(&self, position: usize) -> i64 {
        position as i64 * self.stride as i64 - self.before as i64
    }

    /// The taps that lie between these places.
    pub(super) fn taps_between(&self, position: usize, low: i64, high: i64) -> Range<usize> {
        let (start, step) = (self.start(position), self.dilation as i64);
        let steps = |to: i64| ((to - start).max(0) as u64).div_ceil(step as u64) as usize;
        let end = steps(high).min(self.kernel);
        steps(low).min(end)..end
    }

    /// The taps that meet elements and not padding.
    pub(super) fn taps(&self, position: usize) -> Range<usize> {
        self.taps_between(position, 0, self.size as i64)
    }

    /// Visits all positions in C order, with the taps per axis that meet elements.
    pub(super) fn each(windows: &[Window], visit: impl FnMut(usize, &[(usize, Range<usize>)])) {
        let count = windows.iter().map(|w| w.out).product();
        Window::each_in(windows, 0..count, visit);
    }

    /// As [`Window::each`], for a range of positions. The visitor gets the position's number and, per axis, the
    /// position and the taps.
    pub(super) fn each_in(
        windows: &[Window],
        positions: Range<usize>,
        mut visit: impl FnMut(usize, &[(usize, Range<usize>)]),
    ) {
        let mut taps = vec![(0, 0..0); windows.len()];
        for number in positions {
            let mut rest = number;
            for (window, taps) in windows.iter().zip(&mut taps).rev() {
                let position = rest % window.out;
                *taps = (position, window.taps(position));
                rest /= window.out;
            }
            visit(number, &taps);
        }
    }

    /// Visits the taps of one position, up to three axes: number of the tap in the kernel and place among the
    /// elements, both in C order.
    pub(super) fn each_tap(windows: &[Window], taps: &[(usize, Range<usize>)], mut visit: impl FnMut(usize, usize)) {
        visit_taps(windows, taps, 0, 0, &mut visit);
    }
}

fn visit_taps(
    windows: &[Window],
    taps: &[(usize, Range<usize>)],
    number: usize,
    place: usize,
    visit: &mut impl FnMut(usize, usize),
) {
    match (windows.split_first(), taps.split_first()) {
        (Some((window, windows)), Some(((position, range), taps))) => {
            let start = window.start(*position);
            for tap in range.clone() {
                let here = (start + tap as i64 * window.dilation as i64) as usize;
                visit_taps(windows, taps, number * window.kernel + tap, place * window.size + here, visit);
            }
        }
        _ => visit(number, place),
    }
}
