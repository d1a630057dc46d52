"""Every generated network is taken by PyTorch's compilers and exporters, also for inference and from PyTorch."""

import harness
import numpy as np
import pytest
import test_roundtrip
import torch

# Dynamo goes around recurrent layers, one graph before and one behind, unless it is told that it may try.
torch._dynamo.config.allow_rnn = True

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


def taken_by_all(model, inputs):
    """Compiled, exported and traced, the model gives the same; exported also for another batch."""
    torch._dynamo.reset()
    shapes = tuple({0: torch.export.Dim("batch", min=1, max=64)} if tensor.dim() else None for tensor in inputs)
    others = {
        "compiled": torch.compile(model, backend="eager", fullgraph=True),
        "exported": torch.export.export(model, inputs, dynamic_shapes=shapes).module(),
        "traced": torch.jit.trace(model, inputs, check_trace=False),
    }
    with torch.no_grad():
        for name, other in others.items():
            for batch in (inputs, tuple(tensor[:1] for tensor in inputs)):
                for left, right in zip(results(model(*batch)), results(other(*batch)), strict=True):
                    torch.testing.assert_close(
                        right, left, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
                    )


def results(found):
    return found if isinstance(found, tuple) else (found,)


@each_case
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_for_inference(case, converted):
    files = converted(case, "checkpoint", "--for", "inference")
    taken_by_all(files.load(), arguments(case, files, 3))


@pytest.mark.parametrize("purpose", ["training", "inference"])
@pytest.mark.parametrize("name", test_roundtrip.NETWORKS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_from_pytorch(name, purpose, tmp_path):
    """What was a PyTorch network is taken as well, and computes the same when it is made for inference."""
    source, inputs = test_roundtrip.export(name, tmp_path)
    arguments = ["-sf", "pytorch", "-in", tmp_path / "net.pt2", "-df", "pytorch", "-om", tmp_path / "out.pth"]
    harness.modelport("convert", *arguments, "--for", purpose)
    twin = harness.import_file(tmp_path / "out.py").load(str(tmp_path / "out.pth"))
    with torch.no_grad():
        harness.compare([twin(*inputs)], [source(*inputs).numpy()])
    text = (tmp_path / "out.py").read_text()
    assert purpose == "training" or "nn.Dropout" not in text
    taken_by_all(twin, inputs)
