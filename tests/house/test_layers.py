"""Who may import whom (docs/decisions/0001-the-house.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "triage"

# Layer -> our own modules that it may import, by prefix. The first matching layer counts.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "triage.errors": (),
    "triage.config": ("triage.errors", "triage.config"),
    "triage.core": ("triage", "triage.errors", "triage.core"),
    "triage.edges.store": ("triage.errors", "triage.core", "triage.edges.store"),
    "triage.edges.dimse": ("triage.errors", "triage.edges.dimse"),
    "triage.edges": ("triage.errors", "triage.core", "triage.edges.disk"),
    "triage.flow": ("triage.errors", "triage.config", "triage.core", "triage.edges", "triage.flow"),
    "triage.web": (
        "triage", "triage.errors", "triage.config", "triage.core", "triage.edges", "triage.flow",
        "triage.web",
    ),
    "triage.phantom": ("triage", "triage.errors", "triage.core", "triage.phantom"),
    "triage.lab": (
        "triage", "triage.errors", "triage.core", "triage.edges.inference", "triage.phantom", "triage.lab",
    ),
}  # fmt: skip

CORE_MAY_USE = {
    "numpy", "scipy", "pydicom", "highdicom", "pydantic", "collections", "dataclasses", "datetime", "enum",
    "typing", "functools", "itertools", "math", "re", "struct", "json", "io", "pathlib", "hashlib", "uuid",
    "warnings", "operator", "contextlib", "statistics", "zlib", "xml", "ipaddress",
}  # fmt: skip


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> str | None:
    return next((layer for layer in MAY_IMPORT if module == layer or module.startswith(layer + ".")), None)


@pytest.mark.parametrize(("module", "path"), modules())
def test_imports_only_what_its_layer_may(module: str, path: Path) -> None:
    layer = layer_of(module)
    if layer is None:
        return
    for name in imports(path):
        if not name.startswith("triage"):
            continue
        bare = name == "triage.__version__"
        allowed = any(
            (bare and prefix == "triage")
            or (prefix != "triage" and (name == prefix or name.startswith(prefix + ".")))
            for prefix in MAY_IMPORT[layer]
        )
        assert allowed, f"{module} imports {name}"


@pytest.mark.parametrize(
    ("module", "path"), [pair for pair in modules() if pair[0].startswith("triage.core")]
)
def test_core_touches_nothing_outside(module: str, path: Path) -> None:
    for name in imports(path):
        top = name.split(".")[0]
        assert top in CORE_MAY_USE | {"triage"}, f"{module} imports {name}"


@pytest.mark.parametrize(("module", "path"), modules())
def test_torch_stays_in_the_lab(module: str, path: Path) -> None:
    if not module.startswith("triage.lab"):
        assert not any(name.split(".")[0] in {"torch", "onnx", "nibabel"} for name in _top_level(path)), (
            module
        )


@pytest.mark.parametrize(("module", "path"), modules())
def test_only_the_command_reads_the_environment(module: str, path: Path) -> None:
    # The demo hands its own environment on to the service that it starts.
    if module in {"triage.cli", "triage.demo"}:
        return
    assert "os.environ" not in path.read_text(), module
    assert "getenv" not in path.read_text(), module


def _top_level(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{node.module}.{node.names[0].name}"
