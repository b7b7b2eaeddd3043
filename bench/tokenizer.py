"""Time the tokenizer and its peers, each in its own process, and print medians, CPU seconds and peak memory.

    python bench/tokenizer.py train  --text varied.txt --threads 2 --peer-python PYTHON --peers gigatoken rustbpe hf
    python bench/tokenizer.py encode --text varied.txt --tokenizer tokenizer.json --peer-python PYTHON --peers gigatoken
    python bench/tokenizer.py worst  --tokenizer tokenizer.json --peer-python PYTHON --peers gigatoken
    python bench/tokenizer.py stream --text varied.txt --gigabytes 4

train: byte-level BPE with GPT-2's pattern, from the file to the merges. encode: four times are measured. `load` reads
the tokenizer's file and encodes one letter. `cold` encodes the text, which is in memory in documents of about 64 KB, to
arrays of ids. `warm` does so again; it is the median of three passes. `decode` turns the ids back into text. All ids
must be equal. worst: texts that take some tokenizers quadratic time. stream: the peak memory of training and of
encoding after each gigabyte of the repeated text. Each repetition contains its own number, so that new words keep
coming.

Each process may run on as many processors as --threads says. PYTHON is that of an environment with the peers, which are
all on PyPI. varied_text.py makes the text. On a machine that others use, compare CPU seconds, the minimum of the
rounds, instead of wall-clock time.
"""

import argparse
import hashlib
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

DOCUMENT_BYTES = 1 << 16
WARM_PASSES = 3
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
MEGABYTES_OF_WORST = 10
WORST = {"one letter": "a", "blanks": " ", "line ends": "\n", "ab": "ab", "Chinese": "你", "a blank or four": " a    a"}


def documents(path: Path):
    """Yield the text in documents of about 64 KB that end with a line."""
    with open(path, "rb") as file:
        while block := file.read(DOCUMENT_BYTES):
            yield block + file.readline()


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(body) -> tuple[object, dict]:
    """Return the result of body(), with its wall-clock seconds and CPU seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = body()
    return result, {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def median(times: list[dict]) -> dict:
    return {key: statistics.median(one[key] for one in times) for key in times[0]}


# ---- Training: takes a text file and a vocabulary size, returns nothing.


def train_ours(path: Path, vocab_size: int, threads: int) -> None:
    from hipgpt.data.tokenizer.chunks import file_chunks
    from hipgpt.data.tokenizer.tokenizer import train_merges

    train_merges(file_chunks(path, 1 << 20), vocab_size, "gpt2", threads)


def train_hf(path: Path, vocab_size: int, threads: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text.decode() for text in documents(path)), trainer)


def train_rustbpe(path: Path, vocab_size: int, threads: int) -> None:
    import rustbpe

    texts = (text.decode() for text in documents(path))
    rustbpe.Tokenizer().train_from_iterator(texts, vocab_size=vocab_size, pattern=GPT2)


def train_gigatoken(path: Path, vocab_size: int, threads: int) -> None:
    import gigatoken

    gigatoken.train_bpe(gigatoken.TextFileSource([str(path)]), vocab_size, [])


# ---- Encoding: each returns two functions, (texts -> ids of each text, ids -> text).


def encoder_ours(tokenizer: Path, threads: int):
    from hipgpt.data.tokenizer.tokenizer import Tokenizer

    ours = Tokenizer.load(tokenizer)
    return lambda texts: list(ours.encode_all(texts, threads)), ours.decode


def encoder_gigatoken(tokenizer: Path, threads: int):
    import gigatoken

    peer = gigatoken.Tokenizer.from_json(tokenizer.read_text(encoding="utf-8"))
    return lambda texts: peer.encode_batch(texts, parallel=threads > 1), peer.decode


def encoder_fastokens(tokenizer: Path, threads: int):
    from fastokens import _native

    peer = _native.Tokenizer.from_file(str(tokenizer))
    return lambda texts: [one.ids for one in peer.encode_batch([text.decode() for text in texts])], peer.decode


def encoder_hf(tokenizer: Path, threads: int):
    from tokenizers import Tokenizer

    peer = Tokenizer.from_file(str(tokenizer))
    return lambda texts: [one.ids for one in peer.encode_batch_fast([text.decode() for text in texts])], peer.decode


def measure_training(arguments) -> dict:
    train = globals()[f"train_{arguments.role}"]
    _, took = timed(lambda: train(arguments.text, arguments.vocab_size, arguments.threads))
    return {"train": took | {"megabytes": arguments.text.stat().st_size / 1e6}}


def encoder(arguments):
    encode, decode = globals()[f"encoder_{arguments.role}"](arguments.tokenizer, arguments.threads)
    encode([b"a"])  # some build their tables in the first call
    return encode, decode


def measure_encoding(arguments) -> dict:
    import numpy as np

    texts = list(documents(arguments.text))
    size = {"megabytes": arguments.text.stat().st_size / 1e6}
    (encode, decode), load = timed(lambda: encoder(arguments))
    found, cold = timed(lambda: encode(texts))
    warm = median([timed(lambda: encode(texts))[1] for _ in range(WARM_PASSES)])
    found = [np.asarray(ids, np.uint32) for ids in found]
    digest = hashlib.sha256(b"".join(ids.tobytes() for ids in found)).hexdigest()[:16]
    given = found if arguments.role == "ours" else [ids.tolist() for ids in found]  # the form that each decodes fastest
    back = [decode(ids) for ids in given]
    decoding = median([timed(lambda: [decode(ids) for ids in given])[1] for _ in range(WARM_PASSES)])
    joined = [text.encode() if isinstance(text, str) else bytes(text) for text in back]
    assert joined == texts, "decoding lost something"
    return {"ids": digest, "load": load | size, "cold": cold | size, "warm": warm | size, "decode": decoding | size}


def measure_worst(arguments) -> dict:
    encode, _ = encoder(arguments)
    results = {}
    for name, piece in WORST.items():
        text = (piece * (MEGABYTES_OF_WORST * 10**6 // len(piece.encode()))).encode()
        results[name] = timed(lambda text=text: encode([text]))[1] | {"megabytes": len(text) / 1e6}
    return results


MODULES = {
    "ours": "hipgpt.data.tokenizer.tokenizer",
    "hf": "tokenizers",
}  # the module of any other peer has the peer's name
MEASURES = {"train": measure_training, "encode": measure_encoding, "worst": measure_worst}


def compare(arguments) -> None:
    pythons = {"ours": sys.executable} | dict.fromkeys(arguments.peers, arguments.peer_python)
    rounds: dict[str, list[dict]] = {role: [] for role in pythons}
    environment = {**os.environ, "RAYON_NUM_THREADS": str(arguments.threads)}
    environment["TOKENIZERS_PARALLELISM"] = str(arguments.threads > 1).lower()
    for _ in range(arguments.rounds):
        for role, python in pythons.items():
            command = [python, *sys.argv, "--role", role]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE)
            if done.returncode == 0:
                rounds[role].append(json.loads(done.stdout.splitlines()[-1]))
    hashes = {result["ids"] for results in rounds.values() for result in results if "ids" in result}
    print(f"{arguments.measure}, {arguments.threads} threads, {arguments.rounds} rounds", *hashes)
    if len(hashes) > 1:
        print("the ids differ")
    best = {}
    for role, results in rounds.items():
        for name, first in (results[0] if results else {}).items():
            if not isinstance(first, dict):
                continue
            seconds = statistics.median(result[name]["seconds"] for result in results)
            cpu = min(result[name]["cpu"] for result in results)
            best.setdefault(name, (seconds, cpu))
            print(
                f"{name:16s} {role:10s} {seconds:8.3f} s {first['megabytes'] / seconds:8.1f} MB/s {cpu:8.3f} s of CPU "
                f"{max(result[name]['peak'] for result in results):7.0f} MB   "
                f"{seconds / best[name][0]:6.2f}x ours, CPU {cpu / best[name][1]:.2f}x"
            )


def stream(arguments) -> None:
    """Print the peak memory of the counting in training, and of encoding, after each gigabyte."""
    from hipgpt.data.tokenizer.chunks import text_chunks
    from hipgpt.data.tokenizer.tokenizer import Tokenizer, train_merges

    def chunks(name: str):
        seen, copy = 0, 0
        while seen < arguments.gigabytes * 1e9:
            copy += 1
            with open(arguments.text, "rb") as file:
                for chunk in text_chunks(file, 1 << 20):
                    chunk = chunk.replace(b"the ", b"the%d " % copy)  # new words in every repetition
                    if seen // 10**9 < (seen + len(chunk)) // 10**9:
                        seconds = time.perf_counter() - started
                        print(f"{name} {(seen + len(chunk)) / 1e9:.0f} GB, {seconds:.1f} s, {peak_megabytes():.0f} MB")
                    seen += len(chunk)
                    yield chunk

    started = time.perf_counter()
    merges = train_merges(chunks("training"), arguments.vocab_size, "gpt2", arguments.threads)
    print(f"training done, {time.perf_counter() - started:.1f} s, {peak_megabytes():.0f} MB", flush=True)
    tokenizer = Tokenizer(tuple(map(tuple, merges["pair"].tolist())))
    started = time.perf_counter()
    tokens = sum(len(ids) for ids in tokenizer.encode_all(chunks("encoding"), arguments.threads))
    print(f"encoding done, {time.perf_counter() - started:.1f} s, {tokens:,} tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=[*MEASURES, "stream"])
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="the tokenizer.json with which all encode")
    parser.add_argument("--vocab-size", type=int, default=32000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--peers", nargs="*", default=[], choices=["gigatoken", "rustbpe", "fastokens", "hf"])
    parser.add_argument("--peer-python", help="python of an environment with the peers")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    if arguments.role:
        importlib.import_module(MODULES.get(arguments.role, arguments.role))  # before any clock starts
        result = MEASURES[arguments.measure](arguments)
        for one in result.values():
            if isinstance(one, dict):
                one["peak"] = peak_megabytes()
        print(json.dumps(result))
    elif arguments.measure == "stream":
        stream(arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
