"""The tokenizer's public functions check what they are given: a wrong array is refused, not read past its end."""

import base64

import numpy as np
import pytest

from hipgpt.base.errors import UserError
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train

TEXT = b"the king and the queen and the king " * 20
TOKENIZER = train([TEXT], 270)
BYTES = np.frombuffer(TEXT, np.uint8)


@pytest.mark.parametrize(
    "text",
    [
        BYTES[::-1], BYTES[::2], BYTES.reshape(2, -1), BYTES.astype(np.int64), BYTES.astype(np.float32),
        np.array(5, np.uint8), memoryview(TEXT)[::2], memoryview(np.arange(9)), [1, 2], 5, None,
    ],
    ids=lambda text: str(text) if not isinstance(text, memoryview) else "memoryview",
)  # fmt: skip
def test_a_text_that_is_not_contiguous_bytes_is_refused(text):
    for call in (TOKENIZER.encode, lambda text: list(TOKENIZER.encode_all([text]))):
        with pytest.raises(TypeError):
            call(text)


@pytest.mark.parametrize(
    "text", [TEXT, bytearray(TEXT), memoryview(TEXT), BYTES, BYTES.copy(), TEXT.decode()], ids=type
)
def test_every_form_of_bytes_gives_the_same_ids(text):
    assert TOKENIZER.encode(text).tolist() == TOKENIZER.encode(TEXT).tolist()


@pytest.mark.parametrize("ids", [[[1, 2], [3, 4]], np.zeros((2, 2), np.uint32), np.array(3), 7], ids=str)
def test_ids_of_more_dimensions_than_one_are_refused(ids):
    with pytest.raises(ValueError, match="decode: got ids of shape"):
        TOKENIZER.decode(ids)


@pytest.mark.parametrize("ids", [[-1], [270], [1 << 40], np.array([1.5]), np.array([np.nan])], ids=str)
def test_ids_that_are_no_tokens_are_refused(ids):
    with pytest.raises(UserError, match="decode: got id"):
        TOKENIZER.decode(ids)


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_threads_than_one_are_refused(threads):
    with pytest.raises(ValueError, match=f"threads: got {threads}, expected 1 or more"):
        train([TEXT], 270, threads=threads)
    with pytest.raises(ValueError, match=f"threads: got {threads}, expected 1 or more"):
        list(TOKENIZER.encode_all([TEXT], threads))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"merges": ((97, 97), *((256 + i, 256 + i) for i in range(60)))},
            "a token of 2,305,843,009,213,693,952 bytes",
        ),
        ({"merges": ((97, 300),)}, r"merges\[0\]: got 97, 300, expected two of the 256 tokens before it"),
        ({"merges": ((-1, 97),)}, r"merges\[0\]: got -1, 97"),
        ({"merges": (), "ids": (1, 2)}, "ids: got 2, expected 256"),
        ({"merges": (), "specials": (("", 256),)}, "specials: got an empty token"),
        ({"merges": (), "specials": (("<|end|>", 1 << 40),)}, "ids: got 256, expected 256, each from 0 to"),
    ],
)
def test_a_tokenizer_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(**arguments)


def test_a_token_too_long_for_ranks_is_named_by_its_line(tmp_path):
    tokens = [bytes([byte]) for byte in range(256)] + [b"a" * 100_000]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    (tmp_path / "x.tiktoken").write_text("".join(lines))
    with pytest.raises(
        UserError, match="x.tiktoken: line 257: got a token of 133,336 characters in base64, expected at"
    ):
        Tokenizer.load(tmp_path / "x.tiktoken")
