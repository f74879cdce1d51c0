"""The public names: all there, lazy, and callable whatever was imported before."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import maskwright as mw


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "[m for m in ('torch', 'numpy', 'PIL', 'orjson') if m in sys.modules]"
    assert _run(f"import sys, maskwright as mw; mw.models(); print({heavy})") == "[]"


@pytest.mark.parametrize("name", mw.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(mw, name)
    assert isinstance(value, str) if name == "__version__" else callable(value)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mw.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "imports",
    [
        "import maskwright as mw; mw.models; import maskwright.models as m",
        "import maskwright.models as m; import maskwright as mw",
        "from maskwright import models as m; import maskwright.models; import maskwright as mw",
    ],
)
def test_models_is_a_function_and_a_package_in_any_order(imports: str) -> None:
    assert _run(f"{imports}; print(mw.models()[0].name, m.__name__)").startswith("mask-rcnn-r18 ")


@pytest.mark.parametrize(
    ("name", "module"),
    [("models", "maskwright.models"), ("train", "maskwright.train"), ("evaluate", "maskwright.evaluate")],
)
def test_functions_stay_callable_once_the_modules_of_their_names_are_imported(name: str, module: str) -> None:
    imported = importlib.import_module(module)
    assert getattr(mw, name) is imported
    assert isinstance(imported, ModuleType)
    with pytest.raises(TypeError, match="no_such_option"):
        getattr(mw, name)(no_such_option=1)


def test_families_are_imported_as_usual() -> None:
    import maskwright.models.mask_rcnn as family

    assert family.__name__ == "maskwright.models.mask_rcnn"
    assert mw.models()[0].name == "mask-rcnn-r18"
