//! What people get wrong with TensorFlow's files, and what they are told; damaged files never stop the program.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use modelport_frontends::Source;
use modelport_frontends::tensorflow::{self, candidates};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(path)
}

fn network(path: &str) -> Source {
    Source { network: Some(fixture(path)), ..Source::default() }
}

fn error(source: &Source) -> String {
    tensorflow::read(source).unwrap_err().to_string()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn unknown_names_are_answered_with_near_ones() {
    let mlp = network("networks/mlp/model.ckpt.meta");
    let text = error(&Source { outputs: names(&["dense/Relo", "nothing/like/it"]), ..mlp.clone() });
    assert!(text.contains("no node 'dense/Relo'") && text.contains("no node 'nothing/like/it'"), "{text}");
    let text = error(&Source { inputs: names(&["inputt"]), ..mlp });
    assert!(text.contains("no node 'inputt'") && text.contains("Near it come: input"), "{text}");
}

#[test]
fn outputs_are_inferred_or_listed() {
    let graph = tensorflow::read(&network("networks/inception_v3/frozen.pb")).unwrap();
    assert_eq!(graph.outputs[0].name, "MMdnn_Output");
    assert_eq!((graph.name.as_str(), graph.source.as_str()), ("frozen", "TensorFlow: frozen.pb"));

    let two = network("ops/activation/elu/graph.pb");
    let text = error(&two);
    assert!(text.contains("2 nodes may be") && text.contains("Elu [Elu] [N, 4, 5, 3]"), "{text}");
    let list: Vec<String> = candidates(&two).unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(list, ["Elu", "Selu"]);

    // Beside a loss, an optimizer and summaries.
    for case in ["cnn_training", "cnn_training_switch"] {
        assert_eq!(candidate_names(case), ["output"], "{case}");
    }
}

fn candidate_names(case: &str) -> Vec<String> {
    let list = candidates(&network(&format!("networks/{case}/model.ckpt.meta"))).unwrap();
    list.into_iter().map(|candidate| candidate.name).collect()
}

#[test]
fn variables_that_are_missing_make_one_list() {
    let source =
        Source { weights: Some(fixture("networks/mlp/model.ckpt")), ..network("networks/squeezenet/model.ckpt.meta") };
    let problems = tensorflow::read(&source).unwrap_err().problems;
    assert!(problems.len() > 10 && problems.iter().all(|p| p.message.contains("variable")), "{problems:?}");

    let alone = tempfile::tempdir().unwrap();
    let meta = alone.path().join("model.ckpt.meta");
    fs::copy(fixture("networks/mlp/model.ckpt.meta"), &meta).unwrap();
    let text = error(&Source { network: Some(meta), outputs: candidate_names("mlp"), ..Source::default() });
    assert!(text.contains("there is no checkpoint") && text.contains("-iw"), "{text}");
}

#[test]
fn every_operator_that_is_not_supported_is_listed() {
    let text = error(&network("ops/unsupported/linalg/graph.pb"));
    for op in ["MatrixInverse", "Cholesky", "Qr"] {
        assert!(text.contains(&format!("[{op}]")), "{text}");
    }
    assert!(text.contains("(float32[4, 4])"), "{text}");
}

#[test]
fn unknown_sizes_ask_for_a_shape() {
    let source = network("ops/resize/size_of_input/graph.pb");
    let text = error(&source);
    assert!(text.contains("--inputShape") && text.contains("'x' [N, x_1, x_2, 2]"), "{text}");
    let graph = tensorflow::read(&Source { input_shapes: vec![vec![6, 8, 2]], ..source }).unwrap();
    assert_eq!(graph.shape(graph.outputs[0].value).to_string(), "[N, 6, 8, 3]");
}

#[test]
fn a_graph_is_cut_at_any_node() {
    let source = Source { inputs: names(&["conv1/Relu"]), ..network("networks/squeezenet/frozen.pb") };
    let whole = tensorflow::read(&Source { inputs: Vec::new(), ..source.clone() }).unwrap();
    let relus: Vec<String> = whole
        .ids()
        .into_iter()
        .filter(|id| whole.op(*id).name() == "Relu")
        .map(|id| whole.node(id).name.clone())
        .collect();
    let cut = tensorflow::read(&Source { inputs: vec![relus[0].clone()], ..source }).unwrap();
    assert_eq!(cut.inputs.len(), 1);
    assert_eq!(cut.inputs[0].name, relus[0]);
    assert!(cut.len() < whole.len());
    // The shape is that which the value has in the whole graph.
    let value = modelport_ir::Value::from(whole.find(&relus[0]).unwrap());
    assert_eq!(cut.shape(cut.inputs[0].value), whole.shape(value));
}

/// Changed bytes, by a small generator of numbers.
fn damaged(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % limit.max(1) as u64).unwrap()
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=next(4) {
        let place = next(bytes.len());
        bytes[place] = [0, 1, 0x7f, 0x80, 0xff, u8::try_from(next(256)).unwrap()][next(6)];
    }
    bytes
}

#[test]
fn damaged_graphs_are_errors_or_other_graphs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph.pb");
    let rounds: u64 = std::env::var("DAMAGE").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut read = 0;
    for family in fs::read_dir(fixture("ops")).unwrap().flatten() {
        for case in fs::read_dir(family.path()).unwrap().flatten() {
            let Ok(bytes) = fs::read(case.path().join("graph.pb")) else { continue };
            for seed in 0..rounds {
                fs::write(&path, damaged(&bytes, seed + 1)).unwrap();
                let source = Source { network: Some(path.clone()), ..Source::default() };
                read += usize::from(tensorflow::read(&source).is_ok());
            }
        }
    }
    assert!(read > 0);
}
