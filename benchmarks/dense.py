"""Training examples/s of the default SE-TCN: every bar of a chunk in one pass, or a window each.

Both sides run the same code on the same rows, forward, backward, clipping and optimiser step: a
window is a chunk that predicts one bar. Before they are timed, their gradients over the same
examples are compared, with dropout off. The windows come in batches of the faster size, since 2,048
at once leave the caches. Both sides run on one thread, as conf/trainer/cpu.yaml does, and beside
that on all: other work on the machine slows the many small steps of two threads tenfold and those
of one not at all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks import Result
from benchmarks.market import shipped
from benchmarks.training import (
    N_FEATURES,
    SEED,
    Batches,
    build_network,
    describe,
    settings,
    take_turns,
)

FULL = {
    "chunk": 0,
    "batch_chunks": 0,
    "long_chunk": 2048,
    "windows": (64, 128),
    "compared": 512,
    "repeats": 5,
}
QUICK = {
    "chunk": 256,
    "batch_chunks": 1,
    "long_chunk": 512,
    "windows": (64,),
    "compared": 64,
    "repeats": 3,
}
RELATIVE_ERROR = 1e-4  # float32, of the norm of each gradient


def measure(
    *,
    chunk: int,
    batch_chunks: int,
    long_chunk: int,
    windows: tuple[int, ...],
    compared: int,
    repeats: int,
) -> Result:
    """A chunk or batch of 0 stands for that of conf/trainer/cpu.yaml.

    `windows` are the numbers of windows per step that the windowed side tries.
    """
    spec, trainer = settings("default"), shipped("trainer", "cpu")
    chunk, batch_chunks = chunk or trainer["chunk"], batch_chunks or trainer["batch_chunks"]
    device = torch.device("cpu")
    batches = Batches(
        build_network(spec), 2 * max(long_chunk * batch_chunks, *windows), device=device
    )
    error = gradient_error(batches, compared)
    if not error < RELATIVE_ERROR:
        raise AssertionError(
            f"dense: gradients of the two sides differ by {error:.1e} of their norm"
        )
    threads = torch.get_num_threads()
    tried = {
        "dense": [((chunk, batch_chunks), 1)],
        "windowed": [((1, n), 1) for n in windows],
        f"dense, {threads} threads": [((chunk, batch_chunks), threads)],
        f"windowed, {threads} threads": [((1, n), threads) for n in windows],
        f"dense, chunks of {long_chunk}": [((long_chunk, batch_chunks), 1)],
    }
    runs = {
        (side, *step): _run(batches, *step[0], threads=step[1])
        for side in tried
        for step in tried[side]
    }
    timed = take_turns(runs, device, repeats=repeats)
    torch.set_num_threads(threads)
    rates = {
        (side, step): step[0] * step[1] / seconds for (side, step, _), seconds in timed.items()
    }
    best = {side: max((rates[side, step], step) for step, _ in tried[side]) for side in tried}
    return Result(
        name="dense",
        unit="examples/s",
        rates={side: rate for side, (rate, _) in best.items()},
        data=f"{spec.kind}, {spec.channels} channels, {spec.levels} levels, R {batches.reach + 1}; "
        f"{N_FEATURES} random features, seed {SEED}; steps of {batch_chunks} chunks of {chunk} "
        f"bars against steps of {best['windowed'][1][1]} windows of R bars (the fastest of "
        f"{', '.join(map(str, windows))}), one thread each but where it says otherwise",
        expected={"windowed": 200.0},
        details={
            "model": describe(spec),
            "examples_per_s": {
                f"{side}, {n} of {bars} bars": round(r) for (side, (bars, n)), r in rates.items()
            },
            "ratio_of_bars_computed": round(
                (batches.reach + 1) * chunk / (batches.reach + chunk), 1
            ),
            "gradient_error": float(f"{error:.1e}"),
        },
    )


def _run(
    batches: Batches, chunk: int, n_chunks: int, *, threads: int
) -> Callable[[], torch.Tensor]:
    step, starts_B = batches.make_step(chunk), batches.starts(n_chunks, chunk)

    def run() -> torch.Tensor:
        torch.set_num_threads(threads)
        return step(starts_B)

    return run


def gradient_error(batches: Batches, n: int) -> float:
    """Largest relative difference of a parameter's gradient: a chunk of n bars, or n windows."""
    was_training = batches.network.training
    batches.network.eval()
    first = torch.zeros(1, dtype=torch.int64)
    dense, windowed = _gradients(batches, first, n), _gradients(batches, first + torch.arange(n), 1)
    batches.network.train(was_training)
    return max(float((a - b).norm() / a.norm()) for a, b in zip(dense, windowed, strict=True))


def _gradients(batches: Batches, starts_B: torch.Tensor, chunk: int) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(batches.loss(starts_B, chunk), list(batches.network.parameters()))
