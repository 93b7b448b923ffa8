"""A run trained again from its own folder, and whether the same numbers came out.

In: the config of a run that is done, as its folder holds it. Out: another run, and what differs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hft.config.configs import TrainConfig
from hft.metrics import is_timing
from hft.runs.folder import Run
from hft.runs.registry import create_run
from hft.runs.train import Outcome, train_in
from hft.system.provenance import differences

SHOWN = 10  # numbers that differ


def reproduce(config: TrainConfig, repeated: Run, *, overrides: Sequence[str] = ()) -> Outcome:
    """Trains the config of `repeated` in a new folder, says what `compare` says, and prints the new
    run's line.
    """
    run = create_run(Path(config.paths.runs))
    outcome = train_in(run, config, overrides=overrides)
    sys.stdout.write(f"{compare(repeated, run)}\n{outcome}\n")
    return outcome


def compare(repeated: Run, run: Run) -> str:
    """Whether `run` came to the numbers of `repeated`, and if not, what else the two record that
    differs.
    """
    before, after = repeated.read_metrics(), run.read_metrics()
    # Seconds and rates differ each time. Every other number must be the same to the bit: no
    # difference is put down to chance.
    names = [name for name in before if not is_timing(name)]
    changed = [name for name in names if before[name] != after.get(name)]
    if not changed:
        return f"reproduced: all {len(names)} numbers of {repeated.id} came out the same"
    numbers = [f"{name}: {before[name]} -> {after.get(name)}" for name in changed[:SHOWN]]
    reasons = differences(repeated.read_about(), run.read_about(), config=TrainConfig)
    nothing = ["nothing that a run records: another machine, or its threads"]
    return "\n  ".join(
        [
            f"not reproduced: {len(changed)} of {len(names)} numbers of {repeated.id} differ, "
            "such as",
            *numbers,
        ]
    ) + "\n  ".join(["\nwhat else differs:", *(reasons or nothing)])
