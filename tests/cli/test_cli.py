"""The command `hipgpt`: it streams the tokens that the sampler draws, and a mistake is one line without traceback."""

import io
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from support import tiny

from hipgpt.base.paths import ROOT
from hipgpt.compute.open_device import open_device
from hipgpt.config.settings import SamplingConfig
from hipgpt.gpt.decoder import Decoder
from hipgpt.inference import samples
from hipgpt.inference.sampling import generate_one

THE_FINISHED = "in results/runs; found: default, wide; name one of them, or run snakemake first"


def command(results: Path, *arguments: str, **options) -> subprocess.Popen:
    """Start the command as its own process."""
    program = [sys.executable, "-c", "from hipgpt.cli.main import main; main()", "generate", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(program, cwd=results.parent, env=environment, **pipes, **options)


def expected_text(prompt: str, sampling: SamplingConfig, seed: int = 0, stream: int = 0) -> str:
    device, tokenizer = open_device("cpu", 2), tiny.tokenizer()
    decoder = Decoder(device, tiny.MODEL, tiny.place(device, tiny.MODEL, tiny.draw_arrays(seed=seed)))
    ids = tokenizer.encode(prompt).tolist()
    continuation = list(generate_one(decoder, ids, sampling, tokenizer.end_of_text, stream))
    return (prompt.encode() + tokenizer.decode(continuation)).decode("utf-8", "replace") + "\n"


def test_generate_prints_the_prompt_and_what_the_sampler_draws(hipgpt):
    options = "--num-tokens=30 --top-k=9 --top-p=0.9 --temperature=0.7 --repetition-penalty=1.2 --seed=3"
    assert hipgpt("generate", "--prompt", "to be, élan", *options.split()) == (
        None,
        expected_text("to be, élan", SamplingConfig(30, 0.7, 9, 0.9, 1.2, seed=3)),
        "",
    )


def test_generate_takes_the_run_that_is_asked_for(hipgpt):
    assert hipgpt("generate", "--run", "wide", "--num-tokens", "9")[1] == expected_text("", SamplingConfig(9), seed=1)


@pytest.mark.parametrize("words", [["to be,"], ["--prompt", "to be,"], ["-"]], ids=["argument", "option", "input"])
def test_a_prompt_is_an_argument_or_standard_input(hipgpt, monkeypatch, words):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"to be,")))
    assert hipgpt("generate", *words, "--num-tokens", "9")[1] == expected_text("to be,", SamplingConfig(9))


def test_a_prompt_that_is_given_twice_is_a_mistake(hipgpt):
    status, _, errors = hipgpt("generate", "to be", "--prompt", "or not")
    assert status == 2 and errors.startswith("error: --prompt: not allowed with argument PROMPT; ")


def test_settings_are_those_of_the_run_unless_they_are_given(hipgpt, tmp_path):
    write_samples(tiny.save_run(tmp_path), SamplingConfig(25, 0.6, 7, 0.95, 1.1, False, seed=5))
    options = ["generate", "to be", "--results", str(tmp_path)]
    assert hipgpt(*options)[1] == expected_text("to be", SamplingConfig(25, 0.6, 7, 0.95, 1.1, False, seed=5))
    assert hipgpt(*options, "--seed=6", "--temperature=0")[1] == expected_text(
        "to be", SamplingConfig(25, 0.0, 7, 0.95, 1.1, False, seed=6)
    )


def test_top_k_0_takes_all_tokens(hipgpt, tmp_path):
    write_samples(tiny.save_run(tmp_path), SamplingConfig(25, 1.5, 3, seed=5))
    options = ["generate", "to be", "--results", str(tmp_path), "--top-k", "0"]
    assert hipgpt(*options)[1] == expected_text("to be", SamplingConfig(25, 1.5, None, seed=5))


def write_samples(folder: Path, sampling: SamplingConfig) -> None:
    device, tokenizer = open_device("cpu", 2), tiny.tokenizer()
    decoder = Decoder(device, tiny.MODEL, tiny.place(device, tiny.MODEL, tiny.draw_arrays()))
    settings = {"prompts": ["to be"], **vars(sampling)}
    samples.write_samples(decoder, tokenizer, settings, folder / "samples.txt", folder / "samples.csv")


def test_several_samples_have_a_title_each_and_differ(hipgpt):
    texts = [expected_text("to be", SamplingConfig(9), stream=number) for number in (0, 1)]
    assert texts[0] != texts[1]
    expected = "".join(f"--- sample {number} of 2\n{text}" for number, text in enumerate(texts, 1))
    assert hipgpt("generate", "to be", "--num-tokens=9", "-n", "2")[1] == expected


@pytest.mark.parametrize(
    ("stop", "expected"), [("ab", ">xa\n"), ("aab", ">x\n"), ("x", ">\n"), ("abab", ">xaab\n"), ("b!", ">xaab\n")]
)
def test_a_continuation_ends_before_the_text_to_stop_at(hipgpt, monkeypatch, stop, expected):
    monkeypatch.setattr("hipgpt.inference.sampling.generate_one", lambda *arguments, **options: iter(b"xaab"))
    assert hipgpt("generate", "--prompt", ">", "--stop", stop)[1] == expected


def test_without_a_command_the_help_is_shown(hipgpt):
    status, output, _ = hipgpt()
    assert status is None and output.startswith("usage: hipgpt ") and "continue a text with a trained run" in output


def test_the_only_run_needs_no_name(hipgpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.save_run(tmp_path / "results", "fast")
    (found,) = json.loads(hipgpt("generate", "to be", "--json", "--num-tokens", "2")[1])["samples"]
    assert found["text"] and hipgpt("tokenize", "to be")[0] is None
    tiny.save_run(tmp_path / "results", "best")
    message = "no finished run 'default' in results/runs; found: best, fast; name one of them, or run snakemake first"
    assert hipgpt("generate", "to be")[0] == f"error: {message}"


@pytest.mark.parametrize("program", [["-m", "hipgpt"], ["-c", "from hipgpt.cli.main import main; main()"]])
def test_the_version_is_that_of_the_package(program):
    done = subprocess.run([sys.executable, *program, "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"hipgpt {version('hipgpt')}\n")


def test_each_token_is_shown_as_it_is_drawn(hipgpt, monkeypatch):
    shown = []
    monkeypatch.setattr("sys.stdout.flush", lambda: shown.append(len(shown)))
    drawn = iter([ord("a"), ord("b"), 0xC3, 0xA9, 0xC3])

    def tokens(*arguments, **options):
        shown.clear()  # how stdout is set up is of no interest
        for number, token in enumerate(drawn):
            assert len(shown) == number
            yield token

    monkeypatch.setattr("hipgpt.inference.sampling.generate_one", tokens)
    assert hipgpt("generate", "--prompt", ">")[1] == ">abé\N{REPLACEMENT CHARACTER}\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--run other", f"no finished run 'other' {THE_FINISHED}"),
        ("--run unfinished", f"no finished run 'unfinished' {THE_FINISHED}"),
        ("--results nowhere", "no finished run 'default' in nowhere/runs; found: none; run snakemake first"),
        ("--num-tokens 0", "--num-tokens: got 0, expected an integer >= 1 and <= 1,000,000"),
        ("--temperature -1", "--temperature: got -1.0, expected a finite number >= 0"),
        ("--temperature nan", "--temperature: got nan, expected a finite number >= 0"),
        ("--top-p 1.5", "--top-p: got 1.5, expected a number > 0 and <= 1"),
        ("--repetition-penalty 0", "--repetition-penalty: got 0.0, expected a finite number > 0"),
        ("--device tpu", "got 'tpu', expected auto, cpu, hip, cuda, or one of several GPUs as hip:1 or cuda:1"),
        ("--num-samples 0", "--num-samples: got 0, expected an integer >= 1"),
        ("--stop=", "--stop: got an empty text, expected at least one character"),
        ("--seed -1", "--seed: got -1, expected an integer >= 0 and < 2^64"),
        ("--seed 18446744073709551616", "--seed: got 18446744073709551616, expected an integer >= 0 and < 2^64"),
    ],
)
def test_a_mistake_is_one_line_with_what_was_got_and_expected(hipgpt, options, message):
    status, output, _ = hipgpt("generate", *options.split())
    assert status.startswith("error: ") and status.endswith(message)
    assert "\n" not in status
    assert output == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("foo", "no command 'foo'; hipgpt --help shows the commands"),
        ("generat", "no command 'generat', did you mean 'generate'?; hipgpt --help shows the commands"),
        ("generate --top-k many", "--top-k: got 'many', expected an integer >= 0; 0 samples among all tokens; {}"),
        ("generate --top-k None", "--top-k: got 'None', expected an integer >= 0; 0 samples among all tokens; {}"),
        ("generate --top-k=-1", "--top-k: got '-1', expected an integer >= 0; 0 samples among all tokens; {}"),
        ("generate --seed 1.5", "--seed: got '1.5', expected an integer; {}"),
        ("generate --temperature abc", "--temperature: got 'abc', expected a number; {}"),
        ("generate --temprature=1", "--temprature: no such option, did you mean '--temperature'?; {}"),
        ("generate -n", "-n/--num-samples: expected one argument; {}"),
        ("generate to be", "got 'be', expected no further argument; {}"),
        ("export --to onnx", "--to: got 'onnx', expected hf or gguf or llmc; hipgpt export --help shows the options"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_with_a_hint(hipgpt, words, message):
    expected = message.format("hipgpt generate --help shows the options")
    assert hipgpt(*words.split()) == (2, "", f"error: {expected}\n")


def test_a_damaged_checkpoint_is_named(hipgpt, tmp_path):
    checkpoint = tiny.save_run(tmp_path) / "checkpoints" / "best.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    status, _, _ = hipgpt("generate", "--results", str(tmp_path))
    assert status.startswith(f"error: {checkpoint}: not a whole safetensors file")


def test_help_describes_every_option_and_its_default(hipgpt):
    status, text, _ = hipgpt("generate", "--help")
    assert status == 0
    words = " ".join(text.split())
    assert "--top-k K sample among the k most probable tokens; 0: among all (default: as the run)" in words
    assert "--num-tokens TOKENS length of the continuation at most, in tokens (default: as the run)" in words
    assert text.count("(default: ") == text.count("\n  -") - 3  # all but --help, --chat and --json
    assert "None" not in text and "==SUPPRESS==" not in text
    assert "generate continue a text with a trained run" in " ".join(hipgpt("--help")[1].split())


def test_a_shell_gets_a_completion_script_that_knows_the_options(hipgpt):
    status, script, _ = hipgpt("--print-completion", "bash")
    assert status == 0 and "--repetition-penalty" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_a_process_leaves_with_one_line_and_status_1(results):
    process = command(results, "--run", "other")
    output, errors = process.communicate()
    assert (process.returncode, output) == (1, b"")
    assert errors.startswith(b"error: no finished run 'other' ") and errors.count(b"\n") == 1


def test_a_reader_that_goes_away_ends_it_quietly(results):
    process = command(results, "--num-tokens", "1000000")
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(timeout=300) == 141
    assert process.stderr.read() == b""


def test_a_prompt_may_be_any_bytes(results):
    process = command(results, "--num-tokens", "1", "--prompt", b"a\xffb")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output.decode().startswith("a\N{REPLACEMENT CHARACTER}b")


@pytest.mark.parametrize(
    ("terminal", "expected"), [(True, ">\\x1b[2J\\x07a\tb\n\\x9b\n"), (False, ">\x1b[2J\x07a\tb\n\x9b\n")]
)
def test_a_terminal_shows_the_model_s_control_characters_and_does_not_obey_them(
    hipgpt, monkeypatch, terminal, expected
):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    drawn = [*b"\x1b[2J\x07a\tb\n", *"\x9b".encode()]
    monkeypatch.setattr("hipgpt.inference.sampling.generate_one", lambda *arguments, **options: iter(drawn))
    assert hipgpt("generate", "--prompt", ">")[1] == expected
