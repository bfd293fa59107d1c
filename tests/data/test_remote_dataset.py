"""The local folder of a dataset at an address: what is copied to it, refused, and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from tests.fixtures.tiny import shards as made
from v2m.core import remote
from v2m.core.errors import DependencyError, UsageError
from v2m.data import progress_log
from v2m.data.progress_log import PrepareRecord
from v2m.data.remote_dataset import local_folder
from v2m.data.schema import MANIFEST
from v2m.data.sources import RemoteSource

ADDRESS = "memory://datasets/x"


@pytest.fixture(autouse=True)
def enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Go to another machine, by its name; the test begins on one, and nothing is at the address."""

    def enter(name: str) -> None:
        monkeypatch.setenv(remote.CACHE_VARIABLE, str(tmp_path / name))

    enter("first")
    yield enter
    clear()


def clear() -> None:
    if fsspec.filesystem("memory").exists("/datasets"):
        fsspec.filesystem("memory").rm("/datasets", recursive=True)


def write_dataset(key: str, rate: int = 1) -> Path:
    """Continue the dataset by a record, as a run with this setting does."""
    with local_folder(ADDRESS) as folder, progress_log.lock_output_dir(folder):
        progress_log.record_settings(folder, {"rate": rate})
        if not (folder / MANIFEST).exists():
            made.write(folder, (2,))
        progress_log.append_record(folder, PrepareRecord(key, key, []))
    return folder


def test_dataset_that_was_prepared_anew_with_other_settings_is_refused(enter: Callable[[str], None]) -> None:
    folder = write_dataset("a")
    clear()
    enter("second")
    write_dataset("b", rate=2)
    enter("first")
    with pytest.raises(UsageError, match=rf"'{ADDRESS}' was prepared anew with other settings: remove '{folder}'"):
        write_dataset("c")
    assert json.loads((folder / progress_log.SETTINGS).read_text()) == {"rate": 1}
    assert progress_log.read_records(folder).keys() == {"a"}
    assert json.loads(remote.read_bytes(f"{ADDRESS}/settings.json")) == {"rate": 2}


def test_dataset_that_was_removed_is_started_anew() -> None:
    write_dataset("a")
    clear()
    assert progress_log.read_records(write_dataset("b", rate=2)).keys() == {"b"}


def test_finished_dataset_whose_upload_failed_is_kept_and_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, address: str) -> None:
        if address.endswith(".tar"):
            raise DependencyError("no room")
        write_file(source, address)

    write_file = remote.write_file
    with monkeypatch.context() as patch:
        patch.setattr(remote, "write_file", refuse)
        with pytest.raises(DependencyError, match="no room"):
            write_dataset("a")
        clear()  # as if nothing had been written
        with pytest.raises(DependencyError, match="no room"):
            write_dataset("b")
    assert progress_log.read_records(write_dataset("c")).keys() == {"a", "b", "c"}
    assert {file.name for file in remote.list_files(ADDRESS)} >= {"dataset.json", "settings.json", "prepared.jsonl"}


def test_records_of_an_unfinished_run_outlast_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dataset("old")
    for key in "abc":
        progress_log.append_record(folder, PrepareRecord(key, key, []))

    def interrupt(file: remote.RemoteFile, path: Path) -> None:
        if path.name == MANIFEST:
            raise KeyboardInterrupt
        download(file, path)

    download = remote.download
    monkeypatch.setattr(remote, "download", interrupt)
    with pytest.raises(KeyboardInterrupt), local_folder(ADDRESS):
        pass
    assert progress_log.read_records(folder).keys() == {"old", "a", "b", "c"}


def test_second_run_is_refused_before_it_changes_anything() -> None:
    with local_folder(ADDRESS) as folder:
        made.write(folder, (2,))
        progress_log.record_settings(folder, {})
        progress_log.append_record(folder, PrepareRecord("a", "a", []))
        with pytest.raises(UsageError, match=f"another run is writing to '{ADDRESS}'"), local_folder(ADDRESS):
            pass
    with local_folder(ADDRESS):
        pass


@pytest.mark.parametrize(("version", "expected"), [("", False), ("1", True)])
def test_file_without_a_version_does_not_count_as_unchanged(version: str, expected: bool, tmp_path: Path) -> None:
    source = RemoteSource("a.mp4", "a", {"video": remote.RemoteFile("memory://clips/a.mp4", 5, version)})
    record = PrepareRecord("a.mp4", "a", source.file_state(), drop_reason="silent")
    assert progress_log.is_up_to_date(record, source, tmp_path, set()) is expected
