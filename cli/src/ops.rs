//! The table of operators that can be converted, generated from the code that converts them.

use modelport_frontends::tensorflow;
use modelport_ir::op::FAMILIES;

/// A table in Markdown: operators of every source, by initial, and those of the neutral graph.
pub fn table() -> String {
    let mut rows: Vec<(char, Vec<&str>)> = Vec::new();
    for op in tensorflow::supported_ops() {
        let initial = op.chars().next().unwrap_or('?');
        match rows.last_mut() {
            Some((letter, ops)) if *letter == initial => ops.push(op),
            _ => rows.push((initial, vec![op])),
        }
    }
    let count: usize = rows.iter().map(|(_, ops)| ops.len()).sum();
    let mut text = format!("| | TensorFlow: {count} operators |\n| --- | --- |\n");
    for (letter, ops) in rows {
        let ops: Vec<String> = ops.iter().map(|op| format!("`{op}`")).collect();
        text.push_str(&format!("| {letter} | {} |\n", ops.join(" ")));
    }
    // What is foreign is what nobody has translated.
    let families: Vec<&str> = FAMILIES.iter().copied().filter(|name| *name != "Foreign").collect();
    let count = families.len();
    text.push_str(&format!("\nThey become {count} operators of the neutral graph: {}.\n", families.join(", ")));
    text
}
