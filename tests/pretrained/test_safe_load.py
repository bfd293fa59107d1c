"""Loading of weights and settings: invalid files are named with the reason, hostile ones run no code."""

from __future__ import annotations

import collections
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from v2m.core.errors import DependencyError
from v2m.pretrained.safe_load import (
    check_finite,
    check_keys,
    load_strict,
    read_json,
    read_pickle,
    read_state_dict,
    read_tensors,
)

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
PAGE = b"\n<!DOCTYPE html><html>404</html>"


def some() -> dict[str, Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(4, dtype=torch.bfloat16)}


def same(one: dict[str, Any], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in other)


def shard(folder: Path, *, pickles: bool = False) -> None:
    """`some()` in two files and their index, as published."""
    stem, suffix = ("pytorch_model", "bin") if pickles else ("model", "safetensors")
    homes = {}
    for number, (name, value) in enumerate(some().items(), 1):
        homes[name] = f"{stem}-{number:05}-of-00002.{suffix}"
        save = torch.save if pickles else save_file
        save({name: value}, folder / homes[name])
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": homes}))


def test_single_files_and_shards_of_both_formats_give_equal_tensors(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "many", "pickle", "pickles")]
    for folder in folders:
        folder.mkdir()
    save_file(some(), folders[0] / "model.safetensors")
    shard(folders[1])
    torch.save(some(), folders[2] / "pytorch_model.bin")
    shard(folders[3], pickles=True)
    for folder in folders:
        assert same(read_state_dict(folder), some()), folder


def test_shards_may_be_symlinks_as_in_the_hub_cache(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    shard(blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("..") / "blobs" / path.name)
    assert same(read_state_dict(snapshot), some())


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/../../x", "..\\x", "c:x"])
def test_shard_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(some(), tmp_path / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(DependencyError, match="names a shard outside its folder and is refused"):
        read_state_dict(folder)


@pytest.mark.parametrize("pickles", [False, True])
def test_missing_truncated_or_mismatched_shard_is_named(tmp_path: Path, pickles: bool) -> None:
    shard(tmp_path, pickles=pickles)
    first, second = sorted(tmp_path.glob("*-of-*"))
    content = second.read_bytes()
    second.write_bytes(content[:-3])
    with pytest.raises(DependencyError, match=rf"{second.name}' is truncated or no \w+ file"):
        read_state_dict(tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(DependencyError, match=r"lists tensors that its shards do not hold: b\.c; download"):
        read_state_dict(tmp_path)
    second.unlink()
    with pytest.raises(DependencyError, match=f"{second.name}' is missing"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}'])
def test_index_without_shards_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(DependencyError, match="lists no shards"):
        read_state_dict(tmp_path)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"holds no weights: neither model\.safetensors nor"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_zip_and_legacy_torch_files_load_with_plain_values(tmp_path: Path, zipped: bool) -> None:
    extra: dict[str, Any] = {
        "step": 3,
        "loss": np.float64(0.5),
        "curve": np.arange(3.0),
        "seen": np.int64(7),
        "counts": collections.defaultdict(int, {"x": 2}),
        "sizes": torch.Size([1, 2]),
    }
    torch.save({"model": some(), **extra}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    result = read_pickle(tmp_path / "a.pth")
    assert same(result["model"], some())
    assert (result["step"], result["loss"], result["seen"], result["counts"]["x"]) == (3, 0.5, 7, 2)
    assert result["curve"].tolist() == [0.0, 1.0, 2.0]


class Hostile:
    """A class whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_pickle_with_code_is_refused_without_running_it(tmp_path: Path, form: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "a.pth"
    state = {"a": torch.ones(1), "b": Hostile(marker)}
    if form == "bare":
        path.write_bytes(pickle.dumps({"b": Hostile(marker)}, protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(
        DependencyError, match=r"a\.pth' holds code and is refused \(nothing was run\): it asks for exec$"
    ):
        read_pickle(path)
    assert not marker.exists()
    if form == "bare":  # the pickle is hostile indeed
        pickle.loads(path.read_bytes())
        assert marker.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (LFS, "is a Git LFS pointer, not the file: `git lfs pull`, or download it again"),
        (PAGE, "is a web page, not the file"),
        (b"just some text\n" * 9, "is truncated or no"),
        (b"PK\x03\x04" + bytes(99), "is truncated or no"),
        (b"\x80\x02}q\x00", "is truncated or no"),
        (bytes(range(256)) * 4, "is truncated or no"),
    ],
)
def test_file_that_is_not_a_checkpoint_is_reported(tmp_path: Path, content: bytes, reason: str) -> None:
    for name, load in (("model.safetensors", read_state_dict), ("pytorch_model.bin", read_state_dict)):
        folder = tmp_path / name.partition(".")[2]
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(DependencyError) as error:
            load(folder)
        assert str(error.value).startswith(f"{str(folder / name)!r} {reason}")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_truncated_torch_file_is_reported(tmp_path: Path, zipped: bool, kept: float) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(5000)}, buffer, _use_new_zipfile_serialization=zipped)
    (tmp_path / "a.pth").write_bytes(buffer.getvalue()[: int(kept * len(buffer.getvalue()))])
    with pytest.raises(DependencyError, match="is truncated or no PyTorch file"):
        read_pickle(tmp_path / "a.pth")


def test_pickle_of_another_type_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "a.pth")
    with pytest.raises(DependencyError, match="holds a list, not the dictionary of a checkpoint"):
        read_pickle(tmp_path / "a.pth")
    torch.save({"a": torch.ones(1), "step": 3}, tmp_path / "a.pth")
    with pytest.raises(DependencyError, match="is no plain state dict: step are no tensors"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is missing"),
        (b"", "is empty"),
        (LFS, "Git LFS pointer"),
        (PAGE, "web page"),
        (b"[1]", "holds a JSON list, not an object"),
        (b'{"a": ', "is not JSON"),
        (b'{"a": "\xff"}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_invalid_config_is_reported(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DependencyError, match=f"config.json' .*{reason}"):
        read_json(path)
    path.write_text('{"a": "é"}', encoding="utf-8")
    assert read_json(path) == {"a": "é"}


def test_mismatched_weights_are_reported_in_one_line_and_not_loaded() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = module.state_dict()["0.weight"].clone()
    state = {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(4), **{f"x{k}": torch.zeros(1) for k in range(5)}}
    with pytest.raises(DependencyError) as error:
        load_strict(module, state, "the tiny net")
    assert str(error.value) == (
        "these are not the weights of the tiny net: 2 missing: 1.weight, 1.bias; "
        "5 unknown: x0, x1, x2 and 2 more; 1 of another shape: 0.bias (4,) instead of (3,)"
    )
    assert torch.equal(module.state_dict()["0.weight"], before)


@pytest.mark.parametrize("assign", [False, True])
def test_matching_weights_are_loaded(assign: bool) -> None:
    source, module = nn.Linear(2, 3), nn.Linear(2, 3)
    state = source.state_dict()
    load_strict(module, state, "a layer", assign=assign)
    assert torch.equal(module.weight, source.weight)
    assert (module.weight.data_ptr() == state["weight"].data_ptr()) == assign
    check_keys(state, {"weight": (3, 2), "bias": [3]}, "a layer")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_single_nan_or_infinite_value_is_found_and_named(bad: float, dtype: torch.dtype) -> None:
    state = {"a": torch.ones(3, 3, dtype=dtype), "none": torch.ones(0), "n": torch.arange(2)}
    check_finite(state, "this")
    state["b.c"] = torch.ones(3, 3, dtype=dtype)
    state["b.c"][1, 2] = bad
    with pytest.raises(DependencyError, match=r"^this holds weights that are infinite or no numbers: b\.c; fetch"):
        check_finite(state, "this")
