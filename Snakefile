# The pipeline, top to bottom: download, train_tokenizer, tokenize, train; then export, evaluate, sample, plot; summarize.
#
# Each rule calls the script of its name in workflow/scripts. What decides its result stands in its param `depends`
# (hipgpt/recipes.py): the settings and the code of the stage and of all stages before it.

import json
import os
import re
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")

sys.path.insert(0, str(workflow.basedir))
from hipgpt.config import load_config
from hipgpt.errors import UserError
from hipgpt.recipes import Recipes


configfile: str(Path(workflow.basedir) / "config.yaml")


try:
    CONFIG = load_config(config)
except UserError as error:
    sys.exit(f"error: {error}")

# Scripts run the code that the recipes hash, also where another checkout is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(workflow.basedir), os.environ.get("PYTHONPATH")]))
RECIPES = Recipes(CONFIG)
PYTHON, SCRIPTS = sys.executable, f"{workflow.basedir}/workflow/scripts"

CORPUS = "results/corpora/{corpus}"
TOKENS = "results/corpora/{corpus}/{tokenizer}"
RUN = "results/runs/{run}"
CORPUS_FILES = [f"{CORPUS}/{name}" for name in ("train.txt", "validation.txt", "provenance.json")]
SHARDS = [f"{TOKENS}/train_{number:05d}.bin" for number in range(CONFIG.train_shards)]
SHARDS += [f"{TOKENS}/validation_00000.bin"]
TOKENIZER_TABLES = [f"{TOKENS}/merges.csv", f"{TOKENS}/compression.csv"]
TOKEN_FILES = [*TOKENIZER_TABLES, f"{TOKENS}/compression.png", f"{TOKENS}/tokenizer.json", f"{TOKENS}/manifest.json", *SHARDS]
EVERY_CORE = 1024  # Snakemake gives a job no more than --cores
CURVES = ["metrics.csv", "validation.csv", "throughput.csv"]
PICTURES = ["loss.png", "learning_rate.png", "throughput.png"]
MODEL_FILES = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]


def run_files(*patterns):
    """Paths whose corpus and tokenizer are those of the run."""

    def of_wildcards(wildcards):
        run = CONFIG.runs[wildcards.run]
        return expand(patterns, corpus=run.corpus, tokenizer=run.tokenizer)

    return of_wildcards


def of_run(stage):
    return lambda wildcards: RECIPES.of_run(stage, wildcards.run)


def section(key):
    """A section of the run's config as JSON, for a script."""
    return lambda wildcards: json.dumps(CONFIG.runs[wildcards.run].sections[key])


wildcard_constraints:
    corpus="|".join(map(re.escape, CONFIG.corpora)),
    run="|".join(map(re.escape, CONFIG.runs)),
    tokenizer="|".join(map(re.escape, CONFIG.tokenizers)),


rule all:
    input:
        [expand(CORPUS_FILES, corpus=run.corpus) for run in CONFIG.runs.values()],
        [expand(TOKEN_FILES, corpus=run.corpus, tokenizer=run.tokenizer) for run in CONFIG.runs.values()],
        "results/summary.csv",
        expand(RUN + "/checkpoints/{which}.safetensors", run=CONFIG.runs, which=["best", "last"]),
        expand(RUN + "/model/{file}", run=CONFIG.runs, file=MODEL_FILES),
        expand(RUN + "/plots/{picture}", run=CONFIG.runs, picture=PICTURES),
        expand(RUN + "/{file}", run=CONFIG.runs, file=["training_samples.txt", "samples.txt", "samples.csv"]),


rule download:
    output:
        train=CORPUS + "/train.txt",
        validation=CORPUS + "/validation.txt",
        provenance=report(CORPUS + "/provenance.json", caption="workflow/report/provenance.rst", category="Corpus"),
    params:
        depends=lambda wildcards: RECIPES.of_corpus("download", wildcards.corpus),
        settings=lambda wildcards: json.dumps(CONFIG.corpora[wildcards.corpus]),
        folder=CORPUS,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/download.py --name {wildcards.corpus:q} --settings {params.settings:q}"
        " --output {params.folder:q}"


rule train_tokenizer:
    input:
        text=CORPUS + "/train.txt",
    output:
        tokenizer=TOKENS + "/tokenizer.json",
        tables=TOKENIZER_TABLES,
    threads: EVERY_CORE
    params:
        depends=lambda wildcards: RECIPES.of_corpus("train_tokenizer", wildcards.corpus, wildcards.tokenizer),
        settings=lambda wildcards: json.dumps(CONFIG.tokenizers[wildcards.tokenizer]),
        folder=TOKENS,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/train_tokenizer.py --text {input.text:q} --settings {params.settings:q}"
        " --output {params.folder:q} --threads {threads}"


rule plot_tokenizer:
    input:
        tables=TOKENIZER_TABLES,
    output:
        picture=report(TOKENS + "/compression.png", caption="workflow/report/compression.rst", category="Corpus"),
    params:
        depends=lambda wildcards: RECIPES.of_corpus("plot_tokenizer", wildcards.corpus, wildcards.tokenizer),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/plot_tokenizer.py --tables {input.tables:q} --output {output.picture:q}"


rule tokenize:
    input:
        corpus=CORPUS_FILES,
        tokenizer=TOKENS + "/tokenizer.json",
    output:
        shards=SHARDS,
        manifest=TOKENS + "/manifest.json",
    threads: EVERY_CORE
    params:
        depends=lambda wildcards: RECIPES.of_corpus("tokenize", wildcards.corpus, wildcards.tokenizer),
        corpus=CORPUS,
        folder=TOKENS,
        train_shards=CONFIG.train_shards,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/tokenize_corpus.py --corpus {params.corpus:q} --tokenizer {input.tokenizer:q}"
        " --output {params.folder:q} --train-shards {params.train_shards} --threads {threads}"


rule train:
    input:
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
        manifest=run_files(TOKENS + "/manifest.json"),
        shards=run_files(*SHARDS),
    output:
        best=RUN + "/checkpoints/best.safetensors",
        last=RUN + "/checkpoints/last.safetensors",
        curves=expand(RUN + "/{file}", file=CURVES, allow_missing=True),
        samples=report(RUN + "/training_samples.txt", caption="workflow/report/training_samples.rst", category="{run}"),
    log:
        RUN + "/train.log",
    threads: EVERY_CORE
    params:
        depends=of_run("train"),
        model=lambda wildcards: json.dumps(vars(CONFIG.runs[wildcards.run].model)),
        training=section("training"),
        device=lambda wildcards: CONFIG.runs[wildcards.run].sections["device"],
        folder=RUN,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/train.py --model {params.model:q} --training {params.training:q}"
        " --tokenizer {input.tokenizer:q} --manifest {input.manifest:q} --output {params.folder:q}"
        " --device {params.device:q} --threads {threads} --log {log:q}"


rule export:
    input:
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
    output:
        model=expand(RUN + "/model/{file}", file=MODEL_FILES, allow_missing=True),
    params:
        depends=of_run("export"),
        folder=RUN + "/model",
    shell:
        "{PYTHON:q} {SCRIPTS:q}/export.py --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --output {params.folder:q}"


rule evaluate:
    input:
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
        manifest=run_files(TOKENS + "/manifest.json"),
        shards=run_files(*SHARDS),
        texts=run_files(CORPUS + "/train.txt", CORPUS + "/validation.txt"),
    output:
        table=report(RUN + "/evaluation.csv", caption="workflow/report/evaluation.rst", category="{run}"),
    threads: EVERY_CORE
    params:
        depends=of_run("evaluate"),
        stride=lambda wildcards: CONFIG.runs[wildcards.run].sections["evaluation"]["stride_tokens"],
        device=lambda wildcards: CONFIG.runs[wildcards.run].sections["device"],
    shell:
        "{PYTHON:q} {SCRIPTS:q}/evaluate.py --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --manifest {input.manifest:q} --texts {input.texts:q} --stride-tokens {params.stride}"
        " --output {output.table:q} --device {params.device:q} --threads {threads}"


rule sample:
    input:
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
    output:
        text=report(RUN + "/samples.txt", caption="workflow/report/samples.rst", category="{run}"),
        table=RUN + "/samples.csv",
    threads: EVERY_CORE
    params:
        depends=of_run("sample"),
        sampling=section("sampling"),
        device=lambda wildcards: CONFIG.runs[wildcards.run].sections["device"],
    shell:
        "{PYTHON:q} {SCRIPTS:q}/sample.py --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --sampling {params.sampling:q} --text {output.text:q} --table {output.table:q}"
        " --device {params.device:q} --threads {threads}"


rule plot:
    input:
        curves=expand(RUN + "/{file}", file=CURVES, allow_missing=True),
    output:
        pictures=report(
            expand(RUN + "/plots/{picture}", picture=PICTURES, allow_missing=True),
            caption="workflow/report/curves.rst",
            category="{run}",
        ),
    params:
        depends=of_run("plot"),
        run=RUN,
        folder=RUN + "/plots",
    shell:
        "{PYTHON:q} {SCRIPTS:q}/plot.py --run {params.run:q} --output {params.folder:q}"


rule summarize:
    input:
        checkpoints=expand(RUN + "/checkpoints/best.safetensors", run=CONFIG.runs),
        curves=expand(RUN + "/{file}", run=CONFIG.runs, file=["metrics.csv", "throughput.csv"]),
        evaluations=expand(RUN + "/evaluation.csv", run=CONFIG.runs),
    output:
        table=report("results/summary.csv", caption="workflow/report/summary.rst", category="All runs"),
    params:
        depends={run: RECIPES.of_run("summarize", run) for run in CONFIG.runs},
        runs=expand(RUN, run=CONFIG.runs),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/summarize.py --runs {params.runs:q} --output {output.table:q}"
