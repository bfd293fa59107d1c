"""Base classes of the music generators, with a default for every optional method."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from v2m.core.lazy_model import LazyModel
from v2m.core.licenses import LicensedComponent
from v2m.core.progress import sub_progress
from v2m.core.protocols import MusicGenerator
from v2m.core.types import Controls, ProgressFn, Soundtrack, Tags, Video, WeightsInfo
from v2m.pretrained.weights import bundled_folder

SCORE_CAPABILITIES = frozenset({"midi", "stems"})  # of a language model that writes scores


class GeneratorBase:
    """Defaults of the methods that the pipeline calls besides `generate`.

    A plug-in may inherit from this class or only have `generate`; `as_generator` wraps the latter.
    """

    capabilities: frozenset[str] = frozenset()
    """Out of "stems", "midi", "vocals" and the fields of `Controls`; a request beyond it is refused first."""
    weights: tuple[WeightsInfo, ...] = ()
    """Models that took part, for the sidecar."""
    digital_source: str = "trainedAlgorithmicMedia"
    """IPTC's digital source type of the music; "algorithmicMedia" where nothing was learned."""

    @property
    def class_name(self) -> str:
        """Name of the class that the user has chosen."""
        return type(self).__name__

    def components(self, controls: Controls) -> list[LicensedComponent]:
        """Return the models and sound banks that take part, with their licenses; known before any is fetched."""
        return [LicensedComponent("generator", self.class_name, None, statement="give its class a method `components`")]

    def prepare(self, tags: Tags, controls: Controls) -> None:
        """Fetch missing weights and refuse options that this generator cannot follow, before any work.

        Raises:
            DependencyError: Weights are not here and cannot be fetched, or are another model's.
            UsageError: Tags, controls or options ask for what the generator cannot do, or there is no such device.
            MemoryError: The message names an option to lower.
        """

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
        """Music of exactly `video.duration`; see `v2m.core.protocols.MusicGenerator`. Errors as of `prepare`.

        A subclass overrides this or, where several candidates cost less together, `generate_batch`.
        """
        if type(self).generate_batch is GeneratorBase.generate_batch:
            raise NotImplementedError(f"{type(self).__name__} has no method generate")
        return self.generate_batch(video, tags, [seed], stems=stems, controls=controls, progress=progress)[0]

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
        """One soundtrack for each of `seeds`."""
        soundtracks = []
        for index, seed in enumerate(seeds):
            part = sub_progress(progress, index / len(seeds), (index + 1) / len(seeds))
            soundtracks.append(self.generate(video, tags, seed, stems=stems, controls=controls, progress=part))
        return soundtracks

    def audio_bytes(self, duration: float, *, stems: bool) -> int:
        """Return the least bytes of the samples of a soundtrack; 0 where not known before the work."""
        return 0

    def release(self) -> None:
        """Free the model's memory; the next call of `generate` loads it again."""


class ModelGenerator(GeneratorBase):
    """Generator whose model is loaded on first use; `oom_hint` says what to lower for less memory."""

    def __init__(self, device: str, *, keep_loaded: bool, oom_hint: str) -> None:
        self._device, self._keep_loaded = device, keep_loaded
        self._engine: LazyModel[Any] = LazyModel(self._load, oom_hint)
        self.weights: tuple[WeightsInfo, ...] = ()

    def _add_capabilities(self, model: str) -> None:
        """Add those of scores where `model` is a folder with a language model that writes them."""
        folder = bundled_folder(model) or Path(model).expanduser()
        if folder.is_dir():
            with suppress(ImportError):  # without torch, which `prepare` names
                from v2m.checkpoints.load import has_score_codec

                if has_score_codec(folder):
                    self.capabilities |= SCORE_CAPABILITIES

    def _load(self) -> Any:
        """Load the model; torch is imported here and not before."""
        raise NotImplementedError

    def release(self) -> None:
        """Free the model, unless `keep_loaded` is set."""
        if not self._keep_loaded:
            self._engine.release()


class _ExternalGenerator(GeneratorBase):
    """A plug-in that inherits nothing: its own methods where it has them, the defaults elsewhere."""

    def __init__(self, plugin: MusicGenerator) -> None:
        self.plugin = plugin
        values = ("capabilities", "weights", "digital_source")
        methods = ("components", "prepare", "validate_video", "generate_batch", "audio_bytes", "release")
        for name in (*values, *methods):
            if hasattr(plugin, name) and (name in values or callable(getattr(plugin, name))):
                setattr(self, name, getattr(plugin, name))
        self.generate = plugin.generate

    @property
    def class_name(self) -> str:
        return type(self.plugin).__name__


def as_generator(plugin: MusicGenerator) -> GeneratorBase:
    """`plugin` itself where it inherits `GeneratorBase`, else a wrapper with the defaults."""
    return plugin if isinstance(plugin, GeneratorBase) else _ExternalGenerator(plugin)
