"""Style of an excerpt for MusicGen-Style: a frozen encoder, then the model's style conditioner."""

from __future__ import annotations

import torch

from v2m.checkpoints import V2M
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Audio
from v2m.models.conditioning import Condition
from v2m.models.style_conditioner import StyleConditioner
from v2m.pretrained.codecs.encodec import EnCodec, load_encodec
from v2m.pretrained.mert import Mert


class StyleEncoder:
    """Style conditioner and its frozen encoder on a device.

    They are in float32 whatever the language model's precision: rounding makes codes flip.
    """

    def __init__(self, conditioner: StyleConditioner, encoder: Mert | EnCodec, device: torch.device) -> None:
        self._conditioner = conditioner.to(device, torch.float32).eval()
        self._encoder, self._device = encoder, device

    @classmethod
    def load(cls, model: V2M, conditioner: StyleConditioner, device: torch.device) -> StyleEncoder:
        """Load the frozen encoder of the `model`'s `conditioner`; DependencyError where it has other sizes."""
        component, config = model.component("style_encoder"), conditioner.config
        assert component.folder is not None, "a component that was asked for has been fetched"
        load = Mert.load if config.encoder == "mert" else load_encodec
        encoder = load(component.folder, device, config=component.config, state=component.state)
        if isinstance(encoder, Mert):
            fits = encoder.dim == config.feature_dim
        else:
            spec = encoder.spec
            fits = spec.codebook_size == config.feature_dim and spec.num_codebooks >= config.feature_codebooks
            fits = fits and (spec.sample_rate, spec.channels) == (model.sample_rate, 1)
        if not fits:
            name = component.name or component.folder
            raise DependencyError(f"the style conditioner does not fit {name}: give the encoder it was trained with")
        return cls(conditioner, encoder, device)

    @torch.inference_mode()
    def encode(self, excerpt: Audio, eval_q: int | None) -> Condition:
        """Return the style (1, S, D) of an excerpt at the music model's rate, by the first `eval_q` codebooks."""
        wave = torch.from_numpy(excerpt.samples.mean(axis=0)[None]).float()  # (1, N)
        if isinstance(self._encoder, Mert):
            features = self._encoder.encode(wave, excerpt.sample_rate)
        else:
            features = self._encoder.encode(wave[:, None])
        return Condition.from_tokens(self._conditioner(features, eval_q))

    def check_eval_q(self, eval_q: int | None) -> None:
        """Raise UsageError where the quantizer has fewer codebooks."""
        count = self._conditioner.config.num_quantizers
        if eval_q is not None and eval_q > count:
            raise UsageError(f"eval_q {eval_q} is more than the {count} codebooks of the style conditioner")

    def num_quantizers(self, eval_q: int | None) -> int:
        """Return the number of codebooks in use, for the sidecar; 0 where the conditioner has none."""
        config = self._conditioner.config
        return min(eval_q or config.eval_quantizers, config.num_quantizers)
