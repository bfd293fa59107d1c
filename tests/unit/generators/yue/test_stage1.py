"""Stage 1 against the plainest way to write the same: the whole context again for every token, two passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    LlamaForCausalLM,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from bench.tiny import yue_lm, yue_tokenizer
from v2m.errors import UsageError
from v2m.generators.yue import stage1, tokens
from v2m.generators.yue.lyrics import Part, blank
from v2m.generators.yue.prompt import Prompt
from v2m.generators.yue.stage1 import Passage, Settings, write
from v2m.generators.yue.tokenizer import Tokenizer
from v2m.models.sampling import draw
from v2m.types import Tags

ALLOWED = [*range(tokens.FIRST_CODE, tokens.FIRST_CODE + 1024), tokens.EOA]
SILENCE = 321
TAGS = Tags(genres=["pop"], instruments=["piano"], moods=["calm"])
PARTS = [Part("verse", "Staring at the sunset"), Part("chorus"), Part("outro")]
GREEDY = Settings(temperature=0.0)
CLOSING = 1 + 7  # EOA and [end_of_segment]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Prompt:
    return Prompt(Tokenizer(yue_tokenizer.make(tmp_path_factory.mktemp("yue") / "tokenizer.model")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yue_lm.make(tmp_path_factory.mktemp("lm"))


@pytest.fixture
def model(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder).eval()


@pytest.fixture
def restless(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """A model that often wants to end."""
    with torch.no_grad():
        model.lm_head.weight[tokens.EOA] *= 12
    return model


def log_probs(model: LlamaForCausalLM, ids: Sequence[int]) -> Tensor:
    """(1, 1025) of what follows `ids`, among what is allowed."""
    return model(torch.tensor([ids]), logits_to_keep=1).logits[0, :, ALLOWED].log_softmax(-1)


@torch.no_grad()
def choose(  # the plain way: every token of every context is read again
    model: LlamaForCausalLM,
    context: Sequence[int],
    alone: Sequence[int],
    *,
    scale: float,
    settings: Settings,
    may_end: bool,
    generator: torch.Generator,
) -> int:
    """The id after `context`, of which the unconditional branch sees `alone`."""
    cond, uncond = log_probs(model, context), log_probs(model, alone)
    scores = torch.full((1, 83968), -1e9)
    scores[:, ALLOWED] = uncond + scale * (cond - uncond)
    ids = torch.LongTensor([context])
    scores = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)(ids, scores)
    if not may_end:
        scores[:, tokens.EOA] = -torch.inf
    if settings.temperature == 0:
        return int(scores.argmax())
    for step in (
        TemperatureLogitsWarper(settings.temperature),
        TopKLogitsWarper(settings.top_k),
        TopPLogitsWarper(settings.top_p),
    ):
        scores = step(ids, scores)
    return ALLOWED[int(draw(scores[:, ALLOWED], generator))]


def slowly(
    model: LlamaForCausalLM,
    context: list[int],
    passage: Passage,
    *,
    number: int,
    seed: int,
    settings: Settings,
    silence: int | None,
) -> list[int]:
    """The ids of one passage's codes after `context`."""
    generator = stage1._generator(seed, number, torch.device("cpu"))
    written: list[int] = []

    def following(may_end: bool) -> int:
        return choose(
            model,
            context + written,
            [tokens.XCODEC, *written],
            scale=settings.guidance[min(number, 1)],
            settings=settings,
            may_end=may_end,
            generator=generator,
        )

    for frame in range(passage.frames):
        may_end = frame >= max(1, passage.may_end * passage.frames)
        if silence is None or may_end:
            written.append(following(may_end))
            if written[-1] == tokens.EOA:
                return written[:-1]
        if silence is not None:
            written[2 * frame :] = [tokens.FIRST_CODE + silence]
        written.append(following(may_end=False))
    return written


def all_slowly(
    model: LlamaForCausalLM,
    prompt: Prompt,
    head: list[int],
    passages: list[Passage],
    *,
    seed: int,
    settings: Settings,
    silence: int | None,
) -> list[list[int]]:
    context, found = list(head), []
    for number, passage in enumerate(passages):
        context += prompt.section(passage.part)
        ids = slowly(model, context, passage, number=number, seed=seed, settings=settings, silence=silence)
        context += [*ids, tokens.EOA, *prompt.end_of_segment]
        found.append(ids)
    return found


def ids_of(codes: Tensor) -> list[int]:
    return (codes.T.flatten() + tokens.FIRST_CODE).tolist()


SETTINGS = {
    "as published": Settings(),
    "everything else": Settings(temperature=1.3, top_k=200, top_p=0.8, repetition_penalty=1.5, guidance=(3.0, 0.5)),
    "guidance in some sections": Settings(guidance=(1.5, 1.0)),
    "no guidance": Settings(guidance=(1.0, 1.0)),
}


@pytest.mark.parametrize("silence", [None, SILENCE], ids=["sung", "unsung"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_codes_are_those_of_reading_everything_again_for_each(
    restless: LlamaForCausalLM, prompt: Prompt, settings: Settings, silence: int | None
) -> None:
    """Over sections that end by themselves and sections that do not, behind a reference."""
    head = prompt.head(TAGS, PARTS, torch.arange(0, 1000, 50).reshape(2, 10))
    passages = [Passage(PARTS[0], 14), Passage(PARTS[1], 30, may_end=0.3), Passage(PARTS[2], 12)]
    fast = write(restless, prompt, head, passages, seed=3, settings=settings, silence=silence)
    slow = all_slowly(restless, prompt, head, passages, seed=3, settings=settings, silence=silence)
    assert [ids_of(codes) for codes in fast] == slow
    assert 9 <= fast[1].shape[1] < 30, "the second one was to end by itself"
    assert sum(map(len, slow)) >= 60


class Blocking(nn.Module):
    """An output layer that gives no mass to what is not allowed."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.bias = torch.full((83968,), -1e9).index_fill(0, torch.tensor(ALLOWED), 0.0)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.inner(hidden) + self.bias


def test_the_likeliest_codes_are_those_of_transformers_own_generation(model: LlamaForCausalLM, prompt: Prompt) -> None:
    """Its guidance runs each branch by itself; its penalty is over the text too."""
    head = prompt.head(TAGS, PARTS)
    (codes,) = write(model, prompt, head, [Passage(PARTS[0], 32)], seed=0, settings=GREEDY)
    model.lm_head = Blocking(model.lm_head)  # pyright: ignore[reportAttributeAccessIssue]
    context = torch.tensor([head + prompt.section(PARTS[0])])
    out = model.generate(  # pyright: ignore[reportAttributeAccessIssue] - its protocol is narrower than the class
        context,
        attention_mask=torch.ones_like(context),
        do_sample=False,
        max_new_tokens=64,
        guidance_scale=1.5,
        repetition_penalty=1.1,
        eos_token_id=tokens.EOA,
        pad_token_id=tokens.EOA,
        logits_processor=LogitsProcessorList([SuppressTokensLogitsProcessor([tokens.EOA])]),
    )
    assert ids_of(codes) == out[0, context.shape[1] :].tolist()


@pytest.mark.parametrize("silence", [None, SILENCE], ids=["sung", "unsung"])
def test_every_section_is_written_in_full_and_in_codes_of_the_first_codebook(
    model: LlamaForCausalLM, prompt: Prompt, silence: int | None
) -> None:
    parts = blank(4)
    passages = [Passage(part, 5 + k) for k, part in enumerate(parts)]
    written = write(model, prompt, prompt.head(TAGS, parts), passages, seed=0, silence=silence)
    assert [tuple(codes.shape) for codes in written] == [(2, 5), (2, 6), (2, 7), (2, 8)]
    codes = torch.cat(written, 1)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < 1024
    assert len(codes[stage1.REST].unique()) > 10, "these are no draws"
    assert bool((codes[stage1.VOICE] == SILENCE).all()) == (silence is not None)


@pytest.mark.parametrize("silence", [None, SILENCE], ids=["sung", "unsung"])
def test_a_section_ends_by_itself_only_after_its_fraction(
    restless: LlamaForCausalLM, prompt: Prompt, silence: int | None
) -> None:
    head = prompt.head(TAGS, PARTS)
    frames = {
        may_end: [
            write(restless, prompt, head, [Passage(PARTS[0], 40, may_end)], seed=seed, silence=silence)[0].shape[1]
            for seed in range(4)
        ]
        for may_end in (0.0, 0.5, 1.0)
    }
    assert 1 <= min(frames[0.0]) < 20
    assert 20 <= min(frames[0.5]) < 40
    assert frames[1.0] == [40] * 4


def limited(model: LlamaForCausalLM, tokens_at_most: int) -> LlamaForCausalLM:
    model.config.max_position_embeddings = tokens_at_most
    return model


class Told(list[float]):
    def __call__(self, fraction: float) -> None:
        self.append(fraction)


def size(prompt: Prompt, passage: Passage) -> int:
    return len(prompt.section(passage.part)) + 2 * passage.frames + CLOSING


@pytest.mark.parametrize("silence", [None, SILENCE], ids=["sung", "unsung"])
def test_the_oldest_sections_are_forgotten_and_the_head_never(
    model: LlamaForCausalLM, prompt: Prompt, silence: int | None
) -> None:
    """There is room for the head and two sections: the third sees the second, the fourth the third."""
    head = prompt.head(TAGS, PARTS)
    passages = [Passage(part, 16) for part in [*PARTS, Part("verse")]]
    room = len(head) + max(size(prompt, a) + size(prompt, b) for a, b in pairwise(passages))
    assert room < len(head) + sum(size(prompt, each) for each in passages[:3])
    written = write(limited(model, room), prompt, head, passages, seed=5, silence=silence)
    for number in (2, 3):
        before = passages[number - 1]
        seen = [*prompt.section(before.part), *ids_of(written[number - 1]), tokens.EOA, *prompt.end_of_segment]
        context = [*head, *seen, *prompt.section(passages[number].part)]
        expected = slowly(model, context, passages[number], number=number, seed=5, settings=Settings(), silence=silence)
        assert ids_of(written[number]) == expected, number


def test_what_cannot_fit_is_refused_before_anything_is_written(model: LlamaForCausalLM, prompt: Prompt) -> None:
    head = prompt.head(TAGS, PARTS)
    passages = [Passage(PARTS[1], 10), Passage(PARTS[2], 50)]
    room = len(head) + size(prompt, passages[1])
    told = Told()
    with pytest.raises(UsageError, match=rf"{len(head)} tokens and the longest section {room - len(head)}, of 1?\d\d "):
        write(limited(model, room - 1), prompt, head, passages, seed=0, progress=told)
    assert not told
    assert len(write(limited(model, room), prompt, head, passages, seed=0)) == 2


def test_the_same_seed_writes_the_same_and_another_something_else(model: LlamaForCausalLM, prompt: Prompt) -> None:
    passages = [Passage(part, 6) for part in PARTS[:2]]
    head = prompt.head(TAGS, PARTS)
    one, again, other = (
        [ids_of(codes) for codes in write(model, prompt, head, passages, seed=seed)] for seed in (1, 1, 2)
    )
    assert one == again
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert one[0] != one[1]


def test_a_section_does_not_depend_on_how_many_draws_came_before(model: LlamaForCausalLM, prompt: Prompt) -> None:
    """The first section, of one length or another, is forgotten before the second."""
    head = prompt.head(TAGS, PARTS)
    limited(model, len(head) + size(prompt, Passage(PARTS[1], 30)))
    seconds = {
        frames: ids_of(write(model, prompt, head, [Passage(PARTS[0], frames), Passage(PARTS[1], 30)], seed=4)[1])
        for frames in (5, 12)
    }
    assert seconds[5] == seconds[12]


def test_progress_rises_to_1(model: LlamaForCausalLM, prompt: Prompt) -> None:
    told = Told()
    write(model, prompt, [1], [Passage(part, 4) for part in PARTS], seed=0, progress=told)
    assert told == pytest.approx([k / 12 for k in range(1, 13)])


def test_the_attention_may_be_transformers_plain_one(folder: Path, model: LlamaForCausalLM, prompt: Prompt) -> None:
    eager = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    passages = [Passage(part, 12) for part in PARTS[:2]]
    one, other = (write(each, prompt, [1], passages, seed=0, silence=SILENCE) for each in (model, eager))
    assert [ids_of(codes) for codes in one] == [ids_of(codes) for codes in other]
