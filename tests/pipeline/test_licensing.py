"""`commercial_safe`: which recipes, checkpoints, banks of sounds and plug-ins it accepts, before any work."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import EXAMPLE, names
from v2m.cli.score import main
from v2m.core.errors import USAGE, LicenseError
from v2m.core.licenses import LicensedComponent
from v2m.core.types import Controls, Soundtrack, Tags, Video, WeightsInfo
from v2m.generators.musicgen import MusicGen
from v2m.generators.sketch import Sketch
from v2m.generators.vidmuse import VidMuse
from v2m.pipeline import licensing
from v2m.pipeline.batch import process_videos
from v2m.pipeline.recipes import Recipe, list_recipes, load_recipe
from v2m.pipeline.score import score_video
from v2m.pretrained import hub
from v2m.pretrained.hub import RemoteRepo
from v2m.pretrained.licenses import model_component
from v2m.pretrained.weights import BUNDLED
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT
from v2m.taggers.heuristic import HeuristicTagger
from v2m.taggers.language_model import LanguageModel

# What the licenses of the published weights make of each shipped recipe; None is accepted.
EXPECTED: dict[str, str | None] = {
    "sketch": None,
    "learned": None,
    "acestep": None,
    "v2b": "the tagger lkhl/VideoLLaMA3-2B-Image-HF (license apache-2.0, videollama3-research-preview: v2m does not",
    "musicgen": "the generator facebook/musicgen-small (license cc-by-nc-4.0: it forbids",
    "magnet": "the generator facebook/magnet-small-30secs (license cc-by-nc-4.0: it forbids",
    "vidmuse": "the generator Zeyue7/VidMuse (license cc-by-4.0 AND cc-by-nc-4.0: it forbids",
    "stableaudio": "the generator stabilityai/stable-audio-open-1.0 (license stabilityai-ai-community: whether",
    "sonique": "the generator sonique (license not stated)",
    "sonique-llm": "the generator sonique (license not stated)",
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and no checkpoints of whoever runs the tests."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path / "checkpoints"))


def check(recipe: Recipe, controls: Controls | None = None) -> None:
    recipe = replace(recipe, commercial_safe=True)
    licensing.check_recipe(recipe, *recipe.plugins, controls or Controls())


def reason(recipe: Recipe, controls: Controls | None = None) -> str | None:
    try:
        check(recipe, controls)
    except LicenseError as error:
        return str(error)
    return None


def learned_copy(folder: Path, **changes: Any) -> str:
    """A copy of the carried model's description, with other values; a license of None is left out."""
    folder.mkdir()
    settings = yaml.safe_load((BUNDLED / "v2m-learned-1" / "config.yaml").read_text()) | changes
    (folder / "config.yaml").write_text(
        yaml.safe_dump({key: value for key, value in settings.items() if value is not None})
    )
    return str(folder)


def test_table_has_every_shipped_recipe() -> None:
    assert set(EXPECTED) == set(list_recipes())


@pytest.mark.parametrize("name", EXPECTED)
def test_shipped_recipe_is_accepted_or_refused_by_its_published_licenses(name: str) -> None:
    said, expected = reason(load_recipe(name)), EXPECTED[name]
    assert said is None if expected is None else said is not None and expected in said


@pytest.mark.parametrize(
    ("license", "card", "accepted"),
    [
        ("mit", None, True),
        ("mit", "MIT", True),
        ("mit", "cc-by-nc-4.0", False),
        ("cc-by-nc-4.0", "mit", False),
        ("own-terms", None, False),
        (None, "mit", True),
        (None, None, False),
    ],
)
def test_checkpoint_is_judged_by_the_licenses_that_its_config_and_its_card_state(
    tmp_path: Path, license: str | None, card: str | None, accepted: bool
) -> None:
    folder = learned_copy(tmp_path / "mine", license=license)
    if card is not None:
        Path(folder, "README.md").write_text(f"---\nlicense: {card}\n---\n")
    assert (reason(Recipe(generator=VidMuse(model=folder))) is None) == accepted


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("codec", "facebook/encodec_32khz", "the codec facebook/encodec_32khz (license cc-by-nc-4.0"),
        ("style_encoder", "m-a-p/MERT-v1-95M", "the style encoder m-a-p/MERT-v1-95M (license cc-by-nc-4.0"),
        ("vision_encoder", "someone/clip", "the vision encoder someone/clip (license not known: the hub could not"),
        ("text_encoder", "google-t5/t5-base", None),
    ],
)
def test_every_model_that_a_checkpoint_names_is_judged(tmp_path: Path, kind: str, name: str, text: str | None) -> None:
    said = reason(Recipe(generator=VidMuse(model=learned_copy(tmp_path / "mine", **{kind: name}))))
    assert said is None if text is None else said is not None and text in said


def test_model_card_of_a_folder_counts_and_a_known_name_cannot_be_talked_out_of(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "musicgen-small"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit OR apache-2.0\n---\n")
    assert reason(Recipe(generator=MusicGen(model=str(folder)))) is None
    said = reason(Recipe(generator=MusicGen(model="facebook/musicgen-small")))  # found in the same folder
    assert said is not None
    assert "mit OR apache-2.0, cc-by-nc-4.0" in said


def test_multiband_decoder_is_judged(tmp_path: Path) -> None:
    said = reason(Recipe(generator=VidMuse(model=learned_copy(tmp_path / "mine"), decoder="multiband")))
    assert said is not None
    assert "the decoder facebook/multiband-diffusion" in said


def test_own_soundfont_needs_a_file_that_states_its_license(tmp_path: Path) -> None:
    bank = Path(shutil.copy(DEFAULT_SOUNDFONT, tmp_path / "own.sf3"))
    recipe = Recipe(generator=Sketch(soundfont=str(bank)))
    said = reason(recipe)
    assert said is not None
    assert "the sound bank own.sf3 (license not stated)" in said
    assert "own.sf3.license" in said
    stated = tmp_path / "own.sf3.license"
    stated.write_text("SPDX-FileCopyrightText: 2020 Somebody\nSPDX-License-Identifier: CC-BY-NC-4.0\n")
    assert "forbids commercial use" in str(reason(recipe))
    stated.write_text("SPDX-License-Identifier: CC0-1.0\nSPDX-License-Identifier: CC-BY-NC-4.0\n")
    assert "license CC0-1.0, CC-BY-NC-4.0: it forbids commercial use" in str(reason(recipe))
    stated.write_text("SPDX-License-Identifier: CC0-1.0\n")
    assert reason(recipe) is None


def test_soundfont_of_a_score_codec_is_judged(tmp_path: Path) -> None:
    bank = Path(shutil.copy(DEFAULT_SOUNDFONT, tmp_path / "own.sf3"))
    folder = learned_copy(tmp_path / "mine", codec="codec")
    (tmp_path / "mine" / "codec").mkdir()
    config = {"model_type": "v2m-score-1", "soundfont": str(bank)}
    (tmp_path / "mine" / "codec" / "config.json").write_text(json.dumps(config))
    assert "the sound bank own.sf3" in str(reason(Recipe(generator=VidMuse(model=folder))))


@pytest.mark.parametrize(("model", "accepted"), [("mistral-7b", True), ("gemma-7b", False), ("qwen-14b", False)])
def test_tagger_is_judged_unless_the_tags_are_complete(model: str, accepted: bool) -> None:
    recipe = Recipe(tagger=LanguageModel(HeuristicTagger(), model=model), generator=Sketch())
    assert (reason(recipe) is None) == accepted
    complete = Tags("a walk", ["jazz"], ["piano"], ["calm"], ["warm"], tempo=90, key="C major")
    assert complete.is_complete
    assert reason(replace(recipe, tags=complete)) is None


def test_beat_tracker_ranker_and_watermark_are_components_where_they_take_part() -> None:
    def roles(recipe: Recipe) -> set[str]:
        return {part.role for part in licensing.recipe_components(recipe, *recipe.plugins, Controls())}

    assert roles(Recipe(generator=LicensedPlugin())) == {"generator", "beat tracker"}
    assert roles(Recipe(generator=LicensedPlugin(), align_to_cuts=False)) == {"generator"}
    assert roles(Recipe(candidates=2, rank_by="tags")) == {"sound bank", "ranker"}
    assert roles(Recipe(watermark=True)) == {"sound bank", "watermark"}
    check(Recipe(generator=LicensedPlugin(), candidates=2, rank_by="tags", watermark=True))


class Plugin:
    """A generator of somebody else, which inherits nothing."""

    def generate(self, video: Video, tags: Tags, seed: int, **options: Any) -> Soundtrack:
        return Sketch().generate(video, tags, seed)


class LicensedPlugin(Plugin):
    def components(self, controls: Controls) -> list[LicensedComponent]:
        return [LicensedComponent("generator", "theirs", "bsd-3-clause")]


def test_plugin_is_refused_unless_it_states_its_components() -> None:
    class Decomposition(Plugin):
        components = 3  # means something else there

    for plugin in (Plugin(), Decomposition()):
        name = type(plugin).__name__
        assert f"the generator {name} (license not stated)" in str(reason(Recipe(generator=plugin)))
    assert reason(Recipe(generator=LicensedPlugin())) is None


def test_hub_is_asked_only_for_a_commercial_safe_recipe(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hosted(Sketch):
        def components(self, controls: Controls) -> list[LicensedComponent]:
            return [model_component("generator", "owner/model", "generator.model")]

    def asked(*_: Any) -> RemoteRepo:
        questions.append(1)
        return RemoteRepo("owner/model", "main", "0" * 40, {}, {"license": "isc"})

    questions: list[int] = []
    monkeypatch.setattr(hub, "list_files", asked)
    (own,) = score_video(clip, generator=Hosted(), end=1).record["licenses"]
    assert (own["license"], own["commercial_use"], questions) == (None, False, [])
    (own,) = score_video(clip, generator=Hosted(), end=1, commercial_safe=True, overwrite=True).record["licenses"]
    assert (own["license"], own["commercial_use"]) == ("isc", True)


def test_components_are_listed_before_the_music_is_written(clip: Path) -> None:
    class Broken(Plugin):
        written = False

        def components(self, controls: Controls) -> list[LicensedComponent]:
            raise RuntimeError("no list")

        def generate(self, video: Video, tags: Tags, seed: int, **options: Any) -> Soundtrack:
            self.written = True
            return super().generate(video, tags, seed)

    broken = Broken()
    with pytest.raises(RuntimeError, match="no list"):
        score_video(clip, generator=broken)
    assert not broken.written


def test_weights_that_only_the_loaded_model_names_are_refused_before_music_is_written(clip: Path) -> None:
    class Late(Sketch):
        written = False

        def prepare(self, tags: Tags, controls: Controls) -> None:
            self.weights = (WeightsInfo("facebook/encodec_32khz", Path()),)

        def generate(self, *args: Any, **options: Any) -> Soundtrack:
            self.written = True
            return super().generate(*args, **options)

    late = Late()
    with pytest.raises(LicenseError, match="facebook/encodec_32khz"):
        score_video(clip, generator=late, commercial_safe=True)
    assert not late.written
    assert names(clip.parent) == ["cuts.mp4"]


def test_refusal_comes_before_the_video_is_opened(tmp_path: Path) -> None:
    with pytest.raises(LicenseError, match="facebook/musicgen-small"):
        score_video(tmp_path / "missing.mp4", recipe="musicgen", commercial_safe=True)


def test_batch_is_refused_as_a_whole(clip: Path) -> None:
    with pytest.raises(LicenseError):
        next(process_videos([clip, clip], None, load_recipe("musicgen", {"commercial_safe": True})))


def test_command_line_refuses_in_one_line_with_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(EXAMPLE), "--recipe", "musicgen", "--commercial-safe"]) == USAGE
    error = capsys.readouterr().err
    assert error.startswith("infer.py: --commercial-safe refuses the generator facebook/musicgen-small")
    assert "--generator.model" in error


def test_recipe_file_may_ask_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(list_recipes()["musicgen"].read_text() + "commercial_safe: true\n")
    assert main([str(EXAMPLE), "--recipe", str(own)]) == USAGE
    assert "--commercial-safe refuses" in capsys.readouterr().err


def test_sidecar_lists_components_with_their_licenses(clip: Path) -> None:
    record = score_video(clip, commercial_safe=True, end=1).record
    license = "MIT AND CC0-1.0 AND public-domain"
    own = {"role": "sound bank", "name": "general.sf3", "license": license, "commercial_use": True}
    assert record["licenses"] == [own]
    assert record["settings"]["commercial_safe"] is True
