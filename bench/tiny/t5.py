"""A T5 encoder of some 10 k random parameters in transformers' format, with a tokenizer that knows some music."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece
import torch
from transformers import T5Config, T5EncoderModel, T5Tokenizer

PIECES = 128
EXTRA = 100  # marks of T5's own, behind the pieces
SENTENCES = """
A calm ambient piece with warm pads and a slow piano, hopeful and tender.
Upbeat electronic dance music with a driving bass line, bright synths and drums at 128 bpm.
Cinematic orchestral score, dark and tense, with low strings, brass and timpani.
An acoustic folk tune on guitar and violin in D major, happy and light, 96 bpm.
Smooth jazz trio: upright bass, brushed drums and a mellow saxophone in F minor.
Lo-fi hip hop beat with vinyl noise, electric piano and a lazy groove, 72 bpm.
Energetic rock with distorted electric guitars, loud drums and a heavy bass.
A solemn waltz for solo harp and flute, quiet, airy and a little sad.
Funk with slap bass, clean rhythm guitar, horns and a tight backbeat in E minor.
genres, instruments, moods, timbres, tempo, key, instrumental, no vocals, low quality
"""


def config() -> T5Config:
    """The shape of t5-base, whose width is 768 and which has 12 layers."""
    return T5Config(
        vocab_size=PIECES + EXTRA + 12,  # the published ones have spare rows too
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        architectures=["T5EncoderModel"],
    )


def write(folder: Path, *, seed: int = 0) -> Path:
    """Encoder and tokenizer into `folder`, which is returned."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = T5EncoderModel(config())
    with torch.no_grad():  # as initialised it attends to all tokens alike, and hardly to where they are
        for name, value in model.named_parameters():
            if value.ndim == 2 and "shared" not in name and "embed_tokens" not in name:
                value.mul_(4)
    model.save_pretrained(folder)
    return write_tokenizer(folder)


def write_tokenizer(folder: Path) -> Path:
    """`spiece.model`, `tokenizer.json` and `tokenizer_config.json`: padding is 0, the end 1, what is not known 2."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES.split("\n")),
        model_writer=trained,
        vocab_size=PIECES,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(trained.getvalue())
    T5Tokenizer.from_pretrained(folder, extra_ids=EXTRA, model_max_length=512).save_pretrained(folder)
    return folder
