"""What a study leaves behind: results.parquet, best/, report.html in its folder, and the same in
W&B.

In: a Study at any time, running or ended. Out: files that are there whole or not at all, each call
anew. To add a part of the report: a function that returns HTML of escaped text, and its place in
`make_report`.
"""

from __future__ import annotations

import base64
import ctypes
import html
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hft.study.figures import draw_all
from hft.study.trials import (
    Labels,
    common_cause,
    is_feasible,
    next_lines,
    ranked,
    reason_of,
    retried,
    run_id,
    state_of,
    total,
    trials_frame,
    values_of,
)
from hft.system.files import locked, writable, write_atomic
from hft.tracking.logger import LoggerSpec, open_tracker
from hft.tracking.tracker import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

    from hft.study.study import Study

N_ROWS = 100  # of the report's table; results.parquet has all
# What scoring a run needs, and nothing of what only resuming it does.
KEPT = (
    "config.json",
    "state.json",
    "metrics.json",
    "fold-*/seed-*/weights.safetensors",
    "fold-*/seed-*/strategy.json",
)
ROOMS = ("data", "bars", "labels", "splits", "model", "loss", "strategy", "execution")
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux
STYLE = """body{font:14px/1.45 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}table{border-collapse:collapse;font-size:12px}
th,td{text-align:left;padding:.2em .7em;border-bottom:1px solid #ddd;overflow-wrap:anywhere}
td.n{text-align:right;white-space:nowrap}pre{background:#f5f5f5;padding:.7em;white-space:pre-wrap}img{max-width:100%}"""


def export(study: Study) -> list[Path]:
    """Writes all three anew and returns where they are; without a best trial there is no best/."""
    lock = study.folder / ".lock-export"
    with writable(lock), locked(lock):
        data = io.BytesIO()
        trials_frame(study).write_parquet(data)
        results, report = study.folder / "results.parquet", study.folder / "report.html"
        write_atomic(results, data.getvalue())
        best = write_best(study)
        write_atomic(report, make_report(study, draw_all(study)).encode())
    return [results, *([best] if best else []), report]


def write_best(study: Study) -> Path | None:
    """best/ with what scores the best trial's run and the lines to paste; several best ones below
    best/<trial>/.
    """
    target, best = study.folder / "best", study.best()
    for left in study.folder.glob(".best-*"):
        shutil.rmtree(left)
    fresh = study.folder / f".best-{secrets.token_hex(4)}"
    with writable(target):
        for trial in best:
            name = study.trial_folder(trial.number).name
            _copy_run(study, trial, fresh / name if len(best) > 1 else fresh)
        if best:
            _put(fresh, target)
        elif target.exists():
            target.rename(fresh)
        shutil.rmtree(fresh, ignore_errors=True)
    return target if best else None


def _copy_run(study: Study, trial: FrozenTrial, folder: Path) -> None:
    source = study.trial_folder(trial.number)
    folder.mkdir(parents=True)
    for path in (p for pattern in KEPT for p in source.glob(pattern)):
        place = folder / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    lines = next_lines(study, trial)
    if not source.is_dir():
        lines.insert(
            0, f"# the run of trial {trial.number} is not in this folder: another machine has it"
        )
    write_atomic(folder / "next.txt", "\n".join(lines).encode() + b"\n")


def _put(fresh: Path, target: Path) -> None:
    """Puts `fresh` at `target` in one step; what was there is at `fresh` afterwards."""
    if not target.exists():
        fresh.rename(target)
        return
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
        failed = exchange(
            AT_FDCWD, os.fsencode(fresh), AT_FDCWD, os.fsencode(target), RENAME_EXCHANGE
        )
    except AttributeError:
        failed = True
    if failed:  # no such call here, or not on this file system: two steps
        old = fresh.with_name(f"{fresh.name}-old")
        target.rename(old)
        fresh.rename(target)
        old.rename(fresh)


def log_study(study: Study, logger: LoggerSpec, *, tags: Sequence[str] = ()) -> None:
    """The study as one W&B run in the group of its trials: counts, best, the table, the figures and
    the report.
    """
    about = {"sweep": study.sweep.plain(), "space": study.space.plain()}
    with open_tracker(
        logger, study.name, study.folder, config=about, tags=tags, group=study.name, job="study"
    ) as tracker:
        if not tracker.keeps:
            return
        tracker.summary(_summary(study))
        tracker.table(
            "sweep/trials", trials_frame(study).with_columns(pl.col("started").dt.to_string())
        )
        figures = draw_all(study)
        for title, figure in figures.items():
            if not isinstance(figure, str):
                tracker.figure(f"sweep/{title.lower().replace(' ', '_')}", figure)
        tracker.page("sweep/report", make_report(study, figures))


def _summary(study: Study) -> dict[str, Any]:
    counts, best = study.counts(), study.best()
    names = ("complete", "pruned", "failed", "retried")
    found = {f"sweep/{name}": getattr(counts, name) for name in names}
    if best:
        found |= {
            "sweep/best": run_id(study, best[0].number),
            "sweep/next": next_lines(study, best[0])[0],
        }
        found |= {
            f"best/{n}": v for n, v in zip(study.sweep.objectives, values_of(best[0]), strict=True)
        }
        found |= {f"best/{path}": value for path, value in best[0].params.items()}
    return found


def make_report(study: Study, figures: dict[str, Figure | str]) -> str:
    """One page that needs nothing else: pictures inside, no script, and whatever was typed or
    raised escaped.
    """
    title = html.escape(f"study {study.name}")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    parts = [_head(study), _best(study), *_pictures(figures), _trials(study), _failures(study)]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n" + "\n".join(p for p in parts if p) + "\n</body></html>\n"
    )


def _head(study: Study) -> str:
    counts = study.counts()
    done = counts.complete + counts.pruned + counts.failed
    line = (
        f"{done} of {total(study)} trials: {counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed; "
        f"{counts.retried} retried, {counts.running} running, {counts.waiting} waiting"
    )
    about = f"{study.sweep.kind} by {' and '.join(study.sweep.objectives)}"
    return "\n".join(f"<p>{html.escape(text)}</p>" for text in (about, line, data_line(study)))


def data_line(study: Study) -> str:
    """What the trials share, `*` where they differ: `data=binance bars=* labels=triple_barrier
    ...`.
    """
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
    values = ", ".join(
        f"{n} = {v:.6g}" for n, v in zip(study.sweep.objectives, values_of(trial), strict=True)
    )
    lines = html.escape("\n".join(next_lines(study, trial)))
    return f"<p>{html.escape(f'{run_id(study, trial.number)}: {values}')}</p><pre>{lines}</pre>"


def _pictures(figures: dict[str, Figure | str]) -> Iterator[str]:
    for title, figure in figures.items():
        if isinstance(figure, str):
            body = f"<p>{html.escape(figure)}</p>"
        else:
            data = base64.b64encode(png(figure)).decode()
            body = f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'
        if figure != "":
            yield f"<h2>{html.escape(title)}</h2>\n{body}"


def _trials(study: Study) -> str:
    trials = ranked(study)
    if not trials:
        return ""
    labels, repeated = Labels(study, trials), retried(study.trials())
    head = "".join(
        f"<th>{html.escape(n)}</th>"
        for n in ("trial", "state", *study.sweep.objectives, "overrides", "s")
    )
    rows = []
    for trial in trials[:N_ROWS]:
        state = state_of(trial, repeated)
        state = "infeasible" if state == "complete" and not is_feasible(trial) else state
        values = [f"{v:.6g}" for v in values_of(trial)] or [""] * len(study.sweep.objectives)
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        cells = [
            f"<td>{trial.number}</td><td>{state}</td>",
            *(f'<td class="n">{v}</td>' for v in values),
        ]
        rows.append(
            "".join([*cells, f'<td>{html.escape(labels(trial))}</td><td class="n">{seconds}</td>'])
        )
    more = f"<p>{len(trials) - N_ROWS} more in results.parquet.</p>" if len(trials) > N_ROWS else ""
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<h2>Trials, best first</h2>\n<table><tr>{head}</tr>\n{body}\n</table>{more}"


def _failures(study: Study) -> str:
    failed = [t for t in study.trials() if t.state.name == "FAIL"]
    if not failed:
        return ""
    repeated = retried(study.trials())
    cause = html.escape(common_cause([reason_of(t) for t in failed]))
    items = [
        f"<li>{html.escape(f'{run_id(study, t.number)}, {state_of(t, repeated)}: {reason_of(t)}')}</li>"
        for t in failed[-N_ROWS:]
    ]
    return f"<h2>Failures</h2>\n<p>Most frequent, {cause}</p>\n<ul>{''.join(items)}</ul>"
