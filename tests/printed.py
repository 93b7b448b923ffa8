"""Every command that a page or a message tells somebody to type.

Of a page: each line of a shell block, and what stands in backticks and begins like a command. Of
the code: each call of `typed`, and each `hft <command>` in a string that is no docstring. Of the
Makefile: what it echoes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from hft.__main__ import COMMANDS
from hft.spec import PACKAGE

ROOT = PACKAGE.parent
HISTORY = ("CHANGELOG.md", "LOG.md")  # these say what was typed once
PAGES = sorted(
    path
    for folder in (".", "docs", "experiments", "benchmarks")
    for path in (ROOT / folder).glob("*.md")
    if path.name not in HISTORY
)
HFT = rf"hft (?:{'|'.join(COMMANDS)})\b"
BEGINS = re.compile(
    rf"(?:python \S+|{HFT}|hft --\w+|make\b|\.ci/\w+|pip install|uv pip|wandb \w+|source |eval )"
)
WANDBS = r"wandb (?:login(?: --relogin)?|sync \S+)"
ARGUMENT = r"(?: (?:status|best|export|dashboard|--[\w-]+|[\w.+~/]+=[^\s,;)]+))*"


def on_pages() -> dict[str, str]:
    """Each command as printed, its comment too, and the pages that print it."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for command in dict.fromkeys(_of_page(page.read_text())):
            found.setdefault(command, []).append(str(page.relative_to(ROOT)))
    return {command: ", ".join(pages) for command, pages in found.items()}


def _of_page(text: str) -> Iterator[str]:
    block = r"^```(\w*)\n(.*?)^```$|^((?: {4}\S[^\n]*\n)+)"
    for language, fenced, indented in re.findall(block, text, re.MULTILINE | re.DOTALL):
        lines = [line.strip() for line in (fenced or indented).splitlines() if line.strip()]
        is_shell = language in ("", "sh", "bash") and BEGINS.match(lines[0])
        yield from lines if is_shell else ()
    prose = re.sub(block, "", text, flags=re.MULTILINE | re.DOTALL)
    for quoted in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose):
        line = " ".join(quoted.split())
        if BEGINS.match(line):
            yield line


def in_messages() -> dict[str, str]:
    """Each command, `{}` where the code fills something in, and the files that print it."""
    found: dict[str, set[str]] = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]):
        for command in _of_code(ast.parse(path.read_text())):
            found.setdefault(command, set()).add(str(path.relative_to(ROOT)))
    for command in re.findall(r'echo "\s*((?:python|hft|make) .*?)"', _makefile()):
        found.setdefault(command, set()).add("Makefile")
    return {command: ", ".join(sorted(files)) for command, files in sorted(found.items())}


def _makefile() -> str:
    return (ROOT / "Makefile").read_text()


def _of_code(tree: ast.Module) -> Iterator[str]:
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "typed":
            yield " ".join(["hft", *map(_template, node.args)])
        elif isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docstrings | parts:
            command = rf"(?:python (?:train|backtest)\.py|{HFT}){ARGUMENT}|{WANDBS}"
            yield from re.findall(command, _template(node))


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(v) if isinstance(v, ast.Constant) else "{}" for v in node.values)
    return "{}"


def targets() -> set[str]:
    """Of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", _makefile(), re.MULTILINE))


def shell_words(path: Path) -> str:
    """A script's text without comments and line breaks, to look commands up in."""
    return " ".join(re.sub(r"^#.*$|\\\n", " ", path.read_text(), flags=re.MULTILINE).split())
