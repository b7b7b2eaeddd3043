"""The playground: a page that runs a trained model in the browser. Its scripts are in templates/playground."""

import base64
import dataclasses
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from hipgpt.config.settings import ModelConfig
from hipgpt.data.tokenizer.pretokenize import LETTER, NUMBER, PATTERNS, SPACE, class_table
from hipgpt.data.tokenizer.tokenizer import Tokenizer
from hipgpt.gpt.parameters import parameter_count, parameters
from hipgpt.reports.page_size import check_size
from hipgpt.reports.rendering import write_page


def write_playground(
    page: Path,
    name: str,
    model: ModelConfig,
    arrays: Mapping[str, NDArray[np.float32]],
    tokenizer: Tokenizer,
    sampling: Mapping[str, Any],
) -> None:
    """Write the page of a model.

    name: of the run; arrays: the weights by name; sampling: the section of the config, whose values the page begins
    with. Raises UserError if the model is too large for a page.
    """
    check_size(model)
    fields = [(field.name, field.shape) for field in parameters(model)]
    rounded = [arrays[field].astype(ml_dtypes.bfloat16).reshape(-1).view(np.uint16) for field, _ in fields]
    parts = dataclasses.asdict(model.parts)
    about = f"A {parts['title']} of {parameter_count(model):,} parameters that reads {model.context_length} tokens."
    spec = {
        "model": dataclasses.asdict(model) | {"head_channels": model.head_channels, "kv_heads": model.kv_heads},
        "parts": parts,
        "fields": fields,
        "tokenizer": tokenizer_spec(tokenizer),
        "stop_at_end_of_text": sampling["stop_at_end_of_text"],
    }
    write_page(
        page,
        "playground/playground.html",
        title=f"Run {name}: playground",
        about=about,
        prompt=next(iter(sampling["prompts"]), ""),
        sampling=sampling,
        spec=spec,
        weights=base64.b64encode(np.concatenate(rounded).astype("<u2").tobytes()).decode(),
    )


def tokenizer_spec(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what templates/playground/tokenizer.js reads. Bytes are spelled in Latin-1."""
    return {
        "merges": tokenizer.merges,
        "ids": tokenizer.ids,
        "specials": tokenizer.specials,
        "whole": [(token.decode("latin-1"), index) for token, index in tokenizer.whole],
        "ignore_merges": tokenizer.ignore_merges,
        "nfc": tokenizer.nfc,
        "pattern": javascript_pattern(tokenizer.pattern),
        "end_of_text": tokenizer.end_of_text,
    }


def javascript_pattern(name: str) -> str:
    r"""Return the pattern of that name in JavaScript's syntax.

    Its classes are ranges of class_table, because browsers have another version of Unicode, and their \s is another.
    """
    letters, numbers, spaces = ("".join(_ranges(kind)) for kind in (LETTER, NUMBER, SPACE))
    pattern = PATTERNS[name]
    pattern = pattern.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?:[sdmtSDMT\u017f]|[rR][eE]|[vV][eE]|[lL][lL])")
    pattern = pattern.replace(r"[^\s\p{L}\p{N}]", f"[^{spaces}{letters}{numbers}]")
    pattern = pattern.replace(r"[^\r\n\p{L}\p{N}]", rf"[^\r\n{letters}{numbers}]")
    for written, ranges in ((r"\p{L}", letters), (r"\p{N}", numbers), (r"\s", spaces)):
        pattern = pattern.replace(written, f"[{ranges}]")
    return pattern.replace(r"\S", f"[^{spaces}]")


def _ranges(kind: int) -> Iterator[str]:
    """Yield the ranges of code points of a class as they are written in a regular expression."""
    code_points = (point for point, found in enumerate(class_table()) if found == kind)
    for _, run in groupby(enumerate(code_points), lambda pair: pair[1] - pair[0]):
        points = [point for _, point in run]
        yield rf"\u{{{points[0]:x}}}" if len(points) == 1 else rf"\u{{{points[0]:x}}}-\u{{{points[-1]:x}}}"
