"""CLAP as transformers has it: sound and words in one space.

Wu et al., "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption Augmentation"
(2023). W windows of at most 10 s, D numbers, T texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

from v2m.core.types import Audio, Floats
from v2m.evaluation.embedder import AudioEmbedding, split_windows, to_mono
from v2m.evaluation.embedders.base import (
    BATCH_SIZE,
    CPU,
    HFEmbedder,
    load_extractor,
    to_audio_embedding,
    to_float32,
    to_numpy,
)
from v2m.media.audio import resample
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import read_json, read_state_dict

FILES = ("config.json", "model.safetensors|pytorch_model.bin", "preprocessor_config.json|processor_config.json")
TOKENIZER_FILES = ("tokenizer.json|vocab.json", "merges.txt|", "tokenizer_config.json|", "special_tokens_map.json|")
LICENSE = "apache-2.0"


class ClapEmbedder(HFEmbedder):
    """Hears, and reads words."""

    files, license = FILES + TOKENIZER_FILES, LICENSE

    def __init__(self, source: str = "laion/larger_clap_music_and_speech", device: str = "auto") -> None:
        super().__init__(source, device)

    @torch.inference_mode()
    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """(W, D) of length 1."""
        with self._lazy_model.model() as (model, prepared, _):
            pieces = split_windows(to_mono(resample(audio, prepared.sampling_rate)), prepared.nb_max_samples)
            fused = model.config.audio_config.enable_fusion
            found = []
            for start in range(0, len(pieces), BATCH_SIZE):
                batch = pieces[start : start + BATCH_SIZE]
                how = {"truncation": "fusion" if fused else "rand_trunc", "sampling_rate": prepared.sampling_rate}
                given = prepared(batch, return_tensors="pt", **how).to(model.device)
                # none is longer than a window; the extractor draws one of a batch to be said to be so
                given["is_longer"] = torch.zeros(len(batch), 1, dtype=torch.bool, device=model.device)
                found.append(to_numpy(model.get_audio_features(**given).pooler_output))
            return to_audio_embedding(np.concatenate(found), self.name)

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> Floats:
        """(T, D) of length 1; what a model of words has no room for is cut."""
        with self._lazy_model.model() as (model, _, words):
            room = model.config.text_config.max_position_embeddings - 2  # RoBERTa's begin behind the padding's
            how = {"padding": True, "truncation": True, "max_length": min(77, room), "return_tensors": "pt"}
            given = words(list(texts), **how).to(model.device)
            asked = {name: given[name] for name in ("input_ids", "attention_mask")}
            return to_numpy(model.get_text_features(**asked).pooler_output)

    def _load(self, folder: Path) -> tuple[Any, Any, Any]:
        model = to_float32(
            transformers_loader.load_model(
                ClapModel, folder, CPU, description="CLAP", state=_with_position_buffers(folder)
            ),
            self._device,
        )
        words = transformers_loader.load_tokenizer(RobertaTokenizer, folder, ("tokenizer.json", "vocab.json"), "CLAP")
        return model, load_extractor(ClapFeatureExtractor, folder, "CLAP"), words


def _with_position_buffers(folder: Path) -> dict[str, Tensor]:
    """The folder's weights, with the numbers of places that not every library saves beside them."""
    text = read_json(folder / "config.json").get("text_config") or {}
    places = int(text.get("max_position_embeddings", 514))
    counted = {"position_ids": torch.arange(places)[None], "token_type_ids": torch.zeros(1, places, dtype=torch.long)}
    return {f"text_model.embeddings.{name}": value for name, value in counted.items()} | read_state_dict(folder)
