"""The Audio Spectrogram Transformer, a classifier of AudioSet's 527 classes.

Gong et al., "AST: Audio Spectrogram Transformer" (2021). W windows of at most 10.24 s, D dimensions, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from v2m.core.types import Audio
from v2m.evaluation.embedders import AudioEmbedding, pretrained, split_windows, to_mono
from v2m.evaluation.embedders.pretrained import BATCH_SIZE, HFEmbedder, to_numpy
from v2m.media.audio import resample
from v2m.pretrained import transformers_loader

FRAME_HOP_S = 0.01  # seconds from one frame of its spectrogram to the next, of which a window has max_length
MIN_AUDIO_S = 0.025  # seconds of one frame


class AstEmbedder(HFEmbedder):
    """AST's pooled states and class probabilities."""

    files = ("config.json", "model.safetensors|pytorch_model.bin", "preprocessor_config.json")
    license = "bsd-3-clause"

    def __init__(self, source: str = "MIT/ast-finetuned-audioset-10-10-0.4593", device: str = "auto") -> None:
        super().__init__(source, device)

    @torch.inference_mode()
    def embed_audio(self, audio: Audio) -> AudioEmbedding:
        """Pooled states (W, D) and, as in the field's KL measures, a softmax of the logits (W, K)."""
        with self._lazy_model.model() as (model, extractor):
            rate = extractor.sampling_rate
            windows = split_windows(to_mono(resample(audio, rate)), round(extractor.max_length * FRAME_HOP_S * rate))
            min_length = round(MIN_AUDIO_S * rate)
            windows = [np.pad(window, (0, max(0, min_length - len(window)))) for window in windows]
            states, class_probs = [], []
            for start in range(0, len(windows), BATCH_SIZE):
                inputs = extractor(windows[start : start + BATCH_SIZE], sampling_rate=rate, return_tensors="pt")
                state = model.audio_spectrogram_transformer(inputs["input_values"].to(model.device)).pooler_output
                states.append(to_numpy(state))
                class_probs.append(to_numpy(model.classifier(state).softmax(dim=-1)))
            return pretrained.join_batches(states, self.name, class_probs)

    def _load(self) -> tuple[Any, Any]:
        folder = self._weights_folder()
        kind, description = ASTForAudioClassification, "audio classifier"
        model = transformers_loader.load_model(kind, folder, pretrained.CPU, description=description)
        extractor = pretrained.load_extractor(ASTFeatureExtractor, folder, "the audio classifier")
        return self._place(model), extractor
