"""What a module of hft computes, as one hash: for the keys of cached stages.

In: a module's dotted name. Out: sha256 over the syntax trees of the module and of all modules of
hft that it imports, so that comments, docstrings and layout do not count. The hash over every byte,
which a run records, is in hft/system/provenance.py.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

from hft.spec import PACKAGE, UserError, fingerprint


class CodeError(UserError):
    """A module that hft does not have."""


def syntax_hash(module: str) -> str:
    """sha256 over the syntax trees of a module of hft and of all those it imports, at any depth.

    Raises CodeError for a name without a file.
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
    """Hash of one module's syntax tree, and the modules of hft that its body imports anywhere."""
    path = _source_of(name)
    if path is None:
        raise CodeError(f"{name!r}: must be a module of hft, got no file for it below {PACKAGE}")
    tree = ast.parse(path.read_bytes())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    # Anywhere in the file, because modules of hft are imported inside functions too.
    named = {n for node in ast.walk(tree) for n in _imports(node, package)}
    # Importing a module runs its packages first: they are part of what it does.
    named |= {package for full in named | {name} for package in _packages_of(full)}
    imported = tuple(sorted(n for n in named if n != name and _source_of(n) is not None))
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [n for n in body if not _is_bare_string(n)]
    return hashlib.sha256(ast.dump(tree, annotate_fields=False).encode()).hexdigest(), imported


def _imports(node: ast.AST, package: str) -> list[str]:
    """Dotted names that an import statement may load. Those of attributes (`hft.spec.Spec`) have no
    file, and the caller drops them.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        # One dot is the package itself, every further one goes up by one.
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
    """Docstrings, and the strings under fields that serve as such: they have no effect."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
