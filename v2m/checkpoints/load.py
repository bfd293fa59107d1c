"""A checkpoint of any layout, as what `V2M` is made of. Foreign weights are converted in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from v2m.checkpoints.components import COMPONENT_KINDS, PREPROCESSOR_CONFIG, TOKENIZER_FILES, Component
from v2m.checkpoints.save import CONFIG_FILE, FORMAT_VERSION
from v2m.checkpoints.visual_input_config import VIDMUSE_VISUAL_INPUT, VisualInputConfig
from v2m.core.errors import DependencyError
from v2m.core.types import WeightsInfo
from v2m.mappings import audiocraft, musicgen, vidmuse
from v2m.models.music_model import MusicConfig
from v2m.pretrained import safe_load, weights

STATE_FILE, COMPRESSION_FILE = "state_dict.bin", "compression_state_dict.bin"  # audiocraft's names
MUSICGEN_LICENSE = "cc-by-nc-4.0"  # of the weights of facebook/musicgen-*
SAFETENSORS_GLOB, PICKLE_GLOB = "model*.safetensors", "pytorch_model*.bin"
REQUIRED_FILES = (  # our own layout before transformers' before audiocraft's, of which a repository may hold several
    f"{CONFIG_FILE}|config.json|{STATE_FILE}",
    f"{SAFETENSORS_GLOB}|{PICKLE_GLOB}|{STATE_FILE}",
    f"{SAFETENSORS_GLOB}|{PICKLE_GLOB}|{COMPRESSION_FILE}|",
    f"{safe_load.SAFETENSORS_INDEX}|{safe_load.PICKLE_INDEX}|",
    *(f"{CONFIG_FILE}|{name}|" for name in ("generation_config.json", PREPROCESSOR_CONFIG, *TOKENIZER_FILES)),
    *(f"{kind}/|" for kind in COMPONENT_KINDS),
)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What a checkpoint holds: `state` is `MusicModel`'s; the rest is as in `V2M`."""

    config: MusicConfig
    state: dict[str, Tensor]
    components: dict[str, Component]
    sample_rate: int
    origin: str | None
    license: str | None
    layout: str = field(default="v2m")
    visual_input: VisualInputConfig | None = None


def fetch(name: str) -> WeightsInfo:
    """The checkpoint's folder on this machine, downloaded in one layout if need be (see
    `v2m.pretrained.weights.fetch`).

    Raises:
        DependencyError: There is none, or it holds no checkpoint of a known layout.
    """
    return weights.fetch(
        name, REQUIRED_FILES, license=MUSICGEN_LICENSE if name.startswith("facebook/musicgen-") else None
    )


def load_checkpoint(info: WeightsInfo) -> LoadedCheckpoint:
    """Raises DependencyError for what is broken, or no music model; one line says what."""
    folder = info.folder
    if (folder / CONFIG_FILE).is_file():
        return _load_v2m(info)
    named = Path(info.name).expanduser()
    origin = named.resolve().name if named.is_dir() else info.name.partition("@")[0]
    origin += f"@{info.revision}" if info.revision else ""
    try:
        if any(folder.glob(SAFETENSORS_GLOB)) or any(folder.glob(PICKLE_GLOB)):
            return _load_transformers(folder, origin, info.license)
        return _load_audiocraft(folder, origin, info.license)
    except DependencyError as error:
        if str(folder) in str(error):
            raise
        raise DependencyError(f"{str(folder)!r}: {error}") from error


def _load_v2m(found: WeightsInfo) -> LoadedCheckpoint:
    folder = found.folder
    settings = safe_load.read_yaml(folder / CONFIG_FILE)
    if settings.get("format") != FORMAT_VERSION:
        raise DependencyError(
            f"{str(folder / CONFIG_FILE)!r} has format {settings.get('format')!r}, and this version of v2m reads "
            f"{FORMAT_VERSION}: a newer one may read it"
        )
    rate = settings.get("sample_rate")
    if not isinstance(rate, int) or rate <= 0:
        raise DependencyError(f"{str(folder / CONFIG_FILE)!r} has sample_rate {rate!r}, not a number of Hz")
    parts = {
        kind: _component(folder, kind, settings[kind]) for kind in COMPONENT_KINDS if settings.get(kind) is not None
    }
    return LoadedCheckpoint(
        _model_config(settings.get("model"), folder / CONFIG_FILE),
        safe_load.read_state_dict(folder),
        parts,
        rate,
        settings.get("origin"),
        settings.get("license") or found.license,
        visual_input=_visual_input_config(settings.get("visual_input"), folder / CONFIG_FILE),
    )


def _component(folder: Path, kind: str, name: Any) -> Component:
    """Of our own layout: the subfolder of that name, or what is to be fetched."""
    if not isinstance(name, str):
        raise DependencyError(f"{str(folder / CONFIG_FILE)!r} has {kind} {name!r}, which is no name")
    if name != kind:
        return Component(name)
    if not (folder / kind / "config.json").is_file():
        raise DependencyError(f"{str(folder)!r} lacks {kind}/config.json: complete that folder")
    return Component(folder=folder / kind)


def _load_transformers(folder: Path, origin: str, license: str | None) -> LoadedCheckpoint:
    """A composite MusicGen or MusicGen Melody, or its decoder alone."""
    config = safe_load.read_json(folder / "config.json")
    musicgen.check_config(config)  # before gigabytes of another family are read
    own, text, codec = musicgen.split_state(safe_load.read_state_dict(folder))
    parts: dict[str, Component] = {}
    if text:
        parts["text_encoder"] = Component(folder=folder, config=config["text_encoder"], state=text)
    if codec:
        parts["codec"] = Component(folder=folder, config=config["audio_encoder"], state=codec)
    plain = musicgen.config_to_v2m(config, own)
    rate = config.get("audio_encoder", {}).get("sampling_rate", 32000)
    return LoadedCheckpoint(
        _model_config(plain, folder / "config.json"), musicgen.to_v2m(own), parts, rate, origin, license, "transformers"
    )


def _load_audiocraft(folder: Path, origin: str, license: str | None) -> LoadedCheckpoint:
    """audiocraft's exported pair of files, which VidMuse's are as well."""
    path = folder / STATE_FILE
    cfg, state = _read_package(path)
    parts: dict[str, Component] = {}
    shown: VisualInputConfig | None = None
    if vidmuse.is_vidmuse(state):
        plain, layout, shown = vidmuse.config_to_v2m(cfg, state), "vidmuse", VIDMUSE_VISUAL_INPUT
        own, clip = vidmuse.to_v2m(state)
        parts["vision_encoder"] = Component(folder=folder, config=vidmuse.clip_config(clip), state=clip)
    else:
        plain, layout = audiocraft.config_to_v2m(cfg, state), "audiocraft"
        own = audiocraft.to_v2m(state)
    name = audiocraft.text_encoder_name(cfg)
    if name is not None and plain["text_dim"] is not None:
        parts["text_encoder"] = Component(name if "/" in name else f"google-t5/{name}")  # as the hub calls them
    if (folder / COMPRESSION_FILE).is_file():
        parts["codec"] = _codec_component(folder)
    rate = int(cfg.get("sample_rate", 32000))
    return LoadedCheckpoint(_model_config(plain, path), own, parts, rate, origin, license, layout, shown)


def _codec_component(folder: Path) -> Component:
    from v2m.pretrained.codecs.encodec import read_compression_file

    found = read_compression_file(folder / COMPRESSION_FILE)
    if isinstance(found, str):
        return Component(found)
    config, state = found
    return Component(folder=folder, config=config, state=state)


def _read_package(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
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


def _visual_input_config(plain: Any, path: Path) -> VisualInputConfig | None:
    if plain is None:
        return None
    try:
        return VisualInputConfig.from_dict(plain)
    except (ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise DependencyError(
            f"{str(path)!r} has a section visual_input that cannot be ({said}): fetch it again"
        ) from error


def _model_config(plain: Any, path: Path) -> MusicConfig:
    if not isinstance(plain, Mapping):
        raise DependencyError(f"{str(path)!r} describes no model (no section model)")
    try:
        return MusicConfig.from_dict(plain)
    except (ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise DependencyError(f"{str(path)!r} describes a model that cannot be ({said}): fetch it again") from error
