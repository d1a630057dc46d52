"""Parameters that `modelport transfer` copies between twins, written by hand in PyTorch and in Keras."""

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import torch
from harness import cases, compare, modelport
from keras import layers
from torch import nn

UNITS = 5


class Twin(nn.Module):
    """One of every kind of layer that is turned."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.conv = nn.Conv2d(3, 8, 3, padding=1)  # square kernels say nothing
        self.stem.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False)
        self.act = nn.PReLU(16)
        self.up = nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1, output_padding=1)
        self.norm = nn.LayerNorm(16)
        self.conv1d = nn.Conv1d(16, 16, 3, padding=1)
        self.lstm = nn.LSTM(16, UNITS, batch_first=True)
        self.gru = nn.GRU(UNITS, UNITS, batch_first=True)
        self.both = nn.GRU(UNITS, UNITS, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * UNITS, 2 * UNITS)
        self.embed = nn.Embedding(7, 2 * UNITS)

    def forward(self, x, ids):
        x = self.act(self.grouped(self.depthwise(torch.relu(self.stem.bn(self.stem.conv(x))))))
        x = self.norm(self.up(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 16))
        x = self.conv1d(x.transpose(1, 2)).transpose(1, 2)
        x = self.both(self.gru(self.lstm(x)[0])[0])[0]
        return self.fc(x[:, -1]) + self.embed(ids)


def names(style):
    dotted = {"stem": "stem.conv", "bn": "stem.bn"}
    return lambda name: dotted.get(name, name).replace(".", style)


def keras_twin(style="."):
    n = names(style)
    x = inputs = keras.Input((6, 6, 3), name="x")
    ids = keras.Input((), dtype="int32", name="ids")
    x = layers.Conv2D(8, 3, padding="same", name=n("stem"))(x)
    x = layers.BatchNormalization(epsilon=1e-5, name=n("bn"))(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2D(16, 3, padding="same", groups=4, use_bias=False, name="grouped")(x)
    x = layers.PReLU(shared_axes=[1, 2], name="act")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, name="up")(x)
    x = layers.Cropping2D(((1, 0), (1, 0)), name="crop")(x)
    x = layers.Reshape((-1, 16), name="rows")(x)
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(x)
    x = layers.Conv1D(16, 3, padding="same", name="conv1d")(x)
    x = layers.LSTM(UNITS, return_sequences=True, name="lstm")(x)
    x = layers.GRU(UNITS, return_sequences=True, name="gru")(x)
    x = layers.Bidirectional(layers.GRU(UNITS, return_sequences=True), name="both")(x)
    x = layers.Cropping1D((143, 0), name="last")(x)
    x = layers.GlobalMaxPooling1D(name="vector")(x)
    x = layers.Dense(2 * UNITS, name="fc")(x)
    y = layers.Embedding(7, 2 * UNITS, name="embed")(ids)
    return keras.Model([inputs, ids], layers.Add(name="sum")([x, y]))


def randomize_torch(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
                if "running_var" in name:
                    tensor.abs_().add_(0.5)
    return model.eval()


def randomize_keras(model, seed=0):
    random = np.random.RandomState(seed)
    for variable in model.weights:
        values = random.randn(*variable.shape).astype("float32") * 0.3
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)
    return model


X = np.random.RandomState(1).randn(3, 6, 6, 3).astype("float32")
IDS = np.array([1, 6, 0], np.int32)


def run_torch(model, batch):
    with torch.no_grad():
        return model(torch.from_numpy(X[:batch].transpose(0, 3, 1, 2).copy()), torch.from_numpy(IDS[:batch])).numpy()


def run_keras(model, batch):
    return np.asarray(keras.ops.convert_to_numpy(model([X[:batch], IDS[:batch]], training=False)))


def assert_equal_outputs(torch_model, keras_model):
    for batch in (1, 3):
        left, right = run_torch(torch_model, batch), run_keras(keras_model, batch)
        assert left.shape == right.shape
        assert np.abs(left - right).max() <= 1e-5 * np.abs(left).max()


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Files of both: trained ones, and skeletons with other weights."""
    folder = tmp_path_factory.mktemp("twins")
    trained = randomize_torch(Twin())
    torch.save(trained.state_dict(), folder / "trained.pth")
    torch.save(randomize_torch(Twin(), 5).state_dict(), folder / "skeleton.pth")
    model = randomize_keras(keras_twin(), 7)
    model.save(folder / "skeleton.keras")
    model.save_weights(folder / "skeleton.weights.h5")
    underscored = randomize_keras(keras_twin("_"), 8)
    underscored.save(folder / "skeleton.h5")
    return folder, trained


def transfer(source, into, output, *extra, check=True):
    result = modelport("transfer", "-iw", source, "--into", into, "-o", output, "--json", *extra, check=check)
    return json.loads(result.stdout)


@pytest.mark.parametrize("skeleton", ["skeleton.keras", "skeleton.h5"])
def test_pytorch_to_keras(twins, tmp_path, skeleton):
    folder, trained = twins
    output = tmp_path / skeleton
    report = transfer(folder / "trained.pth", folder / skeleton, output)
    assert not report["left_in_source"] and not report["left_in_target"] and not report["conflicts"]
    model = keras.models.load_model(output, compile=False)
    assert_equal_outputs(trained, model)
    before = keras.models.load_model(folder / skeleton, compile=False)
    assert before.get_config() == model.get_config()
    # The skeleton is as it was, and the result is the same every time.
    again = tmp_path / f"again_{skeleton}"
    transfer(folder / "trained.pth", folder / skeleton, again)
    assert again.read_bytes() == output.read_bytes()


def test_pytorch_to_keras_weights(twins, tmp_path):
    folder, trained = twins
    output = tmp_path / "net.weights.h5"
    transfer(folder / "trained.pth", folder / "skeleton.weights.h5", output)
    model = keras_twin()
    model.load_weights(output)
    assert_equal_outputs(trained, model)


@pytest.mark.parametrize("source", ["skeleton.keras", "skeleton.h5", "skeleton.weights.h5"])
def test_keras_to_pytorch(twins, tmp_path, source):
    folder, _ = twins
    output = tmp_path / "net.pth"
    report = transfer(folder / source, folder / "skeleton.pth", output)
    assert not report["left_in_source"] and not report["left_in_target"]
    trained = Twin().eval()
    trained.load_state_dict(torch.load(output, weights_only=True))
    model = keras.models.load_model(folder / source.replace(".weights.h5", ".keras"), compile=False)
    assert_equal_outputs(trained, model)


def test_keras_to_keras(twins, tmp_path):
    folder, _ = twins
    output = tmp_path / "net.keras"
    transfer(folder / "skeleton.h5", folder / "skeleton.keras", output)
    left = keras.models.load_model(output, compile=False)
    right = keras.models.load_model(folder / "skeleton.h5", compile=False)
    assert all(np.array_equal(a, b) for a, b in zip(left.get_weights(), right.get_weights(), strict=True))


def test_nothing_is_written_when_something_is_left(twins, tmp_path):
    folder, _ = twins
    state = torch.load(folder / "trained.pth", weights_only=True)
    del state["fc.weight"]
    state["extra.weight"] = torch.zeros(2)
    state["grouped.weight"] = state["grouped.weight"][:, :, :1]
    torch.save(state, tmp_path / "source.pth")
    output = tmp_path / "net.keras"
    arguments = ["transfer", "-iw", tmp_path / "source.pth", "--into", folder / "skeleton.keras", "-o", output]
    result = modelport(*arguments, check=False)
    assert result.returncode == 1 and not output.exists()
    for part in ["fc/kernel", "extra.weight", "grouped/kernel", "[3, 3, 4, 16]", "[1, 3, 4, 16]", "--partial"]:
        assert part in result.stderr, part
    report = json.loads(modelport(*arguments, "--partial", "--json").stdout)
    assert not report["left_in_target"] and report["left_in_source"] == ["extra.weight"]
    assert {conflict["target"] for conflict in report["conflicts"]} == {"grouped/kernel", "fc/kernel"}
    # Of a layer that does not fit nothing is taken.
    assert report["left_with_layer"] == ["fc/bias"]
    before, after = (keras.models.load_model(path, compile=False) for path in (folder / "skeleton.keras", output))
    for name in ("grouped", "fc"):
        weights = [model.get_layer(name).get_weights() for model in (before, after)]
        assert all(np.array_equal(*pair) for pair in zip(*weights, strict=True)), name
    assert np.array_equal(after.get_layer("stem.conv").get_weights()[1], state["stem.conv.bias"])


def test_maps_and_order(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    randomize_torch(net)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    x = inputs = keras.Input((8, 8, 3))
    for name in ("a", "b", "c"):
        x = layers.Conv2D(4, 3, name=name)(x)
    x = layers.Dense(2, name="head")(layers.Dropout(0.1)(layers.Reshape((16,))(x)))
    keras.Model(inputs, x).save(tmp_path / "skeleton.keras")
    arguments = [tmp_path / "net.pth", tmp_path / "skeleton.keras", tmp_path / "out.keras"]

    # The names have nothing in common.
    assert "error" in transfer(*arguments, check=False)
    # The order does, but for the rows of the dense layer.
    error = transfer(*arguments, "--by-order", check=False)["error"]
    assert {problem["node"] for problem in error} == {"head/kernel", "head/bias", "4.weight", "4.bias"}
    (tmp_path / "wrong.json").write_text(json.dumps({"head": "4"}))
    error = transfer(*arguments, "--by-order", "--map", tmp_path / "wrong.json", check=False)["error"]
    assert any('"flattened"' in (problem["hint"] or "") for problem in error)
    (tmp_path / "map.json").write_text(json.dumps({"head": {"from": "4", "flattened": [4, 2, 2]}}))
    report = transfer(*arguments, "--by-order", "--map", tmp_path / "map.json")
    assert {match["by"] for match in report["matched"]} == {"order", "map"}
    model = keras.models.load_model(tmp_path / "out.keras", compile=False)
    x = np.random.RandomState(0).randn(2, 8, 8, 3).astype("float32")
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    assert np.abs(np.asarray(model(x)) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_tensors_can_be_mapped_one_by_one(tmp_path):
    kernel = torch.randn(4, 3, 3, 3)
    torch.save({"k": kernel, "left": torch.zeros(4)}, tmp_path / "net.pth")
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, layers.Conv2D(4, 3, name="c")(inputs)).save(tmp_path / "skeleton.keras")
    (tmp_path / "map.json").write_text(json.dumps({"c/kernel": {"from": "k", "permute": [2, 3, 1, 0]}, "c/bias": None}))
    arguments = [
        tmp_path / "net.pth",
        tmp_path / "skeleton.keras",
        tmp_path / "out.keras",
        "--map",
        tmp_path / "map.json",
    ]
    assert [problem["node"] for problem in transfer(*arguments, check=False)["error"]] == ["left"]
    transfer(*arguments, "--partial")
    model = keras.models.load_model(tmp_path / "out.keras", compile=False)
    assert np.array_equal(model.get_layer("c").kernel, kernel.numpy().transpose(2, 3, 1, 0))


def test_kinds_are_never_guessed(tmp_path):
    """A file of weights without classes, and names that say nothing: square kernels could be anything."""
    import h5py

    torch.save({"up.weight": torch.randn(4, 4, 3, 3)}, tmp_path / "net.pth")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [b"up"]
        file.create_group("up").attrs["weight_names"] = [b"up/kernel:0"]
        file["up/up/kernel:0"] = np.zeros((3, 3, 4, 4), np.float32)
    error = transfer(tmp_path / "net.pth", tmp_path / "weights.h5", tmp_path / "out.h5", check=False)["error"]
    assert "permute" in error[0]["hint"] and error[0]["node"] == "up/kernel"


class Parts(nn.Module):
    """Layers that one side has in parts, or without a part: attention, separable convolutions, norms, biases."""

    def __init__(self):
        super().__init__()
        self.sep = nn.Sequential()
        self.sep.depthwise = nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False)
        self.sep.pointwise = nn.Conv2d(6, 8, 1)
        self.bn = nn.BatchNorm2d(8, affine=False)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.ln = nn.LayerNorm(8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm = nn.LSTM(8, 4, batch_first=True, bias=False)
        self.gru = nn.GRU(4, 4, batch_first=True, bias=False)
        self.fc = nn.Linear(6 * 6 * 4, 5)

    def forward(self, x):
        x = self.conv(self.bn(self.sep.pointwise(self.sep.depthwise(x))))
        x = self.ln(x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 8))
        x = x + self.attn(x, x, x, need_weights=False)[0]
        x = self.gru(self.lstm(x)[0])[0]
        x = x.transpose(1, 2).reshape(x.shape[0], 4, 6, 6)
        return self.fc(x.flatten(1))


def parts_twin(names=lambda name: name, use_bias=True, reset_after=True):
    x = inputs = keras.Input((6, 6, 3), name="x")
    x = layers.SeparableConv2D(8, 3, padding="same", depth_multiplier=2, name=names("sep"))(x)
    x = layers.BatchNormalization(epsilon=1e-5, scale=False, center=False, name=names("bn"))(x)
    x = layers.Conv2D(8, 3, padding="same", use_bias=use_bias, name=names("conv"))(x)
    x = layers.LayerNormalization(epsilon=1e-5, name=names("ln"))(layers.Reshape((-1, 8))(x))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name=names("attn"))(x, x)])
    x = layers.LSTM(4, return_sequences=True, use_bias=use_bias, name=names("lstm"))(x)
    gru = layers.GRU(4, return_sequences=True, use_bias=use_bias, reset_after=reset_after, name=names("gru"))
    x = layers.Flatten()(layers.MaxPooling2D(1)(layers.Reshape((6, 6, 4))(gru(x))))
    return keras.Model(inputs, layers.Dense(5, name=names("fc"))(x))


def assert_same(net, model):
    x = X[:3]
    with torch.no_grad():
        left = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    left = left.transpose(0, 2, 3, 1) if left.ndim == 4 else left
    right = keras.ops.convert_to_numpy(model(x, training=False))
    assert np.abs(left - right).max() <= 1e-5 * np.abs(left).max()


@pytest.mark.parametrize("form", ["keras", "h5", "weights.h5"])
def test_parts_and_biases(tmp_path, form):
    net = randomize_torch(Parts())
    torch.save(net.state_dict(), tmp_path / "net.pth")
    twin = randomize_keras(parts_twin())
    twin.save_weights(tmp_path / "twin.weights.h5")
    for path in ("twin.keras", "twin.h5"):
        twin.save(tmp_path / path)
    into, output = tmp_path / f"twin.{form}", tmp_path / f"out.{form}"
    arguments = []
    if form == "weights.h5":
        # Weights alone do not say what was flattened.
        assert "flattened" in transfer(tmp_path / "net.pth", into, output)["notes"][0]
        (tmp_path / "map.json").write_text(json.dumps({"fc": {"from": "fc", "flattened": [4, 6, 6]}}))
        arguments = ["--map", tmp_path / "map.json"]
    report = transfer(tmp_path / "net.pth", into, output, *arguments)
    assert not report["left_in_source"] and not report["left_in_target"] and not report["conflicts"]
    # The source has no bias, and what the twin had is not kept.
    zeros = {match["target"] for match in report["matched"] if not match["sources"]}
    assert zeros == {"conv/bias", "lstm/bias", "gru/bias"}
    if form == "weights.h5":
        twin.load_weights(output)
    else:
        twin = keras.models.load_model(output, compile=False)
    assert_same(net, twin)


@pytest.mark.parametrize("form", ["keras", "h5"])
def test_parts_from_keras(tmp_path, form):
    twin = randomize_keras(parts_twin(use_bias=False))
    twin.save(tmp_path / f"twin.{form}")
    torch.save(randomize_torch(Parts(), 5).state_dict(), tmp_path / "skeleton.pth")
    transfer(tmp_path / f"twin.{form}", tmp_path / "skeleton.pth", tmp_path / "net.pth")
    net = Parts().eval()
    net.load_state_dict(torch.load(tmp_path / "net.pth", weights_only=True))
    assert_same(net, twin)


def test_grus_of_another_kind(tmp_path):
    """Without biases the tensors are the same, and what they mean is not."""
    net = randomize_torch(Parts())
    torch.save(net.state_dict(), tmp_path / "net.pth")
    parts_twin(use_bias=False, reset_after=False).save(tmp_path / "twin.keras")
    for source, into in [("net.pth", "twin.keras"), ("twin.keras", "net.pth")]:
        output = tmp_path / f"out{(tmp_path / into).suffix}"
        error = transfer(tmp_path / source, tmp_path / into, output, check=False)["error"]
        assert "resets before the product" in error[0]["message"] and "reset_after=True" in error[0]["hint"]
        assert not output.exists()


def test_a_suggested_map(tmp_path):
    """Names that have nothing in common: a map is suggested, and is what it says."""
    net = randomize_torch(Parts())
    torch.save(net.state_dict(), tmp_path / "net.pth")
    parts_twin(lambda name: f"x{sum(map(ord, name))}").save(tmp_path / "twin.keras")
    arguments = ["transfer", "-iw", tmp_path / "net.pth", "--into", tmp_path / "twin.keras"]
    refused = modelport(*arguments, "-o", tmp_path / "out.keras", check=False)
    assert refused.returncode == 1 and "--suggest-map" in refused.stderr
    path = tmp_path / "map.json"
    report = json.loads(modelport(*arguments, "--suggest-map", path, "--json").stdout)
    assert sorted(tmp_path.glob("out*")) == [] and not report["left_in_source"]
    assert {layer["by"] for layer in report["layers"]} == {"order"}
    names = json.loads(path.read_text())
    assert list(names) == [layer["target"] for layer in report["layers"]] and None not in names.values()
    modelport(*arguments, "--map", path, "-o", tmp_path / "out.keras")
    assert_same(net, keras.models.load_model(tmp_path / "out.keras", compile=False))


class Residual(nn.Module):
    def __init__(self, inputs, width, out):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        project = [nn.Conv2d(inputs, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.downsample = nn.Sequential(*project) if inputs != out else None

    def forward(self, x):
        y = self.bn3(self.conv3(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (self.downsample(x) if self.downsample else x))


def test_a_suggested_map_of_residual_blocks(tmp_path):
    """As in keras.applications' ResNet: names and order of the layers of a block differ, and shapes say little."""
    net = nn.Sequential()
    sizes = [(3, 3, 8), (8, 3, 8), (8, 6, 16), (16, 6, 16), (16, 6, 16), (16, 8, 24), (24, 8, 24)]
    for index, size in enumerate(sizes):
        net.add_module(f"layer{index}", Residual(*size))
    randomize_torch(net)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    x = inputs = keras.Input((6, 6, 3))

    def conv_bn(x, width, name):
        x = layers.Conv2D(width, 1, name=f"{name}_conv")(x)
        return layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)

    for index, (before, width, out) in enumerate(sizes):
        shortcut = conv_bn(x, out, f"block{index}_0") if before != out else x
        y = conv_bn(layers.ReLU()(conv_bn(x, width, f"block{index}_1")), out, f"block{index}_3")
        x = layers.ReLU()(layers.Add()([shortcut, y]))
    keras.Model(inputs, x).save(tmp_path / "twin.keras")
    arguments = ["transfer", "-iw", tmp_path / "net.pth", "--into", tmp_path / "twin.keras"]
    modelport(*arguments, "--suggest-map", tmp_path / "map.json")
    names = json.loads((tmp_path / "map.json").read_text())
    assert names["block2_0_bn"] == "layer2.downsample.1" and names["block2_3_bn"] == "layer2.bn3"
    modelport(*arguments, "--map", tmp_path / "map.json", "-o", tmp_path / "out.keras")
    assert_same(net, keras.models.load_model(tmp_path / "out.keras", compile=False))


def test_what_parameters_do_not_say_is_told(tmp_path):
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict(), tmp_path / "net.pth")
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="0")(x)
    keras.Model(inputs, layers.BatchNormalization(name="1")(x)).save(tmp_path / "twin.keras")
    notes = transfer(tmp_path / "net.pth", tmp_path / "twin.keras", tmp_path / "out.keras")["notes"]
    assert len(notes) == 2 and "epsilon=0.001" in notes[0] and 'padding="same"' in notes[1]


def test_a_tensorflow_checkpoint_into_keras(tmp_path):
    """VGG of TF-slim into one that is written by hand, with dense layers where the source has convolutions."""
    case = next(case for case in cases() if case.name == "vgg_16")
    shape = case.facts["inputs"][0]["shape"][1:]
    x = inputs = keras.Input(shape)
    for stage, (count, width) in enumerate([(2, 8), (2, 8), (3, 8), (3, 16), (3, 16)], start=1):
        for index in range(1, count + 1):
            x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv{stage}_{index}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{stage}")(x)
    x = layers.Flatten()(x)
    for name in ("fc6", "fc7"):
        x = layers.Dense(128, activation="relu", name=name)(x)
    keras.Model(inputs, layers.Dense(17, name="fc8")(x)).save(tmp_path / "vgg.keras")
    report = transfer(case.path("weights"), tmp_path / "vgg.keras", tmp_path / "out.keras")
    assert {match["by"] for match in report["matched"]} == {"rule"} and not report["notes"]
    model = keras.models.load_model(tmp_path / "out.keras", compile=False)
    for batch in (1, 3):
        compare([model(case.inputs(batch)[0], training=False)], case.expected(batch)[:1])


def test_a_target_that_does_not_exist(tmp_path):
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "net.pth")
    result = modelport(
        "transfer",
        "-iw",
        tmp_path / "net.pth",
        "--into",
        tmp_path / "no.keras",
        "-o",
        tmp_path / "x.keras",
        check=False,
    )
    assert result.returncode == 1 and "no.keras: does not exist" in result.stderr
