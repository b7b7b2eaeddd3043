"""A value that no key takes is refused by its key, and a message shows no more of it than a line holds."""

import pytest

from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT
from hipgpt.config.reading import read_config
from hipgpt.pipeline.sweeps import load_runs

SHIPPED = read_config(ROOT / "config.yaml")
HUGE = 10**5000  # Python refuses to print it


def sweep(**keys) -> dict:
    return {"sweep": {"s": keys}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {**SHIPPED["training"], "seed": HUGE}}, "training.seed: got a number of 16,610 bits, expected"),
        (sweep(zip={"training.seed": [HUGE]}), "sweep.s.zip.training.seed[0]: got a number of 16,610 bits"),
        ({"sampling": {"prompts": ["\ud800"]}}, "sampling.prompts[0]: got '\\ud800', which has half a character"),
        ({"tokenizer": {"vocab_size": 300, "from": "a\0b"}}, "tokenizer.from: got 'a\\x00b', expected a path"),
        ({"model": {"from": "x" * 5000}}, "model.from: got 'xxxx"),
        ({"corpora": {"c": {"kind": "file", "path": "a\0b"}}}, "corpora.c.path: got 'a\\x00b', expected a path"),
        ({"device": "x" * 100_000}, "device: got 'xxxx"),
        ({"training": {**SHIPPED["training"], "steps": [1] * 100_000}}, "training.steps: got [1, 1"),
        ({"runs": {"a\x1b[31m": {}}}, "runs: got 'a\\x1b[31m', expected string"),
        ({"a\x1b[31m": 5}, "a\\x1b[31m: unknown key"),
        (sweep(zip={5: [1]}), "sweep.s: got 5, expected a dotted key of a run"),
        (sweep(zip={"model.embed_dim": [64], "model.embed_dim.x": [1]}), "sweep.s: got 'model.embed_dim' and a key"),
        (
            sweep(grid={"model.embed_dim": list(range(4, 4004, 4)), "model.mlp_dim": list(range(1, 1001))}),
            "sweep.s: makes 1,000,000 runs, expected at most 1,024; shorten its lists",
        ),
        (sweep(zip={"model.embed_dim": [64]}, tokens_per_parameter=1e308), "s_embed_dim-64: tokens_per_parameter: got"),
    ],
    ids=range(14),
)  # fmt: skip
def test_a_value_that_no_key_takes_is_refused_by_its_key(changes, message):
    with pytest.raises(UserError) as error:
        load_runs({**SHIPPED, **changes})
    assert str(error.value).startswith(f"config: {message}")
    assert str(error.value).isprintable() and len(str(error.value)) < 1000
