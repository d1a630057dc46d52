"""Graphs whose names say nothing: the planner finds the same structure, and the outputs are the same."""

import harness
import pytest
from harness import Converted, assert_parity, modelport
from scramble import scramble

# One and a half times the lines that the graph may have with its names.
LINES = {
    "inception_v3": 285,
    "resnet_v2_50": 165,
    "resnet_v2_152": 172,
    "vgg_16": 120,
    "mobilenet_v2": 180,
    "inception_resnet_v2": 285,
    "nasnet": 375,
    "resnet_v1_50": 165,
    "unet": 120,
}
CASES = [case for case in harness.cases() if case.name in LINES and case.frozen]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_scrambled(case, converted, tmp_path):
    graph, names = scramble(case.path("frozen").read_bytes())
    (tmp_path / "scrambled.pb").write_bytes(graph)
    outputs = [names[output] for output in case.outputs]
    arguments = ["-sf", "tensorflow", "-in", tmp_path / "scrambled.pb", "--dstNode", *outputs, "-df", "pytorch"]
    modelport("convert", *arguments, "-om", tmp_path / "model.pth")
    scrambled = Converted(tmp_path / "model.py", tmp_path / "model.pth", converted(case).report)
    assert_parity(case, scrambled)
    assert len(scrambled.text.splitlines()) <= LINES[case.name]
