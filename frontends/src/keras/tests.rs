use super::*;

use modelport_ir::hdf5::{Attribute, Plan};

fn write(folder: &Path, name: &str, root: &Group) -> PathBuf {
    let path = folder.join(name);
    let mut bytes = Vec::new();
    Plan::of(root).unwrap().write_to(&mut bytes).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::from_f32(shape, &vec![1.0; shape.iter().product()])
}

fn names(stored: &Stored) -> Vec<String> {
    let of = |layer: &Layer| layer.variables.iter().map(|v| format!("{}/{}", layer.name, v.name)).collect::<Vec<_>>();
    stored.layers.iter().flat_map(of).collect()
}

#[test]
fn weights_by_class_and_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut root = Group::default();
    for index in 0..11 {
        let path = if index == 0 { "layers/conv2d".to_owned() } else { format!("layers/conv2d_{index}") };
        root.put(&format!("{path}/vars/0"), ones(&[1, 1, 2, 2])).unwrap();
    }
    root.put("layers/conv2d/vars/1", ones(&[2])).unwrap();
    root.make("layers/conv2d/vars").unwrap().attributes.insert("name".into(), Attribute::Text("stem".into()));
    for index in 0..4 {
        root.put(&format!("layers/batch_normalization/vars/{index}"), ones(&[2])).unwrap();
    }
    for index in 0..3 {
        root.put(&format!("layers/bidirectional/forward_layer/cell/vars/{index}"), ones(&[2, 8])).unwrap();
    }
    root.put("layers/dropout/seed_generator/vars/0", ones(&[2])).unwrap();
    let stored = open(&write(folder.path(), "w.weights.h5", &root)).unwrap();
    assert_eq!(stored.form, Form::Weights);
    let names = names(&stored);
    assert_eq!(
        names[..4],
        [
            "batch_normalization/gamma",
            "batch_normalization/beta",
            "batch_normalization/moving_mean",
            "batch_normalization/moving_variance"
        ]
    );
    assert_eq!(
        names[4..8],
        [
            "bidirectional/forward_layer/kernel",
            "bidirectional/forward_layer/recurrent_kernel",
            "bidirectional/forward_layer/bias",
            "stem/kernel"
        ]
    );
    assert_eq!(names[17..], ["conv2d_9/kernel", "conv2d_10/kernel"]);
    assert_eq!(stored.layers[2].class.as_deref(), Some("conv2d"));
}

#[test]
fn legacy_weights_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut root = Group::default();
    let config = r#"{"class_name": "Functional", "config": {"input_layers": [["x", 0, 0]], "layers": [
        {"class_name": "InputLayer", "name": "x", "config": {"batch_input_shape": [null, 8, 8, 3]}, "inbound_nodes": []},
        {"class_name": "Conv2DTranspose", "name": "up", "config": {}, "inbound_nodes": [[["x", 0, 0, {}]]]},
        {"class_name": "Flatten", "name": "flat", "config": {}, "inbound_nodes": [[["up", 0, 0, {}]]]},
        {"class_name": "Dropout", "name": "drop", "config": {}, "inbound_nodes": [[["flat", 0, 0, {}]]]},
        {"class_name": "Dense", "name": "head", "config": {}, "inbound_nodes": [[["drop", 0, 0, {}]]]},
        {"class_name": "Dense", "name": "last", "config": {}, "inbound_nodes": [[["head", 0, 0, {}]]]},
        {"class_name": "LSTM", "name": "lstm", "config": {}, "inbound_nodes": []}]}}"#;
    root.attributes.insert("model_config".into(), Attribute::Text(config.into()));
    let weights = root.make("model_weights").unwrap();
    weights.set_texts("layer_names", vec!["up".into(), "head".into(), "last".into(), "lstm".into()]);
    for (layer, weight) in [
        ("up", "up/kernel:0"),
        ("head", "head/kernel:0"),
        ("last", "last/kernel:0"),
        ("lstm", "lstm/lstm_cell_3/recurrent_kernel:0"),
    ] {
        let group = weights.make(layer).unwrap();
        group.set_texts("weight_names", vec![weight.into()]);
        group.put(weight, ones(&[2, 2])).unwrap();
    }
    let stored = open(&write(folder.path(), "m.h5", &root)).unwrap();
    assert_eq!(stored.form, Form::Whole);
    assert_eq!(names(&stored), ["up/kernel", "head/kernel", "last/kernel", "lstm/recurrent_kernel"]);
    let classes: Vec<_> = stored.layers.iter().map(|layer| layer.class.as_deref().unwrap()).collect();
    assert_eq!(classes, ["conv2d_transpose", "dense", "dense", "lstm"]);
    assert_eq!(
        stored.layers.iter().map(|layer| layer.after_flatten.is_some()).collect::<Vec<_>>(),
        [false, true, false, false]
    );
    assert!(stored.root.dataset(&stored.layers[3].variables[0].path).is_some());
}

#[test]
fn what_is_none_of_keras_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let empty = write(folder.path(), "empty.h5", &Group::default());
    assert!(open(&empty).unwrap_err().to_string().contains("without weights of layers"));
    let other = folder.path().join("x.keras");
    std::fs::write(&other, "no archive").unwrap();
    assert!(!is_file(&other) && open(&other).is_err() && is_file(&empty));
}
