"""Faults: whatever happens to a run, a plain rerun ends in the same bytes, or in a line that says what to do."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.workflow_copy import NOT_REPRODUCIBLE, Project

from hipgpt.base.errors import UserError
from hipgpt.base.files import alone_in, append, replacing
from hipgpt.pipeline.seals import LEDGER, check_seals, open_seals, seal

pytestmark = pytest.mark.slow


def contents(project: Project) -> dict[str, bytes]:
    """Return every reproducible file of results; the state a run resumes from is no result."""
    results = project.folder / "results"
    return {
        path.relative_to(results).as_posix(): path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file() and "state" not in path.parts and path.name not in NOT_REPRODUCIBLE
    }


@pytest.fixture(scope="module")
def expected(finished) -> dict[str, bytes]:
    return contents(finished)


@pytest.fixture
def project(changed) -> Project:
    """A copy of the finished project, to damage at will."""
    return changed


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit])
@pytest.mark.parametrize("dated", ["now", "as before"])
def test_damage_of_any_artifact_is_named_before_anything_is_built_on_it(project, damage, dated):
    results = project.folder / "results"
    sealed = [path for path in results.rglob("*") if path.is_file() and path.name != LEDGER and path.suffix != ".log"]
    sealed = [path for path in sealed if "state" not in path.parts]
    assert {path.name for path in sealed} >= {"train.txt", "tokenizer.json", "manifest.json", "best.safetensors",
        "metrics.csv", "evaluation.csv", "samples.txt", "loss.png", "model.safetensors", "summary.csv"}  # fmt: skip
    for path in sealed:
        whole, dates = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        damage(path)
        if dated == "as before":
            os.utime(path, ns=dates)
        with pytest.raises(UserError) as error:
            check_seals(results)
        assert str(error.value).startswith(f"{path}: changed since it was made")
        assert str(error.value).endswith("; delete it and run the same command again")
        path.write_bytes(whole)
        os.utime(path, ns=dates)
    check_seals(results)


def test_a_first_start_that_finishes_nothing_leaves_no_list(tmp_path):
    open_seals(tmp_path)
    seal(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    check_seals(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda path: os.truncate(path, path.stat().st_size - 1), lambda path: path.write_bytes(b"")]
)
def test_a_damaged_list_of_hashes_is_named(project, damage):
    damage(project.folder / "results" / LEDGER)
    with pytest.raises(UserError, match=f"{LEDGER}: this list of hashes is damaged; delete it"):
        check_seals(project.folder / "results")


def test_a_seal_reads_no_file_outside_its_folder(tmp_path):
    (tmp_path / LEDGER).write_text(f"{'0' * 64}  ../../etc/passwd\n")
    with pytest.raises(UserError, match=f"{LEDGER}: this list of hashes is damaged"):
        check_seals(tmp_path)


def test_sha256sum_reads_the_seals(tmp_path):
    (tmp_path / "a b").write_bytes(b"text")
    seal(tmp_path, [tmp_path / "a b"])
    done = subprocess.run(["sha256sum", "--check", LEDGER], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "a b: OK\n" and done.returncode == 0


def test_files_that_a_killed_workflow_wrote_are_trusted_and_older_ones_are_not(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for file in (old, new):
        file.write_bytes(b"text")
    seal(tmp_path, [old, new])
    dates = old.stat().st_mtime_ns
    open_seals(tmp_path)
    for file in (old, new):
        file.write_bytes(b"tixt")
    os.utime(old, ns=(dates, dates))
    with pytest.raises(UserError, match="old: changed since it was made"):
        check_seals(tmp_path)
    old.write_bytes(b"text")
    open_seals(tmp_path)  # the start after the kill
    check_seals(tmp_path)
    seal(tmp_path, [new])
    flip_a_bit(new)
    with pytest.raises(UserError, match="new: changed since it was made"):
        check_seals(tmp_path)


def test_a_file_that_a_stopped_stage_changed_loses_its_hash(tmp_path):
    curve, other = tmp_path / "metrics.csv", tmp_path / "train.txt"
    for file in (curve, other):
        file.write_bytes(b"finished")
    seal(tmp_path, [curve, other])
    open_seals(tmp_path)
    curve.write_bytes(b"half")
    seal(tmp_path, [])  # after Ctrl-C: the stage that writes it has not finished
    check_seals(tmp_path)
    assert (tmp_path / LEDGER).read_text().split()[1:] == ["train.txt"]


DAMAGED = [
    "corpora/tiny/train.txt",
    "corpora/tiny/bpe-290/train_00001.bin",
    "runs/default/checkpoints/best.safetensors",
]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_stops_the_workflow_and_without_it_the_bytes_come_back(project, name):
    path = project.folder / "results" / name
    whole = path.read_bytes()
    flip_a_bit(path)
    output = project.snakemake("all", expect=1)
    assert f"error: results/{name}: changed since it was made" in output and "Traceback" not in output
    path.unlink()
    project.snakemake(f"results/{name}")
    assert path.read_bytes() == whole


# What each stage writes, and a limit under the size of one of its files.
STAGES = {
    "download": (["corpora/tiny/train.txt"], 900_000),
    "train_tokenizer": (["corpora/tiny/bpe-290/tokenizer.json"], 4_000),
    "tokenize": (["corpora/tiny/bpe-290/train_00000.bin"], 300_000),
    "train": (["runs/default/checkpoints/best.safetensors"], 100_000),
    "export": (["runs/default/model/model.safetensors"], 30_000),
    "evaluate": (["runs/default/evaluation.csv"], 200),
    "sample": (["runs/default/samples.txt"], 20),
    "plot": (["runs/default/plots/loss.png"], 30_000),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_ends_a_stage_with_one_line_and_no_half_file(project, expected, stage):
    """RLIMIT_FSIZE stands for the full disk: the same call fails, in the script of this stage alone."""
    files, limit = STAGES[stage]
    targets = [f"results/{name}" for name in files]
    for target in targets:
        (project.folder / target).unlink()
    shutil.rmtree(project.folder / "results/runs/default/state")
    script = project.folder / "workflow/scripts" / f"{'tokenize_corpus' if stage == 'tokenize' else stage}.py"
    text = script.read_text()
    script.write_text(f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n{text}")
    output = project.snakemake(*targets, expect=1)
    assert "File too large; make room and run the same command again" in output and "Traceback" not in output
    assert not list((project.folder / "results").rglob("*.partial"))
    script.write_text(text)
    project.snakemake(*targets)
    assert {name: (project.folder / "results" / name).read_bytes() for name in files} == {
        name: expected[name] for name in files
    }


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(small_disk, tmp_path, expected):
    project = Project(tmp_path / "project")
    (project.folder / "results").symlink_to(small_disk)
    output = project.snakemake("all", expect=1)
    assert "No space left on device; make room and run the same command again" in output
    assert "Traceback" not in output
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    project.snakemake("all")
    assert contents(project) == expected


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["samples.txt"], "Write-protected output files for rule"),  # Snakemake's words
        (
            ["samples.txt", "samples.csv", "report.html", "../../summary.html"],
            "error: results: cannot be written to; mount it or set its mode so that it can",
        ),
    ],
)
def test_read_only_results(project, expected, missing, message):
    """In a mount namespace of its own, since root may write to a folder whose mode forbids it."""
    for name in missing:
        (project.folder / "results/runs/default" / name).unlink()
    command = 'mount --bind results results && mount -o remount,bind,ro results && exec "$@"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command, "sh"]
    if subprocess.run([*namespace, "true"], cwd=project.folder, capture_output=True).returncode != 0:
        pytest.skip("no mount namespace can be made here")
    done = subprocess.run(
        [*namespace, *project.command("all")], cwd=project.folder, env=project.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and message in done.stdout and "Traceback" not in done.stdout, done.stdout
    project.snakemake("all")
    assert contents(project) == expected


@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_results_that_is_not_a_folder_is_named(tmp_path, options):
    project = Project(tmp_path)
    (tmp_path / "results").touch()
    output = project.snakemake("all", *options, expect=1)
    assert "error: results: got a file, expected a folder; move it away\n" in output and "Traceback" not in output


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


TRAINED = ("results/runs/default/run.json", "--config")
TRAINED += ("training={steps: 4000, save_every_steps: 100, validate_every_steps: 1000, sample_every_steps: 1000}",)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("undisturbed"))
    project.snakemake(*TRAINED)
    return project


@pytest.fixture
def halted(tmp_path) -> tuple[Project, subprocess.Popen]:
    """A project in the middle of a training, and its snakemake. All processes are halted."""
    project = Project(tmp_path / "project")
    process = project.start(*TRAINED)
    states = project.folder / "results/runs/default/state"
    wait_for(process, lambda: any(states.glob("*/step_*")))
    os.killpg(process.pid, signal.SIGSTOP)
    return project, process


def test_two_snakemakes_at_once_and_kill_minus_9(halted, undisturbed):
    """One project sees both faults: a second snakemake is refused; then the first is killed with all its jobs."""
    project, process = halted
    output = project.snakemake(*TRAINED, expect=1)
    assert "another snakemake is at work in this folder; wait for it to end or stop it" in output
    assert "Traceback" not in output
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "resuming after step" in project.snakemake(*TRAINED)
    assert contents(project) == contents(undisturbed)


def test_a_training_that_a_killed_snakemake_left_behind_keeps_others_out_and_spoils_nothing(halted, undisturbed):
    project, process = halted
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    output = project.snakemake(*TRAINED, expect=1)
    assert "another process is training this run; wait for it to end or stop it" in output
    assert "Traceback" not in output
    os.killpg(process.pid, signal.SIGCONT)
    for _ in range(20):
        done = subprocess.run(
            project.command(*TRAINED), cwd=project.folder, env=project.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode == 0:
            break
    assert contents(project) == contents(undisturbed)


@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_steps_changes_no_byte(project, expected, years):
    """What was made while the clock was wrong, and what is made after it was set right, fit together."""
    seconds = years * 365 * 24 * 3600
    for path in (project.folder / "results/corpora").rglob("*"):
        os.utime(path, (time.time() + seconds, time.time() + seconds))
    (project.folder / "results/runs/default/metrics.csv").unlink()
    project.snakemake("all")
    assert contents(project) == expected
    assert project.would_run() == set()


def test_a_file_has_one_writer(tmp_path):
    program = (
        "import sys, pathlib; from hipgpt.base.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as file: file.write(b'first'); print(flush=True); input()"
    )
    first = subprocess.Popen([sys.executable, "-c", program, tmp_path / "x"], stdin=-1, stdout=-1, text=True)
    first.stdout.readline()
    with pytest.raises(UserError, match="x: another process is writing it; wait for it to end or stop it"):  # noqa: SIM117
        with replacing(tmp_path / "x"):
            pass
    first.communicate("\n")
    assert (tmp_path / "x").read_bytes() == b"first"
    with replacing(tmp_path / "x") as file:
        file.write(b"2nd")
    assert (tmp_path / "x").read_bytes() == b"2nd"


def test_what_a_killed_writer_left_is_not_mixed_into_the_next(tmp_path):
    (tmp_path / "x.partial").write_bytes(b"a long rest of a killed writer")
    with replacing(tmp_path / "x") as file:
        file.write(b"new")
    assert (tmp_path / "x").read_bytes() == b"new" and not (tmp_path / "x.partial").exists()


def test_a_folder_that_is_worked_in_is_left_alone_until_its_process_ends(tmp_path):
    with alone_in(tmp_path, "busy"), pytest.raises(UserError, match="busy; wait"), alone_in(tmp_path, "busy"):
        pass
    with alone_in(tmp_path, "busy"):
        pass


def test_a_file_taken_away_is_not_begun_in_its_middle(tmp_path):
    with pytest.raises(FileNotFoundError):
        append(tmp_path / "metrics.csv", "7,1.5\n")
    assert not (tmp_path / "metrics.csv").exists()


def test_a_write_that_fails_names_its_file(tmp_path):
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    program = (
        "import sys, pathlib; from hipgpt.base.files import replacing\n"
        "from hipgpt.base.errors import exit_on_user_error\n"
        "@exit_on_user_error\n"
        "def main():\n with replacing(pathlib.Path(sys.argv[1])) as file: file.write(bytes(200))\nmain()"
    )
    command = [sys.executable, "-c", program, tmp_path / "x"]
    done = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True)  # noqa: PLW1509
    assert done.stderr == f"error: {tmp_path / 'x'}: File too large; make room and run the same command again\n"
