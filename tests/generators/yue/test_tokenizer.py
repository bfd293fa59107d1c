"""YuE's tokenizer, on a file in the published layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from tests.fixtures.tiny import yue_tokenizer
from v2m.core.errors import DependencyError
from v2m.generators.yue.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yue_tokenizer.write(tmp_path_factory.mktemp("yue") / "tokenizer.model")


# ids of the published tokenizer.model
PUBLISHED = {
    "[start_of_segment]": [518, 2962, 29918, 974, 29918, 28192, 29962],
    "[end_of_segment]": [518, 355, 29918, 974, 29918, 28192, 29962],
    "[start_of_reference]": [518, 2962, 29918, 974, 29918, 5679, 29962],
    "[end_of_reference]": [518, 355, 29918, 974, 29918, 5679, 29962],
    "[chorus]\n\n\n": [518, 8420, 375, 29962, 13, 13, 13],
    "Staring at the sunset, colors paint the sky": [624, 4362, 472, 278, 6575, 842, 29892, 11955, 10675, 278, 14744],
    "<SOA>": [529, 6156, 29909, 29958],
    "\n": [29871, 13],
    "": [],
}


@pytest.mark.parametrize("text", PUBLISHED)
def test_encoded_text_has_the_published_ids(path: Path, text: str) -> None:
    """A space is prepended, no start and end tokens; markers in user text stay text."""
    assert Tokenizer(path).encode(text) == PUBLISHED[text]


def test_tokenizer_file_is_found_in_a_folder(path: Path) -> None:
    assert Tokenizer(path.parent).encode("[") == Tokenizer(path).encode("[") == [518]


@pytest.mark.parametrize("content", [b"", b"not a model" * 100, None], ids=["empty", "text", "truncated"])
def test_corrupt_tokenizer_file_is_reported_with_its_path(path: Path, tmp_path: Path, content: bytes | None) -> None:
    damaged = tmp_path / "tokenizer.model"
    damaged.write_bytes(path.read_bytes()[:500_001] if content is None else content)
    with pytest.raises(DependencyError, match=rf"{damaged}' is no whole SentencePiece model: fetch it again"):
        Tokenizer(tmp_path)


def test_missing_tokenizer_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"tokenizer.model' cannot be read \(No such file or directory\)"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize("change", ["without the last codes", "with a code renamed", "with two marks swapped"])
def test_tokenizer_of_another_model_is_rejected(path: Path, tmp_path: Path, change: str) -> None:
    model = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue] - made when it is loaded
    model.ParseFromString(path.read_bytes())
    if change == "without the last codes":
        del model.pieces[-1]
    elif change == "with a code renamed":
        model.pieces[45334].piece = "<other/0/0>"
    else:
        model.pieces[32001].piece, model.pieces[32002].piece = "<EOA>", "<SOA>"
    other = tmp_path / "tokenizer.model"
    other.write_bytes(model.SerializeToString())
    assert SentencePieceProcessor(model_file=str(other)).GetPieceSize() >= 83733, "it must load"
    with pytest.raises(DependencyError, match=r"is not YuE's tokenizer: it has 8373[34] pieces"):
        Tokenizer(other)
