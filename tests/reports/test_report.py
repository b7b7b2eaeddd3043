"""The report as its reader sees it: headless Chromium opens it without an error and without a network request."""

import json

import pytest
from support import tiny
from support.chromium import browse, needs_chromium
from support.workflow_copy import TINY, Project

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


@needs_chromium
def test_the_report_and_every_result_in_it_open_without_an_error_or_a_request(project, tmp_path):
    report = (project.folder / "results/report.html").read_text()
    visited = tmp_path / "visited.html"
    before, end, after = report.rpartition("</body>")
    visited.write_text(f"{before}{VISIT}{end}{after}")
    errors, asked, title, _ = browse(visited, tmp_path)
    assert errors == [] and asked == []
    pages, pictures = 1 + 4, 4 * 3 + 3 + 1  # all runs and each run; each run's curves, the sweep's, the tokenizer's
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
                 record["versions"]["compiler"], "trigram", "lzma", "the king", "embed_dim", "git_commit"):  # fmt: skip
        assert text in page
    assert page.count("data:image/png;base64,") == 3
    runs = (project.folder / "results/summary.html").read_text()
    assert all(name in runs for name in ("default", "ladder_embed_dim-4", "ladder_embed_dim-16"))
    report = (project.folder / "results/report.html").read_text()
    for caption in ("on the whole validation split", "fewer than three sizes have no line",
                    "From raw text to trained models", "its samples, and its provenance",
                    "One row for each run"):  # fmt: skip
        assert caption in report


def test_a_run_s_name_is_text_too(tmp_path):
    write_runs_page([{"run": "<b>x</b>", "tokens_seen": 5, "steps": None}], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;x" in page and "<b>" not in page
    assert '<th class="number">tokens seen</th>' in page  # in words, so that it breaks into lines


def test_the_same_run_gives_the_same_page_and_what_a_model_writes_is_text_on_it(tmp_path):
    folder = tiny.save_run(tmp_path)
    for name in ("samples.txt", "training_samples.txt"):
        (folder / name).write_text("<script>alert(1)</script>\n")
    (folder / "plots").mkdir()
    for name in ("loss", "learning_rate", "throughput"):
        (folder / "plots" / f"{name}.png").write_bytes(b"\x89PNG")
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for page in pages:
        write_run_page(folder, page)
    assert pages[0].read_bytes() == pages[1].read_bytes()
    page = pages[0].read_text()
    assert "<script" not in page and page.count("&lt;script&gt;alert(1)") == 2
