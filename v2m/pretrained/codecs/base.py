"""EnCodec encoding and decoding in bounded memory, over the modules of any library.

Défossez et al., "High Fidelity Neural Audio Compression" (2022): convolutions down to the frame rate, a recurrent
layer, a residual quantiser; and the same backwards. Only the recurrent layer reaches beyond a few frames. It runs at
the frame rate, where minutes are small, over the whole signal; the convolutions on its audio side run in chunks.
Nothing is approximated.

B batch, C channels, N samples, K codebooks, T frames, D width of an embedding, S seconds (chunks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, remove_weight_norm

from v2m.core.protocols import Codec
from v2m.core.types import CodecSpec
from v2m.pretrained.codecs.chunking import apply_chunked

CHUNK_FRAMES = 100
MARGIN_FRAMES = 8  # the published convolutions reach less than 2 frames to each side
OVERLAP_FRAMES = 2  # shared by neighboring chunks of the 48 kHz model
DEFAULT_RMS = 0.1  # root mean square of decoded audio without scales: −20 dBFS


@dataclass(frozen=True)
class CodecModules:
    """The modules of a codec, on one device.

    Args:
        encoder, decoder: Layers in their order.
        quantize: Embeddings (B, D, T) → codes (K, B, T).
        embed: Codes (K, B, T) → embeddings (B, D, T).
        chunk_frames: Frames per chunk of a model that works on chunks; None for the whole signal.
        normalize: Each chunk is scaled to unit RMS before encoding.
    """

    encoder: Sequence[nn.Module]
    decoder: Sequence[nn.Module]
    quantize: Callable[[Tensor], Tensor]
    embed: Callable[[Tensor], Tensor]
    chunk_frames: int | None = None
    normalize: bool = False


class EnCodec:
    """EnCodec codec. Frame t of the codes stands for `hop_length` samples from t · `hop_length` on.

    A model that works on chunks (the 48 kHz one: a second at a time) does so here as well, but chunks share two frames,
    where the authors' code has them share a hundredth, which is no whole number of frames: so T stays N / `hop_length`.
    The last chunk ends where the audio does. In an overlap the later chunk's codes win and the audio crossfades.
    """

    def __init__(self, spec: CodecSpec, hop_length: int, codec_modules: CodecModules) -> None:
        self.spec = spec
        self.hop_length = hop_length
        self._modules = codec_modules
        layers = [*codec_modules.encoder, *codec_modules.decoder]
        self._device = next(value.device for layer in layers for value in layer.parameters())
        self._is_local = not any(isinstance(module, nn.GroupNorm) for layer in layers for module in layer.modules())

    @torch.inference_mode()
    def encode(self, wave: Tensor) -> Tensor:
        """(B, C, N) at the codec's rate, ±1 → codes (B, K, T) int64, T = N / `hop_length` rounded up.

        The loudness is lost where the model normalizes it first: see `encode_scaled`.
        """
        return self.encode_scaled(wave)[0]

    @torch.inference_mode()
    def encode_scaled(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Codes as of `encode`, and the scale of each chunk (B, S): ones where the model does not normalize."""
        assert wave.ndim == 3, f"expected (B, C, N), not {tuple(wave.shape)}"
        assert wave.shape[1] == self.spec.channels, f"expected {self.spec.channels} channels, not {wave.shape[1]}"
        assert wave.shape[2] > 0, "there is no sound"
        wave = wave.to(self._device, torch.float32)
        codes, scales, encoded_until = [], [], 0
        for start, skip, end in self._chunks(-(-wave.shape[2] // self.hop_length)):
            chunk = wave[..., start * self.hop_length : end * self.hop_length]
            scale = torch.ones(len(wave), device=self._device)
            if self._modules.normalize:
                scale = chunk.mean(dim=1).square().mean(dim=1).sqrt() + 1e-8
            chunk_codes = self._modules.quantize(self._encode_chunk(chunk / scale[:, None, None])).transpose(0, 1)
            if codes:  # the frames from start + skip to encoded_until are in both chunks: the later one's codes win
                codes[-1] = codes[-1][..., : codes[-1].shape[2] - (encoded_until - start - skip)]
            codes.append(chunk_codes[..., skip:])
            scales.append(scale)
            encoded_until = end
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
            wave = self._decode_chunk(codes[..., start:end]) * scales[:, index, None, None]
            out = _crossfade(out, wave[..., skip * self.hop_length :], (start + skip) * self.hop_length)
        return out

    def _chunks(self, total: int) -> list[tuple[int, int, int]]:
        """(start, skip, end) of each chunk in frames, of `total`; the chunk is used from start + skip on."""
        length = self._modules.chunk_frames
        if length is None or total <= length:
            return [(0, 0, total)]
        chunks, end = [(0, 0, length)], length
        while end < total:
            start = min(end - OVERLAP_FRAMES, total - length)
            chunks.append((start, end - OVERLAP_FRAMES - start, start + length))
            end = start + length
        return chunks

    def _encode_chunk(self, wave: Tensor) -> Tensor:
        """(B, C, N) → (B, D, T)."""
        convolutions, recurrent = _split_at_lstm(self._modules.encoder, 0)
        return recurrent(self._apply_chunked(convolutions, wave, in_stride=self.hop_length))

    def _decode_chunk(self, codes: Tensor) -> Tensor:
        """(B, K, T) → (B, C, T · hop)."""
        recurrent, convolutions = _split_at_lstm(self._modules.decoder, 1)
        return self._apply_chunked(
            convolutions, recurrent(self._modules.embed(codes.transpose(0, 1))), out_stride=self.hop_length
        )

    def _apply_chunked(
        self, apply: Callable[[Tensor], Tensor], x: Tensor, *, in_stride: int = 1, out_stride: int = 1
    ) -> Tensor:
        if not self._is_local:  # a group norm makes each frame depend on all
            return apply(x)
        return apply_chunked(
            apply, x, step=CHUNK_FRAMES, margin=MARGIN_FRAMES, in_stride=in_stride, out_stride=out_stride
        )

    def _check_codes(self, codes: Tensor) -> None:
        assert codes.ndim == 3, f"expected (B, K, T), not {tuple(codes.shape)}"
        assert 1 <= codes.shape[1] <= self.spec.num_codebooks, (
            f"{codes.shape[1]} of {self.spec.num_codebooks} codebooks"
        )
        assert codes.shape[2] > 0, "there are no codes"
        assert 0 <= int(codes.min()) <= int(codes.max()) < self.spec.codebook_size, "no such code"


class InterleavedStereoCodec:
    """Stereo from a mono codec: codebooks interleaved left, right, left, right.

    The layout of MusicGen's stereo models (audiocraft's `InterleaveStereoCompressionModel`).
    """

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


def _crossfade(before: Tensor, after: Tensor, start: int) -> Tensor:
    """Append `after`, whose first sample is number `start`; the samples in both crossfade linearly."""
    shared = before.shape[2] - start
    ramp = (torch.arange(shared, device=before.device) + 0.5) / max(shared, 1)
    middle = before[..., start:] * (1 - ramp) + after[..., :shared] * ramp
    return torch.cat([before[..., :start], middle, after[..., shared:]], dim=2)
