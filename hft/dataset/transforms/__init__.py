"""Transforms of features, fitted on training rows and kept in the weights of the classifier.

In: training rows x_NF with NaN where a feature is unknown. Out: frozen nn.Modules x_..F -> x_..F
whose buffers hold what was fitted. They apply in the order of the set; NaN stays NaN. To add one:
`hft/dataset/transforms/<kind>.py` with a subclass of TransformSpec, a set in `conf/transforms/`, a
test with a twin in numpy.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from hft.spec import Kind


class TransformSpec(Kind):
    def build(self, n_features: int) -> nn.Module:
        """The module before any fit, into which a stored state is loaded."""
        raise NotImplementedError

    def fit(self, x_NF: np.ndarray) -> nn.Module:
        """The module fitted on these rows alone; values that are not finite are ignored."""
        raise NotImplementedError


def build_transforms(specs: dict[str, TransformSpec], n_features: int) -> nn.Sequential:
    # The names are those of `fit_transforms`, under which a run stores the state.
    return nn.Sequential(
        OrderedDict((name, spec.build(n_features)) for name, spec in specs.items())
    )


def fit_transforms(specs: dict[str, TransformSpec], x_NF: np.ndarray) -> nn.Sequential:
    """Each transform fitted on the output of the ones before it."""
    fitted = nn.Sequential()
    for name, spec in specs.items():
        with torch.no_grad():
            # In float32, as the network will see it.
            seen_NF = fitted(torch.from_numpy(np.asarray(x_NF, np.float32))).numpy()
        fitted.add_module(name, spec.fit(seen_NF))
    return fitted
