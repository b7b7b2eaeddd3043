"""Run the fuzz target of the tokenizer's C++ for a few seconds. tests/support/fuzz_tokenizer.py runs it for hours."""

import shutil

import pytest
from support import fuzz_tokenizer

from hipgpt.base.paths import KERNELS

pytestmark = pytest.mark.slow

RUN_SECONDS = 4


@pytest.fixture(scope="module")
def compiler():
    found = fuzz_tokenizer.compiler_with_fuzzer()
    if found is None:
        pytest.skip("no clang++ with libFuzzer here: the tokenizer's C++ is not fuzzed")
    return found


def test_nothing_breaks_under_the_sanitizers_and_all_is_as_defined(compiler, tmp_path):
    program = fuzz_tokenizer.build(compiler, tmp_path)
    done = fuzz_tokenizer.run(program, f"-max_total_time={RUN_SECONDS}", "-seed=1", tmp_path / "seeds")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr


MUTATIONS = {
    "a merge that comes too late": ("vocabulary.h", "limit = right + 1;", "limit = right;"),
    "a read beyond the text": ("pretokenizer.h", "text.size() < READ + READABLE_BYTES", "text.size() < 64"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_fuzz_target_finds_what_is_wrong(compiler, mutation, tmp_path):
    header, right, wrong = MUTATIONS[mutation]
    kernels = tmp_path / "kernels"
    shutil.copytree(KERNELS / "bpe", kernels / "bpe")
    text = (kernels / "bpe" / header).read_text()
    assert text.count(right) == 1
    (kernels / "bpe" / header).write_text(text.replace(right, wrong))
    program = fuzz_tokenizer.build(compiler, tmp_path, kernels)
    done = fuzz_tokenizer.run(program, "-max_total_time=30", "-seed=1", tmp_path / "seeds")
    assert done.returncode != 0
