"""The Audio Spectrogram Transformer, which tells the 527 classes of AudioSet apart.

Gong et al., "AST: Audio Spectrogram Transformer" (2021). W windows of at most 10.24 s, D numbers, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from v2m.core.types import Audio
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

FILES = ("config.json", "model.safetensors|pytorch_model.bin", "preprocessor_config.json")
LICENSE = "bsd-3-clause"
FRAME_HOP_S = 0.01  # seconds from one frame of its spectrogram to the next, of which a window has max_length
MIN_FRAME_S = 0.025  # seconds of one


class AstEmbedder(HFEmbedder):
    """Hears, and tells classes apart."""

    files, license = FILES, LICENSE

    def __init__(self, source: str = "MIT/ast-finetuned-audioset-10-10-0.4593", device: str = "auto") -> None:
        super().__init__(source, device)

    @torch.inference_mode()
    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """Pooled states (W, D); classes (W, K) as softmax of the logits, as the field has it, though the classes of
        AudioSet do not exclude each other."""
        with self._lazy_model.model() as (model, prepared):
            rate = prepared.sampling_rate
            pieces = split_windows(to_mono(resample(audio, rate)), round(prepared.max_length * FRAME_HOP_S * rate))
            least = round(MIN_FRAME_S * rate)
            pieces = [np.pad(each, (0, max(0, least - len(each)))) for each in pieces]
            states, classes = [], []
            for start in range(0, len(pieces), BATCH_SIZE):
                given = prepared(pieces[start : start + BATCH_SIZE], sampling_rate=rate, return_tensors="pt")
                found = model.audio_spectrogram_transformer(given["input_values"].to(model.device)).pooler_output
                states.append(to_numpy(found))
                classes.append(to_numpy(model.classifier(found).softmax(dim=-1)))
            return to_audio_embedding(np.concatenate(states), self.name, np.concatenate(classes))

    def _load(self, folder: Path) -> tuple[Any, Any]:
        model = transformers_loader.load_model(ASTForAudioClassification, folder, CPU, description="audio classifier")
        return to_float32(model, self._device), load_extractor(ASTFeatureExtractor, folder, "the audio classifier")
