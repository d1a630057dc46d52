"""Latency of converted networks at their full size, beside modules written by hand and other converters' results.

    $(tests/setup)/bin/python benches/latency.py [NETWORK …] [--onnx FOLDER] [--rounds N]

One thread, batch 1. Modules take turns, round by round; told are the median of the CPU time of the thread, which other
programs on the machine disturb less than the clock, and the median of each round's ratio to the first of the network.
First comes the same network by hand where there is one (`by_hand.py`; it must compute the same), with a limit of 1.03
for the converted one; torchvision's modules are of another architecture where they differ from slim's. The networks are
those of `tf1.generate --full`, in the cache (see tests/README.md). With --onnx, FOLDER/NETWORK.onnx as tf2onnx has
written it is run through onnx2torch as well, where that is installed.
MODELPORT_BIN: the program, default target/release/modelport.
"""

import argparse
import importlib.util
import json
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import by_hand
import torch
import torchvision

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = Path(os.environ.get("MODELPORT_CACHE", Path.home() / ".cache" / "modelport")) / "networks"
BINARY = os.environ.get("MODELPORT_BIN", ROOT / "target" / "release" / "modelport")
DEFAULT = ["resnet_v1_50", "mobilenet_v2", "inception_v3", "resnet_v2_50", "vgg_16"]
LIMIT = 1.03  # of the network by hand
TORCHVISION = {
    "inception_v3": lambda: torchvision.models.inception_v3(weights=None, init_weights=False),
    "resnet_v1_50": lambda: torchvision.models.resnet50(weights=None, num_classes=1001),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(weights=None, num_classes=1001),
    "vgg_16": lambda: torchvision.models.vgg16(weights=None, num_classes=1001),
}


def converted(name, purpose, folder):
    case = json.loads((NETWORKS / name / "case.json").read_text())
    source = ["-in", NETWORKS / name / case["network"], "-iw", NETWORKS / name / case["weights"]]
    weights = folder / f"{name}_{purpose}.pth"
    command = [BINARY, "convert", "-q", *source, "--dstNode", case["outputs"][0], "-om", weights, "--for", purpose]
    subprocess.run(list(map(str, command)), check=True)
    spec = importlib.util.spec_from_file_location(weights.stem, weights.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(str(weights)), case["inputs"][0]["shape"]


def of_chain(path):
    """tf2onnx's file as onnx2torch makes it a module; its input is channels-last."""
    from onnx2torch import convert

    return convert(str(path)).eval()


def models(names, onnx, folder):
    """(network, kind) -> the module and its input."""
    found = {}
    for name in names:
        ours, (_, height, width, channels) = converted(name, "training", folder)
        image = torch.randn(1, channels, height, width)
        if name in by_hand.NETWORKS:
            model = by_hand.load_in_order(by_hand.NETWORKS[name](), ours)
            by_hand.check(model, ours, image)
            found[name, "by hand"] = (model, image)
        found[name, "converted"] = (ours, image)
        found[name, "--for inference"] = (converted(name, "inference", folder)[0], image)
        if name in TORCHVISION:
            found[name, "torchvision"] = (TORCHVISION[name]().eval(), image)
        if onnx and (path := onnx / f"{name}.onnx").exists():
            found[name, "tf2onnx + onnx2torch"] = (of_chain(path), image.permute(0, 2, 3, 1).contiguous())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=DEFAULT, metavar="NETWORK")
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    missing = [name for name in arguments.names if not (NETWORKS / name / "case.json").exists()]
    if missing:
        sys.exit(f"not in {NETWORKS}: {', '.join(missing)}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        runs = models(arguments.names, arguments.onnx, Path(scratch))
    seconds = {key: [] for key in runs}
    with torch.inference_mode():
        for turn in range(arguments.rounds + 1):
            for key, (model, image) in runs.items():
                start = time.thread_time()
                model(image)
                if turn:  # the first one warms up
                    seconds[key].append(time.thread_time() - start)
    print(f"{'network':<16}{'':<24}{'median':>10}{'ratio':>8}")
    over = []
    for (name, kind), times in seconds.items():
        first = next(other for (network, _), other in seconds.items() if network == name)
        ratio = statistics.median(map(operator.truediv, times, first))
        print(f"{name:<16}{kind:<24}{1000 * statistics.median(times):>7.1f} ms{ratio:>8.3f}")
        if kind == "converted" and ratio > LIMIT:
            over.append(name)
    if over:
        sys.exit(f"slower than by hand: {', '.join(over)}")


if __name__ == "__main__":
    main()
