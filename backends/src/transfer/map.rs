//! What the user says of single layers and tensors.

use indexmap::IndexMap;
use modelport_ir::{Error, Problem, Result};
use serde_json::Value;

/// Names of the target, and where they are from.
#[derive(Clone, Debug, Default)]
pub struct Map(pub IndexMap<String, Entry>);

/// Where a layer or a tensor is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The name of a layer or a tensor of the source; none to leave the target as it is.
    pub from: Option<String>,
    /// The order of its axes: `new.shape[i] = old.shape[permute[i]]`.
    pub permute: Option<Vec<usize>>,
    /// The shape that it has then.
    pub reshape: Option<Vec<usize>>,
    /// The shape before it was flattened, channels first, for a dense layer.
    pub flattened: Option<Vec<usize>>,
}

impl Map {
    /// Reads `{"target": "source", "target": {"from": "source", "permute": [2, 3, 1, 0]}, "target": null}`.
    ///
    /// # Errors
    /// All entries that say something else.
    pub fn parse(json: &str) -> Result<Map> {
        let entries: IndexMap<String, Value> =
            serde_json::from_str(json).map_err(|error| Error::new(format!("is no map in JSON: {error}")))?;
        let mut map = Map::default();
        let mut problems = Vec::new();
        for (target, value) in entries {
            match entry(&value) {
                Ok(entry) => {
                    map.0.insert(target, entry);
                }
                Err(message) => {
                    let hint = "expected a name, null, or {\"from\": a name, \"permute\": [2, 3, 1, 0]}, with \
                                \"reshape\" and \"flattened\" where needed";
                    problems.push(Problem::new(message).node(target).hint(hint));
                }
            }
        }
        Error::collect(problems)?;
        Ok(map)
    }
}

fn entry(value: &Value) -> std::result::Result<Entry, String> {
    let object = match value {
        Value::Null => return Ok(Entry::default()),
        Value::String(from) => return Ok(Entry { from: Some(from.clone()), ..Entry::default() }),
        Value::Object(object) => object,
        other => return Err(format!("an entry of the map is {other}")),
    };
    let known = ["from", "permute", "reshape", "flattened"];
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("an entry of the map has a '{key}'"));
    }
    let numbers = |key: &str| -> std::result::Result<Option<Vec<usize>>, String> {
        let Some(value) = object.get(key) else { return Ok(None) };
        let numbers = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_u64().and_then(|n| usize::try_from(n).ok())).collect::<Option<Vec<_>>>()
        });
        numbers.map(Some).ok_or_else(|| format!("an entry of the map has the {key} {value}, expected numbers"))
    };
    let from = object.get("from").and_then(Value::as_str).ok_or("an entry of the map does not say where from")?;
    Ok(Entry {
        from: Some(from.to_owned()),
        permute: numbers("permute")?,
        reshape: numbers("reshape")?,
        flattened: numbers("flattened")?,
    })
}
