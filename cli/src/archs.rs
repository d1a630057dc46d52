//! The list of architectures that state dicts are recognised as.

use modelport_frontends::pytorch::arch::FAMILIES;

/// A line for every family: its name, other starts of names, and what `--arch-arg` can say.
pub fn list() -> String {
    let line = |names: String, arguments: &str| format!("{}\n", format!("{names:<36}{arguments}").trim_end());
    let mut text = line("architecture (--arch)".to_owned(), "what shapes do not tell (--arch-arg)");
    for family in FAMILIES {
        let names: Vec<&str> = std::iter::once(family.name).chain(family.members.iter().copied()).collect();
        text.push_str(&line(names.join(", "), family.arguments));
    }
    text
}
