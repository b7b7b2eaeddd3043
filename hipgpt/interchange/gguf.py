"""Write a run as a GGUF file for llama.cpp and the programs built on it: weights in float32 and the tokenizer.

Names, keys and tensor layouts are those of the architecture "gpt2" of llama.cpp, whose package gguf writes the file.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hipgpt.base.errors import UserError
from hipgpt.base.files import replacing
from hipgpt.config.settings import NORM_EPSILON, ModelConfig
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.data.tokenizer.write_formats import spell
from hipgpt.gpt.checkpoint import load_model
from hipgpt.interchange.huggingface import with_gpt2_head

if TYPE_CHECKING:
    from gguf import GGUFWriter

WHOLE = {
    "token_embedding.weight": "token_embd.weight",
    "position_embedding.weight": "position_embd.weight",
    "final_norm.gamma": "output_norm.weight",
    "final_norm.beta": "output_norm.bias",
    "output.weight": "output.weight",
}
LINEAR = {"qkv": "attn_qkv", "projection": "attn_output", "mlp_in": "ffn_up", "mlp_out": "ffn_down"}
NORMS = {"attention_norm": "attn_norm", "mlp_norm": "ffn_norm"}
PRE_TOKENIZERS = {"gpt2": "gpt-2", "qwen2": "qwen2"}  # our name of a pattern -> llama.cpp's


def export_gguf(run: Path, tokenizer: Tokenizer, folder: Path) -> list[Path]:
    """Write model.gguf and return its path.

    Raises UserError, with every reason, if llama.cpp cannot express the model, or if the package gguf is missing.
    """
    try:
        import gguf
    except ImportError as error:
        raise UserError("the package gguf is missing, but this format needs it; pip install -e '.[interop]'") from error
    model, arrays = load_model(run / "checkpoints" / "best.safetensors", tokenizer.sha256)
    if reasons := _obstacles(model, tokenizer):
        raise UserError(f"{run.name}: llama.cpp cannot express this model: {'; '.join(reasons)}; export it --to hf")
    arrays = with_gpt2_head(model, arrays)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="writing-") as scratch:
        written = Path(scratch) / "model.gguf"
        writer = gguf.GGUFWriter(written, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.GPT2])
        _add_sizes(writer, run.name, model)
        _add_tokenizer(writer, tokenizer)
        for ours, theirs in tensor_names(model.num_layers).items():
            writer.add_tensor(theirs, arrays[ours])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with replacing(folder / "model.gguf") as file, open(written, "rb") as source:
            shutil.copyfileobj(source, file)
    return [folder / "model.gguf"]


def tensor_names(num_layers: int) -> dict[str, str]:
    """Return llama.cpp's name of each of our weights. Both store linear weights as (out, in)."""
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
    if model.activation != "gelu":
        found.append(f"model.activation is {model.activation}, its gpt2 has gelu")
    if tokenizer.pattern not in PRE_TOKENIZERS:
        known = " or ".join(PRE_TOKENIZERS)
        found.append(f"tokenizer.pattern is {tokenizer.pattern}, which differs there; it has {known}")
    if tokenizer.ignore_merges or tokenizer.whole:
        found.append("the tokenizer has tokens that no merges make")
    return found


def _add_sizes(writer: "GGUFWriter", name: str, model: ModelConfig) -> None:
    writer.add_name(name)
    writer.add_file_type(0)  # all float32
    writer.add_vocab_size(model.vocab_size)
    writer.add_context_length(model.context_length)
    writer.add_embedding_length(model.embed_dim)
    writer.add_block_count(model.num_layers)
    writer.add_head_count(model.num_heads)
    writer.add_feed_forward_length(model.mlp_dim)
    writer.add_layer_norm_eps(NORM_EPSILON)


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
