"""A study as one HTML page that needs nothing else: facts, best, pictures, tables, failures.

In: a Study and its figures. Out: a page without a script, in which whatever was typed or raised is
escaped. To add a part: a function that returns HTML, and its place in `make_report`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from hft.study.points import SEED, points_over_seeds, spread
from hft.study.shown import heading
from hft.study.trials import (
    Labels,
    common_cause,
    importances,
    is_feasible,
    next_lines,
    numbers_of,
    ranked,
    reason_of,
    retried,
    run_id,
    shown_of,
    state_of,
    total,
    values_of,
)
from hft.tracking.tracker import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

    from hft.study.study import Study

N_ROWS = 100  # of a table; the parquet files have all
ROOMS = ("data", "bars", "labels", "splits", "model", "loss", "strategy", "execution")
STYLE = """body{font:14px/1.45 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;
color:#222}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}
.table{overflow-x:auto}table{border-collapse:collapse;font-size:12px}
th,td{text-align:left;padding:.2em .7em;border-bottom:1px solid #ddd;vertical-align:top}
td.n{text-align:right;white-space:nowrap}td.t{min-width:22em;overflow-wrap:anywhere}
pre{background:#f5f5f5;padding:.7em;white-space:pre-wrap}img{max-width:100%}"""


def make_report(study: Study, figures: dict[str, Figure | str]) -> str:
    title = html.escape(f"study {study.name}")
    # Should anything slip through the escaping, the page still runs no script and loads nothing.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    parts = [
        _head(study),
        _best(study),
        _points(study),
        *_pictures(figures),
        _trials(study),
        _failures(study),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _head(study: Study) -> str:
    counts = study.counts()
    done = counts.complete + counts.pruned + counts.failed
    line = (
        f"{done} of {total(study)} trials: {counts.complete} complete, {counts.pruned} pruned, "
        f"{counts.failed} failed; {counts.retried} retried, {counts.running} running, "
        f"{counts.waiting} waiting"
    )
    about = f"{study.sweep.kind} by {' and '.join(study.sweep.objectives)}"
    return "\n".join(f"<p>{html.escape(text)}</p>" for text in (about, line, data_line(study)))


def data_line(study: Study) -> str:
    """What the trials share, `*` where they differ: `data=binance bars=* labels=triple_barrier`."""
    base, swept = study.about.get("base") or {}, list(study.space.distributions())
    words = []
    for room in ROOMS:
        entry = base.get(room)
        kind = entry.get("kind", "?") if isinstance(entry, dict) else "?"
        inside = any(path.startswith(f"{room}.") for path in swept)
        words.append(f"{room}=*" if room in swept else f"{room}={kind}" + ("*" if inside else ""))
    columns = base.get("features")
    words += [f"features={len(columns)} columns"] if isinstance(columns, dict) else []
    return " ".join(words)


def _best(study: Study) -> str:
    best = study.best()
    if not best:
        return "<h2>Best</h2><p>None: no trial completed within the constraints.</p>"
    title = "Best" if len(best) == 1 else f"Pareto front: {len(best)} trials"
    return f"<h2>{title}</h2>\n" + "\n".join(_best_entry(study, trial) for trial in best)


def _best_entry(study: Study, trial: FrozenTrial) -> str:
    values = zip(study.sweep.objectives, values_of(trial), strict=True)
    said = ", ".join(f"{name} = {value:.6g}" for name, value in values)
    lines = html.escape("\n".join(next_lines(study, trial)))
    return f"<p>{html.escape(f'{run_id(study, trial.number)}: {said}')}</p><pre>{lines}</pre>"


def _pictures(figures: dict[str, Figure | str]) -> Iterator[str]:
    for title, figure in figures.items():
        if isinstance(figure, str):
            body = f"<p>{html.escape(figure)}</p>"
        else:
            data = base64.b64encode(png(figure)).decode()
            body = f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'
        # The empty sentence means that the drawing is not for such a study.
        if figure != "":
            yield f"<h2>{html.escape(title)}</h2>\n{body}"


def _points(study: Study) -> str:
    """The means of a grid over seeds; nothing for other studies."""
    points = points_over_seeds(study)
    if not points:
        return ""
    trials = [trial for point in points for trial in point.trials]
    names = [*study.sweep.objectives, *shown_of(study, trials)]
    labels = Labels(study, [point.trials[0] for point in points], without=SEED)
    rows = []
    for point in points[:N_ROWS]:
        found = [spread(study, point, name) for name in names]
        cells = [
            _number(mean) if sd is None else f"{_number(mean)} ± {sd:.2g}" for mean, sd in found
        ]
        rows.append([_text(labels(point.trials[0])), *map(_right, [len(point.trials), *cells])])
    head = ["overrides", "seeds", *map(_heading, names)]
    return _table("Points, mean ± deviation over seeds", head, rows, n_all=len(points))


def _trials(study: Study) -> str:
    trials = ranked(study)
    if not trials:
        return ""
    shares = importances(study)
    labels = Labels(study, trials, first=shares)
    repeated, names = retried(study.trials()), shown_of(study, trials)
    rows = []
    for trial in trials[:N_ROWS]:
        state, numbers = state_of(trial, repeated), numbers_of(study, trial)
        state = "infeasible" if state == "complete" and not is_feasible(trial) else state
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        values = [_number(numbers.get(name)) for name in (*study.sweep.objectives, *names)]
        cells = [_right(value) for value in [*values, seconds]]
        rows.append([f"<td>{trial.number}</td><td>{state}</td>", *cells, _text(labels(trial))])
    head = ["trial", "state", *map(_heading, (*study.sweep.objectives, *names)), "s", "overrides"]
    return _table("Trials, best first", head, rows, n_all=len(trials))


def _heading(name: str) -> str:
    """`net@maker_free` of a metric that reports show, an objective's name as it is."""
    return heading(name) if name.startswith("select/") else name


def _table(title: str, head: Iterable[str], rows: Sequence[Iterable[str]], *, n_all: int) -> str:
    """`rows` are cells as HTML, `head` is text."""
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    left_out = n_all - len(rows)
    more = f"<p>{left_out} more in the parquet files beside this page.</p>" * bool(left_out)
    table = f'<div class="table"><table><tr>{names}</tr>\n{body}\n</table></div>'
    return f"<h2>{html.escape(title)}</h2>\n{table}{more}"


def _right(value: object) -> str:
    return f'<td class="n">{html.escape(str(value))}</td>'


def _text(value: str) -> str:
    return f'<td class="t">{html.escape(value)}</td>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _failures(study: Study) -> str:
    failed = [t for t in study.trials() if t.state.name == "FAIL"]
    if not failed:
        return ""
    repeated = retried(study.trials())
    cause = html.escape(common_cause([reason_of(t) for t in failed]))
    lines = [
        f"{run_id(study, t.number)}, {state_of(t, repeated)}: {reason_of(t)}"
        for t in failed[-N_ROWS:]
    ]
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h2>Failures</h2>\n<p>Most frequent, {cause}</p>\n<ul>{items}</ul>"
