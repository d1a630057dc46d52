//! Normalisation.

use super::array::{Array, Lanes, filled, flat};
use crate::layout::Layout;
use crate::op::{BatchNorm, GroupNorm, InstanceNorm, L2Normalize, LayerNorm, Lrn};

/// The elements of an optional parameter.
fn parameter(inputs: &[Option<&Array>], slot: usize) -> Result<Option<Vec<f64>>, String> {
    match inputs.get(slot).copied().flatten() {
        Some(x) => Ok(Some(flat(x.reals()?.0).into_owned())),
        None => Ok(None),
    }
}

/// Multiplies a lane by `scale` and adds `bias`, element by element.
fn scale_and_shift(lane: &mut [f64], scale: Option<&[f64]>, bias: Option<&[f64]>) {
    if let Some(scale) = scale {
        lane.iter_mut().zip(scale).for_each(|(x, s)| *x *= s);
    }
    if let Some(bias) = bias {
        lane.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
}

/// Takes mean and (biased) variance out of a lane.
fn standardize(lane: &mut [f64], epsilon: f64) {
    let n = lane.len() as f64;
    let mean = lane.iter().sum::<f64>() / n;
    let variance = lane.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let factor = 1.0 / (variance + epsilon).sqrt();
    lane.iter_mut().for_each(|x| *x = (*x - mean) * factor);
}

/// Applies parameters over the channels.
fn per_channel(
    x: &ndarray::ArrayD<f64>,
    layout: Layout,
    inputs: &[Option<&Array>],
) -> Result<ndarray::ArrayD<f64>, String> {
    let (scale, bias) = (parameter(inputs, 1)?, parameter(inputs, 2)?);
    let channel = layout.channel_axis(x.ndim());
    Lanes::along(x, &[channel]).mapped(|lane| scale_and_shift(lane, scale.as_deref(), bias.as_deref()))
}

pub(super) fn batch_norm(op: &BatchNorm, x: &Array, inputs: &[Option<&Array>]) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    let mean = parameter(inputs, 3)?.ok_or("the mean is missing")?;
    let variance = parameter(inputs, 4)?.ok_or("the variance is missing")?;
    let factor: Vec<f64> = variance.iter().map(|v| 1.0 / (v + f64::from(op.epsilon)).sqrt()).collect();
    let (scale, bias) = (parameter(inputs, 1)?, parameter(inputs, 2)?);
    let channel = op.layout.channel_axis(a.ndim());
    let result = Lanes::along(a, &[channel]).mapped(|lane| {
        lane.iter_mut().zip(&mean).zip(&factor).for_each(|((x, mean), factor)| *x = (*x - mean) * factor);
        scale_and_shift(lane, scale.as_deref(), bias.as_deref());
    })?;
    Ok(Array::real(result, dtype))
}

pub(super) fn layer_norm(op: &LayerNorm, x: &Array, inputs: &[Option<&Array>]) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    let (scale, bias) = (parameter(inputs, 1)?, parameter(inputs, 2)?);
    distinct(&op.axes)?;
    let result = Lanes::along(a, &op.axes).mapped(|lane| {
        standardize(lane, f64::from(op.epsilon));
        scale_and_shift(lane, scale.as_deref(), bias.as_deref());
    })?;
    Ok(Array::real(result, dtype))
}

/// Fails when an axis is named twice.
pub(super) fn distinct(axes: &[usize]) -> Result<(), String> {
    let twice = axes.iter().enumerate().any(|(i, axis)| axes[..i].contains(axis));
    if twice { Err(format!("axes {axes:?} name one twice")) } else { Ok(()) }
}

pub(super) fn instance_norm(op: &InstanceNorm, x: &Array, inputs: &[Option<&Array>]) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    let spatial: Vec<usize> = op.layout.spatial_axes(a.ndim()).collect();
    let normal = Lanes::along(a, &spatial).mapped(|lane| standardize(lane, f64::from(op.epsilon)))?;
    Ok(Array::real(per_channel(&normal, op.layout, inputs)?, dtype))
}

pub(super) fn group_norm(op: &GroupNorm, x: &Array, inputs: &[Option<&Array>]) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    let channel = op.layout.channel_axis(a.ndim());
    let channels = a.shape()[channel];
    if op.groups == 0 || op.groups > channels || channels % op.groups != 0 {
        return Err(format!("{channels} channels do not divide into {} groups", op.groups));
    }
    let mut split = a.shape().to_vec();
    split.splice(channel..=channel, [op.groups, channels / op.groups]);
    let axes: Vec<usize> = (1..split.len()).filter(|&axis| axis != channel).collect();
    let groups = filled(&split, flat(a).into_owned())?;
    let normal = Lanes::along(&groups, &axes).mapped(|lane| standardize(lane, f64::from(op.epsilon)))?;
    let normal = filled(a.shape(), flat(&normal).into_owned())?;
    Ok(Array::real(per_channel(&normal, op.layout, inputs)?, dtype))
}

pub(super) fn lrn(op: &Lrn, x: &Array) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    let (k, alpha, beta) = (f64::from(op.k), f64::from(op.alpha), f64::from(op.beta));
    // An even window reaches one channel further back, as in PyTorch.
    let (back, ahead) = (op.size / 2, op.size.saturating_sub(1) / 2);
    let result = Lanes::along(a, &[op.layout.channel_axis(a.ndim())]).mapped(|lane| {
        let squares: Vec<f64> = lane.iter().map(|x| x * x).collect();
        for (c, x) in lane.iter_mut().enumerate() {
            let window = c.saturating_sub(back)..c.saturating_add(ahead).saturating_add(1).min(squares.len());
            *x /= (k + alpha * squares[window].iter().sum::<f64>()).powf(beta);
        }
    })?;
    Ok(Array::real(result, dtype))
}

pub(super) fn l2_normalize(op: &L2Normalize, x: &Array) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    distinct(&op.axes)?;
    let result = Lanes::along(a, &op.axes).mapped(|lane| {
        let norm = lane.iter().map(|x| x * x).sum::<f64>().max(f64::from(op.epsilon)).sqrt();
        lane.iter_mut().for_each(|x| *x /= norm);
    })?;
    Ok(Array::real(result, dtype))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, ramp, reals};
    use super::*;

    /// PyTorch divides the factor of LRN by the window's size: it was given as much more.
    #[test]
    fn normalisations_agree_with_pytorch() {
        check(
            BatchNorm { epsilon: 0.001, momentum: None, layout: Layout::ChannelsFirst },
            &[&ramp(&[1, 2, 3]), &ramp(&[2]), &ramp(&[2]), &ramp(&[2]), &reals(&[2], &[0.5, 2.])],
            &[1, 2, 3],
            &[-1.25, -4.34050321, -2.57450137, 0.765098777, 0.411633741, 0.0581687058],
        );
        check(
            BatchNorm { epsilon: 0.001, momentum: None, layout: Layout::ChannelsLast },
            &[&ramp(&[2, 3]), &ramp(&[3]), &ramp(&[3]), &ramp(&[3]), &reals(&[3], &[0.5, 2., 3.])],
            &[2, 3],
            &[-1.25, 0.5, -0.5, -5.66500458, 0.411633741, -0.427843241],
        );
        check(
            LayerNorm { axes: vec![1, 2], epsilon: 0.001 },
            &[&ramp(&[2, 2, 3]), &ramp(&[2, 3]), &ramp(&[2, 3])],
            &[2, 2, 3],
            &[
                0.490075075,
                0.848015015,
                -0.251417846,
                3.23865723,
                0.349432861,
                -0.153402831,
                -2.95121606,
                0.575609603,
                0.029267218,
                2.57316804,
                0.212195199,
                0.270729635,
            ],
        );
        check(
            LayerNorm { axes: vec![2, 1], epsilon: 0.001 },
            &[&ramp(&[2, 2, 3]), &ramp(&[3, 2]), &ramp(&[3, 2])],
            &[2, 2, 3],
            &[
                0.490075075,
                -0.848015015,
                0.125708923,
                1.29546289,
                1.74716431,
                -0.153402831,
                -2.95121606,
                -0.575609603,
                -0.014633609,
                1.02926722,
                1.06097599,
                0.270729635,
            ],
        );
        check(
            InstanceNorm { epsilon: 0.001, layout: Layout::ChannelsFirst },
            &[&ramp(&[2, 2, 2, 2]), &ramp(&[2]), &ramp(&[2])],
            &[2, 2, 2, 2],
            &[
                0.390425598,
                -1.90617024,
                -0.593829761,
                -2.8904256,
                0.599872245,
                -0.199105717,
                1.19910572,
                0.400127755,
                -0.347123549,
                -3.15607251,
                -1.55095882,
                0.0541548742,
                0.599872245,
                -0.199105717,
                1.19910572,
                0.400127755,
            ],
        );
        check(
            InstanceNorm { epsilon: 0.001, layout: Layout::ChannelsLast },
            &[&ramp(&[1, 2, 2, 2])],
            &[1, 2, 2, 2],
            &[-1.34068775, 0.342674804, -0.446895916, 1.37069922, 0.446895916, -1.37069922, 1.34068775, -0.342674804],
        );
        check(
            GroupNorm { groups: 2, epsilon: 0.001, layout: Layout::ChannelsFirst },
            &[&ramp(&[1, 4, 3]), &ramp(&[4]), &ramp(&[4])],
            &[1, 4, 3],
            &[
                0.490075075,
                -2.12003754,
                -0.628544616,
                1.29546289,
                0.698865723,
                0.102268554,
                -1.18048642,
                -0.575609603,
                0.029267218,
                2.57316804,
                1.06097599,
                -0.451216058,
            ],
        );
        check(
            GroupNorm { groups: 2, epsilon: 0.001, layout: Layout::ChannelsLast },
            &[&ramp(&[1, 3, 4]), &ramp(&[4]), &ramp(&[4])],
            &[1, 3, 4],
            &[
                0.356839554,
                0.982051866,
                -0.18491713,
                3.00719293,
                -2.05341978,
                0.178632089,
                -1.05745431,
                1.18940714,
                -0.0448703347,
                1.14273582,
                -0.330339993,
                -0.628378647,
            ],
        );
        check(
            Lrn { size: 3, alpha: 0.5, beta: 0.75, k: 2.0, layout: Layout::ChannelsFirst },
            &[&ramp(&[1, 4, 2])],
            &[1, 4, 2],
            &[-0.561578258, 0.224631303, -0.222836638, 0.523989239, 0.120154018, -0.323969548, 0.498308987, 0.],
        );
        check(
            Lrn { size: 4, alpha: 0.25, beta: 0.5, k: 1.0, layout: Layout::ChannelsFirst },
            &[&ramp(&[1, 5, 1])],
            &[1, 5, 1],
            &[-1.03695169, 0.406138466, -0.362142984, 1.01015254, 0.206284249],
        );
        check(
            L2Normalize { axes: vec![1], epsilon: 0.0 },
            &[&ramp(&[2, 4])],
            &[2, 4],
            &[-0.656532164, 0.262612866, -0.262612866, 0.656532164, 0.196116135, -0.588348405, 0.784464541, 0.],
        );
        check(
            L2Normalize { axes: vec![0, 1], epsilon: 100.0 },
            &[&ramp(&[2, 4])],
            &[2, 4],
            &[-0.125, 0.05, -0.05, 0.125, 0.025, -0.075, 0.1, 0.],
        );
    }
}
