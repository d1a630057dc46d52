"""Networks and operators in Keras: through the code and through the files of whole models, on each backend."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import harness
import numpy as np
import op_cases
import pytest
from harness import modelport, to_target

WORKER = Path(__file__).with_name("keras_worker.py")
ALL_BACKENDS = ["tensorflow", "torch", "jax"]
# JAX compiles every operation for every shape: whole networks take minutes, and are part of `tests/run --full`.
BACKENDS = ALL_BACKENDS if "MODELPORT_KERAS_JAX" in os.environ else ALL_BACKENDS[:2]
# Keras 2 as a package beside the current TensorFlow; `tests/run --full` also names the Python of TensorFlow 2.12.
VERSION_2 = {"tf_keras": sys.executable}
if "MODELPORT_TF_2_12" in os.environ:
    VERSION_2["2.12"] = os.environ["MODELPORT_TF_2_12"]
# These have operations that Keras 2 has no layers for, and so no files of whole models.
WITHOUT_LAYERS = {
    "cnn_partitioned",
    "detector",
    "inception_resnet_v2",
    "inception_resnet_v2_training",
    "nasnet",
    "text_birnn_lengths",
    "text_cnn_2d",
    "text_gru_lengths",
    "text_rnn_lengths",
    "text_transformer",
    "unet",
}
NETWORKS = {case.name: case for case in harness.cases()}
# What is folded for inference: norms before and after convolutions, depthwise and transposed ones, moving averages,
# convolutions over whole maps, recurrent layers.
FOR_INFERENCE = {
    "cnn_training_ema",
    "inception_v3_training",
    "keras_rnn",
    "mobilenet_v2",
    "resnet_v1_50",
    "resnet_v2_50",
    "unet",
    "vgg_16",
} & set(NETWORKS)
# All operators take minutes: MODELPORT_KERAS_OPS=1 runs every one.
EVERY = int(os.environ.get("MODELPORT_KERAS_OPS", 14))
OPS = [case for case in op_cases.cases() if not case.unsupported and case.facts.get("tier", 1) == 1]
OPS = {case.id: case for case in OPS[::EVERY]}
# What Keras cannot say, and a word of the reason.
UNSAID = json.loads(Path(__file__).with_name("keras_unsaid.json").read_text())


def batches(folder, pairs):
    paths = []
    for number, (inputs, expected) in enumerate(pairs):
        path = folder / f"batch_{number}.npz"
        arrays = {f"input_{i}": array for i, array in enumerate(inputs)}
        np.savez(path, **arrays, **{f"expected_{i}": array for i, array in enumerate(expected)})
        paths.append(str(path))
    return paths


def convert(arguments, folder, *extra, model="model.keras", check=True):
    folder.mkdir(parents=True)
    options = ["-df", "keras", "-om", folder / model, "--json", *extra]
    return modelport("convert", *arguments, *options, check=check)


def network_job(case, folder, *extra, model="model.keras"):
    report = json.loads(convert(case.source(), folder, *extra, model=model).stdout)
    inputs, outputs = report["inputs"], report["outputs"]

    def pair(batch):
        arrays = harness.by_name(case.facts["inputs"], case.inputs(batch), inputs)
        return to_target(arrays, inputs), to_target(case.expected(batch), outputs)

    files = {"code": str(folder / "model.py"), "weights": str(folder / model), "models": []}
    return {"id": case.name, **files, "batches": batches(folder, [pair(1), pair(3)])}


def with_models(job):
    """The job with files of the whole model, made of its weights."""
    code, weights = job["code"], job["weights"]
    for extension in ("keras", "h5"):
        path = str(Path(code).with_suffix(f".{extension}"))
        modelport("to-model", "-f", "keras", "-in", code, "-iw", weights, "-o", path)
        job["models"].append(path)
    return job


def op_job(case, folder):
    arguments = ["-sf", case.facts["source"], "-in", case.folder / case.facts["network"]]
    if "weights" in case.facts:
        arguments += ["-iw", case.folder / case.facts["weights"]]
    result = convert([*arguments, "--dstNode", *case.facts["outputs"]], folder, check=False)
    if result.returncode != 0:
        return {"id": case.id, "wrong": result.stdout + result.stderr}
    report = json.loads(result.stdout)

    def pair(batch):
        named = case.inputs(batch)
        inputs = [op_cases.to_target(named[op_cases.tensor(fact)], fact) for fact in report["inputs"]]
        expected = zip(case.expected(batch), report["outputs"], strict=True)
        return inputs, [op_cases.to_target(y, fact) for y, fact in expected]

    files = {"code": str(folder / "model.py"), "weights": str(folder / "model.keras")}
    files["models"] = [files["weights"]]
    return {"id": case.id, **files, "batches": batches(folder, [pair(batch) for batch in case.batches])}


def work(jobs, folder, backend, python=sys.executable, version=3):
    """What is wrong with each job: nothing, or a text."""
    wrong = {job["id"]: job["wrong"] for job in jobs if "wrong" in job}
    path = folder / f"jobs_{backend}.json"
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs if "wrong" not in job))
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    if version == 2:
        environment["TF_USE_LEGACY_KERAS"] = "1"
    done = subprocess.run([python, WORKER, path], env=environment, capture_output=True, text=True, check=False)
    lines = [line.removeprefix("RESULT") for line in done.stdout.splitlines() if line.startswith("RESULT")]
    results = [json.loads(line) for line in lines]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {**wrong, **{result["id"]: result["wrong"] for result in results}}


@pytest.fixture(scope="session")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    networks = [
        with_models(network_job(case, folder / "networks" / name, model="model.weights.h5"))
        for name, case in NETWORKS.items()
    ]
    return folder, networks + [op_job(case, folder / "ops" / name) for name, case in OPS.items()]


@pytest.fixture(scope="session")
def results(jobs):
    folder, jobs = jobs
    done = {}

    def of(backend):
        if backend not in done:
            done[backend] = work(jobs, folder, backend)
        return done[backend]

    return of


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name, backend, results):
    assert results(backend)[name] is None, results(backend)[name]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPS)
def test_op(name, backend, results):
    wrong = results(backend)[name]
    if reason := UNSAID.get(name):
        assert wrong is not None and reason in wrong
    else:
        assert wrong is None, wrong


@pytest.fixture(scope="session")
def jobs_for_inference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras_inference")
    options = ["--for", "inference"]
    return folder, [
        with_models(network_job(NETWORKS[name], folder / name, *options, model="model.weights.h5"))
        for name in sorted(FOR_INFERENCE)
    ]


@pytest.fixture(scope="session")
def results_for_inference(jobs_for_inference):
    folder, jobs = jobs_for_inference
    return functools.cache(lambda backend: work(jobs, folder, backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(FOR_INFERENCE))
def test_for_inference(name, backend, results_for_inference):
    wrong = results_for_inference(backend)[name]
    assert wrong is None, wrong


@pytest.mark.parametrize("name", sorted(FOR_INFERENCE))
def test_what_is_folded_for_inference(name, jobs_for_inference):
    """Nothing that only trains is left; norms are left where no kernel can take them."""
    code = (jobs_for_inference[0] / name / "model.py").read_text()
    assert "Dropout" not in code
    assert name in {"resnet_v2_50", "unet"} or "BatchNormalization" not in code


@pytest.fixture(scope="session")
def results_2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras2")
    jobs = []
    for name, case in NETWORKS.items():
        model = "model.npy" if name in WITHOUT_LAYERS else "model.h5"
        job = network_job(case, folder / name, "--keras-version", "2", model=model)
        jobs.append({**job, "models": [job["weights"]] if model == "model.h5" else []})
    return functools.cache(lambda python: work(jobs, folder, "tensorflow", python, version=2))


@pytest.mark.parametrize("python", VERSION_2)
@pytest.mark.parametrize("name", NETWORKS)
def test_version_2(name, python, results_2):
    wrong = results_2(VERSION_2[python])[name]
    assert wrong is None, wrong


def test_version_2_files(tmp_path):
    """What Keras 2 can't read is not written."""
    version = ["--keras-version", "2"]
    for model, said in {"model.h5": "Keras 2 has no such operation", "model.keras": "is a file of Keras 3"}.items():
        source = NETWORKS["text_cnn_2d"].source()
        done = convert(source, tmp_path / Path(model).suffix, *version, model=model, check=False)
        assert done.returncode == 1 and said in done.stderr
        assert not list(tmp_path.rglob("model*"))


@pytest.mark.parametrize("name", NETWORKS)
def test_code(name, jobs):
    """Clean, and lines that fit."""
    code = jobs[0] / "networks" / name / "model.py"
    rules = ["--isolated", "--quiet", "--no-cache", "--select", "E,F,W", "--line-length", "120"]
    command = [sys.executable, "-m", "ruff", "check", *rules, code]
    ruff = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ruff.returncode == 0, ruff.stdout + ruff.stderr


def test_three_steps(tmp_path):
    """The steps of the documentation give what one conversion gives; a changed code is told."""
    case = NETWORKS["cnn_resource"]
    job = network_job(case, tmp_path / "whole")
    network = ["-f", "tensorflow", "-n", case.path("network"), "-w", case.path("weights")]
    modelport("to-ir", *network, "--dstNode", *case.outputs, "-o", "ir", cwd=tmp_path)
    code = ["-n", "ir.pb", "-w", "ir.npy", "-o", "model.py", "-ow", "model.weights.h5"]
    modelport("to-code", "-f", "keras", *code, cwd=tmp_path)
    steps = ["-in", "model.py", "-iw", "model.weights.h5"]
    modelport("to-model", "-f", "keras", *steps, "-o", "model.keras", cwd=tmp_path)
    modelport("to-model", "-f", "keras", *steps, "-o", "model.h5", cwd=tmp_path)
    assert (tmp_path / "model.keras").read_bytes() == (tmp_path / "whole" / "model.keras").read_bytes()
    jobs = []
    for weights in ("model.weights.h5", "model.keras", "model.h5"):
        files = {"id": weights, "code": str(tmp_path / "model.py"), "weights": str(tmp_path / weights)}
        jobs.append({**job, **files})
    assert not any(work(jobs, tmp_path, "tensorflow").values())

    (tmp_path / "model.py").write_text((tmp_path / "model.py").read_text() + "\n# changed\n")
    failed = modelport("to-model", "-f", "keras", *steps, "-o", "other.keras", cwd=tmp_path, check=False)
    assert failed.returncode == 1 and "not the code" in failed.stderr
    assert not (tmp_path / "other.keras").exists()


@pytest.mark.parametrize("extension", ["npy", "safetensors"])
def test_weight_formats(extension, tmp_path):
    job = network_job(NETWORKS["cnn_training"], tmp_path / "net", model=f"model.{extension}")
    assert not any(work([job], tmp_path, "torch").values())
