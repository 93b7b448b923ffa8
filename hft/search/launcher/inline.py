"""Runs a task in the process that submits it, for debuggers: Ctrl-C and breakpoints work; there are
no limits, and nothing runs in parallel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from hft.search.launcher import Engine, Function, LauncherSpec, Where, perform, to_text


class Inline(LauncherSpec):
    kind: Literal["inline"]

    def open(self, where: Where) -> Engine:
        return InlineEngine()


@dataclass(frozen=True)
class InlineFuture:
    outcome: dict[str, Any]

    def done(self) -> bool:
        return True

    def result(self) -> dict[str, Any]:
        return self.outcome

    def cancel(self) -> None:
        pass


class InlineEngine(Engine):
    slots = 1
    in_process = True

    def submit(self, function: Function, task: dict[str, Any]) -> InlineFuture:
        return InlineFuture(json.loads(perform(*to_text(function, task))))

    def describe(self) -> str:
        return "inline: one trial at a time, in this process"
