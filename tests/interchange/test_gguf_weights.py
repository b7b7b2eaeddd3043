"""GGUF files with rounded weights: gguf's own reader finds each of them within the error that its type allows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import tiny

from hipgpt.cli.export import WEIGHTS
from hipgpt.interchange.gguf import FILE_TYPES, export_gguf, tensors
from hipgpt.interchange.huggingface import with_gpt2_head

gguf = pytest.importorskip("gguf", reason="needs pip install -e '.[gguf]'")
F16_ROUNDOFF, F16_SMALLEST, F32_ROUNDOFF = 2.0**-11, 2.0**-25, 2.0**-24  # smallest: half of the least subnormal
BLOCK = 32
# rows of 64 and of 20 values: whole blocks of q8_0, and none
MODELS = {
    "gpt2": replace(tiny.MODEL, embed_dim=64, num_heads=2),
    "llama": replace(tiny.LLAMA, embed_dim=64, num_heads=2, num_kv_heads=1),
}


def of_f16(value: np.ndarray) -> np.ndarray:
    """Return the largest error of rounding to f16."""
    return np.maximum(F16_ROUNDOFF * np.abs(value), F16_SMALLEST)


def of_q8_0(value: np.ndarray) -> np.ndarray:
    """Return the largest error of blocks of integers q with |q| <= 127 and a scale d = max|x| / 127 that f16 stores.

    Rounding x / d to q costs d / 2, and the stored scale q times its own rounding. In f32 the quotient x (1 / d) has
    three roundings, so q may be the neighbour of the nearest integer if x is this close to the middle between both.
    """
    blocks = np.abs(value).reshape(-1, BLOCK)
    scale = blocks.max(axis=1, keepdims=True) / 127
    error = scale / 2 + 127 * of_f16(scale) + 3 * F32_ROUNDOFF * blocks
    return error.reshape(value.shape)


def exported(tmp_path: Path, name: str, weights: str):
    model = MODELS[name]
    run = tiny.save_run(tmp_path, model=model)
    (path,) = export_gguf(run, tiny.tokenizer(), tmp_path / "out", weights)
    expected = tensors(model, with_gpt2_head(model, tiny.draw_arrays(model)))
    return gguf.GGUFReader(path), {key: array.astype(np.float64) for key, array in expected.items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("weights", "whole", "error"), [("f16", "F16", of_f16), ("q8_0", "Q8_0", of_q8_0)])
def test_each_weight_has_the_type_of_llama_cpp_s_converter_and_its_error(tmp_path, name, weights, whole, error):
    reader, expected = exported(tmp_path, name, weights)
    assert {tensor.name for tensor in reader.tensors} == set(expected)
    for tensor in reader.tensors:
        value = expected[tensor.name]
        kind = "F32" if value.ndim == 1 or "position" in tensor.name else whole if value.shape[1] == 64 else "F16"
        assert tensor.tensor_type.name == kind, tensor.name
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(value.shape)
        bound = {"F32": np.zeros_like, "F16": of_f16, whole: error}[kind](value)
        assert (np.abs(found - value) <= bound).all(), tensor.name
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType[FILE_TYPES[weights]]


def test_the_command_names_the_file_by_its_type(hipgpt, tmp_path):
    assert tuple(FILE_TYPES) == WEIGHTS
    for weights, name in {"f32": "model.gguf", "f16": "model-f16.gguf", "q8_0": "model-q8_0.gguf"}.items():
        status, output, _ = hipgpt("export", "--to", "gguf", "--type", weights, "--output", str(tmp_path))
        assert status is None and output.startswith(f"{tmp_path / name}  ")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_type_is_refused_with_another_format(hipgpt):
    status, _, _ = hipgpt("export", "--to", "llmc", "--type", "f16")
    assert status == "error: --type: got f16 with --to llmc, expected it with --to gguf only"
