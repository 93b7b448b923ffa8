"""The W&B workspace of a project as code: the names that runs log in, panels for grids, studies,
training and backtests out.

A test holds every panel against real runs and their backtests. The runs stay ungrouped, so that
curves are those of single runs; a panel that compares studies groups by the run's group itself. To
add a panel: an entry in its section, then `python -m tests.tracking.test_workspace` writes the
snapshot anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft.metrics import metric, money_metric, scheduled
from hft.spec import UserError, did_you_mean
from hft.system.conf import CONF, read_yaml
from hft.tracking.logger.wandb import has_key
from hft.tracking.tracker import best_of
from hft.tracking.wandb_internals import (
    panel_json,
    refusals,
    set_panel_id,
    set_runset_id,
    workspace_json,
)
from hft.trading.fees import headline

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Panel
    from wandb_workspaces.workspaces import Workspace

LOG_LOSS = metric("select", "log_loss")
# The loss of a training may be focal and is uncalibrated. Log loss is what trainings with different
# losses are compared by.
CURVES = {
    "loss of train, as trained": metric("train", "loss"),
    "loss of tune, as trained": metric("tune", "loss"),
    "log loss of tune": metric("tune", "log_loss"),
    "examples a second": metric("train", "examples_per_s"),
    "gradient norm": metric("train", "grad_norm"),
    "learning rate": metric("train", "lr"),
}
FIGURES = tuple(
    metric("select", name)
    for name in ("confusion_matrix", "pr_curves", "coverage", "reliability", "gates")
)


class WorkspaceError(UserError):
    """A workspace that cannot be built or saved as asked."""


@dataclass(frozen=True)
class Shown:
    """What panels are about: the objective, schedules, a backtest's name, swept config paths per
    search space.
    """

    objective: str
    schedules: tuple[str, ...]
    backtest: str
    spaces: dict[str, tuple[str, ...]]

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.objective, LOG_LOSS)))


def read_shown(*, swept: tuple[str, ...] = (), conf: Path = CONF) -> Shown:
    """The shipped objective and backtest, the dearest and the cheapest schedule of every ladder,
    and each search space of conf/sweep once; `swept` is one more space. Raises WorkspaceError where
    `swept` names no config path.
    """
    known = config_paths(conf)
    named: dict[tuple[str, ...], list[str]] = {}
    # A name with an underscore is included by others and is no sweep of its own.
    for path in sorted((conf / "sweep").glob("[!_]*.yaml")):
        space = tuple(p for path in _space_of(path) if (p := _leaf(path, known)))
        # By space: methods that search the same one share its panel.
        named.setdefault(space, []).append(path.stem)
    spaces = {f"sweep={', '.join(names)}": space for space, names in named.items() if space}
    if swept:
        spaces["typed"] = tuple(_checked(path, known) for path in swept)
    return Shown(
        objective=read_yaml(conf / "train.yaml")["objective"],
        schedules=tuple(
            name for p in sorted((conf / "fees").glob("*.yaml")) for name in _ends(read_yaml(p))
        ),
        backtest=read_yaml(conf / "backtest.yaml")["name"],
        spaces=spaces,
    )


def config_paths(conf: Path = CONF) -> list[str]:
    """Dotted paths of every number and choice that a run's config can have from the YAML in
    `conf`.
    """
    groups = [
        p
        for p in sorted(conf.iterdir())
        # Schemas are no config, and a sweep's settings are its study's and in no run's config.
        if p.is_dir() and p.name not in ("schema", "sweep", "launcher")
    ]
    trees = [{g.name: read_yaml(path)} for g in groups for path in sorted(g.glob("*.yaml"))]
    paths = [path for tree in [read_yaml(conf / "train.yaml"), *trees] for path in _leaves(tree)]
    # An overlay's name is part of a run's config, though it is a choice and no field of a YAML.
    found = ["experiment", *(path for path in paths if ".defaults" not in path)]
    return list(dict.fromkeys(found))


def build_workspace(shown: Shown, *, project: str, entity: str, name: str) -> Workspace:
    """The same arguments give the same workspace, ids included; nothing is asked of the server."""
    import pydantic

    ws, _ = _library()
    sections = {
        "Grids and comparisons": _compare(shown),
        "Studies": _study(shown),
        "Training": _train(shown),
        "Backtests": _backtest(shown),
    }
    for title, panels in sections.items():
        for panel in panels:
            # Emptied first, because the id is part of the JSON that it is a hash of. The section's
            # title goes in: the same panel in two sections needs two ids.
            set_panel_id(panel, "")
            set_panel_id(panel, _identity(title + panel_json(panel)))
    try:
        workspace = ws.Workspace(
            entity=entity,
            project=project,
            name=name,
            sections=[
                ws.Section(name=title, panels=panels, is_open=True)
                for title, panels in sections.items()
            ],
            # Not over W&B's own step, which counts tables and figures too.
            settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=50),
            runset_settings=ws.RunsetSettings(pinned_columns=_columns(shown)),
        )
    except pydantic.ValidationError as error:
        raise WorkspaceError(
            "; ".join(
                f"{e['loc'][0]}: {e['msg'].removeprefix('Value error, ')}, got {e['input']!r}"
                for e in error.errors()
            )
        ) from None
    set_runset_id(workspace, _identity("runs"))
    return workspace


def panels_of(workspace: Workspace) -> dict[str, list[str]]:
    """Section -> the titles of its panels, or what kind of panel it is."""
    return {
        section.name: [_title_of(panel) or _kind_of(panel) for panel in section.panels]
        for section in workspace.sections
    }


def _title_of(panel: object) -> str:
    # A custom chart keeps its title among its own strings.
    strings = getattr(panel, "chart_strings", None) or {}
    return getattr(panel, "title", None) or strings.get("title", "")


def _kind_of(panel: object) -> str:
    """`WeavePanelSummaryTable` of `test/verdict` as `test/verdict`, `RunComparer` as `run
    comparer`.
    """
    of = getattr(panel, "table_name", None) or getattr(panel, "with_respect_to", None)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(panel).__name__).lower()
    return f"{words.removeprefix('weave panel ')}: {of}" if of else words


def _columns(shown: Shown) -> list[str]:
    """Of the table of runs: who they are, then numbers that sort, of `select` before the test."""
    paid = shown.objective.partition("@")[2] or shown.schedules[0]
    tested = [
        money_metric(shown.backtest, paid),
        scheduled(shown.backtest, "sharpe", paid),
        *(metric(shown.backtest, value) for value in ("trades", "break_even_bps", "verdict")),
    ]
    about = ["displayName", "state", "group", "jobType"]
    return [
        *(f"run:{name}" for name in about),
        *(f"summary:{name}" for name in (*shown.targets, *tested)),
    ]


def _compare(shown: Shown) -> list[Panel]:
    _, wr = _library()
    nets = [money_metric("select", schedule) for schedule in shown.schedules]
    by_group = {"groupby": "Group", "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    return [
        *(wr.BarPlot(title=f"{target} by run", metrics=[target]) for target in shown.targets),
        *(
            wr.BarPlot(title=f"{target} by group: mean and range", metrics=[target], **by_group)
            for target in shown.targets
        ),
        wr.BarPlot(title="net bps a day of select by schedule and group", metrics=nets, **by_group),
        wr.WeavePanelSummaryTable(table_name=metric("select", "fees")),
        wr.RunComparer(diff_only="split"),
    ]


def _study(shown: Shown) -> list[Panel]:
    _, wr = _library()
    targets = [
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(target)) for target in shown.targets
    ]
    best = {target: "min" if best_of(target) == "min" else "max" for target in shown.targets}
    return [
        *(
            wr.ParallelCoordinatesPlot(
                title=f"search space: {name}",
                columns=[
                    *(wr.ParallelCoordinatesPlotColumn(wr.Config(path)) for path in space),
                    *targets,
                ],
            )
            for name, space in shown.spaces.items()
        ),
        *(wr.ParameterImportancePlot(with_respect_to=target) for target in shown.targets),
        *(
            wr.ScatterPlot(
                title=f"{target} over time, and the best so far",
                # W&B's own key of when a run began.
                x=wr.Metric("CreatedTimestamp"),
                y=wr.SummaryMetric(target),
                **{f"running_y{best[target]}": True},
            )
            for target in shown.targets
        ),
        *(
            wr.BarPlot(
                title=f"best {target} by study",
                metrics=[target],
                groupby="Group",
                groupby_aggfunc=best[target],
            )
            for target in shown.targets
        ),
        wr.BarPlot(
            title="seconds spent by state",
            # W&B's own key of how long a run worked: it shows what failed and pruned trials cost.
            metrics=["RelativeTime(Process)"],
            groupby="State",
            groupby_aggfunc="sum",
        ),
    ]


def _train(shown: Shown) -> list[Panel]:
    """Curves of a fold and seed stand below its name where a run has several."""
    _, wr = _library()
    curves = CURVES | {"net bps a day of select, where trained with a look at it": shown.objective}
    return [
        *(
            # The expression finds the curve of every fold and seed, whatever prefix it stands
            # below.
            wr.LinePlot(title=title, x="epoch", y=[name], metric_regex=f"^(.*/)?{re.escape(name)}$")
            for title, name in curves.items()
            if name != LOG_LOSS  # no curve: select is scored once, at the end
        ),
        wr.MediaBrowser(title="forecasts of select", media_keys=list(FIGURES), gallery_axis="run"),
        wr.MediaBrowser(
            title="what each feature is worth",
            media_keys=[metric("tune", "importance_bars")],
            gallery_axis="run",
        ),
    ]


def _backtest(shown: Shown) -> list[Panel]:
    _, wr = _library()

    def name(value: str) -> str:
        return metric(shown.backtest, value)

    ends = [
        name(value) for value in ("break_even_low_bps", "break_even_bps", "break_even_high_bps")
    ]
    return [
        wr.WeavePanelSummaryTable(table_name=name("verdict")),
        wr.BarPlot(
            title="net bps a day of the test, by schedule",
            metrics=[money_metric(shown.backtest, schedule) for schedule in shown.schedules],
        ),
        wr.BarPlot(title="break-even cost one way, bps, and its 95 % interval", metrics=ends),
        wr.CustomChart(
            # A chart of one table: all schedules as numbers would be a column each in the table of
            # runs.
            query={"summaryTable": {"tableKey": name("scorecard")}},
            chart_name="wandb/bar/v0",
            chart_fields={"label": "schedule", "value": "net_bps_day"},
            chart_strings={"title": "net bps a day by schedule"},
        ),
        wr.MediaBrowser(title="equity", media_keys=[name("equity")], gallery_axis="run"),
        wr.WeavePanelSummaryTable(table_name=name("scorecard")),
        wr.BarPlot(title="trades", metrics=[name("trades")]),
    ]


def to_json(workspace: Workspace) -> str:
    return workspace_json(workspace) + "\n"


def check_online() -> None:
    """Raises WorkspaceError where W&B could not be asked to save anything."""
    mode = os.environ.get("WANDB_MODE")
    if mode in ("offline", "disabled", "dryrun"):
        raise WorkspaceError(
            f"WANDB_MODE={mode}: a workspace is kept by the server; unset it, or print it: dry=true"
        )
    if not has_key():
        raise WorkspaceError(
            "W&B: there is no key; log in with `wandb login`, or print the workspace: dry=true"
        )


def default_entity() -> str:
    """The user or team that the key belongs to; raises WorkspaceError where the server tells
    none.
    """
    import wandb

    with _refused("the key's own entity is unknown"):
        entity = wandb.Api().default_entity
    if not entity:
        raise WorkspaceError("W&B: the key belongs to no user or team; name one: entity=<team>")
    return entity


def save(workspace: Workspace) -> str:
    """A new view of the project; returns where to look at it."""
    saved: Any = workspace
    with _refused(f"workspace of {workspace.entity}/{workspace.project}: not saved"):
        return str(saved.save().url)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Turns the server's refusal into a WorkspaceError that says what it was about."""
    try:
        yield
    except refusals() as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WorkspaceError(
            f"{what}: {reason}; it needs a team and a project that exist, and a key that may write "
            "there: `wandb login --relogin`"
        ) from error


def _library() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        # Pydantic's, about the library's own code.
        warnings.simplefilter("ignore", DeprecationWarning)
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    return ws, wr


def _identity(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _space_of(path: Path) -> list[str]:
    """The config paths that a sweep searches, those of the files that it builds on before its
    own.
    """
    body = read_yaml(path)
    # conf/sweep/tpe.yaml and its like have their space from a file that they include.
    bases = [name for name in body.get("defaults", []) if name != "_self_"]
    found = [at for name in bases for at in _space_of(path.with_name(f"{name}.yaml"))]
    return list(dict.fromkeys([*found, *(body.get("space") or {})]))


def _ends(fees: dict[str, Any]) -> list[str]:
    """The dearest and the cheapest of each ladder; none of a file that only includes others."""
    return headline({name: fee["taker_bps"] for name, fee in fees.items() if name != "defaults"})


def _leaves(tree: dict[str, Any], path: str = "") -> list[str]:
    below = [(f"{path}.{name}".lstrip("."), value) for name, value in tree.items()]
    return [
        leaf
        for at, value in below
        for leaf in (_leaves(value, at) if isinstance(value, dict) else [at])
    ]


def _leaf(path: str, known: list[str]) -> str:
    """Where W&B has the value: of a choice its kind; "" for what no run's config holds."""
    # A path of a space may be typed as Hydra's grammar has it, `+` in front of a key that is new.
    path = path.lstrip("+~")
    return next((p for p in (path, f"{path}.kind") if p in known), "")


def _checked(path: str, known: list[str]) -> str:
    if not (found := _leaf(path, known)):
        choices = [*known, *(p.removesuffix(".kind") for p in known if p.endswith(".kind"))]
        raise WorkspaceError(f"swept: no such config path {path!r}{did_you_mean(path, choices)}")
    return found
