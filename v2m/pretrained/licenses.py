"""Licenses of models by name, known before anything is downloaded or loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from v2m.core.errors import DependencyError, UsageError, error_text
from v2m.core.licenses import LicensedComponent
from v2m.core.types import WeightsInfo
from v2m.pretrained import weights
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT, soundfont_license

CONFIG_FILE = "config.yaml"  # of a checkpoint of v2m
COMPONENT_KINDS = ("text_encoder", "codec", "vision_encoder", "style_encoder")
OWN_LICENSE = "MIT"
OWN_PREFIX, SCORE_PREFIX = "v2m-", "v2m-score-"  # of encoders and codecs without weights, which are code of v2m
MULTIBAND = "facebook/multiband-diffusion"
CLAP_LICENSE = "CC0-1.0"  # of laion_clap's weights, whose text branch comes with SONIQUE's
# Start of a repository's name in lower case → license of the weights as published; docs/provenance.md has the sources.
PUBLISHED = {
    "ace-step/acestep-v15-": "mit",
    "adefossez/htdemucs": "mit",
    "damo-nlp-sg/videollama3-": "apache-2.0, videollama3-research-preview",  # the latter as its authors' README says
    "facebook/audioseal": "mit",
    "facebook/encodec_32khz": "cc-by-nc-4.0",  # its card names none; audiocraft's LICENSE_weights holds for its weights
    "facebook/magnet-": "cc-by-nc-4.0",
    "facebook/multiband-diffusion": "cc-by-nc-4.0",
    "facebook/musicgen-": "cc-by-nc-4.0",
    "facebookai/roberta-base": "mit",
    "google/gemma-7b-it": "gemma",
    "google-t5/t5-": "apache-2.0",
    "lkhl/videollama3-": "apache-2.0, videollama3-research-preview",
    "m-a-p/mert-": "cc-by-nc-4.0",
    "m-a-p/xcodec_mini_infer": "apache-2.0",
    "m-a-p/yue-": "apache-2.0",
    "mistralai/mistral-7b-instruct-": "apache-2.0",
    "qwen/qwen1.5-14b-chat": "tongyi-qianwen",
    "qwen/qwen2.5-0.5b-instruct": "apache-2.0",
    "qwen/qwen2.5-1.5b-instruct": "apache-2.0",
    "stabilityai/stable-audio-": "stabilityai-ai-community",
    "zeyue7/vidmuse": "cc-by-4.0 AND cc-by-nc-4.0",  # its card's; and its codec's, which is MusicGen's
}
STATE = "state its license: a line `license: NAME` between two lines `---` at the head of README.md in its folder"


def model_component(role: str, name: str, option: str) -> LicensedComponent:
    """Return the model `name`, a folder or a repository, which `option` chooses, with its license."""
    state = "" if published_license(name) else STATE
    return LicensedComponent(role, name, model_license(name), f"give another `{option}`", state)


def checkpoint_components(name: str, option: str = "generator.model") -> list[LicensedComponent]:
    """Return a music model and the models that it needs, as far as its folder names them.

    A checkpoint of v2m names all of them. In other layouts they are in the folder, under its license, or known once the
    checkpoint is loaded (`loaded_components`).
    """
    model, folder = model_component("generator", name, option), _local_folder(name)
    settings, components = _read_settings(folder), [model]
    for kind in COMPONENT_KINDS:
        role, part = kind.replace("_", " "), settings.get(kind)
        if part is None or part == kind:  # in the folder, under the license of all of it
            continue
        if str(part).startswith(OWN_PREFIX):
            components.append(LicensedComponent(role, str(part), OWN_LICENSE))
        else:
            components.append(model_component(role, str(part), option))
    return components + _score_sounds(folder, settings.get("codec"))


def _score_sounds(folder: Path | None, codec: Any) -> list[LicensedComponent]:
    """Return the SoundFont of a codec of scores; none of another codec."""
    config = _read_settings(folder / "codec", "config.json") if folder is not None and codec == "codec" else {}
    if not str(config.get("model_type", codec)).startswith(SCORE_PREFIX):
        return []
    soundfont = config.get("soundfont")
    return [soundfont_component(None if soundfont is None else Path(soundfont))]


def multiband_components(decoder: str) -> list[LicensedComponent]:
    """Return MultiBand Diffusion where `decoder` chooses it."""
    return [model_component("decoder", MULTIBAND, "generator.decoder")] if decoder == "multiband" else []


def loaded_components(role: str, infos: Sequence[WeightsInfo]) -> list[LicensedComponent]:
    """Return models that have been fetched, with the license that they, and this module, state."""
    return [
        LicensedComponent(
            role, info.name, _join(info.license, published_license(info.name)), f"give another {role}", STATE
        )
        for info in infos
    ]


def soundfont_component(path: Path | None = None) -> LicensedComponent:
    """Return a SoundFont, that which v2m carries where `path` is None."""
    file = path or DEFAULT_SOUNDFONT
    state = f"state its license: a file {file.name}.license with a line `SPDX-License-Identifier: NAME`"
    return LicensedComponent("sound bank", file.name, soundfont_license(file), "leave out the SoundFont", state)


def model_license(name: str) -> str | None:
    """Return the license of a model without a question to the hub; None where none is known.

    All of what its folder states, in v2m's config.yaml and in its model card, and what its authors published it under,
    where that is known. Of a repository without either: what the card in the hub's cache states.
    """
    folder, published = _local_folder(name), published_license(name)
    if folder is not None:
        return _join(_read_settings(folder).get("license"), weights.card_license(folder), published)
    return published or _cached_license(name)


def ask_hub(component: LicensedComponent) -> LicensedComponent:
    """Return a component with the license of its card on the hub, where none is known of a repository."""
    name = component.name
    if component.license or not weights.REPOSITORY.fullmatch(name) or _local_folder(name) is not None:
        return component
    repo, _, revision = name.partition("@")
    try:
        from v2m.pretrained import hub

        return replace(component, license=weights.license_name(hub.list_files(repo, revision or "main").card))
    except (DependencyError, ImportError) as error:
        return replace(component, missing=f"not known: the hub could not be asked ({error_text(error)})")


def published_license(name: str) -> str | None:
    """Return the license of a repository of the hub that v2m knows."""
    return next((license for start, license in PUBLISHED.items() if name.lower().startswith(start)), None)


def _join(*licenses: Any) -> str | None:
    """Return a list of licenses that all must allow a use; None where none is given."""
    names = (name.strip() for license in licenses if license for name in str(license).split(","))
    return ", ".join({name.lower(): name for name in names}.values()) or None


def _local_folder(name: str) -> Path | None:
    path = Path(name).expanduser()
    return path.parent if path.is_file() else weights.find_folder(name)


def _cached_license(name: str) -> str | None:
    try:
        local = weights.find_local(name, ())
    except (DependencyError, UsageError, ImportError):  # which its loader reports
        return None
    return None if local is None else local.license


def _read_settings(folder: Path | None, file: str = CONFIG_FILE) -> dict[str, Any]:
    """Values of a YAML or JSON file; none where it is missing or broken, which its loader reports."""
    try:
        values = yaml.safe_load((folder / file).read_text(encoding="utf-8")) if folder is not None else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}
