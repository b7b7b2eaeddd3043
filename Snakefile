# The pipeline, top to bottom: corpus and tokenizer; training; what reads one trained run; what reads several runs.
#
# Each rule calls the script of its name in workflow/scripts. Its param `depends` is the recipe of its result
# (hipgpt/pipeline/recipes.py): the settings and the code of the stage and of all stages before it.


report: "workflow/report/workflow.rst"


include: "workflow/rules/config_files.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/handlers.smk"


wildcard_constraints:
    corpus="|".join(map(re.escape, CONFIG.corpora)),
    run="|".join(map(re.escape, CONFIG.runs)),
    tokenizer="|".join(map(re.escape, CONFIG.tokenizers)),
    sweep="|".join(map(re.escape, CONFIG.sweeps)) or "none",
    shard="(train|validation)_[0-9]{5}",


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
        say_how_to_go_back()


rule all:
    """Everything: corpora, tokenizers, shards, trained runs with their figures, samples, plots and pages."""
    input:
        [expand(KEPT_CORPUS_FILES, corpus=run.corpus) for run in CONFIG.runs.values()],
        [expand(TOKEN_FILES, corpus=run.corpus, tokenizer=run.tokenizer) for run in CONFIG.runs.values()],
        ["results/summary.csv", "results/summary.html"],
        expand(in_run(*TRAINED, *PLOTS, *as_svg(PLOTS), *MODEL_FILES), run=CONFIG.runs),
        expand(in_run("evaluation.csv", "samples.txt", "samples.csv", "report.html"), run=CONFIG.runs),
        [playground_of(run) for run in CONFIG.runs],
        [answers(run) for run in CONFIG.runs],
        expand(f"{SWEEP}/{{file}}", sweep=CONFIG.sweeps, file=COMPARISONS),


rule download:
    """Fetch, verify, clean and split a corpus into training and validation text."""
    output:
        train=text(f"{CORPUS}/train.txt"),
        validation=text(f"{CORPUS}/validation.txt"),
        documents=text(f"{CORPUS}/documents.bin"),
        provenance=in_report(f"{CORPUS}/provenance.json", "provenance", "Corpora", "{corpus}"),
    log:
        f"{CORPUS}/logs/download.log",
    cache: True
    params:
        script=script("download.py"),
        depends=of_corpus("download"),
        settings=lambda wildcards: json.dumps(CONFIG.corpora[wildcards.corpus]),
        folder=folder_of("train"),
    shell:
        "{params.script} --name {wildcards.corpus:q} --settings {params.settings:q}"
        " --output {params.folder:q} --log {log:q}"


rule train_tokenizer:
    """Train a byte-level BPE tokenizer on the training text, or take over an existing one."""
    input:
        text=f"{CORPUS}/train.txt",
    # outputs are named one by one because --cache asks for it
    output:
        **{Path(table).stem: table for table in TOKENIZER_TABLES},
        tokenizer=f"{TOKENS}/tokenizer.json",
    log:
        f"{TOKENS}/logs/train_tokenizer.log",
    cache: True
    threads: EVERY_CORE
    params:
        script=script("train_tokenizer.py"),
        depends=of_corpus("train_tokenizer"),
        settings=lambda wildcards: json.dumps(CONFIG.tokenizers[wildcards.tokenizer]),
        folder=folder_of("tokenizer"),
    shell:
        "{params.script} --text {input.text:q} --settings {params.settings:q}"
        " --output {params.folder:q} --threads {threads} --log {log:q}"


rule plot_tokenizer:
    """Draw how far the tokenizer's merges compress the text."""
    input:
        tables=TOKENIZER_TABLES,
    output:
        picture=in_report(f"{TOKENS}/compression.png", "compression", "Corpora", "{corpus}"),
        vectors=f"{TOKENS}/compression.svg",
    log:
        f"{TOKENS}/logs/plot_tokenizer.log",
    params:
        script=script("plot_tokenizer.py"),
        depends=of_corpus("plot_tokenizer"),
    shell:
        "{params.script} --tables {input.tables:q} --output {output.picture:q} --log {log:q}"


rule tokenize:
    """Encode one part of the corpus into a token shard of llm.c's format."""
    input:
        corpus=CORPUS_FILES,
        tokenizer=f"{TOKENS}/tokenizer.json",
    output:
        shard=f"{TOKENS}/{{shard}}.bin",
    log:
        f"{TOKENS}/logs/tokenize_{{shard}}.log",
    cache: True
    threads: EVERY_CORE
    params:
        script=script("tokenize_corpus.py"),
        depends=of_corpus("tokenize"),
        corpus=lambda wildcards, input: str(Path(input.corpus[0]).parent),
        shard=lambda wildcards: wildcards.shard,  # Snakemake's cache has params in its keys, but not wildcards
        train_shards=CONFIG.train_shards,
    shell:
        "{params.script} --corpus {params.corpus:q} --tokenizer {input.tokenizer:q} --output {output.shard:q}"
        " --train-shards {params.train_shards} --threads {threads} --log {log:q}"


rule manifest:
    """List the token shards with their sizes and hashes."""
    input:
        corpus=CORPUS_FILES,
        tokenizer=f"{TOKENS}/tokenizer.json",
        shards=SHARDS,
    output:
        manifest=f"{TOKENS}/manifest.json",
    log:
        f"{TOKENS}/logs/manifest.log",
    cache: True
    params:
        script=script("write_manifest.py"),
        depends=of_corpus("manifest"),
        corpus=lambda wildcards, input: str(Path(input.corpus[0]).parent),
        train_shards=CONFIG.train_shards,
        folder=folder_of("manifest"),
    shell:
        "{params.script} --corpus {params.corpus:q} --tokenizer {input.tokenizer:q} --output {params.folder:q}"
        " --train-shards {params.train_shards} --log {log:q}"


rule baselines:
    """Score predictors without a network on the validation split: n-grams and LZMA."""
    input:
        tokenizer=f"{TOKENS}/tokenizer.json",
        manifest=f"{TOKENS}/manifest.json",
        shards=SHARDS,
    output:
        table=f"{TOKENS}/baselines.csv",
    log:
        f"{TOKENS}/logs/baselines.log",
    cache: True
    threads: 3  # two compress, one counts n-grams
    resources:
        mem_mb=8_000,  # several arrays of 50 million tokens
    params:
        script=script("baselines.py"),
        depends=of_corpus("baselines"),
    shell:
        "{params.script} --tokenizer {input.tokenizer:q} --manifest {input.manifest:q} --output {output.table:q}"
        " --log {log:q}"


rule train:
    """Train a run from its shards: checkpoints, curves, samples on the way."""
    input:
        tokenizer=run_files(f"{TOKENS}/tokenizer.json"),
        manifest=run_files(f"{TOKENS}/manifest.json"),
        shards=run_files(*SHARDS),
        corpus=run_files(f"{CORPUS}/provenance.json"),
    output:
        record=f"{RUN}/run.json",
        best=f"{RUN}/checkpoints/best.safetensors",
        last=f"{RUN}/checkpoints/last.safetensors",
        curves=in_run(*CURVES),
        samples=in_report_of_run(f"{RUN}/training_samples.txt", "training_samples"),
    log:
        f"{RUN}/logs/train.log",
    threads: EVERY_CORE
    resources:
        mem_mb=needs("mem_mb"),
        runtime=needs("runtime"),
        gpu=needs("gpu"),
    params:
        starter=starter,
        script=script("train.py"),
        depends=of_run("train"),
        model=model,
        training=training,
        device=device,
        devices=devices,
        pretrained=pretrained_options,
        trackers=trackers,
        folder=folder_of("record"),
    shell:
        "{params.starter}{params.script} --model {params.model:q} --training {params.training:q}"
        " --tokenizer {input.tokenizer:q} --manifest {input.manifest:q} --corpus {input.corpus:q}"
        " {params.pretrained:q} {params.trackers:q} --output {params.folder:q}"
        " --device {params.device:q} --devices {params.devices:q} --threads {threads} --log {log:q} 2>&3"


rule evaluate:
    """Score the best checkpoint on the whole validation split, together with baselines."""
    input:
        checkpoint=f"{RUN}/checkpoints/best.safetensors",
        tokenizer=run_files(f"{TOKENS}/tokenizer.json"),
        manifest=run_files(f"{TOKENS}/manifest.json"),
        shards=run_files(*SHARDS),
        baselines=run_files(f"{TOKENS}/baselines.csv"),
    output:
        table=in_report_of_run(f"{RUN}/evaluation.csv", "evaluation"),
    log:
        f"{RUN}/logs/evaluate.log",
    threads: EVERY_CORE
    resources:
        gpu=needs("gpu"),
    params:
        script=script("evaluate.py"),
        depends=of_run("evaluate"),
        stride=setting("evaluation", "stride_tokens"),
        device=device,
    shell:
        "{params.script} --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --manifest {input.manifest:q} --baselines {input.baselines:q} --stride-tokens {params.stride}"
        " --output {output.table:q} --device {params.device:q} --threads {threads} --log {log:q}"


rule answer:
    """Let the best checkpoint answer multiple-choice questions."""
    input:
        checkpoint=f"{RUN}/checkpoints/best.safetensors",
        tokenizer=run_files(f"{TOKENS}/tokenizer.json"),
    output:
        table=in_report_of_run(f"{RUN}/tasks.csv", "tasks"),
    log:
        f"{RUN}/logs/answer.log",
    threads: EVERY_CORE
    resources:
        gpu=needs("gpu"),
    params:
        script=script("answer.py"),
        depends=of_run("answer"),
        tasks=section("tasks"),
        device=device,
    shell:
        "{params.script} --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q} --tasks {params.tasks:q}"
        " --output {output.table:q} --device {params.device:q} --threads {threads} --log {log:q}"


rule export:
    """Write the best checkpoint as a Hugging Face directory with a model card."""
    input:
        run=in_run("run.json", "evaluation.csv", *CURVES),
        checkpoint=f"{RUN}/checkpoints/best.safetensors",
        tokenizer=run_files(f"{TOKENS}/tokenizer.json"),
    output:
        model=in_run(*MODEL_FILES),
    log:
        f"{RUN}/logs/export.log",
    params:
        script=script("export.py"),
        depends=of_run("export"),
        run=lambda wildcards, input: run_of(input.run),
        card=card,
        folder=folder_of(0),
    shell:
        "{params.script} --run {params.run:q} --tokenizer {input.tokenizer:q} --card {params.card:q}"
        " --output {params.folder:q} --log {log:q}"


rule sample:
    """Continue the configured prompts."""
    input:
        checkpoint=f"{RUN}/checkpoints/best.safetensors",
        tokenizer=run_files(f"{TOKENS}/tokenizer.json"),
    output:
        text=in_report_of_run(f"{RUN}/samples.txt", "samples"),
        table=f"{RUN}/samples.csv",
    log:
        f"{RUN}/logs/sample.log",
    threads: EVERY_CORE
    resources:
        gpu=needs("gpu"),
    params:
        script=script("sample.py"),
        depends=of_run("sample"),
        sampling=section("sampling"),
        precision=setting("training", "precision"),
        device=device,
    shell:
        "{params.script} --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --sampling {params.sampling:q} --precision {params.precision:q} --text {output.text:q} --table {output.table:q}"
        " --device {params.device:q} --threads {threads} --log {log:q}"


rule inspect:
    """Look into the best checkpoint: losses of a held-out passage, attention, merges of words."""
    input:
        checkpoint=f"{RUN}/checkpoints/best.safetensors",
        tokenizer=run_files(f"{TOKENS}/tokenizer.json"),
        manifest=run_files(f"{TOKENS}/manifest.json"),
        shards=run_files(*SHARDS),
    output:
        table=f"{RUN}/inspection.json",
    log:
        f"{RUN}/logs/inspect.log",
    threads: EVERY_CORE
    resources:
        gpu=needs("gpu"),
    params:
        script=script("inspect_model.py"),
        depends=of_run("inspect"),
        device=device,
    shell:
        "{params.script} --checkpoint {input.checkpoint:q} --tokenizer {input.tokenizer:q}"
        " --manifest {input.manifest:q} --output {output.table:q} --device {params.device:q} --threads {threads}"
        " --log {log:q}"


rule playground:
    """Write a page that runs the trained model in the browser."""
    input:
        checkpoint=f"{RUN}/checkpoints/best.safetensors",
        tokenizer=run_files(f"{TOKENS}/tokenizer.json"),
    output:
        page=f"{RUN}/playground.html",
    log:
        f"{RUN}/logs/playground.log",
    params:
        script=script("playground.py"),
        depends=of_run("playground"),
        sampling=section("sampling"),
    shell:
        "{params.script} --name {wildcards.run:q} --checkpoint {input.checkpoint:q}"
        " --tokenizer {input.tokenizer:q} --sampling {params.sampling:q} --output {output.page:q}"
        " --log {log:q}"


rule plot:
    """Draw a run's loss, learning rate and throughput."""
    input:
        curves=in_run(*CURVES),
    output:
        pictures=[in_report_of_run(picture, "curves") for picture in in_run(*PLOTS)],
        vectors=in_run(*as_svg(PLOTS)),
    log:
        f"{RUN}/logs/plot.log",
    params:
        script=script("plot.py"),
        depends=of_run("plot"),
        run=lambda wildcards, input: str(Path(input.curves[0]).parent),
        folder=folder_of(0),
    shell:
        "{params.script} --run {params.run:q} --output {params.folder:q} --log {log:q}"


rule describe:
    """Write a run's page: its figures, curves, samples and provenance."""
    input:
        record=f"{RUN}/run.json",
        curves=in_run(*CURVES),
        pictures=in_run(*PLOTS),
        texts=in_run("samples.txt", "training_samples.txt"),
        evaluation=f"{RUN}/evaluation.csv",
        inspection=f"{RUN}/inspection.json",
        tasks=lambda wildcards: answers(wildcards.run),
        playground=lambda wildcards: playground_of(wildcards.run),  # it has a link to it
    output:
        page=in_report_of_run(f"{RUN}/report.html", "run"),
    log:
        f"{RUN}/logs/describe.log",
    params:
        script=script("describe.py"),
        depends=of_run("describe"),
        run=lambda wildcards, input: str(Path(input.record).parent),
    shell:
        "{params.script} --run {params.run:q} --tasks {input.tasks:q} --output {output.page:q} --log {log:q}"


rule summarize:
    """Put every run into one table, one row per run."""
    input:
        records=expand(f"{RUN}/run.json", run=CONFIG.runs),
        curves=expand(in_run(*CURVES), run=CONFIG.runs),
        evaluations=expand(f"{RUN}/evaluation.csv", run=CONFIG.runs),
    output:
        table=in_report("results/summary.csv", "summary", "All runs"),
    log:
        "results/logs/summarize.log",
    params:
        script=script("summarize.py"),
        depends={run: RECIPES.of_run("summarize", run) for run in CONFIG.runs},
        runs=lambda wildcards, input: run_of(input.records),
    shell:
        "{params.script} --runs {params.runs:q} --output {output.table:q} --log {log:q}"


rule overview:
    """Write the page of all runs. The pages of the runs are among its inputs, because it has links to them."""
    input:
        records=expand(f"{RUN}/run.json", run=CONFIG.runs),
        curves=expand(in_run(*CURVES), run=CONFIG.runs),
        evaluations=expand(f"{RUN}/evaluation.csv", run=CONFIG.runs),
        pages=expand(f"{RUN}/report.html", run=CONFIG.runs),
    output:
        page=in_report("results/summary.html", "summary", "All runs"),
    log:
        "results/logs/overview.log",
    params:
        script=script("overview.py"),
        depends={run: RECIPES.of_run("overview", run) for run in CONFIG.runs},
        runs=lambda wildcards, input: run_of(input.records),
    shell:
        "{params.script} --runs {params.runs:q} --output {output.page:q} --log {log:q}"


rule compare:
    """Compare the runs of a sweep: curves, loss by settings, by parameters and by operations with fitted power laws."""
    input:
        lambda wildcards: expand(in_run("run.json", "evaluation.csv", *CURVES), run=CONFIG.sweeps[wildcards.sweep]),
    output:
        pictures=[in_report(f"{SWEEP}/{file}", "comparison", "Sweeps", "{sweep}") for file in COMPARISON_PICTURES],
        vectors=expand(f"{SWEEP}/{{file}}", file=as_svg(COMPARISON_PICTURES), allow_missing=True),
        tables=[in_report(f"{SWEEP}/{file}", "comparison", "Sweeps", "{sweep}") for file in COMPARISON_TABLES],
    log:
        f"{SWEEP}/logs/compare.log",
    params:
        script=script("compare.py"),
        depends=lambda wildcards: {run: RECIPES.of_run("compare", run) for run in CONFIG.sweeps[wildcards.sweep]},
        runs=lambda wildcards, input: run_of(input),
        folder=folder_of(0),
    shell:
        "{params.script} --runs {params.runs:q} --output {params.folder:q} --log {log:q}"
