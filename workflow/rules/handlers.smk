# What the handlers onstart, onsuccess and onerror of the Snakefile do.

import atexit
import contextlib
import os

from hipgpt.base.errors import UserError
from hipgpt.base.files import alone_in
from hipgpt.interchange.pretrained import check_weights
from hipgpt.pipeline.history import keep
from hipgpt.pipeline.seals import open_seals, seal
from hipgpt.reports.closing import closing

LOCK = contextlib.ExitStack()
REPLACED = []  # the kept runs that this workflow replaces


@exit_on_user_error
def begin_alone():
    """Lock this folder against a second snakemake until this one ends, and prepare results for changes."""
    results = Path("results")
    if results.exists() and not os.access(results, os.W_OK):
        raise UserError("results: cannot be written to; mount it or set its mode so that it can")
    LOCK.enter_context(alone_in(Path(".snakemake"), "another snakemake is at work in this folder"))
    check_pretrained_weights()
    keep_finished_runs()
    open_seals(results)


def jobs_that_train():
    return [job for job in workflow.dag.needrun_jobs() if job.rule.name == "train"]


def check_pretrained_weights():
    """Refuse pretrained weights that do not fit their run, before Snakemake deletes old outputs of that run."""
    for name in [job.wildcards.run for job in jobs_that_train()]:
        run = CONFIG.runs[name]
        try:
            if run.pretrained:
                check_weights(run.pretrained, run.model)
        except UserError as error:
            raise UserError(f"run {name}: {error}") from error


def keep_finished_runs():
    """Keep finished runs that another recipe is about to replace, and say how to go back."""
    for job in jobs_that_train():
        name = job.wildcards.run
        if workflow.persistence.params_changed(job) and (kept := keep(Path("results"), name)):
            REPLACED.append(kept)
            elsewhere = "as `name: NEW` next to them or --config name=NEW" if name == CONFIG.name else "below `runs:`"
            print(
                f"run {name} was finished and will be replaced, because its recipe changed (hipgpt why). "
                f"It is kept in {kept.folder}; to go back: hipgpt restore {name} {kept.id}; "
                f"to have both, give the new settings another name, {elsewhere}",
                file=sys.stderr,
            )


def say_how_to_go_back():
    """Name, after the last line of a failure, each finished run that was to be replaced by one that is not trained."""
    for kept in REPLACED:
        if not Path("results/runs", kept.run, "run.json").exists():
            words = f"the finished run {kept.run} is kept; to go back: hipgpt restore {kept.run} {kept.id}"
            atexit.register(print, words, file=sys.stderr)


def seal_finished_files():
    """Write the hashes of the outputs of all finished jobs."""
    dag = workflow.dag
    jobs = [job for job in dag.jobs if dag.finished(job) or not dag.needrun(job)]
    files = {Path(str(file)) for job in jobs for file in job.output}
    seal(Path("results"), sorted(file for file in files if file.is_file()))


@exit_on_user_error
def show_results():
    """Say how good the models of this workflow are, and how to continue, after the last line of Snakemake."""
    runs = [job.wildcards.run for job in workflow.dag.jobs if job.rule.name == "evaluate"]
    sweeps = [job.wildcards.sweep for job in workflow.dag.jobs if job.rule.name == "compare"]
    overlays = [os.path.relpath(path) for path in workflow.config_settings.configfiles]
    atexit.register(print, closing(Path("results"), runs, overlays, sweeps), end="", file=sys.stderr)
