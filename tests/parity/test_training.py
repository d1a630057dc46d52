"""Converted networks train as their sources do: gradients, statistics of batches, their moving averages, dropout."""

import json
import subprocess
import sys
from pathlib import Path

import harness
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness import modelport

WORKER = Path(__file__).with_name("tf_worker.py")
TOLERANCE = 1e-4  # of the largest gradient
BATCH = 3


class Small(harness.Case):
    """A graph of the operators' fixtures, whose inputs are stored."""

    def inputs(self, batch):
        return [np.load(self.folder / f"input_{i}.npy")[:batch] for i in range(len(self.facts["inputs"]))]


# Graphs in training mode, or with a flag that says so. (Not inception_v3_training: of ninety norms in a
# row, over few elements each, every one magnifies what rounding does.)
TRAINING = ["cnn_training", "cnn_training_switch", "inception_resnet_v2_training"]
SMALL = """
    slim_fused slim_fused_scale slim_unfused slim_rank2_unfused slim_updates_in_place tf_layers by_hand by_hand_ema
    placeholder_switch placeholder_switch_unfused placeholder_tf_layers
""".split()
# Norms written with tf.nn.moments average the variance of the batch itself; fused ones, and PyTorch's, that of all that
# it is drawn from, which is larger by n / (n - 1). By the number of elements in a channel:
BIASED = {
    "slim_unfused": 60,
    "slim_rank2_unfused": 3,
    "placeholder_switch_unfused": 60,
    "by_hand": 60,
    "by_hand_ema": 60,
}
CASES = {case.name: case for case in harness.cases()}
OPS = harness.FIXTURES / "ops" / "training"
CASES.update({name: Small(OPS / name) for name in SMALL})
TRAINING = [name for name in TRAINING + SMALL if name in CASES]
EVALUATION = ["resnet_v1_50", "mobilenet_v2", "vgg_16", "unet", "mlp", "text_cnn", "cnn_partitioned"]
EVALUATION = [name for name in EVALUATION if name in CASES]


def projections(case):
    random = np.random.RandomState(len(case.name))
    return [random.normal(size=y.shape).astype(np.float32) for y in case.expected(BATCH)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The folder of each network with what TensorFlow computed."""
    folder = tmp_path_factory.mktemp("sources")
    jobs = {}
    for name in TRAINING + EVALUATION:
        case = CASES[name]
        (folder / name).mkdir()
        arrays = {f"input_{i}": array for i, array in enumerate(case.inputs(BATCH))}
        arrays.update({f"projection_{i}": array for i, array in enumerate(projections(case))})
        np.savez(folder / name / "arrays.npz", **arrays)
        jobs[name] = {
            "network": str(case.path("network")),
            "weights": str(case.path("weights")),
            "inputs": [spec["name"] for spec in case.facts["inputs"]],
            "outputs": case.outputs,
            "arrays": str(folder / name / "arrays.npz"),
            "folder": str(folder / name),
        }
    path = folder / "jobs.json"
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs.values()))
    done = subprocess.run([sys.executable, WORKER, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def weights_of(case, checkpoint, scratch):
    """What another checkpoint of the same variables becomes: the conversion itself knows the arrangement of each."""
    source = case.source()
    source[source.index("-iw") + 1] = checkpoint
    modelport("convert", *source, "-df", "pytorch", "-om", scratch / "model.pth", "--name-map", scratch / "names.json")
    names = json.loads((scratch / "names.json").read_text())
    return {key: x for key, x in torch.load(scratch / "model.pth", weights_only=True).items() if names[key]}


class Training:
    """One step forward and back, of both; dropout in PyTorch drops what TensorFlow dropped."""

    def __init__(self, case, files, source, monkeypatch, train):
        results = np.load(source / "results.npz")
        self.model = files.load().train(train)
        facts = files.report
        self.dropped = 0
        self.masks = [results[key] for key in results if key.startswith("masks_")]
        monkeypatch.setattr(F, "dropout", self.dropout)
        specs = case.facts["inputs"]
        arrays = harness.to_target(harness.by_name(specs, case.inputs(BATCH), facts["inputs"]), facts["inputs"])
        self.inputs = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        for x in self.inputs:
            x.requires_grad_(x.is_floating_point())
        outputs = self.model(*self.inputs)
        self.outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = zip(self.outputs, harness.to_target(projections(case), facts["outputs"]), strict=True)
        sum((y * torch.from_numpy(np.ascontiguousarray(r))).sum() for y, r in pairs).backward()
        self.expected = harness.to_target([results[f"outputs_{i}"] for i in range(len(self.outputs))], facts["outputs"])
        gradients = [results[f"gradients_{i}"] for i in range(len(specs))]
        self.input_gradients = [
            gradient.transpose(harness.permutation(gradient, fact)) if gradient.ndim else None
            for gradient, fact in zip(harness.by_name(specs, gradients, facts["inputs"]), facts["inputs"], strict=True)
        ]

    def dropout(self, x, p=0.5, training=True, inplace=False):
        if not training:
            return x
        self.dropped += 1
        [mask] = [mask for mask in self.masks if mask.size == x.numel() and mask.shape[-1] == x.shape[1]]
        mask = torch.from_numpy(mask).movedim(-1, 1).reshape(x.shape)
        return x * mask / (1 - p)


def assert_close(actual, expected, largest, what):
    assert actual.shape == expected.shape, what
    difference = (actual - expected).abs().max().item()
    assert difference <= TOLERANCE * largest, f"{what} differs by {difference / largest:.2e} of the largest gradient"


def assert_gradients(step, expected):
    """Of the inputs, and of all parameters that the source has."""
    for x, gradient in zip(step.inputs, step.input_gradients, strict=True):
        if x.requires_grad:
            gradient = torch.from_numpy(np.ascontiguousarray(gradient))
            assert_close(x.grad, gradient, gradient.abs().max().item(), "the gradient of the input")
    parameters = {key: x.grad for key, x in step.model.named_parameters() if key in expected}
    assert len(parameters) >= 3 and all(grad is not None for grad in parameters.values())
    largest = max(expected[key].abs().max().item() for key in parameters)
    for key, gradient in parameters.items():
        assert_close(gradient, expected[key], largest, key)
        assert expected[key].abs().max() > 0, key


@pytest.mark.parametrize("name", EVALUATION)
def test_gradients(name, converted, sources, tmp_path, monkeypatch):
    case = CASES[name]
    step = Training(case, converted(case), sources / name, monkeypatch, train=False)
    assert_gradients(step, weights_of(case, sources / name / "gradients", tmp_path))


@pytest.mark.parametrize("name", TRAINING)
def test_training(name, converted, sources, tmp_path, monkeypatch):
    """With the statistics of the batch: outputs, gradients, and what the moving averages become."""
    case = CASES[name]
    step = Training(case, converted(case), sources / name, monkeypatch, train=True)
    assert len(step.masks) == step.dropped, "the places of dropout"
    for y, expected in zip(step.outputs, step.expected, strict=True):
        assert_close(y, torch.from_numpy(np.ascontiguousarray(expected)), np.abs(expected).max(), "an output")
    assert_gradients(step, weights_of(case, sources / name / "gradients", tmp_path))

    updated = weights_of(case, sources / name / "updated", tmp_path)
    before = torch.load(converted(case).weights, weights_only=True)
    modules = {key: module for key, module in step.model.named_modules() if hasattr(module, "running_var")}
    assert modules
    for key, module in modules.items():
        for statistic in ("running_mean", "running_var"):
            expected = updated[f"{key}.{statistic}"]
            kept = before[f"{key}.{statistic}"] * (1 - module.momentum)
            if statistic == "running_var" and name in BIASED:
                expected = kept + (expected - kept) * BIASED[name] / (BIASED[name] - 1)
            moved = (expected - before[f"{key}.{statistic}"]).abs().max()
            assert moved > 0
            difference = (getattr(module, statistic) - expected).abs().max()
            limit = 1e-3 * moved + 1e-6 * expected.abs().max()
            assert difference <= limit, f"{key}.{statistic} differs by {difference / moved:.2e} of what it moved"
