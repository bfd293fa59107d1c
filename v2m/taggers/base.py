"""Base class of the taggers, with a default for every optional method."""

from __future__ import annotations

from typing import Any, ClassVar

from v2m.core.licenses import LicensedComponent
from v2m.core.protocols import Tagger
from v2m.core.types import ProgressFn, Tags, Video, WeightsInfo


class TaggerBase:
    """Defaults of the methods that the pipeline calls besides `tag`.

    A plug-in may inherit from this class or only have `tag` (`v2m.core.protocols.Tagger`); `as_tagger` wraps the
    latter.
    """

    merges_hints: ClassVar[bool] = False
    """True where `tag` itself puts its words behind those of `hints`; else each set hint replaces the field."""
    weights: tuple[WeightsInfo, ...] = ()
    """Models that took part, for the sidecar."""
    device: str = "cpu"
    """Device of the model; "auto" lets each rank of a distributed run set its own."""

    @property
    def class_name(self) -> str:
        """Name of the class that the user has chosen."""
        return type(self).__name__

    def components(self) -> list[LicensedComponent]:
        """Return the models that take part, with their licenses; known before any is fetched."""
        return [LicensedComponent("tagger", self.class_name, None, statement="give its class a method `components`")]

    def prepare(self) -> None:
        """Fetch missing weights before any work."""

    def set_device(self, device: str) -> None:
        """Compute on `device`, which replaces "auto" before the model is loaded."""
        self.device = device

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Tags for `video`; see `v2m.core.protocols.Tagger`."""
        raise NotImplementedError(f"{type(self).__name__} has no method tag")

    def merged_tags(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """`tag`, with every field that `hints` sets in its place."""
        tags = self.tag(video, hints, progress)
        return tags if self.merges_hints else tags.overridden_by(hints)

    def measure(self, video: Video) -> dict[str, Any] | None:  # noqa: ARG002 - nothing is measured by default
        """Plain measured values of `video` for the sidecar, or None."""
        return None

    def describe(self, video: Video, question: str, progress: ProgressFn | None = None) -> str:  # noqa: ARG002
        """Answer to `question` about `video`; the caption of `tag` by default."""
        return self.tag(video, Tags(), progress).caption

    def release(self) -> None:
        """Free the model's memory; the next call of `tag` loads it again."""


class _ExternalTagger(TaggerBase):
    """A plug-in that inherits nothing: its own methods where it has them, the defaults elsewhere."""

    def __init__(self, plugin: Tagger) -> None:
        self.plugin = plugin
        values = ("merges_hints", "weights", "device")
        for name in (*values, "components", "prepare", "measure", "describe", "release"):
            if hasattr(plugin, name) and (name in values or callable(getattr(plugin, name))):
                setattr(self, name, getattr(plugin, name))
        self.tag = plugin.tag

    @property
    def class_name(self) -> str:
        return type(self.plugin).__name__

    def set_device(self, device: str) -> None:
        self.device = self.plugin.device = device  # type: ignore[attr-defined]


def as_tagger(plugin: Tagger) -> TaggerBase:
    """`plugin` itself where it inherits `TaggerBase`, else a wrapper with the defaults."""
    return plugin if isinstance(plugin, TaggerBase) else _ExternalTagger(plugin)
