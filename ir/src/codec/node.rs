//! Between an operator and its node in the file: MMdnn's words where it has them, else the operator's own fields.
//!
//! What is written is read back at once; a field that does not come back is written as it is, with an underscore. So
//! nothing is lost, whatever MMdnn's words can say, and nothing is said twice.

use super::attributes::{OUTPUT_SHAPES, axis, shapes};
use super::decode::{MAX_OUTPUTS, decode};
use super::encode::encode;
use super::fields::{KIND, from_fields, to_fields};
use super::proto::{AttrValue, Attributes, NodeDef, Value};
use super::{CONSTANTS, SLOTS, names};
use crate::graph::ValueInfo;
use crate::layout::Layout;
use crate::op::{Conv, ConvTranspose, Dense, Gather, Op, Operator, PRelu, Pads, Slot};

/// The node of an operator: its name in the file and its attributes, without name and inputs. `stored` says which
/// inputs are weights in the `.npy`.
///
/// # Errors
/// When a field is of a type that attributes do not have.
pub(crate) fn to_node(
    op: &Op,
    inputs: &[Option<&ValueInfo>],
    outputs: &[ValueInfo],
    stored: &[bool],
) -> Result<NodeDef, String> {
    let (family, fields) = to_fields(op)?;
    let output_shapes = shapes(outputs.iter().map(|info| &info.shape));
    let node = |op: &str, mut attr: Attributes| {
        attr.insert(OUTPUT_SHAPES.to_owned(), output_shapes.clone());
        NodeDef { name: String::new(), op: op.to_owned(), input: Vec::new(), attr }
    };
    if let Some((name, attr)) = encode(op, inputs, stored) {
        let mut def = node(name, attr);
        if let Ok(read) = read(&def, inputs)
            && let Ok((read_family, read_fields)) = to_fields(&read)
            && family == read_family
        {
            let changed = fields.iter().filter(|(name, value)| read_fields.get(*name) != Some(value));
            let absent = read_fields.keys().filter(|name| !fields.contains_key(*name));
            let overrides: Vec<(String, AttrValue)> = changed
                .map(|(name, value)| (format!("_{name}"), value.clone()))
                .chain(absent.map(|name| (format!("_{name}"), AttrValue::default())))
                .collect();
            def.attr.extend(overrides);
            return Ok(def);
        }
    }
    let mut fields = fields;
    let name = names::name(op, &mut fields);
    let def = node(&name, fields.clone());
    // The same name may be one of MMdnn's, with attributes of its own.
    match read(&def, inputs) {
        Ok(read) if to_fields(&read)? == to_fields(op)? => Ok(def),
        _ => Ok(node(&name, fields.into_iter().map(|(name, value)| (format!("_{name}"), value)).collect())),
    }
}

/// The operator of a node. `inputs` are by slot, weights included.
///
/// # Errors
/// One sentence: which attribute is missing or does not fit.
pub(crate) fn read(def: &NodeDef, inputs: &[Option<&ValueInfo>]) -> Result<Op, String> {
    let overrides: Attributes = def
        .attr
        .iter()
        .filter(|(name, _)| ![OUTPUT_SHAPES, SLOTS, CONSTANTS].contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name.strip_prefix('_')?.to_owned(), value.clone())))
        .collect();
    match decode(def, inputs) {
        Some(Ok(op)) if overrides.is_empty() => Ok(op),
        Some(Ok(op)) => {
            let (family, mut fields) = to_fields(&op)?;
            fields.extend(overrides);
            from_fields(family, &fields)
        }
        Some(Err(error)) => own(def, inputs, &overrides).map_err(|_| error),
        None => {
            let mut fields = def.attr.clone();
            fields.extend(overrides);
            own(def, inputs, &fields)
        }
    }
}

/// Whether the name of a node's operator is one of ours or MMdnn's.
pub(crate) fn is_known(def: &NodeDef) -> bool {
    names::family(&def.op).is_some() || decode(def, &[]).is_some()
}

/// The operator of a node whose attributes are the operator's fields.
fn own(def: &NodeDef, inputs: &[Option<&ValueInfo>], fields: &Attributes) -> Result<Op, String> {
    let (family, kind) = names::family(&def.op).ok_or_else(|| format!("'{}' is no operator", def.op))?;
    let mut fields = fields.clone();
    if let Some(kind) = kind {
        fields.insert(KIND.to_owned(), kind.clone());
    }
    complete(family, inputs, &mut fields)?;
    let op = from_fields(family, &fields)?;
    match &op {
        Op::Unpack(op) if op.count > MAX_OUTPUTS => Err(format!("{} outputs are too many", op.count)),
        _ => Ok(op),
    }
}

/// Fills in what MMdnn leaves out, and counts axes from the front.
fn complete(family: &str, inputs: &[Option<&ValueInfo>], fields: &mut Attributes) -> Result<(), String> {
    let Some(rank) = inputs.first().copied().flatten().map(|info| info.shape.rank()) else { return Ok(()) };
    let defaults: &[(&str, AttrValue)] = &match family {
        "Elu" => vec![("alpha", 1.0f32.into())],
        // TensorFlow's.
        "LeakyRelu" => vec![("alpha", 0.2f32.into())],
        "Softmax" | "LogSoftmax" => vec![("axis", (-1i64).into())],
        "Gather" => vec![("axis", 0i64.into()), ("batch_dims", 0i64.into())],
        "MatMul" => vec![("transpose_a", false.into()), ("transpose_b", false.into())],
        "Reduce" => {
            let keep_dims = fields.get("keepdims").cloned().unwrap_or_else(|| false.into());
            let all: Vec<i64> = (0..rank as i64).collect();
            vec![("keep_dims", keep_dims), ("axes", all.into())]
        }
        _ => Vec::new(),
    };
    for (name, value) in defaults {
        fields.entry((*name).to_owned()).or_insert_with(|| value.clone());
    }
    let list = match fields.get("axes").and_then(|axes| axes.value.as_ref()) {
        Some(Value::List(list)) => list.i.clone(),
        Some(Value::I(i)) => vec![*i],
        _ => Vec::new(),
    };
    if list.iter().any(|&i| i < 0) || matches!(fields.get("axes"), Some(AttrValue { value: Some(Value::I(_)) })) {
        let rank = if family == "Unsqueeze" { rank + list.len() } else { rank };
        let mut axes = list.iter().map(|&i| Ok(axis(i, rank)? as i64)).collect::<Result<Vec<_>, String>>()?;
        axes.sort_unstable();
        fields.insert("axes".to_owned(), axes.into());
    }
    if let Some(AttrValue { value: Some(Value::I(i)) }) = fields.get("axis").cloned() {
        let rank = if matches!(family, "OneHot" | "Pack") { rank + 1 } else { rank };
        // MMdnn's Keras reader says 3 when it means the last.
        let i = if family == "Concat" && i == 3 { i.min(rank as i64 - 1) } else { i };
        if i < 0 || family == "Concat" {
            fields.insert("axis".to_owned(), (axis(i, rank)? as i64).into());
        }
    }
    Ok(())
}

/// The slots of a node whose inputs may be weights in the `.npy`; for others they are inputs one after the other.
pub(crate) fn slots(def: &NodeDef) -> &'static [Slot] {
    let layout = Layout::ChannelsLast;
    match def.op.as_str() {
        "Conv" | "DepthwiseConv" => {
            Conv { strides: vec![], pads: Pads::none(0), dilations: vec![], groups: 1, layout }.slots()
        }
        "ConvTranspose" => ConvTranspose {
            strides: vec![],
            pads: Pads::none(0),
            output_padding: vec![],
            dilations: vec![],
            groups: 1,
            layout,
        }
        .slots(),
        "BatchNorm" => crate::op::BatchNorm { epsilon: 0.0, momentum: None, layout }.slots(),
        "FullyConnected" => Dense {}.slots(),
        "PRelu" => PRelu { layout }.slots(),
        "Embedding" | "Gather" => Gather { axis: 0, batch_dims: 0 }.slots(),
        _ => read(def, &[]).map_or(&[], |op| op.slots()),
    }
}
