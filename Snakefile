# The pipeline, top to bottom: download, train_tokenizer, tokenize, train; then evaluate, export, sample, plot; summarize.
#
# Each rule calls the script of its name in workflow/scripts. What decides its result stands in its param `depends`
# (hipgpt/pipeline/recipes.py): the settings and the code of the stage and of all stages before it.

import contextlib
import json
import os
import re
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")

sys.path.insert(0, str(workflow.basedir))
from hipgpt.base.errors import UserError
from hipgpt.training.estimate import job_resources
from hipgpt.base.files import alone_in
from hipgpt.pipeline.recipes import Recipes
from hipgpt.pipeline.seals import check_seals
from hipgpt.pipeline.sweeps import load_runs


report: "workflow/report/workflow.rst"


configfile: str(Path(workflow.basedir) / "config.yaml")


try:
    CONFIG = load_runs(config)
    if workflow.is_main_process:
        check_seals(Path("results"))
except UserError as error:
    sys.exit(f"error: {error}")

# Scripts run the code that the recipes hash, also where another checkout is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")]))
RECIPES, LOCK = Recipes(CONFIG), contextlib.ExitStack()
PYTHON, SCRIPTS = sys.executable, f"{workflow.basedir}/workflow/scripts"
# A stop reaches the shell too (Slurm signals every process): it waits, or Snakemake would delete what is being saved.
WAIT_FOR_THE_END = "trap : TERM; "
SEAL = " && {PYTHON:q} -m hipgpt.pipeline.seals {output:q}"  # the last output is the seal

CORPUS = "results/corpora/{corpus}"
TOKENS = "results/corpora/{corpus}/{tokenizer}"
RUN = "results/runs/{run}"
CORPUS_FILES = [f"{CORPUS}/{name}" for name in ("train.txt", "validation.txt", "provenance.json", "download.sha256")]
SHARDS = [f"{TOKENS}/train_{number:05d}.bin" for number in range(CONFIG.train_shards)]
SHARDS += [f"{TOKENS}/validation_00000.bin"]
TOKENIZER_TABLES = [f"{TOKENS}/merges.csv", f"{TOKENS}/compression.csv"]
TOKEN_FILES = [
    *TOKENIZER_TABLES,
    f"{TOKENS}/compression.png",
    f"{TOKENS}/tokenizer.json",
    f"{TOKENS}/manifest.json",
    *SHARDS,
]
TOKEN_FILES += [f"{TOKENS}/{rule}.sha256" for rule in ("train_tokenizer", "plot_tokenizer", "tokenize")]
EVERY_CORE = 1024  # Snakemake gives a job no more than --cores
CURVES = ["metrics.csv", "validation.csv", "throughput.csv"]
PICTURES = ["loss.png", "learning_rate.png", "throughput.png"]
SWEEP = "results/sweeps/{sweep}"
COMPARISON = ["curves.png", "loss_by_parameters.png", "loss_by_operations.png", "runs.csv", "fit.csv", "compare.sha256"]
RUN_RULES = ["train", "export", "evaluate", "sample", "plot", "describe"]
MODEL_FILES = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md"]


def hold_the_workflow():
    """Keep a second snakemake out of this folder for as long as this one lives."""
    if Path("results").exists() and not os.access("results", os.W_OK):
        raise SystemExit("error: results: cannot be written to; mount it or set its mode so that it can")
    try:
        LOCK.enter_context(alone_in(Path(".snakemake"), "another snakemake is at work in this folder"))
    except UserError as error:
        raise SystemExit(f"error: {error}")


def run_files(*patterns):
    """Paths whose corpus and tokenizer are those of the run."""

    def of_wildcards(wildcards):
        run = CONFIG.runs[wildcards.run]
        return expand(patterns, corpus=run.corpus, tokenizer=run.tokenizer)

    return of_wildcards


def of_run(stage):
    return lambda wildcards: RECIPES.of_run(stage, wildcards.run)


def needs(resource):
    """What a run's training asks a cluster for; `gpu` also keeps runs here from sharing one (profiles/default)."""

    def of_wildcards(wildcards):
        run = CONFIG.runs[wildcards.run]
        return job_resources(run.model, run.training, run.sections["device"])[resource]

    return of_wildcards


def pretrained_options(run):
    return ["--pretrained", str(run.pretrained)] if run.pretrained else []


def section(key):
    """A section of the run's config as JSON, for a script."""
    return lambda wildcards: json.dumps(CONFIG.runs[wildcards.run].sections[key])


onstart:
    if workflow.is_main_process:
        hold_the_workflow()


wildcard_constraints:
    corpus="|".join(map(re.escape, CONFIG.corpora)),
    run="|".join(map(re.escape, CONFIG.runs)),
    tokenizer="|".join(map(re.escape, CONFIG.tokenizers)),
    sweep="|".join(map(re.escape, CONFIG.sweeps)) or "none",


rule all:
    input:
        [expand(CORPUS_FILES, corpus=run.corpus) for run in CONFIG.runs.values()],
        [expand(TOKEN_FILES, corpus=run.corpus, tokenizer=run.tokenizer) for run in CONFIG.runs.values()],
        ["results/summary.csv", "results/summary.html"],
        expand(RUN + "/checkpoints/{which}.safetensors", run=CONFIG.runs, which=["best", "last"]),
        expand(RUN + "/model/{file}", run=CONFIG.runs, file=MODEL_FILES),
        expand(RUN + "/plots/{picture}", run=CONFIG.runs, picture=PICTURES),
        expand(RUN + "/{file}", run=CONFIG.runs, file=["run.json", *CURVES, "training_samples.txt", "evaluation.csv"]),
        expand(RUN + "/{file}", run=CONFIG.runs, file=["samples.txt", "samples.csv"]),
        expand(RUN + "/{rule}.sha256", run=CONFIG.runs, rule=RUN_RULES),
        expand(RUN + "/report.html", run=CONFIG.runs),
        "results/summary.sha256",
        expand(SWEEP + "/{file}", sweep=CONFIG.sweeps, file=COMPARISON),


rule download:
    output:
        train=CORPUS + "/train.txt",
        validation=CORPUS + "/validation.txt",
        provenance=report(CORPUS + "/provenance.json", caption="workflow/report/provenance.rst", category="Corpus"),
        seal=CORPUS + "/download.sha256",
    cache: True
    params:
        depends=lambda wildcards: RECIPES.of_corpus("download", wildcards.corpus),
        settings=lambda wildcards: json.dumps(CONFIG.corpora[wildcards.corpus]),
        folder=CORPUS,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/download.py --name {wildcards.corpus:q} --settings {params.settings:q}"
        " --output {params.folder:q}" + SEAL


rule train_tokenizer:
    input:
        text=CORPUS + "/train.txt",
    output:
        **{Path(table).stem: table for table in TOKENIZER_TABLES},
        tokenizer=TOKENS + "/tokenizer.json",
        # named one by one, as --cache wants them
        seal=TOKENS + "/train_tokenizer.sha256",
    cache: True
    threads: EVERY_CORE
    params:
        depends=lambda wildcards: RECIPES.of_corpus("train_tokenizer", wildcards.corpus, wildcards.tokenizer),
        settings=lambda wildcards: json.dumps(CONFIG.tokenizers[wildcards.tokenizer]),
        folder=TOKENS,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/train_tokenizer.py --text {input.text:q} --settings {params.settings:q}"
        " --output {params.folder:q} --threads {threads}" + SEAL


rule plot_tokenizer:
    input:
        tables=TOKENIZER_TABLES,
    output:
        picture=report(TOKENS + "/compression.png", caption="workflow/report/compression.rst", category="Corpus"),
        seal=TOKENS + "/plot_tokenizer.sha256",
    params:
        depends=lambda wildcards: RECIPES.of_corpus("plot_tokenizer", wildcards.corpus, wildcards.tokenizer),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/plot_tokenizer.py --tables {input.tables:q} --output {output.picture:q}" + SEAL


rule tokenize:
    input:
        corpus=CORPUS_FILES,
        tokenizer=TOKENS + "/tokenizer.json",
    output:
        # named one by one, as --cache wants them
        **{Path(shard).stem: shard for shard in SHARDS},
        manifest=TOKENS + "/manifest.json",
        seal=TOKENS + "/tokenize.sha256",
    cache: True
    threads: EVERY_CORE
    params:
        depends=lambda wildcards: RECIPES.of_corpus("tokenize", wildcards.corpus, wildcards.tokenizer),
        corpus=CORPUS,
        folder=TOKENS,
        train_shards=CONFIG.train_shards,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/tokenize_corpus.py --corpus {params.corpus:q} --tokenizer {input.tokenizer:q}"
        " --output {params.folder:q} --train-shards {params.train_shards} --threads {threads}" + SEAL


rule train:
    input:
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
        manifest=run_files(TOKENS + "/manifest.json"),
        shards=run_files(*SHARDS),
        corpus=run_files(CORPUS + "/provenance.json"),
    output:
        record=RUN + "/run.json",
        best=RUN + "/checkpoints/best.safetensors",
        last=RUN + "/checkpoints/last.safetensors",
        curves=expand(RUN + "/{file}", file=CURVES, allow_missing=True),
        samples=report(
            RUN + "/training_samples.txt", caption="workflow/report/training_samples.rst", category="Run {run}"
        ),
        seal=RUN + "/train.sha256",
    log:
        RUN + "/train.log",
    threads: EVERY_CORE
    resources:
        mem_mb=needs("mem_mb"),
        runtime=needs("runtime"),
        gpu=needs("gpu"),
    params:
        depends=of_run("train"),
        model=lambda wildcards: json.dumps(vars(CONFIG.runs[wildcards.run].model)),
        training=section("training"),
        device=lambda wildcards: CONFIG.runs[wildcards.run].sections["device"],
        pretrained=lambda wildcards: pretrained_options(CONFIG.runs[wildcards.run]),
        folder=RUN,
    shell:
        WAIT_FOR_THE_END + "{PYTHON:q} {SCRIPTS:q}/train.py --model {params.model:q} --training {params.training:q}"
        " --tokenizer {input.tokenizer:q} --manifest {input.manifest:q} --corpus {input.corpus:q}"
        " {params.pretrained:q} --output {params.folder:q}"
        " --device {params.device:q} --threads {threads} --log {log:q}" + SEAL


rule evaluate:
    input:
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
        manifest=run_files(TOKENS + "/manifest.json"),
        shards=run_files(*SHARDS),
        texts=run_files(CORPUS + "/train.txt", CORPUS + "/validation.txt"),
    output:
        table=report(RUN + "/evaluation.csv", caption="workflow/report/evaluation.rst", category="Run {run}"),
        seal=RUN + "/evaluate.sha256",
    threads: EVERY_CORE
    resources:
        gpu=needs("gpu"),
    params:
        depends=of_run("evaluate"),
        stride=lambda wildcards: CONFIG.runs[wildcards.run].sections["evaluation"]["stride_tokens"],
        device=lambda wildcards: CONFIG.runs[wildcards.run].sections["device"],
    shell:
        "{PYTHON:q} {SCRIPTS:q}/evaluate.py --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --manifest {input.manifest:q} --texts {input.texts:q} --stride-tokens {params.stride}"
        " --output {output.table:q} --device {params.device:q} --threads {threads}" + SEAL


rule export:
    input:
        run=expand(RUN + "/{file}", file=["run.json", "evaluation.csv", *CURVES], allow_missing=True),
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
    output:
        model=expand(RUN + "/model/{file}", file=MODEL_FILES, allow_missing=True),
        seal=RUN + "/export.sha256",
    params:
        depends=of_run("export"),
        run=RUN,
        folder=RUN + "/model",
    shell:
        "{PYTHON:q} {SCRIPTS:q}/export.py --run {params.run:q} --tokenizer {input.tokenizer:q}"
        " --output {params.folder:q}" + SEAL


rule sample:
    input:
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
    output:
        text=report(RUN + "/samples.txt", caption="workflow/report/samples.rst", category="Run {run}"),
        table=RUN + "/samples.csv",
        seal=RUN + "/sample.sha256",
    threads: EVERY_CORE
    resources:
        gpu=needs("gpu"),
    params:
        depends=of_run("sample"),
        sampling=section("sampling"),
        precision=lambda wildcards: CONFIG.runs[wildcards.run].training.precision,
        device=lambda wildcards: CONFIG.runs[wildcards.run].sections["device"],
    shell:
        "{PYTHON:q} {SCRIPTS:q}/sample.py --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --sampling {params.sampling:q} --precision {params.precision:q} --text {output.text:q} --table {output.table:q}"
        " --device {params.device:q} --threads {threads}" + SEAL


rule plot:
    input:
        curves=expand(RUN + "/{file}", file=CURVES, allow_missing=True),
    output:
        pictures=report(
            expand(RUN + "/plots/{picture}", picture=PICTURES, allow_missing=True),
            caption="workflow/report/curves.rst",
            category="Run {run}",
        ),
        seal=RUN + "/plot.sha256",
    params:
        depends=of_run("plot"),
        run=RUN,
        folder=RUN + "/plots",
    shell:
        "{PYTHON:q} {SCRIPTS:q}/plot.py --run {params.run:q} --output {params.folder:q}" + SEAL


rule describe:
    input:
        record=RUN + "/run.json",
        curves=expand(RUN + "/{file}", file=CURVES, allow_missing=True),
        pictures=expand(RUN + "/plots/{picture}", picture=PICTURES, allow_missing=True),
        texts=expand(RUN + "/{file}", file=["samples.txt", "training_samples.txt"], allow_missing=True),
        evaluation=RUN + "/evaluation.csv",
    output:
        page=report(RUN + "/report.html", caption="workflow/report/run.rst", category="Run {run}"),
        seal=RUN + "/describe.sha256",
    params:
        depends=of_run("describe"),
        run=RUN,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/describe.py --run {params.run:q} --output {output.page:q}" + SEAL


rule summarize:
    input:
        records=expand(RUN + "/run.json", run=CONFIG.runs),
        curves=expand(RUN + "/{file}", run=CONFIG.runs, file=CURVES),
        evaluations=expand(RUN + "/evaluation.csv", run=CONFIG.runs),
    output:
        page=report("results/summary.html", caption="workflow/report/summary.rst", category="All runs"),
        table=report("results/summary.csv", caption="workflow/report/summary.rst", category="All runs"),
        seal="results/summary.sha256",
    params:
        depends={run: RECIPES.of_run("summarize", run) for run in CONFIG.runs},
        runs=expand(RUN, run=CONFIG.runs),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/summarize.py --runs {params.runs:q} --output {output.table:q}"
        " --page {output.page:q}" + SEAL


rule compare:
    input:
        lambda wildcards: expand(
            RUN + "/{file}", run=CONFIG.sweeps[wildcards.sweep], file=["run.json", "evaluation.csv", *CURVES]
        ),
    output:
        pictures=report(
            expand(SWEEP + "/{file}", file=COMPARISON[:3], allow_missing=True),
            caption="workflow/report/comparison.rst",
            category="Sweep {sweep}",
        ),
        tables=report(
            expand(SWEEP + "/{file}", file=COMPARISON[3:5], allow_missing=True),
            caption="workflow/report/comparison.rst",
            category="Sweep {sweep}",
        ),
        seal=SWEEP + "/compare.sha256",
    params:
        depends=lambda wildcards: {run: RECIPES.of_run("compare", run) for run in CONFIG.sweeps[wildcards.sweep]},
        runs=lambda wildcards: expand(RUN, run=CONFIG.sweeps[wildcards.sweep]),
        folder=SWEEP,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/compare.py --runs {params.runs:q} --output {params.folder:q}" + SEAL
