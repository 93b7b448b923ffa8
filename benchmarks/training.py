"""Examples/s, memory and share of the roofline in training the real `se_tcn` network.

`python -m benchmarks.training` needs torch, numpy and a YAML reader alone (on a GPU machine
pytorch-lightning brings it): the network is loaded from `hft/learning/model/_tcn.py` by path, since
the package around it wants pydantic and polars. A step is what `hft.learning.fit` does with a
batch: gather chunks from the device, forward, backward, clip, AdamW. Labels and weights are made
up, the loss is cross entropy, and there is no check for NaN (it makes a GPU wait each step).

Legend: P padded bars, F features, B chunks, W = R - 1 + chunk, M = B * chunk examples.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import Result

ROOT = Path(__file__).parents[1]
MODELS = {"default": {}, "large": {"channels": 256, "levels": 6}}
N_FEATURES, N_CLASSES = 19, 3  # conf/features/micro.yaml; hold, buy, sell
SEED = 0
GPU = {
    "cases": [
        f"{m} {p} {c}" for m in MODELS for p in ("fp32", "bf16") for c in ("eager", "compiled")
    ],
    "repeats": 7,
}
CPU = {"cases": ["default fp32 eager", "default fp32 compiled", "default bf16 eager"], "repeats": 5}
FULL = {
    "cases": ["default fp32 eager", "default bf16 eager"],
    "repeats": 3,
}  # of all benchmarks: compiling takes long
QUICK = {"cases": ["default fp32 eager"], "repeats": 2}


def measure(*, cases: list[str], repeats: int, chunk: int = 0, batch_chunks: int = 0) -> Result:
    """Times `cases` ("<model> <precision> <eager or compiled>") and the device's ceilings in turns.

    Chunk and batch are those of conf/trainer/cpu.yaml or gpu.yaml where they are 0. A CPU runs on
    one thread, which other work on the machine disturbs least (benchmarks/dense.py).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = yaml.safe_load(
        (ROOT / f"conf/trainer/{'gpu' if device.type == 'cuda' else 'cpu'}.yaml").read_text()
    )
    chunk, batch_chunks = chunk or trainer["chunk"], batch_chunks or trainer["batch_chunks"]
    # Deterministic convolutions, as in hft.learning.fit.
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        built = {name: Case(name, device, chunk=chunk, batch_chunks=batch_chunks) for name in cases}
        ceilings = {
            f"matmul {case.precision}": matmul(device, case.precision) for case in built.values()
        }
        runs = {name: case.run for name, case in built.items()} | ceilings | {"copy": copy(device)}
        seconds = take_turns(runs, device, repeats=repeats)
    torch.set_num_threads(threads)
    flops_per_s = {
        p: 2 * matmul_size(device) ** 3 / seconds[f"matmul {p}"]
        for p in {c.precision for c in built.values()}
    }
    bytes_per_s = 8 * copy_size(device) / seconds["copy"]
    scores = {
        name: case.score(
            seconds[name], flops_per_s=flops_per_s[case.precision], bytes_per_s=bytes_per_s
        )
        for name, case in built.items()
    }
    return Result(
        name="training",
        unit="examples/s",
        rates={name: score["examples_per_s"] for name, score in scores.items()},
        data=f"{batch_chunks} chunks of {chunk} bars a step, {N_FEATURES} random features, seed "
        f"{SEED}; {machine(device)}",
        details={
            "models": {
                model: describe(settings(model))
                for model in {case.model for case in built.values()}
            },
            "matmul_tflop_per_s": {p: round(rate / 1e12, 3) for p, rate in flops_per_s.items()},
            "copy_gb_per_s": round(bytes_per_s / 1e9, 2),
            "cases": scores,
        },
    )


def load_tcn() -> Any:
    """The module hft/learning/model/_tcn.py itself, without the package around it."""
    spec = importlib.util.spec_from_file_location(
        "se_tcn_network", ROOT / "hft/learning/model/_tcn.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings(model: str) -> SimpleNamespace:
    """What the network reads from its spec: conf/model/se_tcn.yaml, changed as MODELS says."""
    return SimpleNamespace(
        **yaml.safe_load((ROOT / "conf/model/se_tcn.yaml").read_text()) | MODELS[model]
    )


def describe(spec: SimpleNamespace) -> dict[str, Any]:
    return vars(spec) | {"receptive_field": load_tcn().receptive_field(spec)}


def build_network(spec: SimpleNamespace) -> torch.nn.Module:
    torch.manual_seed(SEED)
    return load_tcn().Network(spec, N_FEATURES, n_classes=N_CLASSES)


class Batches:
    """Random bars on the device, and losses of chunks of them; a window is a chunk of one bar."""

    def __init__(self, network: torch.nn.Module, n_bars: int, *, device: torch.device) -> None:
        rng = np.random.default_rng(SEED)
        self.network, self.reach, self.n_bars = network, network.receptive_field - 1, n_bars
        x_PF = rng.standard_normal((self.reach + n_bars, N_FEATURES), dtype=np.float32)
        self.x_PF = torch.from_numpy(x_PF).to(device)
        self.y_P = torch.from_numpy(rng.integers(0, N_CLASSES, len(x_PF))).to(device)

    def loss(self, starts_B: torch.Tensor, chunk: int) -> torch.Tensor:
        rows_BW = starts_B[:, None] + torch.arange(self.reach + chunk, device=starts_B.device)
        logits_MC = self.network(self.x_PF[rows_BW])[:, self.reach :].flatten(0, 1).float()
        return cross_entropy(logits_MC, self.y_P[rows_BW[:, self.reach :].flatten()])

    def make_step(
        self, chunk: int, *, precision: str = "fp32"
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        parameters = list(self.network.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

        def step(starts_B: torch.Tensor) -> torch.Tensor:
            with autocast(starts_B.device, precision):
                loss = self.loss(starts_B, chunk)
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            return loss.detach()

        return step

    def starts(self, n_chunks: int, chunk: int, *, seed: int = SEED) -> torch.Tensor:
        """Chunks that tile the bars, in a seeded order."""
        order = np.random.default_rng(seed).permutation(self.n_bars // chunk)[:n_chunks] * chunk
        return torch.from_numpy(order).to(self.x_PF.device)


class Case:
    """One model, precision and mode, and the least work that a step of it needs."""

    def __init__(self, name: str, device: torch.device, *, chunk: int, batch_chunks: int) -> None:
        self.model, self.precision, mode = name.split()
        network = build_network(settings(self.model)).to(device)
        batches = Batches(network, 2 * chunk * batch_chunks, device=device)
        starts_B = batches.starts(batch_chunks, chunk)
        self.examples = chunk * batch_chunks
        self.work = count_work(lambda: batches.loss(starts_B, chunk), device, self.precision)
        if mode == "compiled":
            batches.network = torch.compile(network)
        step = batches.make_step(chunk, precision=self.precision)
        self.run = lambda: step(starts_B)
        started = time.perf_counter()
        self.run()  # compiles
        synchronize(device)
        self.first_s = time.perf_counter() - started
        self.peak_bytes = peak_bytes(device, self.run)

    def score(self, seconds: float, *, flops_per_s: float, bytes_per_s: float) -> dict[str, Any]:
        flops, least, eager = self.work
        floors = {"arithmetic": flops / flops_per_s, "memory": least / bytes_per_s}
        bound = max(floors, key=floors.get)
        return {
            "examples_per_s": round(self.examples / seconds),
            "step_ms": round(seconds * 1e3, 3),
            "first_step_s": round(self.first_s, 2),
            "peak_mib": round(self.peak_bytes / 2**20, 1),
            "flop_per_example": round(flops / self.examples),
            "least_bytes_per_example": round(least / self.examples),
            "eager_bytes_per_example": round(eager / self.examples),
            "roofline_share": round(floors[bound] / seconds, 4),
            "roofline_bound": bound,
            "tflop_per_s": round(flops / seconds / 1e12, 4),
        }


def take_turns(
    runs: dict[str, Callable[[], Any]], device: torch.device, *, repeats: int
) -> dict[str, float]:
    """Median seconds of a call of each, after one untimed call.

    Calls are timed in groups of a fifth of a second, or singly where one takes longer.
    """

    def group(run: Callable[[], Any], n: int) -> float:
        synchronize(device)
        started = time.perf_counter()
        for _ in range(n):
            run()
        synchronize(device)
        return (time.perf_counter() - started) / n

    for run in runs.values():
        group(run, 1)
    sizes = {name: max(1, round(0.2 / group(run, 1))) for name, run in runs.items()}
    seconds = [
        {name: group(run, sizes[name]) for name, run in runs.items()} for _ in range(repeats)
    ]
    return {name: statistics.median(turn[name] for turn in seconds) for name in runs}


PRODUCTS = {
    "aten::convolution",
    "aten::convolution_backward",
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
}


class ByteCounter(TorchDispatchMode):
    """Bytes that operations read and write: `every` operation, and `products` alone.

    Products are convolutions and matrix products. Execution layer by layer moves at least their
    bytes, when everything else is fused into them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.every, self.products = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [
                t
                for t in torch.utils._pytree.tree_leaves((args, kwargs, out))
                if isinstance(t, torch.Tensor)
            ]
            moved = sum(t.numel() * t.element_size() for t in tensors)
            self.every += moved
            self.products += moved * (func._schema.name in PRODUCTS)
        return out


def count_work(
    loss: Callable[[], torch.Tensor], device: torch.device, precision: str
) -> tuple[int, int, int]:
    """(floating-point operations, least bytes, bytes op by op) of one forward and backward pass."""
    with (
        FlopCounterMode(display=False) as flops,
        ByteCounter() as moved,
        autocast(device, precision),
    ):
        loss().backward()
    return flops.get_total_flops(), moved.products, moved.every


def autocast(device: torch.device, precision: str) -> Any:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def matmul_size(device: torch.device) -> int:
    return 8192 if device.type == "cuda" else 1024


def copy_size(device: torch.device) -> int:
    return 2**28 if device.type == "cuda" else 2**24


def matmul(device: torch.device, precision: str) -> Callable[[], Any]:
    """A large product of random numbers, in torch's default mode (fp32 without tf32)."""
    n, generator = matmul_size(device), torch.Generator().manual_seed(SEED)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, generator=generator).to(device, dtype) for _ in range(2))
    return lambda: a @ b


def copy(device: torch.device) -> Callable[[], Any]:
    """4 bytes a number read and 4 written, within the device's memory."""
    source = torch.rand(copy_size(device)).to(device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device: torch.device, run: Callable[[], Any]) -> int:
    """On a GPU the most that `run` holds beyond what was there before it.

    On a CPU it is the most that the process has held so far.
    """
    if device.type == "cpu":
        run()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"one thread of {platform.machine()} CPU, torch {torch.__version__}"


def table(result: Result) -> str:
    """Plain text, for a machine without rich."""
    details = result.details
    ceilings = (
        f"matmul {details['matmul_tflop_per_s']} TFLOP/s, copy {details['copy_gb_per_s']} GB/s"
    )
    lines = [result.data, f"ceilings: {ceilings}"] + [
        f"{model}: {spec}" for model, spec in details["models"].items()
    ]
    columns = (
        "examples_per_s",
        "step_ms",
        "peak_mib",
        "tflop_per_s",
        "roofline_share",
        "roofline_bound",
    )
    lines.append(f"{'case':<24}" + "".join(f"{column:>16}" for column in columns))
    for name, case in details["cases"].items():
        lines.append(f"{name:<24}" + "".join(f"{case[column]:>16}" for column in columns))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one case, two repeats")
    sizes = QUICK if parser.parse_args().quick else GPU if torch.cuda.is_available() else CPU
    result = measure(**sizes)
    sys.stdout.write(table(result) + json.dumps({result.name: result.plain()}) + "\n")


if __name__ == "__main__":
    main()
