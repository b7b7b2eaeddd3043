"""`hipgpt.load`: what programs get from it is what the command prints and what the network computes."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from support import tiny

import hipgpt as package
from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT
from hipgpt.compute.open_device import open_device
from hipgpt.config.settings import SamplingConfig

PROMPT = "to be, élan"
DEVICE = open_device("cpu", 2).name
SETTINGS = [field.name for field in dataclasses.fields(SamplingConfig)]


@pytest.fixture(scope="module")
def model(results):
    return package.load(results / "runs" / "default", device="cpu", threads=2)


def test_generate_continues_as_the_command_does(hipgpt, model):
    settings = {"num_tokens": 30, "temperature": 0.7, "top_k": 9, "top_p": 0.9, "seed": 3}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    assert hipgpt("generate", PROMPT, *options)[1] == PROMPT + model.generate(PROMPT, **settings) + "\n"
    greedy = hipgpt("generate", PROMPT, "--temperature=0", "--num-tokens=9")[1]
    assert greedy == PROMPT + model.generate(PROMPT, temperature=0, num_tokens=9) + "\n"


def test_streams_differ_and_repeat(model):
    one, other = (model.generate(PROMPT, num_tokens=12, stream=stream) for stream in (0, 1))
    assert one != other and one == model.generate(PROMPT, num_tokens=12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature: got -1, expected a finite number >= 0"),
        ({"temperature": "hot"}, "temperature: got 'hot', expected a finite number >= 0"),
        ({"temperature": float("inf")}, "temperature: got inf, expected a finite number >= 0"),
        ({"temperature": 2**200}, f"temperature: got {2**200}, expected a finite number >= 0"),
        ({"top_k": 0}, "top_k: got 0, expected an integer >= 1 or None"),
        ({"top_p": 7}, "top_p: got 7, expected a number > 0 and <= 1"),
        ({"num_tokens": -3}, "num_tokens: got -3, expected an integer >= 1 and <= 1,000,000"),
        ({"stop_at_end_of_text": 1}, "stop_at_end_of_text: got 1, expected True or False"),
        ({"temprature": 1}, "temprature: got 1 for an unknown setting, did you mean 'temperature'?"),
        ({"x": 1}, f"x: got 1 for an unknown setting, expected one of {', '.join(SETTINGS)}"),
    ],
)
@pytest.mark.parametrize("call", ["generate", "tokens"])
def test_a_wrong_setting_is_one_line_at_the_call(model, call, settings, message):
    with pytest.raises(ValueError) as caught:
        getattr(model, call)(PROMPT, **settings)
    assert str(caught.value) == message


def test_a_setting_may_be_a_number_of_numpy(model):
    plain, numpy = (
        model.generate(PROMPT, num_tokens=n, top_p=p) for n, p in ((9, 0.5), (np.int64(9), np.float32(0.5)))
    )
    assert plain == numpy


def test_a_model_tells_its_run_and_its_size(results, model):
    assert repr(model) == (
        f"<TrainedModel {results / 'runs/default'}: gpt2, 9,988 parameters, context of 8 tokens, on {DEVICE}>"
    )


def test_logits_are_those_of_the_network(model):
    ids = model.tokenizer.encode("to be")
    expected = tiny.logits(tiny.MODEL, tiny.draw_arrays(), ids.tolist())
    for got in (model.logits("to be"), model.logits(ids.tolist())):
        assert got.shape == (len(ids), tiny.MODEL.vocab_size) and got.dtype == np.float32
        assert (np.abs(got - expected.value) <= expected.error).all()


@pytest.mark.parametrize("ids", [[], [1] * 9])
def test_logits_refuse_a_text_that_does_not_fit_the_context(model, ids):
    with pytest.raises(ValueError, match=f"got {len(ids)} tokens, expected 1 to 8"):
        model.logits(ids)


def test_an_unfinished_run_is_a_user_s_mistake(results):
    with pytest.raises(UserError, match="unfinished: not a finished run, because .*best.safetensors is missing"):
        package.load(results / "runs" / "unfinished")


def test_a_trained_run_that_is_not_exported_takes_the_tokenizer_of_its_corpus(tmp_path, hipgpt):
    folder = tiny.save_run(tmp_path)
    (corpus := tmp_path / "corpora" / "plays" / "bpe-9").mkdir(parents=True)
    with pytest.raises(UserError, match=r"its tokenizer is neither .*model/tokenizer\.json nor in .*plays"):
        (folder / "model" / "tokenizer.json").unlink()
        package.load(folder)
    tiny.tokenizer().save(corpus / "tokenizer.json")
    settings = {"num_tokens": 9, "temperature": 0}
    said = package.load(folder, device="cpu").generate(PROMPT, **settings)
    options = ["--num-tokens=9", "--temperature=0", "--results", str(tmp_path)]
    assert hipgpt("generate", PROMPT, *options)[1] == f"{PROMPT}{said}\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = package.lode


def test_import_loads_nothing_else():
    program = "import sys, hipgpt; print([name for name in sys.modules if name.startswith(('hipgpt.', 'numpy'))])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
