//! Functions of one element and softmax.

use ndarray::ArrayD;

use super::array::{Array, Lanes, flat};
use super::erf::erf;
use crate::op::{Clip, Elu, Gelu, LeakyRelu, PRelu, Unary};

/// Constants of the self-normalising unit (Klambauer et al. 2017).
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

pub(super) fn unary(op: Unary, x: &Array) -> Result<Array, String> {
    match x {
        Array::Float(a, dtype) => match op {
            Unary::IsNan => Ok(Array::Bool(a.mapv(f64::is_nan))),
            Unary::IsInf => Ok(Array::Bool(a.mapv(f64::is_infinite))),
            Unary::IsFinite => Ok(Array::Bool(a.mapv(f64::is_finite))),
            Unary::Not => Err("takes truth values, got real numbers".to_owned()),
            _ => Ok(Array::real(a.mapv(|x| real(op, x)), *dtype)),
        },
        Array::Int(a, dtype) => match op {
            Unary::IsNan | Unary::IsInf => Ok(Array::Bool(a.mapv(|_| false))),
            Unary::IsFinite => Ok(Array::Bool(a.mapv(|_| true))),
            Unary::Not => Ok(Array::whole(a.mapv(|x| !x), *dtype)),
            _ => Ok(Array::whole(whole(op, a)?, *dtype)),
        },
        Array::Bool(a) if op == Unary::Not => Ok(Array::Bool(a.mapv(|x| !x))),
        Array::Bool(_) => Err("takes numbers, got bool".to_owned()),
    }
}

fn real(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Relu => limited(x, Some(0.0), None),
        Unary::Relu6 => limited(x, Some(0.0), Some(6.0)),
        Unary::Sigmoid => sigmoid(x),
        Unary::Tanh => x.tanh(),
        Unary::Softplus => softplus(x),
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::Selu => SELU_SCALE * elu(x, SELU_ALPHA),
        Unary::Silu => x * sigmoid(x),
        Unary::Mish => x * softplus(x).tanh(),
        Unary::HardSigmoid => limited(x + 3.0, Some(0.0), Some(6.0)) / 6.0,
        Unary::HardSwish => x * limited(x + 3.0, Some(0.0), Some(6.0)) / 6.0,
        Unary::Exp => x.exp(),
        Unary::Expm1 => x.exp_m1(),
        Unary::Log => x.ln(),
        Unary::Log1p => x.ln_1p(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Square => x * x,
        Unary::Reciprocal => 1.0 / x,
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x > 0.0 => 1.0,
        Unary::Sign if x < 0.0 => -1.0,
        Unary::Sign => x,
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Asinh => x.asinh(),
        Unary::Acosh => x.acosh(),
        Unary::Atanh => x.atanh(),
        Unary::Erf => erf(x),
        Unary::Not | Unary::IsNan | Unary::IsInf | Unary::IsFinite => f64::NAN,
    }
}

fn whole(op: Unary, a: &ArrayD<i64>) -> Result<ArrayD<i64>, String> {
    Ok(match op {
        Unary::Relu => a.mapv(|x| x.max(0)),
        Unary::Relu6 => a.mapv(|x| x.clamp(0, 6)),
        Unary::Square => a.mapv(|x| x.wrapping_mul(x)),
        Unary::Neg => a.mapv(i64::wrapping_neg),
        Unary::Abs => a.mapv(i64::wrapping_abs),
        Unary::Sign => a.mapv(i64::signum),
        Unary::Floor | Unary::Ceil | Unary::Round => a.clone(),
        _ => return Err("takes real numbers, got whole ones".to_owned()),
    })
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p() + if x.is_nan() { x } else { 0.0 }
}

fn elu(x: f64, alpha: f64) -> f64 {
    if x < 0.0 { alpha * x.exp_m1() } else { x }
}

/// Lets NaN pass, unlike `f64::max`.
fn limited(x: f64, min: Option<f64>, max: Option<f64>) -> f64 {
    let x = match min {
        Some(min) if x < min => min,
        _ => x,
    };
    match max {
        Some(max) if x > max => max,
        _ => x,
    }
}

pub(super) fn leaky_relu(op: &LeakyRelu, x: &Array) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    let alpha = f64::from(op.alpha);
    Ok(Array::real(a.mapv(|x| if x < 0.0 { alpha * x } else { x }), dtype))
}

pub(super) fn exponential_linear(op: &Elu, x: &Array) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    let alpha = f64::from(op.alpha);
    Ok(Array::real(a.mapv(|x| elu(x, alpha)), dtype))
}

pub(super) fn gelu(op: &Gelu, x: &Array) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    let tanh_form = |x: f64| {
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        0.5 * x * (1.0 + inner.tanh())
    };
    let exact = |x: f64| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2));
    Ok(Array::real(if op.approximate { a.mapv(tanh_form) } else { a.mapv(exact) }, dtype))
}

pub(super) fn clip(op: &Clip, x: &Array) -> Result<Array, String> {
    match x {
        Array::Float(a, dtype) => {
            let (min, max) = (op.min.map(f64::from), op.max.map(f64::from));
            Ok(Array::real(a.mapv(|x| limited(x, min, max)), *dtype))
        }
        Array::Int(a, dtype) => {
            let (min, max) = (op.min.map_or(i64::MIN, |m| m as i64), op.max.map_or(i64::MAX, |m| m as i64));
            Ok(Array::whole(a.mapv(|x| x.max(min).min(max)), *dtype))
        }
        Array::Bool(_) => Err("takes numbers, got bool".to_owned()),
    }
}

pub(super) fn prelu(op: &PRelu, x: &Array, slope: &Array) -> Result<Array, String> {
    let ((a, dtype), (slope, _)) = (x.reals()?, slope.reals()?);
    let slope = flat(slope);
    if let [slope] = *slope {
        return Ok(Array::real(a.mapv(|x| if x < 0.0 { slope * x } else { x }), dtype));
    }
    let result = Lanes::along(a, &[op.layout.channel_axis(a.ndim())]).mapped(|lane| {
        for (x, slope) in lane.iter_mut().zip(slope.iter()) {
            if *x < 0.0 {
                *x *= slope;
            }
        }
    })?;
    Ok(Array::real(result, dtype))
}

/// Softmax, or its logarithm. The largest element is taken off first, so that nothing overflows.
pub(super) fn softmax(axis: usize, logarithm: bool, x: &Array) -> Result<Array, String> {
    let (a, dtype) = x.reals()?;
    let result = Lanes::along(a, &[axis]).mapped(|lane| {
        let largest = lane.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = lane.iter().map(|x| (x - largest).exp()).sum();
        for x in lane {
            *x = if logarithm { *x - largest - sum.ln() } else { (*x - largest).exp() / sum };
        }
    })?;
    Ok(Array::real(result, dtype))
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::*;
    use crate::layout::Layout;
    use crate::op::{LogSoftmax, Op, Softmax};
    use crate::tensor::DType;

    fn run(op: impl Into<Op>, x: &[f64]) -> Vec<f64> {
        let x = Array::from_f64(DType::Float64, &[x.len()], x.to_vec()).unwrap();
        apply(&op.into(), &[Some(&x)]).unwrap()[0].to_f64()
    }

    fn close(got: &[f64], want: &[f64]) -> bool {
        got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() <= 1e-12 * b.abs().max(1.0))
    }

    const TABLE: &[(Unary, [f64; 4])] = &[
        (Unary::Relu, [0.0, 0.0, 0.0, 2.5]),
        (Unary::Relu6, [0.0, 0.0, 0.0, 2.5]),
        (Unary::Sigmoid, [0.01098694263059318, 0.3775406687981454, 0.5, 0.9241418199787566]),
        (Unary::Tanh, [-0.9997532108480275, -0.4621171572600098, 0.0, 0.9866142981514303]),
        (Unary::Softplus, [0.011047744848593817, 0.4740769841801067, std::f64::consts::LN_2, 2.5788897342925496]),
        (Unary::Softsign, [-0.8181818181818182, -0.3333333333333333, 0.0, 0.7142857142857143]),
        (Unary::Selu, [-1.7385686213560172, -0.6917581878028713, 0.0, 2.626752468388701]),
        (Unary::Silu, [-0.04944124183766931, -0.1887703343990727, 0.0, 2.3103545499468914]),
        (Unary::Mish, [-0.049712829307341215, -0.22074377465173, 0.0, 2.471392304557881]),
        (Unary::HardSigmoid, [0.0, 0.4166666666666667, 0.5, 0.9166666666666666]),
        (Unary::HardSwish, [0.0, -0.20833333333333334, 0.0, 2.2916666666666665]),
        (Unary::Exp, [0.011108996538242306, 0.6065306597126334, 1.0, 12.182493960703473]),
        (Unary::Expm1, [-0.9888910034617577, -0.3934693402873666, 0.0, 11.182493960703473]),
        (Unary::Square, [20.25, 0.25, 0.0, 6.25]),
        (Unary::Neg, [4.5, 0.5, 0.0, -2.5]),
        (Unary::Abs, [4.5, 0.5, 0.0, 2.5]),
        (Unary::Sign, [-1.0, -1.0, 0.0, 1.0]),
        (Unary::Floor, [-5.0, -1.0, 0.0, 2.0]),
        (Unary::Ceil, [-4.0, 0.0, 0.0, 3.0]),
        (Unary::Round, [-4.0, 0.0, 0.0, 2.0]),
        (Unary::Sin, [0.977530117665097, -0.479425538604203, 0.0, 0.5984721441039565]),
        (Unary::Cos, [-0.2107957994307797, 0.8775825618903728, 1.0, -0.8011436155469337]),
        (Unary::Tan, [-4.637332054551185, -0.5463024898437905, 0.0, -0.7470222972386603]),
        (Unary::Atan, [-1.3521273809209546, -0.4636476090008061, 0.0, 1.1902899496825317]),
        (Unary::Sinh, [-45.003011151991785, -0.5210953054937474, 0.0, 6.0502044810397875]),
        (Unary::Cosh, [45.014120148530026, 1.1276259652063807, 1.0, 6.132289479663686]),
        (Unary::Asinh, [-2.209347708615334, -0.48121182505960347, 0.0, 1.6472311463710958]),
        (Unary::Erf, [-0.9999999998033839, -0.5204998778130465, 0.0, 0.999593047982555]),
    ];

    #[test]
    fn functions_agree_with_pytorch() {
        for (op, want) in TABLE {
            let got = run(*op, &[-4.5, -0.5, 0.0, 2.5]);
            assert!(close(&got, want), "{op:?}: {got:?} and not {want:?}");
        }
    }

    #[test]
    fn parametrised_functions_agree_with_pytorch() {
        let cases: &[(Op, [f64; 4])] = &[
            ((LeakyRelu { alpha: 0.25 }).into(), [-1.125, -0.125, 0.0, 2.5]),
            ((Elu { alpha: 0.5 }).into(), [-0.49444550173087887, -0.1967346701436833, 0.0, 2.5]),
            (
                (Gelu { approximate: false }).into(),
                [-1.5289529061324192e-05, -0.15426876936299344, 0.0, 2.4844758366855597],
            ),
            (
                (Gelu { approximate: true }).into(),
                [-5.136737411925996e-06, -0.15428599017485606, 0.0, 2.484915733910001],
            ),
            ((Clip { min: Some(-1.0), max: Some(2.0) }).into(), [-1.0, -0.5, 0.0, 2.0]),
            ((Clip { min: None, max: Some(-1.0) }).into(), [-4.5, -1.0, -1.0, -1.0]),
            (
                (Softmax { axis: 0 }).into(),
                [0.0008049919549035519, 0.04395107152929821, 0.07246306650041677, 0.8827808700153814],
            ),
            (
                (LogSoftmax { axis: 0 }).into(),
                [-7.124678274504281, -3.1246782745042814, -2.6246782745042814, -0.12467827450428132],
            ),
        ];
        for (op, want) in cases {
            let got = run(op.clone(), &[-4.5, -0.5, 0.0, 2.5]);
            assert!(close(&got, want), "{op:?}: {got:?} and not {want:?}");
        }
    }

    #[test]
    fn nothing_overflows_and_nan_passes() {
        assert_eq!(run(Unary::Sigmoid, &[-1000., 1000.]), [0., 1.]);
        assert_eq!(run(Unary::Softplus, &[-1000., 1000.]), [0., 1000.]);
        assert_eq!(run(Softmax { axis: 0 }, &[1000., 1000.]), [0.5, 0.5]);
        for op in [Unary::Relu, Unary::Relu6, Unary::Softplus, Unary::Sign, Unary::Sigmoid] {
            assert!(run(op, &[f64::NAN])[0].is_nan(), "{op:?}");
        }
        assert_eq!(run(Unary::IsNan, &[f64::NAN, 1.0]), [1., 0.]);
    }

    #[test]
    fn whole_numbers_stay_whole() {
        let x = Array::from_i64(&[3], &[-7, 0, 9]).unwrap();
        let relu6 = apply(&Unary::Relu6.into(), &[Some(&x)]).unwrap();
        assert_eq!(relu6[0], Array::from_i64(&[3], &[0, 0, 6]).unwrap());
        assert!(apply(&Unary::Exp.into(), &[Some(&x)]).unwrap_err().contains("real"));
    }

    #[test]
    fn slopes_follow_the_channels() {
        let x = Array::from_f32(&[1, 2, 2], &[-1., -2., -3., 4.]).unwrap();
        let slope = Array::from_f32(&[2], &[0.5, 10.]).unwrap();
        let run = |layout| apply(&PRelu { layout }.into(), &[Some(&x), Some(&slope)]).unwrap()[0].to_f64();
        assert_eq!(run(Layout::ChannelsFirst), [-0.5, -1., -30., 4.]);
        assert_eq!(run(Layout::ChannelsLast), [-0.5, -20., -1.5, 4.]);
    }
}
