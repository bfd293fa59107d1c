"""T5's encoder, the text encoder of MusicGen.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2019); MusicGen's is
`t5-base`. transformers has the model.

B batch, L tokens of the longest text, D dimension of a token.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5EncoderModel, T5Tokenizer

from v2m.core.errors import DependencyError
from v2m.models.conditioning import Condition
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import check_finite, read_state_dict

logger = logging.getLogger(__name__)

MAX_TOKENS = 512  # as in T5's training


class T5TextEncoder:
    """The encoder on a device, in float32: in float16 T5 overflows. `dim` is D."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.dim: int = model.config.d_model
        self._model = model
        self._tokenizer = tokenizer

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        *,
        tokenizer: Path | None = None,
        config: Mapping[str, Any] | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> T5TextEncoder:
        """Load a folder in transformers' layout, of the encoder alone or of all T5, whose decoder is skipped.

        Args:
            folder: Holds config.json, weights and the tokenizer.
            device: The target device.
            tokenizer: The folder of the tokenizer, if another one.
            config, state: Replace the files, for an encoder stored inside another model's checkpoint.

        Raises:
            DependencyError: The folder holds another kind of model, or files are missing, broken or do not fit.
        """
        state = read_state_dict(folder) if state is None else state
        state = {name: value for name, value in state.items() if not name.startswith(("decoder.", "lm_head."))}
        check_finite(state, f"T5 ({str(folder)!r})")
        cpu = torch.device("cpu")  # where weights keep all their digits
        model: Any = transformers_loader.load_model(
            T5EncoderModel, folder, cpu, description="T5 encoder", config=config, state=state
        )
        words = transformers_loader.load_tokenizer(
            T5Tokenizer, tokenizer or folder, ("tokenizer.json", "spiece.model"), "T5"
        )
        rows = model.get_input_embeddings().num_embeddings
        if len(words) > rows:
            raise DependencyError(
                f"the tokenizer in {str(tokenizer or folder)!r} has {len(words)} tokens, T5 only {rows}"
            )
        return cls(model.to(device=device, dtype=torch.float32), words)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Condition:
        """Encode texts to tokens (B, L, D), zeros where masked.

        The end of a text is a token too; a text of white space alone has no tokens, as in MusicGen. A text of more
        than 512 tokens is cut, with a warning.
        """
        assert texts, "there are no texts"
        lengths = [len(ids) for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]]
        for length in lengths:
            if length > MAX_TOKENS:
                logger.warning("a text of %d tokens is cut to the %d that T5 reads", length, MAX_TOKENS)
        inputs = self._tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        inputs = inputs.to(self._model.device)
        tokens = self._model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        nonempty = torch.tensor([bool(text.strip()) for text in texts], device=tokens.device)
        mask = inputs["attention_mask"].bool() & nonempty[:, None]
        return Condition(tokens * mask[..., None], mask)
