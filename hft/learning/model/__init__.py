"""Networks x_BTF -> logits_BTC that predict at every bar, and the classifier that a run stores.

In: a model spec and training rows. Out: a Classifier: transforms, zeros where a feature is unknown,
network, calibration. A network is causal: the logits of bar t depend on the inputs t - R + 1 .. t,
R its `receptive_field`, and it keeps nothing between calls. To add one:
`hft/learning/model/<kind>.py` with a subclass of ModelSpec and `conf/model/<kind>.yaml`; the
conformance suite in tests/model checks the rest.

Legend: B sequences, T bars, F features, C classes (hold, buy, sell), N rows.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from hft.dataset.transforms import TransformSpec, build_transforms, fit_transforms
from hft.learning.model._calibration import fit_calibration as fit_calibration
from hft.learning.model._dense import Chunks as Chunks
from hft.learning.model._dense import dense_logits as dense_logits
from hft.learning.model._insight import gate_activity as gate_activity
from hft.learning.model._insight import permutation_importance as permutation_importance
from hft.schema import CLASS_NAMES
from hft.spec import Kind, UserError


class CheckpointError(UserError):
    """Stored weights that cannot be written, or that are damaged or belong to another config."""


class ModelSpec(Kind):
    @property
    def receptive_field(self) -> int:
        """Bars that one prediction sees, its own included."""
        raise NotImplementedError

    def build(self, n_features: int) -> nn.Module:
        """x_BTF -> logits_BTC with `.receptive_field`; initial weights come from torch's global
        generator.
        """
        raise NotImplementedError


class Classifier(nn.Module):
    """Calibrated logits of every bar, in float64; calibration is the identity until `calibrate` has
    run.
    """

    def __init__(self, transforms: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.transforms = transforms
        self.network = network
        self.register_buffer("log_temperature", torch.zeros((), dtype=torch.float64))
        self.register_buffer("class_bias", torch.zeros(len(CLASS_NAMES), dtype=torch.float64))

    @property
    def receptive_field(self) -> int:
        return self.network.receptive_field

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """What the network sees: transformed features, a row of zeros where any of them is
        unknown.
        """
        y = self.transforms(x)
        known = x.isfinite().all(-1, keepdim=True) & y.isfinite().all(-1, keepdim=True)
        return torch.where(known, y, 0.0)

    def logits(self, x_BTF: torch.Tensor) -> torch.Tensor:
        """Uncalibrated, as trained."""
        return self.network(self.scale(x_BTF))

    def forward(self, x_BTF: torch.Tensor) -> torch.Tensor:
        return self.apply_calibration(self.logits(x_BTF))

    def apply_calibration(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double() / self.log_temperature.exp() + self.class_bias

    def calibrate(self, logits_NC: np.ndarray, y_N: np.ndarray) -> None:
        """Sets temperature and class bias from raw logits; the policy stands in
        `hft/learning/model/_calibration.py`.
        """
        temperature, bias_C = fit_calibration(logits_NC, y_N)
        self.log_temperature.fill_(float(np.log(temperature)))
        self.class_bias.copy_(torch.from_numpy(bias_C))

    def save(self, path: Path) -> None:
        """Weights, transforms and calibration as safetensors, under a temporary name until
        complete.
        """
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                file.write(
                    save({k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()})
                )
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise CheckpointError(
                f"{path}: weights cannot be written: {error.strerror}; choose a writable folder"
            ) from None


def fit_classifier(
    model: ModelSpec, transforms: dict[str, TransformSpec], x_NF: np.ndarray, *, seed: int
) -> Classifier:
    """A fresh classifier: transforms fitted on `x_NF`, the training rows, and initial weights drawn
    from `seed`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(fit_transforms(transforms, x_NF), model.build(x_NF.shape[1]))


def load_classifier(
    path: Path, model: ModelSpec, transforms: dict[str, TransformSpec], *, n_features: int
) -> Classifier:
    """The stored classifier of this config. Raises CheckpointError for a damaged file or another
    config's weights.
    """
    with torch.random.fork_rng(devices=[]):
        classifier = Classifier(build_transforms(transforms, n_features), model.build(n_features))
    classifier.load_state_dict(_read_state(path, expected=classifier.state_dict()))
    return classifier.eval()


def _read_state(path: Path, *, expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    try:
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
        elif not stored.isfinite().all():
            faults.append(f"{name} holds values that are not finite")
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise CheckpointError(
            f"{path}: weights of another config: {'; '.join(sorted(faults)[:4])}{more}; "
            "use the model, features and transforms of the run that wrote it"
        )
    return state


def _form(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
