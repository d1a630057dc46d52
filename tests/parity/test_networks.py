"""Every network of the fixtures: the same outputs as in TensorFlow, and code and weights that are good to use."""

import subprocess
import sys

import harness
import numpy as np
import pytest
import torch
from harness import assert_parity, import_file, modelport

CASES = {case.name: case for case in harness.cases()}
SMALL = [name for name in ("squeezenet", "unet", "text_cnn", "cnn_partitioned", "cnn_resource") if name in CASES]

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
few_cases = pytest.mark.parametrize("case", [CASES[name] for name in SMALL], ids=SMALL)


def only(name):
    """The test runs on this one network (which a run on other folders may lack)."""
    present = [CASES[name]] if name in CASES else []
    return pytest.mark.parametrize("case", present, ids=[case.name for case in present])


def equal_weights(left, right):
    left, right = (torch.load(path, weights_only=True) for path in (left, right))
    assert list(left) == list(right)
    for key in left:
        assert left[key].dtype == right[key].dtype and torch.equal(left[key], right[key]), key


@each_case
def test_checkpoint(case, converted):
    assert_parity(case, converted(case))


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.frozen], ids=lambda case: case.name)
def test_frozen(case, converted):
    assert_parity(case, converted(case, "frozen"))


@each_case
def test_code(case, converted):
    code = converted(case).code
    rules = ["--isolated", "--quiet", "--no-cache", "--select", "E,F,W", "--line-length", "120"]
    ruff = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, code], capture_output=True, text=True, check=False
    )
    assert ruff.returncode == 0, ruff.stdout + ruff.stderr
    assert max(map(len, code.read_text().splitlines())) <= 120


@each_case
def test_no_transposes(case, converted):
    """Layout is settled while converting, not while running; sequences alone have their features last."""
    if case.name.startswith(("text_", "crnn")):
        pytest.skip("sequences come channels-last")
    text = converted(case).text
    for word in ("permute", "transpose(", "movedim", "swapaxes", "moveaxis"):
        assert word not in text, [line for line in text.splitlines() if word in line]


@each_case
def test_state_dict(case, converted):
    """A plain state dict, equal to the module's own; everything that has a type follows `.half()`."""
    files = converted(case)
    weights = torch.load(files.weights, weights_only=True)
    model = files.load()
    assert not model.training
    assert list(weights) == list(model.state_dict())
    assert all(part.isidentifier() or part.isdigit() for key in weights for part in key.split("."))
    assert weights, "no weights at all"

    model.half()
    floating = [tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()]
    assert set(floating) == {torch.float16}
    inputs = files.report.get("inputs")
    arrays = harness.to_target(harness.by_name(case.facts["inputs"], case.inputs(1), inputs), inputs)
    halved = [array.astype(np.float16) if array.dtype.kind == "f" else array for array in arrays]
    for result in harness.run(model, halved):
        assert result.dtype == torch.float16 or not result.is_floating_point()


@each_case
def test_for_inference(case, converted):
    """Folded, with the same outputs; no normalisation is left behind a layer that can take it in, and no dropout."""
    files = converted(case, "checkpoint", "--for", "inference")
    assert_parity(case, files)
    assert "Dropout" not in files.text
    # What is normalised behind a sum or a concatenation, in front of an activation, has to stay.
    if not case.name.startswith(("resnet_v2", "nasnet")):
        assert "BatchNorm" not in files.text


@only("squeezenet")
def test_for_something_else(case, tmp_path):
    arguments = [*case.source(), "-df", "pytorch", "-om", tmp_path / "model.pth", "--for", "speed"]
    result = modelport("convert", *arguments, check=False)
    assert result.returncode == 2 and "training" in result.stderr and "inference" in result.stderr
    assert not list(tmp_path.iterdir())


@few_cases
@pytest.mark.parametrize("ir", ["pb", "json"])
def test_three_steps(case, ir, converted, tmp_path):
    whole = converted(case)
    network = ["-f", "tensorflow", "-n", case.path("network"), "-w", case.path("weights")]
    modelport("to-ir", *network, "--dstNode", *case.outputs, "-o", "ir", cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"ir.json", "ir.pb", "ir.npy"}
    arguments = ["-n", f"ir.{ir}", "-w", "ir.npy", "-o", "model.py", "-ow", "model.npy"]
    modelport("to-code", "-f", "pytorch", *arguments, cwd=tmp_path)
    modelport("to-model", "-f", "pytorch", "-in", "model.py", "-iw", "model.npy", "-o", "model.pth", cwd=tmp_path)

    code = (tmp_path / "model.py").read_text()
    assert code.replace("model.npy", "model.pth") == whole.text
    equal_weights(tmp_path / "model.pth", whole.weights)
    for weights in ("model.npy", "model.pth"):
        assert_parity(case, whole, import_file(tmp_path / "model.py").load(str(tmp_path / weights)))


@few_cases
def test_weight_formats(case, converted, tmp_path):
    """One code, whose `load` reads the weights in every format."""
    code = converted(case).code
    for extension in ("npy", "pth", "safetensors"):
        files = harness.convert(case, tmp_path, weights=f"weights.{extension}")
        assert_parity(case, converted(case), import_file(code).load(str(files.weights)))
        assert_parity(case, files)


@few_cases
def test_layout_source(case, converted):
    files = converted(case, "checkpoint", "--layout", "source")
    model = files.load()
    for batch in (1, 3):
        harness.compare(harness.run(model, case.inputs(batch)), case.expected(batch))
    spatial = sum(3 <= array.ndim <= 5 for array in case.inputs(1) + case.expected(1))
    limit = spatial + case.name.startswith("text_")
    assert files.text.count("permute") + files.text.count("transpose(") <= limit, "more than one per border"


@only("cnn_resource")
def test_deterministic(case, converted, tmp_path):
    again, first = harness.convert(case, tmp_path), converted(case)
    assert again.code.read_bytes() == first.code.read_bytes()
    assert again.weights.read_bytes() == first.weights.read_bytes()


@only("cnn_sharded")
@pytest.mark.parametrize("name", [".index", ".data-00001-of-00002", ".meta", ""])
def test_checkpoint_names(case, name, converted, tmp_path):
    """Any file of a checkpoint names it."""
    weights = case.path("weights")
    weights = weights.with_name(weights.name + name)
    arguments = ["-sf", "tf", "-in", case.path("network"), "-iw", weights, "--dstNode", *case.outputs]
    modelport("convert", *arguments, "-df", "pytorch", "-om", tmp_path / "model.pth")
    equal_weights(tmp_path / "model.pth", converted(case).weights)


@only("cnn_sharded")
def test_checkpoint_folder(case, converted, tmp_path):
    """The folder does too, and the one sensible output need not be named."""
    arguments = ["-sf", "tensorflow", "-in", case.path("network"), "-iw", case.folder]
    modelport("convert", *arguments, "-df", "pytorch", "-om", tmp_path / "model.pth")
    assert_parity(case, converted(case), import_file(tmp_path / "model.py").load(str(tmp_path / "model.pth")))


@only("cnn_resource")
def test_frozen_as_weights(case, converted, tmp_path):
    """MMdnn's way: the frozen graph alone, as weights, cut at the nodes that are named."""
    height, width, channels = case.facts["inputs"][0]["shape"][1:]
    cut = ["--inNodeName", "input", "--inputShape", f"{height},{width},{channels}", "--dstNodeName", *case.outputs]
    arguments = ["-sf", "tensorflow", "-iw", case.path("frozen"), *cut, "-df", "pytorch"]
    modelport("convert", *arguments, "-om", tmp_path / "model.pth")
    assert_parity(case, converted(case, "frozen"), import_file(tmp_path / "model.py").load(str(tmp_path / "model.pth")))


@only("squeezenet")
def test_mmdnn_names(case, converted, tmp_path):
    """The commands of MMdnn's documentation, word for word."""
    network = ["-f", "tensorflow", "-n", case.path("network"), "-w", case.path("weights")]
    modelport(*network, "--dstNode", *case.outputs, "-o", "converted", name="mmtoir", cwd=tmp_path)
    code = ["--IRModelPath", "converted.pb", "--IRWeightPath", "converted.npy"]
    code += ["--dstModelPath", "converted_pytorch.py", "-dw", "converted_pytorch.npy"]
    modelport("-f", "pytorch", *code, name="mmtocode", cwd=tmp_path)
    model = ["-in", "converted_pytorch.py", "-iw", "converted_pytorch.npy", "-o", "converted_pytorch.pth"]
    modelport("-f", "pytorch", *model, name="mmtomodel", cwd=tmp_path)

    module = import_file(tmp_path / "converted_pytorch.py")
    assert_parity(case, converted(case), module.KitModel(str(tmp_path / "converted_pytorch.npy")).eval())
    assert_parity(case, converted(case), module.load(str(tmp_path / "converted_pytorch.pth")))


@only("squeezenet")
def test_mmconvert(case, converted, tmp_path):
    arguments = ["-sf", "tensorflow", "-in", case.path("network"), "-iw", case.path("weights")]
    arguments += ["--dstNode", *case.outputs, "-df", "pytorch", "-om", "tf_to_pytorch.pth"]
    modelport(*arguments, name="mmconvert", cwd=tmp_path)
    module = import_file(tmp_path / "tf_to_pytorch.py")
    assert_parity(case, converted(case), module.load(str(tmp_path / "tf_to_pytorch.pth")))
    assert hasattr(module, "KitModel")


@only("squeezenet")
def test_whole_module(case, converted, tmp_path, monkeypatch):
    weights = tmp_path / "whole_squeezenet.pth"
    arguments = [*case.source(), "-df", "pytorch", "-om", weights, "--whole-module"]
    modelport("convert", *arguments)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = torch.load(weights, weights_only=False)
    assert type(model).__module__ == "whole_squeezenet"
    assert_parity(case, converted(case), model.eval())


@few_cases
def test_trains(case, converted):
    """Gradients reach every parameter."""
    files = converted(case)
    model = files.load().train()
    inputs = files.report.get("inputs")
    arrays = harness.to_target(harness.by_name(case.facts["inputs"], case.inputs(3), inputs), inputs)
    results = model(*map(torch.from_numpy, map(np.ascontiguousarray, arrays)))
    results = results if isinstance(results, tuple) else (results,)
    sum((result**2).sum() for result in results).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


@only("squeezenet")
def test_inspect(case):
    shown = modelport("inspect", case.path("network")).stdout
    for word in ("features/3/squeeze", "Conv2D", *case.outputs):
        assert word in shown, shown


@only("squeezenet")
def test_notices_a_changed_weight(case, converted):
    """The comparison would fail if one weight were off by a thousandth of the largest."""
    model = converted(case).load()
    with torch.no_grad():
        weight = next(iter(model.parameters()))
        weight.view(-1)[0] += weight.abs().max() / 1000
    with pytest.raises(AssertionError, match="differs by"):
        assert_parity(case, converted(case), model)
