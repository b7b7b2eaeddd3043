"""The backend `hip` without an AMD GPU: real hip-python, with tests/support/fakehip as its HIP.

A process loads one HIP library and keeps it, so the tests run in processes of their own, two in parallel. Everything
runs on a chip with waves of 32 lanes. On one with 64, the result of every op is compared. Another chip of a width runs
the same sources except the GEMMs and attention in bf16, which use its matrix instructions or, without any, SIMT
kernels: only the results of these are compared there.
gfx942 is left out: it has gfx90a's matrix instruction, so it would run gfx90a's code once more. So is gfx900, because
it runs gfx90a's code in f32 and gfx1030's in bf16.

Tests of evaluation, sampling and export are left out: a minute more for kernels that the ops' own tests reach. So is
test_nothing_outside_the_tensors_is_read_or_written: in the other tests the tensors fill their memory, and
the stand-in refuses every access outside of it. So are the GEMMs for Hopper's persistent blocks.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.calls import cases
from support.fakehip import collectives, several
from support.fakehip.build import COMPILER, build, environment

from hipgpt.base.paths import ROOT
from hipgpt.compute.catalogue import ON_GPUS
from hipgpt.compute.tensor import DType

PROCESSES = 2  # in parallel
ENGINE = ("support/fakehip/checks", "support/fakehip/beside", "support/fakehip/self_check", "support/fakehip/training",
          "compute/test_ops", "compute/test_draw_token", "gpt/test_gradients", "gpt/test_causality", "gpt/test_dropout",
          "training/test_optimizer", "training/test_muon", "training/test_step_io")  # fmt: skip
MATRIX_OPS = ("matmul", "attention_forward", "attention_backward")
MATRICES = f"result and bf16 and ({' or '.join(MATRIX_OPS)})"
# in the names of cases of support.calls: 1.5e9 products each and more, for kernels that only NVIDIA's Hopper has
FOR_HOPPER = ("2312", "N8200", "R512")
BOTH_PASSES = 2  # tests of each case of an op that run here: its result, and its inputs
CASES = [case for act in (DType.F32, DType.BF16) for case in cases(act) if not any(n in str(case) for n in FOR_HOPPER)]
EVERY_CASE = BOTH_PASSES * sum(case.op.name in ON_GPUS for case in CASES)
OF_MATRICES = sum(case.op.name.startswith(MATRIX_OPS) and case.act is DType.BF16 for case in CASES)
# chips: test files, an expression that selects their tests, and how many these are at least
RUNS = {
    "gfx1100": (ENGINE, "hip", EVERY_CASE),
    "gfx90a:sramecc+:xnack-": (("compute/test_ops", "compute/test_draw_token"), "result", EVERY_CASE // BOTH_PASSES),
    "gfx1201": (("compute/test_ops",), MATRICES, OF_MATRICES),
    "gfx1030": (("compute/test_ops",), MATRICES, OF_MATRICES),
    "gfx950": (("compute/test_ops", "support/fakehip/checks"), f"({MATRICES} or matrix_unit)", OF_MATRICES),
    ",".join(several.CHIPS): (("support/fakehip/several",), "hip", 10),
    ",".join(collectives.CHIPS): (("support/fakehip/collectives",), "hip", 3),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which(COMPILER), reason=f"no {COMPILER}, which the stand-in compiles kernels with"),
    pytest.mark.skipif(not importlib.util.find_spec("hip"), reason="no hip-python for this system"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Iterator[dict[str, Future]]:
    """Yield, by chips, the finished pytest and the path of its report, to come."""
    rocm = tmp_path_factory.mktemp("rocm")
    build(rocm)

    def run(chips: str) -> tuple[subprocess.CompletedProcess, Path]:
        files, selected, _ = RUNS[chips]
        report = rocm / f"{chips}.xml"
        expression = f"hip and {selected} and not (nothing_outside or {' or '.join(FOR_HOPPER)})"
        options = ["-q", "-m", "gpu", "-k", expression, f"--junitxml={report}"]
        command = [sys.executable, "-m", "pytest", *options, *(f"tests/{name}.py" for name in files)]
        return subprocess.run(command, cwd=ROOT, env=environment(rocm, chips), capture_output=True, text=True), report

    with ThreadPoolExecutor(PROCESSES) as pool:
        yield {chips: pool.submit(run, chips) for chips in RUNS}


@pytest.mark.parametrize("chips", RUNS)
def test_engine_passes_on_the_stand_in(runs, chips):
    done, report = runs[chips].result()
    assert done.returncode == 0, done.stdout[-10_000:]
    suite = ElementTree.parse(report).getroot()[0]
    assert int(suite.get("tests")) - int(suite.get("skipped")) >= RUNS[chips][2]
