//! What the user says of single layers and tensors.

use indexmap::IndexMap;
use modelport_ir::{Error, Problem, Result};
use serde_json::{Value, json};

use super::{LayerMatch, Plan};

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

    /// The map with all that was matched, for a person to check and to change: a line for every layer of the target, in
    /// their order, with the layer of the source that it is from, or null.
    pub fn completed(&self, plan: &Plan) -> String {
        let told = self.0.iter().map(|(name, entry)| (name.as_str(), entry.json()));
        let is_told = |layer: &LayerMatch| {
            let names = || std::iter::once(&layer.target).chain(&layer.parameters);
            let is_below = |name: &String| {
                layer.target.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['.', '/']))
            };
            self.0.keys().any(|name| names().any(|other| other == name) || is_below(name))
        };
        let found = plan.layers.iter().filter(|layer| !is_told(layer)).flat_map(|layer| match &layer.source {
            Some((source, _)) => vec![(layer.target.as_str(), json!(source))],
            // Tensors of no module have only their own names.
            None if layer.target.is_empty() => {
                layer.parameters.iter().map(|name| (name.as_str(), Value::Null)).collect()
            }
            None => vec![(layer.target.as_str(), Value::Null)],
        });
        let lines: Vec<String> = told.chain(found).map(|(name, value)| format!("  {}: {value}", json!(name))).collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

impl Entry {
    fn json(&self) -> Value {
        let Some(from) = &self.from else { return Value::Null };
        let settings = [("permute", &self.permute), ("reshape", &self.reshape), ("flattened", &self.flattened)];
        let mut object = serde_json::Map::new();
        object.extend(settings.into_iter().filter_map(|(key, sizes)| Some((key.to_owned(), json!(sizes.as_ref()?)))));
        if object.is_empty() {
            return json!(from);
        }
        object.insert("from".to_owned(), json!(from));
        Value::Object(object)
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
