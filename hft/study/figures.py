"""A study as figures: history, importances, slices, Pareto front, intermediate values; drawn
without a display.

Each function takes a Study and returns a matplotlib Figure, or the sentence that stands in its
place. To add one: a function here and its line in FIGURES. Optuna's own drawings need pyplot, whose
style they change for the whole process, and know neither constraints nor retries.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hft.report.figures import new_panels
from hft.study.trials import (
    MIN_FOR_IMPORTANCE,
    complete_trials,
    importances,
    is_feasible,
    params_of,
    values_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

    from hft.study.study import Study

PRUNED: dict[str, Any] = {"color": "0.6", "s": 14, "marker": "v"}
MAX_PANELS = 24  # of the slices: more would be a very long picture
MAX_CURVES = 300
TURNED: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
WIDE_LABEL, WIDE_TITLE = 20, 38  # characters in a line of a choice on an axis, and of a path
FLAT_LABELS = 45  # characters side by side below a panel; more are turned
LOOKS: dict[str, dict[str, Any]] = {
    "best": {"color": "C3", "s": 42, "zorder": 3},
    "feasible": {"color": "C0", "s": 16, "alpha": 0.7},
    "infeasible": {"color": "0.7", "s": 14, "marker": "x"},
}


def draw_all(study: Study) -> dict[str, Figure | str]:
    """The drawings by title, in the order of the report. A drawing that fails becomes a sentence,
    because it must not cost a sweep its report.
    """
    drawn: dict[str, Figure | str] = {}
    for title, draw in FIGURES.items():
        try:
            drawn[title] = draw(study)
        except Exception as error:  # from evaluators and drawing libraries, about data of any shape
            drawn[title] = f"It cannot be drawn: {type(error).__name__}: {error}"
    return drawn


def plot_history(study: Study) -> Figure | str:
    """Values in the order of the trials, the best so far as a line; pruned trials with the last
    value that they reported.
    """
    complete, pruned = complete_trials(study), [t for t in _pruned(study) if t.values]
    if not complete:
        return "No trial has completed."
    names = study.sweep.objectives
    figure, panels = new_panels(len(names), columns=1, width=8.5, height=3.2)
    for k, (name, axes) in enumerate(zip(names, panels, strict=True)):
        _scatter(axes, study, complete, lambda t: t.number, k)
        if pruned:
            numbers, last = [t.number for t in pruned], [t.values[k] for t in pruned]
            axes.scatter(numbers, last, label="pruned, last reported", **PRUNED)
        # A trial that breaks a constraint may have the best value, and is never the best.
        feasible = [t for t in complete if is_feasible(t)]
        best = _best_so_far([t.values[k] for t in feasible], lower=_lower(study, k))
        numbers = [t.number for t in feasible]
        axes.step(numbers, best, where="post", color="C3", linewidth=1, label="best so far")
        axes.set_title(name, fontsize=9, loc="left")  # beside a low panel a long name is cut
        axes.set_xlabel("trial")
        _count_in_integers(axes)
        _keep_apart(axes, [t.values[k] for t in complete])
        axes.legend(frameon=False, fontsize=8)
    return figure


def plot_importances(study: Study) -> Figure | str:
    """How much the choices of the best trials differ from those of all trials (PED-ANOVA), as
    shares of 1 per objective.
    """
    complete = complete_trials(study)
    if len(complete) < MIN_FOR_IMPORTANCE:
        return f"Importances need {MIN_FOR_IMPORTANCE} complete trials, there are {len(complete)}."
    found = [importances(study, k) for k in range(len(study.sweep.objectives))]
    names = sorted({n for shares in found for n in shares})
    # The sort is stable: equal shares stay in the order of their names.
    names.sort(key=lambda n: round(sum(shares.get(n, 0.0) for shares in found), 9))
    if not names or not any(value > 0 for shares in found for value in shares.values()):
        return "No parameter varies enough to tell their importance."
    figure, (axes,) = new_panels(
        1, columns=1, width=8.5, height=1.2 + 0.3 * len(names) * len(found)
    )
    height = 0.8 / len(found)
    for k, shares in enumerate(found):
        places = np.arange(len(names)) + (k - (len(found) - 1) / 2) * height
        values = [shares.get(n, 0.0) for n in names]
        axes.barh(
            places, values, height=height * 0.9, color=f"C{k}", label=study.sweep.objectives[k]
        )
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="share of importance (PED-ANOVA)", xlim=(0, 1))
    if len(found) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure


def plot_slices(study: Study) -> Figure | str:
    """The first objective over each parameter that varies, the important ones first."""
    complete, shares = complete_trials(study), importances(study)
    names = [
        n for n in dict.fromkeys(n for t in complete for n in t.params) if _varies(complete, n)
    ]
    if not names:
        return "No parameter varies between complete trials."
    shown = sorted(names, key=lambda name: -shares.get(name, 0.0))[:MAX_PANELS]
    figure, panels = new_panels(len(shown), columns=3, width=9.5, height=2.8)
    figure.supylabel(study.sweep.objectives[0], fontsize=9)
    for name, axes in zip(shown, panels, strict=False):
        _slice(axes, study, [t for t in complete if name in t.params], name)
    if len(names) > len(shown):
        left_out = f"{len(names) - len(shown)} less important parameters left out"
        figure.supxlabel(left_out, fontsize=8)
    return figure


def _slice(axes: Axes, study: Study, trials: list[FrozenTrial], name: str) -> None:
    distribution = trials[-1].distributions[name]
    if hasattr(distribution, "choices"):
        # As text, because a choice may be None beside a number, and the two cannot be sorted.
        choices = sorted({str(t.params[name]) for t in trials}, key=_number_first)
        _scatter(axes, study, trials, lambda t: choices.index(str(t.params[name])), 0)
        labels = [_in_lines(choice, WIDE_LABEL) for choice in choices]
        longest = max(len(line) for label in labels for line in label.splitlines())
        turned = longest * len(labels) > FLAT_LABELS
        axes.set_xticks(range(len(choices)), labels, fontsize=7, **(TURNED if turned else {}))
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        _scatter(axes, study, trials, lambda t: t.params[name], 0)
        axes.set_xscale("log" if getattr(distribution, "log", False) else "linear")
        axes.tick_params("x", which="both", labelsize=7)
    axes.tick_params("y", labelsize=7)
    axes.set_title(_in_lines(name, WIDE_TITLE), fontsize=9, loc="left")
    _keep_apart(axes, [t.values[0] for t in trials])


def plot_pareto(study: Study) -> Figure | str:
    """Both objectives of every complete trial, and the front of the feasible ones."""
    if len(study.sweep.objectives) != 2:
        # With an empty sentence the report leaves out the heading too.
        return (
            "" if len(study.sweep.objectives) == 1 else "A front is drawn for two objectives only."
        )
    complete = complete_trials(study)
    if not complete:
        return "No trial has completed."
    figure, (axes,) = new_panels(1, columns=1, width=6.4, height=4.4)
    _scatter(axes, study, complete, lambda t: t.values[0], 1)
    front = sorted(study.best(), key=lambda t: t.values[0])
    axes.plot([t.values[0] for t in front], [t.values[1] for t in front], color="C3", linewidth=1)
    for trial in front:
        axes.annotate(
            str(trial.number), trial.values, fontsize=7, xytext=(4, 4), textcoords="offset points"
        )
    axes.set(xlabel=study.sweep.objectives[0], ylabel=study.sweep.objectives[1])
    return figure


def plot_intermediate(study: Study) -> Figure | str:
    """The values that trials reported while they ran; pruned trials are grey."""
    ended = [t for t in [*_pruned(study), *complete_trials(study)] if t.intermediate_values]
    if not ended:
        return "No trial reported on its way." if study.sweep.prunes else ""
    best = {t.number for t in study.best()}
    figure, (axes,) = new_panels(1, columns=1, width=8.5, height=3.6)
    # The best come last, where they are drawn over the others and MAX_CURVES does not cut them off.
    for trial in sorted(ended, key=lambda t: t.number in best)[-MAX_CURVES:]:
        color = "0.7" if trial.state.name == "PRUNED" else "C0"
        color, width = ("C3", 2.0) if trial.number in best else (color, 0.8)
        steps = sorted(trial.intermediate_values)
        values = [trial.intermediate_values[step] for step in steps]
        axes.plot(steps, values, marker=".", markersize=3, color=color, linewidth=width)
    axes.set_xlabel("step")
    _count_in_integers(axes)
    title = f"{study.sweep.objectives[0]}; grey: pruned, blue: complete, red: best"
    axes.set_title(title, fontsize=9, loc="left")
    return figure


FIGURES: dict[str, Callable[[Any], Any]] = {
    "History": plot_history,
    "Importances": plot_importances,
    "Slices": plot_slices,
    "Pareto front": plot_pareto,
    "Intermediate values": plot_intermediate,
}


def _pruned(study: Study) -> list[FrozenTrial]:
    return [
        t
        for t in study.trials()
        if t.state.name == "PRUNED" and all(map(math.isfinite, values_of(t)))
    ]


def _lower(study: Study, k: int) -> bool:
    return study.optuna.directions[k].name == "MINIMIZE"


def _best_so_far(values: list[float], *, lower: bool) -> np.ndarray:
    array = np.array(values, float)
    return np.minimum.accumulate(array) if lower else np.maximum.accumulate(array)


def _varies(trials: list[FrozenTrial], name: str) -> bool:
    # As text, because True and 1 would be one value of a set.
    return len({str(params_of(t)[name]) for t in trials if name in t.params}) > 1


def _scatter(
    axes: Axes, study: Study, trials: list[FrozenTrial], x: Callable[[FrozenTrial], float], k: int
) -> None:
    best = {t.number for t in study.best()}
    groups = {
        t.number: "best" if t.number in best else "feasible" if is_feasible(t) else "infeasible"
        for t in trials
    }
    for group, look in LOOKS.items():
        members = [t for t in trials if groups[t.number] == group]
        if members:
            axes.scatter(
                [x(t) for t in members], [t.values[k] for t in members], label=group, **look
            )


def _keep_apart(axes: Axes, values: list[float]) -> None:
    """Sets limits where all values are one: matplotlib would choose a scale of 1e-16."""
    if values and max(values) - min(values) < 1e-12 * max(abs(values[0]), 1.0):
        margin = max(abs(values[0]) * 0.1, 0.1)
        axes.set_ylim(values[0] - margin, values[0] + margin)


def _count_in_integers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _number_first(text: str) -> tuple[int, float, str]:
    try:
        return 0, float(text), text
    except ValueError:
        return 1, 0.0, text


def _in_lines(text: str, width: int) -> str:
    """The whole text in lines of at most `width` characters, which end after a separator where they
    can.
    """
    lines = [""]
    for part in re.findall(r"[^._/,@ =-]*[._/,@ =-]|[^._/,@ =-]+", text):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(piece for line in lines for piece in textwrap.wrap(line, width) or [line])
