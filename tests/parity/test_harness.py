"""The comparison itself: it must fail where a careless one would pass. Needs no modelport."""

import json

import harness
import numpy as np
import pytest
import torch
from harness import Case, Converted, assert_parity, compare


@pytest.fixture
def example(tmp_path):
    """A convolution as a case (channels-last) and as modelport's result (channels-first), made by hand."""
    random = np.random.RandomState(0)
    folder = tmp_path / "case"
    folder.mkdir()
    spec = {"name": "input", "shape": [None, 6, 5, 3], "dtype": "float32", "low": -1, "high": 1, "patch": 2}
    (folder / "case.json").write_text(json.dumps({"inputs": [spec], "outputs": ["conv"], "seed": 7}))
    case = Case(folder)
    kernel = random.normal(size=(4, 3, 3, 3)).astype(np.float32)
    for batch in (1, 3):
        x = torch.from_numpy(case.inputs(batch)[0]).permute(0, 3, 1, 2)
        y = torch.nn.functional.conv2d(x.double(), torch.from_numpy(kernel).double())
        np.save(folder / f"expected_b{batch}_0.npy", y.permute(0, 2, 3, 1).float().numpy())

    code = tmp_path / "model.py"
    code.write_text(
        "import torch\n\n\n"
        "def load(weights):\n"
        "    model = torch.nn.Conv2d(3, 4, 3, bias=False)\n"
        "    model.load_state_dict(torch.load(weights, weights_only=True))\n"
        "    return model.eval()\n"
    )
    torch.save({"weight": torch.from_numpy(kernel)}, tmp_path / "model.pth")
    facts = {"source_permutation": [0, 3, 1, 2]}
    report = {"inputs": [{"name": "input", **facts}], "outputs": [{"name": "conv", **facts}]}
    return case, Converted(code, tmp_path / "model.pth", report)


def test_equal(example):
    assert_parity(*example)


def test_equal_by_the_rule(example):
    case, converted = example
    assert_parity(case, Converted(converted.code, converted.weights, {}))


def test_perturbed_weight(example):
    case, converted = example
    model = converted.load()
    with torch.no_grad():
        model.weight[1, 2, 0, 1] *= 1.001
    with pytest.raises(AssertionError, match="differs by"):
        assert_parity(case, converted, model)


def test_permuted_output():
    values = np.random.RandomState(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
    with pytest.raises(AssertionError, match="differs by"):
        compare([values.transpose(0, 3, 1, 2)], [values])


def test_shape_and_type():
    values = np.ones((2, 4), np.float32)
    for wrong in (values[:1], values.reshape(2, 4, 1), values.astype(np.int64)):
        with pytest.raises(AssertionError, match="expected"):
            compare([wrong], [values])


def test_not_a_number():
    values = np.ones((2, 4), np.float32)
    with pytest.raises(AssertionError, match="finite|differs"):
        compare([values * np.nan], [values])


def test_missing_output():
    with pytest.raises(AssertionError, match="1 outputs"):
        compare([np.ones(1)], [np.ones(1), np.ones(1)])


def test_every_case_is_whole():
    for case in harness.cases():
        for batch in (1, 3):
            for spec, array in zip(case.facts["inputs"], case.inputs(batch), strict=True):
                assert array.shape == (batch, *spec["shape"][1:])
                assert array.dtype == spec["dtype"]
            for value in case.expected(batch):
                assert value.shape[0] == batch and np.isfinite(value).all()
        for index, stored in enumerate(sorted(case.folder.glob("input_*.npy"))):
            assert np.array_equal(np.load(stored), case.inputs(3)[index])
