"""Recurrent layers of PyTorch as Keras': cells, directions, stacks, states, and every kind of file, on each backend."""

import functools

import pytest
import torch
from harness import modelport
from test_keras import ALL_BACKENDS, VERSION_2, batches, convert, work
from torch import nn


class Net(nn.Module):
    """A layer on `[batch, 6, 4]`; gives those of the sequence and the last states that `gives` names."""

    def __init__(self, kind, gives="y", initial=False, **options):
        super().__init__()
        self.rnn = getattr(nn, kind)(4, 3, **options)
        self.gives, self.initial = gives, initial

    def forward(self, x):
        first = None
        if self.initial:
            rows = self.rnn.num_layers * (1 + self.rnn.bidirectional)
            first = (x[:, :1, :3].transpose(0, 1) * 0.5).expand(rows, -1, -1)
            first = (first, first * -0.3) if isinstance(self.rnn, nn.LSTM) else first
        y, states = self.rnn(x if self.rnn.batch_first else x.transpose(0, 1), first)
        named = {"y": y if self.rnn.batch_first else y.transpose(0, 1)}
        named |= dict(zip("hc", states if isinstance(states, tuple) else (states,), strict=False))
        return tuple(
            named[name].transpose(0, 1) if name != "y" else y for name, y in named.items() if name in self.gives
        )


CASES = {
    f"{kind}-{name}": functools.partial(Net, kind, **options)
    for kind in ("LSTM", "GRU", "RNN")
    for name, options in {
        "plain": {"batch_first": True},
        "no_bias": {"bias": False},
        "stacked": {"num_layers": 2, "batch_first": True, "gives": "yh", "dropout": 0.1},
        "both_ways": {"bidirectional": True, "num_layers": 2, "batch_first": True, "gives": "yhc"},
        "states": {"batch_first": True, "gives": "hc"},
        "initial": {"batch_first": True, "gives": "yh", "initial": True},
        "initial_both_ways": {"batch_first": True, "initial": True, "bidirectional": True},
    }.items()
} | {"RNN-relu": functools.partial(Net, "RNN", nonlinearity="relu", batch_first=True)}
FILES = ["h5", "weights.h5", "npy", "safetensors"]


def job(name, folder, *extra, model="model.keras"):
    torch.manual_seed(3)
    net = CASES[name]().eval()
    folder.mkdir(parents=True, exist_ok=True)
    x = torch.randn(2, 6, 4)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    torch.export.save(program, folder / "net.pt2")
    done = convert(["-sf", "pytorch", "-iw", folder / "net.pt2"], folder / "out", *extra, model=model, check=False)
    if done.returncode != 0:
        return {"id": name, "wrong": done.stdout + done.stderr}

    def pair(batch):
        x = torch.randn(batch, 6, 4)
        with torch.no_grad():
            return [x.numpy()], [y.numpy() for y in net(x)]

    weights = str(folder / "out" / model)
    models = [weights] if model.endswith(("keras", "l.h5")) else []
    files = {"code": str(folder / "out" / "model.py"), "weights": weights, "models": models}
    return {"id": name, **files, "batches": batches(folder, [pair(1), pair(3)])}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recurrent")
    jobs = [job(name, folder / name) for name in CASES]
    for extension in FILES:
        made = job("LSTM-both_ways", folder / extension, model=f"model.{extension}")
        jobs.append({**made, "id": extension})
    return functools.cache(lambda backend: work(jobs, folder, backend))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ALL_BACKENDS)
@pytest.mark.parametrize("name", [*CASES, *FILES])
def test_recurrent(name, backend, results):
    assert results(backend)[name] is None, results(backend)[name]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("python", VERSION_2)
def test_version_2(python, tmp_path):
    names = [name for name in CASES if name.endswith(("plain", "relu", "both_ways"))]
    jobs = [job(name, tmp_path / name, "--keras-version", "2", model="model.npy") for name in names]
    wrong = work(jobs, tmp_path, "tensorflow", VERSION_2[python], version=2)
    assert not any(wrong.values()), wrong


@pytest.mark.filterwarnings("ignore")
def test_projections_are_an_error(tmp_path):
    net = nn.LSTM(4, 3, proj_size=2, batch_first=True).eval()
    torch.export.save(torch.export.export(net, (torch.randn(2, 6, 4),)), tmp_path / "net.pt2")
    arguments = ["-sf", "pytorch", "-iw", tmp_path / "net.pt2", "-df", "keras", "-om", tmp_path / "net.keras"]
    done = modelport("convert", *arguments, check=False)
    assert done.returncode == 1 and "proj" in done.stderr
    assert not (tmp_path / "net.keras").exists()
