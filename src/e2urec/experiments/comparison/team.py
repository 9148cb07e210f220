"""Cells of a comparison side by side: submitit runs them, on this machine or on a SLURM cluster.

What there is to schedule, queue and requeue is submitit's and the cluster's business. Here a number
of jobs is kept under way, and what became of them is told.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core import errors
from ...core.children import end_processes, environment, no_signals_from_terminal
from ...core.errors import ConfigError, RunError
from ...core.locks import private_folder, sweep
from ...core.process import uninterrupted
from ...training.loop import Progress
from ..grid import Grid
from ..recipe import Recipe
from .cell_maker import write_order
from .cell_report import CellReport, read_reports
from .jobs import LOG_LEVEL, THREADS, JobOptions, executor_of, tell_of_crowd, visible_gpus
from .plan import Settings
from .stages import Bundle
from .worker import END_SECONDS, Worker

FOLDER = "jobs"
"""Of what submitit writes, in the unfinished part of a comparison."""
LOOK_SECONDS = {"local": 0.2, "slurm": 5.0}
"""Between two looks at the jobs; of a cluster they go over the network."""
REPORT_SECONDS = {"local": 0.0, "slurm": 15.0}
"""How long after its end a job's report may still be on its way over the network."""


@dataclass(frozen=True)
class Job:
    """A bundle that is being made.

    Attributes:
        submitted: submitit's job.
        bundle: of cells.
        report: file that says what became of them, once they are done.
    """

    submitted: Any
    bundle: Bundle
    report: Path


@dataclass
class Team:
    """The jobs of a comparison.

    Attributes:
        options: how many there are, and where.
        folder: of what submitit writes; private, and removed when the comparison ends or stops.
        grid: of the cells.
        progress: told how many cells are finished.
        executor: submitit's.
        gpus: of this machine, as CUDA_VISIBLE_DEVICES names them.
        running: jobs under way, by their places among those at once.
        count: of the jobs that were ever started.
    """

    options: JobOptions
    folder: Path
    grid: Grid
    progress: Progress
    executor: Any
    gpus: Sequence[str] = ()
    running: dict[int, Job] = field(default_factory=dict)
    count: int = 0

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, options: JobOptions, work: Path, grid: Grid, progress: Progress
    ) -> "Iterator[Team | None]":
        """Yield the team that works in the folder `work`; None: the command makes all by itself.

        Raises:
            ConfigError: submitit is missing, there is no such cluster, or it has no such setting.
        """
        if not options.is_apart:
            # A command that was killed may have left one.
            sweep(work / FOLDER)
            yield None
            return
        with private_folder(work / FOLDER) as folder:
            team = cls(options, folder, grid, progress, executor_of(options, folder))
            if options.cluster == "local":
                team.gpus = visible_gpus()
            tell_of_crowd(options, grid.say)
            try:
                yield team
            finally:
                # Before their folder goes.
                team.end()

    def brief(self, recipe: Recipe, settings: Mapping[str, Settings]) -> None:
        """Write down what jobs that are started from now on have to know.

        Args:
            recipe: of the comparison.
            settings: of each method.
        """
        write_order(self.folder, recipe, dict(settings), jobs=self.options.count)

    def make(self, stage: str, bundles: Sequence[Bundle]) -> None:
        """Make all cells of `bundles` that are not there yet; notes why some could not be made.

        Args:
            stage: what they are, for people.
            bundles: none of which needs another.

        Raises:
            E2URecError: one without which nothing can be measured could not be made, or the
                cluster takes no job.
        """
        waiting = [bundle for bundle in bundles if self._missing(bundle)]
        at_once = min(len(waiting), self.options.count)
        if waiting:
            self.grid.say(f"{stage}: {len(waiting)} to start, {at_once} at once")
        while waiting or self.running:
            for place in range(at_once):
                if waiting and place not in self.running:
                    self._submit(place, waiting.pop(0))
            self._collect()

    def _missing(self, bundle: Bundle) -> list[str]:
        return [key for key in bundle.keys if not self.grid.is_whole(key)]

    def _submit(self, place: int, bundle: Bundle) -> None:
        # A name for each, so that no job is taken to have done what another one reported.
        report = self.folder / f"report-{self.count}.json"
        self.count += 1
        worker = Worker(
            folder=self.folder,
            report=report,
            parent=os.getpid() if self.options.cluster == "local" else None,
            gpu=self.gpus[place % len(self.gpus)] if self.gpus else None,
        )
        variables = dict(LOG_LEVEL)
        if self.options.threads is not None:
            variables[THREADS] = str(self.options.threads)
        # A job that was started and not noted would go on after the command.
        with uninterrupted(), environment(variables), no_signals_from_terminal():
            submitted = self._submitted(worker, bundle)
            self.running[place] = Job(submitted, bundle, report)

    def _submitted(self, worker: Worker, bundle: Bundle) -> Any:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            return self.executor.submit(worker, bundle.seed, bundle.keys)
        except (FailedJobError, FailedSubmissionError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"--cluster slurm: sbatch refuses the job ({reason}); mend the --slurm settings"
            ) from error
        except FileNotFoundError as error:
            if error.filename != "sbatch":
                raise
            raise ConfigError(
                "--cluster slurm: there is no sbatch on this machine; start the command on one of "
                "the cluster"
            ) from error

    def _collect(self) -> None:
        """Take up what jobs have ended; waits a moment where none has."""
        ended = [place for place, job in self.running.items() if job.submitted.done()]
        for place in ended:
            job = self.running.pop(place)
            self._take_up(job.bundle, self._reports(job))
        if not ended:
            time.sleep(LOOK_SECONDS[self.options.cluster])

    def _reports(self, job: Job) -> list[CellReport]:
        """What a job says of its cells; of one that ended without a word, that it did."""
        reports = self._reported(job)
        if reports is not None:
            return reports
        self._remove_remains(job.bundle)
        reason = (
            "its process ended before it was done, as one that is killed or out of memory does"
            f"{_last_words(job.submitted)}; run the same command again, with fewer --jobs or more "
            "memory"
        )
        return [CellReport(key, failure=reason) for key in self._missing(job.bundle)]

    def _reported(self, job: Job) -> list[CellReport] | None:
        """What an ended job reported; None: nothing."""
        latest = time.monotonic() + REPORT_SECONDS[self.options.cluster]
        reports = read_reports(job.report)
        # submitit's own result is written after the report, so with it nothing is on its way. Its
        # pickle is not opened: that would run what it says.
        while reports is None and time.monotonic() < latest:
            if job.submitted.paths.result_pickle.exists():
                return read_reports(job.report)
            time.sleep(1)
            # It has the network's file system look at the folder again.
            job.submitted.done()
            reports = read_reports(job.report)
        return reports

    def _take_up(self, bundle: Bundle, reports: list[CellReport]) -> None:
        for report in reports:
            for line in report.lines:
                self.grid.say(line)
            if report.error is not None:
                name, text = report.error
                raise getattr(errors, name, RunError)(text)
            if not self.grid.has(report.key) and report.failure is None:
                # Shadow models go by what they were tuned on, and are no cells.
                self.grid.say(f"{report.key}: {report.seconds:.1f} s")
            elif report.failure is None:
                self.grid.tell(report.key, report.seconds)
            elif bundle.is_needed:
                raise RunError(f"{report.key}: {report.failure}")
            else:
                self.grid.say(f"{report.key}: {report.failure}")
                self.grid.fail(report.key, report.failure, report.seconds)
            self.progress("cells", len(self.grid.tally), self.grid.total)

    def _remove_remains(self, bundle: Bundle) -> None:
        """Remove what a process that was killed left of its cells."""
        for key in bundle.keys:
            sweep(self.grid.folder / key)

    def end(self) -> None:
        """End all jobs that are under way, and return when they are gone."""
        with uninterrupted():
            jobs = [job.submitted for job in self.running.values()]
            if self.options.cluster == "local":
                # The number of one that has ended may be another process's by now.
                numbers = [int(job.job_id) for job in jobs if not job.done()]
                end_processes(numbers, END_SECONDS)
            else:
                # Jobs that it does not reach end when they find their folder gone.
                for job in jobs:
                    job.cancel(check=False)
            for job in self.running.values():
                self._remove_remains(job.bundle)
            self.running.clear()


def _last_words(job: Any) -> str:
    """The last line of a job's log of errors, in brackets."""
    lines = (job.stderr() or "").split("\n")
    words = [line.strip() for line in lines if line.strip()]
    return f" ({words[-1]})" if words else ""
