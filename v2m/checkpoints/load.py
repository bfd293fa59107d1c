"""A checkpoint of any layout, as what `V2M` is made of. Foreign weights are converted in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from v2m.checkpoints.components import KINDS, PREPROCESSOR, TOKENIZER, Part
from v2m.checkpoints.save import FORMAT, SETTINGS
from v2m.checkpoints.visual_input_config import VIDMUSE, Shown
from v2m.core.errors import DependencyError
from v2m.core.types import WeightsInfo
from v2m.mappings import audiocraft, musicgen, vidmuse
from v2m.models.music_model import MusicConfig
from v2m.pretrained import safe_load, weights

STATE, COMPRESSION = "state_dict.bin", "compression_state_dict.bin"  # audiocraft's names
LICENSE = "cc-by-nc-4.0"  # of the weights of facebook/musicgen-*
SAFE, PICKLES = "model*.safetensors", "pytorch_model*.bin"
NEEDED = (  # our own layout before transformers' before audiocraft's, of which a repository may hold several
    f"{SETTINGS}|config.json|{STATE}",
    f"{SAFE}|{PICKLES}|{STATE}",
    f"{SAFE}|{PICKLES}|{COMPRESSION}|",
    f"{safe_load.SAFETENSORS_INDEX}|{safe_load.PICKLE_INDEX}|",
    *(f"{SETTINGS}|{name}|" for name in ("generation_config.json", PREPROCESSOR, *TOKENIZER)),
    *(f"{kind}/|" for kind in KINDS),
)


@dataclass(frozen=True)
class Source:
    """What a checkpoint holds: `state` is `MusicModel`'s; the rest is as in `V2M`."""

    config: MusicConfig
    state: dict[str, Tensor]
    parts: dict[str, Part]
    sample_rate: int
    origin: str | None
    license: str | None
    layout: str = field(default="v2m")
    shown: Shown | None = None


def fetch(name: str) -> WeightsInfo:
    """The checkpoint's folder on this machine, downloaded in one layout if need be (see `v2m.pretrained.weights.fetch`).

    Raises:
        MissingError: There is none, or it holds no checkpoint of a known layout.
    """
    return weights.fetch(name, NEEDED, license=LICENSE if name.startswith("facebook/musicgen-") else None)


def read(found: WeightsInfo) -> Source:
    """Raises MissingError for what is broken, or no music model; one line says what."""
    folder = found.folder
    if (folder / SETTINGS).is_file():
        return _own(found)
    named = Path(found.name).expanduser()
    origin = named.resolve().name if named.is_dir() else found.name.partition("@")[0]
    origin += f"@{found.revision}" if found.revision else ""
    try:
        if any(folder.glob(SAFE)) or any(folder.glob(PICKLES)):
            return _transformers(folder, origin, found.license)
        return _audiocraft(folder, origin, found.license)
    except DependencyError as error:
        if str(folder) in str(error):
            raise
        raise DependencyError(f"{str(folder)!r}: {error}") from error


def _own(found: WeightsInfo) -> Source:
    folder = found.folder
    settings = safe_load.read_yaml(folder / SETTINGS)
    if settings.get("format") != FORMAT:
        raise DependencyError(
            f"{str(folder / SETTINGS)!r} has format {settings.get('format')!r}, and this version of v2m reads "
            f"{FORMAT}: a newer one may read it"
        )
    rate = settings.get("sample_rate")
    if not isinstance(rate, int) or rate <= 0:
        raise DependencyError(f"{str(folder / SETTINGS)!r} has sample_rate {rate!r}, not a number of Hz")
    parts = {kind: _part(folder, kind, settings[kind]) for kind in KINDS if settings.get(kind) is not None}
    return Source(
        _config(settings.get("model"), folder / SETTINGS),
        safe_load.read_state_dict(folder),
        parts,
        rate,
        settings.get("origin"),
        settings.get("license") or found.license,
        shown=_shown(settings.get("shown"), folder / SETTINGS),
    )


def _part(folder: Path, kind: str, name: Any) -> Part:
    """Of our own layout: the subfolder of that name, or what is to be fetched."""
    if not isinstance(name, str):
        raise DependencyError(f"{str(folder / SETTINGS)!r} has {kind} {name!r}, which is no name")
    if name != kind:
        return Part(name)
    if not (folder / kind / "config.json").is_file():
        raise DependencyError(f"{str(folder)!r} lacks {kind}/config.json: complete that folder")
    return Part(folder=folder / kind)


def _transformers(folder: Path, origin: str, license: str | None) -> Source:
    """A composite MusicGen or MusicGen Melody, or its decoder alone."""
    config = safe_load.read_json(folder / "config.json")
    musicgen.check(config)  # before gigabytes of another family are read
    own, text, codec = musicgen.split(safe_load.read_state_dict(folder))
    parts: dict[str, Part] = {}
    if text:
        parts["text_encoder"] = Part(folder=folder, config=config["text_encoder"], state=text)
    if codec:
        parts["codec"] = Part(folder=folder, config=config["audio_encoder"], state=codec)
    plain = musicgen.config_to_v2m(config, own)
    rate = config.get("audio_encoder", {}).get("sampling_rate", 32000)
    return Source(
        _config(plain, folder / "config.json"), musicgen.to_v2m(own), parts, rate, origin, license, "transformers"
    )


def _audiocraft(folder: Path, origin: str, license: str | None) -> Source:
    """audiocraft's exported pair of files, which VidMuse's are as well."""
    path = folder / STATE
    cfg, state = _package(path)
    parts: dict[str, Part] = {}
    shown: Shown | None = None
    if vidmuse.is_vidmuse(state):
        plain, layout, shown = vidmuse.config_to_v2m(cfg, state), "vidmuse", VIDMUSE
        own, clip = vidmuse.to_v2m(state)
        parts["vision_encoder"] = Part(folder=folder, config=vidmuse.clip_config(clip), state=clip)
    else:
        plain, layout = audiocraft.config_to_v2m(cfg, state), "audiocraft"
        own = audiocraft.to_v2m(state)
    name = audiocraft.text_encoder(cfg)
    if name is not None and plain["text_dim"] is not None:
        parts["text_encoder"] = Part(name if "/" in name else f"google-t5/{name}")  # as the hub calls them
    if (folder / COMPRESSION).is_file():
        parts["codec"] = _codec(folder)
    rate = int(cfg.get("sample_rate", 32000))
    return Source(_config(plain, path), own, parts, rate, origin, license, layout, shown)


def _codec(folder: Path) -> Part:
    from v2m.pretrained.codecs.encodec import read_compression_file

    found = read_compression_file(folder / COMPRESSION)
    if isinstance(found, str):
        return Part(found)
    config, state = found
    return Part(folder=folder, config=config, state=state)


def _package(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and the weights in a file that audiocraft exported."""
    found = safe_load.read_pickle(path)
    state, text = found.get("best_state"), found.get("xp.cfg")
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r} holds no weights as audiocraft exports them (no best_state)")
    try:
        cfg = yaml.safe_load(text) if isinstance(text, str) else text
    except yaml.YAMLError as error:
        raise DependencyError(
            f"{str(path)!r} has settings that are not YAML ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(cfg, Mapping):
        raise DependencyError(f"{str(path)!r} holds no settings as audiocraft exports them (no xp.cfg)")
    return dict(cfg), dict(state)


def _shown(plain: Any, path: Path) -> Shown | None:
    if plain is None:
        return None
    try:
        return Shown.of(plain)
    except (ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise DependencyError(f"{str(path)!r} has a section shown that cannot be ({said}): fetch it again") from error


def _config(plain: Any, path: Path) -> MusicConfig:
    if not isinstance(plain, Mapping):
        raise DependencyError(f"{str(path)!r} describes no model (no section model)")
    try:
        return MusicConfig.from_dict(plain)
    except (ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise DependencyError(f"{str(path)!r} describes a model that cannot be ({said}): fetch it again") from error
