"""CPU seconds of a new process that runs `train.py experiment=smoke logger=none`.

The sides: from nothing ("cold"), with cached data ("warm data"), and with cached data and compiled
kernels ("warm code"). The process runs the real command and accounts for its CPU time by part: the
imports of large libraries, kernels compiled or found on the disk, the fit, and the rest. All runs
must have the same metrics. CPU time depends little on what else the machine does; wall time would.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import Result

ROOT = Path(__file__).parents[1]
FULL = {"repeats": 3, "overrides": ()}
QUICK = {"repeats": 1, "overrides": ()}
LIBRARIES = ("hydra", "polars", "numba", "torch", "pytorch_lightning", "matplotlib", "wandb")
SIDES = ("warm code", "warm data", "cold")
ELSE = "else"


def measure(*, repeats: int, overrides: tuple[str, ...]) -> list[Result]:
    """`overrides` follow those of the smoke run."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            # The first run fills both caches, and the last one reads them.
            for side, kernels in (
                ("cold", root / "k"),
                ("warm data", "off"),
                ("warm code", root / "k"),
            ):
                runs[side].append(run_smoke(root, str(kernels), overrides))
    refuse_other_metrics(runs)
    data = f"experiment=smoke logger=none, one thread, {repeats} runs a side, each a new process"
    return [compare_sides(runs, data), *(split(side, runs[side], data) for side in SIDES[:2])]


def run_smoke(root: Path, kernels: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """{"cpu_s", "wall_s", "parts": {part: CPU s}, "metrics"} of one run in a process of its own.

    The part "exit" is what the process spends after its account of itself.
    """
    arguments = [
        "experiment=smoke", "logger=none", "trainer.progress=false", "trainer.threads=1",
        "show_config=false", f"paths.runs={root / 'runs'}", f"paths.cache={root / 'cache'}",
        *overrides,
    ]  # fmt: skip
    before, began = cpu_of_children(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.start", *arguments],
        cwd=ROOT,
        env=os.environ | {"HFT_KERNELS": kernels},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"start: the run failed: {done.stderr[-2000:]}")
    account = json.loads(done.stdout.splitlines()[-1])
    cpu_s, wall_s = cpu_of_children() - before, time.perf_counter() - began
    account["parts"]["exit"] = cpu_s - sum(account["parts"].values())
    return account | {"cpu_s": cpu_s, "wall_s": wall_s}


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def refuse_other_metrics(runs: dict[str, list[dict[str, Any]]]) -> None:
    every = [run["metrics"] for side in runs.values() for run in side]
    if any(metrics != every[0] for metrics in every):
        raise AssertionError("start: the sides disagree on the metrics of the run")


def compare_sides(runs: dict[str, list[dict[str, Any]]], data: str) -> Result:
    return Result(
        name="start",
        unit="CPU s",
        rates={side: statistics.median(run["cpu_s"] for run in runs[side]) for side in SIDES},
        expected={"warm data": 0.65},
        cost=True,
        data=data,
        details={
            "wall_s": {side: [round(run["wall_s"], 2) for run in runs[side]] for side in SIDES}
        },
    )


def split(side: str, runs: list[dict[str, Any]], data: str) -> Result:
    """The CPU seconds of a run of `side`: all of them, then by part, largest first."""
    names = {name for run in runs for name in run["parts"]}
    parts = {name: statistics.median(run["parts"].get(name, 0.0) for run in runs) for name in names}
    ordered = dict(sorted(parts.items(), key=lambda item: -item[1]))
    return Result(
        name=f"start, {side}",
        unit="CPU s",
        rates={"all": statistics.median(run["cpu_s"] for run in runs)} | ordered,
        cost=True,
        data=f"{data}; a library's own imports of another one of the list count for the other",
    )


class Clock:
    """CPU seconds of this process by part; a part inside another one interrupts it."""

    def __init__(self) -> None:
        self.spent = {"interpreter": time.process_time()}
        self.parts = [ELSE]
        self.last = time.process_time()

    def settle(self) -> None:
        now = time.process_time()
        self.spent[self.parts[-1]] = self.spent.get(self.parts[-1], 0.0) + now - self.last
        self.last = now

    def begin(self, part: str) -> None:
        self.settle()
        self.parts.append(part)

    def end(self) -> None:
        self.settle()
        self.parts.pop()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def wrap(self, function: Any, part: str) -> Any:
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(part):
                return function(*arguments, **named)

        return timed


@contextlib.contextmanager
def imports_on(clock: Clock) -> Iterator[None]:
    right = builtins.__import__

    def timed(name: str, *arguments: Any, **named: Any) -> Any:
        library = name.partition(".")[0]
        if library not in LIBRARIES or library in sys.modules:
            return right(name, *arguments, **named)
        with clock.part(f"import {library}"):
            return right(name, *arguments, **named)

    with patch.object(builtins, "__import__", timed):
        yield


@contextlib.contextmanager
def kernels_on(clock: Clock) -> Iterator[None]:
    from numba.core import event

    from hft.system import kernels

    class Compilations(event.Listener):
        def on_start(self, _: event.Event) -> None:
            clock.begin("compile kernels")

        def on_end(self, _: event.Event) -> None:
            clock.end()

    load, save = kernels._Store.load_overload, kernels._Store.save_overload
    with (
        event.install_listener("numba:compile", Compilations()),
        patch.object(kernels._Store, "load_overload", clock.wrap(load, "find kernels")),
        patch.object(kernels._Store, "save_overload", clock.wrap(save, "keep kernels")),
    ):
        yield


def account(arguments: list[str]) -> dict[str, Any]:
    """Runs the command in this process: its CPU seconds by part, and the run's metrics."""
    clock, said = Clock(), io.StringIO()
    with contextlib.redirect_stdout(said), imports_on(clock), kernels_on(clock):
        import hft.cli.train
        import hft.runs.fold

        with patch.object(hft.runs.fold, "fit", clock.wrap(hft.runs.fold.fit, "fit")):
            status = hft.cli.train.main(arguments)
    clock.settle()
    if status:
        raise AssertionError(f"the run ended with status {status}: {said.getvalue()[-2000:]}")
    from hft.metrics import is_timing
    from hft.runs.registry import list_runs

    folder = next(word for word in arguments if word.startswith("paths.runs=")).partition("=")[2]
    metrics = list_runs(Path(folder))[0].read_metrics()
    return {
        "parts": clock.spent,
        "metrics": {name: value for name, value in metrics.items() if not is_timing(name)},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(account(sys.argv[1:])) + "\n")
