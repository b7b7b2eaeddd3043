"""Byte-level BPE: bytes to tokens and back, without loss. Definition and worked example: bpe.py."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hipgpt.errors import UserError
from hipgpt.files import replacing
from hipgpt.tokenizer import formats, native
from hipgpt.tokenizer.bpe import BYTES, Pair, token_table
from hipgpt.tokenizer.chunks import next_cut, text_chunks
from hipgpt.tokenizer.pretokenize import END_OF_TEXT

__all__ = ["END_OF_TEXT", "Tokenizer", "next_cut", "text_chunks", "train"]


@dataclass(frozen=True)
class Tokenizer:
    """Ids 0 to 255 are the bytes, then one id for each merge, and <|endoftext|> is the last."""

    merges: tuple[Pair, ...]

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Return the tokenizer of a tokenizer.json. Raises UserError naming the field that is damaged or foreign."""
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise UserError(
                f"{path}: cannot read the tokenizer ({error.strerror}); run the rule train_tokenizer"
            ) from error
        return cls(tuple(formats.read_json(text, str(path))))

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json, which Hugging Face's `tokenizers` loads; equal tokenizers give equal bytes."""
        with replacing(Path(path)) as file:
            file.write(self._json)

    @property
    def vocab_size(self) -> int:
        return BYTES + len(self.merges) + 1

    @property
    def end_of_text(self) -> int:
        """The id of <|endoftext|>."""
        return self.vocab_size - 1

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of tokenizer.json, in hex: shards and checkpoints name their tokenizer by it."""
        return hashlib.sha256(self._json).hexdigest()

    def encode(self, text: bytes | str) -> np.ndarray:
        """Return the ids of the text, (N,) uint32; the literal <|endoftext|> becomes the id end_of_text.

        A str is encoded as UTF-8, lone surrogates as the three bytes they would have.
        """
        return self._encoder.encode(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)

    def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """Return the bytes of the ids: decode(encode(text)) == text.

        Raises UserError for an id outside the vocabulary.
        """
        tokens = np.asarray(ids)
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < self.vocab_size):
            wrong = tokens[(tokens < 0) | (tokens >= self.vocab_size)][0]
            raise UserError(
                f"decode: got id {wrong}, expected 0 to {self.vocab_size - 1}; use the tokenizer that made these ids"
            )
        return b"".join(map(self._table.__getitem__, tokens.tolist()))

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token; for end_of_text its literal."""
        return self.decode([token])

    @functools.cached_property
    def byte_counts(self) -> np.ndarray:
        """How many bytes of text each token stands for, (vocab_size,) int64; end_of_text stands for none."""
        return np.array([*map(len, self._table[:-1]), 0], np.int64)

    @functools.cached_property
    def _json(self) -> bytes:
        return formats.write_json(self.merges).encode()

    @functools.cached_property
    def _table(self) -> list[bytes]:
        return token_table(self.merges)

    @functools.cached_property
    def _encoder(self) -> native.Encoder:
        return native.Encoder(self.merges)


def train(chunks: Iterable[bytes], vocab_size: int) -> Tokenizer:
    """Return the tokenizer with vocab_size ids that byte-pair encoding learns from the chunks of a text.

    Each chunk is split into words by itself (text_chunks cuts a file so that this makes no difference), and memory
    grows with the distinct words only. Equal counts are decided by the smallest (left id, right id).
    Raises UserError if vocab_size is under 257, or more than the text can give.
    """
    wanted = vocab_size - BYTES - 1
    if wanted < 0:
        raise UserError(
            f"vocab_size: got {vocab_size}, expected at least {BYTES + 1}: {BYTES} bytes and {END_OF_TEXT}; raise it"
        )
    merges = native.train(chunks, wanted)
    if len(merges) < wanted:
        raise UserError(
            f"vocab_size: got {vocab_size}, but this text gives {len(merges)} merges, so at most "
            f"{BYTES + len(merges) + 1}; lower vocab_size or use more text"
        )
    return Tokenizer(tuple(merges))
