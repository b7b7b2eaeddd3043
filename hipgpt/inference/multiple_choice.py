"""Multiple-choice tasks such as HellaSwag: the model's answer is the likeliest continuation of the context.

The definitions are those of lm_eval, the evaluation harness of EleutherAI, for `output_type: multiple_choice` with a
space as target_delimiter. So the numbers are the same on the same file: `accuracy` is its acc, `accuracy_normalized`
its acc_norm, and the standard errors are those of the mean.
"""

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hipgpt.base.csv_file import write_csv
from hipgpt.base.errors import UserError
from hipgpt.base.files import BLOCK, check_regular
from hipgpt.compute.device import Device
from hipgpt.config.settings import ModelConfig
from hipgpt.data.json_lines import encoded, field_of, json_objects
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.gpt.parameters import ParameterTensors
from hipgpt.gpt.scoring import Scorer
from hipgpt.inference.evaluation import ROWS_AT_ONCE

COLUMNS = ("task", "questions", "accuracy", "accuracy_standard_error", "accuracy_normalized",
           "accuracy_normalized_standard_error")  # fmt: skip
FIELDS = {"context_field": "ctx", "choices_field": "endings", "answer_field": "label"}  # of HellaSwag
DELIMITER = " "  # between the context and a choice


class Question(NamedTuple):
    """A context, its possible continuations, and the number of the right one. where: FILE:LINE."""

    where: str
    context: str
    choices: list[str]
    answer: int


class Scored(NamedTuple):
    """The tokens of a context and a choice, at most S + 1; the last `choice_tokens` are those of the choice."""

    ids: NDArray[np.int32]
    choice_tokens: int


def read_questions(settings: Mapping[str, Any]) -> list[Question]:
    """Return the questions of a task: an entry of evaluation.tasks in config.yaml.

    Raises UserError, naming the file and the line, if a field is missing or of another type, if there are fewer than
    two choices or an empty one, if the answer is not one of them, or if the file has no question.
    """
    path = Path(settings["path"])
    check_regular(path)
    with open(path, "rb") as file:
        blocks = iter(functools.partial(file.read, BLOCK), b"")
        found = [_question(where, record, {**FIELDS, **settings}) for where, record in json_objects(str(path), blocks)]
    if not found:
        raise UserError(f"{path}: has no question; expected JSON lines with one in each")
    return found


def _question(where: str, record: dict[str, Any], settings: Mapping[str, Any]) -> Question:
    context, choices, answer = (
        field_of(where, record, settings[key], f"set {key} of the task to one of them") for key in FIELDS
    )
    if not isinstance(context, str):
        raise UserError(f"{where}: {settings['context_field']}: got a {type(context).__name__}, expected a text")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) and one for one in choices):
        raise UserError(
            f"{where}: {settings['choices_field']}: expected a list of two or more texts, none of them empty"
        )
    for text in (context, *choices):
        encoded(where, text)
    number = int(answer) if isinstance(answer, str) and re.fullmatch("[0-9]{1,4}", answer) else answer
    if type(number) is not int or not 0 <= number < len(choices):
        raise UserError(
            f"{where}: {settings['answer_field']}: got {str(answer)[:40]!r}, expected the number of a choice, "
            f"0 to {len(choices) - 1}"
        )
    return Question(where, context, choices, number)


def sequence(tokenizer: Tokenizer, question: Question, choice: str, context_length: int) -> Scored:
    """Return the tokens of the context and a choice, without the first ones if there are more than S + 1.

    Spaces at the end of the context count to the choice. Context and choice are encoded together, and the tokens after
    as many as the context alone has are those of the choice. An empty context is the token that ends a text.
    Raises UserError if the choice has more tokens than the model's context, or none.
    """
    context = question.context.rstrip()
    continuation = question.context[len(context) :] + DELIMITER + choice
    if context:
        before = len(tokenizer.encode(context))
        ids = tokenizer.encode(context + continuation)
    else:
        before = 1
        ids = np.concatenate([[tokenizer.end_of_text], tokenizer.encode(continuation)])
    count = len(ids) - before
    if count <= 0:
        raise UserError(f"{question.where}: the choice {choice[:40]!r} adds no token to the context; change its text")
    if count > context_length:
        raise UserError(
            f"{question.where}: a choice has {count} tokens, expected at most model.context_length, {context_length}; "
            "evaluate a model with a longer context"
        )
    return Scored(ids[-(context_length + 1) :].astype(np.int32), count)


def log_likelihoods(scorer: Scorer, sequences: Iterable[Scored], context_length: int) -> Iterator[float]:
    """Yield the log-likelihood in nats of each choice, given its context.

    A window is filled up at its end, which changes nothing before, because no position reads a later one.
    """
    remaining = iter(sequences)
    while group := list(islice(remaining, scorer.sequences)):
        windows = np.zeros((len(group), context_length + 1), np.int32)
        for row, one in zip(windows, group, strict=True):
            row[: len(one.ids)] = one.ids
        for nats, one in zip(scorer(windows).nats, group, strict=True):
            last = len(one.ids) - 1  # the target of the last token is in the row before it
            yield -float(nats[last - one.choice_tokens : last].sum(dtype=np.float64))


def answer_tasks(
    path: Path,
    device: Device,
    model: ModelConfig,
    weights: ParameterTensors,
    tokenizer: Tokenizer,
    tasks: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write tasks.csv, a row for each task. tasks: evaluation.tasks of config.yaml."""
    S, rows = model.context_length, []
    scorer = Scorer(device, model, weights, max(1, ROWS_AT_ONCE // S))
    for name, settings in tasks.items():
        questions = read_questions(settings)
        sequences = (sequence(tokenizer, one, choice, S) for one in questions for choice in one.choices)
        likelihoods = log_likelihoods(scorer, sequences, S)
        right = np.array([_answered(one, [next(likelihoods) for _ in one.choices]) for one in questions], np.float64)
        means, errors = right.mean(axis=0), _standard_errors(right)
        rows.append([name, len(questions), means[0], errors[0], means[1], errors[1]])
    write_csv(path, COLUMNS, rows)


def _answered(question: Question, likelihoods: list[float]) -> tuple[bool, bool]:
    """Return whether the likeliest choice is right, and the one that is likeliest per character."""
    values = np.array(likelihoods)
    lengths = np.array([len(choice) for choice in question.choices], np.float64)
    return bool(values.argmax() == question.answer), bool((values / lengths).argmax() == question.answer)


def _standard_errors(right: NDArray[np.float64]) -> tuple[float | str, ...]:
    """Return the standard error of the mean of each column of right, (N, 2); empty for a single question."""
    if len(right) < 2:
        return "", ""
    return tuple(float(error) for error in right.std(axis=0, ddof=1) / math.sqrt(len(right)))
