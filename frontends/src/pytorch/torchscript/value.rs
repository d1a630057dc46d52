//! Values of TorchScript while its code is followed: plain Python data, modules, and tensors of the graph.

use std::cell::RefCell;
use std::rc::Rc;

use crate::pytorch::arg::Arg;
use crate::symbolic::Elem;

/// Deepest nesting of lists and tuples that is looked at.
const MAX_DEPTH: usize = 32;

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// `None`
    None,
    /// A truth value.
    Bool(bool),
    /// An integer; tensors of one integer, as traces have them for sizes, are integers here too.
    Int(i64),
    /// A whole number with sizes in it that are free, such as the batch.
    Size(Elem),
    /// A number.
    Float(f64),
    /// A string; devices and layouts are strings as well.
    Str(Rc<str>),
    /// A list, which may change.
    List(Rc<RefCell<Vec<Value>>>),
    /// A tuple.
    Tuple(Rc<Vec<Value>>),
    /// A dictionary in the order in which it was filled.
    Dict(Rc<RefCell<Vec<(Value, Value)>>>),
    /// A tensor, computed or known.
    Tensor(Arg),
    /// A module, by number.
    Object(usize),
    /// A function, by its full name.
    Function(Rc<str>),
    /// A method of an object.
    Method(usize, Rc<str>),
    /// What has no value yet, and must not be used.
    Uninitialized,
}

impl From<Elem> for Value {
    fn from(elem: Elem) -> Value {
        match elem {
            Elem::Int(value) => Value::Int(value),
            Elem::Real(value) => Value::Float(value),
            elem => Value::Size(elem),
        }
    }
}

impl Value {
    /// A list of values.
    pub fn list(items: Vec<Value>) -> Value {
        Value::List(Rc::new(RefCell::new(items)))
    }

    /// A tuple of values.
    pub fn tuple(items: Vec<Value>) -> Value {
        Value::Tuple(Rc::new(items))
    }

    /// A string.
    pub fn text(text: &str) -> Value {
        Value::Str(text.into())
    }

    /// The items of a list or tuple.
    pub fn items(&self) -> Option<Vec<Value>> {
        match self {
            Value::List(items) => Some(items.borrow().clone()),
            Value::Tuple(items) => Some(items.to_vec()),
            _ => None,
        }
    }

    /// The integer that this is; truth values count.
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// The number that this is.
    pub fn float(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            other => other.int().map(|value| value as f64),
        }
    }

    /// The number that this is, which may have free sizes in it.
    pub fn elem(&self) -> Option<Elem> {
        match self {
            Value::Size(elem) => Some(elem.clone()),
            Value::Float(value) => Some(Elem::Real(*value)),
            other => other.int().map(Elem::Int),
        }
    }

    /// Whether two values are equal, where that can be told.
    pub fn equals(&self, other: &Value) -> Option<bool> {
        self.equals_within(other, MAX_DEPTH)
    }

    fn equals_within(&self, other: &Value, depth: usize) -> Option<bool> {
        Some(match (self, other) {
            (Value::Tensor(_), _) | (_, Value::Tensor(_)) | (Value::Uninitialized, _) | (_, Value::Uninitialized) => {
                return None;
            }
            // Sizes are compared by `scalar`, which knows more of them.
            (Value::Size(a), Value::Size(b)) if a == b => true,
            (Value::Size(_), Value::Int(_) | Value::Size(_)) | (Value::Int(_), Value::Size(_)) => return None,
            (Value::None, Value::None) => true,
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Object(a), Value::Object(b)) => a == b,
            (Value::List(_) | Value::Tuple(_), Value::List(_) | Value::Tuple(_)) => {
                if depth == 0 {
                    return None;
                }
                let (a, b) = (self.items()?, other.items()?);
                if a.len() != b.len() {
                    return Some(false);
                }
                for (a, b) in a.iter().zip(&b) {
                    if !a.equals_within(b, depth - 1)? {
                        return Some(false);
                    }
                }
                true
            }
            (a, b) => match (a.float(), b.float()) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
        })
    }

    /// What Python's `bool` makes of it, where that can be told.
    pub fn truth(&self) -> Option<bool> {
        Some(match self {
            Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(items) => !items.borrow().is_empty(),
            Value::Tuple(items) => !items.is_empty(),
            Value::Dict(items) => !items.borrow().is_empty(),
            // Nothing is said of a sum of sizes.
            Value::Size(_) | Value::Tensor(_) | Value::Uninitialized => return None,
            Value::Object(_) | Value::Function(_) | Value::Method(..) => true,
        })
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        match self {
            Value::None => "None".to_owned(),
            Value::Bool(value) => if *value { "True" } else { "False" }.to_owned(),
            Value::Int(value) => value.to_string(),
            Value::Size(elem) => format!("the free size {elem}"),
            Value::Float(value) => format!("{value:?}"),
            Value::Str(text) => format!("{text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::Dict(_) => "a dictionary".to_owned(),
            Value::Tensor(_) => "a tensor".to_owned(),
            Value::Object(_) => "a module".to_owned(),
            Value::Function(name) => format!("the function {name}"),
            Value::Method(_, name) => format!("the method {name}"),
            Value::Uninitialized => "a value that is not there".to_owned(),
        }
    }
}
