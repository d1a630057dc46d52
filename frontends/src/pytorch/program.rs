//! The JSON of exported programs (`torch/_export/serde/schema.py`): the parts that say what is computed.
//!
//! Unions are objects with one entry whose key says the kind: `{"as_tensor": {"name": "x"}}`.

use std::collections::{BTreeMap, HashMap};

use modelport_ir::DType;
use serde::Deserialize;
use serde_json::Value as Json;

/// A whole program.
#[derive(Debug, Deserialize)]
pub struct Program {
    /// The graph with its signature.
    pub graph_module: GraphModule,
}

/// A graph with its signature.
#[derive(Debug, Deserialize)]
pub struct GraphModule {
    /// The graph.
    pub graph: Graph,
    /// What its inputs and outputs are.
    pub signature: Signature,
    /// All modules that were called, with the names of the network's inputs.
    #[serde(default)]
    pub module_call_graph: Vec<ModuleCall>,
}

/// One module that was called.
#[derive(Debug, Deserialize)]
pub struct ModuleCall {
    /// Its path.
    pub fqn: String,
    /// What it takes and gives, for the network itself.
    #[serde(default)]
    pub signature: Option<CallSignature>,
}

/// What a module takes and gives.
#[derive(Debug, Deserialize)]
pub struct CallSignature {
    /// The structure of the outputs, as JSON in a text.
    #[serde(default)]
    pub out_spec: String,
}

/// A graph.
#[derive(Debug, Deserialize)]
pub struct Graph {
    /// In the order in which they are computed.
    pub nodes: Vec<Node>,
    /// The values that are results.
    pub outputs: Vec<Union>,
    /// Types and shapes of all tensors.
    #[serde(default)]
    pub tensor_values: HashMap<String, TensorMeta>,
}

/// A value of one of several kinds.
pub type Union = BTreeMap<String, Json>;

/// One call.
#[derive(Debug, Deserialize)]
pub struct Node {
    /// What is called: `torch.ops.aten.conv2d.default`.
    pub target: String,
    /// The arguments that do not have their defaults.
    pub inputs: Vec<NamedArgument>,
    /// The names of what it gives.
    pub outputs: Vec<Union>,
    /// Where it came from.
    #[serde(default)]
    pub metadata: HashMap<String, Json>,
}

/// An argument by its name.
#[derive(Debug, Deserialize)]
pub struct NamedArgument {
    /// The name in the operator's schema.
    pub name: String,
    /// The value.
    pub arg: Union,
}

/// Type and shape of a tensor.
#[derive(Debug, Deserialize)]
pub struct TensorMeta {
    /// A number of `ScalarType`: see [`dtype`].
    pub dtype: i64,
    /// Sizes: `as_int` or `as_expr`.
    pub sizes: Vec<Union>,
    /// Steps in elements.
    #[serde(default)]
    pub strides: Vec<Union>,
    /// Where the first element is.
    #[serde(default)]
    pub storage_offset: Option<Union>,
}

/// What the inputs and outputs of a graph are.
#[derive(Debug, Deserialize)]
pub struct Signature {
    /// Parameters, buffers, constants and inputs, in the order of the graph's inputs.
    pub input_specs: Vec<Union>,
    /// Results and changed buffers, in the order of the graph's outputs.
    #[serde(default)]
    pub output_specs: Vec<Union>,
}

/// Where weights are in the archive.
#[derive(Debug, Deserialize)]
pub struct Payloads {
    /// By the weight's name.
    pub config: BTreeMap<String, Payload>,
}

/// One weight in the archive.
#[derive(Debug, Deserialize)]
pub struct Payload {
    /// The file's name in its folder.
    pub path_name: String,
    /// Whether it was pickled.
    #[serde(default)]
    pub use_pickle: bool,
    /// Type, shape and strides.
    #[serde(default)]
    pub tensor_meta: Option<TensorMeta>,
}

/// The element type of this number in the archive (not that of `c10::ScalarType`).
pub fn dtype(code: i64) -> Option<DType> {
    Some(match code {
        1 => DType::UInt8,
        2 => DType::Int8,
        3 => DType::Int16,
        4 => DType::Int32,
        5 => DType::Int64,
        6 => DType::Float16,
        7 => DType::Float32,
        8 => DType::Float64,
        12 => DType::Bool,
        13 => DType::BFloat16,
        _ => return None,
    })
}

/// A size as the program has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Size {
    /// A number.
    Known(i64),
    /// A factor, the name of a free size, and the size that it had when the program was made.
    Free(i64, String, Option<i64>),
    /// A larger expression, and the size that it had.
    Other(Option<i64>),
}

impl Size {
    /// The size when the program was made.
    pub fn example(&self) -> Option<i64> {
        match self {
            Size::Known(size) => Some(*size),
            Size::Free(_, _, hint) | Size::Other(hint) => *hint,
        }
    }
}

/// Reads a size: `{"as_int": 3}`, or `{"as_expr": {"expr_str": "s17", "hint": {"as_int": 2}}}` with the expression
/// `s17`, `2*s17`, `Symbol('s17', …)` or `Mul(Integer(2), Symbol('s17', …))`.
pub fn size(union: &Union) -> Size {
    if let Some(int) = union.get("as_int").and_then(Json::as_i64) {
        return Size::Known(int);
    }
    let Some(expr) = union.get("as_expr") else { return Size::Other(None) };
    let hint = expr.get("hint").and_then(|hint| hint.get("as_int")).and_then(Json::as_i64);
    let text = expr.get("expr_str").and_then(Json::as_str).unwrap_or_default();
    match factored(text) {
        Some((factor, name)) => Size::Free(factor, name.to_owned(), hint),
        None => Size::Other(hint),
    }
}

fn factored(text: &str) -> Option<(i64, &str)> {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let symbol = |text: &'_ str| -> Option<(usize, usize)> {
        let start = text.find("Symbol('")? + 8;
        Some((start, start + text.get(start..)?.find('\'')?))
    };
    if let Some(rest) = text.strip_prefix("Mul(Integer(") {
        let (factor, rest) = rest.split_once("), ")?;
        let (start, end) = symbol(rest)?;
        return (rest.matches("Symbol(").count() == 1).then_some((factor.parse().ok()?, rest.get(start..end)?));
    }
    if text.starts_with("Symbol('") {
        let (start, end) = symbol(text)?;
        return Some((1, text.get(start..end)?));
    }
    if let Some((factor, name)) = text.split_once('*') {
        return is_name(name).then_some((factor.parse().ok()?, name));
    }
    (is_name(text) && text.parse::<i64>().is_err()).then_some((1, text))
}

/// The modules around a node, the network first: path and class, from `key,path,class;…`.
pub fn modules(stack: &str) -> Vec<(String, String)> {
    let module = |entry: &str| {
        let mut fields = entry.splitn(3, ',').skip(1);
        let (path, class) = (fields.next()?, fields.next()?);
        let path = path.strip_prefix("L['self']").unwrap_or(path).trim_start_matches('.');
        // A module that is called again has the number of the call behind its path.
        let path = path.split_once('@').map_or(path, |(path, _)| path);
        let class = class.rsplit('.').next().unwrap_or(class);
        (!path.starts_with("_empty_nn_module_stack")).then(|| (path.to_owned(), class.to_owned()))
    };
    stack.split(';').filter_map(module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_all_versions() {
        let free = |text: &str| {
            let json = serde_json::json!({"as_expr": {"expr_str": text, "hint": {"as_int": 4}}});
            size(&serde_json::from_value(json).unwrap())
        };
        assert_eq!(free("s17"), Size::Free(1, "s17".to_owned(), Some(4)));
        assert_eq!(free("2*s0"), Size::Free(2, "s0".to_owned(), Some(4)));
        assert_eq!(free("Symbol('s17', positive=True, integer=True)"), Size::Free(1, "s17".to_owned(), Some(4)));
        assert_eq!(free("Mul(Integer(2), Symbol('s1', integer=True))"), Size::Free(2, "s1".to_owned(), Some(4)));
        assert_eq!(free("s17 + 1"), Size::Other(Some(4)));
    }

    #[test]
    fn module_stacks() {
        let stack = "L__self__,,__main__.Net;L__self___layer1_0,layer1.0@1,torchvision.models.resnet.BasicBlock";
        let want = [("", "Net"), ("layer1.0", "BasicBlock")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(modules(stack), want);
    }
}
