//! Files that PyTorch has written (`tests/fixtures/pytorch_files.py`), in every format that it has had.

use std::path::PathBuf;

use modelport_ir::{DType, Tensor};

use super::module::Plain;
use super::state::{Selection, StateDict};
use super::{read_module, read_state, read_weights, state};

pub(super) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pytorch")).join(name)
}

const KEYS: [&str; 8] = [
    "conv.weight",
    "bn.weight",
    "bn.bias",
    "bn.running_mean",
    "bn.running_var",
    "head.weight",
    "head.bias",
    "tied.weight",
];

/// Whether a state dict is that of the network: numbers count up from the position of the tensor.
#[track_caller]
fn check(state: &StateDict, name: &str) {
    let keys: Vec<&str> = state.tensors.keys().map(String::as_str).collect();
    let ordered: Vec<&str> = KEYS.into_iter().filter(|key| keys.contains(key)).collect();
    assert_eq!(ordered.len(), KEYS.len(), "{name}: {keys:?}");
    assert_eq!(state.tensors["conv.weight"].shape(), [4, 3, 3, 3], "{name}");
    let kernel = state.tensors["conv.weight"].to_f32().unwrap();
    assert_eq!((kernel[0], kernel[107]), (0.0, 107.0), "{name}");
    assert_eq!(state.tensors["bn.bias"].to_f32().unwrap(), [2.0, 3.0, 4.0, 5.0], "{name}");
    assert_eq!(
        state.tensors["head.weight"].to_f32().unwrap(),
        state.tensors["tied.weight"].to_f32().unwrap(),
        "{name}"
    );
    assert_eq!(state.counters["bn.num_batches_tracked"].dtype(), DType::Int64, "{name}");
}

#[test]
fn every_format_gives_the_same() {
    for (name, tied) in [
        ("state.pth", true),
        ("state_legacy.pth", true),
        ("state_tar.pth", false),
        ("whole.pth", true),
        ("whole_legacy.pth", true),
        ("state.npz", false),
        ("state_compressed.npz", false),
        ("state.pkl", false),
        ("state.safetensors", false),
        ("state.safetensors.index.json", false),
    ] {
        let state = read_state(&fixture(name)).unwrap();
        check(&state, name);
        assert_eq!(state.tensors["head.weight"].is_same(&state.tensors["tied.weight"]), tied, "{name}");
    }
}

#[test]
fn checkpoints_are_looked_into() {
    let path = fixture("checkpoint.pth.tar");
    let state = read_state(&path).unwrap();
    check(&state, "checkpoint");
    assert_eq!((state.key.as_str(), state.prefix.as_str()), ("state_dict", "module."));
    assert_eq!(state.others, ["state_dict_ema"]);
    assert_eq!(state.unstripped().tensors.keys().next().unwrap(), "module.conv.weight");
    let average = state::select(&path, &Selection { key: None, moving_averages: true }).unwrap();
    assert_eq!(average.key, "state_dict_ema");
    assert_eq!(average.tensors["bn.bias"].to_f32().unwrap(), [1.0, 1.5, 2.0, 2.5]);
    let named = state::select(&path, &Selection { key: Some("state_dict_ema"), moving_averages: false }).unwrap();
    assert_eq!(named.key, "state_dict_ema");
    let error = state::select(&path, &Selection { key: Some("teacher"), moving_averages: false }).unwrap_err();
    assert!(
        error.to_string().ends_with("no state dict under 'teacher'\n    tensors are under: state_dict, state_dict_ema")
    );
    // What is between the steps is not touched.
    assert_eq!(read_weights(&path).unwrap()[0].0, "module.conv.weight");
    assert_eq!(state.under("bn.").unwrap().tensors.len(), 4);
}

#[test]
fn views_keep_their_order_and_type() {
    for name in ["views.pth", "views_legacy.pth"] {
        let state = read_state(&fixture(name)).unwrap();
        let numbers = |key: &str| state.tensors[key].to_f64().unwrap();
        let want: Vec<f64> = (0..6).flat_map(|x| (0..4).map(move |y| f64::from(y * 6 + x))).collect();
        assert_eq!((state.tensors["transposed"].shape(), numbers("transposed")), (vec![6, 4], want), "{name}");
        assert_eq!(numbers("part"), [3.0, 4.0, 5.0, 6.0], "{name}");
        assert_eq!(numbers("stepped"), [0.0, 5.0, 10.0, 15.0, 20.0], "{name}");
        assert_eq!(numbers("repeated"), [7.0; 3], "{name}");
        assert_eq!(numbers("half"), numbers("brain"), "{name}");
        assert_eq!(numbers("truth"), [1.0, 0.0], "{name}");
        assert_eq!(state.tensors["nothing"].shape(), [0, 3], "{name}");
        let types: Vec<DType> = state.tensors.values().skip(4).map(Tensor::dtype).collect();
        use DType::*;
        assert_eq!(types, [Float16, BFloat16, Int64, Bool, UInt16, Float32, Float64], "{name}");
    }
}

#[test]
fn modules_are_trees() {
    for name in ["whole.pth", "whole_legacy.pth"] {
        let module = read_module(&fixture(name)).unwrap().unwrap();
        assert_eq!((module.class.as_str(), module.class_name()), ("__main__.Block", "Block"), "{name}");
        assert_eq!(module.attributes["training"], Plain::Bool(false));
        assert_eq!(module.attributes["absent"], Plain::None);
        let five = Plain::Dict(vec![(Plain::Text("five".into()), Plain::Float(5.0))]);
        let sizes = [
            Plain::Tuple(vec![Plain::Int(1), Plain::Int(2)]),
            Plain::Tuple(vec![Plain::Int(3), Plain::Text("four".into())]),
            five,
        ];
        assert_eq!(module.attributes["sizes"], Plain::List(sizes.into()), "{name}");
        assert_eq!(module.buffers["scale"].as_ref().unwrap().to_f32().unwrap(), [2.0]);
        assert!(module.not_persistent.contains("scale"));
        let child = |name: &str| module.children[name].as_deref().unwrap();
        assert_eq!(child("conv").class, "torch.nn.modules.conv.Conv2d");
        assert_eq!(child("conv").attributes["stride"], Plain::Tuple(vec![Plain::Int(2); 2]));
        assert!(child("conv").parameters["bias"].is_none());
        assert_eq!(child("act").id, child("again").id);
        let own = ["training", "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"];
        assert!(own.iter().all(|name| child("conv").attributes.contains_key(*name)), "{:?}", child("conv").attributes);
    }
    assert!(read_module(&fixture("state.pth")).unwrap().is_none());
}

#[test]
fn what_can_not_be_read_is_named() {
    let error = read_state(&fixture("refused.pth")).unwrap_err();
    let texts: Vec<String> = error.problems.into_iter().map(|problem| problem.message).collect();
    assert_eq!(
        texts,
        [
            "'complex' has elements of the type ComplexFloat: complex numbers can't be converted",
            "'eighth' has elements of the type float8_e4m3fn: numbers of 8 bits that have to be scaled can't be converted",
            "'quantised' is a quantised tensor; convert the network before it is quantised",
            "'sparse' is a sparse tensor; save tensor.to_dense() instead",
            "'meta' has no elements: it was saved on the meta device",
        ]
    );
    let error = read_state(&fixture("printed.txt")).unwrap_err().to_string();
    assert!(error.contains("is the printed module tree") && error.contains("torch.export.save("), "{error}");
}
