"""Frames on disk, each with the hash of its file beside it: `<name>.parquet` and `<name>.sha256`.

A file that does not match its hash is never given to the parser: on a flipped byte polars may panic
or end the process (seen: an allocation of 2e18 bytes). `sha256sum --check` reads the hash as well.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import polars as pl

from hft.spec import UserError
from hft.system.files import FileError, first_line, write_atomic


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    data = io.BytesIO()
    frame.write_parquet(data)
    write_atomic(path, data.getvalue())
    write_atomic(path.with_suffix(".sha256"), _sha256_line(data.getvalue(), path))


def read_frame(path: Path, *, remedy: str, error: type[UserError] = FileError) -> pl.DataFrame:
    """Raises `error`, which ends with `remedy`, where the file or its hash is missing or wrong."""
    try:
        data, digest = path.read_bytes(), path.with_suffix(".sha256").read_bytes()
    except OSError as fault:
        raise error(f"{path}: missing or unreadable ({first_line(fault)}); {remedy}") from fault
    if _sha256_line(data, path) != digest:
        raise error(f"{path}: does not match its hash in {path.stem}.sha256; {remedy}")
    try:
        return pl.read_parquet(io.BytesIO(data))
    # A stranger's file may be no parquet although its hash, which came with it, fits.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as fault:
        raise error(f"{path}: cannot be read ({first_line(fault)}); {remedy}") from fault


def _sha256_line(data: bytes, path: Path) -> bytes:
    # Two spaces, as sha256sum writes and checks it.
    return f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode()
