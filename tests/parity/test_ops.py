"""Each graph of `tests/fixtures/ops` gives the same numbers in torch as in TensorFlow, in both layouts.

A new folder there is a new case. Those of tier 2 wait for a later stage and may fail until then.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from op_cases import cases, check

CASES = cases()
CONVERTIBLE = [case for case in CASES if case.unsupported is None]
LAYOUTS = {"source": ["--layout", "source"], "target": []}


# Of tier 2 for the evaluator only: PyTorch's own interpolation is near enough.
IN_TORCH = {"resize/bicubic_align_corners"}


def is_later(case):
    return case.facts.get("tier", 1) > 1 and case.id not in IN_TORCH


def parameters(selected, *rest):
    later = pytest.mark.xfail(reason="tier 2: a later stage", strict=True)
    return [
        pytest.param(case, *rest, id="-".join([case.id, *rest]), marks=[later] * is_later(case)) for case in selected
    ]


@pytest.fixture(scope="module")
def conversions(request, tmp_path_factory):
    """The conversions of all selected tests, started at once: `conversions[case, layout]` waits for one."""
    wanted = [
        (item.callspec.params["case"], item.callspec.params["layout"])
        for item in request.session.items
        if item.module is request.module and "layout" in getattr(item, "callspec", request).params
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        started = {
            (case, layout): pool.submit(case.convert, tmp_path_factory.mktemp("op"), *LAYOUTS[layout])
            for case, layout in wanted
        }
        yield started
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The tensors are too small to share among threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "case, layout",
    parameters(CONVERTIBLE, "source") + parameters([case for case in CONVERTIBLE if case.has_layout], "target"),
)
def test_op(case, layout, conversions):
    conversion = conversions[case, layout].result()
    assert conversion.returncode == 0, conversion.said
    if layout == "source":
        borders = conversion.report["inputs"] + conversion.report["outputs"]
        assert all(fact["source_permutation"] is None for fact in borders), borders
    check(case, conversion)


@pytest.mark.parametrize("case, layout", parameters([c for c in CASES if c.unsupported is not None], "source"))
def test_unsupported(case, layout, conversions):
    """All that cannot be converted is named, and nothing is written."""
    conversion = conversions[case, layout].result()
    assert conversion.returncode > 0, conversion.said
    missing = [op for op in case.unsupported if not re.search(rf"\b{op}\b", conversion.stderr)]
    assert not missing, f"{missing} not in:\n{conversion.said}"
    assert list(conversion.folder.iterdir()) == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_fixture(case):
    """A folder that is dropped in holds what a case needs."""
    facts = case.facts
    assert facts["source"] and facts["note"] and facts["inputs"] and facts["outputs"]
    assert (case.folder / facts["network"]).exists()
    if case.unsupported is not None:
        assert case.unsupported
        return
    arrays = case.inputs(3)
    for spec in facts["inputs"]:
        array = arrays[spec["name"]]
        assert array.dtype == spec["dtype"] and array.ndim == len(spec["shape"])
        assert all(size in (None, actual) for size, actual in zip(spec["shape"], array.shape, strict=True))
    for batch in case.batches:
        for array in case.expected(batch):
            assert array.dtype in (np.float32, np.int32, np.int64, np.bool_) and array.size
            assert array.dtype.kind != "f" or np.isfinite(array).all()
