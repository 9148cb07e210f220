"""Which jobs make the cells of a comparison: how many at once, on what, and by which executor."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...core.children import environment
from ...core.errors import ConfigError
from ...core.say import Say
from ..recipe import toml_value

NO_LIMIT_MINUTES = 60 * 24 * 365
"""submitit ends jobs on this machine after two minutes unless it is told otherwise."""
REQUEUES = 1
"""Of a job that ran out of its time: a cell that needs more will do so again."""
SHARED_SETTINGS = (
    "name",
    "timeout_min",
    "mem_gb",
    "nodes",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
)
"""What submitit calls alike for all clusters; its names for SLURM alone begin with `slurm_`."""
PROCESS_SETTINGS = ("nodes", "tasks_per_node", "ntasks_per_node")
"""Processes of a job; one makes its cells."""
THREADS = "OMP_NUM_THREADS"
# What submitit says is for whoever writes programs with it.
LOG_LEVEL = {"SUBMITIT_LOG_LEVEL": "CRITICAL"}


@dataclass(frozen=True)
class JobOptions:
    """How many cells are made at once, and where.

    Attributes:
        count: jobs at once.
        cluster: `local`: processes of this machine; `slurm`: jobs of the cluster that it belongs
            to.
        slurm: settings of these jobs, by the names that submitit has for them.
    """

    count: int = 1
    cluster: Literal["local", "slurm"] = "local"
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ConfigError for a number that is none, and for settings that nothing reads."""
        if self.count < 1:
            raise ConfigError(f"--jobs {self.count}: is no number of jobs; give 1 or more")
        if self.cluster == "local" and self.slurm:
            names = ", ".join(self.slurm)
            raise ConfigError(f"--slurm {names}: is for a cluster; add --cluster slurm")
        for name in PROCESS_SETTINGS:
            if self.slurm.get(name, 1) != 1:
                raise ConfigError(
                    f"--slurm {name}={self.slurm[name]}: one process makes a cell; leave it out, "
                    "and give more --jobs"
                )

    @property
    def is_apart(self) -> bool:
        """Whether cells are made by other processes than the command itself."""
        return self.count > 1 or self.cluster != "local"

    @property
    def threads(self) -> int | None:
        """Threads of each job where jobs share this machine's cores; None: as many as there are."""
        if not self.is_apart or self.cluster != "local":
            return None
        # Whoever sets it knows better.
        if THREADS in os.environ:
            return None
        return max(1, core_count() // self.count)


ONE_JOB = JobOptions()


def slurm_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`["partition=gpu", "timeout_min=600"]` → `{"partition": "gpu", "timeout_min": 600}`.

    Raises:
        ConfigError: a setting has no sign.
    """
    values = {}
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError(
                f"--slurm {setting}: has no '='; write KEY=VALUE, such as partition=gpu"
            )
        values[name.strip()] = toml_value(text.strip())
    return values


def executor_of(options: JobOptions, folder: Path) -> Any:
    """submitit's executor; raises ConfigError as `Team.open` does."""
    if os.name == "nt":
        raise ConfigError("--jobs: works on Linux and macOS; leave it out on Windows")
    # submitit and SLURM would write into folders of other names, which nobody removes.
    if "%" in str(folder.absolute()):
        raise ConfigError(
            f"--jobs {options.count}: '{folder.parent}' has a %, for which submitit and SLURM put "
            "numbers of jobs; choose another folder"
        )
    with environment(LOG_LEVEL):
        try:
            import submitit
        except ImportError as error:
            raise ConfigError(
                f"--jobs {options.count}: takes the package submitit, which is not installed; "
                "install it with: pip install 'e2urec[jobs]'"
            ) from error
    if options.cluster == "local":
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=NO_LIMIT_MINUTES)
        return executor
    return _slurm_executor(submitit, options, folder)


def _slurm_executor(submitit: Any, options: JobOptions, folder: Path) -> Any:
    # submitit's own limit is five minutes, which few cells keep.
    if "timeout_min" not in options.slurm:
        raise ConfigError(
            "--cluster slurm: how long may a job take? Give its minutes, such as "
            "--slurm timeout_min=600"
        )
    settings = {}
    for name, value in options.slurm.items():
        settings[name if name in SHARED_SETTINGS else f"slurm_{name}"] = value
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=REQUEUES)
    except RuntimeError as error:
        raise ConfigError(
            "--cluster slurm: there is no srun on this machine; start the command on one of the "
            "cluster, or leave --cluster out"
        ) from error
    try:
        executor.update_parameters(**settings)
    # Of a name that it does not know, and of a value of another type.
    except (NameError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--slurm: {reason}") from error
    return executor


def core_count() -> int:
    """Cores that this process may use."""
    # Of a machine that is shared, this process may use a part.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """This machine's GPUs that the command may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(names) >= count > 0 and names[0]:
        return names[:count]
    return [str(number) for number in range(count)]


def tell_of_crowd(options: JobOptions, say: Say) -> None:
    """Say where jobs of this machine get in each other's way, and what to do."""
    if not options.is_apart or options.cluster != "local":
        return
    gpus = visible_gpus()
    if gpus and options.count > len(gpus):
        say(
            f"--jobs {options.count}: share {len(gpus)} GPUs and their memory; with --jobs "
            f"{len(gpus)} each has its own"
        )
    cores = core_count()
    if options.count > cores:
        say(f"--jobs {options.count}: share {cores} cores; more jobs than cores are no faster")
