//! A frozen graph, given as the network or as the weights, is the same network as its meta graph with the checkpoint.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use modelport_frontends::{Source, tensorflow};
use modelport_ir::eval::{Array, evaluate};
use modelport_ir::{Graph, Op};

fn source(network: Option<PathBuf>, weights: Option<PathBuf>, case: &serde_json::Value) -> Source {
    let outputs = case["outputs"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    Source { network, weights, outputs, ..Source::default() }
}

/// What a network gives for numbers that differ everywhere, or for small whole ones.
fn outputs(graph: &Graph) -> Vec<Array> {
    let inputs: Vec<Array> = graph
        .inputs
        .iter()
        .map(|port| {
            let info = graph.info(port.value);
            let shape: Vec<usize> = info.shape.iter().map(|dim| dim.known().unwrap_or(1)).collect();
            let count = shape.iter().product::<usize>();
            let value = |i: usize| if info.dtype.is_float() { (i as f64 * 0.37).sin() } else { (i % 5) as f64 };
            Array::from_f64(info.dtype, &shape, (0..count).map(value).collect()).unwrap()
        })
        .collect();
    evaluate(graph, &inputs).unwrap()
}

fn layers(graph: &Graph) -> usize {
    graph.ids().into_iter().filter(|id| !matches!(graph.op(*id), Op::Constant(_))).count()
}

#[test]
fn frozen_graphs_are_the_same_networks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/networks");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path().join("case.json")).unwrap();
        let case: serde_json::Value = serde_json::from_str(&text).unwrap();
        let (Some(frozen), Some(network)) = (case["frozen"].as_str(), case["network"].as_str()) else { continue };
        let frozen = entry.path().join(frozen);
        let saved =
            source(Some(entry.path().join(network)), case["weights"].as_str().map(|w| entry.path().join(w)), &case);
        let saved = tensorflow::read(&saved).unwrap();
        let expected = outputs(&saved);
        for (network, weights) in [(Some(frozen.clone()), None), (None, Some(frozen))] {
            let graph = tensorflow::read(&source(network, weights, &case)).unwrap();
            assert_eq!(layers(&graph), layers(&saved), "{}", entry.path().display());
            assert_eq!(outputs(&graph), expected, "{}", entry.path().display());
        }
        count += 1;
    }
    assert!(count > 10);
}
