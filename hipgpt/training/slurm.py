"""Training under Slurm's time limit: a run that is stopped near it puts its own job into the queue again."""

import subprocess
import time
from collections.abc import Mapping

from hipgpt.base.log import LOG

# The signal comes this long before the limit (profiles/slurm: --signal=TERM@120), or at it; a stop earlier than twice
# that is the user's (scancel), whose job shall not come back.
NEAR_THE_END_SECONDS = 240


def requeue_at_the_time_limit(environment: Mapping[str, str]) -> bool:
    """Ask Slurm to run this job again, from its beginning, if its time is nearly over; return whether it was asked.

    environment: of the process; outside Slurm it lacks the job's id and end, and nothing happens.
    """
    job, end = environment.get("SLURM_JOB_ID"), environment.get("SLURM_JOB_END_TIME")
    if job is None or end is None or float(end) - time.time() > NEAR_THE_END_SECONDS:
        return False
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        LOG.warning("scontrol requeue %s: %s; start the workflow again to go on", job, done.stderr.strip())
        return False
    LOG.info("job %s goes back into the queue: its time limit is near", job)
    return True
