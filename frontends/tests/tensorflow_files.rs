//! Files that TensorFlow wrote (`tests/fixtures/tf1/checkpoints.py`), intact and damaged.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use modelport_frontends::tensorflow::checkpoint::Checkpoint;
use modelport_frontends::tensorflow::graphdef::{Attr, NodeDef, TensorValue};
use modelport_frontends::tensorflow::locate::{self, Weights};
use modelport_frontends::tensorflow::metagraph::MetaGraph;
use modelport_ir::{DType, Tensor};
use tempfile::TempDir;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints").join(path)
}

/// A copy of a fixture's folder that may be damaged.
fn copy(folder: &str) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in fs::read_dir(fixture(folder)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

/// Writes a new file: some file systems flush one that is truncated and written again, which takes its time.
fn replace(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

fn open(path: &Path) -> Result<Checkpoint, String> {
    Checkpoint::open(path).map_err(|error| error.to_string())
}

fn expect_count(tensor: &Tensor, shape: &[usize], dtype: DType, first: usize) {
    assert_eq!((tensor.shape().as_slice(), tensor.dtype()), (shape, dtype));
    let n = shape.iter().product();
    let want: Vec<f64> = match dtype {
        DType::Bool => (0..n).map(|i| f64::from(u8::from(i % 3 == 0))).collect(),
        _ => (0..n).map(|i| (i + first) as f64).collect(),
    };
    assert_eq!(tensor.to_f64().unwrap(), want);
}

/// `VARIABLES` in the script.
const VARIABLES: [(&str, &[usize], Option<DType>); 14] = [
    ("conv/weights", &[3, 3, 2, 4], Some(DType::Float32)),
    ("conv/biases", &[4], Some(DType::Float32)),
    ("half", &[5], Some(DType::Float16)),
    ("brain", &[5], Some(DType::BFloat16)),
    ("double", &[2, 2], Some(DType::Float64)),
    ("int8", &[3], Some(DType::Int8)),
    ("int16", &[3], Some(DType::Int16)),
    ("int32", &[3], Some(DType::Int32)),
    ("int64", &[3], Some(DType::Int64)),
    ("uint8", &[3], Some(DType::UInt8)),
    ("flags", &[7], Some(DType::Bool)),
    ("words", &[3], None),
    ("global_step", &[], Some(DType::Int64)),
    ("nothing", &[0, 3], Some(DType::Float32)),
];

#[test]
fn checkpoints_of_every_kind() {
    for folder in ["one_shard", "shards", "version1"] {
        let checkpoint = open(&fixture(folder)).unwrap();
        for (place, (name, shape, dtype)) in VARIABLES.into_iter().enumerate() {
            if folder == "version1" && name == "brain" {
                continue;
            }
            match dtype {
                Some(dtype) => expect_count(&checkpoint.get(name).unwrap(), shape, dtype, place),
                None => assert!(checkpoint.get(name).is_none()),
            }
        }
        expect_count(&checkpoint.get("rows/table").unwrap(), &[5, 6], DType::Float32, 100);
        expect_count(&checkpoint.get("columns/table").unwrap(), &[5, 6], DType::Float32, 100);
        expect_count(&checkpoint.get("long/table").unwrap(), &[600, 1], DType::Float32, 100);
        assert!(checkpoint.get("conv/biases/ExponentialMovingAverage").is_some());
        assert_eq!(checkpoint.skipped().collect::<Vec<_>>(), [("words", 7)]);
        assert!(checkpoint.get("conv/biases").unwrap().is_same(&checkpoint.get("conv/biases").unwrap()));
        checkpoint.verify().unwrap();
    }
    let tiles = open(&fixture("tiles/model.ckpt")).unwrap();
    expect_count(&tiles.get("w").unwrap(), &[4, 6], DType::Float32, 0);
}

#[test]
fn partitioned_variables_and_their_parts() {
    let meta = MetaGraph::open(&fixture("one_shard/model.ckpt.meta")).unwrap();
    let checkpoint = open(&fixture("one_shard")).unwrap();
    let part = meta.collection("variables").iter().find(|v| v.name == "columns/table/part_1:0").unwrap();
    let part = checkpoint.part(part.slice.as_ref().unwrap()).unwrap();
    assert_eq!(part.shape(), [5, 2]);
    assert_eq!(part.to_f64().unwrap(), [102., 103., 108., 109., 114., 115., 120., 121., 126., 127.]);
}

#[test]
fn meta_graphs() {
    let meta = MetaGraph::open(&fixture("one_shard/model.ckpt.meta")).unwrap();
    assert!(meta.graph.nodes.iter().any(|node| node.name == "conv/weights" && node.op == "VariableV2"));
    let names = |name: &str| meta.collection(name).iter().map(|v| v.name.as_str()).collect::<Vec<_>>();
    assert!(names("variables").contains(&"conv/biases/ExponentialMovingAverage:0"));
    assert_eq!(names("moving_average_variables"), ["conv/biases:0"]);
    let variable = &meta.collection("trainable_variables")[0];
    assert_eq!((variable.snapshot.as_str(), variable.trainable), ("conv/weights/read:0", true));
    assert_eq!(variable.initializer, "conv/weights/Assign");
    let rows = meta.collection("variables").iter().find(|v| v.name == "rows/table/part_2:0").unwrap();
    let slice = rows.slice.as_ref().unwrap();
    assert_eq!(slice.full_name, "rows/table");
    assert_eq!((&slice.full_shape[..], &slice.offset[..], &slice.shape[..]), (&[5, 6][..], &[4, 0][..], &[1, 6][..]));
    assert_eq!(meta.saver.unwrap().restore_op, "save/restore_all");
}

#[test]
fn saved_models() {
    let files = locate::open(Some(&fixture("saved_model")), None).unwrap();
    assert_eq!(files.meta.tags, ["serve"]);
    let signature = &files.meta.signatures["serving_default"];
    assert_eq!(signature.inputs["features"].tensor, "x:0");
    assert_eq!(signature.inputs["features"].shape, Some(vec![-1, 3]));
    assert_eq!(signature.outputs["scores"].tensor, "y:0");
    expect_count(&files.checkpoint.unwrap().get("w").unwrap(), &[3, 2], DType::Float32, 0);
}

fn node<'a>(meta: &'a MetaGraph, name: &str) -> &'a NodeDef {
    meta.graph.nodes.iter().find(|node| node.name == name).unwrap()
}

fn constant<'a>(meta: &'a MetaGraph, name: &str) -> &'a TensorValue {
    match &node(meta, name).attrs["value"] {
        Attr::Tensor(value) => value,
        other => panic!("{other:?}"),
    }
}

fn numbers<'a>(meta: &'a MetaGraph, name: &str) -> &'a Tensor {
    match constant(meta, name) {
        TensorValue::Numbers(tensor) => tensor,
        other => panic!("{other:?}"),
    }
}

#[test]
fn constants_in_every_notation() {
    let meta = MetaGraph::open(&fixture("graphs/constants.pb")).unwrap();
    for (place, (name, shape, dtype)) in VARIABLES.into_iter().enumerate() {
        match (constant(&meta, name), dtype) {
            (TensorValue::Numbers(tensor), Some(dtype)) => expect_count(tensor, shape, dtype, place),
            (TensorValue::Strings { shape, values }, None) => {
                assert_eq!((shape.as_slice(), values.len(), values[2].as_slice()), (&[3][..], 3, &b"s2"[..]));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    expect_count(numbers(&meta, "content"), &[2, 3], DType::Float32, 1);
    assert_eq!(numbers(&meta, "tail").to_f64().unwrap(), [1., 2., 3., 3., 3., 3.]);
    assert_eq!(numbers(&meta, "zeros").to_f64().unwrap(), [0.; 4]);
    assert_eq!(numbers(&meta, "uint32").to_f64().unwrap(), [1., 4294967295.]);
    assert_eq!(numbers(&meta, "uint64").to_i64().unwrap(), [1, -1]);
    assert!(matches!(constant(&meta, "complex"), TensorValue::Other(8)));
    let splat = numbers(&meta, "splat");
    assert_eq!(splat.shape(), [1000, 1000, 1000]);
    let corner = splat.sliced(0, 0, 1).unwrap().sliced(1, 0, 1).unwrap().sliced(2, 0, 2).unwrap();
    assert_eq!(corner.to_f32().unwrap(), [0.5, 0.5]);
}

#[test]
fn attributes_of_every_kind() {
    let meta = MetaGraph::open(&fixture("graphs/constants.pb")).unwrap();
    let node = node(&meta, "everything");
    assert_eq!(node.inputs, ["content", "tail:1", "^zeros"]);
    let got = |name: &str| format!("{:?}", node.attrs[name]);
    for (name, want) in [
        ("s", "Bytes([83, 65, 77, 69])"),
        ("i", "Int(-3)"),
        ("f", "Float(0.25)"),
        ("b", "Bool(true)"),
        ("no", "Bool(false)"),
        ("type", "Type(1)"),
        ("shape", "Shape(Some([-1, 3]))"),
        ("scalar", "Shape(Some([]))"),
        ("unknown", "Shape(None)"),
        ("func", "Function(\"twice\")"),
        ("ints", "List([Int(1), Int(-2), Int(3)])"),
        ("floats", "List([Float(0.5), Float(-1.0)])"),
        ("bools", "List([Bool(true), Bool(false)])"),
        ("types", "List([Type(1), Type(3)])"),
        ("strings", "List([Bytes([97]), Bytes([])])"),
        ("shapes", "List([Shape(None), Shape(Some([2]))])"),
        ("funcs", "List([Function(\"twice\")])"),
        ("empty", "List([])"),
    ] {
        assert_eq!(got(name), want, "{name}");
    }
    let function = &meta.graph.functions[0];
    assert_eq!(
        (function.name.as_str(), &function.arguments[..], &function.results[..]),
        ("twice", &["x".to_owned()][..], &["y".to_owned()][..])
    );
    assert_eq!((function.nodes[0].op.as_str(), function.returns["y"].as_str()), ("AddV2", "sum:z:0"));
}

#[test]
fn whatever_people_give_is_understood() {
    let prefix = fixture("one_shard/model.ckpt");
    let bundle = Weights::Bundle { prefix: prefix.clone() };
    for given in
        ["", "/model.ckpt", "/model.ckpt.index", "/model.ckpt.meta", "/model.ckpt.data-00000-of-00001", "/checkpoint"]
    {
        let path = fixture(&format!("one_shard{given}"));
        assert_eq!(locate::weights(&path), Ok(bundle.clone()), "{given}");
        assert_eq!(locate::network(&path), Ok(fixture("one_shard/model.ckpt.meta")), "{given}");
        let files = locate::open(Some(&path), None).unwrap();
        assert!(files.checkpoint.is_some(), "{given}");
        assert!(locate::open(None, Some(&path)).unwrap().checkpoint.is_some(), "{given}");
    }
    let files = vec![fixture("version1/model.ckpt")];
    assert_eq!(locate::weights(&fixture("version1")), Ok(Weights::V1 { files: files.clone() }));
    assert_eq!(locate::weights(&fixture("version1/model.ckpt")), Ok(Weights::V1 { files }));
    let frozen = fixture("graphs/constants.pb");
    assert!(locate::open(None, Some(&frozen)).unwrap().checkpoint.is_none());
    assert!(locate::open(Some(&frozen), Some(&frozen)).unwrap().checkpoint.is_none());
}

#[test]
fn folders_may_have_been_moved() {
    let folder = copy("one_shard");
    let prefix = folder.path().join("model.ckpt");
    for line in [
        "model_checkpoint_path: \"/elsewhere/model.ckpt\"",
        "model_checkpoint_path: 'C:\\\\old\\\\model.ckpt'",
        "# none",
        "model_checkpoint_path: \"gone\"",
    ] {
        fs::write(folder.path().join("checkpoint"), line).unwrap();
        assert_eq!(locate::weights(folder.path()), Ok(Weights::Bundle { prefix: prefix.clone() }), "{line}");
    }
    fs::copy(folder.path().join("model.ckpt.index"), folder.path().join("other.index")).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(error.contains("has 2 checkpoints") && error.contains("model.ckpt, other"), "{error}");
}

/// Error and its folder, with the folder's path left out.
fn error_after(folder: &str, name: &str, damage: impl FnOnce(&Path)) -> String {
    let folder = copy(folder);
    damage(folder.path());
    let error = match open(&folder.path().join(name)) {
        Err(error) => error,
        Ok(checkpoint) => checkpoint.verify().unwrap_err().to_string(),
    };
    error.replace(&*folder.path().to_string_lossy(), "DIR")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn errors_say_what_is_wrong_where() {
    let case = |folder: &str, name: &str, damage: &dyn Fn(&Path), wanted: &[&str]| {
        let error = error_after(folder, name, damage);
        for wanted in wanted {
            assert!(error.contains(wanted), "{error}\n-- lacks: {wanted}");
        }
    };
    let remove = |name: &'static str| move |dir: &Path| fs::remove_file(dir.join(name)).unwrap();
    case(
        "shards",
        "model.ckpt",
        &remove("model.ckpt.data-00001-of-00003"),
        &["DIR/model.ckpt.data-00001-of-00003: is missing", "shard 2 of 3"],
    );
    case("one_shard", "model.ckpt.meta", &remove("model.ckpt.index"), &["DIR/model.ckpt.index: is missing"]);
    case(
        "one_shard",
        "model.ckpt.data-00000-of-00001",
        &remove("model.ckpt.index"),
        &["DIR/model.ckpt.index: is missing", "beside the data"],
    );
    case(
        "one_shard",
        "nodel.ckpt",
        &|_| (),
        &[
            "DIR/nodel.ckpt: there is no checkpoint here: no file nodel.ckpt or nodel.ckpt.index",
            "has model.ckpt.data-00000-of-00001",
        ],
    );
    case("one_shard", "mod", &|_| (), &["model.ckpt.index"]);
    case("one_shard", "gone/model.ckpt", &|_| (), &["DIR/gone does not exist"]);
    case(
        "one_shard",
        "model.ckpt",
        &|dir| flip(&dir.join("model.ckpt.index"), 100),
        &["DIR/model.ckpt.index: is no intact checkpoint", "crc32c", "(at byte 0)"],
    );
    case(
        "one_shard",
        "model.ckpt",
        &|dir| {
            let checkpoint = open(dir).unwrap();
            let weights = checkpoint.get("conv/weights").unwrap().to_bytes().unwrap();
            let data = dir.join("model.ckpt.data-00000-of-00001");
            let at = fs::read(&data).unwrap().windows(weights.len()).position(|window| window == weights).unwrap();
            flip(&data, at + 20);
        },
        &["DIR/model.ckpt.data-00000-of-00001: tensor conv/weights does not match its checksum (crc32c)"],
    );
    case("version1", "model.ckpt", &|dir| flip(&dir.join("model.ckpt"), 300), &["DIR/model.ckpt"]);
    case(
        "one_shard",
        "model.ckpt",
        &|dir| {
            let path = dir.join("model.ckpt.index");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
        &["DIR/model.ckpt.index: is no intact checkpoint: the end of the table is missing"],
    );
    case(
        "one_shard",
        "model.ckpt",
        &|dir| fs::write(dir.join("model.ckpt.index"), "").unwrap(),
        &["model.ckpt.index: is an empty file"],
    );
    case(
        "one_shard",
        "model.ckpt",
        &|dir| {
            let path = dir.join("model.ckpt.data-00000-of-00001");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..1000]).unwrap();
        },
        &["model.ckpt.data-00000-of-00001: has 1000 of", "cut off, beginning with"],
    );
    case(
        "graphs",
        "constants.pb",
        &|_| (),
        &["constants.pb: is a TensorFlow graph (GraphDef); a TensorFlow checkpoint was expected", "-in"],
    );
    case("graphs", "", &|_| (), &["DIR/: has no checkpoint", "There are constants.pb, constants.pbtxt."]);
}

#[test]
fn a_missing_variable_is_named_with_near_ones() {
    let checkpoint = open(&fixture("one_shard")).unwrap();
    assert!(checkpoint.problem_if_missing("conv/weights").is_none());
    let problem = checkpoint.problem_if_missing("net/conv/weights").unwrap();
    assert!(problem.message.contains("is not in the checkpoint"));
    assert_eq!(problem.node.as_deref(), Some("net/conv/weights"));
    assert_eq!(problem.hint.as_deref(), Some("It has conv/weights."));
    assert!(checkpoint.problem_if_missing("words").unwrap().message.contains("no numbers"));
    assert!(checkpoint.problem_if_missing("quite/another").unwrap().hint.unwrap().contains("right checkpoint"));
}

#[test]
fn files_that_are_no_graphs_are_recognised() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.pb");
    for (bytes, wanted) in [
        (&b"\x89HDF\r\n\x1a\n...."[..], "is an HDF5 file"),
        (b"PK\x03\x04....", "is a zip archive"),
        (b"\x80\x02}q\x00.", "is a pickle"),
        (b"", "is an empty file"),
        (&[0; 100], "is a file of zeros"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"{\"a\": 1}", "is a JSON file"),
        (b"node {\n  name: \"x\"\n}\n", "is a TensorFlow graph as text (.pbtxt)"),
        (b"Hello, world\n", r#"is a file of an unknown format that begins with "Hello, world\n"; a TensorFlow graph"#),
        (&[0xff; 64], "is a file of an unknown format that begins with the bytes ff ff ff ff"),
        (b"\x1c\x00\x00\x00TFL3....", "TensorFlow Lite"),
        (b"\x08\x07\x12\x07pytorch\x3a\x02\x0a\x00", "ONNX"),
        (b"\x0a\x0f\x0a\x01x\x12\x04Relu\x22\x04\x0a\x02ab", "is an intermediate file (IR)"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = MetaGraph::open(&path).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let error = MetaGraph::open(&fixture("graphs/constants.pbtxt")).unwrap_err().to_string();
    assert!(error.contains("as text") && error.contains("Convert it to binary"), "{error}");
    let error = locate::network(&fixture("version1/model.ckpt")).unwrap_err().to_string();
    assert!(error.contains("is a TensorFlow checkpoint") && error.contains("-iw"), "{error}");
}

/// A graph of more than two gigabytes is read without its constants.
#[test]
fn huge_frozen_graphs() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("huge.pb");
    let count = 3u64 << 28;
    let varint = |mut value: u64| {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    };
    // A length-delimited field that begins with `head` and goes on for `len` bytes.
    let field = |tag: u8, head: &[u8], len: u64| [&[tag][..], &varint(head.len() as u64 + len), head].concat();
    let dim = [&[0x08][..], &varint(count)].concat();
    let shape = field(0x12, &field(0x12, &dim, 0), 0);
    let len = count * 4;
    let tensor = [&[0x08, 1][..], &shape, &field(0x22, &[], len)].concat();
    let entry = [&b"\x0a\x05value"[..], &field(0x12, &field(0x42, &tensor, len), len)].concat();
    let node = [&b"\x0a\x01w\x12\x05Const"[..], &field(0x2a, &entry, len)].concat();
    let node = field(0x0a, &node, len);
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&node).unwrap();
    file.set_len(node.len() as u64 + len).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b"\x0a\x0d\x0a\x01y\x12\x08Identity").unwrap();
    let meta = MetaGraph::open(&path).unwrap();
    assert_eq!(meta.graph.nodes[1].op, "Identity");
    let tensor = numbers(&meta, "w");
    assert_eq!(tensor.shape(), [count as usize]);
    assert_eq!(tensor.sliced(0, count as usize - 2, count as usize).unwrap().to_f32().unwrap(), [0., 0.]);
}

/// No damage to a file makes a reader panic or take long, and what is cut off is noticed.
#[test]
fn truncated_and_flipped_files_never_panic() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x");
    for file in ["one_shard/model.ckpt.meta", "graphs/constants.pb", "saved_model/saved_model.pb"] {
        let good = fs::read(fixture(file)).unwrap();
        for end in (0..good.len()).step_by(if good.len() < 3000 { 1 } else { good.len() / 300 }) {
            replace(&path, &good[..end]);
            if let Ok(meta) = MetaGraph::open(&path) {
                // Cut between two top-level fields: a shorter graph.
                assert!(!meta.graph.nodes.is_empty());
            }
        }
        for at in (0..good.len()).step_by(good.len() / 100 + 1) {
            for flip in [0x01, 0x08, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= flip;
                replace(&path, &bad);
                let _ = MetaGraph::open(&path);
            }
        }
    }
}

#[test]
fn damaged_checkpoints_never_panic() {
    for (name, checkpoint) in
        [("one_shard", "model.ckpt.index"), ("tiles", "model.ckpt.index"), ("version1", "model.ckpt")]
    {
        let folder = copy(name);
        let path = folder.path().join(checkpoint);
        let good = fs::read(&path).unwrap();
        for end in 0..good.len() {
            replace(&path, &good[..end]);
            assert!(Checkpoint::open(&path).is_err(), "{name} cut at {end}");
        }
        for at in (0..good.len()).step_by(good.len() / 1000 + 1) {
            let mut bad = good.clone();
            bad[at] ^= 0x11;
            replace(&path, &bad);
            if let Ok(checkpoint) = Checkpoint::open(&path) {
                let _ = checkpoint.verify();
            }
        }
    }
}
