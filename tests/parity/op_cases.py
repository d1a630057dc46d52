"""The folders of `tests/fixtures/ops`: their facts, their conversion, and the comparison in torch."""

import importlib.util
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from harness import ROOT, TOLERANCE, binary, execute

OPS = Path(os.environ.get("MODELPORT_OPS", ROOT / "tests" / "fixtures" / "ops"))


@dataclass(frozen=True)
class OpCase:
    """A graph of a few nodes with inputs and expected outputs in the source's layout."""

    folder: Path

    @property
    def id(self):
        return self.folder.relative_to(OPS).as_posix()

    @cached_property
    def facts(self):
        return json.loads((self.folder / "case.json").read_text())

    @property
    def unsupported(self):
        """Op types that the error must name; None for a graph that converts."""
        return self.facts.get("unsupported")

    @property
    def batches(self):
        return [3] if self.facts.get("batchless") else [3, 1]

    def inputs(self, batch):
        """Input name to array, the batch cut to its first `batch` elements."""
        arrays = {}
        for index, spec in enumerate(self.facts["inputs"]):
            array = np.load(self.folder / f"input_{index}.npy")
            batched = spec["shape"] and spec["shape"][0] is None
            arrays[spec["name"]] = array[:batch] if batched else array
        return arrays

    def expected(self, batch):
        return [np.load(self.folder / f"expected_b{batch}_{i}.npy") for i in range(len(self.facts["outputs"]))]

    @property
    def has_layout(self):
        """Some input or output is of a rank that may take the target's layout."""
        arrays = [*self.inputs(3).values(), *self.expected(3)]
        return any(3 <= array.ndim <= 5 for array in arrays)

    def convert(self, folder, *options):
        command = [binary(), "convert", "-sf", self.facts["source"], "-in", self.folder / self.facts["network"]]
        if "weights" in self.facts:
            command += ["-iw", self.folder / self.facts["weights"]]
        command += ["--dstNode", *self.facts["outputs"], "-df", "pytorch", "-om", folder / "out.pth"]
        command += ["-q", "--json", *options]
        command = [str(argument) for argument in command]
        done = execute(command)
        return Conversion(folder, command, done.returncode, done.stdout, done.stderr)


def cases():
    return [OpCase(path.parent) for path in sorted(OPS.glob("*/*/case.json"))]


@dataclass
class Conversion:
    folder: Path
    command: list
    returncode: int
    stdout: str
    stderr: str

    @property
    def said(self):
        return f"{' '.join(self.command)}\nexited with {self.returncode}\n{self.stdout}{self.stderr}"

    @cached_property
    def report(self):
        return json.loads(self.stdout)

    def load(self):
        path = self.folder / "out.py"
        spec = importlib.util.spec_from_file_location(f"generated_{abs(hash(str(path)))}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.load(str(self.folder / "out.pth"))


def tensor(fact):
    """The source's name; a node's first output goes without its number."""
    return fact["name"].removesuffix(":0")


def to_target(array, fact):
    """The report's `source_permutation` says how the source's axes lie in the converted network."""
    permutation = fact["source_permutation"]
    return array if permutation is None else array.transpose(permutation)


def run(model, arrays):
    given = [torch.from_numpy(np.array(array, order="C")) for array in arrays]
    before = [x.clone() for x in given]
    with torch.no_grad():
        results = model(*given)
    for index, (x, original) in enumerate(zip(given, before, strict=True)):
        assert torch.equal(x, original), f"input {index} was changed in place"
    return results if isinstance(results, tuple) else (results,)


def compare(actual, expected):
    """Element by element, and shapes to the letter; integers and booleans exactly."""
    assert len(actual) == len(expected), f"{len(actual)} outputs, expected {len(expected)}"
    for index, (left, right) in enumerate(zip(actual, expected, strict=True)):
        left = left.detach().numpy() if isinstance(left, torch.Tensor) else np.asarray(left)
        assert left.shape == right.shape, f"output {index} has shape {left.shape}, expected {right.shape}"
        assert left.dtype.kind == right.dtype.kind, f"output {index} is {left.dtype}, expected {right.dtype}"
        if right.dtype.kind != "f":
            assert (left == right).all(), f"output {index} differs in {(left != right).sum()} of {right.size} elements"
            continue
        assert np.isfinite(left).all(), f"output {index} is not finite"
        difference = np.abs(left.astype(np.float64) - right)
        limit = TOLERANCE * np.abs(right).max()
        assert difference.max() <= limit, (
            f"output {index} differs by {difference.max():.2e}, allowed are {limit:.2e}, "
            f"at {tuple(map(int, np.unravel_index(difference.argmax(), difference.shape)))}"
        )


def check(case, conversion):
    """The converted network gives the source's outputs for each batch size."""
    model = conversion.load()
    facts = conversion.report
    for batch in case.batches:
        named = case.inputs(batch)
        assert {tensor(fact) for fact in facts["inputs"]} == set(named), "inputs of the report"
        assert [tensor(fact) for fact in facts["outputs"]] == case.facts["outputs"], "outputs of the report"
        arrays = [to_target(named[tensor(fact)], fact) for fact in facts["inputs"]]
        expected = [to_target(y, fact) for y, fact in zip(case.expected(batch), facts["outputs"], strict=True)]
        try:
            compare(run(model, arrays), expected)
        except Exception as error:
            error.add_note(f"at batch {batch}; {case.facts['note']}\n{(conversion.folder / 'out.py').read_text()}")
            raise
