"""Public functions called with whatever there is: success or a refusal, never a signal, a hang or another exception."""

import os
import select
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hipgpt.base.paths import ROOT
from hipgpt.compute.catalogue import CATALOGUE

EXAMPLES = 500
CALL_SECONDS = 60  # the first one may compile a kernel
DTYPES = ("uint8", "uint16", "uint32", "int32", "int64", "float32", "float64", "bool", "complex64")
numbers = st.one_of(st.integers(-3, 400), st.sampled_from([1 << 31, 1 << 40, -(1 << 63), 1 << 70]))
shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
arrays = st.tuples(st.just("array"), st.sampled_from(DTYPES), shapes, st.sampled_from([1, 2, -1, -3]))
floats = st.one_of(st.floats(allow_nan=False), st.just(("nan",)))
odd = st.one_of(
    st.none(), st.booleans(), numbers, floats, st.text(max_size=4), st.binary(max_size=9), arrays, st.just([])
)
texts = st.one_of(odd, st.tuples(st.just("text"), st.integers(0, 300)))
ids = st.one_of(odd, st.lists(st.integers(0, 299), max_size=30), st.lists(numbers, max_size=4))
small = st.one_of(st.integers(-2, 20), odd)
scalars = st.dictionaries(st.sampled_from(["epsilon", "scale", "stream", "x"]), st.one_of(floats, numbers), max_size=2)
tensors = st.lists(st.tuples(shapes, st.sampled_from(["F32", "BF16", "I32"])), max_size=6)
pairs = st.lists(st.tuples(st.integers(-1, 300), st.integers(-1, 300)), max_size=4).map(tuple)
threads = st.one_of(st.integers(-1, 4), odd)
lists = st.tuples(st.just("list"), st.lists(texts, max_size=3))
CALLS = {
    "encode": st.tuples(texts),
    "encode_ordinary": st.tuples(st.one_of(lists, odd)),
    "encode_all": st.tuples(st.one_of(lists, odd), threads),
    "decode": st.tuples(ids),
    "token_bytes": st.tuples(small),
    "train": st.tuples(st.one_of(lists, odd), st.one_of(st.integers(250, 300), odd), threads),
    "tokenizer": st.tuples(st.one_of(pairs, odd), st.one_of(st.just(()), odd), st.one_of(st.just(()), odd)),
    "windows": st.tuples(st.one_of(arrays, odd), small),
    "batch": st.tuples(st.integers(0, 200), small, small, small, small),
    "covering": st.tuples(st.integers(0, 200), small, small),
    "append": st.tuples(st.one_of(st.integers(0, 299), odd)),
    "restart": st.tuples(ids),
    "generate": st.tuples(ids, st.integers(0, 9), *[st.one_of(st.floats(0, 2), odd)] * 4, st.booleans(), odd),
    "probabilities": st.tuples(arrays, ids, st.one_of(st.floats(0, 2), odd), small, st.one_of(st.floats(0, 1), odd)),
    "launch": st.tuples(st.sampled_from([*CATALOGUE]), tensors, scalars),
    "view": st.tuples(shapes, shapes, small, small),
    "write": st.tuples(shapes, st.one_of(arrays, odd)),
}
calls = st.one_of(*(st.tuples(st.just(name), arguments) for name, arguments in CALLS.items()))


class Caller:
    """A process that carries calls out; another one after a call that ended it."""

    def __init__(self):
        self.process = None

    def __call__(self, call: tuple) -> str:
        if self.process is None or self.process.poll() is not None:
            path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.misuse"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8",
                env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"},
            )  # fmt: skip
        self.process.stdin.write(ascii(call).replace("inf", "1e999") + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], CALL_SECONDS)[0]:
            self.process.kill()
            self.process.wait()
            return "a hang"
        return self.process.stdout.readline().strip() or f"a signal: {self.process.wait()}"


@pytest.fixture(scope="module")
def caller():
    caller = Caller()
    yield caller
    if caller.process:
        caller.process.kill()
        caller.process.wait()


@pytest.mark.slow
def test_a_misuse_is_refused_and_never_a_signal_or_a_hang(caller):
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(calls)
    def check(call):
        assert caller(call) in ("ok", "ValueError", "TypeError", "UserError", "ContractError")

    check()
