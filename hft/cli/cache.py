"""`hft cache`: what the caches hold, and how to empty them.

Everything in them is built again when it is needed, so that removing costs time and nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from hft.spec import UserError, did_you_mean
from hft.system.cache import Cache, Stored
from hft.system.kernels import default_folder, list_kernels, prune_kernels

KERNELS = "kernels"  # the name of the compiled kernels among the stages
ACTIONS = ["list", "clear", "prune"]
DAYS = 30.0
USAGE = "hft cache [cache=<folder>] [--json] | clear [<stage> ...] | prune [days=30]"


class CacheCommandError(UserError):
    """Arguments that `hft cache` cannot follow."""


@dataclass(frozen=True)
class Row:
    """Entries of one stage, or compiled kernels; `used` says when the youngest was used (UTC)."""

    stage: str
    folder: str
    entries: int
    bytes: int
    used: str | None


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hft cache",
        usage=USAGE,
        description="Lists what the caches hold; removes it. What is removed is built again.",
    )
    parser.add_argument("words", nargs="*", metavar="list|clear|prune", help="list without any")
    parser.add_argument("--json", action="store_true", help="one object per stage, on one line")
    asked = parser.parse_args(arguments)
    settings = dict(word.split("=", 1) for word in asked.words if "=" in word)
    action, *stages = [word for word in asked.words if "=" not in word] or ["list"]
    if action not in ACTIONS:
        raise CacheCommandError(
            f"hft cache {action}: must be one of {', '.join(ACTIONS)}"
            f"{did_you_mean(action, ACTIONS)}"
        )
    # What an action would ignore is refused: `clear days=30` would remove all.
    allowed = {"cache", "days"} if action == "prune" else {"cache"}
    if ignored := [f"{name}=" for name in settings if name not in allowed]:
        raise CacheCommandError(f"hft cache {action}: takes no {ignored[0]}; usage: {USAGE}")
    if stages and action != "clear":
        raise CacheCommandError(f"hft cache {action}: takes no {stages[0]!r}; usage: {USAGE}")
    cache = Cache(Path(settings.get("cache", ".cache")))
    if action == "list":
        show(cache, as_json=asked.json)
    elif action == "clear":
        clear(cache, stages)
    else:
        prune(cache, _days(settings.get("days", str(DAYS))))
    return 0


def count(cache: Cache) -> list[Row]:
    """A row per stage that has entries, and one for the compiled kernels."""
    stages: dict[str, list[Stored]] = {}
    for entry in cache.stored():
        stages.setdefault(entry.stage, []).append(entry)
    rows = [
        Row(
            stage,
            str(cache.root / stage),
            len(entries),
            sum(entry.size for entry in entries),
            _utc(max(entry.used for entry in entries)),
        )
        for stage, entries in stages.items()
    ]
    if (folder := default_folder()) is not None:
        found = [path.stat() for path in list_kernels(folder)]
        used = _utc(max(file.st_mtime for file in found)) if found else None
        rows.append(
            Row(KERNELS, str(folder), len(found), sum(file.st_size for file in found), used)
        )
    return rows


def show(cache: Cache, *, as_json: bool) -> None:
    rows = count(cache)
    if as_json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows]) + "\n")
        return
    lines = [f"{'stage':12} {'entries':>7} {'size':>9}  {'last used':16}  folder"]
    lines += [
        f"{row.stage:12} {row.entries:7} {_size(row.bytes):>9}  {row.used or '-':16}  {row.folder}"
        for row in rows
    ]
    if not cache.stored():
        lines.append(f"{cache.root} holds no stage yet; another folder: hft cache cache=<folder>")
    if default_folder() is None:
        lines.append("compiled kernels are not kept (HFT_KERNELS=off)")
    sys.stdout.write("\n".join(lines) + "\n")


def clear(cache: Cache, stages: list[str]) -> None:
    """Removes all entries, or those of `stages`; "kernels" stands for the compiled kernels."""
    known = [*sorted({entry.stage for entry in cache.stored()}), KERNELS]
    # All names are read before anything is removed: a slip in the second must not cost the first.
    for stage in stages:
        if stage not in known:
            raise CacheCommandError(
                f"hft cache clear {stage}: {cache.root} holds no such stage, it holds "
                f"{', '.join(known)}{did_you_mean(stage, known)}"
            )
    chosen = stages or known
    # An age of minus infinity is every kernel, one that is used at this moment too
    # (hft/system/kernels.py).
    _remove(cache, lambda entry: entry.stage in chosen, -math.inf if KERNELS in chosen else None)


def prune(cache: Cache, days: float) -> None:
    """Removes what no run has read or written for `days`."""
    oldest = time.time() - 86_400 * days
    _remove(cache, lambda entry: entry.used < oldest, days)


def _remove(cache: Cache, gone: Callable[[Stored], bool], kernel_days: float | None) -> None:
    entries = [entry for entry in cache.stored() if gone(entry)]
    for entry in entries:
        cache.remove(entry)
    # What killed writers left belongs to no entry and would stay for good.
    cache.sweep_partials()
    folder = default_folder()
    kernels = 0
    if folder is not None and kernel_days is not None:
        kernels = len(prune_kernels(folder, days=kernel_days))
    sys.stdout.write(
        f"removed {_counted(len(entries), 'entry', 'entries')} of {cache.root} "
        f"({_size(sum(entry.size for entry in entries))}) and "
        f"{_counted(kernels, 'compiled kernel', 'compiled kernels')}\n"
    )


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        # One message for what is no number and for what is below 0.
        days = -1.0
    # Not `days < 0`, which would let nan pass.
    if not days >= 0:
        raise CacheCommandError(f"hft cache prune days={text}: must be a number of days >= 0")
    return days


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"
