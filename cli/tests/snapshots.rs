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

/// Networks of PyTorch, and the shape of what enters where the file does not say it.
const PYTORCH: &[(&str, &str)] = &[
    ("densenet.npz", "3,64,64"),
    ("efficientnet_b0.npz", "3,64,64"),
    ("encoder_decoder.pt2", ""),
    ("googlenet.npz", "3,96,96"),
    ("gpt.pt2", ""),
    ("lstm.pt2", ""),
    ("maxvit.npz", "3,24,24"),
    ("mobilenet_v3_small.npz", "3,64,64"),
    ("resnet18.npz", "3,64,64"),
    ("resnet50.npz", "3,64,64"),
    ("swin.npz", "3,64,64"),
    ("vit.npz", "3,32,32"),
];

#[test]
fn keras_code_of_pytorch_networks() {
    let networks = PathBuf::from(format!("{TESTS}/fixtures/pytorch/networks"));
    let mut changed = Vec::new();
    for (file, shape) in PYTORCH {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_modelport"));
        command.args(["convert", "-q", "-sf", "pytorch", "-iw"]).arg(networks.join(file));
        if !shape.is_empty() {
            command.args(["--inputShape", shape]);
        }
        let output = command.args(["-df", "keras", "-om", "model.keras"]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        let code = fs::read_to_string(folder.path().join("model.py")).unwrap();
        let name = file.split('.').next().unwrap();
        if !store(&PathBuf::from(format!("{TESTS}/snapshots/keras/pytorch/{name}.py")), &code) {
            changed.push(*file);
        }
    }
    assert!(changed.is_empty(), "the code of {changed:?} has changed; look at it, then UPDATE_SNAPSHOTS=1");
}

/// Whether a text is the stored one; with `UPDATE_SNAPSHOTS` it is stored.
fn store(path: &Path, text: &str) -> bool {
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::read_to_string(path).unwrap_or_default() == text
}

fn compare(target: &str, folder: &str) {
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
        if !store(&stored, &code) {
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

/// The same for PyTorch networks in Keras, as long as their authors' code.
const KERAS_LINES: &[(&str, usize)] = &[
    ("densenet", 75),
    ("efficientnet_b0", 100),
    ("googlenet", 88),
    ("mobilenet_v3_small", 105),
    ("resnet18", 75),
    ("resnet50", 85),
    ("vit", 95),
];

#[test]
fn code_is_short() {
    let keras = KERAS_LINES.iter().map(|(name, limit)| (format!("keras/pytorch/{name}"), limit));
    for (name, limit) in LINES.iter().map(|(name, limit)| ((*name).to_owned(), limit)).chain(keras) {
        let code = fs::read_to_string(format!("{TESTS}/snapshots/{name}.py")).unwrap();
        let lines = code.lines().count();
        assert!(lines <= *limit, "{name} has {lines} lines, more than {limit}");
        assert!(code.lines().all(|line| line.chars().count() <= 120), "{name} has long lines");
    }
}
