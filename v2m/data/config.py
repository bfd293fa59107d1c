"""Settings that a dataset depends on: its encoders, its rates, and which videos are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PrepareConfig:
    """Options for turning videos into samples.

    Args:
        vision_encoder: Vision encoder: a folder or a repository of the hub (CLIP, SigLIP or DINOv2), or
            v2m-frame-statistics-1, which needs no weights.
        pooling: Tokens of a frame: "grid" is 5 of them, "all" all (50 of CLIP ViT-B/32, which VidMuse reads).
        aspect: How a frame becomes a square; vidmuse takes VidMuse's own frames and filter, from full-size frames.
        codec: Codec of the music (EnCodec): a folder or a repository of the hub; v2m-score-1 reads the MIDI file beside
            each video instead of its sound.
        text_encoder: Text encoder (T5): a folder or a repository of the hub, or v2m-hashed-words-1, which needs no
            weights.
        stereo: Whether left and right are encoded each by itself, as MusicGen's stereo models have them: twice the
            codebooks.
        vocals: What is done about voices in the music and over it, sung or spoken.
        separator: Model that removes them (Demucs): a folder or a repository of the hub.
        video_frame_rate: Frames per second of each segment.
        num_long_term_frames: Frames of the whole video.
        event_rate: Instants per second at which brightness, motion and cuts are kept.
        max_segment_s: Longest segment, in seconds; a longer video is split evenly.
        min_duration_s: Seconds below which a video is left out.
        max_duration_s: Seconds above which it is left out.
        max_silence: Share of the audio that may be silent (below −60 dBFS).
        min_motion: Change of luma per second below which a video without cuts counts as static.
        min_overlap: Share of the longer of video and audio that the shorter must last.
        unpaired: Whether the inputs are music without video, MIDI or sound as the codec reads; events and frames are
            derived from the music itself.
    """

    vision_encoder: str = "openai/clip-vit-base-patch32"
    pooling: Literal["grid", "all"] = "grid"
    aspect: Literal["squash", "crop", "pad", "vidmuse"] = "squash"
    codec: str = "facebook/encodec_32khz"
    text_encoder: str = "google-t5/t5-base"
    stereo: bool = False
    vocals: Literal["keep", "remove"] = "keep"
    separator: str = "adefossez/HTDemucs"
    video_frame_rate: float = 2.0
    num_long_term_frames: int = 32
    event_rate: float = 20.0
    max_segment_s: float = 120.0
    min_duration_s: float = 5.0
    max_duration_s: float = 3600.0
    max_silence: float = 0.5
    min_motion: float = 0.005
    min_overlap: float = 0.8
    unpaired: bool = False

    def __post_init__(self) -> None:
        longest = self.max_duration_s
        ranges = {
            "video_frame_rate": (self.video_frame_rate > 0, "above 0"),
            "num_long_term_frames": (self.num_long_term_frames > 0, "above 0"),
            "event_rate": (self.event_rate > 0, "above 0"),
            "max_segment_s": (self.max_segment_s >= 1, "1 or more"),
            "min_duration_s": (0.1 <= self.min_duration_s <= longest, f"within 0.1 and max_duration_s, {longest:g}"),
            "max_silence": (0 <= self.max_silence <= 1, "within 0 and 1"),
            "min_motion": (self.min_motion >= 0, "0 or more"),
            "min_overlap": (0 <= self.min_overlap <= 1, "within 0 and 1"),
        }
        problems = [f"{name} {getattr(self, name):g} must be {text}" for name, (ok, text) in ranges.items() if not ok]
        if problems:
            raise ValueError("; ".join(problems))
