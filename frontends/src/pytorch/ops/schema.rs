//! Signatures of operators as they stand in the table: `input weight bias=None stride=1`.

use crate::pytorch::arg::Arg;

/// One parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// PyTorch's name of it.
    pub name: &'static str,
    /// What it is when it is left out.
    pub default: Option<Arg>,
}

/// The parameters of a signature.
pub fn parse(schema: &'static str) -> Vec<Parameter> {
    let parameter = |word: &'static str| match word.split_once('=') {
        Some((name, default)) => Parameter { name, default: Some(value(default)) },
        None => Parameter { name: word, default: None },
    };
    schema.split_whitespace().map(parameter).collect()
}

fn value(text: &'static str) -> Arg {
    match text {
        "None" => Arg::None,
        "True" => Arg::Bool(true),
        "False" => Arg::Bool(false),
        "[]" => Arg::List(Vec::new()),
        _ if text.starts_with('[') => Arg::List(text.trim_matches(['[', ']']).split(',').map(value).collect()),
        _ => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(int), _) => int.into(),
            (_, Ok(float)) => float.into(),
            _ => text.into(),
        },
    }
}
