"""Runs as self-contained HTML pages: pictures are embedded, nothing is fetched, no script runs."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from hipgpt.base.csv_file import read_csv
from hipgpt.base.files import replacing
from hipgpt.base.nested import leaves
from hipgpt.base.tables import cell
from hipgpt.reports.runs import EVALUATION, RERUN, Row, read_record, run_row

PICTURES = {
    "loss": "Loss of each training batch with its moving average, and loss of the validation windows. If the two "
    "diverge, the model begins to memorize its training text.",
    "learning_rate": "The learning rate, and the gradient norm before clipping. If the norm grows or has spikes, a "
    "lower rate is better.",
    "throughput": "Tokens per second between two rows of throughput.csv. Other jobs on the same processor cause dips.",
}
EVALUATION_CAPTION = (
    "The best checkpoint on the whole validation split, compared with predictors without a network on the same text. "
    "Each token is predicted once, from a sliding context. Bits per byte are comparable across tokenizers; lower is "
    "better."
)
PROVENANCE_CAPTION = (
    "The inputs of this run. The same hashes on the same kind of processor give the same bytes. A commit that ends "
    "with + had changed files, which the code hash covers."
)
RUNS_CAPTION = (
    "One row for each run: its size, the tokens that it has seen, the scores of its best checkpoint on the whole "
    "validation split, its median speed, and the hashes of its code and corpus."
)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 80rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #e5e7eb }
table { border-collapse: collapse; font-size: 13px } .wide { overflow-x: auto }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid #e5e7eb }
td { white-space: nowrap } th { color: #6b7280; font-weight: 600; vertical-align: bottom }
.number { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 0 0 1.5rem } img { width: 100%; max-width: 44rem } figcaption, p { color: #4b5563; max-width: 46rem }
pre { background: #f3f4f6; padding: 1rem; white-space: pre-wrap; overflow-wrap: anywhere } code { font-size: 12px }
"""
MACROS = """
{%- macro table(rows) %}<div class="wide"><table>
<tr>{% for name, value in rows[0].items() %}<th{% if value is number %} class="number"{% endif %}>
{{- name | replace("_", " ") }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for value in row.values() %}<td{% if value is number %} class="number"{% endif %}>
{{- value | cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>{% endmacro -%}
"""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>{{ style }}</style></head>
<body><h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body></html>
"""
RUN_PAGE = """{% extends "page" %}{% from "macros" import table %}{% block body %}
{{ table(result) }}
<h2>Curves</h2>
{% for picture in pictures %}<figure><img src="data:image/png;base64,{{ picture.data }}" alt="{{ picture.name }}">
<figcaption>{{ picture.caption }}</figcaption></figure>{% endfor %}
<h2>Evaluation</h2><p>{{ evaluation_caption }}</p>{{ table(evaluation) }}
<h2>Samples</h2><p>The finished model's continuations of the configured prompts; their settings are in samples.csv.</p>
<pre>{{ samples }}</pre>
<h2>Samples while it trained</h2><pre>{{ training_samples }}</pre>
<h2>Provenance</h2><p>{{ provenance_caption }}</p>{{ table(provenance) }}
<h2>Settings</h2>{{ table(settings) }}
{% endblock %}"""
RUNS_PAGE = """{% extends "page" %}{% from "macros" import table %}{% block body %}
<p>{{ caption }}</p>{{ table(rows) }}{% endblock %}"""


def write_run_page(folder: Path, page: Path) -> None:
    """Write the page of a run from the files in its folder."""
    record, row = read_record(folder), run_row(folder)
    evaluation = read_csv(folder / "evaluation.csv", EVALUATION, RERUN)
    provenance = {key: value for key, value in leaves(record) if not key.startswith("config.")}
    settings = {key.removeprefix("config."): value for key, value in leaves(record) if key.startswith("config.")}
    _write(
        page,
        RUN_PAGE,
        title=f"Run {folder.name}",
        result=_pairs(row),
        pictures=[_picture(folder / "plots" / f"{name}.png", caption) for name, caption in PICTURES.items()],
        evaluation=evaluation,
        evaluation_caption=EVALUATION_CAPTION,
        samples=(folder / "samples.txt").read_text(encoding="utf-8"),
        training_samples=(folder / "training_samples.txt").read_text(encoding="utf-8"),
        provenance=_pairs(provenance),
        provenance_caption=PROVENANCE_CAPTION,
        settings=_pairs(settings),
    )


def write_runs_page(rows: Sequence[Row], page: Path) -> None:
    """Write the table of all runs as a page."""
    _write(page, RUNS_PAGE, title="All runs", rows=rows, caption=RUNS_CAPTION)


def _write(page: Path, template: str, **values: Any) -> None:
    loader = jinja2.DictLoader({"page": PAGE, "macros": MACROS, "this": template})
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["cell"] = cell
    with replacing(page) as file:
        file.write(environment.get_template("this").render(style=STYLE, **values).encode())


def _pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"": key, "value": value} for key, value in values.items()]


def _picture(path: Path, caption: str) -> dict[str, str]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"name": path.stem, "caption": caption, "data": data}
