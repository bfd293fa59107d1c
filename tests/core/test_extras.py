"""Optional packages: every import is in the table of extras, and its error names the install command."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.fixtures import installed
from v2m.core import errors
from v2m.core.errors import exit_code, format_error

PACKAGE = Path(__file__).parents[2] / "v2m"


def imported() -> set[str]:
    """Top-level modules of others that files of v2m import anywhere."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    return names - sys.stdlib_module_names - {"v2m", "_v2m_tinysoundfont"}


def test_imported_packages_are_in_the_base_install_or_the_table_of_extras() -> None:
    base = installed.modules(installed.distributions())
    optional = {package for packages in errors.EXTRAS.values() for package in packages}
    assert {"numpy", "av", "matplotlib"} <= imported() & base
    assert not optional & base
    assert imported() - base - optional == {"audiocraft", "omegaconf"}
    assert {"audiocraft", "omegaconf"} <= set(errors.AUDIOCRAFT)


@pytest.mark.parametrize("extra", errors.EXTRAS)
def test_each_extra_installs_the_packages_of_the_table(extra: str) -> None:
    assert set(errors.EXTRAS[extra]) <= installed.modules(installed.distributions(extra))


def test_extra_all_has_every_extra() -> None:
    optional = installed.PROJECT["optional-dependencies"]
    assert optional["all"] == [f"v2m[{','.join(name for name in optional if name != 'all')}]"]
    assert set(errors.EXTRAS) == set(optional) - {"all"}


def test_heavy_packages_are_not_in_the_base_install() -> None:
    heavy = {
        "torch",
        "librosa",
        "scipy",
        "numba",
        "scikit-learn",
        "transformers",
        "huggingface-hub",
        "pandas",
        "pyaudio",
    }
    assert not heavy & installed.distributions()


@pytest.mark.parametrize(("package", "extra"), [("torch", "models"), ("gradio", "app"), ("demucs", "separation")])
def test_missing_import_is_one_line_with_the_install_command(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        __import__(f"{package}.hub")
    cure = f": install it with `uv sync --inexact --extra {extra}` or `pip install 'v2m[{extra}]'`"
    assert format_error(caught.value).endswith(cure)
    assert exit_code(caught.value) == 4


@pytest.mark.parametrize("package", errors.AUDIOCRAFT)
def test_missing_part_of_audiocraft_names_the_group_and_what_pip_needs(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pins are lifted by uv's metadata of the group; pip gets the same packages one by one."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        __import__(f"{package}.models")
    assert format_error(caught.value).endswith(errors.INSTALL_AUDIOCRAFT)
    assert exit_code(caught.value) == 4
    [group] = installed.GROUPS["audiocraft"]
    assert "--group audiocraft` or `pip install 'v2m[models]'" in errors.INSTALL_AUDIOCRAFT
    assert f"pip install --no-deps {group}`" in errors.INSTALL_AUDIOCRAFT
    named = set(errors.INSTALL_AUDIOCRAFT.split("'v2m[models]' ")[1].split(" && ")[0].split())
    assert installed.modules({*named, "omegaconf", "audiocraft"}) >= set(errors.AUDIOCRAFT)


@pytest.mark.parametrize("name", ["torch.no_such_part", "no_such_package", "numpy"])
def test_missing_import_of_no_extra_names_no_install_command(name: str) -> None:
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    assert format_error(error) == f"No module named {name!r}"


def test_require_packages_names_all_absent_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("bitsandbytes", "accelerate"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match="'bitsandbytes' and 'accelerate'"):
        errors.require_packages("numpy", "bitsandbytes", "accelerate")
    errors.require_packages("numpy", "torch")
