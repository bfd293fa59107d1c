"""CLAP's text encoder: RoBERTa from transformers with the weights that LAION published.

Wu et al., "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption Augmentation"
(2023). Diffusion models read the hidden states of one of its layers per token, not the pooled embedding.

B batch, S tokens (77), D their dimension.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import RobertaModel, RobertaTokenizer

from v2m.core.errors import DependencyError
from v2m.mappings.state_dict_map import count_indices
from v2m.models.conditioning import Condition
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import check_finite, read_pickle

logger = logging.getLogger(__name__)

MAX_TOKENS = 77  # every text is padded to so many
HEAD_DIM = 64  # of every RoBERTa
WRAPPER_PREFIX, BRANCH_PREFIX = "module.", "text_branch."
UNUSED_BUFFER = "embeddings.position_ids"  # saved by older libraries


class ClapTextEncoder:
    """The text encoder on a device, in float32. `dim` is D, `max_tokens` S."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self._tokenizer = model, tokenizer
        self.dim: int = model.config.hidden_size
        self.max_tokens = MAX_TOKENS

    @classmethod
    def load(cls, path: Path, tokenizer: Path, *, layer: int) -> ClapTextEncoder:
        """Load a checkpoint in laion_clap's format, without the layers above `layer`.

        Args:
            path: A pickle with a `state_dict`, whose keys may begin with `module.`.
            tokenizer: A folder with RoBERTa's.
            layer: Index of the hidden state to return: 1 is the first layer's, −1 the last's, −2 the one before it.

        Raises:
            DependencyError: Files are missing, broken, or of another model; says which.
        """
        state = read_pickle(path)
        state = state.get("state_dict", state)
        branch = _text_branch(state, path)
        layers = count_indices(branch, "encoder.layer.N.output.dense.weight")
        num_kept = layer if layer >= 0 else layers + 1 + layer
        if not 1 <= num_kept <= layers:
            raise DependencyError(f"the text branch in {str(path)!r} has {layers} layers, and no hidden state {layer}")
        unused = (UNUSED_BUFFER, *(f"encoder.layer.{n}." for n in range(num_kept, layers)))
        branch = {name: value for name, value in branch.items() if not name.startswith(unused)}
        check_finite(branch, f"CLAP's text branch ({str(path)!r})")
        settings, cpu = _roberta_config(branch, num_kept, path), torch.device("cpu")
        model: Any = transformers_loader.load_model(
            RobertaModel, path, cpu, description="text branch of CLAP", config=settings, state=branch
        )
        words = transformers_loader.load_tokenizer(
            RobertaTokenizer, tokenizer, ("tokenizer.json", "vocab.json"), "RoBERTa"
        )
        rows = model.config.vocab_size
        if len(words) > rows:
            raise DependencyError(f"the tokenizer in {str(tokenizer)!r} has {len(words)} tokens, CLAP only {rows}")
        return cls(model.float(), words)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Condition:
        """Hidden states (B, 77, D) with a padding mask; a text of more than 77 tokens is cut, with a warning.

        The states at padding are returned too: the models that read them were trained with those.
        """
        device = self.model.device
        for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]:
            if len(ids) > MAX_TOKENS:
                logger.warning("a prompt of %d tokens is cut to the %d that CLAP reads", len(ids), MAX_TOKENS)
        inputs = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(device)
        states = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        return Condition(states, inputs["attention_mask"].bool())


def _text_branch(state: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DependencyError(f"{str(path)!r} holds no state dict: it is not a checkpoint of CLAP")
    plain = {name.removeprefix(WRAPPER_PREFIX): value for name, value in state.items()}
    branch = {
        name.removeprefix(BRANCH_PREFIX): value for name, value in plain.items() if name.startswith(BRANCH_PREFIX)
    }
    if not branch:
        raise DependencyError(f"{str(path)!r} has no text branch: it is not a checkpoint of CLAP")
    return branch


def _roberta_config(branch: dict[str, Tensor], layers: int, path: Path) -> dict[str, Any]:
    """transformers' RoBERTa config by the shapes of the weights: the checkpoint holds no other."""
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
