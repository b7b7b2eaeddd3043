"""The report as its reader sees it: headless Chromium opens it without an error and without a network request."""

import html
import json
import re
from pathlib import Path

import pytest
from support import tiny
from support.chromium import browse, needs_chromium
from support.workflow_copy import TINY, Project

from hipgpt.inference.multiple_choice import COLUMNS
from hipgpt.reports.pages import write_run_page, write_runs_page

pytestmark = pytest.mark.slow

# Opens every result of Snakemake's report, as clicks would.
VISIT = """<script>
const opened = [];
const paths = Object.keys(results);
paths.forEach((path, at) => setTimeout(() => {
  const uri = results[path].data_uri, kind = uri.slice(5, uri.indexOf(";"));
  const content = kind === "text/html" ? "html" : kind.startsWith("image/") ? "img" : null;
  if (content) { app.setView({content: content, contentPath: uri, resultPath: path}); opened.push(path); }
}, 300 + 100 * at));
setTimeout(() => document.title = "opened " + opened.length, 600 + 100 * paths.length);
</script>"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"))
    sweep = {"ladder": {"zip": {"model.embed_dim": [4, 8, 16]}}}
    project.write_config({**TINY, "sweep": sweep})
    project.snakemake("all")
    project.snakemake("--report", "results/report.html")
    return project


@needs_chromium
def test_an_error_and_a_request_would_be_seen(tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<title>bad</title><script>console.error('oh')</script><img src='http://127.0.0.1:9/pixel.png'>")
    errors, asked, title, _ = browse(page, tmp_path)
    assert title == "bad" and any("oh" in error for error in errors) and asked == ["http://127.0.0.1:9/pixel.png"]


LEGEND = """<script>
const names = [...document.querySelectorAll(".chart-bar > *")].map((part) => part.textContent);
const box = document.querySelector(".chart-axes input").getBoundingClientRect();
const drawing = document.querySelector(".chart svg").getBoundingClientRect();
document.title = [...names, box.bottom <= drawing.top ? "free" : "hidden"].join("|");
</script>"""


@needs_chromium
def test_the_legend_writes_the_name_of_a_sweep_once_and_hides_no_control(tmp_path):
    names = ["default", *(f"rates_learning_rate_peak-{rate}" for rate in (0.001, 0.002, 0.004))]
    folders = [tiny.save_run(tmp_path / "results", name) for name in names]
    page = tmp_path / "results/summary.html"
    write_runs_page([{"run": name, "steps": 7} for name in names], folders, page, [])
    page.write_text(page.read_text().replace("</body>", f"{LEGEND}</body>"))
    errors, _, title, _ = browse(page, tmp_path)
    assert errors == []
    assert title == "… is rates_learning_rate_peak-|default|…0.001|…0.002|…0.004|free"


@needs_chromium
def test_the_report_and_every_result_in_it_open_without_an_error_or_a_request(project, tmp_path):
    report = (project.folder / "results/report.html").read_text()
    visited = tmp_path / "visited.html"
    before, end, after = report.rpartition("</body>")
    visited.write_text(f"{before}{VISIT}{end}{after}")
    errors, asked, title, _ = browse(visited, tmp_path)
    assert errors == [] and asked == []
    pages, pictures = 1 + 4, 4 * 3 + 5 + 1  # all runs and each run; each run's curves, the sweep's, the tokenizer's
    assert title == f"opened {pages + pictures}"


@needs_chromium
@pytest.mark.parametrize("name", ["summary.html", "runs/default/report.html"])
def test_a_page_opens_by_itself(project, tmp_path, name):
    errors, asked, title, _ = browse(project.folder / "results" / name, tmp_path)
    assert errors == [] and asked == []
    assert title in ("All runs", "Run default")


def test_the_report_holds_what_one_asks_of_a_run(project):
    page = (project.folder / "results/runs/default/report.html").read_text()
    record = json.loads((project.folder / "results/runs/default/run.json").read_text())
    for text in (record["code_sha256"], record["tokenizer_sha256"], record["corpus"]["sha256"], record["device"],
                 record["versions"]["numpy"],
                 record["versions"]["compiler"], "trigram", "lzma", "the king", "embed dim", "git commit"):  # fmt: skip
        assert text in page
    assert page.count('<div class="chart">') == 4 and "␣" in page
    runs = (project.folder / "results/summary.html").read_text()
    assert all(name in runs for name in ("default", "ladder_embed_dim-4", "ladder_embed_dim-16"))
    report = (project.folder / "results/report.html").read_text()
    for caption in ("on the whole validation split", "fewer than three sizes have no line",
                    "From raw text to trained models", "its samples, and its provenance",
                    "One row for each run"):  # fmt: skip
        assert caption in report


def test_a_run_s_name_is_text_too(tmp_path):
    write_runs_page([{"run": "<b>x</b>", "tokens_seen": 5, "steps": None}], [], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;x" in page and "<b>" not in page
    assert 'class="number">tokens seen</th>' in page  # in words, so that it breaks into lines


INSPECTION = {
    "passage": [["<|endoftext|>", None], ["<i>", 2.0], ["be", 30.0]],
    "sentence": ["<|endoftext|>", "<i>"],
    "heads": [1, 1],
    "attention": "/wAA/w==",
    "words": [[{"text": " be", "rank": 7, "parts": [{"text": " "}, {"text": "be"}]}]],
}


def written(folder: Path) -> None:
    """Write the files of a run that its page reads, in addition to those of tiny.save_run."""
    for name in ("samples.txt", "training_samples.txt"):
        (folder / name).write_text("<script>alert(1)</script>\n")
    (folder / "inspection.json").write_text(json.dumps(INSPECTION))


def test_the_same_run_gives_the_same_page_and_what_a_model_writes_is_text_on_it(tmp_path):
    folder = tiny.save_run(tmp_path)
    written(folder)
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for page in pages:
        write_run_page(folder, page)
    assert pages[0].read_bytes() == pages[1].read_bytes()
    page = pages[0].read_text()
    assert "<script>alert" not in page and page.count("&lt;script&gt;alert(1)") == 2
    assert '<span style="--share:0.20" title="2.00 nats, probability 0.14">&lt;i&gt;</span>' in page
    assert "<dd>12.5 %</dd>" in page and ">10 nats or more</span>" in page and ">100 %</span>" in page
    titles = re.findall(r"<dt>(.*?)</dt>", page)
    assert len(titles) == len(set(titles))
    assert '<span style="--share:1.00"' in page and "␣be<small>7</small>" in page


def test_a_run_s_page_links_its_playground_if_the_model_fits_one(tmp_path):
    for name, layers in (("small", 1), ("large", 2000)):
        folder = tiny.save_run(tmp_path, name)
        written(folder)
        record = json.loads((folder / "run.json").read_text())
        record["config"]["model"] |= {"num_layers": layers, "mlp_dim": 8000}
        (folder / "run.json").write_text(json.dumps(record))
        write_run_page(folder, tmp_path / f"{name}.html")
    assert 'href="playground.html"' in (tmp_path / "small.html").read_text()
    assert 'href="playground.html"' not in (tmp_path / "large.html").read_text()


def test_a_run_s_page_shows_the_tasks_that_it_is_given(tmp_path):
    folder = tiny.save_run(tmp_path)
    written(folder)
    names = ",".join(COLUMNS)
    (folder / "tasks.csv").write_text(f"{names}\nplants,40,0.25,0.0693,0.5,0.0801\n")
    write_run_page(folder, tmp_path / "without.html")
    write_run_page(folder, tmp_path / "with.html", folder / "tasks.csv")
    assert "Multiple-choice" not in (tmp_path / "without.html").read_text()
    page = (tmp_path / "with.html").read_text()
    assert "<td>plants</td>" in page and '<td class="number">0.0801</td>' in page


# Asks the page what it shows, as a reader would by clicks.
PROBE = """<pre id="answers"></pre><script>setTimeout(() => {
  const answers = {charts: document.querySelectorAll(".chart path").length,
                   heads: document.querySelectorAll(".heads canvas").length};
  answers.tokens = ["columns", "rows"].map((side) =>
    [...document.querySelectorAll(`.heads .${side} span`)].map((one) => one.textContent));
  answers.ticks = [...document.querySelectorAll(".chart")].map((chart) =>
    [...chart.querySelectorAll("text[text-anchor=end]")].map((one) => one.textContent));
  answers.cut = [...document.querySelectorAll(".chart svg")].flatMap((drawing) => {
    const edge = drawing.getBoundingClientRect().right + 0.5;
    return [...drawing.querySelectorAll("text")].filter((one) => one.getBoundingClientRect().right > edge);
  }).map((one) => one.textContent);
  const first = document.querySelector(".chart");
  answers.strengths = [first.querySelector("path").getAttribute("opacity"), first.querySelector("i").style.opacity];
  const runs = document.getElementById("runs");
  if (runs) {
    const names = () => [...runs.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
    const heading = runs.querySelector('[data-key="steps"]');
    answers.sorted = [0, 1].map(() => { heading.click(); return names(); });
    answers.filtered = ["wid", "steps>8", "steps>=7 default", "nothing", "training.seed=1"].map((text) => {
      filter(text);
      return names();
    });
    filter("");
  }
  const legend = document.querySelector(".legend");
  legend.click();
  answers.hidden = document.querySelectorAll(".chart path").length;
  legend.click();
  const drawing = document.querySelector(".chart svg"), {x: left, y: top, width} = drawing.getBoundingClientRect();
  const ticks = () => [...drawing.querySelectorAll("text")].map((one) => one.textContent).join();
  const before = ticks();
  const at = (type, share) => drawing.dispatchEvent(
    new PointerEvent(type, {clientX: left + share * width, clientY: top + 50, bubbles: true}));
  at("pointermove", 0.5);
  answers.tip = document.querySelector(".tip").textContent;
  at("pointerdown", 0.5); at("pointerup", 0.95);
  answers.zoomed = ticks() !== before;
  drawing.dispatchEvent(new MouseEvent("dblclick"));
  answers.whole = ticks() === before;
  document.getElementById("answers").textContent = JSON.stringify(answers);
}, 500);</script>"""


def asked_of(page: Path, work: Path) -> dict:
    probe = work / "probe.html"
    probe.write_text(page.read_text() + PROBE)
    visit = browse(probe, work)
    assert visit.errors == [] and visit.asked == []
    return json.loads(html.unescape(re.search(r'<pre id="answers">(.*?)</pre>', visit.content, re.DOTALL)[1]))


@needs_chromium
def test_a_run_s_page_draws_its_curves_and_heads(tmp_path):
    folder = tiny.save_run(tmp_path)
    written(folder)
    rows = "".join(f"{step},{step * 8},{9 / step:.4f},1.0,{step * 2e-5 / 15}\n" for step in range(15, 1501, 15))
    (folder / "metrics.csv").write_text(f"step,tokens_seen,loss_nats_per_token,gradient_norm,learning_rate\n{rows}")
    write_run_page(folder, tmp_path / "page.html")
    answers = asked_of(tmp_path / "page.html", tmp_path)
    assert answers["charts"] == 5 and answers["hidden"] == 4 and answers["heads"] == 1
    assert answers["tokens"] == [["<|endoftext|>", "<i>"]] * 2
    assert answers["strengths"] == ["1", "1"]  # of a line of few points, and of its mark in the legend
    assert answers["ticks"][2] == ["5e-4", "1e-3", "1.5e-3", "2e-3"]
    assert answers["cut"] == []
    assert "training batches: " in answers["tip"] and answers["zoomed"] and answers["whole"]


@needs_chromium
def test_the_table_of_runs_sorts_and_filters(tmp_path):
    folders = [tiny.save_run(tmp_path, name) for name in ("default", "wide", "new")]
    values = (("default", 7), ("wide", 9), ("new", None))
    rows = [{"run": name, "steps": steps, "training.seed": number} for number, (name, steps) in enumerate(values)]
    write_runs_page(rows, folders, tmp_path / "page.html")
    answers = asked_of(tmp_path / "page.html", tmp_path)
    assert answers["charts"] == 3
    assert answers["sorted"] == [["default", "wide", "new"], ["wide", "default", "new"]]
    assert answers["filtered"] == [["wide"], ["wide"], ["default"], [], ["wide"]]
