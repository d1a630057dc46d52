//! The same in `tf.keras` 2.12 to 2.15, which has no `keras.ops`: functions of TensorFlow in their place.

use crate::python::{Arg, Expr, Lit};

/// A function of `keras.ops`, the one of TensorFlow that is the same, and arguments with other names there.
const FUNCTIONS: &[(&str, &str)] = &[
    ("mean", "reduce_mean"),
    ("sum", "reduce_sum"),
    ("max", "reduce_max"),
    ("min", "reduce_min"),
    ("prod", "reduce_prod"),
    ("all", "reduce_all"),
    ("any", "reduce_any"),
    ("var", "math.reduce_variance"),
    ("logsumexp", "reduce_logsumexp"),
    ("top_k", "math.top_k"),
    ("take", "gather"),
    ("concatenate", "concat"),
    ("flip", "reverse"),
    ("clip", "clip_by_value"),
    ("arctan2", "atan2"),
    ("arcsin", "asin"),
    ("arccos", "acos"),
    ("arctan", "atan"),
    ("arcsinh", "asinh"),
    ("arccosh", "acosh"),
    ("arctanh", "atanh"),
    ("log", "math.log"),
    ("log1p", "math.log1p"),
    ("expm1", "math.expm1"),
    ("erf", "math.erf"),
    ("rsqrt", "math.rsqrt"),
    ("ceil", "math.ceil"),
    ("isnan", "math.is_nan"),
    ("isinf", "math.is_inf"),
    ("isfinite", "math.is_finite"),
    ("floor_divide", "math.floordiv"),
    ("mod", "math.floormod"),
    ("logical_xor", "math.logical_xor"),
    ("bitwise_and", "bitwise.bitwise_and"),
    ("bitwise_or", "bitwise.bitwise_or"),
    ("bitwise_xor", "bitwise.bitwise_xor"),
    ("bitwise_not", "bitwise.invert"),
    ("cumsum", "cumsum"),
    ("log_softmax", "nn.log_softmax"),
    ("gelu", "nn.gelu"),
    ("relu6", "nn.relu6"),
    ("convert_to_tensor", "constant"),
    ("full", "fill"),
    ("arange", "range"),
    ("average_pool", "nn.avg_pool1d"),
    ("conv", "nn.convolution"),
];

/// The name of a function in TensorFlow.
fn function(name: &str) -> String {
    let known = FUNCTIONS.iter().find(|(keras, _)| *keras == name);
    format!("tf.{}", known.map_or(name, |(_, tensorflow)| tensorflow))
}

/// An expression of Keras 3 in TensorFlow's words.
pub fn expression(expr: &Expr) -> Expr {
    expr.rewrite(&mut |e| {
        let Expr::Call(callee, args) = e else { return None };
        let Expr::Name(name) = callee.as_ref() else { return None };
        let mut args: Vec<Arg> = args.iter().map(|arg| Arg { value: expression(&arg.value), ..arg.clone() }).collect();
        if name == "layers.LeakyReLU" {
            args.iter_mut().for_each(|arg| arg.name = arg.name.take().map(|_| "alpha".to_owned()));
            return Some(Expr::Call(callee.clone(), args));
        }
        let name = name.strip_prefix("ops.")?;
        match name {
            // Along one axis, which is a number; TensorFlow wants a list, or one after the other.
            "flip" => args.iter_mut().for_each(as_list),
            "expand_dims" => return Some(expand_dims(args)),
            "reshape" => rename(&mut args, "newshape", "shape"),
            "transpose" => rename(&mut args, "axes", "perm"),
            "tile" => rename(&mut args, "repeats", "multiples"),
            "pad" => rename(&mut args, "pad_width", "paddings"),
            "split" => return Some(split(args)),
            "clip" => {
                rename(&mut args, "x_min", "clip_value_min");
                rename(&mut args, "x_max", "clip_value_max");
            }
            "arange" => {
                rename(&mut args, "stop", "limit");
                rename(&mut args, "step", "delta");
            }
            "full" => {
                let dtype = args.pop();
                if let Some(dtype) = dtype.filter(|dtype| !dtype.is_default()) {
                    let filled = Expr::call("tf.fill", args);
                    return Some(Expr::call("tf.cast", vec![Arg::new(filled), Arg::new(dtype.value)]));
                }
            }
            "average_pool" => {
                rename(&mut args, "pool_size", "ksize");
                let valid = Expr::slot("padding", Lit::Str("VALID".to_owned()));
                args.push(Arg::keyword("padding", valid, None));
            }
            "conv" => rename(&mut args, "dilation_rate", "dilations"),
            _ => {}
        }
        Some(Expr::call(&function(name), args))
    })
}

fn rename(args: &mut [Arg], from: &str, to: &str) {
    if let Some(arg) = args.iter_mut().find(|arg| arg.name.as_deref() == Some(from)) {
        arg.name = Some(to.to_owned());
    }
}

fn as_list(arg: &mut Arg) {
    if let (Some("axis"), Expr::Slot(slot)) = (arg.name.as_deref(), &arg.value)
        && let Lit::Int(_) = slot.value
    {
        arg.value = Expr::List(vec![arg.value.clone()]);
    }
}

/// One axis at a time, the first first.
fn expand_dims(mut args: Vec<Arg>) -> Expr {
    let axes = args.iter().position(|arg| arg.name.as_deref() == Some("axis"));
    if let Some(at) = axes
        && let Expr::Slot(slot) = &args[at].value
        && let Lit::Tuple(axes) = &slot.value
        && args.len() == 2
    {
        let axes = axes.clone();
        let x = args.remove(1 - at).value;
        let one = |x: Expr, axis: &Lit| {
            let axis = Arg::keyword("axis", Expr::slot("axis", axis.clone()), None);
            Expr::call("tf.expand_dims", vec![Arg::new(x), axis])
        };
        return axes.iter().fold(x, one);
    }
    Expr::call("tf.expand_dims", args)
}

/// TensorFlow takes sizes where Keras takes ends: only equal parts say the same.
fn split(mut args: Vec<Arg>) -> Expr {
    rename(&mut args, "indices_or_sections", "num_or_size_splits");
    for arg in &mut args {
        if let (Some("num_or_size_splits"), Expr::List(ends)) = (arg.name.as_deref(), &arg.value) {
            let mut from: Option<&Expr> = None;
            let mut sizes: Vec<Expr> = Vec::with_capacity(ends.len() + 1);
            for end in ends {
                sizes.push(from.map_or_else(|| end.clone(), |from| difference(end, from)));
                from = Some(end);
            }
            sizes.push(Expr::slot("size", Lit::Int(-1)));
            arg.value = Expr::List(sizes);
        }
    }
    Expr::call("tf.split", args)
}

fn difference(a: &Expr, b: &Expr) -> Expr {
    match (a, b) {
        (Expr::Slot(x), Expr::Slot(y)) => match (&x.value, &y.value) {
            (Lit::Int(x), Lit::Int(y)) => Expr::slot("size", Lit::Int(x - y)),
            _ => a.clone().binary("-", b.clone()),
        },
        _ => a.clone().binary("-", b.clone()),
    }
}

/// A piece of code in TensorFlow's words.
pub fn text(code: &str) -> String {
    code.replace("ops.", "tf.")
}
