"""Exported programs (`.pt2`) in PyTorch: equal outputs, and for layers equal keys, for batches of one and three."""

import aten_nets as nets
import pytest
import torch
import torchvision
from harness import TOLERANCE, import_file, modelport
from torch import nn


def ids(batch):
    return (torch.randint(0, 20, (batch, 7)),)


def image(*shape):
    return lambda batch: (torch.randn(batch, *shape),)


def squeezenet():
    return torchvision.models.squeezenet1_1(num_classes=2)


def resnet():
    blocks = [1, 1, 1, 1]
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, blocks, num_classes=4)


NETWORKS = {
    "encoder_decoder": (nets.EncoderDecoder, image(3, 16, 16)),
    "lstm": (lambda: nets.Classifier("LSTM"), ids),
    "gru": (lambda: nets.Classifier("GRU"), ids),
    "rnn": (lambda: nets.Classifier("RNN"), ids),
    "states": (nets.States, ids),
    "gpt": (nets.Gpt, ids),
    "odd": (nets.Odd, image(3, 9, 9)),
    "of_the_batch": (nets.OfTheBatch, lambda batch: (torch.randn(batch, 5, 6),)),
    "encoder": (lambda: nets.Encoder(True), lambda batch: (torch.randn(batch, 5, 12),)),
    "encoder_time_first": (lambda: nets.Encoder(False), lambda batch: (torch.randn(batch, 5, 12),)),
    # As many ids as the batch of the example times the heads: sizes alone don't say which is which.
    "attention": (nets.Folded, lambda batch: (torch.randint(0, 20, (batch, 8)),)),
    "attention_norm_first": (lambda: nets.Folded(norm_first=True), lambda batch: (torch.randint(0, 20, (batch, 7)),)),
    "written": (nets.Written, image(3, 4, 5)),
    "scattered": (nets.Scattered, lambda batch: (torch.randn(batch, 5, 6),)),
    "squeezenet": (squeezenet, image(3, 48, 48)),
    "resnet": (resnet, image(3, 32, 32)),
}


def prepared(make):
    torch.manual_seed(0)
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.6, 1.4)
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def converted(model, inputs, folder, free):
    shapes = tuple({0: torch.export.Dim("batch", min=1, max=64)} for _ in inputs) if free else None
    program = torch.export.export(model, inputs, dynamic_shapes=shapes)
    torch.export.save(program, str(folder / "model.pt2"))
    modelport("convert", "-sf", "pytorch", "-in", folder / "model.pt2", "-df", "pytorch", "-om", folder / "out.pth")
    return import_file(folder / "out.py").load(str(folder / "out.pth")).eval()


def outputs(model, inputs):
    with torch.no_grad():
        result = model(*inputs)
    return [result] if torch.is_tensor(result) else list(result)


def check(model, make, folder, free):
    result = converted(model, make(2), folder, free)
    for batch in (1, 3):
        inputs = make(batch)
        expected, actual = outputs(model, inputs), outputs(result, inputs)
        assert [x.shape for x in actual] == [x.shape for x in expected]
        for x, y in zip(expected, actual, strict=True):
            limit = TOLERANCE * x.double().abs().max()
            assert (x.double() - y.double()).abs().max() <= limit
    return result


@pytest.mark.parametrize("free", [True, False], ids=["free", "fixed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_exported_network(name, free, tmp_path):
    make, inputs = NETWORKS[name]
    model = prepared(make)
    result = check(model, inputs, tmp_path, free)
    assert set(model.state_dict()) == set(result.state_dict())


@pytest.mark.parametrize("length", [7, 8])
def test_a_batch_that_is_not_the_first_axis_is_said(length, tmp_path):
    """A sequence of eight is as long as the batch times the heads."""
    torch.manual_seed(0)
    model = nets.Sequences().eval()
    torch.export.save(torch.export.export(model, (torch.randn(length, 2, 16),)), str(tmp_path / "model.pt2"))
    command = ("convert", "-in", tmp_path / "model.pt2", "-df", "pytorch", "-om", tmp_path / "out.pth")
    modelport(*command, "--inputShape", f"{length},-1,16")
    result = import_file(tmp_path / "out.py").load(str(tmp_path / "out.pth"))
    for batch in (1, 3):
        x = torch.randn(length, batch, 16)
        for expected, actual in zip(outputs(model, (x,)), outputs(result, (x,)), strict=True):
            assert expected.shape == actual.shape
            assert (expected - actual).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", nets.FUNCTIONS)
def test_exported_function(name, tmp_path):
    # What `torch.export` fixes is freed again.
    check(nets.Fn(nets.FUNCTIONS[name]), image(4, 6, 8), tmp_path, free=name != "affine_grid")


class Standardized(nn.Module):
    """Weight standardisation (Qiao et al., 2019): a kernel of mean 0 and deviation 1 per output channel."""

    def forward(self, weight):
        deviation, mean = torch.std_mean(weight, dim=(1, 2, 3), keepdim=True)
        return (weight - mean) / (deviation + 1e-5)


def test_weights_that_are_computed_are_trained(tmp_path):
    """A kernel that is computed from another is one tensor, which is saved and trained as any other."""
    conv = nn.Conv2d(4, 3, 3)
    nn.utils.parametrize.register_parametrization(conv, "weight", Standardized())
    result = check(nn.Sequential(conv, nn.ReLU()).eval(), image(4, 6, 8), tmp_path, free=True)
    assert {key: tuple(tensor.shape) for key, tensor in result.named_parameters()} == {
        "0.weight": (3, 4, 3, 3),
        "0.bias": (3,),
    }
    assert result.state_dict().keys() == dict(result.named_parameters()).keys()


def test_a_state_dict_without_constants_is_refused(tmp_path):
    """What `model.state_dict()` saves lacks the constants that the weights file has, and without them is no network."""
    net = nn.Sequential(nets.Fn(nets.FUNCTIONS["affine_grid"]), nn.Conv2d(4, 2, 1)).eval()
    result = check(net, image(4, 6, 8), tmp_path, free=False)
    assert result.state_dict().keys() == net.state_dict().keys()
    code = import_file(tmp_path / "out.py")
    torch.save(result.state_dict(), tmp_path / "saved.pth")
    with pytest.raises(ValueError, match="without constants"):
        code.load(str(tmp_path / "saved.pth"))


def test_operators_without_translation_are_listed_at_once(tmp_path):
    model = nets.Fn(lambda x: torch.linalg.inv(x) + torch.fft.rfft(x).real.sum())
    torch.export.save(torch.export.export(model, (torch.randn(2, 4, 4),)), str(tmp_path / "model.pt2"))
    command = ("convert", "-sf", "pytorch", "-in", tmp_path / "model.pt2", "-df", "pytorch", "-om", tmp_path / "o.pth")
    run = modelport(*command, check=False)
    assert run.returncode != 0
    assert "linalg_inv" in run.stderr and "fft" in run.stderr
    assert not (tmp_path / "o.pth").exists()
