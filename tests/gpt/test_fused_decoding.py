"""A decoder whose blocks are one launch, or its tokens: the same numbers as an op after another, but for roundings."""

import dataclasses

import numpy as np
import pytest
from support.devices import null_gpu, on_a_hopper, skip_without, without_fused_ops
from support.host_draws import drawn_by_the_host
from support.recorded_model import write_bf16_values

from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.device import Device
from hipgpt.compute.fused_ops import DECODE_BLOCKS, DECODE_TOKENS
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig, SamplingConfig
from hipgpt.gpt.activations import kv_cache
from hipgpt.gpt.decoder import Decoder
from hipgpt.gpt.fused_decoding import stacked
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
    "heads of 256 channels": gpt2(500, 512, 2, 2, 1024, 150),
    "of GPT-2's width": gpt2(1000, 768, 3, 12, 3072, 300),
    "the widest": gpt2(1000, 1024, 2, 16, 4096, 64),
}


NARROW = {name: MODELS[name] for name in ("small", "relu", "relu2")} | {  # with their tokens in one launch
    "256 channels": gpt2(517, 256, 1, 4, 256, 70),
    "an output bias": dataclasses.replace(SMALL, vocab_size=5000, tie_embeddings=False, output_bias=True),
    "one head, a long context": gpt2(90, 128, 1, 1, 256, 1100),
}
SAMPLING = {
    "greedy": SamplingConfig(0, temperature=0),
    "all": SamplingConfig(0, seed=3),
    "top-k": SamplingConfig(0, top_k=20, temperature=0.8),
    "top-p and a penalty": SamplingConfig(0, top_k=300, top_p=0.9, repetition_penalty=1.3),
}


def weights_of(model: ModelConfig, act: DType) -> list[Field]:
    return [dataclasses.replace(field, dtype=act) for field in parameters(model)]


def decoder_of(device: Device, model: ModelConfig, sequences: int, act: DType) -> Decoder:
    """A decoder with weights that bf16 holds exactly, and under which every term matters."""
    arena = Arena(device, "weights", weights_of(model, act))
    write_bf16_values(device, arena)
    return Decoder(device, model, ParameterTensors(arena, model), sequences)


def launches(plan: Plan) -> list[str]:
    return [launch.op.name for launch in plan.launches]


def decoders_of(device: Device, model: ModelConfig, sequences: int) -> tuple[Decoder, Decoder, Decoder]:
    """One in f32 on the CPU, and two in bf16 on the device: with its ops for several layers, and without."""
    fused = decoder_of(device, model, sequences, DType.BF16)
    with without_fused_ops(device):
        separate = decoder_of(device, model, sequences, DType.BF16)
    assert "decode_blocks" not in launches(separate._plan)
    return decoder_of(CpuDevice(2), model, sequences, DType.F32), fused, separate


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
    decoders = decoders_of(device, MODELS[name], sequences)
    assert "decode_blocks" in launches(decoders[1]._plan)
    exact, fused, separate = (logits_of(decoder, 30) for decoder in decoders)
    one, many = (np.sqrt(((logits - exact) ** 2).mean(axis=2)).max() for logits in (fused, separate))
    assert one <= 1.2 * many  # both round activations to bf16; one rounds fewer of them, in another order


def texts_of(decoder: Decoder) -> list[list[int]]:
    """Texts of different lengths."""
    generator = np.random.default_rng(5)
    return [generator.integers(decoder.model.vocab_size, size=3 + 2 * b).tolist() for b in range(decoder.sequences)]


@on_a_hopper
@pytest.mark.parametrize("sequences", [1, 3, 14])
@pytest.mark.parametrize("name", NARROW)
def test_tokens_in_one_launch_are_as_close_to_f32(device, name, sequences):
    skip_without(device, DECODE_TOKENS)
    steps, (exact, fused, separate) = 4, decoders_of(device, NARROW[name], sequences)
    assert launches(fused._steps_plan(1)) == ["decode_tokens"]
    for decoder in (exact, fused, separate):
        decoder.restart(texts_of(decoder))
    fused.sample_by(SAMPLING["all"])
    errors = []
    while fused._positions_left() >= steps:
        for tokens in fused.draw(steps):
            exact.append(tokens)
            separate.append(tokens)
        errors.append([((decoder.logits() - exact.logits()) ** 2).mean(axis=1) for decoder in (fused, separate)])
    one, many = np.sqrt(np.max(errors, axis=(0, 2)))
    assert one <= 1.2 * many  # both round activations to bf16; one rounds fewer of them, in another order


@on_a_hopper
@pytest.mark.parametrize("way", SAMPLING)
@pytest.mark.parametrize("name", ["small", "an output bias"])
def test_tokens_in_one_launch_are_drawn_as_the_host_would(device, name, way):
    """A draw within the rounding of f32 of a border between two tokens could differ; these texts have none."""
    skip_without(device, DECODE_TOKENS)
    decoder, sampling = decoder_of(device, NARROW[name], 2, DType.BF16), SAMPLING[way]
    decoder.restart(texts_of(decoder))
    decoder.sample_by(sampling, stream=7)
    for number in range(decoder._positions_left()):
        host = [
            drawn_by_the_host(logits, window, sampling, 7 + b, number)
            for b, (logits, window) in enumerate(zip(decoder.logits(), decoder.windows, strict=True))
        ]
        assert decoder.draw() == [host]


@on_a_hopper
@pytest.mark.parametrize("way", SAMPLING)
@pytest.mark.parametrize("sequences", [1, 14])
def test_many_tokens_in_one_launch_are_those_of_a_launch_for_each(device, way, sequences):
    skip_without(device, DECODE_TOKENS)
    found = []
    for steps in (1, 17, 40):
        decoder = decoder_of(device, NARROW["an output bias"], sequences, DType.BF16)
        decoder.restart([[b + 1] for b in range(sequences)])
        decoder.sample_by(SAMPLING[way])
        tokens: list[list[int]] = []
        while left := min(steps, decoder._positions_left()):
            tokens += decoder.draw(left)
        found.append((tokens, decoder.logits().tobytes()))
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == 39


@on_a_hopper
def test_one_launch_gives_the_same_bytes_again(device):
    skip_without(device, DECODE_BLOCKS)
    first, second = (decoder_of(device, MODELS["of GPT-2's width"], 2, DType.BF16) for _ in range(2))
    before = logits_of(first, 60).tobytes()
    assert before == logits_of(first, 60).tobytes() == logits_of(second, 60).tobytes()


def test_the_ops_get_the_weights_of_each_block():
    device, model, L = CpuDevice(1), MODELS["heads of 128 channels"], 3
    arena = Arena(device, "weights", weights_of(model, DType.BF16))
    for field in arena.fields:
        device.write(
            arena[field.name], np.random.default_rng(len(field.name)).random(field.shape).astype(DType.BF16.numpy)
        )
    weights, cache = ParameterTensors(arena, model), Arena(device, "cache", kv_cache(model, 1, DType.BF16))
    of = stacked(model, weights, cache, sequences=1)
    assert of is not None
    for rows, names in (
        (of.matrices, ("qkv.weight", "projection.weight", "mlp_in.weight", "mlp_out.weight")),
        (
            of.vectors,
            ("attention_norm.gamma", "attention_norm.beta", "qkv.bias", "projection.bias",
             "mlp_norm.gamma", "mlp_norm.beta", "mlp_in.bias", "mlp_out.bias"),
        ),
    ):  # fmt: skip
        for block, row in enumerate(device.read(rows)):
            parts = [device.read(weights[f"block{block}.{name}"]).ravel() for name in names]
            assert np.concatenate(parts).tobytes() == row.tobytes()
    assert of.cache.shape == (L, 2, 1, 2, 150, 128)


def recorded(model: ModelConfig, device: NullDevice, sequences: int = 1, act: DType = DType.BF16) -> Decoder:
    arena = Arena(device, "weights", weights_of(model, act))
    return Decoder(device, model, ParameterTensors(arena, model), sequences)


@pytest.mark.parametrize("name", MODELS)
def test_the_blocks_of_a_gpt2_are_one_launch(name):
    decoder = recorded(MODELS[name], null_gpu())
    decode = ["embedding_forward", "decode_blocks", "matmul_forward"]
    assert launches(decoder._plan) == decode
    step = ["decode_tokens"] if name in NARROW else ["draw_token", *decode]
    assert launches(decoder._steps_plan(1)) == step


@pytest.mark.parametrize(
    ("decoder", "tokens"),
    [
        (lambda: recorded(SMALL, null_gpu(), sequences=9), True),
        (lambda: recorded(SMALL, null_gpu(), act=DType.F32), False),
        (lambda: recorded(MODELS["of GPT-2's width"], null_gpu(multiprocessors=78)), False),
        (lambda: recorded(SMALL, null_gpu(multiprocessors=8)), False),
        (lambda: recorded(dataclasses.replace(SMALL, embed_dim=120), null_gpu()), False),
        (lambda: recorded(dataclasses.replace(SMALL, mlp_dim=200), null_gpu()), False),
        (lambda: recorded(dataclasses.replace(SMALL, embed_dim=2048, mlp_dim=8192, num_heads=16), null_gpu()), False),
        (lambda: recorded(dataclasses.replace(SMALL, architecture="llama", activation="swiglu"), null_gpu()), False),
        (lambda: recorded(SMALL, null_gpu("sm_80")), False),
    ],
    ids=["nine sequences", "f32", "a card of 78 multiprocessors", "a card of 8", "120 channels", "200 in the MLP",
         "a wide model", "llama", "another GPU"],
)  # fmt: skip
def test_any_other_decoder_takes_an_op_after_another(decoder, tokens):
    decoder = decoder()
    assert "decode_blocks" not in launches(decoder._plan)
    assert ("decode_tokens" in launches(decoder._steps_plan(1))) is tokens


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"vocab_size": 9000}, id="a vocabulary for which its memory has no room"),
        pytest.param({"num_layers": 6}, id="too many blocks for its memory"),
        pytest.param({"num_heads": 16}, id="heads of 8 channels"),
        pytest.param({"mlp_dim": 768}, id="48 channels of the MLP for a thread block"),
    ],
)
def test_a_cluster_serves_no_other_model(other):
    decoder = recorded(dataclasses.replace(SMALL, **other), null_gpu())
    assert "decode_blocks" in launches(decoder._plan)
    assert "draw_token" in launches(decoder._steps_plan(1))


def test_a_gpu_takes_more_sequences_an_op_after_another():
    assert "draw_token" in launches(recorded(SMALL, null_gpu(), sequences=15)._steps_plan(1))
