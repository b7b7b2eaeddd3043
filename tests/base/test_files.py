"""Which files a path of the config names."""

import os

import pytest

from hipgpt.base.files import matching_files


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
