"""A `-m` command: arguments in, a study driven to its end out, with its table and reports.

The command takes a copy of conf/ first, composes everything from it, and leaves it with the study:
an edit afterwards changes nothing. No trial begins before the settings, the space and the study's
identity are checked.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader

from hft.config.compose import Composer
from hft.config.configs import TrainConfig
from hft.config.groups import RUN_KEYS
from hft.config.overrides import of_groups, parse_overrides
from hft.search.driver import Driver, SweepInterrupted
from hft.search.launcher import Where
from hft.search.plan import Plan, Point, make_plan, points_of
from hft.search.screen import Live
from hft.spec import SpecError
from hft.study.claims import reap
from hft.study.export import export, log_study
from hft.study.storage import read_address
from hft.study.study import Study, conf_hash, create_study, freeze_conf
from hft.study.tables import print_results
from hft.study.trials import N_TRIALS
from hft.system.conf import CONF
from hft.tracking.logger.wandb import sync_line

# Modules that a worker imports before its first trial.
# Importing torch and Lightning alone takes two CPU seconds (benchmarks/README.md).
WARM = ("pytorch_lightning", "lightgbm", "hft.search.worker")


def run_sweep(arguments: list[str], *, config_loader: ConfigLoader) -> None:
    """Raises SpecError or StudyError before the first trial for whatever is wrong with the command.

    Exits with status 1 after the table when the sweep ended early, nothing completed, or a point of
    a grid failed.
    """
    single = of_groups(arguments, RUN_KEYS)
    if single:
        raise SpecError(f"{', '.join(single)}: means one run; take out -m")
    with tempfile.TemporaryDirectory(prefix="hft-conf-") as folder:
        conf = freeze_conf(CONF, Path(folder) / "conf")
        plan = make_plan(parse_overrides(arguments, config_loader), conf)
        study = _begin(plan, conf)
    _drive(study, plan)


def _begin(plan: Plan, conf: Path) -> Study:
    sweep = plan.sweep
    root = Path(plan.config.paths.sweeps)
    name = sweep.study or plan.default_name
    # A wrong address is refused before any file is written.
    read_address(sweep.storage, root / name)
    _check_writable(root)
    if (root / name).exists() and not (root / name).is_dir():
        raise SpecError(f"sweep.study: {root / name} is a file, no study; choose another name")
    if sweep.study == "new":
        name, number = plan.default_name, 2
        while (root / name).exists():
            name, number = f"{plan.default_name}-{number}", number + 1
    study = create_study(
        root / name, sweep=sweep, space=plan.space, base=plan.base, conf=conf, overrides=plan.fixed
    )
    if conf_hash(study.folder / "conf") != conf_hash(conf):
        sys.stderr.write(
            f"conf/ changed since study {name} began; it goes on with its own copy, "
            f"{study.folder / 'conf'} (sweep.study=new begins another with the new one)\n"
        )
    return study


def _check_writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(
            f"paths.sweeps: studies cannot be kept in {root} ({error.strerror}); "
            "choose another: paths.sweeps=<folder>"
        ) from None


def _drive(study: Study, plan: Plan) -> None:
    reap(study)  # trials that a killed driver left running count as what they are
    points, total = points_of(plan, study)
    before = study.counts()
    n_trials = max(total, before.points)  # a smaller total must not show as 3 of 1
    # `hft studies` and the report measure progress against the total of the latest call.
    if study.optuna.user_attrs.get(N_TRIALS) != n_trials:
        study.optuna.set_user_attr(N_TRIALS, n_trials)
    left = max(0, total - before.points)
    sys.stderr.write(
        f"study {study.name}: {total} trial{'s' * (total != 1)}, {left} to begin; "
        f"storage {study.address.text}\n"
    )
    stop_reason, interrupted = "", None
    # Retries wait also where every point has been handed out.
    if left or before.running or before.waiting:
        try:
            stop_reason = _run(study, plan, points, total)
        except SweepInterrupted as error:
            interrupted = error
    else:
        sys.stderr.write(
            "all trials are done: sweep.study=new runs them again, "
            "a greater sweep.n_trials goes on\n"
        )
    # An interrupted sweep is reported like any other: what it found is there to be used.
    _report(study, plan)
    if interrupted:
        raise interrupted
    if stop_reason:
        sys.stderr.write(f"the sweep ended early: {stop_reason}\n")
    counts = study.counts()
    # A grid is asked for whole, so that one failure is a hole in it. A search goes on without a
    # trial.
    if not counts.complete or stop_reason or (plan.sweep.kind == "grid" and counts.failed):
        raise SystemExit(1)


def _run(study: Study, plan: Plan, points: list[Point], total: int) -> str:
    """Why the sweep ended before its total; "" where it did not, or where its time was spent."""
    where = Where(
        study.folder, device=plan.device, threads=max(1, plan.config.trainer.threads), warm=WARM
    )
    with plan.launcher.open(where) as engine:
        sys.stderr.write(f"{engine.describe()}\n")
        with Live(study, slots=engine.slots, n_total=total, in_place=not engine.in_process) as live:
            driver = Driver(
                study,
                engine,
                compose=composer(study, plan),
                points=points,
                total=total,
                screen=live,
            )
            driver.run()
    # A spent budget is an end that the user asked for, and no failure.
    if driver.out_of_time:
        sys.stderr.write(f"{driver.stop_reason}; a greater one goes on\n")
        return ""
    return driver.stop_reason


def composer(study: Study, plan: Plan) -> Callable[[Point], dict[str, Any]]:
    """Makes a trial's plain config of its point, from the study's own conf/."""
    compose = Composer(TrainConfig, plan.fixed, conf=study.folder / "conf")
    return lambda point: compose(plan.space.overrides(point)).plain()


def _report(study: Study, plan: Plan) -> None:
    """Writes the files, logs to W&B and, last, prints the table."""
    if not study.counts().points:
        return
    written = export(study)
    log_study(study, plan.config.logger, tags=plan.config.tags)
    print_results(study)
    sys.stderr.write(f"written: {', '.join(str(path) for path in written)}\n")
    if any(study.folder.glob("**/wandb/offline-run-*")):
        upload = sync_line(study.folder, of_study=True)
        sys.stderr.write(f"upload the study and its trials: {upload}\n")
