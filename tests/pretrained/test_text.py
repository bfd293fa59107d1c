"""T5 text encoder: empty and long texts, and errors of invalid files."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import T5ForConditionalGeneration

from tests.fixtures.tiny import t5 as tiny
from v2m.core.errors import DependencyError
from v2m.core.protocols import TextEncoder
from v2m.pretrained.safe_load import read_state_dict
from v2m.pretrained.text import T5TextEncoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> T5TextEncoder:
    return T5TextEncoder.load(folder, CPU)


def test_empty_text_has_no_tokens_and_leaves_the_others_unchanged(encoder: T5TextEncoder) -> None:
    assert isinstance(encoder, TextEncoder)
    tokens, mask, _ = encoder.encode(["", "a calm piano", "  \n"])
    assert mask.any(dim=1).tolist() == [False, True, False]
    assert not tokens[[0, 2]].any()
    alone = encoder.encode(["a calm piano"])
    torch.testing.assert_close(tokens[1], alone.tokens[0], rtol=0, atol=1e-6)
    none = encoder.encode([""])
    assert none.tokens.isfinite().all()
    assert not none.mask.any()


def test_embeddings_depend_on_word_order(encoder: T5TextEncoder) -> None:
    one, other = encoder.encode(["calm piano", "piano calm"]).tokens
    assert (one - other).abs().max() > 0.1


def test_long_text_is_truncated_with_a_warning(encoder: T5TextEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tokens, mask, _ = encoder.encode(["drums " * 600, "drums"])
    assert tokens.shape[1] == mask[0].sum() == 512
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.endswith("is cut to the 512 that T5 reads")


def test_config_weights_and_tokenizer_may_be_given_separately(
    folder: Path, encoder: T5TextEncoder, tmp_path: Path
) -> None:
    words = tiny.write_tokenizer(tmp_path)
    (words / "tokenizer.json").unlink()  # spiece.model alone will do
    given = T5TextEncoder.load(
        Path("nowhere"), CPU, tokenizer=words, config=tiny.make_config().to_dict(), state=read_state_dict(folder)
    )
    assert torch.equal(given.encode(["a solo harp"]).tokens, encoder.encode(["a solo harp"]).tokens)


def test_full_t5_checkpoint_loads_its_encoder_only(folder: Path, tmp_path: Path) -> None:
    """A published folder includes a decoder."""
    torch.manual_seed(0)
    settings = tiny.make_config()
    settings.tie_word_embeddings = False  # as of T5 1.1, whose weights hold a head, too
    reference = T5ForConditionalGeneration(settings).eval()
    reference.save_pretrained(tmp_path)
    tiny.write_tokenizer(tmp_path)
    loaded = T5TextEncoder.load(tmp_path, CPU)
    ids = torch.tensor([loaded._tokenizer("a solo harp")["input_ids"]])
    with torch.inference_mode():
        expected = reference.get_encoder()(ids).last_hidden_state
    torch.testing.assert_close(loaded.encode(["a solo harp"]).tokens, expected, rtol=0, atol=1e-5)


def test_half_precision_weights_give_float32_tokens(folder: Path, tmp_path: Path) -> None:
    state = {name: value.half() for name, value in read_state_dict(folder).items()}
    loaded = T5TextEncoder.load(folder, CPU, state=state)
    assert loaded.encode(["funk"]).tokens.dtype == torch.float32


def _changed(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def _spoiled(folder: Path) -> None:
    state = {name: value.clone() for name, value in read_state_dict(folder).items()}
    state["shared.weight"][3, 2] = torch.inf
    save_file(state, folder / "model.safetensors")


def _without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


INVALID: dict[str, tuple[Callable[[Path], object], str]] = {
    "another family": (lambda f: _changed(f, model_type="bert"), "model_type 'bert', not 't5'"),
    "no tokenizer": (
        lambda f: _without(f, "tokenizer.json", "spiece.model"),
        "neither tokenizer.json nor spiece.model",
    ),
    "a broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "cannot be read"),
    "no weights": (lambda f: _without(f, "model.safetensors"), "holds no weights"),
    "no numbers": (_spoiled, "shared.weight"),
    "another width": (lambda f: _changed(f, d_model=24), "instead of"),
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_files_are_reported_in_one_line(kind: str, folder: Path, tmp_path: Path) -> None:
    corrupt, message = INVALID[kind]
    copy = Path(shutil.copytree(folder, tmp_path / "t5"))
    corrupt(copy)
    with pytest.raises(DependencyError) as caught:
        T5TextEncoder.load(copy, CPU)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tokenizer_larger_than_the_embedding_is_refused(folder: Path) -> None:
    small = {name: value[:100] if name == "shared.weight" else value for name, value in read_state_dict(folder).items()}
    small = {name: value for name, value in small.items() if "embed_tokens" not in name}
    with pytest.raises(DependencyError, match="has 228 tokens, T5 only 100"):
        T5TextEncoder.load(folder, CPU, config=tiny.make_config().to_dict() | {"vocab_size": 100}, state=small)
