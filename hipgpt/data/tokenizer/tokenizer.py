"""Byte-level BPE: bytes to tokens and back, without loss. Definition and worked example: bpe.py; the fast way and the
file formats: docs/tokenizer.md."""

import dataclasses
import functools
import hashlib
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular, replacing
from hipgpt.data.tokenizer import native, read_huggingface, read_tiktoken
from hipgpt.data.tokenizer import write_formats as formats
from hipgpt.data.tokenizer.native import MERGE, Text
from hipgpt.data.tokenizer.pretokenize import END_OF_TEXT
from hipgpt.data.tokenizer.reference import BYTES, Pair, check_merges, spell_merges

MOST_BYTES = 256 << 20  # of a file; the file of a tokenizer with 256,000 tokens has 20 to 40 MB
ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>")  # GPT-2's and its relatives'; Llama 3's


@dataclass(frozen=True)
class Tokenizer:
    """Merges and the ids of tokens. By default ids 0 to 255 are the bytes, then each merge has one, then <|endoftext|>.

    merges: pairs of token numbers; numbers 0 to 255 are the bytes, and 256 + i is the result of merge i. Every merge is
    applied to some text. pattern: a name of pretokenize.PATTERNS. ids: the id of each token number. specials: literals
    that are tokens wherever they occur, with their ids. whole: tokens that no merges make, with their ids.
    ignore_merges: whether a piece that is a token is encoded as that token, whatever the merges give. Without it, no
    text is encoded to a token of `whole`. nfc: whether a text is first brought into Unicode's normalization form C.
    """

    merges: tuple[Pair, ...]
    pattern: str = "gpt2"
    ids: tuple[int, ...] = field(default=())
    specials: tuple[tuple[str, int], ...] = field(default=())
    whole: tuple[tuple[bytes, int], ...] = ()
    ignore_merges: bool = False
    nfc: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError if a merge joins later tokens, a token has no id or two, or a special token is empty."""
        check_merges(self.merges)
        size = BYTES + len(self.merges)
        object.__setattr__(self, "ids", self.ids or tuple(range(size)))
        object.__setattr__(self, "specials", self.specials or ((END_OF_TEXT, size),))
        every = [*self.ids, *(index for _, index in (*self.specials, *self.whole))]
        if len(self.ids) != size or not 0 <= min(every) <= max(every) < native.ID_LIMIT:
            raise ValueError(f"ids: got {len(self.ids)}, expected {size}, each from 0 to {native.ID_LIMIT - 1}")
        if "" in dict(self.specials) or b"" in dict(self.whole):
            raise ValueError("specials: got an empty token, expected texts of one character or more")

    @classmethod
    def load(cls, path: str | Path, pattern: str | None = None) -> "Tokenizer":
        """Return the tokenizer in a tokenizer.json, or in tiktoken's ranks if the name ends with .tiktoken.

        pattern: a name of pretokenize.PATTERNS. A file of ranks does not name its pattern; the default is cl100k.
        Raises UserError, naming the field, if it is damaged or not supported, or if tokenizer.json has another pattern.
        """
        try:
            check_regular(Path(path))
            if (size := Path(path).stat().st_size) > MOST_BYTES:
                raise UserError(f"{path}: got {size:,} bytes, expected at most {MOST_BYTES:,}; it is not a tokenizer")
            text = Path(path).read_bytes()
        except OSError as error:
            raise UserError(
                f"{path}: cannot read the tokenizer ({error.strerror}); expected a tokenizer.json, as the rule "
                "train_tokenizer makes it, or a *.tiktoken"
            ) from error
        if str(path).endswith(".tiktoken"):
            return cls(*read_tiktoken.read_ranks(text, str(path), pattern or "cl100k"))
        read = cls(*read_huggingface.read_json(text, str(path)))
        if pattern not in (None, read.pattern):
            raise UserError(
                f"{path}: pre_tokenizer: got the pattern {read.pattern}, expected tokenizer.pattern, {pattern}; "
                "leave that key out"
            )
        return read

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json, or tiktoken's ranks if the name ends with .tiktoken. Ranks hold no special tokens.

        Equal tokenizers give equal bytes.
        """
        ranks = str(path).endswith(".tiktoken")
        with replacing(Path(path)) as file:
            file.write(formats.write_ranks(self._parts).encode() if ranks else self._json)

    @functools.cached_property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return 1 + max(*self.ids, *(index for _, index in (*self.specials, *self.whole)))

    @functools.cached_property
    def end_of_text(self) -> int:
        """The id of the special token that ends a document. Raises UserError if there is none."""
        found = [index for content, index in self.specials if content in ENDS_OF_TEXT]
        if not found:
            raise UserError(
                f"tokenizer: added_tokens: none is {' or '.join(ENDS_OF_TEXT)}, which must divide documents; add one"
            )
        return found[0]

    @functools.cached_property
    def undivided(self) -> tuple[bytes, ...]:
        """The special tokens that contain white space. next_cut needs them, so that no cut divides one."""
        return tuple(content.encode() for content, _ in self.specials if re.search(r"\s", content))

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of tokenizer.json, in hex. Shards and checkpoints identify their tokenizer by it."""
        return hashlib.sha256(self._json).hexdigest()

    def encode(self, text: Text | str) -> NDArray[np.uint32]:
        """Return the ids of the text, (N,) uint32. The literals of special tokens become their ids.

        A str is read as UTF-8; a lone surrogate becomes the three bytes that its code point would have. Several threads
        may call this at once.
        """
        given = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        return self._encoder.encode(self._normalized(given))

    def encode_ordinary(self, texts: Sequence[Text]) -> list[NDArray[np.uint32]]:
        """Return the ids of each text, (N,) uint32. The literal of a special token is text like any other here.

        Training data is encoded so, because a document may speak about <|endoftext|> without ending there.
        """
        if self.nfc:
            texts = [_form_c(bytes(text)) for text in texts]
        return self._ordinary_encoder.encode_group(texts)

    def encode_all(self, texts: Iterable[Text], threads: int = 1) -> Iterator[NDArray[np.uint32]]:
        """Yield encode(text) for each text, in order. At most 2 * threads texts are held at once."""
        return self._encoder.encode_all(map(self._normalized, texts), threads)

    def decode(self, ids: Sequence[int] | NDArray[np.integer[Any]]) -> bytes:
        """Return the bytes of the ids: decode(encode(text)) == text, or its form C if `nfc`.

        Raises UserError for an id outside the vocabulary, ValueError for ids of more dimensions than one.
        """
        given = np.asarray(ids)
        if given.ndim != 1 or given.dtype == object:
            raise ValueError(f"decode: got ids of shape {given.shape} and type {given.dtype}, expected numbers (N,)")
        with np.errstate(invalid="ignore"):  # what a number that is no id becomes is compared with it below
            tokens = np.ascontiguousarray(given, np.uint32)
        text = self._decoder.decode(tokens) if tokens is given or np.array_equal(tokens, given) else None
        if text is None:
            wrong = given[(given != tokens) | (tokens >= self.vocab_size)][0]
            raise UserError(
                f"decode: got id {wrong}, expected 0 to {self.vocab_size - 1}; use the tokenizer that made these ids"
            )
        return text

    def padded(self, vocab_size: int) -> "Tokenizer":
        """Return this tokenizer with special tokens <|padding0|>, ... to fill a padded table of embeddings."""
        added = range(vocab_size - self.vocab_size)
        padding = tuple((f"<|padding{number}|>", self.vocab_size + number) for number in added)
        return dataclasses.replace(self, specials=(*self.specials, *padding))

    def _normalized(self, text: Text) -> Text:
        """Return the text in form C if `nfc`. Special tokens are not changed, and what is not UTF-8 stays as it is."""
        if not self.nfc:
            return text
        parts = re.split(self._special_literals, bytes(text))
        parts[::2] = map(_form_c, parts[::2])
        return b"".join(parts)

    @functools.cached_property
    def _special_literals(self) -> re.Pattern[bytes]:
        longest_first = sorted((content.encode() for content, _ in self.specials), key=len, reverse=True)
        return re.compile(b"(%b)" % b"|".join(map(re.escape, longest_first)))

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token. For a special token this is its literal."""
        return self.decode([token])

    @functools.cached_property
    def byte_counts(self) -> NDArray[np.int64]:
        """The number of bytes of text that each token stands for, (vocab_size,) int64; 0 for a special token."""
        counts = np.array([*map(len, self._table)], np.int64)
        counts[[index for _, index in self.specials]] = 0
        return counts

    @functools.cached_property
    def _parts(self) -> formats.Parts:
        return formats.Parts(*(getattr(self, name) for name in formats.Parts._fields))

    @functools.cached_property
    def _json(self) -> bytes:
        return formats.write_json(self._parts).encode()

    @functools.cached_property
    def _table(self) -> list[bytes]:
        table = [b""] * self.vocab_size
        for index, token in zip(self.ids, spell_merges(self.merges), strict=True):
            table[index] = token
        for token, index in (*self.whole, *((content.encode(), index) for content, index in self.specials)):
            table[index] = token
        return table

    @functools.cached_property
    def _decoder(self) -> native.Decoder:
        return native.Decoder(self._table)

    @functools.cached_property
    def _encoder(self) -> native.Encoder:
        return self._encoder_with({content.encode(): index for content, index in self.specials})

    @functools.cached_property
    def _ordinary_encoder(self) -> native.Encoder:
        return self._encoder_with({})

    def _encoder_with(self, specials: Mapping[bytes, int]) -> native.Encoder:
        whole = {}
        if self.ignore_merges:
            whole = dict(zip(spell_merges(self.merges), self.ids, strict=True)) | dict(self.whole)
        return native.Encoder(self.merges, self.ids, self.pattern, whole, specials)


def _form_c(text: bytes) -> bytes:
    return unicodedata.normalize("NFC", text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def train(chunks: Iterable[Text], vocab_size: int, pattern: str = "gpt2", threads: int = 1) -> Tokenizer:
    """Return the tokenizer with the merges that train_merges learns."""
    merges = train_merges(chunks, vocab_size, pattern, threads)
    return Tokenizer(tuple(map(tuple, merges["pair"].tolist())), pattern)


def train_merges(
    chunks: Iterable[Text],
    vocab_size: int,
    pattern: str = "gpt2",
    threads: int = 1,
    progress: Callable[[str, int], None] = lambda stage, done: None,
) -> NDArray[np.void]:
    """Return the merges that byte-pair encoding learns from the chunks of a text for vocab_size ids, (N,) of MERGE.

    Each chunk is split into words by itself; chunks.py cuts a file so that this makes no difference. Memory grows with
    the number of distinct words only. Ties between counts go to the smallest (left id, right id). The number of threads
    does not change the result. progress: called with "chunks" or "merges" and the number of them that were done since
    the last call. Raises UserError if vocab_size is less than 257, or more than the text can give.
    """
    requested = operator.index(vocab_size) - BYTES - 1
    if requested < 0:
        raise UserError(
            f"vocab_size: got {vocab_size}, expected at least {BYTES + 1}: {BYTES} bytes and {END_OF_TEXT}; raise it"
        )
    found = [np.empty(0, MERGE)]
    for merges in native.train(chunks, requested, pattern, threads):
        progress("merges" if len(merges) else "chunks", len(merges) or 1)
        found.append(merges)
    merges = np.concatenate(found)
    if len(merges) < requested:
        raise UserError(
            f"vocab_size: got {vocab_size}, but this text gives {len(merges)} merges, so at most "
            f"{BYTES + len(merges) + 1}; lower vocab_size or use more text"
        )
    return merges
