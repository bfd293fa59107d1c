"""CLAP in transformers' layout: audio and text in one space.

Wu et al., "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption Augmentation"
(2023). W windows of at most 10 s, D dimensions, T texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

from v2m.core.types import Audio, Floats
from v2m.evaluation.embedders import AudioEmbedding, pretrained, split_windows, to_mono
from v2m.evaluation.embedders.pretrained import BATCH_SIZE, HFEmbedder, to_numpy
from v2m.media.audio import resample
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import read_json, read_state_dict

FILES = ("config.json", "model.safetensors|pytorch_model.bin", "preprocessor_config.json|processor_config.json")
TOKENIZER_FILES = ("tokenizer.json|vocab.json", "merges.txt|", "tokenizer_config.json|", "special_tokens_map.json|")
MAX_TOKENS = 77  # of a text


class ClapEmbedder(HFEmbedder):
    """CLAP's embeddings of audio and text."""

    files = FILES + TOKENIZER_FILES
    license = "apache-2.0"
    embeds_text = True

    def __init__(self, source: str = "laion/larger_clap_music_and_speech", device: str = "auto") -> None:
        super().__init__(source, device)

    @torch.inference_mode()
    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """(W, D) of length 1."""
        with self._lazy_model.model() as (model, extractor, _):
            rate = extractor.sampling_rate
            windows = split_windows(to_mono(resample(audio, rate)), extractor.nb_max_samples)
            truncation = "fusion" if model.config.audio_config.enable_fusion else "rand_trunc"
            embeddings = []
            for start in range(0, len(windows), BATCH_SIZE):
                batch = windows[start : start + BATCH_SIZE]
                inputs = extractor(batch, return_tensors="pt", truncation=truncation, sampling_rate=rate)
                inputs = inputs.to(model.device)
                # No window is longer than the model takes; the extractor marks one of a batch at random as longer.
                inputs["is_longer"] = torch.zeros(len(batch), 1, dtype=torch.bool, device=model.device)
                embeddings.append(to_numpy(model.get_audio_features(**inputs).pooler_output))
            return pretrained.join_batches(embeddings, self.name)

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> Floats:
        """(T, D) of length 1; a text longer than the text encoder takes is truncated."""
        with self._lazy_model.model() as (model, _, tokenizer):
            # RoBERTa's positions begin behind the padding's.
            max_length = min(MAX_TOKENS, model.config.text_config.max_position_embeddings - 2)
            options = {"padding": True, "truncation": True, "max_length": max_length, "return_tensors": "pt"}
            tokens = tokenizer(list(texts), **options).to(model.device)
            features = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
            return to_numpy(features.pooler_output)

    def _load(self) -> tuple[Any, Any, Any]:
        folder = self._weights_folder()
        load, state = transformers_loader.load_model, _with_position_buffers(folder)
        model = load(ClapModel, folder, pretrained.CPU, description="CLAP", state=state)
        vocabulary = "tokenizer.json", "vocab.json"
        tokenizer = transformers_loader.load_tokenizer(RobertaTokenizer, folder, vocabulary, "CLAP")
        extractor = pretrained.load_extractor(ClapFeatureExtractor, folder, "CLAP")
        return self._place(model), extractor, tokenizer


def _with_position_buffers(folder: Path) -> dict[str, Tensor]:
    """Read the folder's weights and add the position buffers, which not every library saves."""
    config = read_json(folder / "config.json").get("text_config") or {}
    positions = int(config.get("max_position_embeddings", 514))
    buffers = {
        "text_model.embeddings.position_ids": torch.arange(positions)[None],
        "text_model.embeddings.token_type_ids": torch.zeros(1, positions, dtype=torch.long),
    }
    return buffers | read_state_dict(folder)
