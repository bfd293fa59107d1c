"""The token map of YuE (mm_tokenizer_v0.2): text, then marks, then the codebooks of several codecs.

Both language models use it; only the marks and the X-Codec codebooks that they were trained on are named here.
"""

from __future__ import annotations

SOA, EOA = 32001, 32002  # start and end of audio
STAGE_1, XCODEC, STAGE_2 = 32013, 32016, 32017
VOCAB_SIZE = 83734  # SentencePiece's own; the models' embeddings have a few rows more
CODEBOOK_SIZE = 1024  # entries of a codebook
NUM_CODEBOOKS = 8  # of the 12 that the codec has: what stage 2 writes and the decoders read
FIRST_CODE = 45334  # entry 0 of codebook 0
FRAME_RATE = 50  # X-Codec frames per second


def first_id(codebook: int) -> int:
    """Token id of entry 0 of `codebook` (0–11); entry c is c above it."""
    return FIRST_CODE + CODEBOOK_SIZE * codebook
