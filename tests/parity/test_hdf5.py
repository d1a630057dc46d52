"""HDF5 files between h5py and modelport: what h5py writes is read, and what modelport writes h5py reads."""

import json
import os
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import ml_dtypes
import numpy as np
import pytest
from harness import modelport

DTYPES = [
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "bool",
]
# How a dataset of h5py may lie in a file.
LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (4, 3)},
    "gzip": {"chunks": (4, 3), "compression": "gzip"},
    "shuffled": {"chunks": (4, 7), "compression": "gzip", "shuffle": True, "fletcher32": True},
}
ATTRIBUTES = {
    "text": "strü",
    "long": json.dumps({"name": "x" * 200_000}),
    "empty": "",
    "integer": np.int64(-7),
    "numbers": np.arange(6.0).reshape(2, 3),
    "flag": np.bool_(True),
}


def write(path, seed, layouts=LAYOUTS, libver="earliest"):
    """Weights as Keras 2 kept them, of every type."""
    random = np.random.RandomState(seed)
    with h5py.File(path, "w", libver=libver) as file:
        names = []
        for dtype in [*DTYPES, "bfloat16"]:
            for layout, options in layouts.items():
                values = random.randint(0, 2 if dtype == "bool" else 100, (10, 7))
                name = f"{dtype}_{layout}"
                group = file.create_group(name)
                group.attrs["weight_names"] = [f"{name}/kernel:0".encode()]
                values = values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
                dataset = group.create_dataset(f"{name}/kernel:0", data=values, **options)
                if dtype == "bfloat16":
                    dataset.attrs["dtype"] = "bfloat16"
                names.append(name)
        file.create_group("no_weights").attrs["weight_names"] = []
        # More names than one attribute can hold.
        many = [f"layer_with_a_long_name_{index:04}" for index in range(4000)]
        for name in many:
            file.create_group(name)
        names = np.array([name.encode() for name in [*names, "no_weights", *many]])
        for index, part in enumerate(np.array_split(names, 4)):
            file.attrs[f"layer_names{index}"] = part
        for name, value in ATTRIBUTES.items():
            file.attrs[name] = value


def contents(path):
    """Every dataset and attribute of a file."""
    found = {}

    def visit(name, node):
        for key, value in node.attrs.items():
            found[name, key] = value
        if isinstance(node, h5py.Dataset):
            found[name] = (str(node.dtype), node[()])

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    return found


def same(left, right):
    if isinstance(left, tuple):
        return left[0] == right[0] and same(left[1], right[1])
    left, right = np.asarray(left), np.asarray(right)
    if left.dtype.kind == "V":
        left, right = left.view("u2"), right.view("u2")
    if left.dtype.kind in "OSU":
        # Lists of strings come back as bytes, which is what Keras has them as.
        left, right = (np.array([getattr(x, "decode", lambda x=x: x)() for x in a.ravel()]) for a in (left, right))
    return left.shape == right.shape and left.tolist() == right.tolist()


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_every_type_goes_through(tmp_path, libver):
    write(tmp_path / "source.h5", 1, libver=libver)
    write(tmp_path / "skeleton.h5", 2)
    output = tmp_path / "out.h5"
    modelport("transfer", "-iw", tmp_path / "source.h5", "--into", tmp_path / "skeleton.h5", "-o", output)
    expected, actual = contents(tmp_path / "source.h5"), contents(output)
    assert expected.keys() == actual.keys()
    for key in expected:
        assert same(expected[key], actual[key]), key
    # Written plainly, whatever the skeleton was like.
    with h5py.File(output) as file:
        assert file["float32_gzip/float32_gzip/kernel:0"].chunks is None
    again = tmp_path / "again.h5"
    modelport("transfer", "-iw", tmp_path / "source.h5", "--into", tmp_path / "skeleton.h5", "-o", again)
    assert again.read_bytes() == output.read_bytes()


def test_inspect(tmp_path):
    write(tmp_path / "weights.h5", 1, {"gzip": LAYOUTS["gzip"]})
    report = json.loads(modelport("inspect", tmp_path / "weights.h5", "--json").stdout)
    assert report["kind"] == "Keras weights (Keras 2)"
    types = {row["name"]: row["op"] for row in report["tensors"]}
    assert types == {f"{dtype}_gzip/kernel": dtype for dtype in [*DTYPES, "bfloat16"]}
    assert all(row["shape"] == [10, 7] for row in report["tensors"])


def test_what_can_not_be_read_is_said(tmp_path):
    write(tmp_path / "weights.h5", 1, {"contiguous": {}})
    whole = (tmp_path / "weights.h5").read_bytes()
    (tmp_path / "short.h5").write_bytes(whole[: len(whole) // 2])
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        file["soft"] = h5py.SoftLink("/no_weights")
        file["packed"] = h5py.Empty("f")
        file.create_dataset("lzf", data=np.zeros(100), compression="lzf")
    (tmp_path / "text.h5").write_text("no HDF5")
    with zipfile.ZipFile(tmp_path / "packed.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", whole)
    for name, parts in {
        "weights.h5": ["soft", "a soft link", "lzf", "h5repack"],
        "short.h5": ["cut short"],
        "packed.keras": ["compressed"],
        "text.h5": ["text.h5"],
    }.items():
        result = modelport("inspect", tmp_path / name, check=False)
        assert result.returncode == 1, name
        for part in parts:
            assert part in result.stderr, (name, part, result.stderr)
