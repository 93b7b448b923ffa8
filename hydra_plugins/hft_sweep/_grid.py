"""The -m of any other entry point: every point of the grid in order, through the chosen Hydra
launcher.

Differs from Hydra's own sweeper in what a user of `backtest.py -m` needs: nothing runs before every
point composes, and a job that fails does not end the others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hft.config.hydra_internals import error_of, grid_points
from hft.config.overrides import parse_overrides
from hft.spec import UserError


def run_grid(
    arguments: list[str], *, context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> list[Sequence[JobReturn]]:
    """One batch with the jobs' returns. Exits with status 1 at the end when a job failed."""
    points = grid_points(parse_overrides(arguments, context.config_loader))
    # Composed once for nothing: a mistake in the last point must not show after hours of the
    # others.
    for point in points:
        context.config_loader.load_sweep_config(config, point)
    if config.hydra.output_subdir is not None:
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / "multirun.yaml")
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=task_function, config=config
    )
    returns: list[JobReturn] = []
    for number, point in enumerate(points):
        sys.stderr.write(f"\n[{number + 1}/{len(points)}] {' '.join(point)}\n")
        # One job a launch: a signal ends the grid, and within one batch the next job would begin.
        (job,) = launcher.launch([point], initial_job_idx=number)
        _report(point, job)
        returns.append(job)
    if any(job.status is not JobStatus.COMPLETED for job in returns):
        raise SystemExit(1)
    return [returns]


def _report(point: list[str], job: JobReturn) -> None:
    """One line for what a user can mend, the traceback for what only we can; a signal ends the
    whole grid.
    """
    import traceback

    if job.status is JobStatus.COMPLETED:
        return
    error = error_of(job)
    if isinstance(error, KeyboardInterrupt) or hasattr(error, "exit_status"):
        raise error
    if isinstance(error, UserError):
        sys.stderr.write(f"error: {error}\n")
    else:
        traceback.print_exception(error)
    sys.stderr.write(f"job {' '.join(point)} failed; the others go on\n")
