"""Frozen text encoders: T5, MusicGen's, and the text branch of CLAP, SONIQUE's.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2019); MusicGen's is
`t5-base`. Wu et al., "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption
Augmentation" (2023).

B batch, L tokens of the longest text, S tokens of every text of CLAP (77), D dimension of a token.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import RobertaModel, RobertaTokenizer, T5EncoderModel, T5Tokenizer

from v2m.core.errors import DependencyError
from v2m.mappings.state_dict_map import count_indices, strip_prefix
from v2m.models.conditioning import Condition
from v2m.pretrained.safe_load import check_finite, read_pickle, read_state_dict
from v2m.pretrained.transformers_loader import CPU, load_model, load_tokenizer

logger = logging.getLogger(__name__)

T5_MAX_TOKENS = 512  # as in T5's training
CLAP_MAX_TOKENS = 77  # every text is padded to so many
HEAD_DIM = 64  # of every RoBERTa
WRAPPER_PREFIX, BRANCH_PREFIX = "module.", "text_branch."
UNUSED_BUFFER = "embeddings.position_ids"  # saved by older libraries


class T5TextEncoder:
    """T5's encoder on a device, in float32: in float16 T5 overflows. `dim` is D."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.dim: int = model.config.d_model
        self._model, self._tokenizer = model, tokenizer

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

        `tokenizer` is the folder of the tokenizer, if another one.
        """
        state = read_state_dict(folder) if state is None else state
        state = {name: value for name, value in state.items() if not name.startswith(("decoder.", "lm_head."))}
        check_finite(state, f"T5 ({str(folder)!r})")
        model: Any = load_model(T5EncoderModel, folder, CPU, description="T5 encoder", config=config, state=state)
        t5_tokenizer = _load_tokenizer(T5Tokenizer, tokenizer or folder, "spiece.model", model, "T5")
        return cls(model.to(device=device, dtype=torch.float32), t5_tokenizer)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Condition:
        """Encode texts to tokens (B, L, D), zeros where masked.

        The end of a text is a token too; a text of white space alone has no tokens, as in MusicGen. A text of more
        than 512 tokens is cut, with a warning.
        """
        assert texts, "there are no texts"
        tokens, mask = _hidden_states(self._model, self._tokenizer, texts, T5_MAX_TOKENS, "T5", padding=True)
        nonempty = torch.tensor([bool(text.strip()) for text in texts], device=tokens.device)
        mask = mask & nonempty[:, None]
        return Condition(tokens * mask[..., None], mask)


class ClapTextEncoder:
    """CLAP's text encoder on a device, in float32. `dim` is D, `max_tokens` S.

    Diffusion models read the hidden states of one of its layers per token, not the pooled embedding.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self._tokenizer = model, tokenizer
        self.dim: int = model.config.hidden_size
        self.max_tokens = CLAP_MAX_TOKENS

    @classmethod
    def load(cls, path: Path, tokenizer: Path, *, layer: int) -> ClapTextEncoder:
        """Load a checkpoint in laion_clap's format, without the layers above `layer`.

        It is a pickle with a `state_dict`, whose keys may begin with `module.`; `tokenizer` is a folder with RoBERTa's.
        Layer 1 is the first layer's hidden state, −1 the last's, −2 the one before it.
        """
        branch = _text_branch(path)
        layers = count_indices(branch, "encoder.layer.N.output.dense.weight")
        num_kept = layer if layer >= 0 else layers + 1 + layer
        if not 1 <= num_kept <= layers:
            raise DependencyError(f"the text branch in {str(path)!r} has {layers} layers, and no hidden state {layer}")
        unused = (UNUSED_BUFFER, *(f"encoder.layer.{n}." for n in range(num_kept, layers)))
        branch = {name: value for name, value in branch.items() if not name.startswith(unused)}
        check_finite(branch, f"CLAP's text branch ({str(path)!r})")
        settings, name = _roberta_config(branch, num_kept, path), "text branch of CLAP"
        model: Any = load_model(RobertaModel, path, CPU, description=name, config=settings, state=branch)
        return cls(model.float(), _load_tokenizer(RobertaTokenizer, tokenizer, "vocab.json", model, "CLAP"))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Condition:
        """Hidden states (B, S, D) with a padding mask; a text of more than 77 tokens is cut, with a warning.

        The states at padding are returned too: the models that read them were trained with those.
        """
        states = _hidden_states(self.model, self._tokenizer, texts, CLAP_MAX_TOKENS, "CLAP", padding="max_length")
        return Condition(*states)


def _load_tokenizer(tokenizer_class: Any, folder: Path, vocabulary: str, model: Any, description: str) -> Any:
    tokenizer = load_tokenizer(tokenizer_class, folder, ("tokenizer.json", vocabulary), description)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise DependencyError(
            f"the tokenizer in {str(folder)!r} has {len(tokenizer)} tokens, {description} only {rows}: give the "
            "tokenizer of the same model"
        )
    return tokenizer


def _hidden_states(
    model: Any, tokenizer: Any, texts: Sequence[str], max_tokens: int, description: str, *, padding: bool | str
) -> tuple[Tensor, Tensor]:
    """Hidden states (B, L, D) of the last layer, and the padding mask (B, L) bool."""
    for ids in tokenizer(list(texts), verbose=False)["input_ids"]:
        if len(ids) > max_tokens:
            logger.warning("a text of %d tokens is cut to the %d that %s reads", len(ids), max_tokens, description)
    inputs = tokenizer(list(texts), padding=padding, truncation=True, max_length=max_tokens, return_tensors="pt")
    inputs = inputs.to(model.device)
    states = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    return states, inputs["attention_mask"].bool()


def _text_branch(path: Path) -> dict[str, Tensor]:
    state = read_pickle(path)
    state = state.get("state_dict", state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r} holds no state dict: it is not a checkpoint of CLAP")
    plain = {name.removeprefix(WRAPPER_PREFIX): value for name, value in state.items()}
    branch = strip_prefix(BRANCH_PREFIX, plain)
    if not branch:
        raise DependencyError(f"{str(path)!r} has no text branch: it is not a checkpoint of CLAP")
    return branch


def _roberta_config(branch: dict[str, Tensor], layers: int, path: Path) -> dict[str, Any]:
    """RoBERTa's config in transformers, by the shapes of the weights: the checkpoint holds no other."""
    try:
        rows, width = branch["embeddings.word_embeddings.weight"].shape
        return {
            "model_type": "roberta",
            "vocab_size": rows,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": max(width // HEAD_DIM, 1),
            "intermediate_size": branch["encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": branch["embeddings.position_embeddings.weight"].shape[0],
            "type_vocab_size": branch["embeddings.token_type_embeddings.weight"].shape[0],
            "layer_norm_eps": 1e-5,
        }
    except (KeyError, ValueError) as error:
        raise DependencyError(f"the text branch in {str(path)!r} is no RoBERTa (it lacks {error})") from error
