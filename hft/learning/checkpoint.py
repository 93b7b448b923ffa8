"""`last.ckpt`, the state of a training that was cut short: for resume only.

In: a dict of tensors, numbers, text, lists and dicts. Out: a file that holds all of it or, after a
kill, all of the one before. The first line holds the payload's hash, so that a damaged or foreign
file is refused before anything of it is read; the rest is loaded with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from hft.learning.classifier import CheckpointError
from hft.system.files import write_atomic

MAGIC = b"hft training state 1 "
_REMEDY = "train again, or restore the file"


def save_state(path: Path, state: dict[str, Any], *, identity: dict[str, Any]) -> None:
    """`identity` is what a training must share with this one to go on from here."""
    buffer = io.BytesIO()
    torch.save({"identity": identity, "state": state}, buffer)
    payload = buffer.getvalue()
    write_atomic(path, MAGIC + _digest(payload) + b"\n" + payload)


def load_state(path: Path, *, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The state saved last, None where there is none yet. Raises CheckpointError for any other file
    or training.
    """
    try:
        head, _, payload = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read: {error.strerror}; make it readable, or train again"
        ) from None
    if not head.startswith(MAGIC):
        raise CheckpointError(f"{path}: not a training's state of this version; {_REMEDY}")
    # The hash finds accidents. A forger can write a right one, so the load below trusts nothing.
    if head != MAGIC + _digest(payload):
        raise CheckpointError(f"{path}: damaged, its content does not match its hash; {_REMEDY}")
    try:
        # On the CPU: a training on a GPU may go on without one. The learner copies the values to
        # where it trains.
        file = io.BytesIO(payload)
        content = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 # only here
        stored, state = dict(content["identity"]), dict(content["state"])
    except Exception as error:  # a forged file can make the reader raise anything
        raise CheckpointError(
            f"{path}: not a training's state ({type(error).__name__}); {_REMEDY}"
        ) from None
    differ = sorted(k for k in stored.keys() | identity.keys() if stored.get(k) != identity.get(k))
    if differ:
        parts = "; ".join(f"{k} was {stored.get(k)}, is {identity.get(k)}" for k in differ)
        raise CheckpointError(
            f"{path}: the state of another training: {parts}; resume with the run's own config"
        )
    return state


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
