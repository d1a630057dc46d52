//! Graphs that know their source's modules come back as these modules, with the same state-dict keys.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use modelport_backends::pytorch::{Generated, Options, generate};
use modelport_ir::op::{
    BatchNorm, Binary, Concat, Conv, Dense, Dropout, Op, Pads, Pool, PoolKind, Reduce, ReduceKind, Unary,
};
use modelport_ir::{DType, Dim, Graph, Layout, Shape, Tensor, Value};

/// Lowers layers as a PyTorch frontend does.
struct Net(Graph);

impl Net {
    fn new(class: &str, channels: usize) -> (Net, Value) {
        let mut graph = Graph::new("net", "PyTorch: net.pt2");
        graph.modules.insert(String::new(), class.to_owned());
        let shape = Shape(vec![Dim::symbol("N"), Dim::Known(channels), Dim::Known(16), Dim::Known(16)]);
        let x = graph.input("x", DType::Float32, shape).unwrap();
        (Net(graph), x)
    }

    fn enter(&mut self, path: &str, class: &str) {
        self.0.modules.insert(path.to_owned(), class.to_owned());
    }

    fn weight(&mut self, key: &str, shape: &[usize]) -> Value {
        match self.0.find(key) {
            Some(id) => id.into(),
            None => self.0.variable(key, Tensor::from_f32(shape, &vec![0.5; shape.iter().product()])),
        }
    }

    fn op(&mut self, path: &str, op: impl Into<Op>, name: &str, inputs: &[Value]) -> Value {
        self.0.add(op, &format!("{path}/{name}"), inputs).unwrap().into()
    }

    fn channels(&self, x: Value) -> usize {
        self.0.shape(x)[1].known().unwrap()
    }

    fn conv(&mut self, path: &str, x: Value, out: usize, kernel: usize, stride: usize) -> Value {
        self.enter(path, "Conv2d");
        let channels = self.channels(x);
        let w = self.weight(&format!("{path}.weight"), &[kernel, kernel, channels, out]);
        let conv = Conv {
            strides: vec![stride; 2],
            pads: Pads(vec![(kernel / 2, kernel / 2); 2]),
            dilations: vec![1; 2],
            groups: 1,
            layout: Layout::ChannelsFirst,
        };
        self.op(path, conv, "conv2d", &[x, w])
    }

    fn bn(&mut self, path: &str, x: Value) -> Value {
        self.enter(path, "BatchNorm2d");
        let size = [self.channels(x)];
        let mut inputs = vec![x];
        for key in ["weight", "bias", "running_mean", "running_var"] {
            inputs.push(self.weight(&format!("{path}.{key}"), &size));
        }
        let bn = BatchNorm { epsilon: 1e-5, momentum: Some(0.1), layout: Layout::ChannelsFirst };
        self.op(path, bn, "batch_norm", &inputs)
    }

    fn relu(&mut self, path: &str, x: Value) -> Value {
        self.enter(path, "ReLU");
        self.op(path, Unary::Relu, "relu", &[x])
    }

    fn linear(&mut self, path: &str, x: Value, out: usize) -> Value {
        self.enter(path, "Linear");
        let features = self.0.shape(x).last().unwrap().known().unwrap();
        let w = self.weight(&format!("{path}.weight"), &[features, out]);
        let b = self.weight(&format!("{path}.bias"), &[out]);
        self.op(path, Dense {}, "linear", &[x, w, b])
    }

    fn mean(&mut self, x: Value) -> Value {
        let mean = Reduce { kind: ReduceKind::Mean, axes: vec![2, 3], keep_dims: false };
        self.op("", mean, "mean", &[x])
    }

    fn max_pool(&mut self, path: &str, x: Value) -> Value {
        self.enter(path, "MaxPool2d");
        let pool = Pool {
            kind: PoolKind::Max,
            kernel: vec![3; 2],
            strides: vec![2; 2],
            pads: Pads(vec![(1, 1); 2]),
            dilations: vec![1; 2],
            ceil_mode: false,
            count_include_pad: true,
            layout: Layout::ChannelsFirst,
        };
        self.op(path, pool, "max_pool2d", &[x])
    }

    /// What `torch.cat` gives of several; of one nothing is left.
    fn joined(&mut self, path: &str, values: &[Value]) -> Value {
        match values {
            [one] => *one,
            many => self.op(path, Concat { axis: 1 }, "cat", many),
        }
    }

    fn basic_block(&mut self, path: &str, x: Value, out: usize, stride: usize) -> Value {
        self.enter(path, "BasicBlock");
        let y = self.conv(&format!("{path}.conv1"), x, out, 3, stride);
        let y = self.bn(&format!("{path}.bn1"), y);
        let y = self.relu(&format!("{path}.relu"), y);
        let y = self.conv(&format!("{path}.conv2"), y, out, 3, 1);
        let y = self.bn(&format!("{path}.bn2"), y);
        let mut identity = x;
        if stride > 1 {
            self.enter(&format!("{path}.downsample"), "Sequential");
            identity = self.conv(&format!("{path}.downsample.0"), x, out, 1, stride);
            identity = self.bn(&format!("{path}.downsample.1"), identity);
        }
        let y = self.op(path, Binary::Add, "add", &[y, identity]);
        self.relu(&format!("{path}.relu"), y)
    }

    /// The code, after a check that every weight has the key that it has in the source.
    fn generate(mut self, y: Value) -> Generated {
        self.0.output("y", y);
        let options = Options { weights_file: "net.pth".to_owned(), ..Options::default() };
        let generated = generate(&self.0, &options).unwrap();
        let sources: BTreeSet<String> = self
            .0
            .ids()
            .into_iter()
            .filter(|&id| self.0.tensor(id.into()).is_some_and(|tensor| tensor.rank() > 0))
            .map(|id| self.0.node(id).name.clone())
            .collect();
        let keys = generated.params.iter().filter(|param| !param.source.is_empty());
        for param in keys.clone() {
            let tied = param.key == "lm_head.weight";
            assert!(tied || param.key == param.source, "{} is {} in the source", param.key, param.source);
        }
        let have: BTreeSet<String> = keys.map(|param| param.source.clone()).collect();
        assert_eq!(have, sources);
        generated
    }
}

#[test]
fn a_residual_network() {
    let (mut net, x) = Net::new("ResNet", 3);
    let x = net.conv("conv1", x, 8, 7, 2);
    let x = net.bn("bn1", x);
    let x = net.relu("relu", x);
    let mut x = net.max_pool("maxpool", x);
    for (stage, width) in [8, 16].into_iter().enumerate() {
        net.enter(&format!("layer{}", stage + 1), "Sequential");
        for unit in 0..3 {
            let stride = if unit == 0 && stage > 0 { 2 } else { 1 };
            x = net.basic_block(&format!("layer{}.{unit}", stage + 1), x, width, stride);
        }
    }
    let x = net.mean(x);
    let x = net.linear("fc", x, 10);
    check("modules_resnet.py", &net.generate(x).code);
}

#[test]
fn chains_keep_their_numbers() {
    let (mut net, x) = Net::new("Features", 3);
    net.enter("features", "Sequential");
    let x = net.conv("features.0", x, 8, 3, 1);
    let x = net.relu("features.1", x);
    // Whatever stood at 2 does nothing.
    let x = net.conv("features.3", x, 8, 3, 1);
    let x = net.relu("features.4", x);
    // Subclasses of nn.Sequential keep their class.
    net.enter("blocks", "ModuleList");
    let mut x = x;
    for block in 0..3 {
        net.enter(&format!("blocks.{block}"), "ConvNormActivation");
        x = net.conv(&format!("blocks.{block}.0"), x, 8 * (block + 1), 3, 1);
        x = net.bn(&format!("blocks.{block}.1"), x);
        x = net.relu(&format!("blocks.{block}.2"), x);
    }
    // A chain by names.
    net.enter("head", "Sequential");
    let x = net.conv("head.conv0", x, 4, 1, 1);
    let x = net.bn("head.norm0", x);
    let x = net.mean(x);
    net.enter("classifier", "Sequential");
    net.enter("classifier.0", "Dropout");
    let x = net.op("classifier.0", Dropout { rate: 0.2 }, "dropout", &[x]);
    let x = net.linear("classifier.1", x, 5);
    check("modules_chains.py", &net.generate(x).code);
}

#[test]
fn layers_that_repeat_along_chains_are_listed_by_functions() {
    let (mut net, mut x) = Net::new("Features", 3);
    net.enter("features", "Sequential");
    let mut at = 0;
    for (number, width) in [8, 8, 16, 16, 32, 32].into_iter().enumerate() {
        x = net.conv(&format!("features.{at}"), x, width, 3, 1);
        x = net.bn(&format!("features.{}", at + 1), x);
        x = net.relu(&format!("features.{}", at + 2), x);
        at += 3;
        if number % 2 == 1 {
            x = net.max_pool(&format!("features.{at}"), x);
            at += 1;
        }
    }
    // Another chain has the same layers.
    net.enter("head", "Sequential");
    let x = net.conv("head.0", x, 64, 1, 1);
    let x = net.bn("head.1", x);
    let x = net.relu("head.2", x);
    let x = net.conv("head.3", x, 10, 1, 1);
    check("modules_lists.py", &net.generate(x).code);
}

#[test]
fn weights_that_modules_hold_themselves() {
    let (mut net, x) = Net::new("Scaled", 4);
    net.enter("block", "ScaledConv");
    let y = net.conv("block.conv", x, 4, 3, 1);
    let gamma = net.weight("block.gamma", &[4, 1, 1]);
    let y = net.op("block", Binary::Mul, "mul", &[y, gamma]);
    let x = net.op("block", Binary::Add, "add", &[x, y]);
    let offset = net.weight("offset", &[1, 4, 16, 16]);
    let x = net.op("", Binary::Add, "add", &[x, offset]);
    // A convolution whose kernel has a name of its own, computed in a class of the source.
    net.enter("custom", "WeightConv");
    let w = net.weight("custom.kernel", &[1, 1, 4, 4]);
    let conv = Conv {
        strides: vec![1; 2],
        pads: Pads::none(2),
        dilations: vec![1; 2],
        groups: 1,
        layout: Layout::ChannelsFirst,
    };
    let x = net.op("custom", conv, "conv2d", &[x, w]);
    let x = net.mean(x);
    // Two layers that are one.
    let x = net.linear("encoder", x, 4);
    net.enter("lm_head", "Linear");
    let w = net.weight("encoder.weight", &[]);
    let x = net.op("lm_head", Dense {}, "linear", &[x, w]);
    check("modules_weights.py", &net.generate(x).code);
}

#[test]
fn parts_that_are_called_from_outside() {
    let (mut net, x) = Net::new("Perceptual", 3);
    net.enter("vgg", "VGG");
    net.enter("vgg.features", "Sequential");
    let a = net.conv("vgg.features.0", x, 4, 3, 1);
    let a = net.relu("vgg.features.1", a);
    let b = net.conv("vgg.features.2", a, 4, 3, 1);
    let b = net.relu("vgg.features.3", b);
    let sum = net.op("", Binary::Add, "add", &[a, b]);
    let c = net.conv("vgg.features.4", sum, 4, 3, 1);
    check("modules_parts.py", &net.generate(c).code);
}

#[test]
fn lists_that_grow() {
    let (mut net, x) = Net::new("DenseNet", 8);
    net.enter("features", "Sequential");
    let mut x = x;
    for (number, layers) in [(1, 3), (2, 4)] {
        let block = format!("features.denseblock{number}");
        net.enter(&block, "DenseBlock");
        let mut features = vec![x];
        for layer in 1..=layers {
            let path = format!("{block}.denselayer{layer}");
            net.enter(&path, "DenseLayer");
            let all = net.joined(&path, &features);
            let y = net.bn(&format!("{path}.norm"), all);
            let y = net.relu(&format!("{path}.relu"), y);
            features.push(net.conv(&format!("{path}.conv"), y, 4, 3, 1));
        }
        let all = net.joined(&block, &features);
        x = net.conv(&format!("features.transition{number}"), all, 8, 1, 1);
    }
    check("modules_growing.py", &net.generate(x).code);
}

#[test]
fn layers_that_read_something_beside() {
    let (mut net, x) = Net::new("Decoder", 8);
    let memory = net.conv("encoder", x, 8, 3, 1);
    net.enter("layers", "ModuleList");
    let mut y = x;
    for layer in 0..4 {
        let path = format!("layers.{layer}");
        net.enter(&path, "DecoderLayer");
        let a = net.conv(&format!("{path}.conv"), y, 8, 3, 1);
        let b = net.conv(&format!("{path}.cross"), memory, 8, 1, 1);
        y = net.op(&path, Binary::Add, "add", &[a, b]);
    }
    // What entered is read once more.
    let y = net.op("", Binary::Add, "add", &[y, x]);
    check("modules_decoder.py", &net.generate(y).code);
}

/// Compares with a stored text; `UPDATE_SNAPSHOTS=1` stores it.
fn check(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, text, "{} differs; UPDATE_SNAPSHOTS=1 stores the new text", path.display());
}
