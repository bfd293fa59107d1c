"""Base class of the music generators, with a default for every optional method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from v2m.core.progress import sub_progress
from v2m.core.protocols import MusicGenerator
from v2m.core.types import Controls, ProgressFn, Soundtrack, Tags, Video, WeightsInfo


class GeneratorBase:
    """Defaults of the methods that the pipeline calls besides `generate`.

    A plug-in may inherit from this class or only have `generate` (`v2m.core.protocols.MusicGenerator`);
    `as_generator` wraps the latter.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()
    """Out of "stems", "midi", "vocals" and the fields of `Controls`; a request beyond it is refused first."""
    weights: tuple[WeightsInfo, ...] = ()
    """Models that took part, for the sidecar."""

    @property
    def class_name(self) -> str:
        """Name of the class that the user has chosen."""
        return type(self).__name__

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights and refuse options that this generator cannot follow, before any work."""

    def validate_video(self, video: Video, controls: Controls) -> None:
        """Refuse a video that is too long for what is requested; called after `prepare`."""

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Music of exactly `video.duration`; see `v2m.core.protocols.MusicGenerator`."""
        raise NotImplementedError(f"{type(self).__name__} has no method generate")

    def generate_batch(
        self,
        video: Video,
        tags: Tags,
        seeds: Sequence[int],
        *,
        stems: bool = False,
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> list[Soundtrack]:
        """One soundtrack for each of `seeds`; overridden where several cost less together."""
        return [
            self.generate(
                video,
                tags,
                seed,
                stems=stems,
                controls=controls,
                progress=sub_progress(progress, number / len(seeds), (number + 1) / len(seeds)),
            )
            for number, seed in enumerate(seeds)
        ]

    def release(self) -> None:
        """Free the model's memory; the next call of `generate` loads it again."""


class _ExternalGenerator(GeneratorBase):
    """A plug-in that inherits nothing: its own methods where it has them, the defaults elsewhere."""

    def __init__(self, plugin: MusicGenerator) -> None:
        self.plugin = plugin
        for name in ("capabilities", "weights", "prepare", "validate_video", "generate_batch", "release"):
            if hasattr(plugin, name):
                setattr(self, name, getattr(plugin, name))
        self.generate = plugin.generate

    @property
    def class_name(self) -> str:
        return type(self.plugin).__name__


def as_generator(plugin: MusicGenerator) -> GeneratorBase:
    """`plugin` itself where it inherits `GeneratorBase`, else a wrapper with the defaults."""
    return plugin if isinstance(plugin, GeneratorBase) else _ExternalGenerator(plugin)
