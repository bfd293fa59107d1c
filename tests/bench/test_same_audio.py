"""What `bench.same_audio` compares: digests that see every value and no name; its commands are those of this tree."""

from __future__ import annotations

import io
import json
import shlex
import string
import tarfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile
import torch

from bench import digests, same_audio_cases
from bench.fork_server import ForkServer
from bench.same_audio import MAKERS, MEMBERS, NAMES, TINY
from v2m.cli import prepare
from v2m.cli.train import TrainCLI
from v2m.data import schema
from v2m.pipeline.arguments import build_parser

ROOT = Path(__file__).parents[2]
GROUPS = {"sketch": same_audio_cases.SKETCH, "models": same_audio_cases.MODELS, "aligned": same_audio_cases.ALIGNED}
SCORES = {f"{group}/{name}": line for group, lines in GROUPS.items() for name, line in lines.items()}


def sound(path: Path, last: float, title: str) -> Path:
    with soundfile.SoundFile(path, "w", 48_000, 2, "FLOAT") as file:
        file.title = title
        file.write(np.array([[0.1, 0.2], [0.3, last]], np.float32))
    return path


def test_a_digest_of_sound_is_of_its_samples(tmp_path: Path) -> None:
    one, same = sound(tmp_path / "a.wav", 0.4, "one"), sound(tmp_path / "b.wav", 0.4, "another title")
    other = sound(tmp_path / "c.wav", float(np.nextafter(np.float32(0.4), 1)), "one")
    assert one.read_bytes() != same.read_bytes()
    assert digests.sound_file(one) == digests.sound_file(same) != digests.sound_file(other)


def test_a_digest_of_weights_is_of_values_whatever_their_names() -> None:
    first, second = torch.arange(6.0).reshape(2, 3), torch.tensor([1, 2])
    one = digests.weights({"a": first, "b": {"c": second}})
    assert one == digests.weights([{"other": second}, {"name": first}])
    assert one != digests.weights([first + 1e-6, second])
    assert one != digests.weights([first.reshape(3, 2), second])
    assert one != digests.weights([first, second.int()])


def test_a_digest_of_midi_is_of_events_without_names(tmp_path: Path) -> None:
    def written(name: str, velocity: int) -> str:
        notes = [mido.Message("note_on", note=60, velocity=velocity), mido.Message("note_off", note=60, time=480)]
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name), *notes])
        mido.MidiFile(tracks=[track]).save(tmp_path / "x.mid")
        return digests.midi(tmp_path / "x.mid")

    assert written("piano", 90) == written("harp", 90) != written("piano", 91)


def test_a_digest_of_shards_is_of_bytes_and_of_values_without_keys(tmp_path: Path) -> None:
    def written(name: str, held: dict[str, Any], codes: bytes) -> dict[str, str]:
        (tmp_path / name).mkdir()
        with tarfile.open(tmp_path / name / "0.tar", "w") as tar:
            for member, data in (("a.json", json.dumps(held).encode()), ("a.codes.npy", codes)):
                about = tarfile.TarInfo(member)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
        return digests.shards(tmp_path / name)

    one = written("one", {"begin": 1.5, "tags": {"genres": ["jazz"]}}, b"12")
    assert one.keys() == {"json", "codes.npy"}
    assert one == written("two", {"start": 1.5, "tags": {"styles": ["jazz"]}}, b"12")
    assert one["json"] != written("three", {"begin": 1.6, "tags": {"genres": ["jazz"]}}, b"12")["json"]
    assert one["codes.npy"] != written("four", {"begin": 1.5}, b"13")["codes.npy"]


def test_a_digest_of_a_table_is_of_its_numbers(tmp_path: Path) -> None:
    def written(text: str) -> str:
        (tmp_path / "x.csv").write_text(text)
        return digests.numbers(tmp_path / "x.csv")

    assert written("clip,lufs,cuts\none,-14.5,3\ntwo,,4\n") == written("video,hits,level\ntwo,4,\none,3,-14.5\n")
    assert written("clip,lufs\none,-14.5\n") != written("clip,lufs\none,-14.6\n")


def test_each_command_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    lines = ["import os, sys", "with open(sys.argv[1], 'a') as file:", "    print(os.getpid(), file=file)"]
    (tmp_path / "main.py").write_text("\n".join([*lines, "print('the end')", "sys.exit(int(sys.argv[2]))"]))
    server = ForkServer(tmp_path, tmp_path, ["wave"])
    assert server.run("main.py", ["out.txt", "0"]) == ""
    assert server.run("main", ["out.txt", "0"]) == ""
    assert server.run("main.py", ["out.txt", "3"]) == "the end"
    assert server.call("os:mkdir", tmp_path / "made", {"mode": 0o700}) == ""
    assert server.call("os:mkdir", tmp_path / "made", {}).startswith("FileExistsError")
    server.close()
    assert (tmp_path / "made").is_dir()
    assert len(set((tmp_path / "out.txt").read_text().split())) == 3


def test_every_member_of_a_sample_is_compared() -> None:
    assert MEMBERS.keys() == set(schema.MEMBERS)


@cache
def parser(recipe: str) -> Any:
    return build_parser(recipe)


@pytest.mark.parametrize("name", SCORES)
def test_the_words_of_a_case_are_those_of_the_command(name: str) -> None:
    """Whether a flag is still there, not whether a file is."""
    words = filled(SCORES[name])
    recipe = words[words.index("--recipe") + 1] if "--recipe" in words else "sketch"
    asked = parser(recipe).parse_args(words)
    assert asked.recipe == recipe
    assert asked.videos == ["place"]


def filled(line: str) -> list[str]:
    """The words of a line with something in each place."""
    fields = {field for _, field, _, _ in string.Formatter().parse(line) if field}
    return shlex.split(line.format_map({**dict.fromkeys(fields, "place"), "root": ROOT, **NAMES}))


@pytest.mark.parametrize("name", same_audio_cases.TRAINED)
def test_the_words_of_a_training_are_those_of_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = filled(f"{same_audio_cases.FIT} {same_audio_cases.TRAINED[name]} --trainer.logger.save_dir out")
    assert TrainCLI(words, run=False).trainer.max_steps == 6


@pytest.mark.parametrize("name", same_audio_cases.PREPARED)
def test_the_words_of_a_preparation_are_those_of_the_command(name: str) -> None:
    asked = prepare.parse([*filled(f"{same_audio_cases.PREPARE} {same_audio_cases.PREPARED[name]}"), "out"])
    assert asked.inputs == ["place/videos"]


@pytest.mark.parametrize("maker", sorted(set(MAKERS.values())))
def test_what_makes_tiny_weights_is_there(maker: str) -> None:
    module, _, function = maker.partition(":")
    assert callable(getattr(import_module(f"{TINY}.{module}"), function))


def test_what_was_recorded_names_every_case() -> None:
    recorded = json.loads((ROOT / "bench/results/same_audio_before.json").read_text())["digests"]
    assert {f"{name}.{kind}" for name in SCORES for kind in ("wav", "mp4")} <= recorded.keys()
