"""Windows of tokens: deterministic batches for training, and windows that cover a split once for evaluation."""

import operator
from collections.abc import Iterator, Sized
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError

MOST_WINDOWS = 1 << 22  # of a batch, and tokens of a window


class TokenSequence(Protocol):
    """The part of hipgpt.data.tokens.Tokens that batches need."""

    def __len__(self) -> int: ...
    def windows(self, starts: NDArray[np.int64], length: int, /) -> NDArray[np.int32]: ...


class Batches:
    """Training batches as a function of the step alone, so that a resumed run needs no state of the data.

    Window n = step * batch_size + row belongs to epoch n // windows_per_epoch. Each epoch draws a phase, which is the
    offset of its first window, and cuts the tokens from there on into windows of context_length that do not overlap. It
    visits each window once, in an order that is drawn too. Phase and order come from Philox with the key (seed, epoch).

    sequences: how many windows of each batch this process takes: all, or as one of several ranks its part.
    """

    def __init__(
        self, tokens: TokenSequence, batch_size: int, context_length: int, seed: int, rank: int = 0, ranks: int = 1
    ) -> None:
        """batch_size: windows of a batch; context_length: tokens of a window; 0 <= seed < 2**64.

        rank: of this process among `ranks` that divide each batch between them, in the order of its windows.

        Raises UserError if there are fewer than context_length + 1 tokens: the inputs of a window and its last target.
        Raises ValueError for numbers outside of their ranges.
        """
        _check_length(tokens, context_length)
        _check_number("batch_size", batch_size, 1, MOST_WINDOWS)
        _check_number("context_length", context_length, 1, MOST_WINDOWS)
        _check_number("seed", seed, 0, 2**64 - 1)
        if batch_size % ranks:
            raise UserError(
                f"training.batch_sequences: got {batch_size}, expected a multiple of the number of devices, {ranks}"
            )
        self.sequences = batch_size // ranks
        self._first = rank * self.sequences
        self.tokens, self.batch_size, self.context_length, self.seed = tokens, batch_size, context_length, seed
        # one window fewer than would fit, so that at least context_length phases are possible
        self.windows_per_epoch = max(1, len(tokens) // context_length - 1)
        self._phases = len(tokens) - self.windows_per_epoch * context_length
        self._epoch, self._phase, self._order = -1, 0, np.empty(0, np.uint32)

    def starts(self, step: int) -> NDArray[np.int64]:
        """Return the offsets (sequences,) int64 of the first token of each window of a step. Steps count from 0."""
        _check_number("step", step, 0, 2**53)
        numbers = step * self.batch_size + self._first + np.arange(self.sequences)
        epochs, indices = np.divmod(numbers, self.windows_per_epoch)
        starts = np.empty(self.sequences, np.int64)
        for epoch in range(epochs[0], epochs[-1] + 1):
            self._draw(epoch)
            starts[epochs == epoch] = self._phase + self.context_length * self._order[indices[epochs == epoch]].astype(
                np.int64
            )
        return starts

    def batch(self, step: int) -> NDArray[np.int32]:
        """Return the tokens (sequences, S+1) int32 of a step.

        Columns 0 to S-1 are the inputs, columns 1 to S their targets.
        """
        return self.tokens.windows(self.starts(step), self.context_length + 1)

    def _draw(self, epoch: int) -> None:
        """Set _phase and _order, (windows_per_epoch,) uint32, to those of an epoch."""
        if epoch != self._epoch:
            random = np.random.Generator(np.random.Philox(key=np.array([self.seed, epoch], np.uint64)))
            self._phase = int(random.integers(self._phases))
            self._order = np.arange(self.windows_per_epoch, dtype=np.uint32)
            random.shuffle(self._order)
            self._epoch = epoch


def windows(tokens: Sized, context_length: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yield (start, first_counted) for windows of S = context_length inputs that count each target exactly once.

    The inputs of a window are tokens[start : start + S], and its targets are tokens[start + 1 : start + S + 1]. The
    targets from index first_counted on count. All tokens but the first are targets. Except in the first window, a
    counted target has at least S - stride + 1 tokens before it in its window. The last window ends with the last token.
    Raises UserError unless 1 <= stride <= context_length, or if there are fewer than context_length + 1 tokens.
    """
    _check_length(tokens, context_length)
    if not 1 <= stride <= context_length:
        raise UserError(f"stride: got {stride}, expected 1 to context_length, {context_length}")
    last = len(tokens) - 1 - context_length
    counted = 0  # targets in the windows so far
    for nominal in range(0, last + stride, stride):
        start = min(nominal, last)
        yield start, counted - start
        counted = start + context_length


def _check_number(name: str, got: int, least: int, most: int) -> None:
    if operator.index(got) != got or not least <= got <= most:
        raise ValueError(f"batches: {name}: got {got}, expected a whole number from {least} to {most}")


def _check_length(tokens: Sized, context_length: int) -> None:
    if len(tokens) < context_length + 1:
        raise UserError(
            f"model.context_length: {context_length} needs {context_length + 1} tokens, "
            f"but the split has {len(tokens)}; shorten the context or give the corpus more text"
        )
