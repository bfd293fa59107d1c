"""Stage 1 against a reference implementation without a cache that runs two passes per token."""

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

from tests.fixtures.tiny import yue_lm, yue_tokenizer
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Tags
from v2m.generators.yue import stage1, tokenizer
from v2m.generators.yue.prompt import LyricsSection, PromptEncoder, instrumental_sections
from v2m.generators.yue.stage1 import SectionPlan, YuESampling, generate_codes
from v2m.generators.yue.tokenizer import Tokenizer
from v2m.models.inference.sampling import gumbel_argmax
from v2m.models.inference.windows import window_seed

ALLOWED = [*range(tokenizer.FIRST_CODE, tokenizer.FIRST_CODE + 1024)]
SILENCE = 321
TAGS = Tags(genres=["pop"], instruments=["piano"], moods=["calm"])
PARTS = [LyricsSection("verse", "Staring at the sunset"), LyricsSection("chorus"), LyricsSection("outro")]
GREEDY = YuESampling(temperature=0.0)
CLOSING = 1 + 7  # EOA and [end_of_segment]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(Tokenizer(yue_tokenizer.write(tmp_path_factory.mktemp("yue") / "tokenizer.model")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yue_lm.write(tmp_path_factory.mktemp("lm"))


@pytest.fixture
def model(folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(folder).eval()


def log_probs(model: LlamaForCausalLM, ids: Sequence[int]) -> Tensor:
    """(1, 1024) of what follows `ids`, among what is allowed."""
    return model(torch.tensor([ids]), logits_to_keep=1).logits[0, :, ALLOWED].log_softmax(-1)


@torch.no_grad()
def choose(  # the plain way: every token of every context is read again
    model: LlamaForCausalLM,
    context: Sequence[int],
    alone: Sequence[int],
    *,
    scale: float,
    settings: YuESampling,
    generator: torch.Generator,
) -> int:
    """The id after `context`, of which the unconditional branch sees `alone`."""
    cond, uncond = log_probs(model, context), log_probs(model, alone)
    scores = torch.full((1, 83968), -1e9)
    scores[:, ALLOWED] = uncond + scale * (cond - uncond)
    ids = torch.LongTensor([context])
    scores = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)(ids, scores)
    if settings.temperature == 0:
        return int(scores.argmax())
    for step in (
        TemperatureLogitsWarper(settings.temperature),
        TopKLogitsWarper(settings.top_k),
        TopPLogitsWarper(settings.top_p),
    ):
        scores = step(ids, scores)
    return ALLOWED[int(gumbel_argmax(scores[:, ALLOWED], generator))]


def generate_section_uncached(
    model: LlamaForCausalLM,
    context: list[int],
    section_plan: SectionPlan,
    *,
    number: int,
    seed: int,
    settings: YuESampling,
    silence: int | None,
) -> list[int]:
    """The ids of one section's codes after `context`."""
    generator = torch.Generator().manual_seed(window_seed(seed, number))
    written: list[int] = []

    def following() -> int:
        return choose(
            model,
            context + written,
            [tokenizer.XCODEC, *written],
            scale=settings.section_cfg_scale(number),
            settings=settings,
            generator=generator,
        )

    for _ in range(section_plan.num_frames):
        written.append(following() if silence is None else tokenizer.FIRST_CODE + silence)
        written.append(following())
    return written


def generate_uncached(
    model: LlamaForCausalLM,
    prompt: PromptEncoder,
    head: list[int],
    section_plans: list[SectionPlan],
    *,
    seed: int,
    settings: YuESampling,
    silence: int | None,
) -> list[list[int]]:
    context, result = list(head), []
    for number, section_plan in enumerate(section_plans):
        context += prompt.section(section_plan.lyrics)
        ids = generate_section_uncached(
            model, context, section_plan, number=number, seed=seed, settings=settings, silence=silence
        )
        context += [*ids, tokenizer.EOA, *prompt.end_of_segment]
        result.append(ids)
    return result


def ids_of(codes: Tensor) -> list[int]:
    return (codes.T.flatten() + tokenizer.FIRST_CODE).tolist()


SETTINGS = {
    "as published": YuESampling(),
    "everything else": YuESampling(
        temperature=1.3, top_k=200, top_p=0.8, repetition_penalty=1.5, cfg_scale=0.5, first_section_cfg_scale=3.0
    ),
    "guidance in the first section": YuESampling(cfg_scale=1.0),
    "guidance after the first section": YuESampling(first_section_cfg_scale=1.0),
    "no guidance": YuESampling(cfg_scale=1.0, first_section_cfg_scale=1.0),
}


@pytest.mark.parametrize("silence", [None, SILENCE], ids=["sung", "unsung"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_generated_codes_match_uncached_reference_with_and_without_graph(
    model: LlamaForCausalLM, prompt: PromptEncoder, settings: YuESampling, silence: int | None
) -> None:
    """Over sections of unequal lengths, behind a reference; kept shapes are what a CUDA graph asks for."""
    head = prompt.head(TAGS, PARTS, torch.arange(0, 1000, 50).reshape(2, 10))
    section_plans = [SectionPlan(PARTS[0], 14), SectionPlan(PARTS[1], 9), SectionPlan(PARTS[2], 12)]
    slow = generate_uncached(model, prompt, head, section_plans, seed=3, settings=settings, silence=silence)
    for graph in (False, True):
        fast = generate_codes(
            model, prompt, head, section_plans, seed=3, sampling=settings, silence_code=silence, use_graph=graph
        )
        assert [ids_of(codes) for codes in fast] == slow, graph


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("silence", [None, SILENCE], ids=["sung", "unsung"])
def test_cuda_graph_greedy_codes_match_the_cpu(
    model: LlamaForCausalLM, prompt: PromptEncoder, silence: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Over sections, of which the first alone is guided."""
    section_plans = [SectionPlan(part, 12) for part in PARTS]
    settings = YuESampling(temperature=0.0, cfg_scale=1.0)
    expected = generate_codes(model, prompt, [1], section_plans, seed=0, sampling=settings, silence_code=silence)
    torch.nn.Module.to(model, "cuda")
    result = generate_codes(model, prompt, [1], section_plans, seed=0, sampling=settings, silence_code=silence)
    assert not caplog.records
    assert [ids_of(codes) for codes in result] == [ids_of(codes) for codes in expected]


class Blocking(nn.Module):
    """An output layer that gives no mass to what is not allowed."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.bias = torch.full((83968,), -1e9).index_fill(0, torch.tensor(ALLOWED), 0.0)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.inner(hidden) + self.bias


def test_greedy_codes_match_transformers_generate(model: LlamaForCausalLM, prompt: PromptEncoder) -> None:
    """transformers' guidance runs each branch by itself; its penalty also covers the text."""
    head = prompt.head(TAGS, PARTS)
    (codes,) = generate_codes(model, prompt, head, [SectionPlan(PARTS[0], 32)], seed=0, sampling=GREEDY)
    model.lm_head = Blocking(model.lm_head)  # pyright: ignore[reportAttributeAccessIssue]
    context = torch.tensor([head + prompt.section(PARTS[0])])
    out = model.generate(  # pyright: ignore[reportAttributeAccessIssue] - its protocol is narrower than the class
        context,
        attention_mask=torch.ones_like(context),
        do_sample=False,
        max_new_tokens=64,
        guidance_scale=1.5,
        repetition_penalty=1.1,
        eos_token_id=tokenizer.EOA,
        pad_token_id=tokenizer.EOA,
        logits_processor=LogitsProcessorList([SuppressTokensLogitsProcessor([tokenizer.EOA])]),
    )
    assert ids_of(codes) == out[0, context.shape[1] :].tolist()


@pytest.mark.parametrize("silence", [None, SILENCE], ids=["sung", "unsung"])
def test_every_section_has_its_full_length_and_valid_codes(
    model: LlamaForCausalLM, prompt: PromptEncoder, silence: int | None
) -> None:
    parts = instrumental_sections(4)
    section_plans = [SectionPlan(part, 5 + k) for k, part in enumerate(parts)]
    written = generate_codes(model, prompt, prompt.head(TAGS, parts), section_plans, seed=0, silence_code=silence)
    assert [tuple(codes.shape) for codes in written] == [(2, 5), (2, 6), (2, 7), (2, 8)]
    codes = torch.cat(written, 1)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < 1024
    assert len(codes[stage1.INSTRUMENTAL].unique()) > 10, "these are no draws"
    assert bool((codes[stage1.VOCALS] == SILENCE).all()) == (silence is not None)


def limited(model: LlamaForCausalLM, tokens_at_most: int) -> LlamaForCausalLM:
    model.config.max_position_embeddings = tokens_at_most
    return model


class ProgressLog(list[float]):
    def __call__(self, fraction: float) -> None:
        self.append(fraction)


def size(prompt: PromptEncoder, section_plan: SectionPlan) -> int:
    return len(prompt.section(section_plan.lyrics)) + 2 * section_plan.num_frames + CLOSING


@pytest.mark.parametrize("silence", [None, SILENCE], ids=["sung", "unsung"])
def test_oldest_sections_are_evicted_and_the_head_is_kept(
    model: LlamaForCausalLM, prompt: PromptEncoder, silence: int | None
) -> None:
    """There is room for the head and two sections: the third sees the second, the fourth the third."""
    head = prompt.head(TAGS, PARTS)
    section_plans = [SectionPlan(part, 16) for part in [*PARTS, LyricsSection("verse")]]
    room = len(head) + max(size(prompt, a) + size(prompt, b) for a, b in pairwise(section_plans))
    assert room < len(head) + sum(size(prompt, item) for item in section_plans[:3])
    written = generate_codes(limited(model, room), prompt, head, section_plans, seed=5, silence_code=silence)
    for number in (2, 3):
        before = section_plans[number - 1]
        previous = [*prompt.section(before.lyrics), *ids_of(written[number - 1]), tokenizer.EOA, *prompt.end_of_segment]
        context = [*head, *previous, *prompt.section(section_plans[number].lyrics)]
        expected = generate_section_uncached(
            model, context, section_plans[number], number=number, seed=5, settings=YuESampling(), silence=silence
        )
        assert ids_of(written[number]) == expected, number


def test_section_exceeding_the_context_is_rejected_before_generation(
    model: LlamaForCausalLM, prompt: PromptEncoder
) -> None:
    head = prompt.head(TAGS, PARTS)
    section_plans = [SectionPlan(PARTS[1], 10), SectionPlan(PARTS[2], 50)]
    room = len(head) + size(prompt, section_plans[1])
    fractions = ProgressLog()
    with pytest.raises(UsageError, match=rf"{len(head)} tokens and the longest section {room - len(head)}, of 1?\d\d "):
        generate_codes(limited(model, room - 1), prompt, head, section_plans, seed=0, progress=fractions)
    assert not fractions
    assert len(generate_codes(limited(model, room), prompt, head, section_plans, seed=0)) == 2


def test_same_seed_reproduces_codes_and_another_seed_changes_them(
    model: LlamaForCausalLM, prompt: PromptEncoder
) -> None:
    section_plans = [SectionPlan(part, 6) for part in PARTS[:2]]
    head = prompt.head(TAGS, PARTS)
    one, again, other = (
        [ids_of(codes) for codes in generate_codes(model, prompt, head, section_plans, seed=seed)] for seed in (1, 1, 2)
    )
    assert one == again
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert one[0] != one[1]


def test_section_codes_do_not_depend_on_the_number_of_earlier_draws(
    model: LlamaForCausalLM, prompt: PromptEncoder
) -> None:
    """The first section, of one length or another, is forgotten before the second."""
    head = prompt.head(TAGS, PARTS)
    limited(model, len(head) + size(prompt, SectionPlan(PARTS[1], 30)))
    seconds = {
        frames: ids_of(
            generate_codes(model, prompt, head, [SectionPlan(PARTS[0], frames), SectionPlan(PARTS[1], 30)], seed=4)[1]
        )
        for frames in (5, 12)
    }
    assert seconds[5] == seconds[12]


def test_progress_increases_linearly_to_one(model: LlamaForCausalLM, prompt: PromptEncoder) -> None:
    fractions = ProgressLog()
    generate_codes(model, prompt, [1], [SectionPlan(part, 4) for part in PARTS], seed=0, progress=fractions)
    assert fractions == pytest.approx([k / 12 for k in range(1, 13)])


@pytest.mark.parametrize("silence", [None, SILENCE], ids=["sung", "unsung"])
def test_each_token_is_processed_once_with_both_cfg_branches_in_one_forward(
    model: LlamaForCausalLM, prompt: PromptEncoder, silence: int | None
) -> None:
    shapes: list[tuple[int, int]] = []
    hook = model.get_submodule("model.layers.0.mlp.act_fn").register_forward_hook(
        lambda _, given, out: shapes.append(tuple(out.shape[:2]))
    )
    head = prompt.head(TAGS, PARTS)
    try:
        generate_codes(model, prompt, head, [SectionPlan(part, 5) for part in PARTS[:2]], seed=0, silence_code=silence)
    finally:
        hook.remove()
    step, count = ((2, 1), 10) if silence is None else ((2, 2), 5)
    again = 1 + CLOSING + len(prompt.section(PARTS[1])) - 1
    first = len(head) + len(prompt.section(PARTS[0])) - 1
    assert shapes == [(1, first), *[step] * count, (1, again), *[step] * count]


def test_long_prompt_is_prefilled_in_chunks(
    model: LlamaForCausalLM, prompt: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage1, "PREFILL_STEPS", 256)
    lengths: list[int] = []
    hook = model.get_submodule("model.layers.0.mlp.act_fn").register_forward_hook(
        lambda _, given, out: lengths.append(out.shape[1])
    )
    head = prompt.head(TAGS, PARTS, torch.arange(600).reshape(2, 300))
    try:
        (codes,) = generate_codes(model, prompt, head, [SectionPlan(PARTS[0], 3)], seed=0, sampling=GREEDY)
    finally:
        hook.remove()
    assert max(lengths) == 256
    assert sum(lengths) == len(head) + len(prompt.section(PARTS[0])) - 1 + 6
    (slow,) = generate_uncached(model, prompt, head, [SectionPlan(PARTS[0], 3)], seed=0, settings=GREEDY, silence=None)
    assert ids_of(codes) == slow


def test_quantized_output_layer_is_rejected(model: LlamaForCausalLM, prompt: PromptEncoder) -> None:
    packed = torch.zeros(83968 * 32 // 2, 1, dtype=torch.uint8)  # as 4-bit kernels keep it
    model.lm_head.weight = nn.Parameter(packed, requires_grad=False)
    with pytest.raises(DependencyError, match="output layer is quantized"):
        generate_codes(model, prompt, [1], [SectionPlan(PARTS[0], 3)], seed=0)


def test_repetition_penalty_counts_the_silence_code(model: LlamaForCausalLM, prompt: PromptEncoder) -> None:
    """A code that would come next does not where the penalty on what was there is high."""
    with torch.no_grad():
        model.lm_head.weight[tokenizer.FIRST_CODE + SILENCE] *= -8
    drawn = []
    for penalty in (1.0, 1e3):
        settings = YuESampling(temperature=0.0, repetition_penalty=penalty, cfg_scale=1, first_section_cfg_scale=1)
        (codes,) = generate_codes(
            model, prompt, [1], [SectionPlan(PARTS[0], 1)], seed=0, sampling=settings, silence_code=SILENCE
        )
        drawn.append(int(codes[stage1.INSTRUMENTAL, 0]))
    assert drawn[0] == SILENCE, "it would come next"
    assert drawn[1] != SILENCE


def test_used_codes_covers_only_the_first_codebook() -> None:
    first, last = tokenizer.FIRST_CODE, tokenizer.FIRST_CODE + 1023
    ids = torch.tensor([1, tokenizer.EOA, first - 1, first + 5, first + 5, last - 1, last + 1, 83967])
    assert stage1._used_codes(ids).nonzero().tolist() == [[0, 5], [0, 1022]]
