"""Content-addressed outputs of the stages: what was computed once is read, by every run and every
concurrent trial.

In: a stage's name, plain spec, modules, parents' keys and a `build` function. Out: an Entry with
the frames and the meta data that `build` returned, from disk when an entry with the same key is
there. The key covers everything that can change the result: spec, syntax trees of the stage's
modules and of the hft modules they import (comments and docstrings do not count), versions of the
numeric libraries, parents' keys and the content of input files. To cache a new stage: call `stage`.

An entry is a folder `<root>/<stage>/<key>/` of parquet files and `meta.json` with their sizes and
hashes. It is written beside its place and renamed, so it is there whole or not at all; nothing is
synced to the disk, because a truncated or flipped file is noticed when read and the entry is built
again.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hft.spec import PACKAGE, UserError, fingerprint
from hft.system.files import locked

LAYOUT = 1  # raise it when entries are laid out differently: old ones are then never found
LIBRARIES = ("polars", "numba", "numpy")
META = "meta.json"

log = logging.getLogger(__name__)

Build = Callable[[], tuple[dict[str, pl.DataFrame], dict[str, Any]]]


class CacheError(UserError):
    """A cache folder that cannot be used."""


class _CorruptError(Exception):
    """An entry that is not what was written; never leaves this module."""


@dataclass(frozen=True)
class Entry:
    """One stage's output: `meta` at hand, frames read and verified each time they are asked for."""

    key: str
    folder: Path
    meta: dict[str, Any]
    files: dict[str, dict[str, Any]]  # frame -> {"size", "sha256"}
    _rebuild: Callable[[str], Entry]

    def frame(self, name: str) -> pl.DataFrame:
        if name not in self.files:
            raise KeyError(f"{self.folder} holds {list(self.files)}, not {name!r}")
        try:
            return self._read(name)
        except _CorruptError as error:
            return self._rebuild(str(error))._read(name)

    def verify(self) -> Entry:
        for name, file in self.files.items():
            _verified_bytes(self.folder / f"{name}.parquet", file)
        return self

    def _read(self, name: str) -> pl.DataFrame:
        data = _verified_bytes(self.folder / f"{name}.parquet", self.files[name])
        return pl.read_parquet(io.BytesIO(data))


@dataclass(frozen=True)
class Cache:
    root: Path

    def key(
        self,
        stage: str,
        *,
        spec: Any,
        module: str | Sequence[str],
        parents: Sequence[str] = (),
        content: Any = None,
    ) -> str:
        """The identity of a stage's output; all arguments are JSON-ready, `module` is dotted names
        inside hft.
        """
        modules = [module] if isinstance(module, str) else sorted(set(module))
        code = [code_hash(name) for name in modules]
        parts = {
            "layout": LAYOUT,
            "stage": stage,
            "spec": spec,
            "code": code,
            "libraries": _library_versions(),
        }
        return fingerprint(parts | {"parents": list(parents), "content": content})

    def has(self, stage: str, key: str) -> bool:
        """Whether `stage` would be a hit: so that a caller starts worker processes only when there
        is work.
        """
        try:
            _load(self.root / stage / key, key, rebuild=_no_rebuild)
        except _CorruptError:
            return False
        return True

    def stage(
        self,
        name: str,
        *,
        spec: Any,
        module: str | Sequence[str],
        build: Build,
        parents: Sequence[str] = (),
        content: Any = None,
    ) -> Entry:
        """The entry of this key, built now unless it is there; of processes that ask at once, one
        builds.

        `build` returns ({name: frame}, meta); meta is JSON-ready. A hit costs a few stat calls, no
        lock and no write.
        """
        key = self.key(name, spec=spec, module=module, parents=parents, content=content)
        folder = self.root / name / key

        def rebuild(reason: str) -> Entry:
            log.warning("cache entry %s is corrupt (%s): building it again", folder, reason)
            with self._locked(folder):
                try:
                    return _load(folder, key, rebuild=rebuild).verify()
                except _CorruptError:
                    return self._write(folder, key, build, rebuild)

        try:
            return _load(folder, key, rebuild=rebuild)
        except _CorruptError as error:
            if folder.exists():
                return rebuild(str(error))
        with self._locked(folder):
            try:
                return _load(
                    folder, key, rebuild=rebuild
                )  # built by another process while this one waited
            except _CorruptError:
                return self._write(folder, key, build, rebuild)

    def _write(
        self, folder: Path, key: str, build: Build, rebuild: Callable[[str], Entry]
    ) -> Entry:
        frames, meta = build()
        partial = _partial_of(folder)
        with self._writable():
            partial.mkdir()
            try:
                _write_files(partial, key, frames, meta)
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return _load(folder, key, rebuild=rebuild)

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        with ExitStack() as held:
            with self._writable():  # what the caller does under the lock has errors of its own
                folder.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(folder.with_name(f".lock-{folder.name}")))
            # Only the holder writes here, so what lies there now was left by a writer that was
            # killed.
            shutil.rmtree(_partial_of(folder), ignore_errors=True)
            yield

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"cache folder {self.root}: cannot be written ({error}); "
                "make room or make it writable, or choose another: paths.cache=<folder>"
            ) from error


def code_hash(module: str) -> str:
    """sha256 over the syntax trees of an hft module and of all hft modules it imports, at any
    depth.
    """
    seen: dict[str, str] = {}
    pending = [module]
    while pending:
        name = pending.pop()
        if name not in seen:
            seen[name], imported = _read_module(name)
            pending += imported
    return fingerprint(seen)


@functools.cache
def _read_module(name: str) -> tuple[str, tuple[str, ...]]:
    """Hash of one module's syntax tree, and the hft modules that it imports anywhere in its
    body.
    """
    path = _source_of(name)
    if path is None:
        raise CacheError(f"{name!r}: must be a module of hft, got no file for it below {PACKAGE}")
    tree = ast.parse(path.read_bytes())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    named = {n for node in ast.walk(tree) for n in _imports(node, package)}
    # Importing a module runs its packages first: they are part of what it does.
    named |= {package for full in named | {name} for package in _packages_of(full)}
    imported = tuple(sorted(n for n in named if n != name and _source_of(n) is not None))
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [n for n in body if not _is_bare_string(n)]
    return hashlib.sha256(ast.dump(tree, annotate_fields=False).encode()).hexdigest(), imported


def _imports(node: ast.AST, package: str) -> list[str]:
    """Dotted names that an import statement may load; attributes among them are sorted out by
    having no file.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        root = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*root, base] if base else root)
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def _packages_of(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _source_of(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*parts[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.is_file() else None


def _is_bare_string(node: ast.AST) -> bool:
    """Docstrings, and the strings under fields that serve as such: expressions without any
    effect.
    """
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@functools.cache
def _library_versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def _partial_of(folder: Path) -> Path:
    return folder.with_name(f".partial-{folder.name}")


def _write_files(
    folder: Path, key: str, frames: dict[str, pl.DataFrame], meta: dict[str, Any]
) -> None:
    files = {}
    for name, frame in frames.items():
        path = folder / f"{name}.parquet"
        # Measured on 2 M trades: zstd 1 takes 35 MB, no compression 80 MB, and both are written in
        # 0.11 s.
        frame.write_parquet(path, compression="zstd", compression_level=1, statistics=False)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = {"size": path.stat().st_size, "sha256": digest}
    body = {"key": key, "files": files, "meta": meta}
    text = json.dumps({"sha256": fingerprint(body), "body": body}, indent=1, allow_nan=False)
    (folder / META).write_text(text)


def _load(folder: Path, key: str, *, rebuild: Callable[[str], Entry]) -> Entry:
    """The entry in `folder`, its meta data whole and its files of the right size; their hashes wait
    for a read.
    """
    try:
        stored = json.loads((folder / META).read_bytes())
        body = stored["body"]
        if stored["sha256"] != fingerprint(body) or body["key"] != key:
            raise _CorruptError(f"{META} does not match its own hash")
        for name, file in body["files"].items():
            size = (folder / f"{name}.parquet").stat().st_size
            if size != file["size"]:
                raise _CorruptError(
                    f"{name}.parquet has {size} bytes, was written with {file['size']}"
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _CorruptError(f"{META}: {error!r}") from error
    return Entry(key, folder, body["meta"], body["files"], rebuild)


def _verified_bytes(path: Path, file: dict[str, Any]) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _CorruptError(f"{path.name}: {error!r}") from error
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise _CorruptError(f"{path.name} does not match its hash")
    return data


def _no_rebuild(reason: str) -> Entry:
    raise AssertionError(f"an entry that was only asked after was read: {reason}")
