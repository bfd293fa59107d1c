"""The recipe `learned`: the model that v2m carries, from a video to sound, MIDI and stems, without any download."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile

from v2m.checkpoints import V2M
from v2m.cli.score import main
from v2m.core.errors import OK
from v2m.data.synthetic import make_clip
from v2m.pretrained.weights import BUNDLED

NAME, SECONDS, SHORT_SECONDS = "v2m-learned-1", 4.0, 2.0
MAX_PARAMETERS, MAX_BYTES = 10e6, 20e6
# prints the packages that are too slow to import for a model that does without them
RUN = "import sys; from v2m.cli.score import main; code = main(sys.argv[1:]); print({'transformers'} & {*sys.modules})"


def words(video: Path, out: Path, *flags: str) -> list[str]:
    """The command that writes a clip's music beside `out`, without `v2m score`."""
    out.parent.mkdir()
    options = ["--recipe", "learned", "--generator.device", "cpu", "--out", str(out), "--midi", "--quiet"]
    return [str(video), *options, *flags]


def test_carried_model_writes_music_of_the_length_of_the_video_without_download(tmp_path: Path) -> None:
    make_clip(tmp_path, 0, SECONDS, 0, with_audio=False)
    folder = tmp_path / "music"
    flags = ["--stems", "--wav", "--tags.genres", "jazz", "--seed", "3"]
    command = [sys.executable, "-c", RUN, *words(tmp_path / "00000.mp4", folder / "scored.mp4", *flags)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.splitlines()[-1:]) == (0, ["set()"]), result.stderr
    sidecar = json.loads((folder / "scored.json").read_text())
    assert sidecar["music"]["style"] == "jazz"
    assert [weights["license"] for weights in sidecar["weights"]] == ["mit"]
    midi = mido.MidiFile(next(folder.glob("*.mid")))
    starts = [message for track in midi.tracks for message in track if message.type == "note_on" and message.velocity]
    assert len(starts) > 4 * SECONDS
    assert midi.length < SECONDS + 3  # what sounds at the end may ring
    wave, rate = soundfile.read(next(path for path in folder.glob("*.wav") if "stem" not in path.name))
    assert len(wave) / rate == pytest.approx(SECONDS, abs=0.05)
    assert np.abs(wave).max() > 0.05
    assert len(list((folder / "scored.stems").glob("*.wav"))) >= 2


def test_seed_decides_the_notes(tmp_path: Path) -> None:
    make_clip(tmp_path, 0, SHORT_SECONDS, 0, with_audio=False)
    notes = []
    for name, seed in zip("abc", "112", strict=True):
        out = tmp_path / name / "scored.mp4"
        assert main(words(tmp_path / "00000.mp4", out, "--seed", seed)) == OK
        notes.append(out.with_suffix(".mid").read_bytes())
    assert notes[0] == notes[1]
    assert notes[0] != notes[2]


def test_carried_model_has_the_size_and_the_card_that_the_documentation_states() -> None:
    model = V2M.from_pretrained(NAME)
    assert sum(value.numel() for value in model.parameters()) <= MAX_PARAMETERS
    assert sum(path.stat().st_size for path in (BUNDLED / NAME).iterdir()) <= MAX_BYTES
    assert {kind: component.is_built_in for kind, component in model.components.items()} == {
        "text_encoder": True,
        "codec": True,
        "vision_encoder": True,
    }
    card = (BUNDLED / NAME / "README.md").read_text()
    for section in ("## Training data", "## Figures", "## Limits"):
        assert section in card
