"""List the jobs that Snakemake would run, and its reasons for each, from its graph of jobs.

    python -m hipgpt.pipeline.planned_jobs JOBS.json [arguments of snakemake]

Snakemake 9 has no public call for this, so its command line is run up to the point where it would execute the graph.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snakemake.api import DAGApi
from snakemake.cli import main as snakemake


def write_planned_jobs(path: Path, arguments: list[str]) -> None:
    """Write a JSON list with an object for each job that would run. Exit with the status of Snakemake."""

    def write_instead_of_execution(dag_api: DAGApi, *_: Any, **__: Any) -> None:
        workflow = dag_api.workflow_api._workflow
        workflow._prepare_dag(forceall=dag_api.dag_settings.forceall, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        path.write_text(json.dumps(list(planned_jobs(workflow.dag))), encoding="utf-8")

    DAGApi.execute_workflow = write_instead_of_execution
    snakemake(["--dry-run", "--cores", "1", *arguments])


def planned_jobs(dag: Any) -> Iterator[dict[str, Any]]:
    """Yield the fields of a hipgpt.pipeline.reasons.Job for each job that would run."""
    for job in dag.needrun_jobs(exclude_finished=False):  # a dry run counts its jobs as finished
        reason = dag.reason(job)
        yield {
            "rule": job.rule.name,
            "wildcards": dict(job.wildcards_dict),
            "outputs": list(map(str, job.output)),
            "missing_outputs": sorted(map(str, reason.missing_output)),
            "incomplete_outputs": sorted(map(str, reason.incomplete_output)),
            "updated_inputs": sorted(map(str, reason.updated_input - reason.updated_input_run)),
            "inputs_of_planned_jobs": sorted(map(str, reason.updated_input_run)),
            "params_before": sorted(reason.params_changed.only_old),
            "params_now": sorted(reason.params_changed.only_new),
            "other_inputs": bool(reason.input_changed),
            "other_command": bool(reason.code_changed),
            "forced": bool(reason.forced),
        }


if __name__ == "__main__":
    write_planned_jobs(Path(sys.argv[1]), sys.argv[2:])
