"""A grid over Hydra's own override grammar: all jobs are parsed before the first runs, and a table ends the sweep."""

from __future__ import annotations

import sys
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from hft.compose import from_hydra
from hft.config import TrainConfig, refuse_incomparable
from hft.spec import SpecError, UserError


def run_grid(
    arguments: list[str], *, context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> list[JobReturn]:
    """Every point of the grid in order, in this process: warm imports and one stage cache serve all of them.

    Raises SpecError before the first job when any job's config is wrong, or the jobs' objective cannot be compared.
    Exits with status 1 after the table when a job failed.
    """
    single = [a for a in arguments if a.lstrip("+").partition("=")[0] in ("resume", "reproduce")]
    if single:
        raise SpecError(f"{', '.join(single)}: means one run; take out -m")
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(arguments)
    points = [point for batch in BasicSweeper.split_arguments(overrides, max_batch_size=None) for point in batch]
    _check_all(points, context=context, config=config)
    returns = []
    for number, point in enumerate(points):
        sys.stderr.write(f"\n[{number + 1}/{len(points)}] {' '.join(point)}\n")
        returns.append(_run_point(number, point, context=context, task_function=task_function, config=config))
    print_results(points, returns)
    if any(r.status is not JobStatus.COMPLETED for r in returns):
        raise SystemExit(1)
    return returns


def _check_all(points: list[list[str]], *, context: HydraContext, config: DictConfig) -> None:
    plains, errors = [], []
    objectives = set()
    for point in points:
        composed = context.config_loader.load_sweep_config(config, point)
        HydraConfig.instance().set_config(composed)
        choices = dict(composed.hydra.runtime.choices)
        try:
            parsed = from_hydra(composed, TrainConfig, choices=choices, overrides=point)
            objectives.add(parsed.objective)
            plains.append(parsed.plain())
        except SpecError as error:
            errors += [line for line in str(error).splitlines() if line not in errors]
    if errors:
        raise SpecError("\n".join(errors))
    if len(objectives) > 1:
        raise SpecError(f"objective: all jobs of a sweep need the same one, got {', '.join(sorted(objectives))}")
    refuse_incomparable(objectives.pop(), plains)


def _run_point(
    number: int, point: list[str], *, context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> JobReturn:
    composed = context.config_loader.load_sweep_config(config, point)
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    HydraConfig.instance().set_config(composed)
    result = run_job(
        hydra_context=context,
        task_function=task_function,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        configure_logging=False,
    )
    if result.status is not JobStatus.COMPLETED:
        if hasattr(result._return_value, "exit_status"):  # a signal, meant for the sweep
            raise result._return_value
        _report_failure(point, result)
    return result


def _report_failure(point: list[str], result: JobReturn) -> None:
    """One line for what a user can mend, the traceback for what only we can."""
    import traceback

    error = result._return_value
    if isinstance(error, UserError):
        sys.stderr.write(f"error: {error}\n")
    else:
        traceback.print_exception(error)
    sys.stderr.write(f"job {' '.join(point)} failed; the sweep goes on\n")


def print_results(points: list[list[str]], returns: list[JobReturn]) -> None:
    """The runs with what tells them apart and their objective, best first, and the line to paste for the best."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    done: list[tuple[Any, list[str]]] = []
    failed = []
    for point, job in zip(points, returns, strict=True):
        done.append((job.return_value, point)) if job.status is JobStatus.COMPLETED else failed.append(point)
    name = done[0][0].objective if done else "objective"
    best_first = sorted(done, key=lambda d: d[0].value, reverse=name != "select/log_loss")
    table = Table(title=f"{len(points)} runs by {name}", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("overrides", overflow="fold")
    same = set.intersection(*(set(point) for point in points))
    for outcome, point in best_first:
        table.add_row(outcome.run, f"{outcome.value:.6g}", " ".join(o for o in point if o not in same))
    for point in failed:
        table.add_row("failed", "-", " ".join(o for o in point if o not in same))
    Console().print(table)
    if best_first:
        sys.stdout.write(f"best: {best_first[0][0]}\n")
