"""What is asked of every test: that it claims something, and that it uses the package as its users do."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("test_*.py"))

NO_PUBLIC_WAY = {
    # The two methods of TRL's trainers that ours replaces: only under these names can a test compare the two.
    "_get_per_token_logps_and_entropies",
    "_generate_single_turn",
}


def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def names_called(function):
    """The last part of the name of everything that `function` calls."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def claims_something(function):
    """Whether there is an assertion in it: its own, pytest's, or that of a helper named for what it is."""
    if any(isinstance(node, ast.Assert) for node in ast.walk(function)):
        return True
    return any(name in ("raises", "warns", "check") or name.startswith(("check_", "assert_"))
               for name in names_called(function))  # fmt: skip


@pytest.mark.parametrize(
    ("body", "claims"),
    [
        ("assert 1 + 1 == 2", True),
        ("with pytest.raises(ValueError): int('a')", True),
        ("check_rows(load('rows.jsonl'))", True),
        ("load('rows.jsonl')", False),
    ],
)
def test_a_call_alone_is_no_assertion(body, claims):
    assert claims_something(ast.parse(f"def test_it():\n    {body}")) == claims


def test_every_test_asserts_something():
    silent = [
        f"{file.relative_to(TESTS)}:{node.lineno} {node.name}"
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not claims_something(node)
    ]
    assert silent == []


def test_tests_use_no_private_attributes():
    used = {
        f"{file.relative_to(TESTS)}:{node.lineno} {node.attr}"
        for file in sorted(TESTS.rglob("*.py"))
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in NO_PUBLIC_WAY
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os"))  # os._exit is public
    }
    assert used == set()
