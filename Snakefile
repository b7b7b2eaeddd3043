# The pipeline, top to bottom: corpus and tokenizer; training; what reads one trained run; what reads several runs.
#
# Each rule calls the script of its name in workflow/scripts. Its param `depends` is the recipe of its result
# (hipgpt/pipeline/recipes.py): the settings and the code of the stage and of all stages before it.


report: "workflow/report/workflow.rst"


include: "workflow/rules/config_files.smk"


configfile: workflow.source_path("config.yaml")


include: "workflow/rules/common.smk"


wildcard_constraints:
    corpus="|".join(map(re.escape, CONFIG.corpora)),
    run="|".join(map(re.escape, CONFIG.runs)),
    tokenizer="|".join(map(re.escape, CONFIG.tokenizers)),
    sweep="|".join(map(re.escape, CONFIG.sweeps)) or "none",


onstart:
    if workflow.is_main_process:
        begin_alone()


onsuccess:
    if workflow.is_main_process:
        seal_finished_files()
        show_results()


onerror:
    if workflow.is_main_process:
        seal_finished_files()


rule all:
    """Everything: corpora, tokenizers, shards, trained runs with their figures, samples, plots and pages."""
    input:
        [expand(CORPUS_FILES, corpus=run.corpus) for run in CONFIG.runs.values()],
        [expand(TOKEN_FILES, corpus=run.corpus, tokenizer=run.tokenizer) for run in CONFIG.runs.values()],
        ["results/summary.csv", "results/summary.html"],
        expand(in_run(*TRAINED, *PLOTS, *MODEL_FILES), run=CONFIG.runs),
        expand(in_run("evaluation.csv", "samples.txt", "samples.csv", "report.html"), run=CONFIG.runs),
        expand(RUN + "/playground.html", run=filter(fits_a_page, CONFIG.runs)),
        expand(SWEEP + "/{file}", sweep=CONFIG.sweeps, file=COMPARISON_PICTURES + COMPARISON_TABLES),


rule download:
    """Fetch, verify, clean and split a corpus into training and validation text."""
    output:
        train=CORPUS + "/train.txt",
        validation=CORPUS + "/validation.txt",
        provenance=report(CORPUS + "/provenance.json", caption="workflow/report/provenance.rst", category="Corpus"),
    cache: True
    params:
        depends=of_corpus("download"),
        settings=lambda wildcards: json.dumps(CONFIG.corpora[wildcards.corpus]),
        folder=CORPUS,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/download.py --name {wildcards.corpus:q} --settings {params.settings:q}"
        " --output {params.folder:q}"


rule train_tokenizer:
    """Train a byte-level BPE tokenizer on the training text, or take over an existing one."""
    input:
        text=CORPUS + "/train.txt",
    # outputs are named one by one because --cache asks for it
    output:
        **{Path(table).stem: table for table in TOKENIZER_TABLES},
        tokenizer=TOKENS + "/tokenizer.json",
    cache: True
    threads: EVERY_CORE
    params:
        depends=of_corpus("train_tokenizer"),
        settings=lambda wildcards: json.dumps(CONFIG.tokenizers[wildcards.tokenizer]),
        folder=TOKENS,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/train_tokenizer.py --text {input.text:q} --settings {params.settings:q}"
        " --output {params.folder:q} --threads {threads}"


rule plot_tokenizer:
    """Draw how far the tokenizer's merges compress the text."""
    input:
        tables=TOKENIZER_TABLES,
    output:
        picture=report(TOKENS + "/compression.png", caption="workflow/report/compression.rst", category="Corpus"),
        vectors=TOKENS + "/compression.svg",
    params:
        depends=of_corpus("plot_tokenizer"),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/plot_tokenizer.py --tables {input.tables:q} --output {output.picture:q}"


rule tokenize:
    """Encode the corpus into token shards of llm.c's format."""
    input:
        corpus=CORPUS_FILES,
        tokenizer=TOKENS + "/tokenizer.json",
    # outputs are named one by one because --cache asks for it
    output:
        **{Path(shard).stem: shard for shard in SHARDS},
        manifest=TOKENS + "/manifest.json",
    cache: True
    threads: EVERY_CORE
    params:
        depends=of_corpus("tokenize"),
        corpus=CORPUS,
        folder=TOKENS,
        train_shards=CONFIG.train_shards,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/tokenize_corpus.py --corpus {params.corpus:q} --tokenizer {input.tokenizer:q}"
        " --output {params.folder:q} --train-shards {params.train_shards} --threads {threads}"


rule train:
    """Train a run from its shards: checkpoints, curves, samples on the way."""
    input:
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
        manifest=run_files(TOKENS + "/manifest.json"),
        shards=run_files(*SHARDS),
        corpus=run_files(CORPUS + "/provenance.json"),
    output:
        record=RUN + "/run.json",
        best=RUN + "/checkpoints/best.safetensors",
        last=RUN + "/checkpoints/last.safetensors",
        curves=in_run(*CURVES),
        samples=report(
            RUN + "/training_samples.txt", caption="workflow/report/training_samples.rst", category="Run {run}"
        ),
    log:
        RUN + "/train.log",
    threads: EVERY_CORE
    resources:
        mem_mb=needs("mem_mb"),
        runtime=needs("runtime"),
        gpu=needs("gpu"),
    params:
        depends=of_run("train"),
        model=model,
        training=section("training"),
        device=device,
        pretrained=pretrained_options,
        folder=RUN,
    shell:
        WAIT_FOR_THE_END + "{PYTHON:q} {SCRIPTS:q}/train.py --model {params.model:q} --training {params.training:q}"
        " --tokenizer {input.tokenizer:q} --manifest {input.manifest:q} --corpus {input.corpus:q}"
        " {params.pretrained:q} --output {params.folder:q}"
        " --device {params.device:q} --threads {threads} --log {log:q}"


rule evaluate:
    """Score the best checkpoint on the whole validation split, together with baselines."""
    input:
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
        manifest=run_files(TOKENS + "/manifest.json"),
        shards=run_files(*SHARDS),
        texts=run_files(CORPUS + "/train.txt", CORPUS + "/validation.txt"),
    output:
        table=report(RUN + "/evaluation.csv", caption="workflow/report/evaluation.rst", category="Run {run}"),
    threads: EVERY_CORE
    resources:
        gpu=needs("gpu"),
    params:
        depends=of_run("evaluate"),
        stride=setting("evaluation", "stride_tokens"),
        device=device,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/evaluate.py --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --manifest {input.manifest:q} --texts {input.texts:q} --stride-tokens {params.stride}"
        " --output {output.table:q} --device {params.device:q} --threads {threads}"


rule export:
    """Write the best checkpoint as a Hugging Face directory with a model card."""
    input:
        run=in_run("run.json", "evaluation.csv", *CURVES),
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
    output:
        model=in_run(*MODEL_FILES),
    params:
        depends=of_run("export"),
        run=RUN,
        folder=RUN + "/model",
    shell:
        "{PYTHON:q} {SCRIPTS:q}/export.py --run {params.run:q} --tokenizer {input.tokenizer:q}"
        " --output {params.folder:q}"


rule sample:
    """Continue the configured prompts."""
    input:
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
    output:
        text=report(RUN + "/samples.txt", caption="workflow/report/samples.rst", category="Run {run}"),
        table=RUN + "/samples.csv",
    threads: EVERY_CORE
    resources:
        gpu=needs("gpu"),
    params:
        depends=of_run("sample"),
        sampling=section("sampling"),
        precision=setting("training", "precision"),
        device=device,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/sample.py --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --sampling {params.sampling:q} --precision {params.precision:q} --text {output.text:q} --table {output.table:q}"
        " --device {params.device:q} --threads {threads}"


rule inspect:
    """Look into the best checkpoint: losses of a held-out passage, attention, merges of words."""
    input:
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
        manifest=run_files(TOKENS + "/manifest.json"),
        shards=run_files(*SHARDS),
    output:
        table=RUN + "/inspection.json",
    threads: EVERY_CORE
    resources:
        gpu=needs("gpu"),
    params:
        depends=of_run("inspect"),
        device=device,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/inspect_model.py --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --manifest {input.manifest:q} --output {output.table:q} --device {params.device:q} --threads {threads}"


rule playground:
    """Write a page that runs the trained model in the browser."""
    input:
        checkpoint=RUN + "/checkpoints/best.safetensors",
        tokenizer=run_files(TOKENS + "/tokenizer.json"),
    output:
        page=RUN + "/playground.html",
    params:
        depends=of_run("playground"),
        sampling=section("sampling"),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/playground.py --name {wildcards.run:q} --checkpoint {input.checkpoint:q}"
        " --tokenizer {input.tokenizer:q} --sampling {params.sampling:q} --output {output.page:q}"


rule plot:
    """Draw a run's loss, learning rate and throughput."""
    input:
        curves=in_run(*CURVES),
    output:
        pictures=report(in_run(*PLOTS), caption="workflow/report/curves.rst", category="Run {run}"),
        vectors=in_run(*as_svg(PLOTS)),
    params:
        depends=of_run("plot"),
        run=RUN,
        folder=RUN + "/plots",
    shell:
        "{PYTHON:q} {SCRIPTS:q}/plot.py --run {params.run:q} --output {params.folder:q}"


rule describe:
    """Write a run's page: its figures, curves, samples and provenance."""
    input:
        record=RUN + "/run.json",
        curves=in_run(*CURVES),
        pictures=in_run(*PLOTS),
        texts=in_run("samples.txt", "training_samples.txt"),
        evaluation=RUN + "/evaluation.csv",
        inspection=RUN + "/inspection.json",
    output:
        page=report(RUN + "/report.html", caption="workflow/report/run.rst", category="Run {run}"),
    params:
        depends=of_run("describe"),
        run=RUN,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/describe.py --run {params.run:q} --output {output.page:q}"


rule summarize:
    """Put every run into one table, one row per run."""
    input:
        records=expand(RUN + "/run.json", run=CONFIG.runs),
        curves=expand(in_run(*CURVES), run=CONFIG.runs),
        evaluations=expand(RUN + "/evaluation.csv", run=CONFIG.runs),
    output:
        page=report("results/summary.html", caption="workflow/report/summary.rst", category="All runs"),
        table=report("results/summary.csv", caption="workflow/report/summary.rst", category="All runs"),
    params:
        depends={run: RECIPES.of_run("summarize", run) for run in CONFIG.runs},
        runs=expand(RUN, run=CONFIG.runs),
    shell:
        "{PYTHON:q} {SCRIPTS:q}/summarize.py --runs {params.runs:q} --output {output.table:q} --page {output.page:q}"


rule compare:
    """Compare the runs of a sweep: curves, loss by settings, by parameters and by operations with fitted power laws."""
    input:
        lambda wildcards: expand(in_run("run.json", "evaluation.csv", *CURVES), run=CONFIG.sweeps[wildcards.sweep]),
    output:
        pictures=report(
            expand(SWEEP + "/{file}", file=COMPARISON_PICTURES, allow_missing=True),
            caption="workflow/report/comparison.rst",
            category="Sweep {sweep}",
        ),
        vectors=expand(SWEEP + "/{file}", file=as_svg(COMPARISON_PICTURES), allow_missing=True),
        tables=report(
            expand(SWEEP + "/{file}", file=COMPARISON_TABLES, allow_missing=True),
            caption="workflow/report/comparison.rst",
            category="Sweep {sweep}",
        ),
    params:
        depends=lambda wildcards: {run: RECIPES.of_run("compare", run) for run in CONFIG.sweeps[wildcards.sweep]},
        runs=lambda wildcards: expand(RUN, run=CONFIG.sweeps[wildcards.sweep]),
        folder=SWEEP,
    shell:
        "{PYTHON:q} {SCRIPTS:q}/compare.py --runs {params.runs:q} --output {params.folder:q}"
