//! The messages of `proto/graph.proto`, binary by prost and JSON by serde (protobuf's mapping, original field names).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::json::{bytes, bytes_list, enumeration, enumeration_list, is_default, number, number_list, wide, wide_list};

/// Attributes of a node, by name.
pub(crate) type Attributes = BTreeMap<String, AttrValue>;

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GraphDef {
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node: Vec<NodeDef>,
    #[prost(int32, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub version: i32,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NodeDef {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub op: String,
    #[prost(string, repeated, tag = "3")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<String>,
    #[prost(btree_map = "string, message", tag = "4")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attr: Attributes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AttrValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Value {
    #[prost(message, tag = "1")]
    List(ListValue),
    #[prost(bytes, tag = "2")]
    #[serde(with = "bytes")]
    S(Vec<u8>),
    #[prost(int64, tag = "3")]
    #[serde(with = "wide")]
    I(i64),
    #[prost(float, tag = "4")]
    #[serde(with = "number")]
    F(f32),
    #[prost(bool, tag = "5")]
    B(bool),
    #[prost(int32, tag = "6")]
    #[serde(with = "enumeration")]
    Type(i32),
    #[prost(message, tag = "7")]
    Shape(TensorShape),
    #[prost(message, tag = "8")]
    Tensor(LiteralTensor),
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ListValue {
    #[prost(bytes = "vec", repeated, tag = "2")]
    #[serde(with = "bytes_list", skip_serializing_if = "Vec::is_empty")]
    pub s: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "3")]
    #[serde(with = "wide_list", skip_serializing_if = "Vec::is_empty")]
    pub i: Vec<i64>,
    #[prost(float, repeated, tag = "4")]
    #[serde(with = "number_list", skip_serializing_if = "Vec::is_empty")]
    pub f: Vec<f32>,
    #[prost(bool, repeated, tag = "5")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub b: Vec<bool>,
    #[prost(int32, repeated, tag = "6")]
    #[serde(with = "enumeration_list", skip_serializing_if = "Vec::is_empty")]
    pub r#type: Vec<i32>,
    #[prost(message, repeated, tag = "7")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shape: Vec<TensorShape>,
    #[prost(message, repeated, tag = "8")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensor: Vec<LiteralTensor>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dim: Vec<DimDef>,
    #[prost(bool, tag = "3")]
    #[serde(alias = "unknownRank", skip_serializing_if = "is_default")]
    pub unknown_rank: bool,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DimDef {
    #[prost(int64, tag = "1")]
    #[serde(with = "wide", skip_serializing_if = "is_default")]
    pub size: i64,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LiteralTensor {
    #[prost(int32, tag = "1")]
    #[serde(with = "enumeration", skip_serializing_if = "is_default")]
    pub dtype: i32,
    #[prost(message, optional, tag = "2")]
    #[serde(alias = "tensorShape", skip_serializing_if = "Option::is_none")]
    pub tensor_shape: Option<TensorShape>,
    #[prost(int32, tag = "3")]
    #[serde(alias = "versionNumber", skip_serializing_if = "is_default")]
    pub version_number: i32,
    #[prost(bytes = "vec", tag = "4")]
    #[serde(alias = "tensorContent", with = "bytes", skip_serializing_if = "Vec::is_empty")]
    pub tensor_content: Vec<u8>,
    #[prost(int32, repeated, tag = "5")]
    #[serde(alias = "intVal", skip_serializing_if = "Vec::is_empty")]
    pub int_val: Vec<i32>,
    #[prost(int32, repeated, tag = "6")]
    #[serde(alias = "uintVal", skip_serializing_if = "Vec::is_empty")]
    pub uint_val: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    #[serde(alias = "int64Val", with = "wide_list", skip_serializing_if = "Vec::is_empty")]
    pub int64_val: Vec<i64>,
    #[prost(int64, repeated, tag = "8")]
    #[serde(alias = "uint64Val", with = "wide_list", skip_serializing_if = "Vec::is_empty")]
    pub uint64_val: Vec<i64>,
    #[prost(float, repeated, tag = "9")]
    #[serde(alias = "floatVal", with = "number_list", skip_serializing_if = "Vec::is_empty")]
    pub float_val: Vec<f32>,
    #[prost(double, repeated, tag = "10")]
    #[serde(alias = "doubleVal", with = "number_list", skip_serializing_if = "Vec::is_empty")]
    pub double_val: Vec<f64>,
    #[prost(bool, repeated, tag = "11")]
    #[serde(alias = "boolVal", skip_serializing_if = "Vec::is_empty")]
    pub bool_val: Vec<bool>,
    #[prost(bytes = "vec", repeated, tag = "12")]
    #[serde(alias = "stringVal", with = "bytes_list", skip_serializing_if = "Vec::is_empty")]
    pub string_val: Vec<Vec<u8>>,
}

/// The names of `DataType`, by number. On the wire an enum is an int32.
pub(crate) const DATA_TYPES: [&str; 16] = [
    "DT_UNDEFINED",
    "DT_INT8",
    "DT_INT16",
    "DT_INT32",
    "DT_INT64",
    "DT_UINT8",
    "DT_UINT16",
    "DT_UINT32",
    "DT_UINT64",
    "DT_FLOAT16",
    "DT_FLOAT32",
    "DT_FLOAT64",
    "DT_COMPLEX64",
    "DT_COMPLEX128",
    "DT_BOOL",
    "DT_STRING",
];

impl From<Value> for AttrValue {
    fn from(value: Value) -> Self {
        AttrValue { value: Some(value) }
    }
}

impl From<bool> for AttrValue {
    fn from(b: bool) -> Self {
        Value::B(b).into()
    }
}

impl From<i64> for AttrValue {
    fn from(i: i64) -> Self {
        Value::I(i).into()
    }
}

impl From<f32> for AttrValue {
    fn from(f: f32) -> Self {
        Value::F(f).into()
    }
}

impl From<&str> for AttrValue {
    fn from(s: &str) -> Self {
        Value::S(s.as_bytes().to_vec()).into()
    }
}

impl From<Vec<i64>> for AttrValue {
    fn from(i: Vec<i64>) -> Self {
        Value::List(ListValue { i, ..ListValue::default() }).into()
    }
}

impl From<Vec<String>> for AttrValue {
    fn from(s: Vec<String>) -> Self {
        let s = s.into_iter().map(String::into_bytes).collect();
        Value::List(ListValue { s, ..ListValue::default() }).into()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// A field of length-delimited content.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    /// A field that is one small varint.
    fn varint(number: u8, value: u8) -> Vec<u8> {
        vec![number << 3, value]
    }

    fn attribute(name: &str, value: &[u8]) -> Vec<u8> {
        field(4, &[field(1, name.as_bytes()), field(2, value)].concat())
    }

    #[test]
    fn field_numbers_are_mmdnns() {
        let minus_one = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let dim = field(2, &[minus_one.as_slice(), &field(2, b"N")].concat());
        let tensor = [
            varint(1, 3),
            field(2, &varint(3, 1)),
            varint(3, 1),
            field(4, b"raw"),
            field(5, &[5]),
            field(6, &[6]),
            field(7, &[7]),
            field(8, &[8]),
            field(9, &1.5f32.to_le_bytes()),
            field(10, &2.5f64.to_le_bytes()),
            field(11, &[1]),
            field(12, b"text"),
        ];
        let list = [
            field(2, b"a"),
            field(2, b"b"),
            field(3, &[1, 2]),
            field(4, &0.5f32.to_le_bytes()),
            field(5, &[1, 0]),
            field(6, &[9]),
            field(7, &dim),
            field(8, &varint(1, 2)),
        ];
        let node = [
            field(1, b"n"),
            field(2, b"Pad"),
            field(3, b"x:1"),
            attribute("list", &field(1, &list.concat())),
            attribute("s", &field(2, b"ok")),
            attribute("i", &varint(3, 7)),
            attribute("f", &[0x25, 0, 0, 0x80, 0x3f]),
            attribute("b", &varint(5, 1)),
            attribute("type", &varint(6, 10)),
            attribute("shape", &field(7, &dim)),
            attribute("tensor", &field(8, &tensor.concat())),
        ];
        let node = node.concat();
        // A node is longer than a length of one byte can say.
        let bytes = [vec![0x0a, node.len() as u8 | 0x80, (node.len() >> 7) as u8], node, varint(2, 3)].concat();

        let shape = TensorShape { dim: vec![DimDef { size: -1, name: "N".to_owned() }], unknown_rank: false };
        let tensor = LiteralTensor {
            dtype: 3,
            tensor_shape: Some(TensorShape { dim: vec![], unknown_rank: true }),
            version_number: 1,
            tensor_content: b"raw".to_vec(),
            int_val: vec![5],
            uint_val: vec![6],
            int64_val: vec![7],
            uint64_val: vec![8],
            float_val: vec![1.5],
            double_val: vec![2.5],
            bool_val: vec![true],
            string_val: vec![b"text".to_vec()],
        };
        let list = ListValue {
            s: vec![b"a".to_vec(), b"b".to_vec()],
            i: vec![1, 2],
            f: vec![0.5],
            b: vec![true, false],
            r#type: vec![9],
            shape: vec![shape.clone()],
            tensor: vec![LiteralTensor { dtype: 2, ..LiteralTensor::default() }],
        };
        let attr = [
            ("list", Value::List(list).into()),
            ("s", "ok".into()),
            ("i", 7i64.into()),
            ("f", 1.0f32.into()),
            ("b", true.into()),
            ("type", Value::Type(10).into()),
            ("shape", Value::Shape(shape).into()),
            ("tensor", Value::Tensor(tensor).into()),
        ];
        let attr = attr.into_iter().map(|(name, value): (&str, AttrValue)| (name.to_owned(), value)).collect();
        let node = NodeDef { name: "n".to_owned(), op: "Pad".to_owned(), input: vec!["x:1".to_owned()], attr };
        let graph = GraphDef { node: vec![node], version: 3 };
        assert_eq!(GraphDef::decode(bytes.as_slice()).unwrap(), graph);
        assert_eq!(GraphDef::decode(graph.encode_to_vec().as_slice()).unwrap(), graph);
        assert_eq!((DATA_TYPES[10], DATA_TYPES[15]), ("DT_FLOAT32", "DT_STRING"));
    }
}
