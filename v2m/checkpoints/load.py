"""Loading of checkpoints of every layout; foreign weights are converted in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from v2m.checkpoints.components import (
    COMPONENT_KINDS,
    COMPRESSION_FILE,
    PICKLE_GLOB,
    PREPROCESSOR_CONFIG,
    SAFETENSORS_GLOB,
    TOKENIZER_FILES,
    VIDMUSE_VISUAL_INPUT,
    WEIGHTS_INDEX,
    Component,
    VisualInputConfig,
)
from v2m.checkpoints.save import CONFIG_FILE, FORMAT_VERSION
from v2m.core.errors import DependencyError, error_text, prefix_errors
from v2m.core.types import WeightsInfo
from v2m.mappings import audiocraft, musicgen, vidmuse
from v2m.mappings.state_dict_map import truncate_list
from v2m.models.music_model import MusicConfig
from v2m.pretrained import safe_load, weights
from v2m.pretrained.audiocraft_package import TRAINING_FILE, TRAINING_SUFFIX, read_package

logger = logging.getLogger(__name__)
Config = TypeVar("Config", MusicConfig, VisualInputConfig)

STATE_FILE = "state_dict.bin"  # audiocraft's name
MUSICGEN_LICENSE = "cc-by-nc-4.0"  # of the weights of facebook/musicgen-*
REQUIRED_FILES = (  # ours before transformers' before audiocraft's: a repository may have several
    f"{CONFIG_FILE}|config.json|{STATE_FILE}|{TRAINING_FILE}",
    f"{SAFETENSORS_GLOB}|{PICKLE_GLOB}|{STATE_FILE}|{TRAINING_FILE}",
    f"{SAFETENSORS_GLOB}|{PICKLE_GLOB}|{COMPRESSION_FILE}|",
    WEIGHTS_INDEX,
    *(f"{CONFIG_FILE}|{name}|" for name in ("generation_config.json", PREPROCESSOR_CONFIG, *TOKENIZER_FILES)),
    *(f"{kind}/|" for kind in COMPONENT_KINDS),
)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """Content of a checkpoint: `state` is `MusicModel`'s; the rest is as in `V2M`."""

    config: MusicConfig
    state: dict[str, Tensor]
    components: dict[str, Component]
    sample_rate: int
    origin: str | None
    license: str | None
    visual_input: VisualInputConfig | None = None


def fetch(name: str) -> WeightsInfo:
    """Return the local folder, downloaded in one layout if need be. Raises DependencyError for none.

    A training checkpoint of audiocraft may be given as a file, too: its folder holds one for each epoch.
    """
    license, path = MUSICGEN_LICENSE if name.startswith("facebook/musicgen-") else None, Path(name).expanduser()
    if path.suffix == TRAINING_SUFFIX and path.is_file():
        return WeightsInfo(name, path.parent)
    if path.suffix == ".ckpt" and path.is_file():
        raise DependencyError(f"{name!r} is a training checkpoint: write it as a model, `v2m convert {name} FOLDER`")
    if not any(any(path.glob(pattern)) for pattern in (SAFETENSORS_GLOB, PICKLE_GLOB, STATE_FILE, TRAINING_FILE)):
        patterns = f"*/{TRAINING_FILE}", "*.ckpt", "*/*.ckpt"
        runs = [str(run) for pattern in patterns for run in sorted(path.glob(pattern))]
        if runs:
            raise DependencyError(f"{name!r} holds training checkpoints: give one, {truncate_list(runs)}")
    return weights.fetch(name, REQUIRED_FILES, license=license)


def load_checkpoint(info: WeightsInfo) -> LoadedCheckpoint:
    """Load a fetched checkpoint; what is broken or no music model raises DependencyError."""
    folder, path = info.folder, Path(info.name).expanduser()
    is_file = path.is_file()
    if not is_file and (folder / CONFIG_FILE).is_file():
        return _load_v2m(info)
    origin = folder.resolve().name if is_file or path.is_dir() else info.name.partition("@")[0]
    origin += f"@{info.revision}" if info.revision else ""
    if not is_file and (any(folder.glob(SAFETENSORS_GLOB)) or any(folder.glob(PICKLE_GLOB))):
        return _load_transformers(folder, origin, info.license)
    exported = folder / STATE_FILE
    own = exported if exported.is_file() else folder / TRAINING_FILE
    return _load_audiocraft(path if is_file else own, origin, info.license)


def has_score_codec(folder: Path) -> bool:
    """Return whether `folder` holds a v2m checkpoint of a model that writes scores."""
    if not (folder / CONFIG_FILE).is_file():
        return False
    name = safe_load.read_yaml(folder / CONFIG_FILE).get("codec")
    component = Component(folder=folder / "codec") if name == "codec" else Component(str(name))
    return component.score_config() is not None


def _load_v2m(info: WeightsInfo) -> LoadedCheckpoint:
    folder, path = info.folder, info.folder / CONFIG_FILE
    settings = safe_load.read_yaml(path)
    if (version := settings.get("format")) != FORMAT_VERSION:
        own = f"this version of v2m reads {FORMAT_VERSION}: a newer one may read it"
        raise DependencyError(f"{str(path)!r} has format {version!r}, and {own}")
    rate = settings.get("sample_rate")
    if not isinstance(rate, int) or rate <= 0:
        raise DependencyError(f"{str(path)!r} has sample_rate {rate!r}, not a number of Hz")
    kinds = [kind for kind in COMPONENT_KINDS if settings.get(kind) is not None]
    components = {kind: _component(folder, kind, settings[kind]) for kind in kinds}
    config = _parse_section(MusicConfig, settings.get("model"), path, "model")
    if (visual_input := settings.get("visual_input")) is not None:
        visual_input = _parse_section(VisualInputConfig, visual_input, path, "visual_input")
    state, license = safe_load.read_state_dict(folder), settings.get("license") or info.license
    return LoadedCheckpoint(config, state, components, rate, settings.get("origin"), license, visual_input)


def _component(folder: Path, kind: str, name: Any) -> Component:
    """Return the component in the subfolder of that name, or one to fetch."""
    if not isinstance(name, str):
        raise DependencyError(f"{str(folder / CONFIG_FILE)!r} has {kind} {name!r}, which is no name")
    if name != kind:
        return Component(name)
    if not (folder / kind / "config.json").is_file():
        raise DependencyError(f"{str(folder)!r} lacks {kind}/config.json: complete that folder")
    return Component(folder=folder / kind)


def _load_transformers(folder: Path, origin: str, license: str | None) -> LoadedCheckpoint:
    """Load a composite MusicGen or MusicGen Melody, or its decoder alone."""
    config = safe_load.read_json(folder / "config.json")
    with prefix_errors(folder):
        musicgen.check_config(config)  # before gigabytes of another family are read
    checkpoint_state = safe_load.read_state_dict(folder)
    with prefix_errors(folder):
        state, text, codec = musicgen.split_state(checkpoint_state)
        config_values, model_state = musicgen.config_to_v2m(config, state), musicgen.to_v2m(state)
    components: dict[str, Component] = {}
    if text:
        components["text_encoder"] = Component(folder=folder, config=config["text_encoder"], state=text)
    if codec:
        components["codec"] = Component(folder=folder, config=config["audio_encoder"], state=codec)
    model_config = _parse_section(MusicConfig, config_values, folder / "config.json", "model")
    rate = config.get("audio_encoder", {}).get("sampling_rate", 32000)
    return LoadedCheckpoint(model_config, model_state, components, rate, origin, license)


def _load_audiocraft(path: Path, origin: str, license: str | None) -> LoadedCheckpoint:
    """Load an exported or training checkpoint of audiocraft or VidMuse, and the codec beside it."""
    folder, (cfg, state) = path.parent, read_package(path)
    components: dict[str, Component] = {}
    visual_input: VisualInputConfig | None = None
    with prefix_errors(folder):
        if vidmuse.is_vidmuse(state):
            config, visual_input = vidmuse.config_to_v2m(cfg, state), VIDMUSE_VISUAL_INPUT
            model_state, clip = vidmuse.to_v2m(state)
            components["vision_encoder"] = Component(folder=folder, config=vidmuse.clip_config(clip), state=clip)
        else:
            config, model_state = audiocraft.config_to_v2m(cfg, state), audiocraft.to_v2m(state)
    if cfg.get("solver") == "audiogen":
        logger.warning("%s is AudioGen, a model of sound effects: what it writes is no music", path)
    components |= named_components(folder, cfg)
    if config["text_dim"] is None:
        components.pop("text_encoder", None)
    rate = int(cfg.get("sample_rate", 32000))
    model_config = _parse_section(MusicConfig, config, path, "model")
    return LoadedCheckpoint(model_config, model_state, components, rate, origin, license, visual_input)


def named_components(folder: Path, cfg: Mapping[str, Any]) -> dict[str, Component]:
    """Return the frozen models of audiocraft's settings.

    Text and style encoder are named there; the codec is in the folder, or named too.
    """
    components: dict[str, Component] = {}
    if (style_encoder := audiocraft.style_encoder_name(cfg)) is not None:
        components["style_encoder"] = Component(style_encoder)
    name = audiocraft.text_encoder_name(cfg)
    if name is not None:
        components["text_encoder"] = Component(name if "/" in name else f"google-t5/{name}")  # as the hub calls them
    if (folder / COMPRESSION_FILE).is_file():
        from v2m.pretrained.codecs.encodec import read_compression_file

        codec = read_compression_file(folder / COMPRESSION_FILE)
        components["codec"] = Component(codec) if isinstance(codec, str) else Component(None, folder, *codec)
    elif isinstance(codec := cfg.get("compression_model_checkpoint"), str):  # of a training checkpoint
        if codec.startswith(audiocraft.PUBLISHED):
            components["codec"] = Component(codec.removeprefix(audiocraft.PUBLISHED))
        else:
            logger.warning("%s needs its codec, %s: export it as %s beside it", folder, codec, COMPRESSION_FILE)
    return components


def _parse_section(config_class: type[Config], values: Any, path: Path, section: str) -> Config:
    """Return the config that a section of a file describes."""
    if not isinstance(values, Mapping):
        raise DependencyError(f"{str(path)!r} has no section {section}: it describes no model")
    try:
        return config_class.from_dict(values)
    except (ValueError, TypeError) as error:
        reason, name = error_text(error), section.replace("_", " ")
        raise DependencyError(f"{str(path)!r} describes a {name} that cannot be ({reason}): fetch it again") from error
