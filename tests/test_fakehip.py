"""The backend `hip` without an AMD GPU: real hip-python, with tests/fakehip as its HIP, for waves of 32 and 64 lanes.

A process loads one HIP library and keeps it, so the tests run in processes of their own, the two widths side by side.
Those of evaluation, sampling and export are left out: a minute more for kernels that the ops' own tests reach.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from calls import cases
from fakehip.build import COMPILER, build, environment

ROOT = Path(__file__).parents[1]
TESTS = [
    f"tests/{name}.py"
    for name in ("fakehip/checks", "test_ops", "test_gradients", "test_causality", "test_dropout", "test_optimizer")
]
WAVES = (32, 64)

pytestmark = [
    pytest.mark.skipif(not shutil.which(COMPILER), reason=f"no {COMPILER}, which the stand-in compiles kernels with"),
    pytest.mark.skipif(not importlib.util.find_spec("hip"), reason="no hip-python for this system"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return, by wave width, a running pytest and the path that its report will have."""
    rocm = tmp_path_factory.mktemp("rocm")
    build(rocm)
    started = {}
    for wave in WAVES:
        report = rocm / f"report{wave}.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-k", "hip", f"--junitxml={report}", *TESTS]
        started[wave] = (
            subprocess.Popen(command, cwd=ROOT, env=environment(rocm, wave), stdout=subprocess.PIPE, text=True),
            report,
        )
    yield started
    for process, _ in started.values():
        process.kill()


@pytest.mark.parametrize("wave", WAVES)
def test_engine_passes_on_the_stand_in(runs, wave):
    process, report = runs[wave]
    output, _ = process.communicate()
    assert process.returncode == 0, output[-10_000:]
    suite = ElementTree.parse(report).getroot()[0]
    assert suite.get("skipped") == "0"
    assert int(suite.get("tests")) > 3 * len(list(cases()))
