"""All checkpoints of the recipe `v2b`, tiny and random, each in the format it is published in."""

from __future__ import annotations

from pathlib import Path

from bench.tiny import xcodec, yue_lm, yue_tokenizer


def make_stage(folder: Path, vocab: int, seed: int = 0) -> Path:
    """One of YuE's language models, of a single narrow layer."""
    return yue_lm.make(folder, vocab, hidden=16, layers=1, heads=2, kv_heads=1, ffn=32, seed=seed)


def make_yue(folder: Path) -> Path:
    """`stage1`, `stage2` and `codec` below `folder`, which is returned."""
    make_stage(folder / "stage1", yue_lm.STAGE_1)
    make_stage(folder / "stage2", yue_lm.STAGE_2, seed=1)
    yue_tokenizer.make(folder / "stage1" / "tokenizer.model")
    xcodec.make(folder / "codec")
    return folder


def yue_arguments(folder: Path) -> dict[str, str]:
    """What YuE is to be made with to find them; one checkpoint serves with a reference and without."""
    stage1 = str(folder / "stage1")
    return {
        "stage1": stage1,
        "stage1_reference": stage1,
        "stage2": str(folder / "stage2"),
        "codec": str(folder / "codec"),
    }


def flags(folder: Path) -> list[str]:
    """What makes the shipped recipe take the checkpoints in `folder`: `make_yue`'s, and a tagger's in `tagger`."""
    parts = {"tagger.model": str(folder / "tagger"), **{f"generator.{k}": v for k, v in yue_arguments(folder).items()}}
    return ["--recipe", "v2b", *(word for name, value in parts.items() for word in (f"--{name}", value))]
