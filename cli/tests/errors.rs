//! What the program says when something is wrong: the text of every error, and that nothing is written.
//!
//! The texts are files in `errors/`; run with `UPDATE_SNAPSHOTS=1` to write them anew, and read the difference.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/networks")
}

/// A folder with a checkpoint of two shards, to break.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        for name in
            ["model.ckpt.meta", "model.ckpt.index", "model.ckpt.data-00000-of-00002", "model.ckpt.data-00001-of-00002"]
        {
            fs::copy(fixtures().join("cnn_sharded").join(name), folder.path(name)).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn copy(&self, from: &str, to: &str) {
        fs::copy(fixtures().join(from), self.path(to)).unwrap();
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::write(self.path(name), bytes).unwrap();
    }

    fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// Runs a command line that fails, compares what it says, and sees that it leaves nothing behind.
    #[track_caller]
    fn fails(&self, name: &str, line: &str, status: i32) {
        let before = self.content();
        let mut words = line.split(' ');
        let program = match words.next().unwrap() {
            "modelport" => env!("CARGO_BIN_EXE_modelport"),
            "mmconvert" => env!("CARGO_BIN_EXE_mmconvert"),
            other => panic!("no program {other}"),
        };
        let output = Command::new(program).args(words).current_dir(self.0.path()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(status), "{line}\n{printed}{said}");
        assert_eq!(self.content(), before, "{line} has left something behind");
        compare(name, &format!("$ {line}\n{printed}{said}"));
    }
}

#[track_caller]
fn compare(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/errors").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name}: UPDATE_SNAPSHOTS=1 accepts the new text");
}

const WHOLE: &str = "modelport convert -sf tensorflow -in model.ckpt.meta -iw model.ckpt --dstNode output -om out.pth";
const FROZEN: &str = "modelport convert -sf tensorflow -in frozen.pb --dstNode output -om out.pth";

#[test]
fn missing_files() {
    let folder = Folder::new();
    folder.fails("missing_network", "modelport convert -in nowhere.ckpt.meta -iw model.ckpt -om out.pth", 1);
    folder.fails("missing_weights", "modelport convert -in model.ckpt.meta -iw nowhere.ckpt -om out.pth", 1);
    folder.fails("missing_ir", "modelport to-code -n nowhere.pb -w nowhere.npy -o out.py", 1);
    folder.fails("missing_ir_weights", "modelport to-model -in nowhere.py -iw nowhere.npy -o out.pth", 1);
    folder.fails("missing_inspected", "modelport inspect nowhere.pb", 1);
}

#[test]
fn graph_without_weights() {
    let folder = Folder(tempfile::tempdir().unwrap());
    folder.copy("cnn_sharded/model.ckpt.meta", "model.ckpt.meta");
    folder.fails("graph_without_weights", "modelport convert -in model.ckpt.meta --dstNode output -om out.pth", 1);
}

#[test]
fn not_a_protobuf() {
    let folder = Folder::new();
    fs::write(folder.path("frozen.pb"), "this is a page of text, not a graph\n".repeat(20)).unwrap();
    folder.fails("text_as_graph", FROZEN, 1);
    fs::write(folder.path("frozen.pb"), [0xff; 300]).unwrap();
    folder.fails("bytes_as_graph", FROZEN, 1);
    fs::write(folder.path("frozen.pb"), "").unwrap();
    folder.fails("empty_graph", FROZEN, 1);
}

#[test]
fn truncated_index() {
    let folder = Folder::new();
    folder.change("model.ckpt.index", |bytes| bytes.truncate(300));
    folder.fails("truncated_index", WHOLE, 1);
}

#[test]
fn missing_shard() {
    let folder = Folder::new();
    fs::remove_file(folder.path("model.ckpt.data-00001-of-00002")).unwrap();
    folder.fails("missing_shard", WHOLE, 1);
}

#[test]
fn truncated_shard() {
    let folder = Folder::new();
    folder.change("model.ckpt.data-00000-of-00002", |bytes| bytes.truncate(100));
    folder.fails("truncated_shard", WHOLE, 1);
}

#[test]
fn crc_mismatch() {
    let folder = Folder::new();
    folder.change("model.ckpt.data-00000-of-00002", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    folder.fails("crc_mismatch", WHOLE, 1);
}

#[test]
fn missing_variables() {
    let folder = Folder::new();
    folder.copy("text_cnn/model.ckpt.index", "other.ckpt.index");
    folder.copy("text_cnn/model.ckpt.data-00000-of-00001", "other.ckpt.data-00000-of-00001");
    let line = "modelport convert -in model.ckpt.meta -iw other.ckpt --dstNode output -om out.pth";
    folder.fails("missing_variables", line, 1);
}

#[test]
fn outputs() {
    let folder = Folder::new();
    let line = "mmconvert -sf tf -in model.ckpt.meta -iw model.ckpt --dstNode MMdnn_Output -df pytorch -om out.pth";
    folder.fails("output_not_in_graph", line, 1);
    folder.copy("unet/model.ckpt.meta", "unet.ckpt.meta");
    folder.copy("unet/model.ckpt.index", "unet.ckpt.index");
    folder.copy("unet/model.ckpt.data-00000-of-00001", "unet.ckpt.data-00000-of-00001");
    folder.fails("several_outputs", "modelport convert -in unet.ckpt.meta -iw unet.ckpt -om out.pth", 1);
}

#[test]
fn unsupported_operators() {
    let folder = Folder::new();
    folder.copy("errors/unsupported.pb", "frozen.pb");
    folder.fails("unsupported", FROZEN, 1);
    folder.fails("unsupported_json", &format!("{FROZEN} --json"), 1);
}

#[test]
fn unknown_input_shape() {
    let folder = Folder::new();
    folder.copy("errors/unknown_shape.pb", "frozen.pb");
    folder.fails("unknown_input_shape", FROZEN, 1);
}

#[test]
fn unwritable_output() {
    let folder = Folder::new();
    let line = |output: &str| WHOLE.replace("out.pth", output);
    folder.fails("output_in_missing_folder", &line("nowhere/out.pth"), 1);
    folder.fails("output_in_file", &line("model.ckpt.meta/out.pth"), 1);
    fs::create_dir(folder.path("out.py")).unwrap();
    folder.fails("output_is_folder", &line("out.pth"), 1);
    folder.fails("ir_in_missing_folder", "modelport to-ir -n model.ckpt.meta -w model.ckpt -o nowhere/ir", 1);
}

#[test]
fn wrong_requests() {
    let folder = Folder::new();
    let line = |output: &str| WHOLE.replace("out.pth", output);
    folder.fails("unknown_extension", &line("out.h5"), 1);
    folder.fails("whole_module_as_npy", &line("out.npy --whole-module"), 1);
    folder.fails("whole_module_name", &line("2-out.pth --whole-module"), 1);
    fs::write(folder.path("plain.py"), "import torch\n").unwrap();
    folder.fails("no_restore", "modelport to-model -in plain.py -iw a.npy -o a.pth --whole-module", 1);
}

#[test]
fn wrong_arguments() {
    let folder = Folder::new();
    folder.fails("unknown_framework", "modelport convert -sf caffe3 -in a -iw b -om c", 2);
    folder.fails("no_source", "modelport convert -om out.pth", 2);
    folder.fails("ambiguous_flag", "modelport convert --input a -om out.pth", 2);
    folder.fails("unknown_flag", "mmconvert -in a --nonsense", 2);
    folder.fails("wrong_shape", "modelport convert -in a -om b --inputShape 299x299", 2);
}

#[test]
fn damaged_steps() {
    let folder = Folder::new();
    fs::write(folder.path("ir.pb"), [0xff; 100]).unwrap();
    folder.fails("damaged_ir", "modelport to-code -n ir.pb -o out.py", 1);
    fs::write(folder.path("w.pth"), b"PK\x03\x04 and no more").unwrap();
    folder.fails("damaged_weights", "modelport to-model -in out.py -iw w.pth -o out.npy", 1);
}
