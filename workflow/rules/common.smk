# Definitions that the rules share: the checked config, the paths of results, and functions that read a run's settings.

import json
import re
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")

from hipgpt.base.errors import exit_on_user_error
from hipgpt.config.stated import stated
from hipgpt.pipeline.recipes import Recipes, check_sources
from hipgpt.pipeline.seals import check_seals
from hipgpt.pipeline.stage_lines import StageLines
from hipgpt.pipeline.sweeps import load_runs
from hipgpt.reports.page_size import fits_a_page
from hipgpt.training.estimate import job_resources

# Snakemake gives a module's rules its name as __name__, and those of the workflow itself none. The results of a workflow
# that has `module hipgpt:` are its own business: it has handlers of its own.
IS_MODULE = bool(__name__)


@exit_on_user_error
def checked_config():
    """Return the config of every run, after a look at its sources and at the files that are finished."""
    checked = load_runs(config)
    check_sources(checked)
    if workflow.is_main_process and not IS_MODULE:
        check_seals(Path("results"))
    return checked


CONFIG = checked_config()
StageLines.workflow = workflow  # for the reasons in a dry run
RECIPES = Recipes(CONFIG)
EVERY_CORE = 1024  # more than any machine has, because Snakemake gives a job at most --cores
# Slurm sends SIGTERM to every process of a job. The shell must wait for training to save its state, because Snakemake
# deletes the outputs of a job whose shell has ended.
# Its stderr is closed to it, because it would print the whole command if the process is killed.
WAIT_FOR_THE_END = "trap : TERM; exec 3>&2 2>/dev/null; "

CORPUS = "results/corpora/{corpus}"
TOKENS = "results/corpora/{corpus}/{tokenizer}"
RUN = "results/runs/{run}"
SWEEP = "results/sweeps/{sweep}"
CORPUS_TEXTS = [f"{CORPUS}/{name}" for name in ("train.txt", "validation.txt", "documents.bin")]
CORPUS_FILES = [*CORPUS_TEXTS, f"{CORPUS}/provenance.json"]
KEPT_CORPUS_FILES = CORPUS_FILES if CONFIG.keep_text else CORPUS_FILES[len(CORPUS_TEXTS) :]
TOKENIZER_TABLES = [f"{TOKENS}/merges.csv", f"{TOKENS}/compression.csv"]
SHARDS = [f"{TOKENS}/train_{number:05d}.bin" for number in range(CONFIG.train_shards)]
SHARDS += [f"{TOKENS}/validation_00000.bin"]
TOKEN_FILES = [
    *TOKENIZER_TABLES,
    *(f"{TOKENS}/{name}" for name in ("compression.png", "compression.svg", "tokenizer.json", "manifest.json")),
    f"{TOKENS}/baselines.csv",
]
TOKEN_FILES += SHARDS
CURVES = ["metrics.csv", "validation.csv", "throughput.csv"]
TRAINED = ["run.json", "checkpoints/best.safetensors", "checkpoints/last.safetensors", *CURVES, "training_samples.txt"]
PLOTS = ["plots/loss.png", "plots/learning_rate.png", "plots/throughput.png"]
MODEL_FILES = ["model/model.safetensors", "model/config.json", "model/generation_config.json", "model/README.md"]
MODEL_FILES += ["model/tokenizer.json", "model/tokenizer_config.json"]
COMPARISON_PICTURES = ["curves.png", "settings.png", "parallel.png", "loss_by_parameters.png", "loss_by_operations.png"]
COMPARISON_TABLES = ["runs.csv", "seeds.csv", "fit.csv"]


class Command(dict):
    """The beginning of a command. As JSON it is an empty dict, because Snakemake's cache has params as JSON in its keys:
    every checkout has its own path, and all shall find the same result."""

    def __init__(self, words):
        self.words = words

    def __str__(self):
        return self.words


def script(name):
    """Return a function: the beginning of the command that runs a script of workflow/scripts.

    The function takes `output`, because Snakemake compares all params with those of the last run
    except functions of `output`. Another Python or another place of the checkout therefore reruns nothing.
    """
    program = [sys.executable, str(ROOT / "workflow" / "scripts" / name)]
    command = Command(" ".join(map(shlex.quote, program)))
    return lambda wildcards, output: command


def starter(wildcards, output, resources):
    """Return what comes before the command of a training: shell code, and the program that starts the tasks of a job
    with several of them, such as `srun -n 16` (profiles/slurm).

    Slurm's own variables, which would tell srun how many, do not reach it: the executor plugin removes them.
    """
    if "mpi" not in resources.keys():
        return WAIT_FOR_THE_END
    asked = {name: int(resources.get(name, 1)) for name in ("tasks", "nodes", "tasks_per_node", "cpus_per_task")}
    tasks = asked["tasks"] if "tasks" in resources.keys() else asked["nodes"] * asked["tasks_per_node"]
    # without the option, Slurm leaves the other tasks of a dead one where they wait for it
    options = ["--kill-on-bad-exit=1", "-c", str(asked["cpus_per_task"])] if resources["mpi"] == "srun" else []
    return WAIT_FOR_THE_END + shlex.join([resources["mpi"], "-n", str(tasks), *options]) + " "


def text(file):
    """Return an output that Snakemake deletes after its last use if `keep_text` is false."""
    return file if CONFIG.keep_text else temp(file)


def folder_of(file):
    """Return a function: the folder of an output. `prefix:` of a module changes paths of outputs, but not params."""
    return lambda wildcards, output: str(Path(str(output[file])).parent)


def in_report_of_run(file, caption):
    """Return an output of a run that the report shows, under the run's name and the name of the file."""
    return in_report(file, caption, "Runs", "{run}")


def in_report(file, caption, category, subcategory=None):
    """Return an output that the report shows, in the table of its category under the name of the file."""
    words, labels = f"workflow/report/{caption}.rst", {"result": Path(file).name}
    return report(file, caption=words, category=category, subcategory=subcategory, labels=labels)


def answers(run):
    """Return tasks.csv of a run that has tasks, as a list."""
    return expand(f"{RUN}/tasks.csv", run=run) if CONFIG.runs[run].sections["tasks"] else []


def playground_of(run):
    """Return playground.html of a run whose model a page can hold, as a list."""
    return expand(f"{RUN}/playground.html", run=run) if fits_a_page(CONFIG.runs[run].model) else []


def run_of(files):
    """Return the folders of the runs whose files, such as run.json, are given."""
    return [str(Path(file).parent) for file in files if Path(file).name == "run.json"]


def as_svg(pictures):
    """Return the names of the same pictures as SVG."""
    return [picture.replace(".png", ".svg") for picture in pictures]


COMPARISONS = COMPARISON_PICTURES + as_svg(COMPARISON_PICTURES) + COMPARISON_TABLES


def in_run(*files):
    """Paths of files of a run."""
    return [f"{RUN}/{file}" for file in files]


def run_files(*patterns):
    """Return a function of the wildcards: the paths, with the corpus and the tokenizer of the run filled in."""

    def of_wildcards(wildcards):
        run = CONFIG.runs[wildcards.run]
        return expand(patterns, corpus=run.corpus, tokenizer=run.tokenizer)

    return of_wildcards


def of_corpus(stage):
    """Return a function of the wildcards: the recipe of a stage before training."""
    return lambda wildcards: RECIPES.of_corpus(stage, wildcards.corpus, wildcards.get("tokenizer"))


def of_run(stage):
    """Return a function of the wildcards: the recipe of the train stage or of a later one."""
    return lambda wildcards: RECIPES.of_run(stage, wildcards.run)


def section(key):
    """Return a function of the wildcards: a section of the run's config, as JSON for a script."""
    return lambda wildcards: json.dumps(CONFIG.runs[wildcards.run].sections[key])


def setting(key, name):
    """Return a function of the wildcards: one value of a section of the run's config."""
    return lambda wildcards: CONFIG.runs[wildcards.run].sections[key][name]


def device(wildcards, output):
    """Return the device that runs a stage. It takes `output`, so that another one reruns nothing."""
    return CONFIG.runs[wildcards.run].sections["device"]


def devices(wildcards, output):
    """Return how many devices train the run. It takes `output`, so that another number reruns nothing."""
    return CONFIG.runs[wildcards.run].sections["devices"]


def model(wildcards):
    return json.dumps(stated(CONFIG.runs[wildcards.run].model))


def training(wildcards, output):
    """Return the training section as JSON.

    It takes `output`, so that Snakemake does not compare it: the recipe has the keys that decide results.
    """
    return json.dumps(CONFIG.runs[wildcards.run].sections["training"])


def card(wildcards, output):
    """Return what the model card says of the run's sources, as JSON. It takes `output` for the same reason."""
    return json.dumps(CONFIG.card(wildcards.run))


def pretrained_options(wildcards):
    pretrained = CONFIG.runs[wildcards.run].pretrained
    return ["--pretrained", str(pretrained)] if pretrained else []


def trackers(wildcards, output):
    """Return the option that names the run's trackers. It takes `output`, so that another list reruns nothing."""
    return ["--trackers", *CONFIG.runs[wildcards.run].trackers]


def needs(resource):
    """Return a function of the wildcards: how much of a resource the training of the run asks a cluster for.

    On one machine, profiles/default limits `gpu`, so that two runs never share a GPU. A run that trains on several, or on
    all (`devices: auto`), takes what the limit allows, as a rule takes as many threads as there are.
    """
    limits = workflow.global_resources

    def of_wildcards(wildcards):
        run = CONFIG.runs[wildcards.run]
        needed = job_resources(run.model, run.training, run.sections["device"], run.sections["devices"])[resource]
        if resource == "gpu" and needed and run.sections["devices"] == "auto" and resource in limits:
            return limits[resource].value
        return min(needed, limits[resource].value) if resource in limits else needed

    return of_wildcards
