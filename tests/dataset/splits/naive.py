"""The slow twin of roles: judges every row against every run of blocks, without sort or search."""

from __future__ import annotations

from hft.dataset.splits import ROLES


def naive_runs(blocks):
    """The blocks of one role, joined until no two touch."""
    runs = list(blocks)
    while pair := next(((a, b) for a in runs for b in runs if a[1] == b[0]), None):
        runs = [r for r in runs if r not in pair] + [(pair[0][0], pair[1][1])]
    return runs


def naive_roles(split, ts, t_end):
    """Role name per row; t_end is None where there is no label."""
    runs = [(role, run) for role, blocks in split.periods.items() for run in naive_runs(blocks)]
    out = []
    for i, t in enumerate(ts):
        role, run = next(
            ((role, run) for role, run in runs if run[0] <= t < run[1]), ("none", None)
        )
        # How many bars lie between the end of a run and this one.
        since = [
            sum(end <= s < t for s in ts) + sum(s == t for s in ts[:i])
            for _, (_, end) in runs
            if end <= t
        ]
        fits = run and t_end[i] is not None and t_end[i] < run[1]
        out.append(role if fits and all(n >= split.embargo for n in since) else "none")
    return [ROLES.index(role) for role in out]
