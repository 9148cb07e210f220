"""Jobs of a comparison: what is made when, and what becomes of processes that end early."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from e2urec.core.errors import ConfigError, DataError, RunError
from e2urec.core.locks import private_folder, remains
from e2urec.core.process import signals_as_interrupt
from e2urec.experiments.comparison import team as teams
from e2urec.experiments.comparison.cell_report import CellReport, write_reports
from e2urec.experiments.comparison.jobs import JobOptions, slurm_settings
from e2urec.experiments.comparison.plan import ComparisonPlan
from e2urec.experiments.comparison.stages import Bundle, dependent, independent, originals
from e2urec.experiments.comparison.team import Job, Team
from e2urec.experiments.comparison.worker import END_SECONDS, Worker
from e2urec.experiments.grid import Grid
from e2urec.experiments.recipe import Recipe
from e2urec.training.loop import silent
from toy_workers import ToyWorker, TrappedWorker

SMOKE = Path(__file__).parents[2] / "recipes" / "compare-smoke.toml"
TESTS = Path(__file__).parents[1]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The unfinished part of a comparison, of which workers make toy cells."""
    pytest.importorskip("submitit")
    monkeypatch.setattr(teams, "Worker", ToyWorker)
    monkeypatch.setattr(teams, "visible_gpus", list)
    monkeypatch.setattr("e2urec.experiments.comparison.jobs.visible_gpus", list)
    places = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    # A toy cell has no list of contents.
    monkeypatch.setattr(Grid, "is_whole", Grid.has)
    work = tmp_path / "out.partial"
    (work / "cells").mkdir(parents=True, mode=0o700)
    return work


def grid_of(work: Path, told: list[str]) -> Grid:
    return Grid(work / "cells", 9, told.append)


def bundles(*keys: str, is_needed: bool = False) -> list[Bundle]:
    return [Bundle(0, (key,), is_needed) for key in keys]


def make(work: Path, told: list[str], *keys: str, **options: object) -> Grid:
    """Make toy cells by two jobs at once."""
    grid = grid_of(work, told)
    with signals_as_interrupt(), Team.open(JobOptions(2), work, grid, silent) as team:
        team.make("toys", bundles(*keys, **options))
    return grid


def processes() -> list[psutil.Process]:
    """What this process started and what that did, without what has ended."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


# --- what is made when


def plan_of(*settings: str) -> ComparisonPlan:
    changes = ["compare.settings={}", "compare.seeds=[0, 1]", *settings]
    return ComparisonPlan.of(Recipe.load(SMOKE).updated(changes))


def keys_of(stage: list[Bundle]) -> list[str]:
    return [key for bundle in stage for key in bundle.keys]


def test_every_cell_is_in_one_bundle_of_one_stage():
    plan = plan_of("compare.trials=2", "compare.shadows=true")
    stages = [originals(plan, ["remembered"]), independent(plan), dependent(plan)]
    keys = [key for stage in stages for key in keys_of(stage)]
    shadows = {f"seed-{seed}/request-1/shadows" for seed in (0, 1)}
    once = {"seed-0/model", "seed-1/model", "remembered"}
    assert sorted(keys) == sorted({*(cell.key for cell in plan.cells()), *shadows, *once})


def test_what_waits_for_chosen_settings_comes_last_and_its_placebo_with_it():
    plan = plan_of("compare.trials=2", "compare.methods=['neggrad', 'sisa']")
    assert keys_of(dependent(plan)) == [
        f"seed-{seed}/request-1/{name}" for seed in (0, 1) for name in ("neggrad", "placebo-retain")
    ]
    assert "development/neggrad-trial-1" in keys_of(independent(plan))


def test_without_trials_nothing_waits():
    plan = plan_of("compare.methods=['neggrad']")
    assert dependent(plan) == []
    assert len(keys_of(independent(plan))) == len(plan.cells())


def test_requests_of_a_sharded_original_are_one_bundle_and_only_methods_may_fail():
    plan = plan_of(
        "compare.methods=['neggrad', 'sisa']", "compare.requests=[{ratio=0.1}, {ratio=0.2}]"
    )
    stage = independent(plan)
    assert Bundle(1, ("seed-1/request-1/sisa", "seed-1/request-2/sisa")) in stage
    assert Bundle(0, ("seed-0/request-2/neggrad",)) in stage
    needed = {key for bundle in stage if bundle.is_needed for key in bundle.keys}
    assert needed == {key for key in keys_of(stage) if "original" in key or "retrained" in key}


# --- wrong options


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--jobs", "0"], "--jobs 0: is no number of jobs; give 1 or more"),
        (["--jobs", "-3"], "--jobs -3: is no number of jobs; give 1 or more"),
        (["--jobs", "two"], "Invalid value for '--jobs'"),
        (["--jobs", "2", "--slurm", "partition=gpu"], "add --cluster slurm"),
        (["--cluster", "slurm", "--slurm", "gpu"], "has no '='"),
        (["--cluster", "slurm", "--slurm", "nodes=2"], "one process makes a cell"),
        (["--cluster", "slurm", "--slurm", "tasks_per_node=4"], "one process makes a cell"),
        (["--cluster", "moon"], "Invalid value for '--cluster'"),
    ],
)
def test_wrong_jobs_are_told_in_one_line_with_status_2(call, tmp_path, words, reason):
    status, _, error = call("compare", SMOKE, "--out", tmp_path / "out", *words)
    assert status == 2
    assert reason in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.partial").exists()


def test_folder_whose_name_submitit_would_change_is_refused(call, toy, tmp_path):
    pytest.importorskip("submitit")
    out = tmp_path / "100%jobs"
    status, _, error = call(
        "compare", SMOKE, "--out", out, "--jobs", "2", "--set", f"model.name={toy}"
    )
    assert status == 2
    assert "has a %" in error
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_missing_submitit_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    grid = grid_of(tmp_path, [])
    with (
        pytest.raises(ConfigError, match=r"--jobs 2: takes .*pip install 'e2urec\[jobs\]'"),
        Team.open(JobOptions(2), tmp_path, grid, silent),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_job_needs_no_submitit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with Team.open(JobOptions(), tmp_path, grid_of(tmp_path, []), silent) as team:
        assert team is None


# --- processes of this machine


def test_cells_are_made_at_once_and_the_folder_of_the_jobs_goes(work):
    told: list[str] = []
    make(work, told, "a", "b", "c")
    assert {path.name for path in (work / "cells").iterdir()} == {"a", "b", "c"}
    assert [path.name for path in work.iterdir()] == ["cells"]
    assert told[0] == "toys: 3 to start, 2 at once"
    assert {"made a", "made b", "made c"} < set(told)
    assert told[-1].startswith("[3 of 9]")
    # What is there already is made by nobody.
    again: list[str] = []
    make(work, again, "a", "b", "c")
    assert again == []


def test_there_are_no_more_places_than_cells(work, monkeypatch):
    monkeypatch.setattr("e2urec.experiments.comparison.jobs.core_count", lambda: 10**9)
    grid = grid_of(work, [])
    with Team.open(JobOptions(10**9), work, grid, silent) as team:
        team.make("toys", bundles("a"))
    assert grid.tally == {"a"}


def test_what_a_killed_command_left_of_its_jobs_goes_with_one_job_as_well(work):
    (work / "jobs.new~0a1b2c3d.partial").mkdir()
    with Team.open(JobOptions(), work, grid_of(work, []), silent):
        assert [path.name for path in work.iterdir()] == ["cells"]


def test_pickles_and_logs_hold_names_of_cells_and_paths_alone(work, monkeypatch):
    secret = b"the controller's key, of 32 bytes or more"
    key = work.parent / "key"
    key.write_bytes(secret)
    key.chmod(0o600)
    monkeypatch.setenv("E2UREC_KEY_FILE", str(key))
    grid = grid_of(work, [])
    with Team.open(JobOptions(2), work, grid, silent) as team:
        team.brief(Recipe.load(SMOKE), {"neggrad": {}})
        team.make("toys", bundles("a"))
        assert stat.S_IMODE(team.folder.stat().st_mode) == 0o700
        assert team.folder.parent == work
        files = {path.name: path.read_bytes() for path in team.folder.iterdir()}
    order = json.loads(files.pop("order.json"))
    assert set(order) == {"recipe", "settings", "jobs"}
    kinds = [".err", ".json", ".out", ".pkl", ".pkl"]
    assert sorted(Path(name).suffix for name in files) == kinds
    for name, content in files.items():
        assert secret not in content, name
        assert str(key).encode() not in content, name
        assert len(content) < 1000, name
    assert not any(files[name] for name in files if name.endswith((".err", ".out")))


def test_killed_worker_fails_its_cell_alone_in_one_line_with_the_remedy(work):
    told: list[str] = []
    grid = make(work, told, "killed", "b")
    assert set(grid.failed) == {"killed"}
    (line,) = (line for line in told if line.startswith("killed: "))
    assert "\n" not in line
    assert "run the same command again, with fewer --jobs or more memory" in line
    assert any("killed FAILED" in line for line in told)
    assert [path.name for path in (work / "cells").iterdir()] == ["b"]


def test_pickled_result_of_a_job_is_not_loaded(work, monkeypatch):
    monkeypatch.setattr(teams, "Worker", TrappedWorker)
    told: list[str] = []
    grid = make(work, told, "a")
    assert grid.tally == {"a"}
    assert "made a" in told
    assert [path.name for path in work.iterdir()] == ["cells"]


def test_error_of_a_user_in_a_job_is_the_error_of_the_command(work):
    with pytest.raises(DataError, match=r"^ratings\.csv: misread; correct the row$"):
        make(work, [], "misread")


def test_job_that_fails_before_its_report_fails_its_cells_in_one_line(work):
    grid = make(work, [], "crash", "b")
    assert set(grid.failed) == {"crash"}
    assert "\n" not in grid.failed["crash"]
    assert "does (RuntimeError: no such luck); run the same command" in grid.failed["crash"]


def test_cell_that_is_there_is_kept_where_its_report_cannot_be_read(work):
    grid = make(work, [], "garbled", "b")
    assert grid.failed == {}
    assert {path.name for path in grid.folder.iterdir()} == {"garbled", "b"}


def test_killed_worker_of_a_model_that_all_need_ends_the_comparison(work):
    with pytest.raises(RunError, match="killed: its process ended before it was done"):
        make(work, [], "killed", is_needed=True)
    assert processes() == []


def test_preempted_job_starts_again_and_finished_cells_are_kept(work):
    told: list[str] = []
    grid = grid_of(work, told)
    with Team.open(JobOptions(2), work, grid, silent) as team:
        team.make("toys", [Bundle(0, ("a", "preempted"))])
    assert {"a", "preempted"} <= {path.name for path in (work / "cells").iterdir()}
    assert grid.failed == {}
    assert remains(work / "cells" / "preempted") == []


def test_number_of_a_job_that_has_ended_is_no_process_to_end(work):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        job = SimpleNamespace(job_id=str(other.pid), done=lambda: True)
        with Team.open(JobOptions(2), work, grid_of(work, []), silent) as team:
            team.running[0] = Job(job, Bundle(0, ("a",)), work / "report.json")
        assert other.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_all_processes_and_what_is_finished_stays(work, monkeypatch, number):
    cells = work / "cells"
    real = time.sleep

    def sleep(seconds: float) -> None:
        real(seconds)
        if (cells / "under way").exists() and (cells / "a").exists():
            os.kill(os.getpid(), number)

    monkeypatch.setattr(teams.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        make(work, [], "a", "endless")
    assert processes() == []
    assert {path.name for path in cells.iterdir()} == {"a", "under way"}
    assert [path.name for path in work.iterdir()] == ["cells"]


def test_threads_are_divided_and_each_job_has_a_gpu_of_its_own(work, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("e2urec.experiments.comparison.jobs.core_count", lambda: 6)
    monkeypatch.setattr(teams, "visible_gpus", lambda: ["3", "MIG-5"])
    told: list[str] = []
    make(work, told, "a", "b")
    given = [(work / "cells" / key / "given").read_text().split("\n") for key in ("a", "b")]
    assert given == [["3", "3"], ["3", "MIG-5"]]
    assert not any("share" in line for line in told)
    assert "OMP_NUM_THREADS" not in os.environ


def test_jobs_that_share_cores_or_a_gpu_are_told(work, monkeypatch):
    monkeypatch.setattr("e2urec.experiments.comparison.jobs.core_count", lambda: 1)
    monkeypatch.setattr("e2urec.experiments.comparison.jobs.visible_gpus", lambda: ["0"])
    told: list[str] = []
    make(work, told)
    assert len(told) == 2
    assert all("--jobs 2" in line for line in told)


def test_threads_that_the_user_sets_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr("e2urec.experiments.comparison.jobs.core_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert JobOptions(2).threads is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert JobOptions(2).threads == 4


ORPHAN = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
from e2urec.experiments.comparison import worker
worker.LOOK_SECONDS = 0.05
class Endless(worker.Worker):
    def make(self, seed, keys):
        try:
            while True:
                time.sleep(0.01)
        finally:
            Path(sys.argv[1]).touch()
Endless(Path("/gone"), Path("/gone/report"), parent=-1)(0, ())
"""


def test_worker_without_a_command_tidies_up_where_interrupts_are_ignored(tmp_path):
    tidy = tmp_path / "tidy"
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", ORPHAN, tidy], check=False, capture_output=True)
    assert tidy.exists()
    assert time.monotonic() - started < END_SECONDS


def test_worker_ends_when_its_command_or_its_folder_is_gone(tmp_path):
    grandparent = psutil.Process(os.getppid()).ppid()
    report = tmp_path / "report"
    assert not Worker(tmp_path, report, parent=grandparent)._is_orphan()
    assert Worker(tmp_path, report, parent=os.getpid())._is_orphan()
    assert Worker(tmp_path / "gone", report, parent=grandparent)._is_orphan()
    # On a cluster the command is on another machine.
    assert not Worker(tmp_path, report)._is_orphan()


# --- a cluster

SBATCH = """\
#!{python}
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
flags = dict(re.findall(r"#SBATCH --([a-z-]+)=(.*)", text))
environment = os.environ | {{"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}}
open("{folder}/flags", "w").write(repr(flags))
quiet = {{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}}
subprocess.Popen(["bash", sys.argv[1]], env=environment, **quiet)
print("Submitted batch job 7")
"""
SRUN = """\
#!{python}
import subprocess, sys
words = sys.argv[1:]
start = next(k for k, word in enumerate(words) if word.endswith(("python", "python3")))
subprocess.call(words[start:])
open("{folder}/over", "w")
"""
SACCT = """\
#!{python}
import os
state = "COMPLETED" if os.path.exists("{folder}/over") else "RUNNING"
print("JobID|State|NodeList")
print(f"7|{{state}}|here")
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A stand-in for the commands of SLURM, whose jobs are processes of this machine."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    commands = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": SACCT}
    for name, text in commands.items():
        file = folder / name
        file.write_text(text.format(python=sys.executable, folder=folder))
        file.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_cells_are_made_by_jobs_of_a_cluster_with_its_settings(work, cluster, monkeypatch):
    monkeypatch.setitem(teams.LOOK_SECONDS, "slurm", 0.2)
    settings = slurm_settings(["timeout_min=30", "partition=gpu", "gpus_per_node=1"])
    grid = grid_of(work, [])
    with Team.open(JobOptions(1, "slurm", settings), work, grid, silent) as team:
        team.make("toys", bundles("a"))
    assert grid.failed == {}
    assert grid.tally == {"a"}
    flags = (cluster / "flags").read_text()
    for name, value in {"time": "30", "partition": "gpu", "gpus-per-node": "1"}.items():
        assert f"'{name}': '{value}'" in flags
    assert [path.name for path in work.iterdir()] == ["cells"]


def test_report_that_is_late_over_the_network_is_waited_for(work, monkeypatch):
    grid = grid_of(work, [])
    report = work / "report.json"
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            write_reports(report, [CellReport("a")])

    monkeypatch.setattr(teams.time, "sleep", sleep)
    paths = SimpleNamespace(result_pickle=work / "result.pkl")
    job = SimpleNamespace(done=lambda: True, paths=paths)
    team = Team(JobOptions(1, "slurm"), work, grid, silent, executor=None)
    team.running[0] = Job(job, Bundle(0, ("a",)), report)
    team._collect()
    assert len(looks) == 2
    assert grid.failed == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\necho 'invalid partition' >&2\nexit 1\n", "sbatch refuses .*invalid partition"),
        ("#!/bin/sh\necho welcome\n", "sbatch refuses .*welcome"),
        (None, "there is no sbatch on this machine"),
    ],
)
def test_cluster_that_takes_no_job_is_told_in_one_line(work, cluster, text, reason):
    sbatch = cluster / "sbatch"
    if text is None:
        sbatch.unlink()
    else:
        sbatch.write_text(text)
    options = JobOptions(1, "slurm", {"timeout_min": 30})
    with (
        pytest.raises(ConfigError, match=reason) as error,
        Team.open(options, work, grid_of(work, []), silent) as team,
    ):
        team.make("toys", bundles("a"))
    assert "\n" not in str(error.value)
    assert [path.name for path in work.iterdir()] == ["cells"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([], "how long may a job take"),
        (["timeout_min=30", "partitoin=gpu"], "partitoin"),
        (["timeout_min='1:00:00'"], "timeout_min"),
    ],
)
def test_wrong_settings_of_a_cluster_are_told_in_one_line(work, cluster, settings, reason):
    options = JobOptions(1, "slurm", slurm_settings(settings))
    with (
        pytest.raises(ConfigError, match=reason) as error,
        Team.open(options, work, grid_of(work, []), silent),
    ):
        pass
    assert "\n" not in str(error.value)
    assert [path.name for path in work.iterdir()] == ["cells"]


def test_machine_of_no_cluster_is_told(work, monkeypatch):
    monkeypatch.setenv("PATH", "")
    options = JobOptions(1, "slurm", {"timeout_min": 30})
    with (
        pytest.raises(ConfigError, match="there is no srun on this machine"),
        Team.open(options, work, grid_of(work, []), silent),
    ):
        pass


def test_cell_that_another_process_made_meanwhile_is_taken_as_it_is(tmp_path):
    grid = grid_of(tmp_path, [])

    def save(folder: Path) -> None:
        other = tmp_path / "cells" / "a"
        with private_folder(other) as partial:
            (partial / "first").touch()
            partial.rename(other)

    assert [path.name for path in grid.folder_of("a", save).iterdir()] == ["first"]


def test_cell_that_another_process_names_first_is_taken_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "cells" / "a"

    def publish(partial: Path, target: Path) -> None:
        # While the files of this one were synced.
        target.mkdir()
        (target / "first").touch()
        partial.rename(target)

    monkeypatch.setattr("e2urec.experiments.grid.publish_folder", publish)
    grid_of(tmp_path, []).folder_of("a", lambda folder: None)
    assert [file.name for file in path.iterdir()] == ["first"]
    assert remains(path) == []
