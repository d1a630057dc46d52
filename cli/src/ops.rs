//! The table of operators that can be converted, generated from the code that converts them.

use modelport_frontends::{pytorch, tensorflow};
use modelport_ir::op::FAMILIES;

/// Tables in Markdown: operators of every source, by initial, and those of the neutral graph.
pub fn table() -> String {
    let mut text = by_initial("TensorFlow", &tensorflow::supported_ops());
    text.push('\n');
    text.push_str(&by_initial("PyTorch (ATen)", &pytorch::ops::supported()));
    // What is foreign is what nobody has translated.
    let families: Vec<&str> = FAMILIES.iter().copied().filter(|name| *name != "Foreign").collect();
    let count = families.len();
    text.push_str(&format!("\nThey become {count} operators of the neutral graph: {}.\n", families.join(", ")));
    text
}

fn by_initial(source: &str, names: &[&str]) -> String {
    let mut rows: Vec<(char, Vec<String>)> = Vec::new();
    let initial = |name: &str| name.trim_start_matches('_').chars().next().unwrap_or('?').to_ascii_uppercase();
    let mut sorted = names.to_vec();
    sorted.sort_by_key(|name| (initial(name), name.trim_start_matches('_').to_owned(), name.len()));
    for name in sorted {
        let quoted = format!("`{name}`");
        match rows.last_mut() {
            Some((letter, ops)) if *letter == initial(name) => ops.push(quoted),
            _ => rows.push((initial(name), vec![quoted])),
        }
    }
    let mut text = format!("| | {source}: {} operators |\n| --- | --- |\n", names.len());
    for (letter, ops) in rows {
        text.push_str(&format!("| {letter} | {} |\n", ops.join(" ")));
    }
    text
}
