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
from v2m.evaluation.embedder import Heard, mono, windows
from v2m.evaluation.embedders.base import BATCH, CPU, Pretrained, array, exact, extractor, heard
from v2m.media.audio import resample
from v2m.pretrained import transformers_loader

FILES = ("config.json", "model.safetensors|pytorch_model.bin", "preprocessor_config.json")
LICENSE = "bsd-3-clause"
HOP = 0.01  # seconds from one frame of its spectrogram to the next, of which a window has max_length
SHORTEST = 0.025  # seconds of one


class Ast(Pretrained):
    """Hears, and tells classes apart."""

    files, license = FILES, LICENSE

    def __init__(self, source: str = "MIT/ast-finetuned-audioset-10-10-0.4593", device: str = "auto") -> None:
        super().__init__(source, device)

    @torch.inference_mode()
    def hear(self, audio: Audio) -> Heard:
        """Pooled states (W, D); classes (W, K) as softmax of the logits, as the field has it, though the classes of
        AudioSet do not exclude each other."""
        with self._held.model() as (model, prepared):
            rate = prepared.sampling_rate
            pieces = windows(mono(resample(audio, rate)), round(prepared.max_length * HOP * rate))
            least = round(SHORTEST * rate)
            pieces = [np.pad(each, (0, max(0, least - len(each)))) for each in pieces]
            states, classes = [], []
            for start in range(0, len(pieces), BATCH):
                given = prepared(pieces[start : start + BATCH], sampling_rate=rate, return_tensors="pt")
                found = model.audio_spectrogram_transformer(given["input_values"].to(model.device)).pooler_output
                states.append(array(found))
                classes.append(array(model.classifier(found).softmax(dim=-1)))
            return heard(np.concatenate(states), self.name, np.concatenate(classes))

    def _load(self, folder: Path) -> tuple[Any, Any]:
        model = transformers_loader.load_model(ASTForAudioClassification, folder, CPU, description="audio classifier")
        return exact(model, self._device), extractor(ASTFeatureExtractor, folder, "the audio classifier")
