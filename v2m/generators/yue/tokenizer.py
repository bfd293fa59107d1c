"""YuE's text tokenizer: SentencePiece alone."""

from __future__ import annotations

from pathlib import Path

from v2m.core.errors import DependencyError
from v2m.generators.yue import tokens

TOKENIZER_FILE = "tokenizer.model"
MARKER_IDS = {
    "<SOA>": tokens.SOA,
    "<EOA>": tokens.EOA,
    "<stage_1>": tokens.STAGE_1,
    "<xcodec>": tokens.XCODEC,
    "<stage_2>": tokens.STAGE_2,
    "<xcodec/0/0>": tokens.FIRST_CODE,
    f"<xcodec/{tokens.NUM_CODEBOOKS - 1}/{tokens.CODEBOOK_SIZE - 1}>": tokens.first_id(tokens.NUM_CODEBOOKS) - 1,
}


class Tokenizer:
    """Text tokenizer of both language models.

    Args:
        path: The SentencePiece model, or a folder that holds it as `tokenizer.model`.

    Raises:
        DependencyError: The file is missing or damaged, or is the tokenizer of another model.
    """

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        file = path / TOKENIZER_FILE if path.is_dir() else path
        try:
            content = file.read_bytes()
        except OSError as error:
            raise DependencyError(
                f"YuE's tokenizer {str(file)!r} cannot be read ({error.strerror}): fetch it"
            ) from error
        self._pieces = SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(content)
            count = self._pieces.GetPieceSize()
        except RuntimeError as error:
            raise DependencyError(f"{str(file)!r} is no whole SentencePiece model: fetch it again") from error
        if count < tokens.VOCAB_SIZE or any(
            self._pieces.IdToPiece(index) != mark for mark, index in MARKER_IDS.items()
        ):
            raise DependencyError(
                f"{str(file)!r} is not YuE's tokenizer: it has {count} pieces, or its marks are not where the model's "
                "are; take tokenizer.model from the model's own repository"
            )

    def encode(self, text: str) -> list[int]:
        """Encode one run of text, as if a space came first; no tokens for its start or end."""
        return self._pieces.EncodeAsIds(text)
