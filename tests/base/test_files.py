"""Which files a path of the config names, and what stands where a folder is wanted."""

import os
import re
from pathlib import Path

import pytest

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_folder, matching_files


@pytest.fixture
def texts(tmp_path, monkeypatch):
    for name in ("b.txt", "a.txt", "deep/er/c.txt", ".hidden", "odd[1]/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("a.txt", ["a.txt"]),
        ("*.txt", ["a.txt", "b.txt"]),
        (".", ["./a.txt", "./b.txt", "./deep/er/c.txt", "./odd[1]/d.txt"]),
        ("odd[1]", ["odd[1]/d.txt"]),
        (["b.txt", "deep", "*.txt"], ["b.txt", "deep/er/c.txt", "a.txt"]),
        ("none", []),
        ("pipe", []),
    ],
)
def test_a_path_names_a_file_a_folder_a_glob_or_several(texts, path, names):
    assert list(map(str, matching_files(path))) == [os.path.normpath(name) for name in names]


def test_the_home_is_written_as_a_tilde(texts):
    assert matching_files("~/deep") == [texts / "deep/er/c.txt"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("deep", None),
        ("none", None),
        ("to_deep", None),
        ("a.txt", "a.txt: got a file, expected a folder; move it away"),
        ("to_a.txt", "to_a.txt: got a file, expected a folder; move it away"),
        (
            "to_none",
            "to_none: got a link to none, which is missing, expected a folder; make it or remove the link",
        ),
    ],
)
def test_a_folder_may_be_absent_or_linked_but_nothing_else(texts, path, message):
    for name in ("deep", "a.txt", "none"):
        os.symlink(name, f"to_{name}")
    if message is None:
        check_folder(Path(path))
    else:
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            check_folder(Path(path))
