"""The licenses of a run: of every model and sound bank of a recipe."""

from __future__ import annotations

from v2m.core.licenses import LicensedComponent, check_commercial_use
from v2m.core.types import Controls
from v2m.generators.base import GeneratorBase
from v2m.generators.sketch import Sketch
from v2m.pipeline.recipes import Recipe
from v2m.pretrained.licenses import ask_hub, loaded_components, model_component
from v2m.taggers.base import TaggerBase

BEAT_TRACKER = LicensedComponent("beat tracker", "BeatNet", "CC-BY-4.0")  # v2m/analysis/beatnet.npz
MUSICNN = LicensedComponent("ranker", "musicnn", "ISC", "leave out `rank_by=tags`")


def recipe_components(
    recipe: Recipe, tagger: TaggerBase, generator: GeneratorBase, controls: Controls
) -> list[LicensedComponent]:
    """Return what takes part, as far as it is known before any weights are fetched or loaded.

    Of a commercial-safe recipe, and of no other, the hub is asked for licenses that are not known here.
    """
    components = [*generator.components(controls), *([] if recipe.tags.is_complete else tagger.components())]
    if recipe.align_to_cuts and not isinstance(generator, Sketch):  # which plans its own beats
        components.append(BEAT_TRACKER)
    if recipe.rank_by == "tags" and recipe.candidates > 1:
        components.append(MUSICNN)
    if recipe.watermark:
        components.append(model_component("watermark", "facebook/audioseal", "watermark"))
    return [*map(ask_hub, components)] if recipe.commercial_safe else components


def check_recipe(recipe: Recipe, tagger: TaggerBase, generator: GeneratorBase, controls: Controls) -> None:
    """Raise LicenseError where a license forbids that a commercial-safe recipe is used so, or is unknown."""
    if recipe.commercial_safe:
        check_commercial_use(recipe_components(recipe, tagger, generator, controls))


def check_loaded(recipe: Recipe, tagger: TaggerBase, generator: GeneratorBase) -> None:
    """Raise LicenseError as `check_recipe`, of the weights fetched so far; checkpoints may name others."""
    if recipe.commercial_safe:
        models = {"tagger": tagger.weights, "generator": generator.weights}
        check_commercial_use(part for role, infos in models.items() for part in loaded_components(role, infos))
