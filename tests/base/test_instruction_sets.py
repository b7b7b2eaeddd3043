"""$HIPGPT_ISA: kernels for another instruction set than this processor's own."""

import platform
import subprocess

import pytest

from hipgpt.base import compiler
from hipgpt.base.errors import UserError
from hipgpt.base.instruction_sets import INSTRUCTION_SETS, VARIABLE, wanted_options
from hipgpt.base.paths import KERNELS, ROOT
from hipgpt.compute.backends.variants import CPU_AMX, CPU_AVX512_BF16

MACROS = {"amx": CPU_AMX, "avx512-bf16": CPU_AVX512_BF16}
SOURCES = sorted([*(KERNELS / "cpu").rglob("*.cpp"), *(ROOT / "bench").glob("*.cpp")])

on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the compiler here is not one for x86-64")


def test_without_the_variable_nothing_is_replaced(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert wanted_options(frozenset) is None


def test_an_unknown_name_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setenv(VARIABLE, "avx3")
    with pytest.raises(UserError, match="HIPGPT_ISA: got 'avx3'; expected one of sse4, avx2, avx512, avx512-bf16, amx"):
        wanted_options(frozenset)


def test_instructions_that_the_processor_lacks_are_refused_with_those_it_has(monkeypatch):
    monkeypatch.setenv(VARIABLE, "avx512")
    with pytest.raises(UserError, match="got 'avx512', but this processor has sse4, avx2$"):
        wanted_options(lambda: frozenset({"__SSE4_2__", "__AVX2__"}))


@on_x86_64
def test_another_instruction_set_is_another_library(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caches = (compiler.host_options, compiler._compiler_identity)
    libraries = set()
    for name in ("sse4", ""):
        monkeypatch.setenv(VARIABLE, name)
        for cache in caches:
            cache.cache_clear()
        libraries.add(compiler.host_library(KERNELS / "cpu" / "elementwise.cpp", {"ACT_BF16": 0}))
    for cache in caches:
        cache.cache_clear()
    assert len(libraries) == 2


@on_x86_64
@pytest.mark.slow
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_every_source_compiles_for_every_instruction_set(name):
    command = [*compiler.host_compiler(), *compiler.OPTIONS, "-Werror", *INSTRUCTION_SETS[name].options]
    for source in SOURCES:
        seen = set()  # many sources are the same for both dtypes
        for act_bf16 in (0, 1):
            macros = compiler.include_options({"ACT_BF16": act_bf16, **MACROS.get(name, {})})
            text = subprocess.run([*command, *macros, "-E", "-P", str(source)], capture_output=True, text=True).stdout
            if text in seen:
                continue
            seen.add(text)
            compiled = [*command, *macros, "-O0", "-c", str(source), "-o", "/dev/null"]
            done = subprocess.run(compiled, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
