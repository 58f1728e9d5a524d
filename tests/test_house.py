"""The rules of the house that a machine can keep."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "isosr_models": {"isosr_models"},
    "isosr_cluster": {"isosr_cluster"},
    "isosr_pipeline": {"isosr_pipeline", "isosr_models", "isosr_cluster"},
}
FOREIGN = {
    "isosr_models": {"zarr", "dask", "distributed", "tifffile", "click", "rich"},
    "isosr_cluster": {"torch", "zarr", "tifffile", "numpy", "click", "rich"},
}
FILES = sorted(
    path for folder in ("pipeline", "models", "cluster") for path in (ROOT / folder).rglob("*.py")
)


def _imported(path: Path) -> set[str]:
    return _named(ast.walk(ast.parse(path.read_text())))


def _imported_at_once(path: Path) -> set[str]:
    """Return what the import of a module imports; what only types need is not."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        names |= _named([node])
        waiting += ast.iter_child_nodes(node)
    return names


def _named(nodes: Iterable[ast.AST]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down_only(path):
    package = path.relative_to(ROOT).parts[1]
    imported = _imported(path)
    upward = (imported & set(FLOORS)) - FLOORS[package]
    assert not upward
    assert not imported & FOREIGN.get(package, set())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - len(documented.splitlines())
            assert length <= 60, f"{node.name} has {length} lines"


def test_only_who_draws_waits_for_matplotlib():
    using = [path for path in FILES if "matplotlib" in path.read_text()]
    assert using
    for path in using:
        assert "matplotlib" not in _imported_at_once(path), path


def test_a_rule_that_is_broken_is_seen(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import zarr.storage\nfrom isosr_pipeline.x import y\n")
    assert _imported(path) == {"zarr", "isosr_pipeline"}
    lazy = "def f():\n    import numpy\nif TYPE_CHECKING:\n    import dask\n"
    path.write_text(lazy + "if True:\n    import matplotlib.figure\n")
    assert _imported_at_once(path) == {"matplotlib"}
