"""The classifier that a run stores: transforms, zeros where a feature is unknown, network,
calibration.

In: a model spec, transforms and training rows, or a stored file. Out: calibrated logits of every
bar, and `weights.safetensors`.

Legend: B sequences, T bars, F features, C classes (hold, buy, sell), N rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from hft.dataset.transforms import TransformSpec, build_transforms, fit_transforms
from hft.learning.calibration import fit_calibration
from hft.learning.model import CausalNetwork, ModelSpec
from hft.schema import CLASS_NAMES
from hft.spec import UserError
from hft.system.files import write_atomic


class CheckpointError(UserError):
    """A stored state of a training or a classifier that is damaged or belongs to another config."""


class Classifier(nn.Module):
    """Calibrated logits of every bar, in float64. Calibration is the identity until `calibrate`."""

    log_temperature: torch.Tensor
    class_bias: torch.Tensor

    def __init__(self, transforms: nn.Module, network: CausalNetwork) -> None:
        super().__init__()
        self.transforms = transforms
        self.network = network
        # Buffers, so that the stored weights are the whole forecast. The logarithm keeps the
        # temperature positive.
        self.register_buffer("log_temperature", torch.zeros((), dtype=torch.float64))
        self.register_buffer("class_bias", torch.zeros(len(CLASS_NAMES), dtype=torch.float64))

    @property
    def receptive_field(self) -> int:
        return self.network.receptive_field

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """What the network sees: transformed features, or zeros in a row with any unknown one."""
        # Features are looked at before the transforms too, because clipping makes an infinite one
        # finite. Zeros instead of nan, because a loss weight of 0 times nan is nan, and one such
        # row would spoil the gradient of its whole chunk.
        y: torch.Tensor = self.transforms(x)
        known = x.isfinite().all(-1, keepdim=True) & y.isfinite().all(-1, keepdim=True)
        return torch.where(known, y, 0.0)

    def logits(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """Uncalibrated, as trained."""
        logits_BTC: torch.Tensor = self.network(self.scale(x_BTF))
        return logits_BTC

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        return self.apply_calibration(self.logits(x_BTF))

    def apply_calibration(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double() / self.log_temperature.exp() + self.class_bias

    def calibrate(self, logits_NC: np.ndarray, y_N: np.ndarray) -> None:
        """Sets temperature and class bias from raw logits (hft/learning/calibration.py)."""
        temperature, bias_C = fit_calibration(logits_NC, y_N)
        self.log_temperature.fill_(float(np.log(temperature)))
        self.class_bias.copy_(torch.from_numpy(bias_C))

    def save(self, path: Path) -> None:
        """Weights, transforms and calibration as safetensors. Raises FileError."""
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        write_atomic(path, save(state))


def fit_classifier(
    model: ModelSpec, transforms: dict[str, TransformSpec], x_NF: np.ndarray, *, seed: int
) -> Classifier:
    """A fresh one: transforms fitted on `x_NF`, the training rows; weights drawn from `seed`."""
    # Drawn on the CPU, so that the device does not change the initial weights. `devices=[]` leaves
    # the generators of GPUs alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(fit_transforms(transforms, x_NF), model.build(x_NF.shape[1]))


def load_classifier(
    path: Path, model: ModelSpec, transforms: dict[str, TransformSpec], *, n_features: int
) -> Classifier:
    """The stored classifier of this config. Raises CheckpointError for a damaged file or for the
    weights of another config.
    """
    with torch.random.fork_rng(devices=[]):
        # Initial weights are drawn and thrown away; the caller's generator must not notice.
        classifier = Classifier(build_transforms(transforms, n_features), model.build(n_features))
    classifier.load_state_dict(_read_state(path, expected=classifier.state_dict()))
    return classifier.eval()


def _read_state(path: Path, *, expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    try:
        # safetensors hold numbers alone: a stranger's file can run no code (docs/design.md 7).
        state = load(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{path}: weights cannot be read: {error.strerror}; train again or choose another run"
        ) from None
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: not a complete safetensors file ({error}); train again or restore it"
        ) from None
    faults = [f"{name} is missing" for name in expected if name not in state]
    faults += [f"{name} is unknown" for name in state if name not in expected]
    for name in expected.keys() & state.keys():
        stored, due = state[name], expected[name]
        if (stored.shape, stored.dtype) != (due.shape, due.dtype):
            faults.append(f"{name} is {_form(stored)}, must be {_form(due)}")
        # Forecasts of nan would pass for bars whose features are unknown.
        elif not stored.isfinite().all():
            faults.append(f"{name} holds values that are not finite")
    if faults:
        # Another config differs in nearly every tensor; four names are enough to tell which.
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise CheckpointError(
            f"{path}: weights of another config: {'; '.join(sorted(faults)[:4])}{more}; "
            "use the model, features and transforms of the run that wrote it"
        )
    return state


def _form(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
