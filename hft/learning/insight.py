"""What a classifier looks at: the gates of its blocks, and what each feature is worth to it.

Legend: T bars, P padded bars, W bars of a pass, F features, C channels, L gated blocks, K parts, N
known bars.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import nll_loss, pad

from hft.dataset.rows import Dataset
from hft.learning.classifier import Classifier
from hft.learning.dense import dense_logits, passes
from hft.learning.model import CausalNetwork
from hft.learning.model._tcn import SqueezeExcite


def gated_blocks(network: nn.Module) -> list[SqueezeExcite]:
    """Empty for a network without gates."""
    return [module for module in network.modules() if isinstance(module, SqueezeExcite)]


@torch.no_grad()
def gate_activity(
    network: CausalNetwork, x_PF: torch.Tensor, rows_T: np.ndarray, *, n_parts: int = 1
) -> np.ndarray:
    """float64 [L, K, C]: the mean gate, in (0, 1), of every block and channel over each of the
    `n_parts` equal parts of the rows in time order.

    L is 0 for a network without gates. `x_PF` begins R - 1 rows before bar 0, as in `dense_logits`.
    """
    gated = gated_blocks(network)
    if not gated:
        return np.empty((0, n_parts, 0))
    n_rows = int(rows_T.sum())
    # Parts have equal numbers of rows, not of bars: rows may be anywhere in the period.
    part_T = torch.from_numpy(np.maximum(np.cumsum(rows_T) - 1, 0) * n_parts // max(n_rows, 1)).to(
        x_PF.device
    )
    # float64: a float32 sum over all bars of a period loses digits.
    sums_LKC = torch.zeros(
        len(gated), n_parts, gated[0].excite.out_channels, dtype=torch.float64, device=x_PF.device
    )
    seen: list[torch.Tensor] = []
    hooks = [
        # The gates are computed a second time, because a network keeps nothing between calls.
        m.register_forward_hook(lambda m, inputs, _: seen.append(m.gates(inputs[0])[0]))
        for m in gated
    ]
    was_training = network.training
    network.eval()
    for start, wanted, seen_1WF in passes(network, x_PF, rows_T):
        network(seen_1WF)
        for sums_KC, gates_WC in zip(sums_LKC, seen, strict=True):
            # The first R - 1 bars of a pass are there to be seen, not to be counted.
            here_NC = gates_WC[-len(wanted) :][wanted].double()
            sums_KC.index_add_(0, part_T[start : start + len(wanted)][wanted], here_NC)
        seen.clear()
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    rows_K = np.bincount(part_T.cpu().numpy()[rows_T], minlength=n_parts)
    return sums_LKC.cpu().numpy() / np.maximum(rows_K, 1)[:, None]


@torch.no_grad()
def permutation_importance(
    classifier: Classifier, dataset: Dataset, rows_T: np.ndarray, *, seed: int
) -> dict[str, float]:
    """By how many nats the calibrated log loss of `rows_T` rises when one feature's values come
    from elsewhere in the period.

    The feature's column is cut into blocks of at least R bars (halves where the period is shorter
    than 2 R), and every block moves, the same way for every feature. So a feature loses its tie to
    the label and to the others, and keeps its own course in time. `rows_T` must be usable and
    labelled. One dense pass per feature.
    """
    reach = classifier.receptive_field - 1
    at_N = np.flatnonzero(rows_T)
    period = slice(max(at_N[0] - reach, 0), at_N[-1] + 1)
    device = classifier.class_bias.device
    rows_T, y_N = rows_T[period], torch.from_numpy(dataset.y_T[at_N]).to(device)
    x_PF = pad(
        classifier.scale(torch.from_numpy(dataset.x_TF[period]).to(device)), (0, 0, reach, 0)
    )

    def log_loss() -> float:
        logits_NC = dense_logits(classifier.network, x_PF, rows_T)[torch.from_numpy(rows_T)]
        return float(nll_loss(classifier.apply_calibration(logits_NC).log_softmax(-1), y_N))

    # An unknown bar is a row of zeros. It neither moves nor takes a value, or a bar would be known
    # in part, which the network has never seen.
    at_known = np.flatnonzero(dataset.valid_T[period]) + reach
    at_moved = at_known[_move_blocks(len(at_known), reach + 1, seed=seed)]
    known_N, moved_N = (torch.from_numpy(at).to(device) for at in (at_known, at_moved))
    before = log_loss()
    rises = {}
    for feature, name in enumerate(dataset.names):
        column_P = x_PF[:, feature].clone()
        x_PF[known_N, feature] = column_P[moved_N]
        rises[name] = log_loss() - before
        x_PF[:, feature] = column_P
    return rises


def _move_blocks(n: int, length: int, *, seed: int) -> np.ndarray:
    """Positions 0..n-1, cut into blocks of at least `length` where two fit, in a random order that
    leaves no block in its place.
    """
    n_blocks = min(max(n // length, 2), n)
    blocks = np.array_split(np.arange(n), n_blocks)
    # One cycle through all blocks has no fixed point. A plain permutation leaves a block in place
    # now and then, which would make a feature look worth less than it is.
    cycle = np.random.default_rng(seed).permutation(n_blocks)
    source = np.empty(n_blocks, int)
    source[cycle] = np.roll(cycle, 1)
    return np.concatenate([blocks[k] for k in source])
