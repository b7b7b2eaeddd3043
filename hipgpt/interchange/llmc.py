"""Write a run for llm.c: a checkpoint of float32 weights and a table of tokens.

The checkpoint (version 3) begins with 256 int32: magic, version, context, vocabulary, layers, heads, width, padded
vocabulary, zeros. The weights follow, each kind for all layers before the next kind; linear weights are (out, in), as
here. The table of tokens (version 2) begins with 256 uint32: magic, version, tokens, <|endoftext|>, zeros. For each
token, a byte with its length and its bytes follow. Karpathy, https://github.com/karpathy/llm.c, train_gpt2.py.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.base.files import replacing
from hipgpt.config.settings import NORM_EPSILON, ModelConfig
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.gpt.checkpoint import load_model

MODEL_MAGIC, MODEL_VERSION = 20240326, 3
TOKENIZER_MAGIC, TOKENIZER_VERSION = 20240328, 2
HEADER_WORDS = 256
VOCABULARY_MULTIPLE = 128
LONGEST_TOKEN = 255
OF_BLOCKS = (
    "attention_norm.gamma", "attention_norm.beta", "qkv.weight", "qkv.bias", "projection.weight", "projection.bias",
    "mlp_norm.gamma", "mlp_norm.beta", "mlp_in.weight", "mlp_in.bias", "mlp_out.weight", "mlp_out.bias",
)  # fmt: skip


def export_llmc(run: Path, tokenizer: Tokenizer, folder: Path) -> list[Path]:
    """Write model.bin and tokenizer.bin, and return their paths.

    Raises UserError, with all reasons, if llm.c cannot express the model.
    """
    model, arrays = load_model(run / "checkpoints" / "best.safetensors", tokenizer.sha256)
    tokens = [tokenizer.token_bytes(index) for index in range(tokenizer.vocab_size)]
    if reasons := [*_obstacles(model), *_obstacles_of_tokens(tokens)]:
        raise UserError(f"{run.name}: llm.c cannot express this model: {'; '.join(reasons)}; export it --to hf instead")
    with replacing(folder / "model.bin") as file:
        padded = -(-model.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        sizes = (model.context_length, model.vocab_size, model.num_layers, model.num_heads, model.embed_dim, padded)
        file.write(_header("<i4", MODEL_MAGIC, MODEL_VERSION, *sizes))
        for array in _weights(model, arrays, padded):
            file.write(np.ascontiguousarray(array, "<f4").data)
    with replacing(folder / "tokenizer.bin") as file:
        file.write(_header("<u4", TOKENIZER_MAGIC, TOKENIZER_VERSION, len(tokens), tokenizer.end_of_text))
        file.write(b"".join(bytes([len(token)]) + token for token in tokens))
    return [folder / "model.bin", folder / "tokenizer.bin"]


def _obstacles(model: ModelConfig) -> Iterator[str]:
    required = {"tie_embeddings": True, "output_bias": False, "activation": "gelu", "mlp_dim": 4 * model.embed_dim}
    required |= {"architecture": "gpt2", "norm_epsilon": NORM_EPSILON}
    for key, value in required.items():
        if getattr(model, key) != value:
            yield f"model.{key} is {getattr(model, key)}, llm.c has {value}"


def _obstacles_of_tokens(tokens: list[bytes]) -> Iterator[str]:
    odd = [index for index, token in enumerate(tokens) if not 0 < len(token) <= LONGEST_TOKEN]
    if odd:
        yield f"token {odd[0]} has {len(tokens[odd[0]])} bytes, llm.c allows 1 to {LONGEST_TOKEN}"


def _header(dtype: str, *words: int) -> bytes:
    header = np.zeros(HEADER_WORDS, dtype)
    header[: len(words)] = words
    return header.tobytes()


def _weights(
    model: ModelConfig, arrays: Mapping[str, NDArray[np.float32]], padded: int
) -> Iterator[NDArray[np.floating[Any]]]:
    yield arrays["token_embedding.weight"]
    yield np.zeros((padded - model.vocab_size, model.embed_dim))
    yield arrays["position_embedding.weight"]
    for name in OF_BLOCKS:
        for i in range(model.num_layers):
            yield arrays[f"block{i}.{name}"]
    yield arrays["final_norm.gamma"]
    yield arrays["final_norm.beta"]
