"""What a sweep shows while it runs: a table that stays in place on a terminal, elsewhere a line per
finished trial.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from typing import TYPE_CHECKING

from hft.study.progress import finished_line, progress
from hft.study.trials import (
    ENDED,
    MIN_FOR_IMPORTANCE,
    Labels,
    complete_trials,
    importances,
    retried,
    state_of,
    total,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.live import Live as Screen

    from hft.study.study import Study

EVERY_S = 0.5  # between two looks at the storage


class Live:
    """A context around the driver's loop, which calls `update` in every turn.

    Everything is read from the storage, so that the trials of other drivers are shown too.
    `in_place=False` where the trials write to this terminal themselves.
    """

    def __init__(
        self, study: Study, *, slots: int, n_total: int | None = None, in_place: bool = True
    ) -> None:
        self.study, self.slots = study, slots
        self.n_total = total(study) if n_total is None else n_total
        self.labels = Labels(study)
        self.started = time.monotonic()
        self.looked = float("-inf")
        self.shares: dict[str, float] = {}
        self.rank_at = MIN_FOR_IMPORTANCE
        # What ended before this call is no news.
        self.told = {trial.number for trial, _ in self._ended()}
        self.screen = self._open_screen() if in_place else None

    def __enter__(self) -> Live:
        if self.screen:
            self.screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.update(now=True)
        finally:
            # A storage that fails in the last look must not leave the terminal without its cursor.
            if self.screen:
                self.screen.stop()

    def finished(self) -> None:
        """Makes the next `update` look at once."""
        self.looked = float("-inf")

    def update(self, *, now: bool = False) -> None:
        """Shows what changed; does nothing within EVERY_S of the last look, unless `now` or after
        `finished`.
        """
        if not now and time.monotonic() - self.looked < EVERY_S:
            return
        self.looked = time.monotonic()
        if self.screen:
            elapsed_s = time.monotonic() - self.started
            view = progress(
                self.study,
                slots=self.slots,
                n_total=self.n_total,
                shares=self._shares(),
                elapsed_s=elapsed_s,
            )
            self.screen.update(view, refresh=True)
        else:
            self._tell_finished()

    def _shares(self) -> dict[str, float]:
        """Importances, computed again when the trials have doubled: nobody can read columns that
        jump.
        """
        if (n := len(complete_trials(self.study))) >= self.rank_at:
            self.shares, self.rank_at = importances(self.study), 2 * n
        return self.shares

    def _tell_finished(self) -> None:
        ended = self._ended()
        fresh = [(trial, state) for trial, state in ended if trial.number not in self.told]
        done = sum(state in ENDED for _, state in ended) - sum(state in ENDED for _, state in fresh)
        for trial, state in sorted(fresh, key=lambda f: f[0].datetime_complete or dt.datetime.max):
            done += state in ENDED
            place = f"{done}/{self.n_total}"
            line = finished_line(
                self.study, trial, state=state, place=place, label=self.labels(trial)
            )
            sys.stderr.write(f"{line}\n")
            self.told.add(trial.number)
        sys.stderr.flush()

    def _ended(self) -> list[tuple[FrozenTrial, str]]:
        trials = self.study.trials()
        self.labels.see(trials)
        repeated = retried(trials)
        states = [(t, state_of(t, repeated)) for t in trials]
        return [(t, s) for t, s in states if s in (*ENDED, "retried")]

    def _open_screen(self) -> Screen | None:
        from rich.console import Console
        from rich.live import Live as Screen

        console = Console(stderr=True, markup=False, highlight=False)
        if not console.is_terminal:
            return None
        # Transient, because the table of results takes its place.
        return Screen(console=console, auto_refresh=False, transient=True)
