"""EnCodec's way from sound to codes and back, whoever's modules do it, in memory that hardly grows with the sound.

Défossez et al., "High Fidelity Neural Audio Compression" (2022): convolutions down to the frame rate, a recurrent
layer, a residual quantiser; and the same backwards. Only the recurrent layer remembers more than a few frames. It runs
at the frame rate, where minutes are small, so it is given all of them, and the convolutions on its far side go in
pieces: nothing is approximated.

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

CHUNK_FRAMES = 100  # frames at a time
MARGIN_FRAMES = 8  # frames: the published convolutions hear less than 2 to each side
OVERLAP_FRAMES = 2  # frames that chunks share
DEFAULT_RMS = 0.1  # root mean square at which sound comes back whose loudness is not told: −20 dBFS


@dataclass(frozen=True)
class CodecModules:
    """The parts of a model, on one device.

    Args:
        encoder, decoder: Layers in their order.
        quantize: Embeddings (B, D, T) → codes (K, B, T).
        embed: Codes (K, B, T) → embeddings (B, D, T).
        chunk: Frames that the model works on at a time; None for all.
        normalize: Whether each chunk is brought to one loudness before.
    """

    encoder: Sequence[nn.Module]
    decoder: Sequence[nn.Module]
    quantize: Callable[[Tensor], Tensor]
    embed: Callable[[Tensor], Tensor]
    chunk_frames: int | None = None
    normalize: bool = False


class EnCodec:
    """One codec. Frame t of the codes stands for `hop` samples from t · `hop` on.

    A model that works on chunks (the 48 kHz one: a second at a time) does so here as well, but chunks share two frames,
    where the authors' code has them share a hundredth, which is no whole number of frames: so T stays N / `hop`. The
    last chunk ends where the sound does. Where two meet, the later one's codes are kept, and their sounds cross-fade.
    """

    def __init__(self, spec: CodecSpec, hop_length: int, codec_modules: CodecModules) -> None:
        self.spec = spec
        self.hop_length = hop_length
        self._modules = codec_modules
        modules = [*codec_modules.encoder, *codec_modules.decoder]
        self._device = next(value.device for each in modules for value in each.parameters())
        self._is_local = not any(isinstance(each, nn.GroupNorm) for module in modules for each in module.modules())

    @torch.inference_mode()
    def encode(self, wave: Tensor) -> Tensor:
        """(B, C, N) at the codec's rate, ±1 → codes (B, K, T) int64, T = N / `hop` rounded up.

        How loud the sound is goes unsaid where the model brings it to one loudness first: see `encode_scaled`.
        """
        return self.encode_scaled(wave)[0]

    @torch.inference_mode()
    def encode_scaled(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Codes as of `encode`, and what each chunk was divided by (B, S): ones where the model does no such thing."""
        assert wave.ndim == 3, f"expected (B, C, N), not {tuple(wave.shape)}"
        assert wave.shape[1] == self.spec.channels, f"expected {self.spec.channels} channels, not {wave.shape[1]}"
        assert wave.shape[2] > 0, "there is no sound"
        wave = wave.to(self._device, torch.float32)
        codes, scales, known = [], [], 0
        for start, skip, end in self._chunks(-(-wave.shape[2] // self.hop_length)):
            part = wave[..., start * self.hop_length : end * self.hop_length]
            scale = torch.ones(len(wave), device=self._device)
            if self._modules.normalize:
                scale = part.mean(dim=1).square().mean(dim=1).sqrt() + 1e-8
            found = self._modules.quantize(self._encode_chunk(part / scale[:, None, None])).transpose(0, 1)
            if codes:
                codes[-1] = codes[-1][..., : codes[-1].shape[2] - (known - start - skip)]
            codes.append(found[..., skip:])
            scales.append(scale)
            known = end
        return torch.cat(codes, dim=2), torch.stack(scales, dim=1)

    @torch.inference_mode()
    def decode(self, codes: Tensor, scales: Tensor | None = None) -> Tensor:
        """Codes (B, K, T) of the first K codebooks → sound (B, C, T · `hop`), float32, about ±1.

        `scales` (B, S) are those of `encode_scaled`; without them each chunk of a model that brings sound to one
        loudness comes back at −20 dBFS.
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
        for number, (start, skip, end) in enumerate(chunks):
            found = self._decode_chunk(codes[..., start:end]) * scales[:, number, None, None]
            out = _crossfade(out, found[..., skip * self.hop_length :], (start + skip) * self.hop_length)
        return out

    def _chunks(self, total: int) -> list[tuple[int, int, int]]:
        """(start, skip, end) in frames of each chunk of `total` ones; from start + skip on it is used."""
        length = self._modules.chunk_frames
        if length is None or total <= length:
            return [(0, 0, total)]
        found, end = [(0, 0, length)], length
        while end < total:
            start = min(end - OVERLAP_FRAMES, total - length)
            found.append((start, end - OVERLAP_FRAMES - start, start + length))
            end = start + length
        return found

    def _encode_chunk(self, wave: Tensor) -> Tensor:
        """(B, C, N) → (B, D, T)."""
        far, near = _split_at_lstm(self._modules.encoder, 0)
        return near(self._apply_chunked(far, wave, in_stride=self.hop_length))

    def _decode_chunk(self, codes: Tensor) -> Tensor:
        """(B, K, T) → (B, C, T · hop)."""
        near, far = _split_at_lstm(self._modules.decoder, 1)
        return self._apply_chunked(far, near(self._modules.embed(codes.transpose(0, 1))), out_stride=self.hop_length)

    def _apply_chunked(
        self, apply: Callable[[Tensor], Tensor], x: Tensor, *, in_stride: int = 1, out_stride: int = 1
    ) -> Tensor:
        if not self._is_local:  # each frame depends on the loudness of all
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
    """A mono codec used for the left and the right: its first codebook of the left, of the right, its second, …

    As MusicGen's stereo models have it (audiocraft's `InterleaveStereoCompressionModel`).
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
        """Codes (B, 2K, T) → (B, 2, T · `hop`)."""
        assert codes.ndim == 3, f"expected (B, 2K, T), not {tuple(codes.shape)}"
        assert codes.shape[1] % 2 == 0, f"{codes.shape[1]} codebooks are not as many for the left as for the right"
        sides = codes.unflatten(1, (-1, 2)).transpose(1, 2).flatten(0, 1)  # (B · 2, K, T)
        return self.codec.decode(sides).unflatten(0, (-1, 2)).flatten(1, 2)


def fuse_weight_norm(model: nn.Module) -> None:
    """Computes weights under weight norm once and for all, instead of at each call."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
        elif hasattr(module, "weight_g"):
            remove_weight_norm(module)


def _split_at_lstm(layers: Sequence[nn.Module], after: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Before and behind the recurrent layer, which belongs to the first part with `after` 1, to the second with 0."""
    at = next(index for index, layer in enumerate(layers) if hasattr(layer, "lstm")) + after
    return nn.Sequential(*layers[:at]), nn.Sequential(*layers[at:])


def _crossfade(before: Tensor, after: Tensor, start: int) -> Tensor:
    """`after` from `start` on, into which `before` fades over what they share."""
    shared = before.shape[2] - start
    ramp = (torch.arange(shared, device=before.device) + 0.5) / max(shared, 1)
    middle = before[..., start:] * (1 - ramp) + after[..., :shared] * ramp
    return torch.cat([before[..., :start], middle, after[..., shared:]], dim=2)
