//! Training graphs: the inference graph by default, the training graph when it is asked for; both can be trained.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use modelport_frontends::{Source, tensorflow};
use modelport_ir::{Graph, Op};

fn read(case: &str, cut: &str, training: bool) -> Graph {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/networks").join(case);
    let source = Source {
        network: Some(folder.join("model.ckpt.meta")),
        outputs: vec!["output".to_owned()],
        inputs: vec![cut.to_owned()],
        input_shapes: vec![vec![23, 30, 3]],
        training,
        ..Source::default()
    };
    tensorflow::read(&source).unwrap_or_else(|error| panic!("{error}"))
}

fn count(graph: &Graph, test: impl Fn(&Op) -> bool) -> usize {
    graph.ids().into_iter().filter(|id| test(graph.op(*id))).count()
}

#[test]
fn batch_norms_know_their_momentum() {
    for (case, cut) in [("cnn_training", "IteratorGetNext"), ("cnn_training_switch", "batch")] {
        let graph = read(case, cut, false);
        let momenta: Vec<Option<f32>> = graph
            .ids()
            .into_iter()
            .filter_map(|id| match graph.op(id) {
                Op::BatchNorm(norm) => Some(norm.momentum),
                _ => None,
            })
            .collect();
        assert!(momenta.len() == 4 && momenta.iter().all(|m| m.is_some_and(|m| m > 0.0 && m < 0.5)), "{momenta:?}");
    }
}

#[test]
fn dropout_is_kept_in_both_phases() {
    let dropouts = |training| count(&read("cnn_training_switch", "batch", training), |op| matches!(op, Op::Dropout(_)));
    assert_eq!((dropouts(false), dropouts(true)), (1, 1));
    let norms = |training| count(&read("cnn_training_switch", "batch", training), |op| matches!(op, Op::BatchNorm(_)));
    assert_eq!((norms(false), norms(true)), (4, 4));
}
