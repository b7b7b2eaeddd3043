"""compile_commands.json: what its entries name exists, and clang reads kernels by them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hipgpt.base.paths import KERNELS
from hipgpt.compute.backends.compile_commands import CLANG, compile_commands

ENTRIES = {Path(entry["file"]).relative_to(KERNELS).as_posix(): entry for entry in compile_commands()}


def test_every_source_has_an_entry():
    sources = [path for suffix in ("cpp", "hip") for path in KERNELS.rglob(f"*.{suffix}")]
    assert set(ENTRIES) == {path.relative_to(KERNELS).as_posix() for path in sources}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_names_files_and_folders_that_exist(name):
    arguments = ENTRIES[name]["arguments"]
    named = [path for option, path in zip(arguments, arguments[1:], strict=False) if option in ("-I", "-include", "-c")]
    assert [Path(path).exists() for path in named] == [True] * len(named)
    assert all(re.fullmatch(r"-D\w+(=\d+)?", option) for option in arguments if option.startswith("-D"))


@pytest.mark.skipif(not shutil.which(CLANG), reason=f"no {CLANG}")
@pytest.mark.parametrize("name", ["cpu/output_layer.cpp", "bpe/api.cpp"])
def test_clang_reads_a_source_by_its_entry(name):
    command = [CLANG, *ENTRIES[name]["arguments"][1:], "-fsyntax-only"]
    done = subprocess.run(command, cwd=ENTRIES[name]["directory"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
