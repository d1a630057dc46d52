"""Latency of converted networks at their full size, beside modules written by hand and other converters' results.

    $(tests/setup)/bin/python benches/latency.py [NETWORK …] [--onnx FOLDER] [--rounds N] [--processes N]

One thread, batch 1. Where a process happens to have its memory makes the same module up to a fifth slower or faster, so
each network is measured in several fresh processes, pinned to one processor, in which the modules are made in another
order each time. In a process the modules take turns, forwards and backwards, after rounds that warm up; its figures are
the median of the thread's CPU time, which other programs on the machine disturb less than the clock, and the median of
each round's ratio to the first module. Told are the medians over the processes, and the lowest and highest ratio.

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
WARM_UP = 3
PURPOSES = {"converted": "training", "--for inference": "inference"}
TORCHVISION = {
    "inception_v3": lambda: torchvision.models.inception_v3(weights=None, init_weights=False),
    "resnet_v1_50": lambda: torchvision.models.resnet50(weights=None, num_classes=1001),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(weights=None, num_classes=1001),
    "vgg_16": lambda: torchvision.models.vgg16(weights=None, num_classes=1001),
}


def case_of(name):
    return json.loads((NETWORKS / name / "case.json").read_text())


def code_of(name, purpose, folder):
    return folder / f"{name}_{purpose}.py"


def convert(name, purpose, folder):
    case = case_of(name)
    source = ["-in", NETWORKS / name / case["network"], "-iw", NETWORKS / name / case["weights"]]
    weights = code_of(name, purpose, folder).with_suffix(".pth")
    command = [BINARY, "convert", "-q", *source, "--dstNode", case["outputs"][0], "-om", weights, "--for", purpose]
    subprocess.run(list(map(str, command)), check=True)


def converted(name, purpose, folder):
    path = code_of(name, purpose, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(str(path.with_suffix(".pth")))


def handmade(name, folder, image):
    theirs = converted(name, "training", folder)
    model = by_hand.load_in_order(by_hand.NETWORKS[name](), theirs)
    by_hand.check(model, theirs, image)
    return model


def of_chain(path):
    """tf2onnx's file as onnx2torch makes it a module; its input is channels-last."""
    from onnx2torch import convert

    return convert(str(path)).eval()


def kinds_of(name, onnx):
    """The modules that there are of a network, the one that the others are compared with first."""
    kinds = ["by hand"] if name in by_hand.NETWORKS else []
    kinds += [*PURPOSES, *(["torchvision"] if name in TORCHVISION else [])]
    return kinds + (["tf2onnx + onnx2torch"] if onnx and (onnx / f"{name}.onnx").exists() else [])


def module_of(name, kind, folder, onnx, image):
    """A module of a network, and its input."""
    if kind == "by hand":
        return handmade(name, folder, image), image
    if kind in PURPOSES:
        return converted(name, PURPOSES[kind], folder), image
    if kind == "torchvision":
        return TORCHVISION[name]().eval(), image
    return of_chain(onnx / f"{name}.onnx"), image.permute(0, 2, 3, 1).contiguous()


def measure(name, folder, onnx, rounds, number):
    """In a process of its own, the `number`th: kind -> milliseconds, and the ratio to the first kind."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number % len(os.sched_getaffinity(0))]})
    torch.set_num_threads(1)
    _, height, width, channels = case_of(name)["inputs"][0]["shape"]
    image = torch.randn(1, channels, height, width)
    kinds = kinds_of(name, onnx)
    order = kinds[number % len(kinds) :] + kinds[: number % len(kinds)]
    runs = {kind: module_of(name, kind, folder, onnx, image) for kind in order}
    seconds = {kind: [] for kind in kinds}
    with torch.inference_mode():
        for turn in range(WARM_UP + rounds):
            for kind in order if turn % 2 else reversed(order):
                model, data = runs[kind]
                start = time.thread_time()
                model(data)
                if turn >= WARM_UP:
                    seconds[kind].append(time.thread_time() - start)
    first = seconds[kinds[0]]
    ratio = {kind: statistics.median(map(operator.truediv, times, first)) for kind, times in seconds.items()}
    return {kind: (1000 * statistics.median(times), ratio[kind]) for kind, times in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=DEFAULT, metavar="NETWORK")
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--processes", type=int, default=7)
    parser.add_argument("--process", nargs=2, metavar=("NUMBER", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        number, folder = arguments.process
        figures = measure(arguments.names[0], Path(folder), arguments.onnx, arguments.rounds, int(number))
        print(json.dumps(figures))
        return
    missing = [name for name in arguments.names if not (NETWORKS / name / "case.json").exists()]
    if missing:
        sys.exit(f"not in {NETWORKS}: {', '.join(missing)}")
    over = []
    print(f"{'network':<16}{'':<24}{'median':>10}{'ratio':>8}{'lowest':>9}{'highest':>9}")
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.names:
            for purpose in PURPOSES.values():
                convert(name, purpose, Path(scratch))
            command = [sys.executable, __file__, name, "--rounds", str(arguments.rounds)]
            command += ["--onnx", str(arguments.onnx)] if arguments.onnx else []
            processes = []
            for number in range(arguments.processes):
                said = subprocess.run([*command, "--process", str(number), scratch], check=True, stdout=subprocess.PIPE)
                processes.append(json.loads(said.stdout))
            for kind in kinds_of(name, arguments.onnx):
                times, ratios = zip(*(process[kind] for process in processes), strict=True)
                ratio = statistics.median(ratios)
                spread = f"{min(ratios):>9.3f}{max(ratios):>9.3f}"
                print(f"{name:<16}{kind:<24}{statistics.median(times):>7.1f} ms{ratio:>8.3f}{spread}", flush=True)
                if kind == "converted" and "by hand" in processes[0] and ratio > LIMIT:
                    over.append(name)
    if over:
        sys.exit(f"slower than by hand: {', '.join(over)}")


if __name__ == "__main__":
    main()
