//! The code of every network in the fixtures, as it was last looked at: a change to the planner shows as a diff.
//! `UPDATE_SNAPSHOTS=1` stores what is made now.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests");

/// Converts a network of the fixtures; returns its code and the bytes of its weights.
fn convert(network: &Path, folder: &Path, target: &str) -> (String, Vec<u8>) {
    let case: Value = serde_json::from_str(&fs::read_to_string(network.join("case.json")).unwrap()).unwrap();
    let words = |name: &str| -> Vec<String> {
        let list = case[name].as_array().cloned().unwrap_or_default();
        list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let file = |name: &str| network.join(case[name].as_str().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelport"));
    command.args(["convert", "-q", "-sf", "tensorflow", "-in"]).arg(file("network")).arg("-iw").arg(file("weights"));
    command.arg("--dstNode").args(words("outputs")).args(words("arguments"));
    let model = if target == "keras" { "model.keras" } else { "model.pth" };
    let output = command.args(["-df", target, "-om", model]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}: {}", network.display(), String::from_utf8_lossy(&output.stderr));
    (fs::read_to_string(folder.join("model.py")).unwrap(), fs::read(folder.join(model)).unwrap())
}

#[test]
fn code_of_all_networks() {
    compare("pytorch", "snapshots");
}

#[test]
fn keras_code_of_all_networks() {
    compare("keras", "snapshots/keras");
}

fn compare(target: &str, folder: &str) {
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    let mut networks: Vec<PathBuf> =
        fs::read_dir(format!("{TESTS}/fixtures/networks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    networks.retain(|path| path.join("case.json").exists());
    networks.sort();
    assert!(networks.len() > 20);
    let mut changed = Vec::new();
    for network in networks {
        let name = network.file_name().unwrap().to_string_lossy().into_owned();
        let stored = PathBuf::from(format!("{TESTS}/{folder}/{name}.py"));
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (code, weights) = convert(&network, first.path(), target);
        let again = convert(&network, second.path(), target);
        assert!((code.as_str(), &weights) == (again.0.as_str(), &again.1), "{name} differs between two runs");
        if update {
            fs::create_dir_all(stored.parent().unwrap()).unwrap();
            fs::write(&stored, &code).unwrap();
        } else if fs::read_to_string(&stored).unwrap_or_default() != code {
            changed.push(name);
        }
    }
    assert!(changed.is_empty(), "the code of {changed:?} has changed; look at it, then UPDATE_SNAPSHOTS=1");
}

/// Most lines of code for networks that every converter is measured by. The narrow networks have all the structure.
const LINES: &[(&str, usize)] = &[
    ("inception_v3", 190),
    ("resnet_v2_50", 110),
    ("resnet_v2_152", 115),
    ("vgg_16", 80),
    ("mobilenet_v2", 120),
    ("inception_resnet_v2", 190),
    ("nasnet", 250),
];

#[test]
fn code_is_short() {
    for (name, limit) in LINES {
        let code = fs::read_to_string(format!("{TESTS}/snapshots/{name}.py")).unwrap();
        let lines = code.lines().count();
        assert!(lines <= *limit, "{name} has {lines} lines, more than {limit}");
        assert!(code.lines().all(|line| line.chars().count() <= 120), "{name} has long lines");
    }
}
