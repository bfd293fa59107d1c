"""T5 text encoder: empty and long texts, and errors of wrong files."""

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


def test_an_empty_text_has_no_tokens_and_disturbs_no_other(encoder: T5TextEncoder) -> None:
    assert isinstance(encoder, TextEncoder)
    tokens, mask, _ = encoder.encode(["", "a calm piano", "  \n"])
    assert mask.any(dim=1).tolist() == [False, True, False]
    assert not tokens[[0, 2]].any()
    alone = encoder.encode(["a calm piano"])
    torch.testing.assert_close(tokens[1], alone.tokens[0], rtol=0, atol=1e-6)
    none = encoder.encode([""])
    assert none.tokens.isfinite().all()
    assert not none.mask.any()


def test_other_words_and_another_order_are_said_otherwise(encoder: T5TextEncoder) -> None:
    one, other = encoder.encode(["calm piano", "piano calm"]).tokens
    assert (one - other).abs().max() > 0.1


def test_an_endless_text_is_cut_with_a_warning(encoder: T5TextEncoder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tokens, mask, _ = encoder.encode(["drums " * 600, "drums"])
    assert tokens.shape[1] == mask[0].sum() == 512
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.endswith("is cut to the 512 that T5 reads")


def test_weights_may_come_from_inside_another_model_and_the_tokenizer_from_elsewhere(
    folder: Path, encoder: T5TextEncoder, tmp_path: Path
) -> None:
    words = tiny.write_tokenizer(tmp_path)
    (words / "tokenizer.json").unlink()  # spiece.model alone will do
    given = T5TextEncoder.load(
        Path("nowhere"), CPU, tokenizer=words, config=tiny.make_config().to_dict(), state=read_state_dict(folder)
    )
    assert torch.equal(given.encode(["a solo harp"]).tokens, encoder.encode(["a solo harp"]).tokens)


def test_of_a_whole_t5_the_encoder_alone_is_loaded(folder: Path, tmp_path: Path) -> None:
    """A published folder includes a decoder."""
    torch.manual_seed(0)
    settings = tiny.make_config()
    settings.tie_word_embeddings = False  # as of T5 1.1, whose weights hold a head, too
    whole = T5ForConditionalGeneration(settings).eval()
    whole.save_pretrained(tmp_path)
    tiny.write_tokenizer(tmp_path)
    found = T5TextEncoder.load(tmp_path, CPU)
    ids = torch.tensor([found._tokenizer("a solo harp")["input_ids"]])
    with torch.inference_mode():
        wanted = whole.get_encoder()(ids).last_hidden_state
    torch.testing.assert_close(found.encode(["a solo harp"]).tokens, wanted, rtol=0, atol=1e-5)


def test_half_weights_are_computed_with_in_float32(folder: Path, tmp_path: Path) -> None:
    state = {name: value.half() for name, value in read_state_dict(folder).items()}
    found = T5TextEncoder.load(folder, CPU, state=state)
    assert found.encode(["funk"]).tokens.dtype == torch.float32


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


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
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


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_files_are_told_in_one_line(kind: str, folder: Path, tmp_path: Path) -> None:
    spoil, word = WRONG[kind]
    copy = Path(shutil.copytree(folder, tmp_path / "t5"))
    spoil(copy)
    with pytest.raises(DependencyError) as caught:
        T5TextEncoder.load(copy, CPU)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_told(folder: Path) -> None:
    small = {name: value[:100] if name == "shared.weight" else value for name, value in read_state_dict(folder).items()}
    small = {name: value for name, value in small.items() if "embed_tokens" not in name}
    with pytest.raises(DependencyError, match="has 228 tokens, T5 only 100"):
        T5TextEncoder.load(folder, CPU, config=tiny.make_config().to_dict() | {"vocab_size": 100}, state=small)
