"""MusicGen as the two published libraries run it, against ours with the same weights put through the converters.

transformers masks what is not there of a text. audiocraft, and transformers' Melody, attend to zeros in its place:
there the mask is all ones over tokens of 0.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    EncodecConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    MusicgenMelodyForCausalLM,
    MusicgenMelodyForConditionalGeneration,
    T5Config,
)

from tests.fixtures.tiny import musicgen as tiny
from tests.reference.slow_models import greedy
from v2m.core.types import SamplingConfig
from v2m.mappings import audiocraft, musicgen
from v2m.models import patterns
from v2m.models.conditioning import Condition, concat
from v2m.models.music_model import MusicConfig, MusicModel

KINDS: dict[str, dict[str, bool]] = {"mono": {}, "stereo": {"stereo": True}, "melody": {"melody": True}}
TOLERANCE = 1e-4
FRAMES = 200
TEXT = torch.tensor([[5, 9, 33, 7, 1], [8, 4, 1, 0, 0]])
HEARD = (TEXT != 0).long()


def built(plain: dict[str, Any], state: dict[str, Tensor]) -> MusicModel:
    model = MusicModel(MusicConfig.from_dict(plain)).eval().requires_grad_(False)
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module", params=list(KINDS))
def composite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, MusicModel]:
    """transformers' own model, and ours."""
    kind = KINDS[request.param]
    folder = tiny.write_transformers(tmp_path_factory.mktemp("composite"), **kind)
    family = MusicgenMelodyForConditionalGeneration if kind.get("melody") else MusicgenForConditionalGeneration
    own = musicgen.split_state(load_file(folder / "model.safetensors")).music_model
    plain = musicgen.config_to_v2m(json.loads((folder / "config.json").read_text()), own)
    return family.from_pretrained(folder).eval(), built(plain, musicgen.to_v2m(own))


@pytest.fixture(scope="module", params=list(KINDS))
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, MusicModel]:
    """audiocraft's unedited `LMModel`, and ours."""
    kind = KINDS[request.param]
    package = torch.load(
        tiny.write_audiocraft(tmp_path_factory.mktemp("pair"), **kind) / "state_dict.bin", weights_only=True
    )
    settings, state = yaml.safe_load(package["xp.cfg"]), package["best_state"]
    theirs = tiny.audiocraft_model(settings, seed=1)
    theirs.load_state_dict(state)
    return theirs, built(audiocraft.config_to_v2m(settings, state), audiocraft.to_v2m(state))


def some_codes(model: MusicModel, frames: int = 60) -> Tensor:
    """(2, K, S), delayed."""
    config = model.config.lm
    codes = torch.randint(
        config.codebook_size, (2, config.num_codebooks, frames), generator=torch.Generator().manual_seed(3)
    )
    return patterns.apply_delays(codes, config.delay_pattern, config.special_token_id)


def one_hot(frames: int) -> Tensor:
    notes = torch.randint(tiny.NUM_CHROMA, (2, frames), generator=torch.Generator().manual_seed(4))
    return torch.nn.functional.one_hot(notes, tiny.NUM_CHROMA).float()


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.3, "logits that say something"
    assert (ours - theirs).abs().max() <= TOLERANCE


@torch.inference_mode()
def test_logits_equal_transformers_musicgen(composite: tuple[Any, MusicModel]) -> None:
    """From the text encoder's output on; a second, shorter text is padded. With and without the condition."""
    theirs, model = composite
    codes = some_codes(model)
    encoded = Condition(theirs.text_encoder(TEXT, attention_mask=HEARD).last_hidden_state, HEARD.bool())
    given: dict[str, Any] = {"input_ids": TEXT, "attention_mask": HEARD, "decoder_input_ids": codes.flatten(0, 1)}
    heard: Condition | None = model.project_text(encoded)
    if model.chroma is not None:
        chroma = one_hot(100)
        given["input_features"] = chroma
        assert heard is not None
        heard = concat(
            model.project_melody(chroma.repeat(1, 3, 1)[:, : tiny.CHROMA_FRAMES]), Condition.from_tokens(heard.tokens)
        )
    logits = theirs(**given).logits.unflatten(0, (2, -1))[:, :, -codes.shape[2] :]
    assert_close(model.lm(codes, heard), logits)
    alone = theirs.decoder(codes.flatten(0, 1)).logits.unflatten(0, (2, -1))
    assert_close(model.lm(codes), alone)
    assert (alone - logits).abs().max() > 100 * TOLERANCE, "the condition matters"


@torch.inference_mode()
def test_masked_prefix_tokens_have_no_effect(composite: tuple[Any, MusicModel]) -> None:
    theirs, model = composite
    memory, mask = torch.randn(2, 9, tiny.DIM, generator=torch.Generator().manual_seed(5)), torch.ones(2, 9).bool()
    mask[1, :4] = False
    codes = some_codes(model)
    given = {"encoder_hidden_states": memory, "encoder_attention_mask": mask.long()}
    logits = theirs.decoder(codes.flatten(0, 1), **given).logits.unflatten(0, (2, -1))[:, :, -codes.shape[2] :]
    assert_close(model.lm(codes, Condition(memory, mask)), logits)


@torch.inference_mode()
def test_logits_and_guidance_equal_audiocraft(original: tuple[Any, MusicModel]) -> None:
    theirs, model = original
    codes = some_codes(model)
    encoded = torch.randn(2, 5, tiny.TEXT_DIM, generator=torch.Generator().manual_seed(6))
    text = model.project_text(Condition(encoded, HEARD.bool()))
    text = Condition.from_tokens(text.tokens)
    tensors, heard = {"description": (text.tokens, HEARD)}, [text]
    if model.chroma is not None:
        melody = model.project_melody(one_hot(20))
        tensors["self_wav"] = (melody.tokens, melody.mask)
        heard = [melody, text]
    null = {name: (torch.zeros_like(tokens), torch.zeros_like(mask)) for name, (tokens, mask) in tensors.items()}
    if model.chroma is not None:  # audiocraft does not mask melodies that it repeats to one length, nor silence
        silence = model.project_melody(torch.eye(tiny.NUM_CHROMA)[:1].expand(2, 20, -1))
        null["self_wav"] = (silence.tokens, silence.mask)
    both, none = (theirs(codes, conditions=[], condition_tensors=each) for each in (tensors, null))
    assert_close(model.lm(codes, concat(*heard)), both)
    extra = {} if len(heard) == 1 else {"melody": heard[0]}
    branches = model.cfg_branches(SamplingConfig(cfg_scale=3.0), text=text, **extra)
    assert [share for share, _ in branches] == [-2.0, 3.0]
    ours = torch.stack([share * model.lm(codes, each) for share, each in branches]).sum(0)
    assert_close(ours, none + (both - none) * 3.0)


@pytest.mark.parametrize("original", ["mono", "stereo"], indirect=True)
@torch.inference_mode()
def test_greedy_codes_equal_audiocraft(original: tuple[Any, MusicModel]) -> None:
    from audiocraft.modules.conditioners import ConditioningAttributes

    theirs, model = original
    memory = torch.randn(1, 6, tiny.DIM, generator=torch.Generator().manual_seed(7))
    kept, theirs.condition_provider = theirs.condition_provider, tiny.FixedTextConditioner(memory)
    said = [ConditioningAttributes(text={"description": "calm"})]
    expected = theirs.generate(conditions=said, max_gen_len=FRAMES, use_sampling=False, cfg_coef=3.0)
    theirs.condition_provider = kept
    found = greedy(
        model.lm, model.cfg_branches(SamplingConfig(cfg_scale=3.0), text=Condition.from_tokens(memory)), FRAMES
    )
    assert torch.equal(found, expected)
    assert len(expected.unique()) > 10, "the codes vary, so that being equal says something"


@pytest.mark.parametrize("composite", ["mono", "stereo"], indirect=True)
@torch.inference_mode()
def test_greedy_codes_equal_transformers(composite: tuple[Any, MusicModel]) -> None:
    """Without its cache: with it, transformers 5.23 writes other codes than its own logits say. Nor may it be left to
    find out what is masked: it takes the code at the start for padding."""
    theirs, model = composite
    count = model.config.lm.num_codebooks
    memory = torch.randn(1, 6, tiny.DIM, generator=torch.Generator().manual_seed(7))
    last = max(model.config.lm.delay_pattern)
    out = theirs.decoder.generate(
        inputs=torch.full((count, 1), tiny.CODEBOOK_SIZE),
        encoder_hidden_states=torch.cat([memory, torch.zeros_like(memory)]),
        attention_mask=torch.ones(1, 1, dtype=torch.long),
        guidance_scale=3.0,
        do_sample=False,
        use_cache=False,
        num_return_sequences=1,
        max_new_tokens=FRAMES + last,
        pad_token_id=tiny.CODEBOOK_SIZE,
        bos_token_id=tiny.CODEBOOK_SIZE,
        decoder_start_token_id=tiny.CODEBOOK_SIZE,
    )
    expected = out.reshape(1, count, -1)
    found = greedy(
        model.lm, model.cfg_branches(SamplingConfig(cfg_scale=3.0), text=Condition.from_tokens(memory)), FRAMES
    )
    assert torch.equal(found, expected)
    assert len(expected.unique()) > 10, "the codes vary, so that being equal says something"


@pytest.mark.parametrize("kind", list(KINDS))
@torch.inference_mode()
def test_exported_checkpoint_equals_the_model_in_both_layouts(kind: str, tmp_path: Path) -> None:
    """A model that began here: our settings make their model, our weights fill it, the logits are the same."""
    melody, stereo = kind == "melody", kind == "stereo"
    torch.manual_seed(8)
    lm = {"dim": 24, "num_layers": 2, "num_heads": 2, "codebook_size": 32, "channels": 1 + stereo}
    lm["num_codebooks"] = 4 + 4 * stereo
    plain = {
        "lm": lm | {"cross_attention": not melody},
        "text_dim": tiny.TEXT_DIM,
        "num_chroma": tiny.NUM_CHROMA if melody else None,
    }
    model = MusicModel(MusicConfig.from_dict(plain)).eval()
    plain, codes = model.config.to_dict(), some_codes(model, 20)
    memory = Condition.from_tokens(torch.randn(2, 5, 24))
    ours = model.lm(codes, memory)

    settings = audiocraft.config_from_v2m(plain)
    theirs = tiny.audiocraft_model(settings)
    theirs.load_state_dict(audiocraft.from_v2m(model.state_dict()))
    said = {"description": (memory.tokens, memory.mask)}
    assert_close(ours, theirs(codes, conditions=[], condition_tensors=said))
    again = audiocraft.config_to_v2m(settings, audiocraft.from_v2m(model.state_dict()))
    assert MusicConfig.from_dict(again).to_dict() == plain | {"lm": plain["lm"] | {"ffn_dim": 96}}

    config = musicgen.config_from_v2m(plain)
    family: Any = MusicgenMelodyForCausalLM if melody else MusicgenForCausalLM
    decoder = family(family.config_class.from_dict(config)).eval()
    state = musicgen.from_v2m(model.state_dict(), composite=False)
    positions = state.pop(musicgen.POSITIONS_KEY)  # which this release of transformers computes itself
    assert torch.equal(positions, decoder.model.decoder.embed_positions.weights)
    decoder.load_state_dict(state)
    logits = decoder(codes.flatten(0, 1), encoder_hidden_states=memory.tokens).logits
    assert_close(ours, logits.unflatten(0, (2, -1))[:, :, -codes.shape[2] :])

    encoders = {"text_encoder": T5Config(d_model=tiny.TEXT_DIM).to_dict(), "audio_encoder": EncodecConfig().to_dict()}
    whole: Any = MusicgenMelodyForConditionalGeneration if melody else MusicgenForConditionalGeneration
    (tmp_path / "config.json").write_text(json.dumps(musicgen.config_from_v2m(plain, **encoders)))
    with torch.device("meta"):
        names = whole(whole.config_class.from_pretrained(tmp_path)).state_dict()
    positions = f"decoder.{musicgen.POSITIONS_KEY}"
    assert set(musicgen.from_v2m(model.state_dict())) == {*musicgen.split_state(names).music_model, positions}


def test_required_packages_import_together() -> None:
    for name in ("torch", "lightning", "audiocraft", "transformers", "decord", "wandb", "webdataset", "encodec"):
        importlib.import_module(name)
    assert issubclass(importlib.import_module("audiocraft.models.lm").LMModel, torch.nn.Module)
