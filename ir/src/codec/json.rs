//! Protobuf's JSON mapping of the types that JSON has not: wide integers are strings, bytes are base64, enums are names,
//! and numbers that are not finite are words. Read leniently: numbers for strings, any base64 alphabet, numbers of enums.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::proto::{AttrValue, DATA_TYPES, Value};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Serialize for AttrValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

impl<'de> Deserialize<'de> for AttrValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Oneof)
    }
}

/// At most one of the fields of [`Value`].
struct Oneof;

impl<'de> Visitor<'de> for Oneof {
    type Value = AttrValue;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an attribute's value, such as {\"i\": \"7\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AttrValue, A::Error> {
        let Some(key) = map.next_key::<String>()? else { return Ok(AttrValue::default()) };
        let value = Value::deserialize(MapAccessDeserializer::new(First { key: Some(key), rest: map }))?;
        Ok(value.into())
    }
}

/// A map whose first key was already read.
struct First<A> {
    key: Option<String>,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for First<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.key.take() {
            Some(key) => seed.deserialize(StringDeserializer::new(key)).map(Some),
            None => self.rest.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.rest.next_value_seed(seed)
    }
}

/// A number or a word: what a field may hold in JSON.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Scalar {
    Int(i64),
    Float(f64),
    Text(String),
}

macro_rules! list_of {
    ($list:ident, $item:ident, $type:ty) => {
        pub(crate) mod $list {
            use super::*;

            struct Item<'a>(&'a $type);

            impl Serialize for Item<'_> {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    $item::serialize(self.0, serializer)
                }
            }

            struct Owned($type);

            impl<'de> Deserialize<'de> for Owned {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    $item::deserialize(deserializer).map(Owned)
                }
            }

            pub(crate) fn serialize<S: Serializer>(items: &[$type], serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Item(item))?;
                }
                list.end()
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<$type>, D::Error> {
                Ok(Vec::<Owned>::deserialize(deserializer)?.into_iter().map(|item| item.0).collect())
            }
        }
    };
}

list_of!(bytes_list, bytes, Vec<u8>);
list_of!(wide_list, wide, i64);
list_of!(enumeration_list, enumeration, i32);

pub(crate) mod bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(bytes, &BASE64))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?.replace('-', "+").replace('_', "/");
        BASE64.decode(&text).map_err(|error| D::Error::custom(format!("'{text}' is no base64: {error}")))
    }
}

pub(crate) mod wide {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        match Scalar::deserialize(deserializer)? {
            Scalar::Int(value) => Ok(value),
            Scalar::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Ok(value as i64),
            Scalar::Float(value) => Err(D::Error::custom(format!("{value} is no integer"))),
            Scalar::Text(text) => text.parse().map_err(|_| D::Error::custom(format!("'{text}' is no integer"))),
        }
    }
}

pub(crate) mod number {
    use super::*;

    /// float32 or float64.
    pub(crate) trait Real: Copy + Serialize {
        fn wide(self) -> f64;
        fn narrow(value: f64) -> Self;
    }

    impl Real for f32 {
        fn wide(self) -> f64 {
            self.into()
        }
        fn narrow(value: f64) -> f32 {
            value as f32
        }
    }

    impl Real for f64 {
        fn wide(self) -> f64 {
            self
        }
        fn narrow(value: f64) -> f64 {
            value
        }
    }

    pub(crate) fn serialize<T: Real, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        match value.wide() {
            x if x.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            _ => value.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, T: Real, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        Ok(T::narrow(match Scalar::deserialize(deserializer)? {
            Scalar::Int(value) => value as f64,
            Scalar::Float(value) => value,
            Scalar::Text(text) => text.parse().map_err(|_| D::Error::custom(format!("'{text}' is no number")))?,
        }))
    }
}

pub(crate) mod number_list {
    use super::number::Real;
    use super::*;

    struct Item<T>(T);

    impl<T: Real> Serialize for Item<T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            number::serialize(&self.0, serializer)
        }
    }

    impl<'de, T: Real> Deserialize<'de> for Item<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            number::deserialize(deserializer).map(Item)
        }
    }

    pub(crate) fn serialize<T: Real, S: Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(items.iter().map(|&item| Item(item)))
    }

    pub(crate) fn deserialize<'de, T: Real, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        Ok(Vec::<Item<T>>::deserialize(deserializer)?.into_iter().map(|item| item.0).collect())
    }
}

pub(crate) mod enumeration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        match usize::try_from(*value).ok().and_then(|value| DATA_TYPES.get(value)) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_i32(*value),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        let unknown = |text: &str| D::Error::custom(format!("'{text}' is no element type"));
        match Scalar::deserialize(deserializer)? {
            Scalar::Int(value) => i32::try_from(value).map_err(|_| unknown(&value.to_string())),
            Scalar::Float(value) => Err(unknown(&value.to_string())),
            Scalar::Text(text) if text == "DT_BFLOAT16" => Ok(32),
            Scalar::Text(text) => DATA_TYPES
                .iter()
                .position(|name| *name == text)
                .and_then(|at| i32::try_from(at).ok())
                .ok_or_else(|| unknown(&text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::*;

    #[test]
    fn json_is_protobufs() {
        let shape = TensorShape {
            dim: vec![DimDef { size: -1, name: "N".to_owned() }, DimDef::default()],
            unknown_rank: false,
        };
        let list = ListValue { i: vec![1, -2], ..ListValue::default() };
        let attr = Attributes::from([
            ("i".to_owned(), 7i64.into()),
            ("zero".to_owned(), 0i64.into()),
            ("f".to_owned(), 0.001f32.into()),
            ("inf".to_owned(), f32::NEG_INFINITY.into()),
            ("s".to_owned(), "SAME".into()),
            ("b".to_owned(), false.into()),
            ("t".to_owned(), Value::Type(10).into()),
            ("u".to_owned(), Value::Type(32).into()),
            ("shape".to_owned(), Value::Shape(shape).into()),
            ("list".to_owned(), Value::List(list).into()),
            ("empty".to_owned(), AttrValue::default()),
        ]);
        let node = NodeDef { name: "n".to_owned(), op: "Pad".to_owned(), input: vec!["x:1".to_owned()], attr };
        let text = serde_json::to_string(&node).unwrap();
        assert_eq!(
            text,
            r#"{"name":"n","op":"Pad","input":["x:1"],"attr":{"b":{"b":false},"empty":{},"f":{"f":0.001},"i":{"i":"7"},"inf":{"f":"-Infinity"},"list":{"list":{"i":["1","-2"]}},"s":{"s":"U0FNRQ=="},"shape":{"shape":{"dim":[{"size":"-1","name":"N"},{}]}},"t":{"type":"DT_FLOAT32"},"u":{"type":32},"zero":{"i":"0"}}}"#
        );
        assert_eq!(serde_json::from_str::<NodeDef>(&text).unwrap(), node);
    }

    #[test]
    fn reading_is_lenient() {
        let text = r#"{"name":"n","attr":{"i":{"i":7},"f":{"f":1},"t":{"type":10},"s":{"s":"U0FNRQ"},
            "x":{"tensor":{"tensorShape":{"unknownRank":true},"int64Val":[1,"2"],"floatVal":[1,2.5,"NaN"]}}},"future":[1]}"#;
        let node: NodeDef = serde_json::from_str(text).unwrap();
        assert_eq!(node.attr["i"], 7i64.into());
        assert_eq!(node.attr["f"], 1.0f32.into());
        assert_eq!(node.attr["s"], "SAME".into());
        let Some(Value::Tensor(tensor)) = &node.attr["x"].value else { panic!() };
        assert_eq!((tensor.int64_val.as_slice(), &tensor.float_val[..2]), ([1, 2].as_slice(), [1.0, 2.5].as_slice()));
        let error = serde_json::from_str::<NodeDef>(r#"{"attr":{"i":{"i":"x"}}}"#).unwrap_err().to_string();
        assert!(error.contains("'x' is no integer"), "{error}");
    }
}
