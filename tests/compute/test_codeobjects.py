"""The folder that `python -m support.codeobjects` writes: every op and variant, and a check that sees wrong results."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import codeobjects
from support.amd import clang, count
from support.fakehip.build import COMPILER, build, environment

from hipgpt.base.paths import ROOT
from hipgpt.compute.backends.split_k import SplitK
from hipgpt.compute.backends.variants import variants_of
from hipgpt.compute.catalogue import ON_GPUS
from hipgpt.compute.tensor import DType

ARCH = "gfx1100"
needs_stand_in = pytest.mark.skipif(
    not (shutil.which(COMPILER) and importlib.util.find_spec("hip")), reason=f"no {COMPILER} or no hip-python"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(clang.missing() is not None, reason=f"cannot compile for AMD: {clang.missing()}"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("codeobjects") / "files"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(codeobjects.MODELS, "tiny", (16, 1, 2, 16, 50, 8, 2))  # the stand-in takes minutes for S1
        codeobjects.write(ARCH, folder)
    return folder


@pytest.fixture(scope="module")
def manifest(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_every_op_is_there_with_every_variant(manifest):
    expected = set()
    for op in ON_GPUS.values():
        has_act = any(argument.dtype == "act" for argument in op.arguments)
        for act in (DType.F32, DType.BF16) if has_act else (DType.F32,):
            for variant in variants_of(op, ARCH, act):
                macros = frozenset(variant.macros.items())
                expected |= {(op.name, act.label, macros, cut) for cut in {False, isinstance(variant.schedule, SplitK)}}
    found = manifest["cases"]
    assert {(c["op"], c["act"], frozenset(c["macros"].items()), c["slices"] > 1) for c in found} == expected


def test_every_op_has_a_ragged_case(manifest):
    ragged = {case["op"] for case in manifest["cases"] if any(size > 1 and size % 2 for size in case["sizes"].values())}
    assert ragged == {op.name for op in ON_GPUS.values() if op.dimensions}


def test_objects_hold_the_kernels_that_are_launched(folder, manifest):
    for case in manifest["cases"]:
        for launch in case["launches"]:
            assert launch["kernel"] in manifest["objects"][launch["object"]]["kernels"]
    for entry in manifest["objects"].values():
        image = (folder / entry["file"]).read_bytes()
        assert image.startswith(b"\x7fELF")
        assert all(kernel.encode() in image for kernel in entry["kernels"])
        assert (folder / entry["sources"] / entry["source"]).exists()


def test_arrays_fit_their_buffers(folder, manifest):
    for case in manifest["cases"]:
        arrays = np.load(folder / case["arrays"])
        for buffer in case["buffers"]:
            name = buffer["name"]
            present = {key for key in arrays if key.endswith(f".{name}")}
            assert all(arrays[key].shape == tuple(buffer["shape"]) for key in present)
            assert (f"before.{name}" in present) == (buffer["access"] != "scratch")
            assert (f"expected.{name}" in present) == (buffer["access"] in ("out", "inout", "add"))


def check(rocm: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run check.py on the stand-in, which compiles sources but cannot run code objects."""
    command = [sys.executable, str(folder / "check.py"), "--compile", *words]
    return subprocess.run(command, env=environment(rocm, ARCH), capture_output=True, text=True)


@pytest.fixture(scope="module")
def rocm(tmp_path_factory) -> Path:
    rocm = tmp_path_factory.mktemp("rocm")
    build(rocm)
    return rocm


@needs_stand_in
def test_all_cases_pass_on_the_stand_in(rocm, folder, manifest):
    done = check(rocm, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(manifest['cases'])} cases, 0 wrong" in done.stdout


@needs_stand_in
@pytest.mark.parametrize("name, key, change", [
    ("add_sum-f32-N17", "before.values", 1.5),
    ("matmul_backward_input-bf16-N17,C31,O33", "expected.dx", 1.5),
    ("round_weights-f32-P17", "expected.copy", np.nan),
    ("build_batch-f32-B17,S31,T33,K3", "before.corpus", 3),
])  # fmt: skip
def test_a_wrong_result_is_seen(rocm, folder, manifest, name, key, change):
    (case,) = (case for case in manifest["cases"] if case["name"] == name)
    file = folder / case["arrays"]
    arrays = dict(np.load(file))
    np.savez(file, **{**arrays, key: (arrays[key] * change).astype(arrays[key].dtype)})
    try:
        done = check(rocm, folder, name)
    finally:
        np.savez(file, **arrays)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"WRONG {name}" in done.stdout


def test_an_existing_folder_is_refused(folder):
    command = [sys.executable, "-m", "support.codeobjects", "--arch", ARCH, "--out", str(folder)]
    variables = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 1
    assert "exists already; name a new folder" in done.stderr


def test_a_model_s_step_is_that_of_training(manifest):
    models = {model["name"]: model for model in manifest["models"]}
    assert set(models) == {"S1", "S2", "S3", "tiny"}
    for model in models.values():
        names = [op["op"] for op in model["ops"]]
        assert names[0] == "build_batch" and names[-2:] == ["adamw", "record_step"]
        pointers = [a for op in model["ops"] for one in op["launches"] for a in one["arguments"] if "offset" in a]
        assert all(a["allocation"] is None or a["offset"] < model["memory"][a["allocation"]] for a in pointers)
    assert sum(op["operations"] for op in models["S3"]["ops"]) > 6 * 124e6 * models["S3"]["tokens"]


@needs_stand_in
def test_the_benchmark_times_a_model_and_its_ops(rocm, folder, manifest):
    done = check(rocm, folder, "--bench", "tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " ms a step, " in done.stdout and " TFLOP/s " in done.stdout
    assert ("the model's estimate" in done.stdout) == (count.missing(ARCH) is None)
    (found,) = json.loads((folder / "bench.json").read_text())["models"]
    (model,) = (model for model in manifest["models"] if model["name"] == "tiny")
    assert sum(op["times"] for op in found["ops"]) == len(model["ops"])
    assert all(op["seconds"] > 0 for op in found["ops"]) and found["step_seconds"] > 0
    assert check(rocm, folder, "--bench", "S9").returncode == 1
