"""Proof that a refactoring changes no audio: `python -m bench.same_audio --against FILE.json`.

Makes music with fixed seeds through the real commands, in about four minutes on one core
(`tests.fixtures.same_audio_cases` has the command lines): the default recipe in all styles, and every other recipe on
tiny random weights in the published formats; inpainting, several candidates, stems and MIDI, mixes; alignment to the
cuts; synthetic clips and shards; a few steps of training, their exports and music; the metrics. Compared are digests of
decoded samples, tensors and values (`tests.fixtures.digests`): neither containers nor metadata.

    python -m bench.same_audio --root CHECKOUT --record FILE.json   # before; CHECKOUT: whose commands and tiny weights
    python -m bench.same_audio --against FILE.json                  # after; exit code 1 where anything differs

Both on one machine, for rounding depends on the processor and on the libraries' versions. All of it runs on one thread,
and is the same in two runs of one tree. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import soundfile
import torch

from tests.fixtures import digests
from tests.fixtures.fork_server import ForkServer
from tests.fixtures.same_audio_cases import (
    ALIGNED,
    FIT,
    MAKERS,
    MEMBERS,
    MODELS,
    NAMES,
    PREPARE,
    PREPARED,
    SKETCH,
    TINY,
    TRAINED,
    WEIGHTS,
)

FILM = {"testsrc2": 1.7, "mandelbrot": 2.3, "smptebars": 1.1, "rgbtestsrc": 3.2, "testsrc": 2.6, "yuvtestsrc": 3.1}
CUTS = {"testsrc2": 1.2, "mandelbrot": 1.4, "smptebars": 1.4}  # shots: ffmpeg's test sources, and seconds
PICKLED = {"HTDemucs"}  # by its own package, for which alone it can be read; the model is that of `separator`
LIBRARIES = (  # imported once: what the commands import of others
    "scipy.signal transformers.modeling_utils diffusers.models.autoencoders "
    "lightning torchvision torchaudio accelerate jsonargparse webdataset mido av"
)
COMPUTING = "numpy scipy torch torchaudio transformers diffusers av"
FFMPEG = os.environ.get("V2M_FFMPEG") or imageio_ffmpeg.get_ffmpeg_exe()
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "disabled",
}


class Session:
    """Commands of the checkout `root`, run one by one in `folder`, and digests of their outputs.

    `digests` has a label for each thing; `failures` names what could not be made.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.out, self.weights = folder / "out", folder / "weights"
        for path in (self.out, self.weights):
            path.mkdir()
        self.digests: dict[str, str] = {}
        self.failures: list[str] = []
        self.places: dict[str, Any] = {"root": root, "out": self.out, "weights": self.weights}
        self.places |= {"example": root / "data/examples/bunny_wakes.mp4"}
        self.places |= {name: folder / f"{name}.mp4" for name in ("film", "cuts")}
        self.places |= {name: folder / f"{name}.wav" for name in ("drums", "tone")}
        self._server = ForkServer(root, folder, LIBRARIES.split(), ENVIRONMENT | {"V2M_CHECKPOINTS": str(self.weights)})

    def run(self, label: str, command: str, line: str) -> bool:
        """Run a command of `NAMES`; return whether it succeeded. `line` has paths and names in braces."""
        module, *first = NAMES[command].split()
        words = [*first, *shlex.split(line.format_map(NAMES | self.places))]
        return self.note(label, self._server.run(module, words))

    def make(self, label: str, function: str, path: Path, kwargs: Mapping[str, Any]) -> bool:
        """Run a function that writes `path`; return whether it succeeded."""
        return self.note(label, self._server.call(function, path, kwargs))

    def note(self, label: str, problem: str) -> bool:
        """Print and keep a problem; return whether there is none."""
        if problem:
            self.failures.append(label)
            print(f"{label} failed: {problem}", flush=True)
        return not problem

    def close(self) -> None:
        self._server.close()


def make_inputs(session: Session) -> None:
    """Write clips with cuts and sound, and two reference sounds."""
    _encode(session.places["film"], FILM, "aevalsrc='0.5*sin(880*PI*t)*lt(mod(t,4),1.5)':d=14")
    _encode(session.places["cuts"], CUTS, "sine=330:d=4")
    times = np.arange(14 * 48_000) / 48_000
    beat, bar = times % 0.5, times % 2.0
    noise = np.random.default_rng(0).normal(size=len(times))
    drums = 0.5 * np.exp(-25 * beat) * np.sin(220 * np.pi * times) + 0.3 * np.exp(-15 * bar) * noise
    tone = 0.3 * np.sin(440 * np.pi * times) * (beat < 0.25)
    for name, wave in (("drums", drums), ("tone", tone[:96_000])):
        stereo = np.stack([wave, wave], axis=1).astype(np.float32)
        soundfile.write(session.places[name], stereo, 48_000, subtype="FLOAT")
    for name in ("film", "cuts"):
        session.digests[f"input/{name}/pictures"] = digests.pictures(session.places[name])
        session.digests[f"input/{name}/sound"] = digests.soundtrack(session.places[name])


def _encode(path: Path, shots: Mapping[str, float], sound: str) -> None:
    parts = [
        f"{source}=s=160x90:r=25,trim=duration={seconds},setpts=PTS-STARTPTS,format=yuv420p[v{number}]"
        for number, (source, seconds) in enumerate(shots.items())
    ]
    joined = "".join(f"[v{number}]" for number in range(len(shots)))
    graph = f"{';'.join(parts)};{joined}concat=n={len(shots)}:v=1[v];{sound},aformat=channel_layouts=stereo[a]"
    codecs = ["-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-c:a", "aac"]
    command = [FFMPEG, "-v", "error", "-nostdin", "-filter_complex", graph]
    subprocess.run([*command, "-map", "[v]", "-map", "[a]", *codecs, str(path)], check=True)


def make_weights(session: Session) -> None:
    for name, maker in MAKERS.items():
        function = f"{TINY}.{maker}"
        if (
            session.make(f"weights/{name}", function, session.weights / name, WEIGHTS.get(name, {}))
            and name not in PICKLED
        ):
            session.digests[f"weights/{name}"] = digests.checkpoint_folder(session.weights / name)


def score(session: Session, group: str, lines: Mapping[str, str]) -> None:
    """Score a clip by each command line, with seed 4 unless given; record every sound file."""
    (session.out / group).mkdir(exist_ok=True)
    for name, line in lines.items():
        video = session.out / group / f"{name}.mp4"
        if session.run(f"{group}/{name}", "score", f"--seed 4 {line} -o {video} --wav --quiet"):
            record_sounds(session, video)


def record_sounds(session: Session, video: Path) -> None:
    """Record the digests of a finished video's sound and of the audio and MIDI files beside it."""
    functions = {video: digests.soundtrack}
    functions |= {path: digests.sound_file for path in video.parent.rglob("*.wav") if _belongs(path, video)}
    functions |= dict.fromkeys(video.parent.glob(f"{video.stem}.mid"), digests.midi)
    for path, function in sorted(functions.items()):
        session.digests[path.relative_to(session.out).as_posix()] = function(path)


def _belongs(path: Path, video: Path) -> bool:
    """Return whether `path` is the music by itself, another candidate, or a stem of `video`."""
    place = path.parent if path.parent != video.parent else path
    return place.name.partition(".")[0] == video.stem


def train(session: Session) -> None:
    """Record losses, weights, exported EMA weights and their music after a few steps of each kind."""
    for name, line in TRAINED.items():
        label, home = f"training/{name}", session.out / "training" / name
        place = f"--trainer.default_root_dir {home} --trainer.logger.save_dir {home}"
        if not session.run(label, "train", f"fit {FIT} {place} {line}"):
            continue
        (table,) = home.rglob("metrics.csv")
        losses = {column: value for column, value in digests.columns(table).items() if "loss" in column}
        session.digests[f"{label}/losses"] = digests.unordered(value.encode() for value in losses.values())
        (path,) = home.rglob("*.ckpt")
        session.digests[f"{label}/weights"] = digests.weights(torch.load(path, weights_only=True)["state_dict"])
        if session.run(f"{label}/exported", "convert", f"{path} {home}/exported"):
            session.digests[f"{label}/exported"] = digests.checkpoint_folder(home / "exported")
        recipe = f"--recipe vidmuse {{vidmuse_model}} {home}/exported --generator.window 1 --generator.stride 0.5"
        score(session, label, {"scored": f"{{cuts}} {recipe}"})
        where = f"--trainer.default_root_dir {home} --data.videos {{cuts}} --data.out {home}/predicted"
        quiet = "--trainer.logger false --trainer.enable_progress_bar false --trainer.accelerator cpu"
        if session.run(f"{label}/predicted", "train", f"predict --ckpt_path {path} {where} {quiet} {{predict_seed}} 3"):
            record_sounds(session, home / "predicted" / "cuts.v2m.mp4")


def prepare(session: Session) -> None:
    """Record synthetic clips, and the shards of these and of a film."""
    videos = session.out / "videos"
    if session.run("videos", "synthesize", f"{session.out}/made --count 2 --seconds 4 --processes 1"):
        for path in sorted((session.out / "made").glob("*.mp4")):
            session.digests[f"videos/{path.stem}/pictures"] = digests.pictures(path)
            session.digests[f"videos/{path.stem}/music"] = digests.sound_file(path.with_suffix(".wav"))
        shutil.copytree(session.out / "made", videos)
        shutil.copy(session.places["cuts"], videos)
    for name, line in PREPARED.items():
        if session.run(f"shards/{name}", "prepare", f"{PREPARE} {line} {session.out}/shards/{name}"):
            for member, value in digests.shards(session.out / "shards" / name).items():
                session.digests[f"shards/{name}/{MEMBERS[member]}"] = value


def evaluate(session: Session) -> None:
    """Record the metrics of two systems of two clips, with a third as the ground truth."""
    home, sketch = session.out / "measures", session.out / "sketch"
    if not all((sketch / f"{name}.wav").is_file() for name in ("ambient", "jazz", "rock", "waltz", "funk", "parts")):
        session.note("measures", "there is no music to measure")
        return
    for system, names in (("a", ("ambient", "jazz")), ("b", ("rock", "waltz")), ("truth", ("funk", "parts"))):
        (home / system).mkdir(parents=True)
        for clip, name in zip(("one", "two"), names, strict=True):
            base = sketch / name
            if system == "truth":
                shutil.copy(base.with_suffix(".wav"), home / system / f"{clip}.wav")
            else:
                shutil.copy(base.with_suffix(".mp4"), home / system / f"{clip}.v2m.mp4")
                shutil.copy(base.with_suffix(".json"), home / system / f"{clip}.v2m.json")
    models = " ".join(f"{name}={session.weights / name}" for name in ("clap", "ast", "pe-av"))
    folders = f"--compare {home}/a {home}/b {{ground_truth}} {home}/truth"
    files = f"--csv {home}/clips.csv --summary {home}/summary.csv"
    if session.run("measures", "evaluate", f"{folders} --embedding {models} {files}"):
        for name in ("clips", "summary"):
            session.digests[f"measures/{name}"] = digests.numbers(home / f"{name}.csv")


def measure(root: Path, folder: Path) -> Session:
    """Run all groups, one after the other."""
    session = Session(root, folder)
    make_inputs(session)
    make_weights(session)
    score(session, "sketch", SKETCH)
    score(session, "models", MODELS)
    score(session, "aligned", ALIGNED)
    train(session)
    prepare(session)
    evaluate(session)
    session.close()
    return session


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def versions() -> dict[str, str]:
    """Return the versions of the libraries that compute or encode: others make other sound."""
    first = subprocess.run([FFMPEG, "-version"], capture_output=True, text=True, check=True).stdout.split()[:3]
    return {name: metadata.version(name) for name in COMPUTING.split()} | {
        "ffmpeg": first[-1],
        "python": platform.python_version(),
    }


def compare(session: Session, before: Mapping[str, Any]) -> dict[str, int]:
    """Print the differences; return the numbers of compared and of equal digests."""
    for name, version in versions().items():
        if version != before["versions"][name]:
            print(f"{name} is {version} and was {before['versions'][name]}: record again with this one")
    recorded = before["digests"]
    labels = sorted(recorded.keys() | session.digests.keys())
    equal = 0
    for label in labels:
        current, previous = session.digests.get(label), recorded.get(label)
        equal += current == previous
        if current != previous:
            reason = "not made" if current is None else "not recorded" if previous is None else "differs"
            print(f"{reason}: {label}")
    return {"compared": len(labels), "equal": equal}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout whose commands are run; default: here")
    parser.add_argument("--keep", type=Path, help="a new folder for all that is made; default: a temporary one")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--record", type=Path, help="write the digests into this file")
    group.add_argument("--against", type=Path, help="compare with the digests in this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if args.keep is None else args.keep.absolute()
        folder.mkdir(exist_ok=True)
        session = measure(args.root.absolute(), folder)
    if args.against is not None:
        result = compare(session, json.loads(args.against.read_text()))
        print(json.dumps(result))
        return int(result["equal"] < result["compared"])
    header = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "versions": versions()}
    args.record.write_text(json.dumps({**header, "digests": session.digests}, indent=1) + "\n")
    print(json.dumps({"recorded": len(session.digests), "failed": len(session.failures)}))
    return int(bool(session.failures))


if __name__ == "__main__":
    sys.exit(main())
