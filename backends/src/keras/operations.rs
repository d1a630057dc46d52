//! What functions of `keras.ops` are in the files of a model: classes of operations, and which of their arguments
//! belong to the operation rather than to its call.

/// An operation: its class, its module below `keras.src.ops`, and the arguments that its constructor takes.
pub struct Operation {
    /// The class.
    pub class: &'static str,
    /// `numpy`, `nn`, `core`, `math`.
    pub module: &'static str,
    /// Arguments of the constructor; others are those of the call.
    pub config: &'static [&'static str],
}

/// The operation of a function, by its name without `ops.`.
pub fn operation(function: &str) -> Option<Operation> {
    const REDUCE: &[&str] = &["axis", "keepdims"];
    const AXIS: &[&str] = &["axis"];
    let (class, module, config): (_, _, &[&str]) = match function {
        "mean" => ("Mean", "numpy", REDUCE),
        "sum" => ("Sum", "numpy", REDUCE),
        "max" => ("Max", "numpy", REDUCE),
        "min" => ("Min", "numpy", REDUCE),
        "prod" => ("Prod", "numpy", REDUCE),
        "all" => ("All", "numpy", REDUCE),
        "any" => ("Any", "numpy", REDUCE),
        "var" => ("Var", "numpy", REDUCE),
        "logsumexp" => ("Logsumexp", "math", REDUCE),
        "argmax" => ("Argmax", "numpy", REDUCE),
        "argmin" => ("Argmin", "numpy", REDUCE),
        "top_k" => ("TopK", "math", &["k"]),
        "matmul" => ("Matmul", "numpy", &[]),
        "einsum" => ("Einsum", "numpy", &["subscripts"]),
        "take" => ("Take", "numpy", AXIS),
        "take_along_axis" => ("TakeAlongAxis", "numpy", AXIS),
        "reshape" => ("Reshape", "numpy", &["newshape"]),
        "transpose" => ("Transpose", "numpy", &["axes"]),
        "squeeze" => ("Squeeze", "numpy", AXIS),
        "segment_sum" => ("SegmentSum", "math", &["num_segments"]),
        "scatter_update" => ("ScatterUpdate", "core", &[]),
        "expand_dims" => ("ExpandDims", "numpy", AXIS),
        "concatenate" => ("Concatenate", "numpy", AXIS),
        "stack" => ("Stack", "numpy", AXIS),
        "split" => ("Split", "numpy", &["indices_or_sections", "axis"]),
        "unstack" => ("Unstack", "core", &["num", "axis"]),
        "pad" => ("Pad", "numpy", &["pad_width", "mode"]),
        "tile" => ("Tile", "numpy", &["repeats"]),
        "broadcast_to" => ("BroadcastTo", "numpy", &["shape"]),
        "flip" => ("Flip", "numpy", AXIS),
        "cast" => ("Cast", "core", &["dtype"]),
        "cumsum" => ("Cumsum", "numpy", &["axis", "dtype"]),
        "clip" => ("Clip", "numpy", &["x_min", "x_max"]),
        "where" => ("Where", "numpy", &[]),
        "maximum" => ("Maximum", "numpy", &[]),
        "minimum" => ("Minimum", "numpy", &[]),
        "subtract" => ("Subtract", "numpy", &[]),
        "divide" => ("Divide", "numpy", &[]),
        "power" => ("Power", "numpy", &[]),
        "arctan2" => ("Arctan2", "numpy", &[]),
        "equal" => ("Equal", "numpy", &[]),
        "not_equal" => ("NotEqual", "numpy", &[]),
        "less" => ("Less", "numpy", &[]),
        "less_equal" => ("LessEqual", "numpy", &[]),
        "greater" => ("Greater", "numpy", &[]),
        "greater_equal" => ("GreaterEqual", "numpy", &[]),
        "logical_and" => ("LogicalAnd", "numpy", &[]),
        "logical_or" => ("LogicalOr", "numpy", &[]),
        "logical_xor" => ("LogicalXor", "numpy", &[]),
        "logical_not" => ("LogicalNot", "numpy", &[]),
        "bitwise_and" => ("BitwiseAnd", "numpy", &[]),
        "bitwise_or" => ("BitwiseOr", "numpy", &[]),
        "bitwise_xor" => ("BitwiseXor", "numpy", &[]),
        "bitwise_not" => ("BitwiseNot", "numpy", &[]),
        "floor_divide" => ("FloorDivide", "numpy", &[]),
        "mod" => ("Mod", "numpy", &[]),
        "zeros_like" => ("ZerosLike", "numpy", &["dtype"]),
        "ones_like" => ("OnesLike", "numpy", &["dtype"]),
        "log_softmax" => ("LogSoftmax", "nn", AXIS),
        "gelu" => ("Gelu", "nn", &["approximate"]),
        "relu6" => ("Relu6", "nn", &[]),
        "average_pool" => ("AveragePool", "nn", &["pool_size", "strides"]),
        "conv" => ("Conv", "nn", &["strides", "dilation_rate"]),
        "erf" => ("Erf", "math", &[]),
        "rsqrt" => ("Rsqrt", "math", &[]),
        "exp" => ("Exp", "numpy", &[]),
        "expm1" => ("Expm1", "numpy", &[]),
        "log" => ("Log", "numpy", &[]),
        "log1p" => ("Log1p", "numpy", &[]),
        "sqrt" => ("Sqrt", "numpy", &[]),
        "square" => ("Square", "numpy", &[]),
        "abs" => ("Absolute", "numpy", &[]),
        "sign" => ("Sign", "numpy", &[]),
        "floor" => ("Floor", "numpy", &[]),
        "ceil" => ("Ceil", "numpy", &[]),
        "round" => ("Round", "numpy", &[]),
        "sin" => ("Sin", "numpy", &[]),
        "cos" => ("Cos", "numpy", &[]),
        "tan" => ("Tan", "numpy", &[]),
        "arcsin" => ("Arcsin", "numpy", &[]),
        "arccos" => ("Arccos", "numpy", &[]),
        "arctan" => ("Arctan", "numpy", &[]),
        "sinh" => ("Sinh", "numpy", &[]),
        "cosh" => ("Cosh", "numpy", &[]),
        "arcsinh" => ("Arcsinh", "numpy", &[]),
        "arccosh" => ("Arccosh", "numpy", &[]),
        "arctanh" => ("Arctanh", "numpy", &[]),
        "isnan" => ("Isnan", "numpy", &[]),
        "isinf" => ("Isinf", "numpy", &[]),
        "isfinite" => ("Isfinite", "numpy", &[]),
        _ => return None,
    };
    Some(Operation { class, module, config })
}

/// The operation of an operator between values.
pub fn operator(symbol: &str) -> Option<&'static str> {
    Some(match symbol {
        "+" => "Add",
        "-" => "Subtract",
        "*" => "Multiply",
        "/" => "TrueDivide",
        "**" => "Power",
        _ => return None,
    })
}
