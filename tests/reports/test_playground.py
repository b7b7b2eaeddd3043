"""The playground: in headless Chromium it encodes, predicts and continues as `hipgpt generate` does."""

import dataclasses
import html
import json
import random
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from support import tiny
from support.chromium import browse, needs_chromium

from hipgpt.base.errors import UserError
from hipgpt.config.settings import ModelConfig, SamplingConfig
from hipgpt.config.stated import stated
from hipgpt.data.tokenizer.pretokenize import PATTERNS
from hipgpt.data.tokenizer.tokenizer import Tokenizer, train
from hipgpt.gpt.checkpoint import save_checkpoint
from hipgpt.inference.reference import probabilities
from hipgpt.reports.page_size import MOST_PARAMETERS, check_size
from hipgpt.reports.playground import write_playground

MODELS = {"gpt2": tiny.MODEL, "llama": tiny.LLAMA, "qwen3": tiny.QWEN3}
PAIRS = [*zip([*MODELS, "llama"], PATTERNS, strict=True)]  # every architecture and every pattern
SAMPLING = {"prompts": ["to be"], "num_tokens": 9, "temperature": 0.8, "top_k": 50, "top_p": 1.0,
            "stop_at_end_of_text": False}  # fmt: skip
PROMPT = "to be, or not é"
# characters on which patterns, browsers and versions of Unicode differ, and those that people type
ODD = ["<|endoftext|>", "'ll", "'RE", "   ", "e\u0301"]
ODD += [*"ab'sTLlER 12\n\r\t.é語\x85\ufeff\u017f\u2028\x1c\u00b2\U0001f600"]
# Works out the answers after the page's own scripts, and presses its button.
PROBE = """<pre id="answers"></pre><script>
const questions = {questions};
const logits = questions.ids.map((id) => {{ model.append(id); return Array.from(model.logits); }});
const rows = model.attentionOfLastToken().map((shares) => Array.from(shares));
model.restart(questions.ids.slice(0, 5));
const drawnFrom = questions.settings.map((one) => distribution(model.logits, one));
const greedy = generated(questions.prompt, {{temperature: 0, topK: 0, topP: 1, numTokens: 30}});
const encoded = questions.texts.map((text) => tokenizer.encode(text));
element("generate").click();
setTimeout(() => {{
  const spans = [...element("text").children];
  spans[spans.length - 1].click();
  const shown = [...element("alternatives").children].map((row) => row.textContent);
  const heads = element("heads").children.length;
  const answers = {{logits, rows, greedy, encoded, drawnFrom, spans: spans.length, shown, heads}};
  element("answers").textContent = JSON.stringify(answers);
}}, 1000);
</script>"""


def bf16(array: np.ndarray) -> np.ndarray:
    return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def trained(pattern: str) -> Tokenizer:
    """Return a tokenizer. That of qwen2 takes a piece that is a token as that token, and reads texts in form C."""
    text = tiny.TEXT + b"wherefore art thou, gentle Romeo? deny thy father and refuse thy name " * 9
    qwen2 = pattern == "qwen2"
    return dataclasses.replace(train([text], tiny.MODEL.vocab_size, pattern), ignore_merges=qwen2, nfc=qwen2)


def drawn_texts() -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(ODD, k=draw.randrange(1, 12))) for _ in range(300)]


def visited(page: Path, work: Path, questions: dict) -> dict:
    probe = work / "probe.html"
    probe.write_text(page.read_text() + PROBE.format(questions=json.dumps(questions)))
    visit = browse(probe, work)
    assert visit.errors == [] and visit.asked == []
    answers = re.search(r'<pre id="answers">(.*?)</pre>', visit.content, re.DOTALL)
    return json.loads(html.unescape(answers[1]))


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(("architecture", "pattern"), PAIRS)
def test_the_page_computes_as_hipgpt_generate_does(hipgpt, tmp_path, architecture, pattern):
    model, tokenizer = MODELS[architecture], trained(pattern)
    arrays = {name: bf16(array) for name, array in tiny.draw_arrays(model).items()}
    folder = tiny.save_run(tmp_path / "results", model=model, other=tokenizer)
    metadata = {"model": stated(model), "step": 7, "tokenizer_sha256": tokenizer.sha256}
    save_checkpoint(folder / "checkpoints" / "best.safetensors", arrays, metadata)
    page = tmp_path / "playground.html"
    write_playground(page, "default", model, arrays, tokenizer, SAMPLING)

    T = model.context_length
    ids = tokenizer.encode(tiny.TEXT).tolist()[: T if architecture == "gpt2" else T + 3]
    settings = [{"temperature": 0.7, "topK": 9, "topP": 0.6}, {"temperature": 1.3, "topK": 0, "topP": 0.9}]
    questions = {"ids": ids, "prompt": PROMPT, "texts": drawn_texts(), "settings": settings}
    answers = visited(page, tmp_path, questions)

    expected = tiny.logits(model, arrays, ids)
    assert (np.abs(np.array(answers["logits"]) - expected.value) <= expected.error).all()
    assert answers["encoded"] == [tokenizer.encode(text).tolist() for text in drawn_texts()]
    options = ["--results", str(tmp_path / "results"), "--temperature=0", "--num-tokens=30", "--device=cpu"]
    assert hipgpt("generate", PROMPT, *options)[1] == f"{PROMPT}{text_of(tokenizer, answers['greedy'])}\n"
    assert_distributions(tiny.logits(model, arrays, ids[:5]).value[-1], settings, answers["drawnFrom"])
    rows = np.array(answers["rows"])
    assert rows.shape == (model.num_layers * model.num_heads, T) and np.allclose(rows.sum(axis=1), 1)
    begun = len(tokenizer.encode(SAMPLING["prompts"][0]))
    assert answers["spans"] == begun + SAMPLING["num_tokens"]
    assert len(answers["shown"]) in (12, 13) and all(" %" in row for row in answers["shown"])
    assert answers["heads"] == model.num_heads


def text_of(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids).decode("utf-8", "replace")


def assert_distributions(logits: np.ndarray, settings: list[dict], found: list[list]) -> None:
    """Compare with hipgpt/inference/sampling.py. The logits of both differ by roundings only."""
    for one, pairs in zip(settings, found, strict=True):
        sampling = SamplingConfig(1, one["temperature"], one["topK"] or None, one["topP"])
        expected = probabilities(logits, [], sampling)
        assert {index for index, _ in pairs} == set(np.flatnonzero(expected).tolist())
        assert np.allclose([p for _, p in pairs], expected[[index for index, _ in pairs]], rtol=1e-4)


def test_the_page_holds_the_model_and_what_a_user_typed_is_text_on_it(tmp_path):
    page, sampling = tmp_path / "playground.html", {**SAMPLING, "prompts": ["</textarea><script>alert(1)</script>"]}
    write_playground(page, "<b>x</b>", tiny.MODEL, tiny.draw_arrays(), tiny.tokenizer(), sampling)
    text = page.read_text()
    assert "&lt;/textarea&gt;&lt;script&gt;alert(1)" in text and "<b>x" not in text and "default-src 'none'" in text
    again = tmp_path / "again.html"
    write_playground(again, "<b>x</b>", tiny.MODEL, tiny.draw_arrays(), tiny.tokenizer(), sampling)
    assert again.read_bytes() == page.read_bytes()


def test_the_page_says_how_to_begin_and_has_a_link_to_the_report(tmp_path):
    page = tmp_path / "playground.html"
    write_playground(page, "default", tiny.MODEL, tiny.draw_arrays(), tiny.tokenizer(), SAMPLING)
    text = page.read_text()
    assert "Press Generate" in text and 'data-hint="The text appears here.' in text and 'href="report.html"' in text


def test_a_model_that_is_too_large_for_a_page_is_refused():
    large: ModelConfig = dataclasses.replace(tiny.MODEL, vocab_size=50257, embed_dim=768, num_heads=12, mlp_dim=3072)
    with pytest.raises(UserError, match=f"playground: got a model of .* expected at most {MOST_PARAMETERS:,}"):
        check_size(large)
