"""kernels/cpu/bpe.cpp through ctypes: counting words, training merges, encoding."""

import ctypes
import functools
import threading
import weakref
from collections.abc import Iterable, Sequence

import numpy as np

from hipgpt.backends.build import KERNELS, host_library
from hipgpt.errors import UserError
from hipgpt.tokenizer.bpe import Pair
from hipgpt.tokenizer.pretokenize import class_table

_POINTER, _TEXT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
_SIGNATURES = {
    "bpe_counter_new": (_POINTER, []),
    "bpe_counter_free": (None, [_POINTER]),
    "bpe_counter_add": (_SIZE, [_POINTER, _TEXT, _SIZE, _TEXT]),
    "bpe_counter_train": (_SIZE, [_POINTER, _SIZE, _POINTER]),
    "bpe_encoder_new": (_POINTER, [_POINTER, _SIZE]),
    "bpe_encoder_free": (None, [_POINTER]),
    "bpe_encoder_encode": (_SIZE, [_POINTER, _TEXT, _SIZE, _TEXT, _POINTER]),
}


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(host_library(KERNELS / "cpu" / "bpe.cpp")))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _checked(result: int | None, doing: str) -> int:
    if result is None or result < 0:
        raise UserError(f"tokenizer: out of memory while {doing}; free memory, or give it less text at a time")
    return result


def _classes(text: bytes) -> bytes | None:
    """Return the table that scanning the text needs: ASCII needs none, which saves building it."""
    return None if text.isascii() else class_table()


def train(chunks: Iterable[bytes], wanted: int) -> list[Pair]:
    """Return the first `wanted` merges of the chunks' words, or as many as they give."""
    library = _library()
    counter = _checked(library.bpe_counter_new(), "counting words")
    try:
        for chunk in chunks:
            _checked(library.bpe_counter_add(counter, chunk, len(chunk), _classes(chunk)), "counting words")
        merges = np.empty((wanted, 2), np.uint32)
        found = _checked(library.bpe_counter_train(counter, wanted, merges.ctypes.data), "training merges")
    finally:
        library.bpe_counter_free(counter)
    return [(left, right) for left, right in merges[:found].tolist()]


class Encoder:
    """Merges made ready for encoding, with a cache of words; threads take turns."""

    def __init__(self, merges: Sequence[Pair]):
        table = np.array(merges, np.uint32).reshape(-1, 2)
        self._handle = _checked(_library().bpe_encoder_new(table.ctypes.data, len(table)), "loading merges")
        self._lock = threading.Lock()
        weakref.finalize(self, _library().bpe_encoder_free, self._handle)

    def encode(self, text: bytes) -> np.ndarray:
        """Return the ids of the text, (N,) uint32."""
        ids = np.empty(len(text), np.uint32)
        with self._lock:
            found = _library().bpe_encoder_encode(self._handle, text, len(text), _classes(text), ids.ctypes.data)
        return ids[: _checked(found, "encoding")].copy()
