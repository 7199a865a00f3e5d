"""What `import prewrite` offers is what the names say."""

import importlib
import inspect

import pytest

import prewrite


@pytest.mark.parametrize("name", [name for name in prewrite.__all__ if name != "__version__"])
def test_a_name_of_the_package_is_a_function_or_a_class_whatever_was_imported_before(name):
    for module in ("choosing.evaluate", "scoring.rewards", "scoring.evaluator", "data", "run.config", "run.train"):
        importlib.import_module(f"prewrite.{module}")  # a submodule must not hide a name of the package
    found = getattr(prewrite, name)
    assert inspect.isclass(found) or inspect.isfunction(found), name
    assert found.__name__ == name
