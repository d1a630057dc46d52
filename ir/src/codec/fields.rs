//! Operators as attributes, for all operators at once: serde takes an operator's struct apart into named values and puts
//! it together again.
//!
//! Booleans, integers, reals, texts and lists of them become the attributes of those types; element types become `type`;
//! dimensions are texts (`N`, `16*N`, `7`, `?`). A field that is `None` has no attribute.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Deserialize, Serialize, ser};

use super::proto::{AttrValue, Attributes, DATA_TYPES, ListValue, Value};
use crate::op::Op;
use crate::tensor::DType;

/// The attribute that holds which one of a family of functions it is.
pub(crate) const KIND: &str = "kind";

/// An operator's family, and its fields as attributes. Families that are only a choice ([`Op::Unary`], [`Op::Binary`])
/// have it as [`KIND`].
///
/// # Errors
/// When a field is of a type that attributes do not have.
pub(crate) fn to_fields(op: &Op) -> Result<(&'static str, Attributes), String> {
    match op.serialize(ToTree).map_err(|error| error.0)? {
        Tree::Variant(family, content) => match *content {
            Tree::Fields(fields) => Ok((family, fields)),
            Tree::Leaf(kind) => Ok((family, Attributes::from([(KIND.to_owned(), (*kind).into())]))),
            _ => Err(format!("{family} has no fields")),
        },
        _ => Err("an operator has a family".to_owned()),
    }
}

/// The operator of a family with these fields; attributes that are no fields are passed over.
///
/// # Errors
/// One sentence: which field is missing or does not fit.
pub(crate) fn from_fields(family: &str, fields: &Attributes) -> Result<Op, String> {
    Op::deserialize(Source { family, fields }).map_err(|error| error.0)
}

#[derive(Debug)]
pub(crate) struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl ser::Error for Failed {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Failed(message.to_string())
    }
}

impl de::Error for Failed {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Failed(message.to_string())
    }
}

/// What serialization has made so far.
enum Tree {
    Nothing,
    Leaf(Box<Value>),
    Fields(Attributes),
    Variant(&'static str, Box<Tree>),
}

impl Tree {
    fn leaf(value: Value) -> Result<Tree, Failed> {
        Ok(Tree::Leaf(Box::new(value)))
    }
}

fn unsupported(what: &str) -> Failed {
    Failed(format!("{what} can't be an attribute"))
}

struct ToTree;

macro_rules! integers {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method(self, value: $type) -> Result<Tree, Failed> {
            i64::try_from(value).map_or_else(|_| Err(unsupported(&value.to_string())), |i| Tree::leaf(Value::I(i)))
        })*
    };
}

impl ser::Serializer for ToTree {
    type Ok = Tree;
    type Error = Failed;
    type SerializeSeq = ToList;
    type SerializeTuple = ToList;
    type SerializeTupleStruct = ser::Impossible<Tree, Failed>;
    type SerializeTupleVariant = ser::Impossible<Tree, Failed>;
    type SerializeMap = ser::Impossible<Tree, Failed>;
    type SerializeStruct = ToAttributes;
    type SerializeStructVariant = ser::Impossible<Tree, Failed>;

    integers! {
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
    }

    fn serialize_bool(self, value: bool) -> Result<Tree, Failed> {
        Tree::leaf(Value::B(value))
    }

    fn serialize_f32(self, value: f32) -> Result<Tree, Failed> {
        Tree::leaf(Value::F(value))
    }

    fn serialize_f64(self, value: f64) -> Result<Tree, Failed> {
        let narrow = value as f32;
        if value.is_nan() || f64::from(narrow) == value {
            self.serialize_f32(narrow)
        } else {
            Err(unsupported(&format!("{value}, which float32 has not,")))
        }
    }

    fn serialize_char(self, value: char) -> Result<Tree, Failed> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<Tree, Failed> {
        Tree::leaf(Value::S(value.as_bytes().to_vec()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Tree, Failed> {
        Tree::leaf(Value::S(value.to_vec()))
    }

    fn serialize_none(self) -> Result<Tree, Failed> {
        Ok(Tree::Nothing)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Tree, Failed> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Tree, Failed> {
        Ok(Tree::Nothing)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Tree, Failed> {
        Ok(Tree::Fields(Attributes::new()))
    }

    fn serialize_unit_variant(self, name: &'static str, _: u32, variant: &'static str) -> Result<Tree, Failed> {
        let dtype = DType::ALL.into_iter().find(|dtype| name == "DType" && dtype.name() == variant);
        match dtype {
            Some(dtype) => Tree::leaf(Value::Type(dtype as i32)),
            None => self.serialize_str(variant),
        }
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Tree, Failed> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Tree, Failed> {
        Ok(Tree::Variant(variant, Box::new(value.serialize(self)?)))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<ToList, Failed> {
        Ok(ToList(ListValue::default()))
    }

    fn serialize_tuple(self, _: usize) -> Result<ToList, Failed> {
        Ok(ToList(ListValue::default()))
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Failed> {
        Err(unsupported(name))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Failed> {
        Err(unsupported(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Failed> {
        Err(unsupported("a map"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<ToAttributes, Failed> {
        Ok(ToAttributes(Attributes::new()))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Failed> {
        Err(unsupported(variant))
    }
}

struct ToList(ListValue);

impl ser::SerializeSeq for ToList {
    type Ok = Tree;
    type Error = Failed;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        let Tree::Leaf(value) = value.serialize(ToTree)? else { return Err(unsupported("a list of structures")) };
        match *value {
            Value::I(i) => self.0.i.push(i),
            Value::F(f) => self.0.f.push(f),
            Value::B(b) => self.0.b.push(b),
            Value::S(s) => self.0.s.push(s),
            Value::Type(t) => self.0.r#type.push(t),
            _ => return Err(unsupported("a list of lists")),
        }
        Ok(())
    }

    fn end(self) -> Result<Tree, Failed> {
        Tree::leaf(Value::List(self.0))
    }
}

impl ser::SerializeTuple for ToList {
    type Ok = Tree;
    type Error = Failed;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Tree, Failed> {
        ser::SerializeSeq::end(self)
    }
}

struct ToAttributes(Attributes);

impl ser::SerializeStruct for ToAttributes {
    type Ok = Tree;
    type Error = Failed;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Failed> {
        match value.serialize(ToTree)? {
            Tree::Nothing => {}
            Tree::Leaf(value) => drop(self.0.insert(key.to_owned(), (*value).into())),
            _ => return Err(unsupported(&format!("the structure in '{key}'"))),
        }
        Ok(())
    }

    fn end(self) -> Result<Tree, Failed> {
        Ok(Tree::Fields(self.0))
    }
}

/// An operator to be: its family, then its fields.
#[derive(Clone, Copy)]
struct Source<'a> {
    family: &'a str,
    fields: &'a Attributes,
}

impl<'de> de::Deserializer<'de> for Source<'de> {
    type Error = Failed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> de::EnumAccess<'de> for Source<'de> {
    type Error = Failed;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Failed> {
        Ok((seed.deserialize(StrDeserializer::<Failed>::new(self.family))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Source<'de> {
    type Error = Failed;

    fn unit_variant(self) -> Result<(), Failed> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Failed> {
        seed.deserialize(Body(self.fields))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Failed> {
        Err(unsupported(self.family))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Failed> {
        Err(unsupported(self.family))
    }
}

/// The fields of an operator.
struct Body<'a>(&'a Attributes);

impl<'de> de::Deserializer<'de> for Body<'de> {
    type Error = Failed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let fields = self.0.iter().map(|(key, value)| (key.as_str(), Leaf { key, value }));
        visitor.visit_map(de::value::MapDeserializer::new(fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        match self.0.get_key_value(KIND) {
            Some((key, value)) => Leaf { key, value }.deserialize_enum(name, variants, visitor),
            None => Err(de::Error::missing_field(KIND)),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// One attribute.
struct Leaf<'a> {
    key: &'a str,
    value: &'a AttrValue,
}

impl Leaf<'_> {
    fn text<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, Failed> {
        std::str::from_utf8(bytes).map_err(|_| Failed(format!("the attribute '{}' is not UTF-8", self.key)))
    }

    fn located(&self, error: Failed) -> Failed {
        if error.0.starts_with("the attribute '") {
            error
        } else {
            Failed(format!("the attribute '{}': {error}", self.key))
        }
    }

    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Failed> {
        match &self.value.value {
            None => visitor.visit_unit(),
            Some(Value::B(b)) => visitor.visit_bool(*b),
            Some(Value::I(i)) => visitor.visit_i64(*i),
            Some(Value::F(f)) => visitor.visit_f32(*f),
            Some(Value::S(s)) => visitor.visit_str(self.text(s)?),
            Some(Value::Type(code)) => visitor.visit_str(&type_name(*code)),
            Some(Value::List(list)) => {
                let mut items: Vec<AttrValue> = Vec::new();
                items.extend(list.s.iter().map(|s| Value::S(s.clone()).into()));
                items.extend(list.i.iter().map(|&i| AttrValue::from(i)));
                items.extend(list.f.iter().map(|&f| AttrValue::from(f)));
                items.extend(list.b.iter().map(|&b| AttrValue::from(b)));
                items.extend(list.r#type.iter().map(|&t| Value::Type(t).into()));
                visitor.visit_seq(de::value::SeqDeserializer::new(
                    items.into_iter().map(|value| Item { key: self.key, value }),
                ))
            }
            Some(Value::Shape(_) | Value::Tensor(_)) => Err(Failed("is a shape or a tensor".to_owned())),
        }
    }
}

/// The name of an element type that serde knows, or what is in the file.
fn type_name(code: i32) -> String {
    match DType::from_code(code) {
        Some(dtype) => dtype.name().to_owned(),
        None => {
            usize::try_from(code).ok().and_then(|code| DATA_TYPES.get(code)).map_or(code.to_string(), |n| n.to_string())
        }
    }
}

/// One element of a list attribute.
struct Item<'a> {
    key: &'a str,
    value: AttrValue,
}

impl<'de> IntoDeserializer<'de, Failed> for Item<'_> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> IntoDeserializer<'de, Failed> for Leaf<'_> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for Item<'_> {
    type Error = Failed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        Leaf { key: self.key, value: &self.value }.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        Leaf { key: self.key, value: &self.value }.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> de::Deserializer<'de> for Leaf<'_> {
    type Error = Failed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.visit(visitor).map_err(|error| self.located(error))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        match self.value.value {
            None => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let name = match &self.value.value {
            Some(Value::S(s)) => self.text(s)?.to_owned(),
            Some(Value::Type(code)) => type_name(*code),
            _ => return Err(Failed(format!("the attribute '{}' is no name", self.key))),
        };
        let access: StrDeserializer<'_, Failed> = name.as_str().into_deserializer();
        visitor.visit_enum(access).map_err(|error| self.located(error))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier
    }
}
