"""The launches of kernels/gpu/embedding_sorted.hip, which sorts the tokens of a batch before it adds gradients."""

import ctypes
from dataclasses import dataclass
from typing import Any

from hipgpt.base.kernel_constants import kernel_constants
from hipgpt.base.paths import KERNELS
from hipgpt.compute.backends.launch_shapes import EMBEDDING_THREADS, Shape, Sizes
from hipgpt.compute.contract import Op

HEADER = kernel_constants(KERNELS / "gpu" / "simt" / "sorted_tokens.h")
CHUNK, TILE = HEADER["CHUNK"], HEADER["TILE"]
MOST_IDS = 2**32 // CHUNK - 1  # that a key of 32 bits has room for


@dataclass(frozen=True)
class SortedEmbedding:
    """least_tokens: with fewer, one launch that looks through all tokens is faster."""

    least_tokens: int

    def suits(self, op: Op, sizes: Sizes) -> bool:
        """Return whether a call has so many tokens, of a vocabulary whose ids fit the keys."""
        return _tokens(sizes) >= self.least_tokens and sizes["V"] <= MOST_IDS

    def workspace_bytes(self, op: Op, sizes: Sizes) -> int:
        """Return the size of struct SortedTokens' workspace: keys, rows and ids, then the sums of two runs a tile."""
        tokens = _tokens(sizes)
        return 4 * (3 * CHUNK * -(-tokens // CHUNK) + 2 * sizes["C"] * -(-tokens // TILE))

    def launches(self, op: Op, sizes: Sizes, wave: int, workspace: int | None) -> list[tuple[Shape, list[Any]]]:
        """Return the shape of each phase and its last arguments. workspace: address of workspace_bytes bytes."""
        tokens = _tokens(sizes)
        chunks, tiles, positions = -(-tokens // CHUNK), -(-tokens // TILE), sizes.get("S", 0)
        blocks_of = {
            "SORT_CHUNKS": chunks,
            "RANK": chunks * CHUNK // EMBEDDING_THREADS,
            "SUM_TILES": tiles + positions,
            "ADD_RUNS": tiles,
        }
        return [
            (((blocks, 1, 1), EMBEDDING_THREADS), [ctypes.c_void_p(workspace), ctypes.c_int32(HEADER[phase])])
            for phase, blocks in blocks_of.items()
        ]


def _tokens(sizes: Sizes) -> int:
    return sizes["N"] if "N" in sizes else sizes["B"] * sizes["S"]
