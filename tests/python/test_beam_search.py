"""Beam search against transformers' generate(), and what it does beside other requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from long_run import LONG_RUN
from pagedcore import LLM, BeamSearchParams, InvalidArgument, SamplingParams
from texts import PROMPTS

KV = "96MiB"


Hypothesis = tuple[list[int], float]


def of_transformers(reference: Any, prompts: list[list[int]], width: int, **settings: Any) -> list[list[Hypothesis]]:
    """Tokens and scores of all hypotheses of each prompt. All prompts in one batch, padded on the left."""
    settings = {"max_new_tokens": 24, "eos_token_id": None, "pad_token_id": 0} | settings
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        found = reference.generate(
            ids,
            attention_mask=mask,
            num_beams=width,
            num_return_sequences=width,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
            **settings,
        )
    stops = settings["eos_token_id"] or []
    hypotheses = []
    for sequence, score in zip(found.sequences[:, longest:].tolist(), _scores(found, width, longest), strict=True):
        ends = [position for position, token in enumerate(sequence) if token in stops]
        hypotheses.append((sequence[: ends[0] + 1] if ends else sequence, score))
    return [hypotheses[first : first + width] for first in range(0, len(hypotheses), width)]


def _scores(found: Any, width: int, longest: int) -> list[float]:
    if width > 1:
        return found.sequences_scores.tolist()
    # A search of one beam is a greedy one there, without scores of sequences.
    rows = torch.log_softmax(torch.stack(found.scores, 1), -1)  # [prompts, tokens, vocabulary]
    return rows.gather(2, found.sequences[:, longest:, None])[..., 0].mean(1).tolist()


_found: dict[int, list[list[Hypothesis]]] = {}  # by width: the same for every way in which we are disturbed


@pytest.fixture(scope="module", params=["undisturbed", "preempted"])
def beam_llm(request: pytest.FixtureRequest, gguf: Any) -> Iterator[LLM]:
    with LLM(gguf, dtype="float32", kv_cache_memory=KV) as llm:
        if request.param == "preempted":
            llm.engine.force_preemption(3)
        yield llm


# rule: sampling.beams-as-transformers
@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_tokens_and_scores_are_those_of_transformers(beam_llm: LLM, reference: Any, width: int) -> None:
    params = BeamSearchParams(beam_width=width, max_tokens=24, ignore_eos=True)
    prompts = PROMPTS if LONG_RUN else PROMPTS[::4]  # most of the time is the reference's
    before = beam_llm.stats()
    outputs = beam_llm.beam_search(prompts, params)
    after = beam_llm.stats()
    assert len(outputs) == (20 if LONG_RUN else 5)
    if width > 1:
        assert after["forks"] > before["forks"]
    if width not in _found:
        _found[width] = of_transformers(reference, [output.prompt_token_ids for output in outputs], width)
    for output, expected in zip(outputs, _found[width], strict=True):
        assert [hypothesis.token_ids for hypothesis in output.outputs] == [tokens for tokens, _ in expected]
        scores = [hypothesis.score for hypothesis in output.outputs]
        assert scores == pytest.approx([score for _, score in expected], abs=1e-4)
        assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1.0])
def test_early_stopping_and_length_penalty(
    llm: LLM, reference: Any, early_stopping: Any, length_penalty: float
) -> None:
    """Frequent tokens as stop tokens, so that hypotheses of many lengths compete."""
    stops = [llm.tokenizer.encode(text)[0] for text in (",", ".", " and")]  # type: ignore[union-attr]
    params = BeamSearchParams(
        beam_width=4,
        max_tokens=24,
        ignore_eos=True,
        stop_token_ids=stops,
        early_stopping=early_stopping,
        length_penalty=length_penalty,
    )
    outputs = llm.beam_search(PROMPTS[:3], params)
    settings = {"eos_token_id": stops, "early_stopping": early_stopping, "length_penalty": length_penalty}
    references = of_transformers(reference, [output.prompt_token_ids for output in outputs], 4, **settings)
    lengths = []
    for output, expected in zip(outputs, references, strict=True):
        found = [(h.token_ids, h.score) for h in output.outputs]
        assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
        # Without a penalty a score is a sum of up to 24 terms, each within 1e-4: hence also a relative tolerance.
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], rel=1e-4, abs=1e-4)
        for hypothesis in output.outputs:
            stopped = hypothesis.token_ids[-1] in stops
            assert hypothesis.finish_reason == ("stop" if stopped else "length")
            assert hypothesis.stop_reason == (hypothesis.token_ids[-1] if stopped else None)
            lengths.append(len(hypothesis.token_ids))
    # A penalty above 1 favours long hypotheses so much that all may run to the end.
    assert length_penalty > 1 or len(set(lengths)) > 1


def test_the_best_n_are_returned_with_their_text(llm: LLM) -> None:
    every = llm.beam_search("The sea", BeamSearchParams(beam_width=6, max_tokens=12))[0]
    best = llm.beam_search("The sea", BeamSearchParams(beam_width=6, max_tokens=12, n=2))[0]
    assert [h.token_ids for h in best.outputs] == [h.token_ids for h in every.outputs[:2]]
    assert best.finished and [h.index for h in best.outputs] == [0, 1]
    for hypothesis in best.outputs:
        assert hypothesis.text == llm.tokenizer.decode(hypothesis.token_ids)  # type: ignore[union-attr]
    plain = llm.beam_search("The sea", BeamSearchParams(beam_width=6, max_tokens=12, n=1, detokenize=False))[0]
    assert plain.outputs[0].text == "" and plain.outputs[0].token_ids == best.outputs[0].token_ids


def test_a_stream_never_takes_a_token_back(llm: LLM) -> None:
    params = BeamSearchParams(beam_width=4, max_tokens=32, n=2, ignore_eos=True)
    expected = llm.beam_search(PROMPTS[0], params)[0]
    tokens: dict[int, list[int]] = {0: [], 1: []}
    text = ""
    early = 0
    for news in llm.stream_beam_search(PROMPTS[0], params):
        (delta,) = news.outputs
        tokens[delta.index] += delta.token_ids
        if delta.index == 0:
            text += delta.text
            early += not delta.finished
    assert [tokens[0], tokens[1]] == [h.token_ids for h in expected.outputs]
    assert text == expected.outputs[0].text
    assert early > 0  # something came before the end


def test_a_closed_stream_ends_its_search(tiny_llm: LLM) -> None:
    stream = tiny_llm.stream_beam_search([1, 2, 3], BeamSearchParams(beam_width=4, max_tokens=200, ignore_eos=True))
    stream.close()
    tiny_llm.generate([[1, 2]], SamplingParams(max_tokens=2))  # runs after the abort was heard
    assert tiny_llm.stats()["blocks_used"] == 0


def test_everything_at_once_is_as_if_alone(llm_bf16: LLM) -> None:
    """Greedy, sampling, n samples and beams from several threads on one engine: the same bits."""
    llm = llm_bf16
    beams = BeamSearchParams(beam_width=5, max_tokens=20, ignore_eos=True)
    kinds = {
        "greedy": SamplingParams(temperature=0, max_tokens=30, logprobs=2),
        "sampling": SamplingParams(temperature=0.9, top_p=0.9, max_tokens=30, seed=3, logprobs=0),
        "samples": SamplingParams(n=4, max_tokens=20, seed=4, logprobs=0),
    }

    def run(kind: str) -> Any:
        if kind == "beams":
            return [[(h.token_ids, h.score) for h in o.outputs] for o in llm.beam_search(PROMPTS[:3], beams)]
        outputs = llm.generate(PROMPTS[:3], kinds[kind], progress=False)
        return [[(s.token_ids, s.cumulative_logprob) for s in o.outputs] for o in outputs]

    names = [*kinds, "beams"]
    alone = {name: run(name) for name in names}
    together: dict[str, Any] = {}
    threads = [threading.Thread(target=lambda name=name: together.update({name: run(name)})) for name in names * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_wide_searches(tiny_llm: LLM) -> None:
    (output,) = tiny_llm.beam_search(
        [[1, 2, 3]], BeamSearchParams(beam_width=60, max_tokens=6, ignore_eos=True), progress=False
    )
    assert len({tuple(h.token_ids) for h in output.outputs}) == 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_width": 0}, "beam_width = 0"),
        ({"beam_width": True}, "beam_width = True"),
        ({"max_tokens": 0}, "max_tokens = 0"),
        ({"n": 5}, "n = 5 is out of range: it must lie in [1, beam_width = 4]"),
        ({"n": "2"}, "n = '2'"),
        ({"length_penalty": float("nan")}, "length_penalty = nan"),
        ({"early_stopping": "sometimes"}, "early_stopping = 'sometimes'"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ],
)
def test_parameters_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message.replace("[", r"\[")):
        BeamSearchParams(**settings)


def test_sampling_options_are_none_of_a_beam_search() -> None:
    with pytest.raises(TypeError, match="temperature"):
        BeamSearchParams(temperature=0.5)  # type: ignore[call-arg]


def test_the_wrong_parameters_are_told_apart(tiny_llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="use beam_search"):
        tiny_llm.generate([[1]], BeamSearchParams())  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="takes BeamSearchParams"):
        tiny_llm.beam_search([[1]], SamplingParams())  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="2 parameters for 1 prompts"):
        tiny_llm.beam_search([[1]], [BeamSearchParams()] * 2)
    with pytest.raises(InvalidArgument, match="one prompt"):
        tiny_llm.stream_beam_search([[1]])  # type: ignore[list-item]


def test_a_width_that_cannot_fit_is_refused_with_the_arithmetic(tiny_llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="a step has at most 64"):
        tiny_llm.beam_search([[1, 2]], BeamSearchParams(beam_width=65))
    with pytest.raises(InvalidArgument, match=r"shared \+ 60 x .* KV blocks of 16 tokens, but the cache has"):
        tiny_llm.beam_search([[1, 2]], BeamSearchParams(beam_width=60, max_tokens=500))
    assert tiny_llm.stats()["blocks_used"] == 0
