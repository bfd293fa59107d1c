"""What a dataset depends on: its encoders, its rates, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PrepareConfig:
    """How videos become samples.

    Args:
        vision: The vision encoder: a folder or a repository of the hub (CLIP, SigLIP or DINOv2).
        pool: Tokens of a frame: "grid" is 5 of them, "all" all (50 of CLIP ViT-B/32, which VidMuse reads).
        aspect: How a frame becomes a square.
        codec: The codec of the music (EnCodec), likewise.
        text: The text encoder (T5), likewise.
        stereo: Whether left and right are encoded each by itself, as MusicGen's stereo models have them: twice the
            codebooks.
        vocals: What is done about voices in the music and over it, sung or spoken.
        separator: What removes them (Demucs), likewise.
        frame_rate: Frames a second of each stretch.
        whole: Frames of the whole video.
        rhythm_rate: Instants a second at which light, motion and cuts are kept.
        piece: The longest stretch, in seconds; a longer video is parted evenly.
        shortest: Seconds below which a video is left out.
        longest: Seconds above which it is left out.
        silence: Share of the sound that may be silent (below −60 dBFS).
        still: Change of luma per second below which a picture without cuts counts as a still one.
        overlap: How much of the longer of picture and sound the shorter must last.
    """

    vision: str = "openai/clip-vit-base-patch32"
    pool: Literal["grid", "all"] = "grid"
    aspect: Literal["squash", "crop", "pad"] = "squash"
    codec: str = "facebook/encodec_32khz"
    text: str = "google-t5/t5-base"
    stereo: bool = False
    vocals: Literal["keep", "remove"] = "keep"
    separator: str = "adefossez/HTDemucs"
    frame_rate: float = 2.0
    whole: int = 32
    rhythm_rate: float = 20.0
    piece: float = 120.0
    shortest: float = 5.0
    longest: float = 3600.0
    silence: float = 0.5
    still: float = 0.005
    overlap: float = 0.8

    def __post_init__(self) -> None:
        above = ("frame_rate", "whole", "rhythm_rate")
        problems = [f"{name} {getattr(self, name):g} must be above 0" for name in above if not getattr(self, name) > 0]
        shares = ("silence", "overlap")
        problems += [
            f"{name} {getattr(self, name):g} must lie within 0 and 1"
            for name in shares
            if not 0 <= getattr(self, name) <= 1
        ]
        problems += [] if self.still >= 0 else [f"still {self.still:g} must be 0 or more"]
        problems += [] if self.piece >= 1 else [f"piece {self.piece:g} s must be 1 or more"]
        if not 0.1 <= self.shortest <= self.longest:
            problems.append(f"shortest {self.shortest:g} s must lie within 0.1 and longest, {self.longest:g} s")
        if problems:
            raise ValueError("; ".join(problems))
