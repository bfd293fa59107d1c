"""Demucs: invalid, hostile and missing files are refused without running any code of theirs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from demucs.htdemucs import HTDemucs
from safetensors import safe_open
from safetensors.torch import save_file

from tests.fixtures.tiny import demucs as tiny
from v2m.core.errors import DependencyError
from v2m.pretrained import demucs
from v2m.pretrained.demucs import Demucs

CPU = torch.device("cpu")


def _write_changed(folder: Path, change: Callable[[dict[str, str], dict[str, Any]], None]) -> None:
    """The tiny model with other metadata or other tensors."""
    path = tiny.write(folder) / "00000000.safetensors"
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
    change(about, state)
    save_file(state, path, metadata=about)


def _class(name: str, argument: str) -> Callable[..., None]:
    def change(about: dict[str, str], _: Any) -> None:
        about.update(klass=name, args=json.dumps([argument]), kwargs="{}")

    return change


def _sources(names: list[str]) -> Callable[..., None]:
    def change(about: dict[str, str], _: Any) -> None:
        about["args"] = json.dumps([names])

    return change


def _nan(_: Any, state: dict[str, Any]) -> None:
    next(iter(state.values()))[:] = float("nan")


FAULTS: dict[str, tuple[Callable[..., None], str]] = {
    "another class": (_class("os.system", "touch ran"), "asks for 'os.system' and is refused"),
    "another model": (lambda about, _: about.update(kwargs='{"channels": 9}'), "not the weights of the Demucs"),
    "a model that cannot be": (lambda about, _: about.update(kwargs='{"depth": "x"}'), "describes an impossible model"),
    "no arguments": (lambda about, _: about.pop("args"), "is no Demucs"),
    "arguments that are no JSON": (lambda about, _: about.update(args="{"), "is no Demucs"),
    "a fraction by nothing": (
        lambda about, _: about.update(kwargs='{"segment": {"_type": "fraction", "numerator": 1, "denominator": 0}}'),
        "is no Demucs",
    ),
    "quantized": (lambda about, _: about.update(structure="{}"), "holds quantized weights"),
    "no numbers": (_nan, "infinite or no numbers"),
    "no voice": (_sources(["drums", "bass", "other", "noise"]), "but no vocals in stereo"),
    "a tensor too few": (lambda _, state: state.pop(next(iter(state))), "1 missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_invalid_model_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    change, message = FAULTS[fault]
    _write_changed(tmp_path / "model", change)
    with pytest.raises(DependencyError, match=message):
        Demucs.load(tmp_path / "model", CPU)
    assert not (tmp_path / "ran").exists()


def _bomb() -> Any:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('it ran')",))

    return Bomb()


def test_pickle_with_other_classes_is_refused(tmp_path: Path) -> None:
    path = tiny.write_pickled(tmp_path / "published")
    checkpoint = {**torch.load(path, weights_only=False), "kwargs": {"segment": Fraction(1, 2)}}
    for changes, message in (
        ({"klass": torch.nn.Linear}, "holds code and is refused"),
        ({"training_args": _bomb()}, "holds code and is refused"),
        ({"klass": Fraction}, r"asks for .*Fraction.* and is refused"),
    ):
        other = tmp_path / "other" / "00000000.th"
        other.parent.mkdir(exist_ok=True)
        torch.save({**checkpoint, **changes}, other)
        with pytest.raises(DependencyError, match=message):
            Demucs.load(other.parent, CPU)


def test_pickle_with_another_hash_than_its_name_is_refused(tmp_path: Path) -> None:
    path = tiny.write_pickled(tmp_path)
    assert Demucs.load(tmp_path, CPU).sources == tiny.SOURCES
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(DependencyError, match="another SHA-256"):
        Demucs.load(tmp_path, CPU)


def test_invalid_yaml_is_reported(tmp_path: Path) -> None:
    about = tiny.write(tmp_path) / f"{tmp_path.name}.yaml"
    for text, message in (
        ("models: ['955717e8']", r"lacks 955717e8.safetensors: copy adefossez/HTDemucs"),
        ("models: ['../x/00000000']", "lacks ../x/00000000"),
        ("models: []", "do not go together"),
        ("models: 3", "do not go together"),
        ("signature: 3", "do not go together"),
        ("models: ['00000000']\nweights: [[1, 2]]", "do not go together"),
        ("- 1", "holds no settings"),
        ("{", "is not YAML"),
    ):
        about.write_text(text)
        with pytest.raises(DependencyError, match=message):
            Demucs.load(tmp_path, CPU)
    (tmp_path / "second.yaml").write_text("models: []")
    with pytest.raises(DependencyError, match="not 2 and 1"):
        Demucs.load(tmp_path, CPU)
    with pytest.raises(DependencyError, match="not 0 and 0"):
        Demucs.load(tmp_path / "nowhere", CPU)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", pickle.dumps([HTDemucs])])
@pytest.mark.parametrize("suffix", ["safetensors", "th"])
def test_file_that_is_not_a_checkpoint_is_reported(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"0.{suffix}").write_bytes(content)
    with pytest.raises(DependencyError, match=rf"0\.{suffix}.*(is|holds)"):
        Demucs.load(tmp_path, CPU)


def test_missing_weights_error_names_the_files_and_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert demucs.find_local() is None
    with pytest.raises(DependencyError, match=r"adefossez/HTDemucs.*HTDemucs.*955717e8-8726e21a\.th alone"):
        demucs.fetch()
    tiny.write_pickled(tmp_path / "HTDemucs")
    result = demucs.find_local()
    assert result == demucs.fetch()
    assert result is not None
    assert (result.folder, result.license) == (tmp_path / "HTDemucs", "MIT")
