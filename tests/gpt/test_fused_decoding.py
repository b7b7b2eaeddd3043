"""A decoder whose blocks are one launch: the same numbers as those of an op after another, but for roundings."""

import dataclasses

import numpy as np
import pytest
from support.devices import null_gpu, on_a_hopper, skip_without, without_fused_ops
from support.recorded_model import write_bf16_values

from hipgpt.compute.backends import decode_blocks
from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.device import Device
from hipgpt.compute.fused_ops import DECODE_BLOCKS
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import kv_cache
from hipgpt.gpt.decoder import Decoder
from hipgpt.gpt.fused_decoding import fused_blocks
from hipgpt.gpt.parameters import ParameterTensors, parameters


def gpt2(*sizes: int) -> ModelConfig:
    """V, E, L, H, F, T."""
    return ModelConfig(*sizes, activation="gelu", tie_embeddings=True, output_bias=False)


SMALL = gpt2(500, 128, 2, 4, 256, 40)
MODELS = {
    "small": SMALL,
    "relu": dataclasses.replace(SMALL, activation="relu"),
    "relu2": dataclasses.replace(SMALL, activation="relu2"),
    "heads of 8 channels": dataclasses.replace(SMALL, num_heads=16),
    "heads of 128 channels": gpt2(500, 256, 3, 2, 1024, 150),
    "of GPT-2's width": gpt2(1000, 768, 3, 12, 3072, 300),
    "the widest": gpt2(1000, 1024, 2, 16, 4096, 64),
}


def weights_of(model: ModelConfig, act: DType) -> list[Field]:
    return [dataclasses.replace(field, dtype=act) for field in parameters(model)]


def decoder_of(device: Device, model: ModelConfig, sequences: int, act: DType) -> Decoder:
    """A decoder with weights that bf16 holds exactly, and under which every term matters."""
    arena = Arena(device, "weights", weights_of(model, act))
    write_bf16_values(device, arena)
    return Decoder(device, model, ParameterTensors(arena, model), sequences)


def launches(decoder: Decoder) -> list[str]:
    return [launch.op.name for launch in decoder._plan.launches]


def logits_of(decoder: Decoder, steps: int) -> np.ndarray:
    """The logits (steps, sequences, V) after texts of different lengths, and after each token more."""
    generator, V = np.random.default_rng(5), decoder.model.vocab_size
    texts = [generator.integers(V, size=3 + 4 * b).tolist() for b in range(decoder.sequences)]
    decoder.restart(texts)
    found = [decoder.logits()]
    for _ in range(steps - 1):
        decoder.append(generator.integers(V, size=decoder.sequences).tolist())
        found.append(decoder.logits())
    return np.stack(found)


@on_a_hopper
@pytest.mark.parametrize("sequences", [1, 3, 8])
@pytest.mark.parametrize("name", MODELS)
def test_one_launch_is_as_close_to_f32_as_many_are(device, name, sequences):
    skip_without(device, DECODE_BLOCKS)
    model, steps = MODELS[name], 30
    exact = logits_of(decoder_of(CpuDevice(2), model, sequences, DType.F32), steps)
    fused = decoder_of(device, model, sequences, DType.BF16)
    assert "decode_blocks" in launches(fused)
    with without_fused_ops(device):
        separate = decoder_of(device, model, sequences, DType.BF16)
    assert "decode_blocks" not in launches(separate)
    one, many = (
        np.sqrt(((logits_of(decoder, steps) - exact) ** 2).mean(axis=2)).max() for decoder in (fused, separate)
    )
    assert one <= 1.2 * many  # both round activations to bf16; one rounds fewer of them, in another order


@on_a_hopper
def test_one_launch_gives_the_same_bytes_again(device):
    skip_without(device, DECODE_BLOCKS)
    first, second = (decoder_of(device, MODELS["of GPT-2's width"], 2, DType.BF16) for _ in range(2))
    before = logits_of(first, 60).tobytes()
    assert before == logits_of(first, 60).tobytes() == logits_of(second, 60).tobytes()


def test_the_op_gets_the_weights_of_each_block():
    device, model, L = CpuDevice(1), MODELS["heads of 128 channels"], 3
    device.traits = dataclasses.replace(device.traits, workspaces={DECODE_BLOCKS: decode_blocks.workspace(132)})
    arena = Arena(device, "weights", weights_of(model, DType.BF16))
    for field in arena.fields:
        device.write(
            arena[field.name], np.random.default_rng(len(field.name)).random(field.shape).astype(DType.BF16.numpy)
        )
    weights, cache = ParameterTensors(arena, model), Arena(device, "cache", kv_cache(model, 1, DType.BF16))
    fused = fused_blocks(device, model, weights, cache, sequences=1)
    assert fused is not None
    for stacked, names in (
        (fused.matrices, ("qkv.weight", "projection.weight", "mlp_in.weight", "mlp_out.weight")),
        (
            fused.vectors,
            ("attention_norm.gamma", "attention_norm.beta", "qkv.bias", "projection.bias",
             "mlp_norm.gamma", "mlp_norm.beta", "mlp_in.bias", "mlp_out.bias"),
        ),
    ):  # fmt: skip
        for block, row in enumerate(device.read(stacked)):
            parts = [device.read(weights[f"block{block}.{name}"]).ravel() for name in names]
            assert np.concatenate(parts).tobytes() == row.tobytes()
    assert fused.cache.shape == (L, 2, 1, 2, 150, 128)


def recorded(model: ModelConfig, device: NullDevice, sequences: int = 1, act: DType = DType.BF16) -> list[str]:
    arena = Arena(device, "weights", weights_of(model, act))
    return launches(Decoder(device, model, ParameterTensors(arena, model), sequences))


@pytest.mark.parametrize("name", MODELS)
def test_the_blocks_of_a_gpt2_are_one_launch(name):
    assert recorded(MODELS[name], null_gpu()) == ["embedding_forward", "decode_blocks", "matmul_forward"]


@pytest.mark.parametrize(
    "launched",
    [
        lambda: recorded(SMALL, null_gpu(), sequences=9),
        lambda: recorded(SMALL, null_gpu(), act=DType.F32),
        lambda: recorded(MODELS["of GPT-2's width"], null_gpu(multiprocessors=78)),
        lambda: recorded(dataclasses.replace(SMALL, embed_dim=120), null_gpu()),
        lambda: recorded(dataclasses.replace(SMALL, mlp_dim=200), null_gpu()),
        lambda: recorded(dataclasses.replace(SMALL, embed_dim=2048, mlp_dim=8192, num_heads=16), null_gpu()),
        lambda: recorded(dataclasses.replace(SMALL, architecture="llama", activation="swiglu"), null_gpu()),
        lambda: recorded(SMALL, null_gpu("sm_80")),
    ],
    ids=["nine sequences", "f32", "a card of 78 multiprocessors", "120 channels", "200 in the MLP", "a wide model",
         "llama", "another GPU"],
)  # fmt: skip
def test_any_other_decoder_takes_an_op_after_another(launched):
    assert "decode_blocks" not in launched()
