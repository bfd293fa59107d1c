"""X-Codec, the codec of YuE: 16 kHz mono audio ↔ 50 frames a second of 12 residual codebooks.

Ye et al., "Codec Does Matter" (2024), as fine-tuned for YuE: a convolutional encoder and HuBERT side by side, one
residual quantizer, a convolutional decoder. transformers has the model; the weights are read as YuE published them.

B batch, N samples, K codebooks, T frames, D width of an embedding (1024).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from torch.nn.functional import pad
from transformers import XcodecConfig, XcodecModel

from v2m.core.errors import DependencyError, error_text
from v2m.core.timing import hop_length, seconds_to_samples
from v2m.core.types import CodecSpec
from v2m.mappings import xcodec as convert
from v2m.pretrained.codecs.base import apply_chunked
from v2m.pretrained.safe_load import load_strict, read_json, read_pickle, read_yaml

REPOSITORY = "m-a-p/xcodec_mini_infer"
CONFIG, CHECKPOINT = "final_ckpt/config.yaml", "final_ckpt/ckpt_00360000.pth"
SEMANTIC_CONFIG = "semantic_ckpts/hf_1_325000/config.json"  # HuBERT's weights are in the checkpoint as well
CHUNK_FRAMES = 500
MARGIN_FRAMES = 32  # the encoder reaches 28 frames to each side, the decoder 11
SILENCE_S = 4.0


class XCodec:
    """X-Codec on a device. Frame t of the codes stands for the 320 samples from 320·t on."""

    def __init__(self, model: Any) -> None:
        config = model.config
        rate, frame_rate = config.sample_rate, config.frame_rate
        self.spec = CodecSpec(rate, frame_rate, config.num_quantizers, config.codebook_size, channels=1)
        self.hop_length = hop_length(rate, frame_rate)  # samples a frame
        self.model = model

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> XCodec:
        """Load a copy of `m-a-p/xcodec_mini_infer`."""
        check_files(folder, (CONFIG, CHECKPOINT, SEMANTIC_CONFIG))
        path = folder / CHECKPOINT
        state = read_pickle(path).get("codec_model")  # the rest is training state, and larger: it stays on the disk
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise DependencyError(f"{str(path)!r} holds no 'codec_model': it is not the one of {REPOSITORY}")
        generator = read_yaml(folder / CONFIG).get("generator")
        config = generator.get("config") if isinstance(generator, dict) else None
        if not isinstance(config, dict):
            raise DependencyError(f"{str(folder / CONFIG)!r} holds no generator.config: download it again")
        settings = convert.config_to_transformers(config, read_json(folder / SEMANTIC_CONFIG), state)
        try:
            with torch.device("meta"):
                model: Any = XcodecModel(XcodecConfig(**settings))  # pyright takes the modules of such for tensors
        except (ValueError, TypeError, AttributeError, ZeroDivisionError, StrictDataclassError) as error:
            message = f"the settings of YuE's X-Codec make no model ({error_text(error)}): download them again"
            raise DependencyError(message) from error
        load_strict(model, convert.to_transformers(state), f"YuE's X-Codec ({str(path)!r})", assign=True)
        return cls(model.eval().requires_grad_(False).to(device=device, dtype=dtype))

    @torch.inference_mode()
    def encode(self, wave: Tensor, num_codebooks: int = 8) -> Tensor:
        """(B, 1, N) at 16 kHz, ±1, N ≥ 320 → codes (B, K, T) int64 of the first `num_codebooks`, T = N / 320.

        Where 320 does not divide N, a rest of at least 80 samples makes one more frame, and the acoustic encoder then
        gets the audio 160 samples late, as in the authors' code: give whole frames for the best result. Memory grows
        with N, since HuBERT attends to all of it; the acoustic encoder runs in chunks.
        """
        assert wave.shape == (len(wave), 1, wave.shape[-1]), f"expected (B, 1, N), not {tuple(wave.shape)}"
        assert wave.shape[2] >= self.hop_length, f"{wave.shape[2]} samples are less than a frame"
        assert 1 <= num_codebooks <= self.spec.num_codebooks, f"{num_codebooks} of {self.spec.num_codebooks} codebooks"
        model, half = self.model, self.hop_length // 2
        wave = wave.to(model.device, model.dtype)
        padded = pad(wave, (half, half))
        states = model.semantic_model(padded[:, 0], output_hidden_states=True).hidden_states
        semantic = model.encoder_semantic(torch.stack(states, dim=1).mean(dim=1).mT)  # (B, D_semantic, T)
        acoustic_input = wave if self._acoustic_frames(wave.shape[2]) == semantic.shape[2] else padded
        acoustic = apply_chunked(
            model.acoustic_encoder, acoustic_input, step=CHUNK_FRAMES, margin=MARGIN_FRAMES, in_stride=self.hop_length
        )
        residual = model.fc(torch.cat([acoustic, semantic], dim=1).mT).mT  # (B, D, T)
        codes = []
        for quantizer in model.quantizer.quantizers[:num_codebooks]:
            codes.append(quantizer.encode(residual))
            residual = residual - quantizer.decode(codes[-1])
        return torch.stack(codes, dim=1)

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, K, T) of the first K codebooks → audio (B, 1, T · 320) at 16 kHz, float32, about ±1."""
        return apply_chunked(self._decode, codes, step=CHUNK_FRAMES, margin=MARGIN_FRAMES, out_stride=self.hop_length)

    @torch.inference_mode()
    def embed(self, codes: Tensor) -> Tensor:
        """Codes (B, K, T) → the sum of their codebook vectors (B, D, T), the input of the Vocos vocoders."""
        return self._embed(codes).float()

    def silence_codes(self, num_codebooks: int = 8) -> Tensor:
        """Codes (K,) int64 that digital silence is most often encoded to, one per codebook."""
        zeros = torch.zeros(1, 1, seconds_to_samples(SILENCE_S, self.spec.sample_rate))
        return self.encode(zeros, num_codebooks)[0].cpu().mode(dim=1).values

    def _acoustic_frames(self, samples: int) -> int:
        for stride in convert.STRIDES:
            samples = (samples + 2 * ((stride + 1) // 2) - 2 * stride) // stride + 1
        return samples

    def _embed(self, codes: Tensor) -> Tensor:
        assert codes.ndim == 3, f"expected (B, K, T), not {tuple(codes.shape)}"
        assert codes.shape[1] <= self.spec.num_codebooks, f"{codes.shape[1]} of {self.spec.num_codebooks} codebooks"
        assert codes.numel() == 0 or 0 <= int(codes.min()) <= int(codes.max()) < self.spec.codebook_size, "no such code"
        return self.model.quantizer.decode(codes.to(self.model.device).transpose(0, 1))

    def _decode(self, codes: Tensor) -> Tensor:
        return self.model.acoustic_decoder(self.model.fc2(self._embed(codes).mT).mT).float()


def check_files(folder: Path, names: Sequence[str]) -> None:
    """Raise DependencyError, naming them, where `folder` lacks some of the files `names`."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DependencyError(f"{str(folder)!r} lacks {', '.join(missing)}: it should be a copy of {REPOSITORY}")
