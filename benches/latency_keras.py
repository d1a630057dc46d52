"""Latency of converted Keras networks beside those of `keras.applications`, on one thread, with a batch of one.

    $(tests/setup)/bin/python benches/latency_keras.py [NETWORK …] [--processes N] [--rounds N]

Each of several fresh processes loads both networks and lets them take turns, every second process in the other order.
Told are the median CPU times and the median of the processes' ratios, which may be at most 1.05. TensorFlow networks
are those of `tf1.generate --full`, in the cache (see tests/README.md); PyTorch's are torchvision's, as state dicts.
torchvision's ResNet-50 strides in the 3x3 convolutions, that of `keras.applications` in the 1x1 before: it is compared
with its like, which the builder in `keras.applications` makes of blocks that stride as torchvision's do.
MODELPORT_BIN: the program, default target/release/modelport. KERAS_BACKEND: default tensorflow.
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

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = Path(os.environ.get("MODELPORT_CACHE", Path.home() / ".cache" / "modelport")) / "networks"
BINARY = os.environ.get("MODELPORT_BIN", ROOT / "target" / "release" / "modelport")
LIMIT = 1.05  # of the network of keras.applications
TENSORFLOW = {"mobilenet_v2": "MobileNetV2", "resnet_v1_50": "ResNet50"}
PYTORCH = {"torchvision/mobilenet_v2": "MobileNetV2", "torchvision/resnet50": "ResNet50 1.5"}


def convert(name, folder):
    weights = folder / f"{name.replace('/', '_')}.weights.h5"
    if name in TENSORFLOW:
        case = json.loads((NETWORKS / name / "case.json").read_text())
        source = ["-in", NETWORKS / name / case["network"], "-iw", NETWORKS / name / case["weights"]]
        source += ["--dstNode", case["outputs"][0]]
    else:
        import torch
        import torchvision

        state = folder / "state.pth"
        torch.save(getattr(torchvision.models, name.removeprefix("torchvision/"))(weights=None).state_dict(), state)
        source = ["-sf", "pytorch", "-iw", state]
    subprocess.run(list(map(str, [BINARY, "convert", "-q", *source, "-df", "keras", "-om", weights])), check=True)
    return weights


def resnet50_as_torchvision(keras):
    """ResNet-50 as `keras.applications` writes it, but for the place of the strides."""
    from keras import layers
    from keras.src.applications import resnet

    def conv(x, filters, kernel_size, strides, activation, name):
        x = layers.Conv2D(filters, kernel_size, strides=strides, padding="same", name=f"{name}_conv")(x)
        x = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn")(x)
        return layers.Activation(activation, name=f"{name}_out")(x)

    def block(x, filters, strides, first, name):
        shortcut = conv(x, 4 * filters, 1, strides, "linear", f"{name}_0") if first else x
        x = conv(x, filters, 1, 1, "relu", f"{name}_1")
        x = conv(x, filters, 3, strides, "relu", f"{name}_2")
        x = layers.Add()([shortcut, conv(x, 4 * filters, 1, 1, "linear", f"{name}_3")])
        return layers.Activation("relu")(x)

    def stacks(x):
        for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
            for index in range(blocks):
                x = block(x, filters, 2 if index == 0 and stage else 1, index == 0, f"conv{stage + 2}_block{index + 1}")
        return x

    return resnet.ResNet(stacks, False, True, name="resnet50", weights=None, weights_name=None)


def own(keras, name):
    if name == "ResNet50 1.5":
        return resnet50_as_torchvision(keras)
    return getattr(keras.applications, name)(weights=None)


def child(weights, other, rounds, swapped):
    """In a process of its own: seconds of CPU time per round, of the converted network and of the other."""
    import keras
    import numpy as np

    compiled = keras.backend.backend() == "tensorflow"
    if compiled:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    else:
        import torch

        torch.set_num_threads(1)
        torch.set_grad_enabled(False)
    spec = importlib.util.spec_from_file_location("converted", weights.removesuffix(".weights.h5") + ".py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    makers = [lambda: module.load(weights), lambda: own(keras, other)]
    order = (1, 0) if swapped else (0, 1)
    models = {index: makers[index]() for index in order}
    shapes = {model.input_shape[1:] for model in models.values()}
    assert len(shapes) == 1, f"inputs of {shapes}"
    image = keras.ops.convert_to_tensor(np.random.default_rng(0).standard_normal((1, *shapes.pop())).astype(np.float32))
    calls = {index: tf.function(model) if compiled else model for index, model in models.items()}
    seconds = {index: [] for index in order}
    for turn in range(rounds + 3):
        for index in order:
            start = time.process_time()
            calls[index](image)
            if turn >= 3:  # the first ones warm up
                seconds[index].append(time.process_time() - start)
    print("RESULT" + json.dumps([seconds[0], seconds[1]]))


def measure(name, other, weights, processes, rounds):
    medians, ratios = [], []
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for process in range(processes):
        command = [sys.executable, __file__, "--child", weights, other, "--rounds", rounds]
        command += ["--swapped"] * (process % 2)
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr[-2000:]}")
        converted, own = json.loads(done.stdout.split("RESULT")[-1])
        medians.append((statistics.median(converted), statistics.median(own)))
        ratios.append(statistics.median(map(operator.truediv, converted, own)))
    ours, theirs = (1000 * statistics.median(times) for times in zip(*medians, strict=True))
    ratio = statistics.median(ratios)
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"{name:<28}{other:<16}{ours:>8.1f} ms{theirs:>8.1f} ms{ratio:>8.3f}   {spread}", flush=True)
    return ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*TENSORFLOW, *PYTORCH], metavar="NETWORK")
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--swapped", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.rounds, arguments.swapped)
        return
    pairs = TENSORFLOW | PYTORCH
    missing = [n for n in arguments.names if n not in pairs or n in TENSORFLOW and not (NETWORKS / n).is_dir()]
    if missing:
        sys.exit(f"not among {', '.join(pairs)}, or not in {NETWORKS}: {', '.join(missing)}")
    print(f"{'network':<28}{'beside':<16}{'converted':>11}{'own':>11}{'ratio':>8}   of the processes")
    with tempfile.TemporaryDirectory() as scratch:
        converted = {name: convert(name, Path(scratch)) for name in arguments.names}
        ratios = {
            name: measure(name, pairs[name], weights, arguments.processes, arguments.rounds)
            for name, weights in converted.items()
        }
    slow = [name for name, ratio in ratios.items() if ratio > LIMIT]
    if slow:
        sys.exit(f"slower than keras.applications: {', '.join(slow)}")


if __name__ == "__main__":
    main()
