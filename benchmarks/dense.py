"""Training examples/s of the default SE-TCN when a pass predicts every bar of a chunk, against one window per example.

Both sides run the same code on the same rows, forward, backward, clipping and optimiser step: a window is a chunk that
predicts one bar. Before they are timed, their gradients over the same examples are compared, with dropout off. Each
side runs on one thread and on all and shows its better rate: a machine busy with other work slows the many small steps
of two threads tenfold and those of one not at all.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks import Result, race
from benchmarks.market import shipped
from benchmarks.training import N_FEATURES, SEED, Batches, build_network, describe, settings

FULL = {"chunk": 0, "batch_chunks": 0, "long_chunk": 2048, "compared": 512, "repeats": 3}
QUICK = {"chunk": 256, "batch_chunks": 1, "long_chunk": 512, "compared": 64, "repeats": 3}
RELATIVE_ERROR = 1e-4  # float32, of the norm of each gradient


def measure(*, chunk: int, batch_chunks: int, long_chunk: int, compared: int, repeats: int) -> Result:
    """Chunk and batch are those of conf/trainer/cpu.yaml where they are 0; a step of windows has as many examples."""
    spec, trainer = settings("default"), shipped("trainer", "cpu")
    chunk, batch_chunks = chunk or trainer["chunk"], batch_chunks or trainer["batch_chunks"]
    examples = chunk * batch_chunks
    batches = Batches(build_network(spec), 2 * long_chunk * batch_chunks, device=torch.device("cpu"))
    error = gradient_error(batches, compared)
    if not error < RELATIVE_ERROR:
        raise AssertionError(f"dense: gradients of the two sides differ by {error:.1e} of their norm")
    steps = {
        "dense": (chunk, batch_chunks),
        "windowed": (1, examples),
        f"dense, chunks of {long_chunk}": (long_chunk, batch_chunks),
    }
    threads = torch.get_num_threads()
    runs = {(side, n): _run(batches, *steps[side], threads=n) for side in steps for n in sorted({1, threads})}
    timed = race(runs, repeats=repeats)
    torch.set_num_threads(threads)
    by_threads = {
        side: {n: steps[side][0] * steps[side][1] / t.seconds for (s, n), t in timed.items() if s == side}
        for side in steps
    }
    return Result(
        name="dense",
        unit="examples/s",
        rates={side: max(rates.values()) for side, rates in by_threads.items()},
        data=f"{spec.kind}, {spec.channels} channels, {spec.levels} levels, R {batches.reach + 1}; {N_FEATURES} random "
        f"features, seed {SEED}; steps of {batch_chunks} chunks of {chunk} bars against {examples} windows of R bars, "
        f"better of 1 and {threads} CPU threads",
        expected={"windowed": 200.0},
        details={
            "model": describe(spec),
            "examples_per_s_by_threads": {
                s: {n: round(r) for n, r in rates.items()} for s, rates in by_threads.items()
            },
            "ratio_of_bars_computed": round((batches.reach + 1) * chunk / (batches.reach + chunk), 1),
            "gradient_error": float(f"{error:.1e}"),
        },
    )


def _run(batches: Batches, chunk: int, n_chunks: int, *, threads: int) -> Callable[[], torch.Tensor]:
    step, starts_B = batches.make_step(chunk), batches.starts(n_chunks, chunk)

    def run() -> torch.Tensor:
        torch.set_num_threads(threads)
        return step(starts_B)

    return run


def gradient_error(batches: Batches, n: int) -> float:
    """Largest relative difference of any parameter's gradient between one chunk of n bars and its n windows."""
    was_training = batches.network.training
    batches.network.eval()
    first = torch.zeros(1, dtype=torch.int64)
    dense, windowed = _gradients(batches, first, n), _gradients(batches, first + torch.arange(n), 1)
    batches.network.train(was_training)
    return max(float((a - b).norm() / a.norm()) for a, b in zip(dense, windowed, strict=True))


def _gradients(batches: Batches, starts_B: torch.Tensor, chunk: int) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(batches.loss(starts_B, chunk), list(batches.network.parameters()))
