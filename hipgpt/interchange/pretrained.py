"""Read the weights of a Hugging Face directory, and map their names to ours: GPT-2, Llama and Qwen3."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from hipgpt.base.errors import UserError
from hipgpt.base.files import check_regular
from hipgpt.config.huggingface import INDEX, weight_files
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.checkpoint import check_finite
from hipgpt.gpt.parameters import linears, parameters

# our name -> GPT-2's; its Conv1D layers store weights as (in, out), ours are (out, in)
LINEAR = {"qkv": "attn.c_attn", "projection": "attn.c_proj", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"}
NORMS = {"attention_norm": "ln_1", "mlp_norm": "ln_2"}
LLAMA_LINEAR = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "projection": ("self_attn.o_proj",),
    "mlp_in": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp_out": ("mlp.down_proj",),
}
LLAMA_NORMS = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
}
PREFIXES, HEAD = {"gpt2": "transformer.", "llama": "model.", "qwen3": "model."}, "lm_head.weight"
CLASSES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # masks and wavelengths that older files contain
READABLE = ("F32", "F16", "BF16")


class WeightName(NamedTuple):
    """Our name of a weight and its name in a file.

    transposed: whether it is stored transposed there. rows: first and last of our rows, where the file has these alone.
    """

    ours: str
    theirs: str
    transposed: bool = False
    rows: tuple[int, int] | None = None

    def of(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the file's array of our weight."""
        part = array if self.rows is None else array[self.rows[0] : self.rows[1]]
        return np.ascontiguousarray(part.T if self.transposed else part)


def weight_names(model: ModelConfig) -> list[WeightName]:
    """Return the names of all weights of a model without output bias, in its architecture's file."""
    names = list(_gpt2_names(model.num_layers) if model.architecture == "gpt2" else llama_names(model))
    return names if model.tie_embeddings else [*names, WeightName("output.weight", HEAD)]


def _gpt2_names(num_layers: int) -> Iterator[WeightName]:
    yield WeightName("token_embedding.weight", "transformer.wte.weight")
    yield WeightName("position_embedding.weight", "transformer.wpe.weight")
    for i in range(num_layers):
        for ours, theirs in LINEAR.items():
            yield WeightName(f"block{i}.{ours}.weight", f"transformer.h.{i}.{theirs}.weight", transposed=True)
            yield WeightName(f"block{i}.{ours}.bias", f"transformer.h.{i}.{theirs}.bias")
        for ours, theirs in NORMS.items():
            yield WeightName(f"block{i}.{ours}.gamma", f"transformer.h.{i}.{theirs}.weight")
            yield WeightName(f"block{i}.{ours}.beta", f"transformer.h.{i}.{theirs}.bias")
    yield WeightName("final_norm.gamma", "transformer.ln_f.weight")
    yield WeightName("final_norm.beta", "transformer.ln_f.bias")


def llama_names(model: ModelConfig) -> Iterator[WeightName]:
    """Yield the names of a Llama or Qwen3: its file has a weight for each matrix of a linear layer."""
    yield WeightName("token_embedding.weight", "model.embed_tokens.weight")
    for i in range(model.num_layers):
        for layer in linears(model):
            ends = list(itertools.accumulate(layer.matrices))
            for theirs, first, last in zip(LLAMA_LINEAR[layer.name], [0, *ends], ends, strict=False):
                yield WeightName(
                    f"block{i}.{layer.name}.weight", f"model.layers.{i}.{theirs}.weight", rows=(first, last)
                )
        for ours, theirs in LLAMA_NORMS.items():
            if model.parts.head_norm or not theirs.startswith("self_attn"):
                yield WeightName(f"block{i}.{ours}.gamma", f"model.layers.{i}.{theirs}.weight")
    yield WeightName("final_norm.gamma", "model.norm.weight")


def read_weights(folder: Path, model: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """Return the weights with our names and layouts, f32.

    Raises UserError as `check_weights` does, and for a weight that is not finite.
    """
    arrays = {field.name: np.empty(field.shape, np.float32) for field in parameters(model)}
    with _opened(folder) as files:
        for name, stored in _check_shapes(folder, files, model).items():
            array = stored.read()
            check_finite(stored.path, {stored.name: array})
            first, last = name.rows or (0, arrays[name.ours].shape[0])
            arrays[name.ours][first:last] = array.T if name.transposed else array
    return arrays


def check_weights(folder: Path, model: ModelConfig) -> None:
    """Compare the table of shapes in the files with the model. No weight is read.

    model: as hipgpt.config.huggingface.model_section describes it. Raises UserError, naming the weight, if a weight is
    missing or unknown, or has another shape or type.
    """
    with _opened(folder) as files:
        _check_shapes(folder, files, model)


class Stored(NamedTuple):
    """A weight in a file."""

    path: Path
    file: Any
    name: str

    @property
    def kind(self) -> tuple[str, tuple[int, ...]]:
        part = self.file.get_slice(self.name)
        return part.get_dtype(), tuple(part.get_shape())

    def read(self) -> NDArray[Any]:
        """Return the values; bf16, which NumPy lacks, as f32: it is the upper half of one."""
        dtype, shape = self.kind
        if dtype != "BF16":
            array: NDArray[Any] = self.file.get_tensor(self.name)
            return array
        with open(self.path, "rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            first, last = json.loads(file.read(header_bytes))[self.name]["data_offsets"]
            file.seek(8 + header_bytes + first)
            upper = np.frombuffer(file.read(last - first), "<u2")
        return (upper.astype(np.uint32) << 16).view(np.float32).reshape(shape)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[list[Stored]]:
    """Yield every weight of the files of a directory."""
    with contextlib.ExitStack() as stack:
        found = []
        for path in (folder / name for name in weight_files(folder) if name != INDEX):
            try:
                check_regular(path)
                file = stack.enter_context(safe_open(path, framework="numpy"))
            except (SafetensorError, FileNotFoundError) as error:
                raise UserError(f"{path}: not a whole safetensors file ({error}); download it again") from error
            found += [Stored(path, file, name) for name in file.keys()]  # noqa: SIM118 (not a dict)
        try:
            yield found
        except SafetensorError as error:
            raise UserError(f"{folder}: not whole safetensors files ({error}); download them again") from error


def _check_shapes(folder: Path, files: list[Stored], model: ModelConfig) -> dict[WeightName, Stored]:
    """Return where each weight of the model is stored."""
    stored = {_full(one.name, model): one for one in files}
    names = weight_names(model)
    _check_names(folder, stored, names, model)
    shapes = {field.name: field.shape for field in parameters(model)}
    for name in names:
        one, expected = stored[name.theirs], shapes[name.ours]
        expected = expected if name.rows is None else (name.rows[1] - name.rows[0], *expected[1:])
        expected = expected[::-1] if name.transposed else expected
        dtype, shape = one.kind
        if dtype not in READABLE or shape != expected:
            raise UserError(
                f"{one.path}: {one.name}: got {dtype} {shape}, expected {' or '.join(READABLE)} "
                f"{expected} according to config.json; save the model as float32 with its own config.json"
            )
    return {name: stored[name.theirs] for name in names}


def _full(name: str, model: ModelConfig) -> str:
    """Return the name of a weight as the model with a head saves it. The model without a head omits the prefix."""
    prefix = PREFIXES[model.architecture]
    return name if name.startswith(prefix) or name == HEAD else prefix + name


def _check_names(folder: Path, stored: Mapping[str, Stored], names: list[WeightName], model: ModelConfig) -> None:
    expected = {name.theirs for name in names}
    missing = sorted(expected - stored.keys())
    unknown = sorted(name for name in stored.keys() - expected - {HEAD} if not name.endswith(BUFFERS))
    kind = model.parts.title
    for found, what in (
        (missing, "is missing"),
        (unknown, f"is not a weight of the {kind} that config.json describes"),
    ):
        if found:
            path = stored[found[0]].path if found[0] in stored else folder / weight_files(folder)[0]
            shown = stored[found[0]].name if found[0] in stored else found[0]
            raise UserError(
                f"{path}: {shown} {what}, {len(found)} in all; use a {CLASSES[model.architecture]} as "
                "save_pretrained writes it"
            )
