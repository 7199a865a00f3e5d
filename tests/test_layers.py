"""The house: a module imports from lower rooms only, and each part of the package knows no more than it must."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "prewrite"
# docs/architecture.md has the map. Rooms of one number do not import each other; 0 is the top level.
LEVELS = {
    "": 0, "lm": 1, "data": 2, "task_models": 2, "rewriter": 2, "scoring": 3, "choosing": 4, "train": 5, "report": 5,
    "interop": 5, "run": 6, "serve": 6, "cli": 7,
}  # fmt: skip
MODULES = {
    ".".join(("prewrite", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in SOURCE.rglob("*.py")
}
DOORS = {"prewrite", "prewrite.__main__"}
"""Names a user imports or runs; they may name any room."""


def imported_by(module):
    """The package's modules that `module` imports, wherever in the file; those for type checking alone left out."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module} has a relative import; write it out"
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [name for alias in node.names for name in (f"{node.module}.{alias.name}", str(node.module))]
        yield from (name for name in names if name in MODULES)


def room(module):
    """The room that a module stands in; "" for the top level."""
    parts = MODULES[module].relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else ""


def test_every_room_has_a_number():
    assert {room(module) for module in MODULES} <= set(LEVELS)


def test_a_module_imports_from_lower_rooms_only():
    against = [
        f"{module} imports {name}"
        for module in MODULES.keys() - DOORS
        for name in set(imported_by(module)) - {"prewrite"}
        if room(name) != room(module) and LEVELS[room(name)] >= LEVELS[room(module)]
    ]
    assert against == []


def test_no_imports_go_in_a_circle():
    graph = {module: set(imported_by(module)) - {module, "prewrite"} for module in MODULES.keys() - DOORS}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(graph)


def test_the_top_level_holds_six_files_at_most():
    assert len([file for file in SOURCE.glob("*.py") if file.name != "__init__.py"]) <= 6


def test_only_run_and_cli_know_the_settings():
    settings = ast.parse(MODULES["prewrite.run.config"].read_text(encoding="utf-8"))
    classes = {node.name for node in settings.body if isinstance(node, ast.ClassDef)}
    assert "TrainConfig" in classes
    know = {
        room(module)
        for module in MODULES.keys() - DOORS
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.Name | ast.Attribute | ast.alias)
        and {getattr(node, "id", ""), getattr(node, "attr", ""), getattr(node, "name", "")} & classes
    }
    assert know == {"run", "cli"}


HEAVY = ("torch", "transformers", "trl", "peft", "scipy", "pyarrow", "datasets", "numpy")


@pytest.mark.parametrize(
    "code",
    [
        "import prewrite",
        "import prewrite.cli.main as m; m.main([])",
        "import prewrite.cli.main as m; m.main(['--version'])",
        "import prewrite.run.train",
    ],
)
def test_what_starts_first_imports_nothing_heavy(code):
    allowed = ("numpy", "pyarrow") if "run.train" in code else ()
    code += f"\nimport sys; print([name for name in {HEAVY} if name in sys.modules and name not in {allowed}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
