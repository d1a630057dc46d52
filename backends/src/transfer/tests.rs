use modelport_ir::Tensor;

use super::*;

fn counting(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::from_f32(shape, &(0..n).map(|index| index as f32).collect::<Vec<_>>())
}

/// A name and a shape.
type Named<'a> = (&'a str, &'a [usize]);

fn torch(tensors: &[Named]) -> Side {
    let tensors: Vec<(&str, Tensor)> = tensors.iter().map(|(name, shape)| (*name, counting(shape))).collect();
    Side::pytorch(tensors.iter().map(|(name, tensor)| (*name, tensor)))
}

fn keras(layers: &[(&str, Option<&str>, &[Named])]) -> Side {
    let layers = layers.iter().flat_map(|(name, class, variables)| {
        let variables: Vec<(&str, Tensor)> = variables.iter().map(|(name, shape)| (*name, counting(shape))).collect();
        let facts = KerasLayer { name, class: *class, ..KerasLayer::default() };
        Side::keras_layers(&facts, variables.iter().map(|(name, tensor)| (*name, tensor)))
    });
    Side { family: Family::Keras, layers: layers.collect() }
}

fn of<'a>(plan: &'a Plan, target: &str) -> &'a Match {
    plan.matches.iter().find(|found| found.target == target).unwrap_or_else(|| panic!("{target} in {plan:?}"))
}

fn values(plan: &Plan, target: &str) -> Vec<f32> {
    of(plan, target).tensor.to_f32().unwrap()
}

#[test]
fn the_kind_turns_square_kernels() {
    let source = torch(&[("a.weight", &[2, 2, 2, 2]), ("b.weight", &[2, 2, 2, 2]), ("c.weight", &[4, 1, 2, 2])]);
    let target = keras(&[
        ("a", Some("conv2d"), &[("kernel", &[2, 2, 2, 2])]),
        ("b", Some("conv2d_transpose"), &[("kernel", &[2, 2, 2, 2])]),
        ("c", Some("depthwise_conv2d"), &[("kernel", &[2, 2, 2, 2])]),
    ]);
    let plan = plan(&source, &target, &Options::default());
    assert!(plan.is_complete(), "{plan:?}");
    // [out, in, y, x] at y = x = 0: in runs slower than out.
    assert_eq!(values(&plan, "a/kernel")[..4], [0.0, 8.0, 4.0, 12.0]);
    // [in, out, y, x]: Keras has [y, x, out, in].
    assert_eq!(values(&plan, "b/kernel")[..4], [0.0, 8.0, 4.0, 12.0]);
    // [in * multiplier, 1, y, x].
    assert_eq!(values(&plan, "c/kernel")[..4], [0.0, 4.0, 8.0, 12.0]);
    assert_eq!(of(&plan, "a/kernel").by, By::Name);
}

#[test]
fn gates_change_their_places() {
    let names: &[Named] =
        &[("r.weight_ih_l0", &[3, 2]), ("r.weight_hh_l0", &[3, 1]), ("r.bias_ih_l0", &[3]), ("r.bias_hh_l0", &[3])];
    let source = torch(names);
    let target = keras(&[("r", Some("gru"), &[("kernel", &[2, 3]), ("recurrent_kernel", &[1, 3]), ("bias", &[2, 3])])]);
    let there = plan(&source, &target, &Options::default());
    assert!(there.is_complete(), "{there:?}");
    // Reset and update change places.
    assert_eq!(values(&there, "r/kernel"), [2.0, 0.0, 4.0, 3.0, 1.0, 5.0]);
    assert_eq!(values(&there, "r/bias"), [1.0, 0.0, 2.0, 1.0, 0.0, 2.0]);
    let back = plan(&target, &source, &Options::default());
    assert!(back.is_complete(), "{back:?}");
    assert_eq!(values(&back, "r.weight_ih_l0"), [1.0, 4.0, 0.0, 3.0, 2.0, 5.0]);
    assert_eq!(values(&back, "r.bias_hh_l0"), [4.0, 3.0, 5.0]);
    let old = keras(&[("r", Some("gru"), &[("bias", &[3])])]);
    assert!(plan(&source, &old, &Options::default()).conflicts[0].message.contains("resets before the product"));
}

#[test]
fn biases_are_added_and_split() {
    let source = torch(&[
        ("r.weight_ih_l0_reverse", &[4, 2]),
        ("r.weight_hh_l0_reverse", &[4, 1]),
        ("r.bias_ih_l0_reverse", &[4]),
        ("r.bias_hh_l0_reverse", &[4]),
    ]);
    let variables: &[Named] = &[("kernel", &[2, 4]), ("recurrent_kernel", &[1, 4]), ("bias", &[4])];
    let target = keras(&[("r/backward_layer", Some("lstm"), variables)]);
    let there = plan(&source, &target, &Options::default());
    assert!(there.is_complete(), "{there:?}");
    assert_eq!(values(&there, "r/backward_layer/bias"), [0.0, 2.0, 4.0, 6.0]);
    let back = plan(&target, &source, &Options::default());
    assert!(back.is_complete(), "{back:?}");
    assert_eq!(values(&back, "r.bias_ih_l0_reverse"), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(values(&back, "r.bias_hh_l0_reverse"), [0.0; 4]);
}

#[test]
fn variables_of_tensorflow() {
    let tensors: Vec<(&str, Tensor)> = vec![
        ("net/conv1/weights", counting(&[3, 3, 2, 4])),
        ("net/conv1/biases", counting(&[4])),
        ("net/conv1/BatchNorm/gamma", counting(&[4])),
        ("net/conv1/BatchNorm/moving_mean", counting(&[4])),
        ("net/conv1/weights/Momentum", counting(&[3, 3, 2, 4])),
        ("global_step", counting(&[])),
    ];
    let source = Side::tensorflow(tensors.iter().map(|(name, tensor)| (*name, tensor)));
    let target = keras(&[
        ("conv1", Some("conv2d"), &[("kernel", &[3, 3, 2, 4]), ("bias", &[4])]),
        ("conv1_BatchNorm", Some("batch_normalization"), &[("gamma", &[4]), ("moving_mean", &[4])]),
    ]);
    let there = plan(&source, &target, &Options::default());
    assert!(there.is_complete(), "{there:?}");
    assert_eq!(of(&there, "conv1/kernel").by, By::Rule);
    let target = torch(&[("net.conv1.weight", &[4, 2, 3, 3]), ("net.conv1.bias", &[4])]);
    let there = plan(&source, &target, &Options::default());
    assert_eq!(there.matches.len(), 2, "{there:?}");
    assert_eq!(there.left_in_source, ["net/conv1/BatchNorm/gamma", "net/conv1/BatchNorm/moving_mean"]);
}

#[test]
fn orders_that_could_be_two_are_none() {
    let source = torch(&[("x.weight", &[2, 2]), ("y.weight", &[2, 2]), ("z.weight", &[3, 2])]);
    let dense: &[Named] = &[("kernel", &[2, 2])];
    let options = Options { by_order: true, ..Options::default() };
    let target = keras(&[("a", Some("dense"), dense), ("b", Some("dense"), dense)]);
    let plan_of_two = plan(&source, &target, &options);
    assert_eq!(of(&plan_of_two, "b/kernel").sources, ["y.weight"]);
    assert_eq!(plan_of_two.left_in_source, ["z.weight"]);
    let target = keras(&[("a", Some("dense"), dense)]);
    assert_eq!(plan(&source, &target, &options).left_in_target, ["a/kernel"]);
}

#[test]
fn names_that_become_one_are_nobodys() {
    let source = torch(&[("a.b.weight", &[2, 2]), ("a_b.weight", &[2, 2])]);
    let target = keras(&[("A/b", Some("dense"), &[("kernel", &[2, 2])])]);
    let plan = plan(&source, &target, &Options::default());
    assert!(plan.matches.is_empty(), "{plan:?}");
}

#[test]
fn joints_of_names_are_understood() {
    let source = torch(&[("layer1.0.conv.weight", &[2, 2]), ("layer1.0_conv.weight", &[2, 3])]);
    let target = keras(&[
        ("layer1__0__conv", Some("dense"), &[("kernel", &[2, 2])]),
        ("layer1__0_conv", Some("dense"), &[("kernel", &[3, 2])]),
    ]);
    assert!(plan(&source, &target, &Options::default()).is_complete());
}

#[test]
fn norms_without_factor_are_those_with_ones() {
    let ones = Tensor::from_f32(&[2], &[1.0, 1.0]);
    let tensors = [("bn.weight", ones), ("bn.bias", counting(&[2])), ("bn.running_mean", counting(&[2]))];
    let source = Side::pytorch(tensors.iter().map(|(name, tensor)| (*name, tensor)));
    let target = keras(&[("bn", Some("batch_normalization"), &[("beta", &[2]), ("moving_mean", &[2])])]);
    assert!(plan(&source, &target, &Options::default()).is_complete());
    let back = plan(&target, &source, &Options::default());
    assert!(back.is_complete(), "{back:?}");
    assert_eq!((values(&back, "bn.weight"), of(&back, "bn.weight").sources.len()), (vec![1.0, 1.0], 0));
    // Other factors would be lost.
    let source = torch(&[("bn.weight", &[2]), ("bn.bias", &[2]), ("bn.running_mean", &[2])]);
    let plan = plan(&source, &target, &Options::default());
    assert!(plan.matches.is_empty() && plan.conflicts[0].to_string().contains("no place for bn.weight"), "{plan:?}");
}

#[test]
fn maps_are_checked() {
    let error = Map::parse(r#"{"a": 1, "b": {"from": "c", "permut": [1]}, "d": {"permute": [0]}}"#).unwrap_err();
    assert_eq!(error.problems.len(), 3, "{error}");
    assert!(Map::parse("[1]").is_err());
    let map = Map::parse(r#"{"nowhere": "x", "a/kernel": {"from": "x.weight", "permute": [0, 0]}, "a": "y"}"#).unwrap();
    let source = torch(&[("x.weight", &[2, 2])]);
    let target = keras(&[("a", Some("dense"), &[("kernel", &[2, 2])])]);
    let plan = plan(&source, &target, &Options { map, by_order: false });
    let nodes: Vec<_> = plan.conflicts.iter().map(|problem| problem.node.as_deref().unwrap()).collect();
    assert_eq!(nodes, ["nowhere", "a", "a/kernel"], "{plan:?}");
}

#[test]
fn a_layer_is_taken_whole_or_not_at_all() {
    let source = torch(&[("a.weight", &[5, 3, 3, 3]), ("a.bias", &[4]), ("b.bias", &[4])]);
    let target = keras(&[
        ("a", Some("conv2d"), &[("kernel", &[3, 3, 3, 4]), ("bias", &[4])]),
        ("b", Some("dense"), &[("kernel", &[2, 4]), ("bias", &[4])]),
    ]);
    let none = plan(&source, &target, &Options::default());
    assert!(none.matches.is_empty(), "{none:?}");
    assert_eq!(none.left_with_layer, ["a/bias", "b/bias"]);
    let nodes: Vec<_> = none.conflicts.iter().filter_map(|problem| problem.node.as_deref()).collect();
    assert_eq!(nodes, ["a/kernel", "b/kernel"]);
    // What the user says of a tensor holds for this tensor.
    let map = Map::parse(r#"{"b/kernel": null, "a/bias": "a.bias"}"#).unwrap();
    let some = plan(&source, &target, &Options { map, by_order: false });
    let taken: Vec<&str> = some.matches.iter().map(|found| found.target.as_str()).collect();
    assert_eq!(taken, ["a/bias", "b/bias"]);
}

#[test]
fn a_bias_without_a_place_is_a_conflict() {
    let source = torch(&[("a.weight", &[4, 3, 3, 3]), ("a.bias", &[4]), ("b.weight", &[4, 2])]);
    let target =
        keras(&[("a", Some("conv2d"), &[("kernel", &[3, 3, 3, 4])]), ("b", Some("dense"), &[("kernel", &[2, 4])])]);
    let plan_of = |map: &str| {
        let map = Map::parse(map).unwrap();
        plan(&source, &target, &Options { map, by_order: false })
    };
    let without = plan_of("{}");
    let [conflict] = without.conflicts.as_slice() else { panic!("{without:?}") };
    assert_eq!(conflict.node.as_deref(), Some("a/kernel"));
    assert!(conflict.to_string().contains("no place for a.bias"), "{conflict}");
    let taken: Vec<&str> = without.matches.iter().map(|found| found.target.as_str()).collect();
    assert_eq!(taken, ["b/kernel"]);
    // Who names the tensor takes it.
    let named = plan_of(r#"{"a/kernel": "a.weight"}"#);
    assert_eq!((named.conflicts.len(), named.matches.len()), (0, 2), "{named:?}");
}

#[test]
fn a_bias_that_the_source_lacks_is_zeros() {
    let source = torch(&[("a.weight", &[4, 3, 3, 3]), ("r.weight_ih_l0", &[8, 3]), ("r.weight_hh_l0", &[8, 2])]);
    let recurrent: &[Named] = &[("kernel", &[3, 8]), ("recurrent_kernel", &[2, 8]), ("bias", &[8])];
    let target =
        keras(&[("a", Some("conv2d"), &[("kernel", &[3, 3, 3, 4]), ("bias", &[4])]), ("r", Some("lstm"), recurrent)]);
    let there = plan(&source, &target, &Options::default());
    assert!(there.is_complete(), "{there:?}");
    assert_eq!((values(&there, "a/bias"), values(&there, "r/bias")), (vec![0.0; 4], vec![0.0; 8]));
    assert!(of(&there, "a/bias").sources.is_empty());
    // A kernel is not made of nothing.
    let source = torch(&[("a.bias", &[4])]);
    assert_eq!(plan(&source, &target, &Options::default()).conflicts.len(), 1);
}

#[test]
fn grus_that_reset_before_the_product_are_no_others() {
    let names: &[Named] = &[("r.weight_ih_l0", &[3, 2]), ("r.weight_hh_l0", &[3, 1])];
    let variables = [("kernel", counting(&[2, 3])), ("recurrent_kernel", counting(&[1, 3]))];
    let of = |reset_after: bool| {
        let facts =
            KerasLayer { name: "r", class: Some("gru"), reset_after: Some(reset_after), ..KerasLayer::default() };
        let layers = Side::keras_layers(&facts, variables.iter().map(|(name, tensor)| (*name, tensor)));
        Side { family: Family::Keras, layers }
    };
    let options = Options::default();
    for (source, target) in [(torch(names), of(false)), (of(false), torch(names)), (of(true), of(false))] {
        let plan = plan(&source, &target, &options);
        assert!(plan.matches.is_empty() && plan.conflicts[0].message.contains("resets before"), "{plan:?}");
    }
    assert!(plan(&of(false), &of(false), &options).is_complete());
    assert!(plan(&of(true), &torch(names), &options).is_complete());
}

#[test]
fn attention_is_three_layers_in_one_tensor() {
    let source = torch(&[
        ("a.in_proj_weight", &[12, 4]),
        ("a.in_proj_bias", &[12]),
        ("a.out_proj.weight", &[4, 4]),
        ("a.out_proj.bias", &[4]),
    ]);
    let part: &[Named] = &[("kernel", &[4, 2, 2]), ("bias", &[2, 2])];
    let class = Some("attention_dense");
    let target = keras(&[
        ("a/key_dense", class, part),
        ("a/output_dense", class, &[("kernel", &[2, 2, 4]), ("bias", &[4])]),
        ("a/query_dense", class, part),
        ("a/value", class, part),
    ]);
    let there = plan(&source, &target, &Options::default());
    assert!(there.is_complete(), "{there:?}");
    assert_eq!(of(&there, "a/key_dense/kernel").sources, ["a.in_proj_weight[4:8]"]);
    assert_eq!(values(&there, "a/key_dense/kernel")[..3], [16.0, 20.0, 24.0]);
    assert_eq!(values(&there, "a/value/bias"), [8.0, 9.0, 10.0, 11.0]);
    let back = plan(&target, &source, &Options::default());
    assert!(back.is_complete(), "{back:?}");
    let found = back.matches.iter().map(|found| (found.target.as_str(), &found.tensor)).collect();
    let whole = replaced("a.in_proj_weight", &counting(&[12, 4]), &found).unwrap();
    assert_eq!(whole.shape(), [12, 4]);
    assert_eq!(whole.to_f32().unwrap()[..4], [0.0, 4.0, 8.0, 12.0]);
    assert_eq!(values(&back, "a.out_proj.weight")[..4], [0.0, 4.0, 8.0, 12.0]);
}

#[test]
fn separable_convolutions_are_two() {
    let source = torch(&[
        ("s.depthwise.weight", &[6, 1, 3, 3]),
        ("s.pointwise.weight", &[5, 6, 1, 1]),
        ("s.pointwise.bias", &[5]),
    ]);
    let variables: &[Named] =
        &[("depthwise_kernel", &[3, 3, 3, 2]), ("pointwise_kernel", &[1, 1, 6, 5]), ("bias", &[5])];
    let target = keras(&[("s", Some("separable_conv2d"), variables)]);
    let there = plan(&source, &target, &Options::default());
    assert!(there.is_complete(), "{there:?}");
    assert_eq!(values(&there, "s/pointwise_kernel")[..3], [0.0, 6.0, 12.0]);
    assert!(plan(&target, &source, &Options::default()).is_complete());
}

#[test]
fn maps_of_all_below_a_name() {
    let source = torch(&[("net.enc.0.weight", &[2, 2]), ("net.enc.1.fc.weight", &[2, 2]), ("head.weight", &[2, 2])]);
    let dense: &[Named] = &[("kernel", &[2, 2])];
    let target = keras(&[("e/0", Some("dense"), dense), ("e/1/fc", Some("dense"), dense), ("x", Some("dense"), dense)]);
    let map = |text: &str| Options { map: Map::parse(text).unwrap(), by_order: false };
    let whole = plan(&source, &target, &map(r#"{"e": "net.enc", "x": "head"}"#));
    assert!(whole.is_complete(), "{whole:?}");
    assert_eq!(of(&whole, "e/1/fc/kernel").sources, ["net.enc.1.fc.weight"]);
    let wrong = plan(&source, &target, &map(r#"{"e": "net"}"#));
    assert!(wrong.conflicts[0].message.contains("has no layer 0"), "{wrong:?}");
    // What is completed says the same again.
    let options = map(r#"{"e": "net.enc", "x": null}"#);
    let text = options.map.completed(&plan(&source, &target, &options));
    assert_eq!(text, "{\n  \"e\": \"net.enc\",\n  \"x\": null\n}\n");
}

#[test]
fn endings_of_names_say_what_the_order_does_not() {
    // Both branches of the first block end in equal shapes, in another order on the two sides.
    let sizes = [4, 6, 8];
    let block = |index: usize, names: [&str; 3]| {
        let inputs = sizes[index.saturating_sub(1)];
        let out = sizes[index];
        let shapes = [[inputs, inputs], [inputs, out], [inputs, out]];
        std::iter::zip(names.map(|name| name.replace('#', &index.to_string())), shapes).collect::<Vec<_>>()
    };
    let torch_names = ["layer#.0.conv1", "layer#.0.conv3", "layer#.0.down.0"];
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for (index, width) in sizes.into_iter().enumerate() {
        for (name, [inputs, out]) in block(index, torch_names) {
            let more = usize::from(index > 0 && name.contains("down"));
            tensors.push((format!("{name}.weight"), counting(&[out, inputs + more])));
        }
        tensors.push((format!("layer{index}.1.conv3.weight"), counting(&[9, width])));
    }
    let source = Side::pytorch(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)));
    let mut layers: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, width) in sizes.into_iter().enumerate() {
        for (name, [inputs, out]) in block(index, ["c#_b0_1_conv", "c#_b0_0_conv", "c#_b0_3_conv"]) {
            let more = usize::from(index > 0 && name.contains("_0_"));
            layers.push((name, vec![inputs + more, out]));
        }
        layers.push((format!("c{index}_b1_3_conv"), vec![width, 9]));
    }
    let variables: Vec<[Named; 1]> = layers.iter().map(|(_, shape)| [("kernel", shape.as_slice())]).collect();
    let named: Vec<(&str, Option<&str>, &[Named])> = std::iter::zip(&layers, &variables)
        .map(|((name, _), v)| (name.as_str(), Some("dense"), v.as_slice()))
        .collect();
    let target = keras(&named);
    let plan = plan(&source, &target, &Options { by_order: true, ..Options::default() });
    assert!(plan.is_complete(), "{plan:?}");
    for index in 0..3 {
        assert_eq!(of(&plan, &format!("c{index}_b0_0_conv/kernel")).sources, [format!("layer{index}.0.down.0.weight")]);
    }
}
