"""Runs modelport and compares what it wrote, in PyTorch, with what the source framework computed."""

import errno
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
NETWORKS = Path(os.environ.get("MODELPORT_NETWORKS", FIXTURES / "networks"))
TOLERANCE = 1e-5  # of the largest expected element

sys.path.insert(0, str(FIXTURES))
from inputs import case_inputs  # noqa: E402

torch.set_num_threads(2)


def binary():
    """The program: MODELPORT_BIN, else the release build, else the debug build."""
    builds = [ROOT / "target" / build / "modelport" for build in ("release", "debug")]
    given = os.environ.get("MODELPORT_BIN")
    for path in [Path(given)] if given else builds:
        if path.exists():
            return path
    raise FileNotFoundError("no modelport binary: run `cargo build --release`, or set MODELPORT_BIN")


def execute(command, **options):
    """Runs a command to its end. Starting one may fail with EFAULT on virtual machines whose memory is reclaimed while
    it is being handed over: the same call works then."""
    for tries_left in (2, 1, 0):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
        except OSError as error:
            if error.errno != errno.EFAULT or tries_left == 0:
                raise


def modelport(*arguments, name="modelport", cwd=None, check=True):
    """Runs the program; with `check`, a failure fails the test with what the program said.

    `name` may be one of MMdnn's: a program of its own beside modelport, or the name that modelport is called under.
    """
    program = binary().with_name(name)
    command = [str(argument) for argument in (program, *arguments)]
    executable = program if program.exists() else binary()
    result = execute(command, executable=executable, cwd=cwd)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}\nexited with {result.returncode}\n{result.stdout}{result.stderr}")
    return result


@dataclass
class Case:
    """A network of the fixtures, with its inputs and expected outputs in the source's layout."""

    folder: Path

    def __post_init__(self):
        self.facts = json.loads((self.folder / "case.json").read_text())

    @property
    def name(self):
        return self.folder.name

    @property
    def frozen(self):
        return "frozen" in self.facts

    @property
    def outputs(self):
        return self.facts["outputs"]

    def path(self, key):
        return (self.folder / self.facts[key]).resolve()

    def inputs(self, batch):
        return [array[:batch] for array in case_inputs(self.facts)]

    def expected(self, batch):
        return [np.load(self.folder / f"expected_b{batch}_{index}.npy") for index in range(len(self.outputs))]

    def source(self, kind="checkpoint"):
        """The arguments that name the source: its graph with a checkpoint, or a frozen graph."""
        if kind == "frozen":
            files = ["-in", self.path("frozen")]
        else:
            files = ["-in", self.path("network"), "-iw", self.path("weights")]
        return ["-sf", "tensorflow", *files, "--dstNode", *self.outputs, *self.facts.get("arguments", [])]


def cases():
    return [Case(path.parent) for path in sorted(NETWORKS.glob("*/case.json"))]


@dataclass
class Converted:
    """A conversion's files, and its report."""

    code: Path
    weights: Path
    report: dict

    @property
    def text(self):
        return self.code.read_text()

    def load(self, weights=None):
        return import_file(self.code).load(str(weights or self.weights))


def convert(case, folder, kind="checkpoint", *extra, weights="model.pth"):
    weights = Path(folder) / weights
    result = modelport("convert", *case.source(kind), "-df", "pytorch", "-om", weights, "--json", *extra)
    return Converted(weights.with_suffix(".py"), weights, json.loads(result.stdout))


def import_file(path):
    """The generated module in a namespace of its own: it may rely on nothing that the tests imported or named."""
    spec = importlib.util.spec_from_file_location(f"generated_{abs(hash(str(path)))}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def permutation(array, fact):
    """How the source's axes are arranged in the converted network: target = transpose(source, permutation).

    The report says so. The rule behind it, for want of a report: ranks 3 to 5 take the target's layout.
    """
    if fact is not None:
        return fact["source_permutation"] or list(range(array.ndim))
    if 3 <= array.ndim <= 5:
        return [0, array.ndim - 1, *range(1, array.ndim - 1)]
    return list(range(array.ndim))


def to_target(arrays, facts):
    facts = facts or [None] * len(arrays)
    return [array.transpose(permutation(array, fact)) for array, fact in zip(arrays, facts, strict=True)]


def by_name(specs, arrays, facts):
    """`arrays` in the order of the converted network's arguments."""
    named = dict(zip((spec["name"] for spec in specs), arrays, strict=True))
    return [named[fact["name"].split(":")[0]] for fact in facts] if facts else arrays


def run(model, arrays):
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    with torch.no_grad():
        results = model(*tensors)
    return results if isinstance(results, tuple) else (results,)


def compare(actual, expected):
    """Elementwise, and shapes to the letter: equality up to a broadcast or an order is how layout mistakes hide."""
    assert len(actual) == len(expected), f"{len(actual)} outputs, expected {len(expected)}"
    for index, (left, right) in enumerate(zip(actual, expected, strict=True)):
        left = left.detach().numpy() if isinstance(left, torch.Tensor) else np.asarray(left)
        assert left.shape == right.shape, f"output {index} has shape {left.shape}, expected {right.shape}"
        assert left.dtype.kind == right.dtype.kind, f"output {index} is {left.dtype}, expected {right.dtype}"
        if right.dtype.kind != "f":
            assert (left == right).all(), f"output {index} differs in {(left != right).sum()} of {right.size} elements"
            continue
        difference, largest = np.abs(left.astype(np.float64) - right), np.abs(right).max()
        assert np.isfinite(left).all(), f"output {index} is not finite"
        assert difference.max() <= TOLERANCE * largest, (
            f"output {index} differs by {difference.max() / largest:.2e} of its largest element, "
            f"at {np.unravel_index(difference.argmax(), difference.shape)}"
        )


def assert_parity(case, converted, model=None):
    """The converted network gives the source's outputs at batch 1 and 3."""
    model = model or converted.load()
    inputs, outputs = converted.report.get("inputs"), converted.report.get("outputs")
    for batch in (1, 3):
        arrays = to_target(by_name(case.facts["inputs"], case.inputs(batch), inputs), inputs)
        compare(run(model, arrays), to_target(case.expected(batch), outputs))
