"""EnCodec encoding and decoding in bounded memory, over the modules of any library.

Défossez et al., "High Fidelity Neural Audio Compression" (2022): convolutions down to the frame rate, an LSTM, residual
vector quantization (RVQ), where each codebook codes what the ones before it left; and the same backwards. Only the LSTM
reaches beyond a few frames. It runs at the frame rate, where minutes are small, over the whole signal; the convolutions
on its audio side run in chunks. Nothing is approximated.

B batch, C channels, N samples, K codebooks, T frames, D width of an embedding, S seconds (chunks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_weight_norm

from v2m.core.protocols import Codec
from v2m.core.types import CodecSpec

CHUNK_FRAMES = 100
MARGIN_FRAMES = 8  # the published convolutions reach less than 2 frames to each side
OVERLAP_FRAMES = 2  # shared by neighboring chunks of the 48 kHz model
DEFAULT_RMS = 0.1  # root mean square of decoded audio without scales: −20 dBFS


@dataclass(frozen=True)
class CodecModules:
    """The modules of a codec, on one device; layers are in their order."""

    encoder: Sequence[nn.Module]
    decoder: Sequence[nn.Module]
    quantize: Callable[[Tensor], Tensor]  # embeddings (B, D, T) → codes (K, B, T)
    embed: Callable[[Tensor], Tensor]  # codes (K, B, T) → embeddings (B, D, T)
    chunk_frames: int | None = None  # of a model that works on chunks; None for the whole signal
    normalize: bool = False  # each chunk is scaled to unit RMS before encoding


class Chunk(NamedTuple):
    """Frames `start` to `end` of a chunk; the first `skip` of them are not used."""

    start: int
    skip: int
    end: int


def apply_chunked(
    apply: Callable[[Tensor], Tensor], x: Tensor, *, step: int, margin: int, in_stride: int = 1, out_stride: int = 1
) -> Tensor:
    """Compute `apply(x)` along the last dimension from chunks of `step` frames.

    Equal to `apply(x)` where a frame of output depends on at most `margin` frames of input on each side. A frame has
    `in_stride` samples of input, of which the last may lack some, and `out_stride` of output. `apply` takes any number
    of frames and pads at the ends of its input.
    """
    total = -(-x.shape[-1] // in_stride)
    if total <= step + 2 * margin:
        return apply(x)
    parts = []
    for start in range(0, total, step):
        low, end = max(start - margin, 0), start + step
        out = apply(x[..., low * in_stride : (end + margin) * in_stride])
        parts.append(out[..., (start - low) * out_stride : None if end >= total else (end - low) * out_stride])
    return torch.cat(parts, dim=-1)


class EnCodec:
    """EnCodec codec. Frame t of the codes stands for `hop_length` samples from t · `hop_length` on.

    A model that works on chunks (the 48 kHz one: a second at a time) does so here as well, but chunks share two frames,
    where the authors' code has them share a hundredth, which is no whole number of frames: so T stays N / `hop_length`.
    The last chunk ends where the audio does. In an overlap the later chunk's codes win and the audio crossfades.
    """

    def __init__(self, spec: CodecSpec, hop_length: int, codec_modules: CodecModules) -> None:
        self.spec, self.hop_length, self._modules = spec, hop_length, codec_modules
        layers = [*codec_modules.encoder, *codec_modules.decoder]
        self._device = next(value.device for layer in layers for value in layer.parameters())
        self._is_local = not any(isinstance(module, nn.GroupNorm) for layer in layers for module in layer.modules())

    @torch.inference_mode()
    def encode(self, wave: Tensor) -> Tensor:
        """(B, C, N) at the codec's rate, ±1 → codes (B, K, T) int64, T = N / `hop_length` rounded up.

        The loudness is lost where the model normalizes each chunk: see `encode_scaled`.
        """
        return self.encode_scaled(wave)[0]

    @torch.inference_mode()
    def encode_scaled(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Codes as of `encode`, and the scale of each chunk (B, S): ones where the model does not normalize."""
        assert wave.ndim == 3, f"expected (B, C, N), not {tuple(wave.shape)}"
        assert wave.shape[1] == self.spec.channels, f"expected {self.spec.channels} channels, not {wave.shape[1]}"
        assert wave.shape[2] > 0, "there is no sound"
        wave = wave.to(self._device, torch.float32)
        codes: list[Tensor] = []  # (B, K, frames used) of each chunk
        scales: list[Tensor] = []  # (B,) of each chunk
        for start, skip, end in self._chunks(-(-wave.shape[2] // self.hop_length)):
            chunk = wave[..., start * self.hop_length : end * self.hop_length]  # (B, C, n)
            scale = torch.ones(len(wave), device=self._device)
            if self._modules.normalize:
                scale = chunk.mean(dim=1).square().mean(dim=1).sqrt() + 1e-8
            embeddings = self._encode_chunk(chunk / scale[:, None, None])  # (B, D, end − start)
            if codes:  # the last frames of the chunk before are in this one too, whose codes win
                codes[-1] = codes[-1][..., :-OVERLAP_FRAMES]
            codes.append(self._modules.quantize(embeddings).transpose(0, 1)[..., skip:])
            scales.append(scale)
        return torch.cat(codes, dim=2), torch.stack(scales, dim=1)

    @torch.inference_mode()
    def decode(self, codes: Tensor, scales: Tensor | None = None) -> Tensor:
        """Codes (B, K, T) of the first K codebooks → audio (B, C, T · `hop_length`), float32, about ±1.

        `scales` (B, S) are those of `encode_scaled`; without them each chunk of a model that normalizes comes back at
        −20 dBFS.
        """
        self._check_codes(codes)
        codes = codes.to(self._device)
        chunks = self._chunks(codes.shape[2])
        if scales is None:
            level = DEFAULT_RMS if self._modules.normalize else 1.0
            scales = torch.full((len(codes), len(chunks)), level)
        assert scales.shape == (len(codes), len(chunks)), f"{tuple(scales.shape)} scales for {len(chunks)} chunks"
        scales = scales.to(self._device)
        out = torch.zeros(len(codes), self.spec.channels, 0, device=self._device)
        for index, (start, skip, end) in enumerate(chunks):
            wave = self._decode_chunk(codes[..., start:end]) * scales[:, index, None, None]  # (B, C, n)
            out = crossfade(out, wave[..., skip * self.hop_length :], (start + skip) * self.hop_length)
        return out

    def embed(self, codes: Tensor) -> Tensor:
        """Codes (B, K, T) → the quantized embeddings (B, D, T)."""
        return self._modules.embed(codes.to(self._device).transpose(0, 1))

    def _chunks(self, total: int) -> list[Chunk]:
        """Chunks of `total` frames, each used from `OVERLAP_FRAMES` before the end of the one before it.

        The last is moved back to end with the audio. Chunks of 15 frames over 40 (= used, s skipped):

            0 ============= 15
                         13 ============= 28
                                    25 s 26 ========== 40
        """
        length = self._modules.chunk_frames
        if length is None or total <= length:
            return [Chunk(0, 0, total)]
        chunks = [Chunk(0, 0, length)]
        while chunks[-1].end < total:
            used_from = chunks[-1].end - OVERLAP_FRAMES
            start = min(used_from, total - length)
            chunks.append(Chunk(start, used_from - start, start + length))
        return chunks

    def _encode_chunk(self, wave: Tensor) -> Tensor:
        convolutions, recurrent = _split_at_lstm(self._modules.encoder, 0)
        return recurrent(self._apply_chunked(convolutions, wave, in_stride=self.hop_length))

    def _decode_chunk(self, codes: Tensor) -> Tensor:
        recurrent, convolutions = _split_at_lstm(self._modules.decoder, 1)
        return self._apply_chunked(convolutions, recurrent(self.embed(codes)), out_stride=self.hop_length)

    def _apply_chunked(self, apply: Callable[[Tensor], Tensor], x: Tensor, **strides: int) -> Tensor:
        if not self._is_local:  # a group norm makes each frame depend on all
            return apply(x)
        return apply_chunked(apply, x, step=CHUNK_FRAMES, margin=MARGIN_FRAMES, **strides)

    def _check_codes(self, codes: Tensor) -> None:
        assert codes.ndim == 3, f"expected (B, K, T), not {tuple(codes.shape)}"
        spec, count = self.spec, codes.shape[1]
        assert 1 <= count <= spec.num_codebooks, f"{count} of {spec.num_codebooks} codebooks"
        assert codes.shape[2] > 0, "there are no codes"
        assert 0 <= int(codes.min()) <= int(codes.max()) < spec.codebook_size, "no such code"


class InterleavedStereoCodec:
    """Stereo from a mono codec, codebooks interleaved left, right: MusicGen's stereo layout."""

    def __init__(self, codec: Codec) -> None:
        mono = codec.spec
        assert mono.channels == 1, f"a codec of {mono.channels} channels is no mono codec"
        self.codec = codec
        self.spec = CodecSpec(mono.sample_rate, mono.frame_rate, 2 * mono.num_codebooks, mono.codebook_size, channels=2)
        self.hop_length = codec.hop_length

    def encode(self, wave: Tensor) -> Tensor:
        """(B, 2, N) → codes (B, 2K, T)."""
        assert wave.ndim == 3, f"expected (B, 2, N), not {tuple(wave.shape)}"
        assert wave.shape[1] == 2, f"expected 2 channels, not {wave.shape[1]}"
        sides = self.codec.encode(wave.reshape(-1, 1, wave.shape[2]))  # (B · 2, K, T)
        return sides.unflatten(0, (-1, 2)).transpose(1, 2).flatten(1, 2)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, 2K, T) → (B, 2, T · `hop_length`)."""
        assert codes.ndim == 3, f"expected (B, 2K, T), not {tuple(codes.shape)}"
        assert codes.shape[1] % 2 == 0, f"{codes.shape[1]} codebooks are not as many for the left as for the right"
        sides = codes.unflatten(1, (-1, 2)).transpose(1, 2).flatten(0, 1)  # (B · 2, K, T)
        return self.codec.decode(sides).unflatten(0, (-1, 2)).flatten(1, 2)


def fuse_weight_norm(model: nn.Module) -> None:
    """Compute weight-normalized weights once instead of at each call."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
        elif hasattr(module, "weight_g"):
            remove_weight_norm(module)


def _split_at_lstm(layers: Sequence[nn.Module], after: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Split `layers` at the LSTM, which belongs to the first part with `after` 1, to the second with 0."""
    split = next(index for index, layer in enumerate(layers) if hasattr(layer, "lstm")) + after
    return nn.Sequential(*layers[:split]), nn.Sequential(*layers[split:])


def crossfade(before: Tensor, after: Tensor, start: int) -> Tensor:
    """Append `after` (B, C, n) from sample `start` of `before` on; crossfade linearly what both have."""
    shared = before.shape[2] - start  # samples
    ramp = (torch.arange(shared, device=before.device) + 0.5) / max(shared, 1)
    middle = before[..., start:] * (1 - ramp) + after[..., :shared] * ramp
    return torch.cat([before[..., :start], middle, after[..., shared:]], dim=2)
