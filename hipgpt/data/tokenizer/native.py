"""kernels/bpe/api.cpp through ctypes: counting words, training merges, encoding. Its calls let other threads run."""

import ctypes
import functools
import queue
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.compiler import compile_libraries, load_library
from hipgpt.base.errors import UserError
from hipgpt.base.kernel_constants import kernel_constants
from hipgpt.base.ordered_map import check_threads, ordered_map
from hipgpt.base.paths import KERNELS
from hipgpt.data.tokenizer.pretokenize import PATTERNS, class_table
from hipgpt.data.tokenizer.reference import BYTES, Pair

Text = bytes | bytearray | memoryview | mmap | NDArray[np.uint8]
LIMITS = kernel_constants(KERNELS / "bpe" / "limits.h")
ID_LIMIT, SPARE_IDS = LIMITS["ID_LIMIT"], LIMITS["SPARE_IDS"]
MERGES_AT_ONCE = 256  # between two reports of progress
FIRST_GROUP, LARGEST_GROUP = 1 << 21, 1 << 23  # bytes of texts that a thread encodes at once
MERGE = np.dtype([("pair", np.uint32, 2), ("count", np.int64), ("applied", np.int64)])

_POINTER, _TEXT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
_STRINGS = [_TEXT, _POINTER, _POINTER, _SIZE]
_SIGNATURES = {
    "bpe_is_ascii": (_SIZE, [_POINTER, _SIZE]),
    "bpe_counter_new": (_POINTER, []),
    "bpe_counter_free": (None, [_POINTER]),
    "bpe_counter_add": (_SIZE, [_POINTER, _POINTER, _SIZE, _TEXT, _SIZE]),
    "bpe_counter_join": (_SIZE, [_POINTER, _POINTER]),
    "bpe_trainer_new": (_POINTER, [_POINTER]),
    "bpe_trainer_free": (None, [_POINTER]),
    "bpe_trainer_train": (_SIZE, [_POINTER, _SIZE, _POINTER]),
    "bpe_fires": (_SIZE, [_POINTER, _POINTER, _SIZE, _POINTER]),
    "bpe_decoder_new": (_POINTER, [_TEXT, _POINTER, _SIZE]),
    "bpe_decoder_free": (None, [_POINTER]),
    "bpe_decoder_size": (_SIZE, [_POINTER, _POINTER, _SIZE]),
    "bpe_decoder_decode": (None, [_POINTER, _POINTER, _SIZE, _POINTER, _SIZE]),
    "bpe_tokens_new": (_POINTER, [_POINTER, _SIZE, _POINTER, _SIZE, *_STRINGS, *_STRINGS]),
    "bpe_tokens_free": (None, [_POINTER]),
    "bpe_encoder_new": (_POINTER, [_POINTER]),
    "bpe_encoder_free": (None, [_POINTER]),
    "bpe_encoder_encode": (_SIZE, [_POINTER, _POINTER, _POINTER, _SIZE, _TEXT, _POINTER, _POINTER]),
    "bpe_pieces": (_SIZE, [_POINTER, _SIZE, _TEXT, _SIZE, _SIZE, _POINTER]),
}


@functools.cache
def native_library() -> ctypes.CDLL:
    """Return the C++ tokenizer, compiled for this processor unless the cache has it, which the log tells."""
    source = KERNELS / "bpe" / "api.cpp"
    compile_libraries([(source, {})], threads=1)
    library = load_library(source)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _checked(result: int | None, doing: str) -> int:
    if result is None or result < 0:
        remedy = "free memory, or give it less text at a time"
        raise UserError(f"tokenizer: out of memory while {doing}, or 2^24 tokens and more; {remedy}")
    return result


def _view(text: Text) -> NDArray[np.uint8]:
    """Return the text's bytes (N,) uint8 in place.

    Raises TypeError unless it is bytes, or a contiguous buffer or array (N,) of bytes.
    """
    if isinstance(text, (bytes, bytearray, mmap)):
        return np.frombuffer(text, np.uint8)
    if isinstance(text, memoryview) and text.ndim == 1 and text.itemsize == 1 and text.c_contiguous:
        return np.frombuffer(text, np.uint8)
    if isinstance(text, np.ndarray) and text.ndim == 1 and text.dtype == np.uint8 and text.flags.c_contiguous:
        return text
    about = (
        f"{text.dtype} {text.shape}, strides {text.strides}" if isinstance(text, np.ndarray) else type(text).__name__
    )
    raise TypeError(f"text: got {about}, expected bytes or a contiguous array (N,) of uint8")


def _classes(views: Sequence[NDArray[np.uint8]]) -> bytes | None:
    """Return the table that scanning the texts needs: ASCII needs none, which saves building it."""
    if class_table.cache_info().currsize:
        return class_table()
    ascii_alone = all(native_library().bpe_is_ascii(view.ctypes.data, view.size) for view in views)
    return None if ascii_alone else class_table()


def _number(pattern: str) -> int:
    """Return the place of a pattern in kernels/bpe/symbols.h."""
    return [*PATTERNS].index(pattern)


def train(chunks: Iterable[Text], most: int, pattern: str, threads: int) -> Iterator[NDArray[np.void]]:
    """Yield the first `most` merges of the chunks' words, or as many as there are: arrays (N,) of MERGE.

    First come empty arrays, one for each chunk counted. Raises ValueError for fewer threads than one.
    """
    check_threads(threads)
    library, number = native_library(), _number(pattern)
    counters = [_Handle("counter") for _ in range(threads)]
    idle: queue.SimpleQueue[_Handle] = queue.SimpleQueue()
    for counter in counters:
        idle.put(counter)

    def count(chunk: Text) -> None:
        view, counter = _view(chunk), idle.get()
        result = library.bpe_counter_add(counter.pointer, view.ctypes.data, view.size, _classes([view]), number)
        idle.put(counter)
        _checked(result, "counting words")

    for _ in ordered_map(count, chunks, threads):
        yield np.empty(0, MERGE)
    for other in counters[1:]:
        _checked(library.bpe_counter_join(counters[0].pointer, other.pointer), "counting words")
    trainer = _Handle("trainer", counters[0].pointer)
    while most > 0:
        merges = np.empty(min(most, MERGES_AT_ONCE), MERGE)
        found = _checked(library.bpe_trainer_train(trainer.pointer, len(merges), merges.ctypes.data), "training merges")
        yield merges[:found]
        most = most - found if found == len(merges) else 0


def pieces(text: bytes, pattern: str, alone: bool = False) -> list[bytes]:
    """Return the pieces of a text, found in windows as encoding does, or each alone as their definition says."""
    view, starts = _view(text), np.empty(len(text) + 1, np.int64)
    found = native_library().bpe_pieces(
        view.ctypes.data, view.size, class_table(), _number(pattern), alone, starts.ctypes.data
    )
    places = starts[: _checked(found, "finding pieces")].tolist()
    return [text[begin:end] for begin, end in zip(places, places[1:], strict=False)]


def fires(pairs: NDArray[np.uint32], results: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return which merges are ever applied, (N,) bool.

    pairs (N, 2), results (N,): numbers of what merges join and make, below 256 + N; the first 256 are the bytes.
    """
    pairs, results = np.ascontiguousarray(pairs, np.uint32), np.ascontiguousarray(results, np.uint32)
    found = np.zeros(len(pairs), np.uint8)
    status = native_library().bpe_fires(pairs.ctypes.data, results.ctypes.data, len(pairs), found.ctypes.data)
    _checked(status, "loading merges")
    return found.astype(bool)


class _Handle:
    """An object of the library, freed with its last user."""

    def __init__(self, kind: str, *arguments: int | bytes):
        library = native_library()
        self.pointer = _checked(getattr(library, f"bpe_{kind}_new")(*arguments), f"making a {kind}")
        weakref.finalize(self, getattr(library, f"bpe_{kind}_free"), self.pointer)


class Encoder:
    """A tokenizer's tables made ready for encoding; each thread that is encoding has a cache of words to itself."""

    def __init__(
        self,
        merges: Sequence[Pair],
        ids: Sequence[int],
        pattern: str,
        whole: Mapping[bytes, int],
        specials: Mapping[bytes, int],
    ):
        """ids: of the bytes, then of the merges; whole: pieces with an id of their own, whatever the merges say."""
        table = np.array(merges, np.uint32).reshape(-1, 2)
        numbers = np.array(ids, np.uint32)
        if len(numbers) != BYTES + len(table):
            raise ValueError(f"ids: got {len(numbers)}, expected {BYTES + len(table)}: of bytes and merges")
        strings = [_strings(whole), _strings(specials)]
        flat = [item.ctypes.data if isinstance(item, np.ndarray) else item for group in strings for item in group]
        self._tokens = _Handle("tokens", table.ctypes.data, len(table), numbers.ctypes.data, _number(pattern), *flat)
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()

    def encode(self, text: Text) -> NDArray[np.uint32]:
        """Return the ids of the text, (N,) uint32."""
        return self.encode_group([text])[0]

    def encode_all(self, texts: Iterable[Text], threads: int) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of each text, in order."""
        for group in ordered_map(self.encode_group, _groups(texts), threads):
            yield from group

    def encode_group(self, texts: Sequence[Text]) -> list[NDArray[np.uint32]]:
        """Return the ids of each text, (N,) uint32, by one call of the library."""
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker(self._tokens)
        try:
            return worker.encode([*map(_view, texts)])
        finally:
            self._idle.put(worker)


def _groups(texts: Iterable[Text]) -> Iterator[list[Text]]:
    """Yield the texts in lists that give a thread enough to do; the first ones are smaller, as there may be no more."""
    group, size, enough = [], 0, FIRST_GROUP
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= enough:
            yield group
            group, size, enough = [], 0, min(2 * enough, LARGEST_GROUP)
    if group:
        yield group


class _Worker:
    def __init__(self, tokens: _Handle):
        self._tokens = tokens  # must outlive the encoder
        self._encoder = _Handle("encoder", tokens.pointer)
        self._ids = np.empty(0, np.uint32)

    def encode(self, views: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint32]]:
        """Return the ids of each text, parts of one array: many pages at once cost less than a few for each."""
        places = np.array([view.ctypes.data for view in views], np.uintp)
        sizes = np.array([view.size for view in views], np.int64)
        ends = np.empty(len(views) + 1, np.int64)
        if len(self._ids) < (room := int(sizes.sum()) + SPARE_IDS):
            self._ids = np.empty(max(room, 1 << 16), np.uint32)
        found = native_library().bpe_encoder_encode(
            self._encoder.pointer, places.ctypes.data, sizes.ctypes.data, len(views), _classes(views),
            self._ids.ctypes.data, ends.ctypes.data,
        )  # fmt: skip
        ids = self._ids[: _checked(found, "encoding")].copy()
        return [ids[begin:end] for begin, end in pairwise(ends.tolist())]


class Decoder:
    """The bytes of all tokens, made ready for decoding."""

    def __init__(self, tokens: Sequence[bytes]):
        offsets = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
        self._handle = _Handle("decoder", b"".join(tokens), offsets.ctypes.data, len(tokens))

    def decode(self, ids: NDArray[np.uint32]) -> bytes | None:
        """Return the bytes of the ids (N,) uint32, None if one of them is no token's."""
        library, place = native_library(), ids.ctypes.data
        size = library.bpe_decoder_size(self._handle.pointer, place, len(ids))
        if size < 0:
            return None
        text = np.empty(size, np.uint8)
        library.bpe_decoder_decode(self._handle.pointer, place, len(ids), text.ctypes.data, size)
        return text.tobytes()


def _strings(table: Mapping[bytes, int]) -> tuple[bytes, NDArray[np.int64], NDArray[np.uint32], int]:
    """Return the strings one after the other, their sizes and their ids, and how many there are."""
    sizes = np.array([len(one) for one in table], np.int64)
    return b"".join(table), sizes, np.array(list(table.values()), np.uint32), len(table)
