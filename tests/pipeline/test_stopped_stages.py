"""A stage that a signal ends leaves no temporary file, and shows no traceback."""

import signal
import subprocess
import sys

import pytest

from hipgpt.base.paths import ROOT

SCRIPTS = f"import sys; sys.path.insert(0, {str(ROOT / 'workflow' / 'scripts')!r}); import _package; "
WRITES = """
import argparse, pathlib, time
from _arguments import parsed
from hipgpt.base.errors import exit_on_user_error
from hipgpt.base.files import replacing

@exit_on_user_error
def main():
    parsed(argparse.ArgumentParser())
    with replacing(pathlib.Path("plots/loss.png")):
        print("writing", flush=True)
        time.sleep(60)

main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_stage_removes_the_file_that_it_was_writing(tmp_path, number):
    stage = subprocess.Popen([sys.executable, "-c", SCRIPTS + WRITES], cwd=tmp_path, text=True, stdout=subprocess.PIPE)
    assert stage.stdout.readline() == "writing\n"
    assert list(tmp_path.rglob("*.partial"))
    stage.send_signal(number)
    assert stage.wait(60) == 128 + number
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_ctrl_c_during_the_imports_of_a_stage_shows_no_traceback():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPTS + "raise KeyboardInterrupt"], stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == -signal.SIGINT and done.stderr == "interrupted\n"
