"""Multiple choice: likelihoods of the continuations by the definition, accuracies by hand, broken questions refused."""

import csv
import json
import re

import numpy as np
import pytest
from support import tiny

from hipgpt.base.errors import UserError
from hipgpt.base.paths import ROOT
from hipgpt.config.reading import load_config, read_config
from hipgpt.gpt.scoring import Scorer
from hipgpt.inference import multiple_choice
from hipgpt.inference.multiple_choice import (
    COLUMNS,
    Question,
    answer_tasks,
    log_likelihoods,
    read_questions,
    sequence,
)
from hipgpt.pipeline.recipes import Recipes

S = tiny.MODEL.context_length
QUESTION = {"ctx": "to be", "endings": ["or not", "Enter"], "label": 1}


def write(path, *records) -> dict:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return {"path": str(path)}


def tokens(context: str, choice: str) -> tuple[list[int], int]:
    found = sequence(tiny.tokenizer(), Question("a:1", context, [choice], 0), choice, S)
    return found.ids.tolist(), found.choice_tokens


def test_the_tokens_of_a_choice_are_those_after_the_context():
    encode = tiny.tokenizer().encode
    ids, count = tokens("to be", "or")
    assert ids == encode("to be or").tolist() and ids[-count:] == encode(" or").tolist()


def test_spaces_at_the_end_of_a_context_count_to_the_choice():
    encode = tiny.tokenizer().encode
    ids, count = tokens("to be ", "or")
    assert ids == encode("to be  or").tolist() and len(ids) - count == len(encode("to be"))


def test_an_empty_context_is_the_token_that_ends_a_text():
    ids, count = tokens("", "or")
    assert ids == [tiny.tokenizer().end_of_text, *tiny.tokenizer().encode(" or")] and count == len(ids) - 1


def test_a_blank_context_is_as_an_empty_one_with_its_spaces_in_the_choice():
    ids, count = tokens(" ", "or")
    assert ids == [tiny.tokenizer().end_of_text, *tiny.tokenizer().encode("  or")] and count == len(ids) - 1


def test_a_long_context_loses_its_first_tokens():
    ids, _ = tokens("to be, or not to be? " * 9 + "Enter", "or")
    assert len(ids) == S + 1
    assert ids == tiny.tokenizer().encode("to be, or not to be? " * 9 + "Enter or").tolist()[-(S + 1) :]


def test_a_choice_longer_than_the_context_of_the_model_is_refused():
    with pytest.raises(UserError, match=f"a:1: a choice has .* tokens, expected at most model.context_length, {S}"):
        tokens("to be", "x" * 50)


def test_the_likelihood_of_a_choice_is_the_sum_of_its_log_probabilities(device, monkeypatch):
    arrays = tiny.draw_arrays()
    scorer = Scorer(device, tiny.MODEL, tiny.place(device, tiny.MODEL, arrays), 2)  # so that the last group is smaller
    question = Question("a:1", "to be", ["or", "Enter", "be, or"], 0)
    found = [sequence(tiny.tokenizer(), question, choice, S) for choice in question.choices]
    for one, likelihood in zip(found, log_likelihoods(scorer, found, S), strict=True):
        exact = 0.0
        for position in range(len(one.ids) - one.choice_tokens, len(one.ids)):
            logits = tiny.logits(tiny.MODEL, arrays, one.ids[:position].tolist()).value[-1]
            exact += logits[one.ids[position]] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        assert likelihood == pytest.approx(exact, rel=1e-5)


def test_accuracies_and_their_standard_errors_by_hand(device, tmp_path, monkeypatch):
    first = {**QUESTION, "endings": ["ab", "abcdefgh"]}
    likelihoods = iter([-2.0, -4.0, -2.0, -4.0, -3.0, -1.0, -9.0, -8.0])  # per character: the second is always likelier
    monkeypatch.setattr(multiple_choice, "log_likelihoods", lambda *_: likelihoods)
    settings = write(tmp_path / "t.jsonl", {**first, "label": 0}, first, first, {**first, "label": "0"})
    weights = tiny.place(device, tiny.MODEL, tiny.draw_arrays())
    answer_tasks(tmp_path / "tasks.csv", device, tiny.MODEL, weights, tiny.tokenizer(), {"mine": settings})
    [row] = csv.DictReader((tmp_path / "tasks.csv").open())
    assert tuple(row) == COLUMNS and row["task"] == "mine" and row["questions"] == "4"
    accuracy, normalized = [1, 0, 1, 0], [0, 1, 1, 0]
    for name, right in (("accuracy", accuracy), ("accuracy_normalized", normalized)):
        assert float(row[name]) == np.mean(right)
        assert float(row[f"{name}_standard_error"]) == pytest.approx(np.std(right, ddof=1) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ctx": 1}, "t.jsonl:2: ctx: got a int, expected a text"),
        ({"endings": ["one"]}, "t.jsonl:2: endings: expected a list of two or more texts, none of them empty"),
        ({"endings": ["one", ""]}, "t.jsonl:2: endings: expected a list of two or more texts"),
        ({"endings": "one two"}, "t.jsonl:2: endings: expected a list of two or more texts"),
        ({"label": 2}, "t.jsonl:2: label: got '2', expected the number of a choice, 0 to 1"),
        ({"label": True}, "t.jsonl:2: label: got 'True', expected the number of a choice, 0 to 1"),
        ({"ctx": "\ud800"}, "t.jsonl:2: has half a character"),
    ],
)
def test_a_broken_question_is_named_by_file_and_line(tmp_path, change, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_questions(write(tmp_path / "t.jsonl", QUESTION, {**QUESTION, **change}))


def test_a_missing_field_is_named_with_the_key_that_chooses_it(tmp_path):
    settings = write(tmp_path / "t.jsonl", {"query": "a", "endings": ["b", "c"], "label": 0})
    message = "t.jsonl:1: no field 'ctx'; its fields are query, endings, label; set context_field of the task to one"
    with pytest.raises(UserError, match=message):
        read_questions(settings)
    assert read_questions({**settings, "context_field": "query"})[0].context == "a"
    with pytest.raises(UserError, match="has no question"):
        read_questions(write(tmp_path / "empty.jsonl"))


def test_a_task_is_no_part_of_the_recipe_of_evaluate_and_its_file_is_one_of_answer(tmp_path):
    shipped = read_config(ROOT / "config.yaml")

    def recipes(**tasks: dict) -> tuple[dict, dict]:
        evaluation = {**shipped["evaluation"], **({"tasks": tasks} if tasks else {})}
        found = Recipes(load_config({**shipped, "evaluation": evaluation}))
        return found.of_run("evaluate", "default"), found.of_run("answer", "default")

    without, with_task = recipes(), recipes(mine=write(tmp_path / "t.jsonl", QUESTION))
    assert without[0] == with_task[0] and without[1] != with_task[1]
    assert recipes(mine=write(tmp_path / "t.jsonl", QUESTION, QUESTION))[1] != with_task[1]
