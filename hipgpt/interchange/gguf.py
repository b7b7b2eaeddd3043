"""Write a run as a GGUF file for llama.cpp and the programs built on it: weights and the tokenizer.

Names, keys and tensor layouts are those of the architectures of the same names in llama.cpp, whose package gguf rounds
the weights and writes the file.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.errors import UserError
from hipgpt.base.files import replacing
from hipgpt.config.settings import ModelConfig
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokenizer.write_formats import spell
from hipgpt.gpt.checkpoint import load_model
from hipgpt.gpt.parameters import linears
from hipgpt.interchange.huggingface import with_gpt2_head

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

WHOLE = {
    "token_embedding.weight": "token_embd.weight",
    "position_embedding.weight": "position_embd.weight",
    "final_norm.gamma": "output_norm.weight",
    "final_norm.beta": "output_norm.bias",
    "output.weight": "output.weight",
}
LINEAR = {"qkv": "attn_qkv", "projection": "attn_output", "mlp_in": "ffn_up", "mlp_out": "ffn_down"}
NORMS = {"attention_norm": "attn_norm", "mlp_norm": "ffn_norm"}
LLAMA_LINEAR = {
    "qkv": ("attn_q", "attn_k", "attn_v"),
    "projection": ("attn_output",),
    "mlp_in": ("ffn_gate", "ffn_up"),
    "mlp_out": ("ffn_down",),
}
LLAMA_NORMS = {**NORMS, "query_norm": "attn_q_norm", "key_norm": "attn_k_norm"}
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}  # by type of weights
PRE_TOKENIZERS = {"gpt2": "gpt-2", "qwen2": "qwen2", "smollm": "smollm"}  # our name of a pattern -> llama.cpp's


def export_gguf(run: Path, tokenizer: Tokenizer, folder: Path, weights: str = "f32") -> list[Path]:
    """Write model.gguf, or model-<weights>.gguf if they are not f32, and return its path.

    weights: one of FILE_TYPES. Raises UserError, with every reason, if llama.cpp cannot express the model, or if the
    package gguf is missing.
    """
    try:
        import gguf
    except ImportError as error:
        raise UserError("the package gguf is missing, but this format needs it; pip install -e '.[gguf]'") from error
    model, arrays = load_model(run / "checkpoints" / "best.safetensors", tokenizer.sha256)
    if reasons := _obstacles(model, tokenizer):
        raise UserError(f"{run.name}: llama.cpp cannot express this model: {'; '.join(reasons)}; export it --to hf")
    arrays = with_gpt2_head(model, arrays)
    target = folder / ("model.gguf" if weights == "f32" else f"model-{weights}.gguf")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="writing-") as scratch:
        written = Path(scratch) / "model.gguf"
        writer = gguf.GGUFWriter(written, model.architecture)
        writer.add_file_type(gguf.LlamaFileType[FILE_TYPES[weights]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_sizes(writer, run.name, model)
        _add_tokenizer(writer, tokenizer)
        for theirs, array in tensors(model, arrays).items():
            kind = stored_type(theirs, array, weights)
            writer.add_tensor(theirs, gguf.quants.quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with replacing(target) as file, open(written, "rb") as source:
            shutil.copyfileobj(source, file)
    return [target]


def stored_type(theirs: str, array: NDArray[np.float32], weights: str) -> "GGMLQuantizationType":
    """Return the type of a tensor in a file of such weights, as llama.cpp's converter chooses it.

    Vectors and positions stay f32. Matrices whose rows are not whole blocks of the type are f16.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if array.ndim == 1 or theirs == WHOLE["position_embedding.weight"]:
        return GGMLQuantizationType.F32
    kind = GGMLQuantizationType[weights.upper()]
    values, _ = GGML_QUANT_SIZES[kind]
    return GGMLQuantizationType.F16 if array.shape[1] % values else kind


def tensors(model: ModelConfig, arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the weights by llama.cpp's names. Both store linear weights as (out, in)."""
    if model.architecture == "gpt2":
        return {theirs: arrays[ours] for ours, theirs in tensor_names(model.num_layers).items()}
    found = {theirs: arrays[ours] for ours, theirs in WHOLE.items() if ours in arrays}
    for i in range(model.num_layers):
        for layer in linears(model):
            parts = np.split(arrays[f"block{i}.{layer.name}.weight"], np.cumsum(layer.matrices)[:-1])
            for theirs, part in zip(LLAMA_LINEAR[layer.name], parts, strict=True):
                interleaves = model.architecture == "llama" and theirs in ("attn_q", "attn_k")
                part = interleaved(part, model.head_channels) if interleaves else part
                found[f"blk.{i}.{theirs}.weight"] = np.ascontiguousarray(part)
        for ours, theirs in LLAMA_NORMS.items():
            if f"block{i}.{ours}.gamma" in arrays:
                found[f"blk.{i}.{theirs}.weight"] = arrays[f"block{i}.{ours}.gamma"]
    return found


def interleaved(weight: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Return the rows of queries or keys in llama.cpp's order: for "llama" it pairs channels 2i and 2i + 1."""
    heads = weight.reshape(-1, 2, channels // 2, weight.shape[1])
    return heads.swapaxes(1, 2).reshape(weight.shape)


def tensor_names(num_layers: int) -> dict[str, str]:
    """Return llama.cpp's name of each weight of a GPT-2."""
    names = dict(WHOLE)
    for i in range(num_layers):
        for ours, theirs in LINEAR.items():
            names |= {f"block{i}.{ours}.{part}": f"blk.{i}.{theirs}.{part}" for part in ("weight", "bias")}
        for ours, theirs in NORMS.items():
            names |= {
                f"block{i}.{ours}.gamma": f"blk.{i}.{theirs}.weight",
                f"block{i}.{ours}.beta": f"blk.{i}.{theirs}.bias",
            }
    return names


def _obstacles(model: ModelConfig, tokenizer: Tokenizer) -> list[str]:
    found = []
    if model.activation in ("relu", "relu2"):
        found.append(f"model.activation is {model.activation}, its {model.architecture} has gelu")
    if tokenizer.pattern not in PRE_TOKENIZERS:
        known = " or ".join(PRE_TOKENIZERS)
        found.append(f"tokenizer.pattern is {tokenizer.pattern}, which differs there; it has {known}")
    if tokenizer.ignore_merges or tokenizer.whole:
        found.append("the tokenizer has tokens that no merges make")
    return found


def _add_sizes(writer: "GGUFWriter", name: str, model: ModelConfig) -> None:
    writer.add_name(name)
    writer.add_vocab_size(model.vocab_size)
    writer.add_context_length(model.context_length)
    writer.add_embedding_length(model.embed_dim)
    writer.add_block_count(model.num_layers)
    writer.add_head_count(model.num_heads)
    writer.add_feed_forward_length(model.mlp_dim)
    if not model.parts.rotary:
        writer.add_layer_norm_eps(model.norm_epsilon)
        return
    writer.add_layer_norm_rms_eps(model.norm_epsilon)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.head_channels)
    writer.add_value_length(model.head_channels)
    writer.add_rope_dimension_count(model.head_channels)
    writer.add_rope_freq_base(model.rope_base)


def _add_tokenizer(writer: "GGUFWriter", tokenizer: Tokenizer) -> None:
    from gguf import TokenType

    names = [f"[UNUSED{index}]" for index in range(tokenizer.vocab_size)]
    types = [TokenType.UNUSED] * len(names)
    for index in tokenizer.ids:
        names[index], types[index] = spell(tokenizer.token_bytes(index)), TokenType.NORMAL
    for content, index in tokenizer.specials:
        names[index], types[index] = content, TokenType.CONTROL
    pieces = [names[index] for index in tokenizer.ids]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZERS[tokenizer.pattern])
    writer.add_token_list(names)
    writer.add_token_types(types)
    writer.add_token_merges([f"{pieces[left]} {pieces[right]}" for left, right in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(False)
