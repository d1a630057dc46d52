use modelport_ir::{DType, Dim, Shape, Tensor};
use serde_json::{Map, Value};

use super::*;
use crate::keras::model::{Argument, Call, Layer, TensorRef};
use crate::plan::Param;

fn tensor(layer: usize, sizes: &[usize]) -> TensorRef {
    let sizes = std::iter::once(Dim::symbol("N")).chain(sizes.iter().map(|size| Dim::Known(*size)));
    TensorRef { layer, node: 0, tensor: 0, shape: Some(Shape(sizes.collect())), dtype: DType::Float32 }
}

fn layer(class: &str, config: Value, reads: &[TensorRef], weights: &[(&str, &[usize])]) -> Layer {
    let arguments: Vec<Argument> = reads.iter().cloned().map(Argument::Tensor).collect();
    let args = if arguments.len() > 1 { vec![Argument::List(arguments)] } else { arguments };
    let param = |(key, shape): &(&str, &[usize])| {
        let n = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..n).map(|index| 0.01 * (index % 17) as f32 + 0.05).collect();
        Param { key: (*key).to_owned(), tensor: Tensor::from_f32(shape, &values), source: String::new() }
    };
    let name = config["name"].as_str().unwrap_or_default().to_owned();
    Layer {
        name,
        class_name: class.to_owned(),
        module: "keras.layers".to_owned(),
        config: config.as_object().cloned().unwrap_or_else(Map::new),
        calls: if reads.is_empty() { Vec::new() } else { vec![Call { args, kwargs: Vec::new() }] },
        weights: weights.iter().map(param).collect(),
    }
}

/// A network with layers that keep their weights in different ways.
fn model() -> Model {
    let norm: &[(&str, &[usize])] =
        &[("gamma", &[3]), ("beta", &[3]), ("moving_mean", &[3]), ("moving_variance", &[3])];
    let bidirectional = json!({
        "name": "both", "merge_mode": "concat",
        "layer": {"class_name": "GRU", "config": {"name": "gru", "units": 2, "return_sequences": true}, "module": "keras.layers", "registered_name": null},
    });
    let gru: &[(&str, &[usize])] = &[
        ("forward_layer/kernel", &[3, 6]),
        ("forward_layer/recurrent_kernel", &[2, 6]),
        ("forward_layer/bias", &[2, 6]),
        ("backward_layer/kernel", &[3, 6]),
        ("backward_layer/recurrent_kernel", &[2, 6]),
        ("backward_layer/bias", &[2, 6]),
    ];
    let lstm: &[(&str, &[usize])] = &[("kernel", &[4, 8]), ("recurrent_kernel", &[2, 8]), ("bias", &[8])];
    let layers = vec![
        layer("InputLayer", json!({"name": "x", "batch_shape": [null, 5, 3], "dtype": "float32"}), &[], &[]),
        layer(
            "Conv1D",
            json!({"name": "conv_1", "filters": 3, "kernel_size": [2], "padding": "same"}),
            &[tensor(0, &[5, 3])],
            &[("kernel", &[2, 3, 3]), ("bias", &[3])],
        ),
        layer(
            "BatchNormalization",
            json!({"name": "bn", "epsilon": 0.001, "gamma_initializer": {"module": "keras.initializers", "class_name": "Ones", "config": {}, "registered_name": null}}),
            &[tensor(1, &[5, 3])],
            norm,
        ),
        layer(
            "Conv1D",
            json!({"name": "a_first", "filters": 3, "kernel_size": [1], "use_bias": false}),
            &[tensor(2, &[5, 3])],
            &[("kernel", &[1, 3, 3])],
        ),
        layer("Add", json!({"name": "sum"}), &[tensor(2, &[5, 3]), tensor(3, &[5, 3])], &[]),
        layer("Dropout", json!({"name": "drop", "rate": 0.5}), &[tensor(4, &[5, 3])], &[]),
        layer("Bidirectional", bidirectional, &[tensor(5, &[5, 3])], gru),
        layer("LSTM", json!({"name": "lstm", "units": 2}), &[tensor(6, &[5, 4])], lstm),
    ];
    Model { name: "net".to_owned(), layers, inputs: vec![tensor(0, &[5, 3])], outputs: vec![tensor(7, &[2])] }
}

#[test]
fn weights_are_where_keras_looks() {
    let root = weights(&model()).unwrap();
    let paths: Vec<String> = root.datasets().into_iter().map(|(path, _)| path).collect();
    for path in [
        "layers/conv1d/vars/0",
        "layers/conv1d_1/vars/0",
        "layers/batch_normalization/vars/3",
        "layers/dropout/seed_generator/vars/0",
        "layers/bidirectional/forward_layer/cell/vars/2",
        "layers/bidirectional/backward_layer/cell/vars/0",
        "layers/lstm/cell/vars/2",
    ] {
        assert!(paths.iter().any(|found| found == path), "{path} is not in {paths:?}");
    }
    assert_eq!(root.group("layers/conv1d/vars").unwrap().text("name"), Some("conv_1"));
}

#[test]
fn legacy_weights_have_lists_of_names() {
    let root = legacy_weights(&model()).unwrap();
    assert_eq!(root.texts("layer_names").unwrap(), ["x", "conv_1", "bn", "a_first", "sum", "drop", "both", "lstm"]);
    let names = |layer: &str| root.group(layer).unwrap().texts("weight_names").unwrap();
    assert_eq!(names("conv_1"), ["conv_1/kernel:0", "conv_1/bias:0"]);
    assert_eq!(
        names("lstm"),
        ["lstm/lstm_cell/kernel:0", "lstm/lstm_cell/recurrent_kernel:0", "lstm/lstm_cell/bias:0"]
    );
    assert!(names("x").is_empty());
    for layer in root.texts("layer_names").unwrap() {
        for name in names(&layer) {
            assert!(root.dataset(&format!("{layer}/{name}")).is_some(), "{layer}/{name}");
        }
    }
}

#[test]
fn configurations_of_keras_2() {
    let root = whole(&model(), 2).unwrap();
    let config: Value = serde_json::from_str(root.text("model_config").unwrap()).unwrap();
    assert_eq!(config.pointer("/config/layers/0/config/batch_input_shape"), Some(&json!([null, 5, 3])));
    assert_eq!(
        config.pointer("/config/layers/4/inbound_nodes"),
        Some(&json!([[["bn", 0, 0, {}], ["a_first", 0, 0, {}]]]))
    );
    let inner = json!({
        "module": "keras.layers", "class_name": "GRU", "registered_name": null,
        "config": {"name": "gru", "units": 2, "return_sequences": true},
    });
    assert_eq!(config.pointer("/config/layers/6/config/layer"), Some(&inner));
    let mut model = model();
    model.layers[4].module = "keras.src.ops.numpy".to_owned();
    let error = whole(&model, 2).unwrap_err().to_string();
    assert!(error.contains("[Add]") && error.contains("at sum") && error.contains(".safetensors"), "{error}");
    let root = whole(&model, 3).unwrap();
    let config: Value = serde_json::from_str(root.text("model_config").unwrap()).unwrap();
    assert_eq!(config.pointer("/config/layers/4/module"), Some(&json!("keras.src.ops.numpy")));
}

#[test]
fn names_tell_formats() {
    let of = |name: &str| FileFormat::of(Path::new(name));
    assert_eq!(of("a/net.keras"), Some(FileFormat::Keras));
    assert_eq!(of("net.H5"), Some(FileFormat::H5));
    assert_eq!(of("net.weights.h5"), Some(FileFormat::Weights));
    assert_eq!((of("net.pth"), of("keras")), (None, None));
}

#[test]
fn classes_in_snake_case() {
    let names = ["Conv2D", "BatchNormalization", "Conv2DTranspose", "LSTM", "ReLU", "GlobalAveragePooling2D", "PReLU"];
    let expected =
        ["conv2d", "batch_normalization", "conv2d_transpose", "lstm", "re_lu", "global_average_pooling2d", "p_re_lu"];
    assert_eq!(names.map(layers::snake_case), expected);
}

/// All kinds of files are complete, and the same every time. With `MODELPORT_FILES` they are left in that folder.
#[test]
fn files_are_written_alike() {
    let folder = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("MODELPORT_FILES").map(std::path::PathBuf::from);
    let folder = kept.as_deref().unwrap_or(folder.path());
    for name in ["net.keras", "net.h5", "net.weights.h5"] {
        let path = folder.join(name);
        write(&path, &model()).unwrap();
        let first = std::fs::read(&path).unwrap();
        write(&path, &model()).unwrap();
        assert!(first == std::fs::read(&path).unwrap(), "{name}");
    }
    assert!(write(&folder.join("net.txt"), &model()).is_err());
}
