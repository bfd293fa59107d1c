"""A checkpoint in the layouts of others, so that their own libraries load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from v2m.checkpoints import lightning_ckpt, save
from v2m.checkpoints.components import PREPROCESSOR_CONFIG, TOKENIZER_FILES
from v2m.checkpoints.load import COMPRESSION_FILE, STATE_FILE
from v2m.checkpoints.model import V2M
from v2m.core.errors import UsageError
from v2m.mappings import audiocraft, encodec, hf_processor_config, musicgen, vidmuse

AUDIOCRAFT_VERSION = "1.3.0"  # of audiocraft, whose layout it is
UNUSED_T5_PREFIXES = ("decoder.", "lm_head.")  # of a whole T5
T5_NAMESPACE = "google-t5/"  # the T5s that audiocraft calls by their bare names


def convert_checkpoint(source: str, dest: Path, layout: str) -> str:
    """Reads the checkpoint `source`, or a training checkpoint (.ckpt), and writes it into `dest` in a layout.

    Returns one line on what was written.

    Raises:
        DependencyError: The source, or a frozen model that the layout has to hold, cannot be read or fetched.
        UsageError: There is something in `dest`, or the layout has no room for what the model is.
    """
    model = (
        lightning_ckpt.load_training_checkpoint(Path(source))
        if source.endswith(".ckpt")
        else V2M.from_pretrained(source)
    )
    fill = {"transformers": _write_transformers, "audiocraft": _write_audiocraft, "vidmuse": _write_vidmuse}.get(layout)
    if fill is None:
        model.save_pretrained(dest)
    else:
        _check_layout(model, layout)
        save.atomic_directory(dest, lambda folder: fill(model, folder))
    count, size = (sum(each(value) for value in model.parameters()) for each in (Tensor.numel, _num_bytes))
    lm = model.config.lm
    return (
        f"wrote {dest} in the layout of {layout}: {count:,} weights ({size / 1e6:.1f} MB), {lm.num_layers} layers "
        f"of width {lm.dim}, {lm.num_codebooks} codebooks; license: {model.license or 'not stated'}"
    )


def _num_bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _check_layout(model: V2M, layout: str) -> None:
    """Raises UsageError where the layout has no place for something that the model has."""
    sees = model.config.conditioner is not None
    if sees != (layout == "vidmuse"):
        has = "a visual conditioner, which only the layouts v2m and vidmuse hold" if sees else "no visual conditioner"
        raise UsageError(f"{model.origin or 'the model'} has {has}: it cannot be written with --to {layout}")


def _write_transformers(model: V2M, folder: Path) -> None:
    lm, text, codec = model.config.lm, model.component("text_encoder"), model.component("codec")
    (text_config, words), (codec_config, sounds) = text.load(), codec.load()
    words = {name: value for name, value in words.items() if not name.startswith(UNUSED_T5_PREFIXES)}
    config = musicgen.config_from_v2m(model.config.to_dict(), text_encoder=text_config, audio_encoder=codec_config)
    state = musicgen.merge_state(musicgen.from_v2m(model.state_dict()), words, sounds)
    save.write_json(folder / "config.json", config)
    save.write_json(folder / "generation_config.json", hf_processor_config.generation_config(lm.special_token_id))
    heard = hf_processor_config.preprocessor_config(lm.channels, model.sample_rate, model.config.num_chroma)
    save.write_json(folder / PREPROCESSOR_CONFIG, heard)
    save.write_weights(folder / save.WEIGHTS_FILE, state)
    save.copy_files(text, folder, TOKENIZER_FILES)
    _write_card(model, folder)


def _write_audiocraft(model: V2M, folder: Path) -> None:
    own = model.state_dict()
    _save_package(
        folder / STATE_FILE,
        audiocraft.config_from_v2m(model.config.to_dict(), **_frozen_settings(model)),
        audiocraft.from_v2m(own),
    )
    _write_compression(model, folder / COMPRESSION_FILE)
    _write_card(model, folder)


def _write_vidmuse(model: V2M, folder: Path) -> None:
    _, clip = model.component("vision_encoder").load()
    state = vidmuse.from_v2m(model.state_dict(), clip)
    _save_package(
        folder / STATE_FILE, vidmuse.config_from_v2m(model.config.to_dict(), **_frozen_settings(model)), state
    )
    _write_compression(model, folder / COMPRESSION_FILE)
    _write_card(model, folder)


def _frozen_settings(model: V2M) -> dict[str, Any]:
    """What audiocraft is to know of the frozen models. It carries no text encoder: of ours it fetches one as wide."""
    part = model.components.get("text_encoder")
    known = {512: "t5-small", 1024: "t5-large"}.get(model.config.text_dim or 0, "t5-base")
    name = known if part is None or part.name is None else part.name.removeprefix(T5_NAMESPACE)
    return {"sample_rate": model.sample_rate, "text_encoder": name}


def _write_compression(model: V2M, path: Path) -> None:
    part = model.components.get("codec")
    if part is not None and part.name is not None:
        torch.save({"pretrained": part.name, "exported": True, "version": AUDIOCRAFT_VERSION}, path)
        return
    config, state = model.component("codec").load()
    _save_package(path, encodec.config_from_transformers(config), encodec.from_transformers(state))


def _save_package(path: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    plain = {name: value.detach().clone() for name, value in state.items()}
    text = yaml.safe_dump(dict(settings), sort_keys=False)
    torch.save({"best_state": plain, "xp.cfg": text, "version": AUDIOCRAFT_VERSION, "exported": True}, path)


def _write_card(model: V2M, folder: Path) -> None:
    """The license has to go along."""
    front = f"license: {model.license}\n" if model.license else ""
    said = f"---\n{front}tags:\n- musicgen\n---\n\nConverted by v2m from {model.origin or 'a checkpoint'}.\n"
    (folder / save.CARD_FILE).write_text(said, encoding="utf-8")
