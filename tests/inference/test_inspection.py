"""What a page shows of a model: losses as the evaluation's, attention as the formula says, trees that spell a word."""

import base64
import json

import numpy as np
import pytest
from support import tiny

from hipgpt.compute.open_device import open_device
from hipgpt.inference.evaluation import predict
from hipgpt.inference.inspection import attention_shares, longest_words, merge_trees, passage_losses, write_inspection

MODELS = {"gpt2": tiny.MODEL, "qwen3": tiny.QWEN3}


class Split:
    """Tokens of a validation split, as hipgpt/data/tokens.py gives them."""

    def __init__(self):
        self.ids = tiny.tokenizer().encode(tiny.TEXT[:900]).astype(np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        return np.stack([self.ids[start : start + length] for start in starts])


@pytest.fixture(scope="module")
def cpu():
    return open_device("cpu", 2)


def test_losses_of_a_passage_are_those_of_the_evaluation(cpu):
    weights, split = tiny.place(cpu, tiny.MODEL, tiny.draw_arrays()), Split()
    got = passage_losses(cpu, tiny.MODEL, weights, split, 60)
    expected = predict(cpu, tiny.MODEL, weights, split, tiny.MODEL.context_length // 2)
    assert got.tolist() == expected.nats[:59].tolist()


def test_the_losses_of_a_short_split_end_with_it(cpu):
    split = Split()
    split.ids = split.ids[:13]
    weights = tiny.place(cpu, tiny.MODEL, tiny.draw_arrays())
    assert len(passage_losses(cpu, tiny.MODEL, weights, split, 13)) == 12


@pytest.mark.parametrize("architecture", MODELS)
def test_each_token_shares_its_attention_among_itself_and_the_tokens_before(cpu, architecture):
    model = MODELS[architecture]
    weights = tiny.place(cpu, model, tiny.draw_arrays(model))
    shares = attention_shares(cpu, model, weights, Split().ids[:8])
    assert shares.shape == (model.num_layers, model.num_heads, 8, 8)
    assert np.allclose(shares.sum(axis=-1), 1) and not shares[..., ~np.tri(8, dtype=bool)].any()


def test_attention_in_the_first_block_of_a_gpt2_follows_from_its_weights(cpu):
    arrays, ids = {name: array.astype(float) for name, array in tiny.draw_arrays().items()}, Split().ids[:5]
    x = arrays["token_embedding.weight"][ids] + arrays["position_embedding.weight"][:5]
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    x = x * arrays["block0.attention_norm.gamma"] + arrays["block0.attention_norm.beta"]
    qkv = (x @ arrays["block0.qkv.weight"].T + arrays["block0.qkv.bias"]).reshape(5, 3, 3, 4)
    scores = np.einsum("ihc,jhc->hij", qkv[:, 0], qkv[:, 1]) / 2
    expected = np.where(np.tri(5, dtype=bool), np.exp(scores), 0)
    got = attention_shares(cpu, tiny.MODEL, tiny.place(cpu, tiny.MODEL, tiny.draw_arrays()), ids)
    assert np.allclose(got[0], expected / expected.sum(axis=-1, keepdims=True), atol=1e-5)


def test_trees_spell_the_word_by_merges_that_there_are():
    tokenizer, word = tiny.tokenizer(), " Falstaff and é".encode()

    def spelled(node: dict) -> str:
        if "parts" not in node:
            return node["text"]
        text = "".join(map(spelled, node["parts"]))
        left, right = tokenizer.merges[node["rank"]]
        assert text == node["text"] and {left, right} < set(range(256 + len(tokenizer.merges)))
        return text

    trees = merge_trees(tokenizer, word)
    assert "".join(map(spelled, trees)).startswith(" Falstaff and ")
    assert len(trees) == len(tokenizer.encode(word)) and any("parts" in tree for tree in trees)


def test_no_word_is_made_of_the_end_of_a_document(cpu):
    tokenizer = tiny.tokenizer()
    ids = [*tokenizer.encode(b"to be"), tokenizer.end_of_text, *tokenizer.encode(b"whether")]
    assert longest_words(tokenizer, ids) == [b"whether", b" be", b"to"]


def test_the_file_holds_what_the_page_reads(cpu, tmp_path):
    weights, path = tiny.place(cpu, tiny.MODEL, tiny.draw_arrays()), tmp_path / "inspection.json"
    write_inspection(path, cpu, tiny.MODEL, weights, tiny.tokenizer(), Split())
    content = json.loads(path.read_text())
    assert content["passage"][0][1] is None and all(loss > 0 for _, loss in content["passage"][1:])
    assert len(content["sentence"]) == 8 and content["heads"] == [2, 3]
    assert len(base64.b64decode(content["attention"])) == 2 * 3 * 8 * 8 and content["words"]
