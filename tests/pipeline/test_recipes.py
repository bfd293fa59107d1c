"""Values of a recipe by dotted key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from v2m.core.errors import UsageError
from v2m.generators.sketch import Sketch
from v2m.pipeline.recipes import load_recipe


def test_values_are_set_by_dotted_key_and_in_groups() -> None:
    values = {
        "tags": {"tempo": 90},
        "mix.duck": {"depth": -3.0},
        "generator": "v2m.generators.sketch.Sketch",
        "seed": 5,
    }
    recipe = load_recipe("sketch", values)
    assert (recipe.tags.tempo, recipe.mix.duck.depth, recipe.seed) == (90, -3, 5)
    assert isinstance(recipe.generator, Sketch)
    assert recipe.settings["tags"]["tempo"] == 90


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tags", "{file}", "is a group of values, not one"),
        ("mix.duck", "{file}", "is a group of values, not one"),
        ("limits", None, "is a group of values, not one"),
        ("mix", [1], "is a group of values, not one"),
        ("tags..tempo", 90, "names no value of a recipe"),
        ("tags.", 90, "names no value of a recipe"),
        ("tags. tempo", 90, "names no value of a recipe"),
        ("tags.speed", 90, "'tags' does not accept option 'speed'"),
        ("tags.tempo", "fast", "Expected a <class 'float'>"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_and_no_file_is_read(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("tempo: 90\ndepth: -3\n")
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe("sketch", {key: str(file) if value == "{file}" else value})
    assert "\n" not in str(caught.value)
