"""Every generated network is taken by PyTorch's compilers and exporters."""

import harness
import numpy as np
import pytest
import torch

CASES = {case.name: case for case in harness.cases()}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def arguments(case, files, batch):
    facts = files.report.get("inputs")
    arrays = harness.to_target(harness.by_name(case.facts["inputs"], case.inputs(batch), facts), facts)
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)


def assert_same(model, other, case, files):
    """Both give the same at batch 1 and 3."""
    with torch.no_grad():
        for batch in (1, 3):
            inputs = arguments(case, files, batch)
            left, right = model(*inputs), other(*inputs)
            left, right = (x if isinstance(x, tuple) else (x,) for x in (left, right))
            harness.compare(left, [x.numpy() for x in right])


@each_case
def test_export(case, converted):
    files = converted(case)
    model = files.load()
    inputs = arguments(case, files, 3)
    shapes = tuple({0: torch.export.Dim("batch", min=1, max=64)} if tensor.dim() else None for tensor in inputs)
    program = torch.export.export(model, inputs, dynamic_shapes=shapes)
    assert_same(program.module(), model, case, files)


@each_case
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_trace(case, converted):
    files = converted(case)
    model = files.load()
    assert_same(torch.jit.trace(model, arguments(case, files, 3), check_trace=False), model, case, files)


@each_case
def test_compile(case, converted):
    """In one graph, without a break."""
    files = converted(case)
    model = files.load()
    torch._dynamo.reset()
    assert_same(torch.compile(model, backend="eager", fullgraph=True), model, case, files)
