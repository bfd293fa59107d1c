"""Sketch checks its packages before any work, and shares the synthesizer with other users of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from v2m.core.errors import DependencyError
from v2m.generators.sketch import Sketch


def test_missing_synthesizer_is_reported_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "_v2m_tinysoundfont", raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    with pytest.raises(DependencyError, match=r"synthesizer.*is missing: `uv sync`, or `pip install \."):
        Sketch()


def test_synthesizer_plays_in_a_process_that_has_imported_tinysoundfont(tmp_path: Path) -> None:
    spec = find_spec("_v2m_tinysoundfont")
    assert spec is not None
    assert spec.origin is not None
    shutil.copytree(Path(spec.origin).parent, tmp_path / "tinysoundfont")
    code = (
        "import sys; sys.path.append(sys.argv[1]); import tinysoundfont\n"
        "from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT, SoundFontSynth, open_soundfont\n"
        "synth = SoundFontSynth(open_soundfont(DEFAULT_SOUNDFONT), 48_000, {(0, 0): [(60, 80)]})\n"
        "sys.stdout.write(str(synth.render(64).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == "(2, 64)", done.stderr
