"""`hipgpt export`: readers of llm.c and GGUF files find the checkpoint and its tokenizer, or the user gets a reason."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import tiny
from test_export import TOKENS, as_exported

from hipgpt.base.errors import UserError
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train
from hipgpt.gpt.parameters import parameters
from hipgpt.interchange.gguf import export_gguf, tensor_names
from hipgpt.interchange.huggingface import FILES, export_huggingface, huggingface_config, with_gpt2_head
from hipgpt.interchange.llmc import export_llmc

GPT2 = replace(tiny.MODEL, mlp_dim=48, tie_embeddings=True, output_bias=False)
# llm.c's own order and shapes, from its malloc_and_point_parameters: L layers, C channels, T positions, P padded tokens
LLMC_TENSORS = {
    "wte": "PC", "wpe": "TC", "ln1w": "LC", "ln1b": "LC", "qkvw": "L3C", "qkvb": "L3", "attprojw": "LCC",
    "attprojb": "LC", "ln2w": "LC", "ln2b": "LC", "fcw": "L4C", "fcb": "L4", "fcprojw": "LC4", "fcprojb": "LC",
    "lnfw": "C", "lnfb": "C",
}  # fmt: skip


def read_llmc(path: Path) -> tuple[list[int], dict[str, np.ndarray]]:
    """Return header and tensors of a model.bin. It follows train_gpt2.c and uses none of our code."""
    words = np.fromfile(path, "<i4", 256)
    assert words[0] == 20240326 and words[1] == 3 and not words[8:].any()
    T, V, L, H, C, P = map(int, words[2:8])
    sizes = {"T": T, "L": L, "C": C, "P": P, "3": 3 * C, "4": 4 * C}
    values, tensors, at = np.fromfile(path, "<f4", offset=1024), {}, 0
    for name, letters in LLMC_TENSORS.items():
        shape = [sizes[letter] for letter in letters]
        tensors[name] = values[at : at + np.prod(shape)].reshape(shape)
        at += np.prod(shape)
    assert at == len(values)
    return [T, V, L, H, C, P], tensors


def test_llm_c_reads_the_checkpoint_s_weights_by_its_own_layout(tmp_path):
    run = tiny.save_run(tmp_path, model=GPT2)
    export_llmc(run, tiny.tokenizer(), tmp_path / "out")
    arrays = tiny.draw_arrays(GPT2)
    header, found = read_llmc(tmp_path / "out" / "model.bin")
    assert header == [8, 300, 2, 3, 12, 384]
    assert (found["wte"][:300] == arrays["token_embedding.weight"]).all() and not found["wte"][300:].any()
    assert (found["wpe"] == arrays["position_embedding.weight"]).all()
    blocks = {
        "ln1w": "attention_norm.gamma", "ln1b": "attention_norm.beta", "qkvw": "qkv.weight", "qkvb": "qkv.bias",
        "attprojw": "projection.weight", "attprojb": "projection.bias", "ln2w": "mlp_norm.gamma",
        "ln2b": "mlp_norm.beta", "fcw": "mlp_in.weight", "fcb": "mlp_in.bias", "fcprojw": "mlp_out.weight",
        "fcprojb": "mlp_out.bias",
    }  # fmt: skip
    for theirs, ours in blocks.items():
        for layer in range(2):
            assert (found[theirs][layer] == arrays[f"block{layer}.{ours}"]).all(), theirs
    assert (found["lnfw"] == arrays["final_norm.gamma"]).all() and (found["lnfb"] == arrays["final_norm.beta"]).all()


def test_llm_c_reads_every_token(tmp_path):
    run = tiny.save_run(tmp_path, model=GPT2)
    export_llmc(run, tiny.tokenizer(), tmp_path)
    data = (tmp_path / "tokenizer.bin").read_bytes()
    assert np.frombuffer(data, "<u4", 5).tolist() == [20240328, 2, 300, tiny.tokenizer().end_of_text, 0]
    at, tokens = 1024, []
    while at < len(data):
        tokens.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    assert tokens == [tiny.tokenizer().token_bytes(index) for index in range(300)]
    assert b"".join(tokens[index] for index in tiny.tokenizer().encode(tiny.TEXT)) == tiny.TEXT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tie_embeddings": False}, "model.tie_embeddings is False, llm.c has True"),
        ({"output_bias": True}, "model.output_bias is True, llm.c has False"),
        ({"activation": "relu"}, "model.activation is relu, llm.c has gelu"),
        ({"mlp_dim": 20}, "model.mlp_dim is 20, llm.c has 48"),
    ],
)
def test_a_model_that_llm_c_cannot_express_is_refused_with_the_reason(tmp_path, changes, reason):
    run = tiny.save_run(tmp_path, model=replace(GPT2, **changes))
    with pytest.raises(UserError, match=rf"default: llm.c cannot express this model: {reason}; export it --to hf"):
        export_llmc(run, tiny.tokenizer(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_reason_is_told_at_once(tmp_path):
    with pytest.raises(UserError) as refused:
        export_llmc(tiny.save_run(tmp_path), tiny.tokenizer(), tmp_path / "out")
    assert str(refused.value).count("llm.c has") == 3


@pytest.fixture
def gguf():
    return pytest.importorskip("gguf", reason=tiny.WITHOUT_INTEROP)


@pytest.mark.parametrize(
    "changes", [{}, {"tie_embeddings": True}, {"tie_embeddings": True, "output_bias": False}], ids=str
)
def test_gguf_s_reader_finds_every_tensor(gguf, tmp_path, changes):
    model = replace(tiny.MODEL, **changes)
    export_gguf(tiny.save_run(tmp_path, model=model), tiny.tokenizer(), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["model.gguf"]
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    expected = with_gpt2_head(model, tiny.draw_arrays(model))
    names = tensor_names(model.num_layers)
    assert set(found) == set(names.values())
    known = {name.removesuffix(".bias").removesuffix(".weight") for name in found}
    of_the_architecture = gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GPT2]
    assert known <= {gguf.TENSOR_NAMES[one].format(bid=bid) for one in of_the_architecture for bid in range(2)}
    for ours, theirs in names.items():
        assert found[theirs].dtype == np.float32 and (found[theirs] == expected[ours]).all(), theirs
    assert {name for name in expected if not name.startswith("output")} == {
        field.name for field in parameters(model) if not field.name.startswith("output")
    }


def test_gguf_s_reader_finds_sizes_and_tokenizer(gguf, tmp_path):
    export_gguf(tiny.save_run(tmp_path), tiny.tokenizer(), tmp_path)
    fields = {name: field.contents() for name, field in gguf.GGUFReader(tmp_path / "model.gguf").fields.items()}
    sizes = {
        "context_length": 8,
        "embedding_length": 12,
        "block_count": 2,
        "feed_forward_length": 20,
        "vocab_size": 300,
    }
    assert fields["general.architecture"] == "gpt2"
    assert {key: fields[f"gpt2.{key}"] for key in sizes} == sizes
    assert fields["gpt2.attention.head_count"] == 3
    assert fields["gpt2.attention.layer_norm_epsilon"] == np.float32(1e-5)
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert fields["tokenizer.ggml.eos_token_id"] == fields["tokenizer.ggml.bos_token_id"] == 299
    assert rebuilt(fields).encode(tiny.TEXT).tolist() == tiny.tokenizer().encode(tiny.TEXT).tolist()
    assert rebuilt(fields).sha256 == tiny.tokenizer().sha256


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True, "output_bias": False}], ids=str)
def test_transformers_reads_the_gguf_file_and_gives_the_checkpoint_s_logits(gguf, device, tmp_path, changes):
    torch, transformers, _ = (
        pytest.importorskip(name, reason=tiny.WITHOUT_INTEROP) for name in ("torch", "transformers", "accelerate")
    )
    model = replace(tiny.MODEL, **changes)
    run, arrays = tiny.save_run(tmp_path, model=model), tiny.draw_arrays(model)
    export_gguf(run, tiny.tokenizer(), tmp_path / "out")
    export_huggingface(
        run, tiny.tokenizer(), tmp_path / "hf", "a card"
    )  # for the bound: the arithmetic of the folded bias is the same
    # transformers does not take the context and the MLP width from the file
    config = transformers.GPT2Config(**huggingface_config(model, end_of_text=299, tied=model.tie_embeddings))
    read = {"pretrained_model_name_or_path": tmp_path / "out", "gguf_file": "model.gguf"}
    theirs = transformers.GPT2LMHeadModel.from_pretrained(**read, config=config).eval()
    with torch.no_grad():
        found = theirs(torch.tensor([TOKENS])).logits[0].numpy()
    ours = tiny.network_logits(device, model, tiny.place(device, model, arrays), TOKENS)
    bound = tiny.logits(model, arrays, TOKENS).error + as_exported(model, arrays, tmp_path / "hf").error
    assert (np.abs(found - ours) <= bound).all()
    text = transformers.AutoTokenizer.from_pretrained(**read)(tiny.TEXT.decode())
    assert text["input_ids"] == tiny.tokenizer().encode(tiny.TEXT).tolist()


def rebuilt(fields: dict) -> Tokenizer:
    """Return the tokenizer that the fields of a GGUF file describe."""
    names, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert set(types[:299]) == {1} and types[299] == 3 and names[299] == "<|endoftext|>"
    ids = {name: index for index, name in enumerate(names)}
    merges = [tuple(ids[part] for part in merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    return Tokenizer(tuple(merges))  # ids 0 to 255 are the bytes


def test_a_model_that_llama_cpp_cannot_express_is_refused_with_every_reason(gguf, tmp_path):
    tokenizer = train([tiny.TEXT], 300, "cl100k")
    run = tiny.save_run(tmp_path, model=replace(tiny.MODEL, activation="relu"), other=tokenizer)
    with pytest.raises(UserError) as refused:
        export_gguf(run, tokenizer, tmp_path / "out")
    assert "model.activation is relu, its gpt2 has gelu; tokenizer.pattern is cl100k" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_without_the_package_gguf_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UserError, match=r"the package gguf is missing.*pip install -e '.\[gguf\]'"):
        export_gguf(tiny.save_run(tmp_path), tiny.tokenizer(), tmp_path)


def test_the_command_writes_into_the_run_and_names_the_files(hipgpt, results, tmp_path):
    status, output, _ = hipgpt("export", "--to", "hf", "--output", str(tmp_path / "out"))
    assert status is None
    assert [line.split()[0] for line in output.splitlines()] == [str(tmp_path / "out" / name) for name in FILES]
    (tmp_path / "file").touch()
    status, _, _ = hipgpt("export", "--to", "hf", "--output", str(tmp_path / "file"))
    assert status == f"error: {tmp_path / 'file'}: File exists"
    status, _, _ = hipgpt("export", "--to", "llmc")
    assert status.startswith("error: default: llm.c cannot express this model: ") and "\n" not in status
    assert not (results / "runs" / "default" / "exports").exists()


def test_a_run_that_is_not_there_and_an_unknown_format_are_named(hipgpt):
    assert hipgpt("export", "--to", "hf", "--run", "other")[0].startswith("error: no finished run 'other'")
    status, _, errors = hipgpt("export", "--to", "onnx")
    assert status == 2 and errors.startswith("error: --to: got 'onnx', expected hf or gguf or llmc; ")
