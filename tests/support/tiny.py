"""A model small enough to compute in a second way: its shape, weights whose predictions differ, tokenizer, logits."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train
from hipgpt.gpt.activations import activations
from hipgpt.gpt.checkpoint import save_checkpoint, write_arena
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors, parameters
from support import reference
from support.rounding import Rounded

WITHOUT_INTEROP = "needs pip install -e '.[interop]'"
TEXT = "".join(f"Enter Falstaff, number {n}: to be, or not to be? élan 語!\n" for n in range(200)).encode()
MODEL = ModelConfig(
    vocab_size=300,
    embed_dim=12,
    num_layers=2,
    num_heads=3,
    mlp_dim=20,
    context_length=8,
    activation="gelu",
    tie_embeddings=False,
    output_bias=True,
)
LLAMA = dataclasses.replace(MODEL, architecture="llama", activation="swiglu", output_bias=False)
QWEN3 = dataclasses.replace(
    LLAMA, architecture="qwen3", num_heads=4, num_kv_heads=2, head_dim=6, tie_embeddings=True, rope_base=1e6,
    norm_epsilon=1e-6,
)  # fmt: skip


@functools.cache
def tokenizer() -> Tokenizer:
    return train([TEXT], MODEL.vocab_size)


def draw_arrays(model: ModelConfig = MODEL, seed: int = 0) -> dict[str, np.ndarray]:
    """Return weights by name, every one of them away from its initial value, so that none can be forgotten.

    Large embeddings keep each LayerNorm from magnifying rounding errors: the bounds of `logits` stay far below them.
    """
    random = np.random.default_rng(seed)
    std = {field.name: 4.0 if "embedding" in field.name else 0.1 for field in parameters(model)}
    return {f.name: random.normal(f.mean, std[f.name], f.shape).astype(np.float32) for f in parameters(model)}


def place(device: Device, model: ModelConfig, arrays: Mapping[str, np.ndarray]) -> ParameterTensors:
    """Return the weights on the device."""
    arena = Arena(device, "weights", parameters(model))
    write_arena(device, arena, arrays)
    return ParameterTensors(arena, model)


def save_run(
    results: Path, name: str = "default", model: ModelConfig = MODEL, seed: int = 0, other: Tokenizer | None = None
) -> Path:
    """Write the files of a run that the stages before export write. Return its folder."""
    folder, used = results / "runs" / name, other or tokenizer()
    metadata = {"model": asdict(model), "step": 7, "tokenizer_sha256": used.sha256}
    save_checkpoint(folder / "checkpoints" / "best.safetensors", draw_arrays(model, seed), metadata)
    (folder / "model").mkdir()
    used.save(folder / "model" / "tokenizer.json")
    (folder / "model" / "README.md").write_text("a model card\n")
    _save_tables(folder, model, seed)
    return folder


def _save_tables(folder: Path, model: ModelConfig, seed: int) -> None:
    corpus = {"corpus": "plays", "source": "plays/*.txt", "sha256": "ab" * 32}
    record = {
        "config": {
            "device": "cpu",
            "model": asdict(model),
            "training": {"steps": 7, "seed": seed, "precision": "float32"},
        },
        "device": "cpu x86_64 (1 thread)",
        "code_sha256": "0123456789abcdef",
        "corpus": corpus,
        "tokenizer_sha256": tokenizer().sha256,
        "tokens_sha256": "cd" * 32,
        "pretrained_sha256": None,
        "git_commit": None,
        "versions": {"python": "3.11.7"},
    }
    (folder / "run.json").write_text(json.dumps(record))
    tables = {
        "metrics.csv": "step,tokens_seen,loss_nats_per_token,gradient_norm,learning_rate\n7,56,5.5,1.0,0.001\n",
        "validation.csv": f"step,tokens_seen,loss_nats_per_token,bits_per_byte\n3,24,5.6,3.2\n7,56,{5.5 - seed},3.1\n",
        "throughput.csv": "step,step_seconds,tokens_per_second\n3,0.1,80\n5,0.1,70\n7,0.1,90\n",
        "evaluation.csv": "predictor,loss_nats_per_token,perplexity,bits_per_byte,next_token_accuracy,top5_accuracy,"
        f"tokens,bytes\nmodel,{5.25 - seed},190,{3 - seed},0.125,0.5,90,200\nlzma,,,2.5,,,,200\n",
    }
    for name, text in tables.items():
        (folder / name).write_text(text)


def network_logits(device: Device, model: ModelConfig, weights: ParameterTensors, tokens: Sequence[int]) -> np.ndarray:
    """Return the logits (S, V) f32 of one forward pass over all tokens at once."""
    S = len(tokens)
    inputs = Arena(device, "inputs", [Field("tokens", (1, S), DType.I32), Field("starts", (1,), DType.I32)])
    saved = Arena(device, "activations", activations(model, 1, S))
    plan = Plan(device, "whole", [weights.arena.flat, inputs.flat])
    network = Network(model, weights, saved, inputs["tokens"], inputs["starts"])
    network.forward(plan)
    network.logits(plan)
    device.write(inputs["tokens"], np.array([tokens], np.int32))
    plan.run()
    return device.read(saved["logits"])


def logits(model: ModelConfig, arrays: Mapping[str, np.ndarray], tokens: Sequence[int]) -> Rounded:
    """Return the logits (S, V) in float64 with the bound that any f32 evaluation of the formulas keeps.

    With more tokens than the context length T, each token sees the last T: attention in a sliding window.
    """
    w = {name: Rounded(array) for name, array in arrays.items()}
    S, E, H, K, D = len(tokens), model.embed_dim, model.num_heads, model.kv_heads, model.head_channels
    epsilon, parts = Rounded(np.float32(model.norm_epsilon)), model.parts
    seen = np.tri(S, dtype=bool) & ~np.tri(S, k=-model.context_length, dtype=bool)

    def linear(x: Rounded, name: str) -> Rounded:
        return reference.matmul_forward(x, w[f"{name}.weight"], w.get(f"{name}.bias"))["y"]

    def norm(x: Rounded, name: str) -> Rounded:
        if parts.rms_norm:
            return reference.rmsnorm_forward(x, None, w[f"{name}.gamma"], epsilon)["y"]
        return reference.layernorm_forward(x, None, w[f"{name}.gamma"], w[f"{name}.beta"], epsilon)["y"]

    def heads_of(x: Rounded, block: str) -> Rounded:
        """Return qkv (1, S, 3, H, D)."""
        if not parts.rotary:
            return _shaped(x, 1, S, 3, H, D)
        packed = _shaped(x, S, H + 2 * K, D)
        if parts.head_norm:
            gammas = w[f"{block}.query_norm.gamma"], w[f"{block}.key_norm.gamma"]
            packed = reference.head_norm_forward(packed, *gammas, epsilon, H)["y"]
        rotations = reference.rotation_table(np.zeros(1, int), S, D, Rounded(model.rope_base))["rotations"]
        return reference.rotary_forward(_shaped(packed, 1, S, H + 2 * K, D), rotations, H, H + 2 * K)["qkv"]

    def attention(qkv: Rounded) -> Rounded:
        return _shaped(reference.attention(qkv, seen)[0], S, H * D)

    def mlp(x: Rounded, block: str) -> Rounded:
        if parts.gated:
            return reference.swiglu_forward(_shaped(linear(x, f"{block}.mlp_in"), S, 2, model.mlp_dim))["y"]
        mlp_in = getattr(reference, f"matmul_{model.activation}_forward")
        return mlp_in(x, w[f"{block}.mlp_in.weight"], w[f"{block}.mlp_in.bias"])["y"]

    x = w["token_embedding.weight"][list(tokens)]
    if not parts.rotary:
        x = x + w["position_embedding.weight"][:S]
    for i in range(model.num_layers):
        block = f"block{i}"
        qkv = heads_of(linear(norm(x, f"{block}.attention_norm"), f"{block}.qkv"), block)
        x = x + linear(attention(qkv), f"{block}.projection")
        x = x + linear(mlp(norm(x, f"{block}.mlp_norm"), block), f"{block}.mlp_out")
    if model.tie_embeddings:
        w["output.weight"] = w["token_embedding.weight"]
    assert x.value.shape == (S, E)
    return linear(norm(x, "final_norm"), "output")


def _shaped(values: Rounded, *shape: int) -> Rounded:
    return Rounded(values.value.reshape(shape), values.error.reshape(shape))
