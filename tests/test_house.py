"""The rules of the house that a machine can keep."""

from __future__ import annotations

import ast
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
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_a_rule_that_is_broken_is_seen(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import zarr.storage\nfrom isosr_pipeline.x import y\n")
    assert _imported(path) == {"zarr", "isosr_pipeline"}
