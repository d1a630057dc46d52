//! Names that Python accepts and that nothing else has.

use std::collections::HashSet;

/// Words that no generated name may be: keywords, and builtins and modules that generated code uses.
const RESERVED: &[&str] = &[
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield", "match", "case", "type", "abs", "all",
    "any", "bool", "dict", "float", "id", "input", "int", "iter", "len", "list", "map", "max", "min", "next", "object",
    "open", "print", "range", "set", "slice", "sorted", "str", "sum", "super", "tuple", "zip", "self", "torch", "nn",
    "F", "np", "Tensor", "keras", "layers", "load", "KitModel",
];

/// Gives every name once.
#[derive(Clone, Debug, Default)]
pub struct Namer {
    taken: HashSet<String>,
}

impl Namer {
    /// A namer that also avoids `names`.
    pub fn avoiding<'a>(names: impl IntoIterator<Item = &'a str>) -> Namer {
        Namer { taken: names.into_iter().map(str::to_owned).collect() }
    }

    /// `wish` made an identifier, with a number when it is taken (`conv`, `conv_1`), and marked as taken.
    pub fn take(&mut self, wish: &str) -> String {
        self.take_text(&identifier(wish))
    }

    /// `wish` as it is, with a number when it is taken, and marked as taken: for names that are no identifiers.
    pub fn take_text(&mut self, wish: &str) -> String {
        let base = wish.to_owned();
        let joint = if base.ends_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
        let mut name = base.clone();
        let mut number = 2u64;
        while !self.taken.insert(name.clone()) {
            name = format!("{base}{joint}{number}");
            number += 1;
        }
        name
    }

    /// Makes a name free again.
    pub fn release(&mut self, name: &str) {
        self.taken.remove(name);
    }

    /// Whether a name is taken.
    pub fn is_taken(&self, name: &str) -> bool {
        self.taken.contains(name)
    }
}

/// Words that Python keeps for itself.
fn is_keyword(name: &str) -> bool {
    // `match`, `case` and `type` are words of the grammar that may be names, and so may builtins.
    RESERVED.iter().take_while(|word| **word != "match").any(|word| *word == name)
}

/// Whether Python takes a name behind a dot.
pub fn is_attribute(name: &str) -> bool {
    !name.is_empty()
        && !is_keyword(name)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The nearest Python identifier that is no reserved word.
pub fn identifier(text: &str) -> String {
    let mut name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    while name.starts_with("__") {
        name.remove(0);
    }
    if name.is_empty() || name == "_" {
        name = "layer".to_owned();
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name = format!("layer{name}");
    }
    if RESERVED.contains(&name.as_str()) {
        name.push('_');
    }
    name
}

/// `Mixed_5b` → `Mixed5B`, `bottleneck_v2` → `BottleneckV2`; numbers stay apart: `resnet_v2_50` → `ResnetV2_50`.
pub fn camel_case(text: &str) -> String {
    let mut name = String::new();
    let mut start = true;
    let mut gap = false;
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            if gap && c.is_ascii_digit() && name.ends_with(|c: char| c.is_ascii_digit()) {
                name.push('_');
            }
            gap = false;
            name.push(if start { c.to_ascii_uppercase() } else { c });
            start = c.is_ascii_digit();
        } else {
            (start, gap) = (true, true);
        }
    }
    name
}

/// `Branch_0` → `branch_0`, `InceptionV3` → `inception_v3`.
pub fn snake_case(text: &str) -> String {
    let mut name = String::new();
    let mut previous = '_';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        let word = previous.is_ascii_lowercase() || previous.is_ascii_digit();
        let after_capitals = previous.is_ascii_uppercase() && chars.peek().is_some_and(char::is_ascii_lowercase);
        if c.is_ascii_uppercase() && (word || after_capitals) {
            name.push('_');
        }
        if !(c == '_' && name.ends_with('_')) {
            name.push(c.to_ascii_lowercase());
        }
        previous = c;
    }
    name.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_legal_and_unique() {
        let mut namer = Namer::default();
        let names: Vec<_> =
            ["conv", "conv", "class", "3x3", "a-b", "unit_1", "unit_1", ""].iter().map(|w| namer.take(w)).collect();
        assert_eq!(names, ["conv", "conv2", "class_", "layer3x3", "a_b", "unit_1", "unit_1_2", "layer"]);
    }

    #[test]
    fn cases() {
        assert_eq!(camel_case("bottleneck_v2"), "BottleneckV2");
        assert_eq!(camel_case("Mixed_5"), "Mixed5");
        assert_eq!(camel_case("resnet_v2_50"), "ResnetV2_50");
        assert_eq!(snake_case("InceptionV3"), "inception_v3");
        assert_eq!(snake_case("ResnetV2_50"), "resnet_v2_50");
        assert_eq!(snake_case("Branch_0"), "branch_0");
        assert_eq!(snake_case("MLPBlock"), "mlp_block");
    }
}
