"""Every bar in one pass: chunks of bars for training, blocks of bars for prediction.

Legend: T bars, P padded bars, N rows that count, W bars of a window, F features, C classes, R
receptive field.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from hft.learning.model import CausalNetwork
from hft.schema import CLASS_NAMES

# Bars per pass when predicting: always the same, so that a prediction does not depend on who asks.
BLOCK = 4096


class Chunks:
    """Batches of chunk starts, decided by the seed and the epoch's number alone.

    An epoch tiles the rows once, from a seeded offset, in a seeded order, and leaves out chunks
    without a row. The number of batches follows from the fewest chunks that can cover the rows: it
    is the same for every epoch, and no batch is empty.
    """

    def __init__(self, rows_T: np.ndarray, *, chunk: int, batch_chunks: int, seed: int) -> None:
        self.at_N, self.chunk, self.seed = np.flatnonzero(rows_T), chunk, seed
        fewest, i = 0, 0
        while i < len(self.at_N):
            fewest, i = fewest + 1, int(np.searchsorted(self.at_N, self.at_N[i] + chunk))
        # The same in every epoch, because the schedule of the learning rate asks for the number of
        # all steps before the first one.
        self.n_batches = -(-fewest // batch_chunks)

    def batches(self, epoch: int) -> list[np.ndarray]:
        # Nothing carries over from the epoch before, so a resumed training makes the same batches.
        rng = np.random.default_rng([self.seed, epoch])
        # Without an offset the same rows would share a chunk in every epoch.
        offset = int(rng.integers(self.chunk))
        starts = np.unique((self.at_N + offset) // self.chunk) * self.chunk - offset
        # An offset that needs more chunks than the fewest makes larger batches, not more of them:
        # up to twice `batch_chunks`.
        return np.array_split(rng.permutation(starts), self.n_batches)

    def count_rows(self, starts: np.ndarray) -> int:
        ends = np.searchsorted(self.at_N, starts + self.chunk)
        return int((ends - np.searchsorted(self.at_N, starts)).sum())


@torch.no_grad()
def dense_logits(network: CausalNetwork, x_PF: torch.Tensor, rows_T: np.ndarray) -> torch.Tensor:
    """Logits [T, C] of the bars in `rows_T`, nan elsewhere; `x_PF` begins R - 1 rows before bar 0.
    Dropout is off.
    """
    out_TC = torch.full((len(rows_T), len(CLASS_NAMES)), torch.nan, device=x_PF.device)
    # Monitors and `on_epoch` predict in the middle of a training.
    was_training = network.training
    network.eval()
    for start, wanted, seen_1WF in passes(network, x_PF, rows_T):
        here_WC = network(seen_1WF)[0, -len(wanted) :]
        # The pass covers the whole block. What nobody asked for stays nan, so that no caller scores
        # a row of another role.
        out_TC[start : start + len(wanted)] = torch.where(wanted[:, None], here_WC, torch.nan)
    network.train(was_training)
    return out_TC


def passes(
    network: CausalNetwork, x_PF: torch.Tensor, rows_T: np.ndarray
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """For every BLOCK with a bar of `rows_T`: its first bar, which of its bars are in `rows_T`, and
    what the network sees for them.
    """
    for start in range(0, len(rows_T), BLOCK):
        wanted = torch.from_numpy(rows_T[start : start + BLOCK]).to(x_PF.device)
        if wanted.any():
            yield (
                start,
                wanted,
                x_PF[None, start : start + len(wanted) + network.receptive_field - 1],
            )
