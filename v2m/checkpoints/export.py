"""Export of a checkpoint to the layouts of transformers, audiocraft and VidMuse, which their own libraries load."""

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

AUDIOCRAFT_VERSION = "1.3.0"  # written into its layout
UNUSED_T5_PREFIXES = ("decoder.", "lm_head.")  # of a whole T5, whose encoder alone is used
T5_NAMESPACE = "google-t5/"  # of the T5s that audiocraft calls by their bare names


def convert_checkpoint(source: str, dest: Path, layout: str) -> str:
    """Convert the checkpoint `source`, or a training checkpoint (.ckpt), to a layout in the folder `dest`.

    Returns one line on what was written.

    Raises:
        DependencyError: The source, or a frozen model that the layout includes, cannot be read or fetched.
        UsageError: `dest` is not empty, or the layout cannot represent the model.
    """
    model = (
        lightning_ckpt.load_training_checkpoint(Path(source))
        if source.endswith(".ckpt")
        else V2M.from_pretrained(source)
    )
    writers = {"transformers": _write_transformers, "audiocraft": _write_audiocraft, "vidmuse": _write_vidmuse}
    writer = writers.get(layout)
    if writer is None:
        model.save_pretrained(dest)
    else:
        _check_layout(model, layout)
        save.atomic_directory(dest, lambda folder: writer(model, folder))
    count = sum(value.numel() for value in model.parameters())
    size = sum(value.numel() * value.element_size() for value in model.parameters())
    lm = model.config.lm
    return (
        f"wrote {dest} in the layout of {layout}: {count:,} weights ({size / 1e6:.1f} MB), {lm.num_layers} layers of "
        f"width {lm.dim}, {lm.num_codebooks} codebooks; license: {model.license or 'not stated'}"
    )


def _check_layout(model: V2M, layout: str) -> None:
    """Raise UsageError where the layout cannot represent the model."""
    has_conditioner = model.config.conditioner is not None
    if has_conditioner != (layout == "vidmuse"):
        has = (
            "a visual conditioner, which only the layouts v2m and vidmuse hold"
            if has_conditioner
            else "no visual conditioner"
        )
        raise UsageError(f"{model.origin or 'the model'} has {has}: it cannot be written with --to {layout}")


def _write_transformers(model: V2M, folder: Path) -> None:
    lm, text, codec = model.config.lm, model.component("text_encoder"), model.component("codec")
    (text_config, words), (codec_config, sounds) = text.load(), codec.load()
    words = {name: value for name, value in words.items() if not name.startswith(UNUSED_T5_PREFIXES)}
    config = musicgen.config_from_v2m(model.config.to_dict(), text_encoder=text_config, audio_encoder=codec_config)
    state = musicgen.merge_state(musicgen.from_v2m(model.state_dict()), words, sounds)
    save.write_json(folder / "config.json", config)
    save.write_json(folder / "generation_config.json", hf_processor_config.generation_config(lm.special_token_id))
    preprocessor = hf_processor_config.preprocessor_config(lm.channels, model.sample_rate, model.config.num_chroma)
    save.write_json(folder / PREPROCESSOR_CONFIG, preprocessor)
    save.write_weights(folder / save.WEIGHTS_FILE, state)
    save.copy_files(text, folder, TOKENIZER_FILES)
    _write_card(model, folder)


def _write_audiocraft(model: V2M, folder: Path) -> None:
    _save_package(
        folder / STATE_FILE,
        audiocraft.config_from_v2m(model.config.to_dict(), **_frozen_settings(model)),
        audiocraft.from_v2m(model.state_dict()),
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
    """Settings of the frozen models. audiocraft fetches its T5 by name: for other encoders, one of the same size."""
    component = model.components.get("text_encoder")
    known = {512: "t5-small", 1024: "t5-large"}.get(model.config.text_dim or 0, "t5-base")
    name = known if component is None or component.name is None else component.name.removeprefix(T5_NAMESPACE)
    return {"sample_rate": model.sample_rate, "text_encoder": name}


def _write_compression(model: V2M, path: Path) -> None:
    component = model.components.get("codec")
    if component is not None and component.name is not None:
        torch.save({"pretrained": component.name, "exported": True, "version": AUDIOCRAFT_VERSION}, path)
        return
    config, state = model.component("codec").load()
    _save_package(path, encodec.config_from_transformers(config), encodec.from_transformers(state))


def _save_package(path: Path, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    plain = {name: value.detach().clone() for name, value in state.items()}
    text = yaml.safe_dump(dict(settings), sort_keys=False)
    torch.save({"best_state": plain, "xp.cfg": text, "version": AUDIOCRAFT_VERSION, "exported": True}, path)


def _write_card(model: V2M, folder: Path) -> None:
    """Write the model card, with the license that every copy has to state."""
    front = f"license: {model.license}\n" if model.license else ""
    text = f"---\n{front}tags:\n- musicgen\n---\n\nConverted by v2m from {model.origin or 'a checkpoint'}.\n"
    (folder / save.CARD_FILE).write_text(text, encoding="utf-8")
