"""Token map of YuE's language models (mm_tokenizer_v0.2), and their text tokenizer, SentencePiece.

The map is text, then markers, then the codebooks of several codecs; only the markers and the X-Codec codebooks that the
models were trained on are named here.
"""

from __future__ import annotations

from pathlib import Path

from v2m.core.errors import DependencyError

SOA, EOA = 32001, 32002  # start and end of audio
STAGE_1, XCODEC, STAGE_2 = 32013, 32016, 32017
VOCAB_SIZE = 83734  # SentencePiece's own; the models' embeddings have a few rows more
CODEBOOK_SIZE = 1024  # entries of a codebook
NUM_CODEBOOKS = 8  # of the 12 that the codec has: what stage 2 writes and the decoders read
FIRST_CODE = 45334  # entry 0 of codebook 0
FRAME_RATE = 50  # X-Codec frames per second
TOKENIZER_FILE = "tokenizer.model"


def first_id(codebook: int) -> int:
    """Token id of entry 0 of `codebook` (0–11); entry c is c above it."""
    return FIRST_CODE + CODEBOOK_SIZE * codebook


MARKER_IDS = {
    "<SOA>": SOA,
    "<EOA>": EOA,
    "<stage_1>": STAGE_1,
    "<xcodec>": XCODEC,
    "<stage_2>": STAGE_2,
    "<xcodec/0/0>": FIRST_CODE,
    f"<xcodec/{NUM_CODEBOOKS - 1}/{CODEBOOK_SIZE - 1}>": first_id(NUM_CODEBOOKS) - 1,
}


class Tokenizer:
    """Text tokenizer of both language models; `path` is its file, or a folder with `tokenizer.model`."""

    def __init__(self, path: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        file = path / TOKENIZER_FILE if path.is_dir() else path
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(file.read_bytes())
            count = self._processor.GetPieceSize()
        except OSError as error:
            message = f"YuE's tokenizer {str(file)!r} cannot be read ({error.strerror}): fetch it"
            raise DependencyError(message) from error
        except RuntimeError as error:
            raise DependencyError(f"{str(file)!r} is no whole SentencePiece model: fetch it again") from error
        if count < VOCAB_SIZE or any(self._processor.IdToPiece(index) != name for name, index in MARKER_IDS.items()):
            raise DependencyError(
                f"{str(file)!r} is not YuE's tokenizer: it has {count} pieces, or its marks are not where the model's "
                "are; take tokenizer.model from the model's own repository"
            )

    def encode(self, text: str) -> list[int]:
        """Encode one run of text, as if a space came first; no tokens for its start or end."""
        return self._processor.EncodeAsIds(text)
