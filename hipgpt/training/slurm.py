"""Training under Slurm's time limit. A run that is stopped near the limit puts its own job into the queue again."""

import subprocess
import time
from collections.abc import Mapping
from datetime import datetime

from hipgpt.base.log import LOG

# Slurm sends its signal 120 s before the limit (profiles/slurm: --signal=TERM@120), or at the limit. A signal that is
# more than twice as early is the user's (scancel), and that job must not come back.
NEAR_THE_END_SECONDS = 240


def requeue_at_the_time_limit(environment: Mapping[str, str]) -> bool:
    """Ask Slurm to run this job again if its time is nearly over. Return whether Slurm accepted.

    environment: of the process. Outside Slurm it lacks the id of the job, and nothing happens.
    """
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return False
    end = float(environment["SLURM_JOB_END_TIME"]) if "SLURM_JOB_END_TIME" in environment else _end_of(job)
    if end is None or end - time.time() > NEAR_THE_END_SECONDS:
        return False
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        LOG.warning("scontrol requeue %s: %s; start the workflow again to continue", job, done.stderr.strip())
        return False
    LOG.info("job %s goes back into the queue: its time limit is near", job)
    return True


def _end_of(job: str) -> float | None:
    """Return when a job's time ends, in seconds since 1970: Slurm tells it to the job from version 23.02 on only."""
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%e"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    try:
        return datetime.fromisoformat(done.stdout.strip()).timestamp()
    except ValueError:  # N/A: no limit
        return None
