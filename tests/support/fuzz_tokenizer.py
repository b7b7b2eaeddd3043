"""Fuzz the tokenizer's C++ (tests/support/fuzz/bpe.cpp) with libFuzzer, address and undefined-behaviour sanitizers.

    PYTHONPATH=. python tests/support/fuzz_tokenizer.py --seconds 3600 --corpus fuzz_corpus

Inputs that reach new code are stored in the corpus folder, from which the next run starts. An input that breaks a claim
is written to crash-<hash>; give its name as the corpus to run it alone. Needs clang++ 14 or later with libFuzzer.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hipgpt.base.paths import KERNELS
from hipgpt.data.tokenizer.pretokenize import END_OF_TEXT, class_table

SOURCE = Path(__file__).parent / "fuzz" / "bpe.cpp"
OPTIONS = ("-std=c++17", "-O1", "-g", "-fno-sanitize-recover=all", "-Wno-deprecated-declarations")
FUZZER, SANITIZERS = "-fsanitize=fuzzer", "-fsanitize=address,undefined"
COMPILERS = ("clang++", *(f"clang++-{version}" for version in range(25, 13, -1)))
LONGEST_INPUT = 5000  # more than a window
CHARACTERS = (
    "\r\n",
    "\0",
    "1234567",
    "\ud800",
    "\u3000",
    "\u2003",
    "\x85",
    "\xa0",
    "\u0301",
    "你",
    "😀",
    "\u0661",
    "½",
)
CONTRACTIONS = ("'s", "'ll", "'LL", "'\u017f")
NOT_UTF8 = [b"\xc0\x80", b"\xf4\x90\x80\x80"]
WORDS = [*(word.encode("utf-8", "surrogatepass") for word in (*CHARACTERS, *CONTRACTIONS)), *NOT_UTF8]
WORDS += [END_OF_TEXT.encode(), END_OF_TEXT[:7].encode()]
EMPTY_TARGET = b"""#include <cstddef>
#include <cstdint>
extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, std::size_t) { return 0; }
"""


def compiler_with_fuzzer() -> str | None:
    """Return a clang++ that can link libFuzzer; None if the PATH has none."""
    for name in COMPILERS:
        command = [name, FUZZER, SANITIZERS, "-x", "c++", "-", "-o", os.devnull]
        if shutil.which(name) and subprocess.run(command, input=EMPTY_TARGET, capture_output=True).returncode == 0:
            return name
    return None


def build(compiler: str, folder: Path, kernels: Path = KERNELS) -> Path:
    """Compile the target into folder, and write the files that it reads and first inputs there. Return the program."""
    program = folder / "fuzz_bpe"
    (folder / "classes").write_bytes(class_table())
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS)
    (folder / "dictionary").write_text("".join(f'"{word}"\n' for word in escaped))
    (folder / "seeds").mkdir()
    for options in range(32):
        run = bytes([0x60 + options]) * (60 + options)  # of one byte: its tokens overlap, so the order of merges shows
        text = b"a ".join(WORDS[options % 3 :: 3]) + b" the the  then\n" + run + b"".join(WORDS)
        (folder / "seeds" / str(options)).write_bytes(bytes([options, 20]) + text)
    subprocess.run(
        [compiler, *OPTIONS, FUZZER, SANITIZERS, "-march=native", "-I", kernels, SOURCE, "-o", program], check=True
    )
    return program


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    """Run libFuzzer with these arguments in the folder of the program. Its report is in stderr."""
    environment = {**os.environ, "HIPGPT_CLASS_TABLE": str(program.parent / "classes")}
    # no limit to the whole memory: Linux counts the peak of the process that started this one in it
    memory = ["-rss_limit_mb=0", "-malloc_limit_mb=1024"]
    options = [*memory, f"-max_len={LONGEST_INPUT}", f"-dict={program.parent / 'dictionary'}", "-len_control=0"]
    command = [program, *options, *arguments]
    return subprocess.run(command, env=environment, cwd=program.parent, stderr=subprocess.PIPE, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz_corpus"), help="a folder, or one input to run")
    arguments = parser.parse_args()
    compiler = compiler_with_fuzzer()
    if compiler is None:
        sys.exit("fuzz_tokenizer: no clang++ with libFuzzer found; install clang >= 14 with its runtime libraries")
    corpus = arguments.corpus.resolve()
    if not corpus.is_file():
        corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        program = build(compiler, Path(folder))
        seeds = [program.parent / "seeds"] if corpus.is_dir() else []
        done = run(program, f"-max_total_time={arguments.seconds}", f"-artifact_prefix={Path.cwd()}/", corpus, *seeds)
    sys.stderr.write(done.stderr[-4000:])
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
