"""The command on every file of the corpus: a scored video and its sidecar, or one line and no file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import pytest

from tests.conftest import names
from tests.robustness.corpus import CASES
from tests.robustness.media_makers import OK, WARNED, MediaCase, MediaMaker
from tests.robustness.test_reading import fingerprint
from v2m.cli.score import main
from v2m.core import errors


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.id)
def test_corpus_row(row: MediaCase, maker: MediaMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if row.verdict == "permission" and os.geteuid() == 0:
        pytest.skip("nothing is unreadable to root")
    path = row.build(maker)
    before = fingerprint(path)
    code = main([os.fspath(path), "-o", str(tmp_path), "--quiet"])
    said = capsys.readouterr()
    assert fingerprint(path) == before
    assert "Traceback" not in said.err
    if path.is_dir():
        assert code == 3
        return
    if row.verdict not in {OK, WARNED}:
        expected = errors.USAGE if row.verdict == "missing" else errors.INPUT_REFUSED
        assert (code, said.out, len(said.err.splitlines())) == (expected, "", 1), said.err
        assert names(tmp_path) == []
        return
    assert code == 0, said.err
    assert len(said.out.splitlines()) == 1
    scored, sidecar = sorted(tmp_path.iterdir(), key=lambda each: each.suffix == ".json")
    record = json.loads(sidecar.read_text())
    if row.verdict == WARNED:
        assert any(warning.partition(":")[0].isidentifier() for warning in record["warnings"])
        assert "warning: " in said.err
    with av.open(os.fsencode(scored).decode(errors="surrogateescape")) as container:
        sound = container.streams.audio[0]
        assert sound.time_base is not None
        ends = [packet.pts + (packet.duration or 0) for packet in container.demux(sound) if packet.pts is not None]
        end = float(max(ends) * sound.time_base)
    assert end >= record["input"]["seconds"] - 0.03
