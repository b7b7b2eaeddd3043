"""Snakemake's cache between workflows: outputs of another checkout are reused only if they are the same."""

import copy
import os
from pathlib import Path

import pytest
from support.workflow_copy import TINY, Project

pytestmark = pytest.mark.slow

CORPORA = {name: {**TINY["corpora"]["tiny"], "path": f"texts/{name}.txt"} for name in ("0", "1")}
TOKENS = "results/corpora/{}/bpe-290/baselines.csv"
CACHED = {"download", "train_tokenizer", "tokenize", "manifest", "baselines"}


class CachedProject(Project):
    """A project that shares a cache with others."""

    def __init__(self, folder: Path, cache: Path):
        super().__init__(folder)
        self.cache = cache
        self.write_config({**TINY, "corpus": "0", "corpora": CORPORA})

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "SNAKEMAKE_OUTPUT_CACHE": str(self.cache)}

    def make(self, *arguments: str) -> set[str]:
        """Make the tokens of both corpora with the cache on. Return the rules whose outputs came from the cache."""
        self.snakemake(*(TOKENS.format(name) for name in CORPORA), "--cache", *arguments)
        output = self.log()
        taken = [line for line in output.splitlines() if "Symlinking output file" in line]
        names = {"train.txt": "download", "tokenizer.json": "train_tokenizer", "train_00000.bin": "tokenize"}
        names |= {"manifest.json": "manifest", "baselines.csv": "baselines"}
        moved = "".join(line for line in output.splitlines() if "Moving output file" in line)
        return {rule for name, rule in names.items() if f"/{name} " in "".join(taken) and f"/{name} " not in moved}

    def log(self) -> str:
        """Return Snakemake's own log of the last start, which says what its cache takes and gives."""
        return max((self.folder / ".snakemake/log").glob("*.log")).read_text()

    def contents(self) -> dict[str, bytes]:
        corpora = self.folder / "results" / "corpora"
        return {
            path.relative_to(corpora).as_posix(): path.read_bytes() for path in corpora.rglob("*") if path.is_file()
        }


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> CachedProject:
    cache = tmp_path_factory.mktemp("cache")
    project = CachedProject(tmp_path_factory.mktemp("first") / "project", cache)
    assert project.make() == set()
    return project


def test_two_corpora_have_their_own_files(first):
    contents = first.contents()
    for name in ("train.txt", "provenance.json", "bpe-290/tokenizer.json", "bpe-290/train_00000.bin"):
        assert contents[f"0/{name}"] != contents[f"1/{name}"]


def test_another_folder_takes_all_from_the_cache_with_the_same_bytes(first, tmp_path):
    second = CachedProject(tmp_path / "elsewhere" / "project", first.cache)
    assert second.make() == CACHED
    assert second.contents() == first.contents()
    assert os.path.islink(second.folder / "results/corpora/0/train.txt")


def test_the_cache_gives_what_an_uncached_run_makes(first, tmp_path):
    alone = copy.copy(first)
    alone.folder = Project(tmp_path / "project").folder
    alone.write_config({**TINY, "corpus": "0", "corpora": CORPORA})
    alone.snakemake(*(TOKENS.format(name) for name in CORPORA))
    assert alone.contents() == first.contents()


def test_another_text_of_the_same_name_is_not_taken_for_it(first, tmp_path):
    second = CachedProject(tmp_path / "project", first.cache)
    with open(second.folder / "texts/0.txt", "a") as file:
        file.write("\nanother line")
    assert second.make() == set()
    changed = {name for name, data in second.contents().items() if data != first.contents()[name]}
    assert changed and all(name.startswith("0/") for name in changed)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"tokenizer": {"vocab_size": 280}}, {"download"}),
        ({"train_shards": 3}, {"download", "train_tokenizer"}),
        ({"device": "cpu"}, CACHED),  # decides nothing before training
    ],
)
def test_a_setting_decides_from_where_on_the_cache_serves(first, tmp_path, changes, taken):
    second = CachedProject(tmp_path / "project", first.cache)
    second.write_config({**TINY, "corpus": "0", "corpora": CORPORA, **changes})
    vocab_size = changes.get("tokenizer", TINY["tokenizer"])["vocab_size"]
    second.snakemake(f"results/corpora/0/bpe-{vocab_size}/baselines.csv", "--cache")
    output = second.log()
    files = {"download": "train.txt", "train_tokenizer": "tokenizer.json", "tokenize": "train_00000.bin"}
    files |= {"manifest": "manifest.json", "baselines": "baselines.csv"}
    moved = {rule for rule, name in files.items() if f"/{name} to cache" in output}
    assert moved == CACHED - taken


def test_a_damaged_cached_file_is_named_with_its_place_in_the_cache(first, tmp_path):
    second = CachedProject(tmp_path / "project", tmp_path)
    second.make()
    link = second.folder / "results/corpora/0/train.txt"
    os.truncate(link, 5)
    output = second.snakemake("all", expect=1)
    assert "0/train.txt: changed since it was made" in output
    assert f"delete it and {link.resolve()}, which it links to, and run" in output
    link.resolve().unlink()
    link.unlink()
    second.snakemake("results/corpora/0/train.txt", "--cache")
    assert second.contents() == first.contents()
