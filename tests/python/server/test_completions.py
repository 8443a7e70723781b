"""/v1/completions by OpenAI's client: what LLM gives for the same parameters, bit for bit."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from pagedcore import LLM, BeamSearchParams, SamplingParams, _core
from pagedcore.outputs import CompletionOutput
from pagedcore.server.fields import Fields
from pagedcore.server.sampling import ENDPOINTS_OWN, sampling_params

from .conftest import MODEL, Server

PROMPT = "The capital of France is"
_SAMPLED: list[dict[str, Any]] = [
    {"temperature": 0, "max_tokens": 12},
    {"temperature": 0.9, "seed": 7, "max_tokens": 12},
    {"temperature": 1.0, "seed": -3, "n": 3, "top_p": 0.9, "max_tokens": 8},
    {"temperature": 0.7, "seed": 11, "presence_penalty": 0.5, "frequency_penalty": -0.5, "max_tokens": 8},
    {"temperature": 0, "max_tokens": 40, "stop": [" is", "\n"]},
    {"temperature": 0, "max_tokens": 6, "logit_bias": {"7042": -100}},
    {"temperature": 1.0, "seed": 5, "max_tokens": 6, "n": 2, "best_of": 4},
]
_OF_VLLM: list[dict[str, Any]] = [
    {"top_k": 5, "min_p": 0.05, "repetition_penalty": 1.2, "seed": 3, "temperature": 1.0},
    {"stop_token_ids": [30], "temperature": 0},
    {"stop_token_ids": [30], "include_stop_str_in_output": True, "temperature": 0},
    {"ignore_eos": True, "min_tokens": 4, "temperature": 0},
    {"allowed_token_ids": [7042, 30, 198], "temperature": 0},
    {"banned_tokens": [7042, 30], "temperature": 0},
    {"skip_special_tokens": False, "temperature": 0},
]


def _expected(llm: LLM, **params: Any) -> list[CompletionOutput]:
    (output,) = llm.generate(PROMPT, SamplingParams(**params))
    return output.outputs


@pytest.mark.parametrize("params", [*_SAMPLED, *_OF_VLLM])
def test_tokens_text_and_end_are_llms(server: Server, llm_bf16: LLM, params: dict[str, Any]) -> None:
    known = {name: value for name, value in params.items() if params in _SAMPLED}
    more = {name: value for name, value in params.items() if params not in _SAMPLED} | {"return_token_ids": True}
    expected = _expected(llm_bf16, **{"max_tokens": 16, **params})
    answer = server.openai().completions.create(model=MODEL, prompt=PROMPT, extra_body=more, **known)
    assert [choice.text for choice in answer.choices] == [sample.text for sample in expected]
    assert [choice.token_ids for choice in answer.choices] == [sample.token_ids for sample in expected]  # type: ignore[attr-defined]
    assert [choice.finish_reason for choice in answer.choices] == [sample.finish_reason for sample in expected]
    assert [choice.stop_reason for choice in answer.choices] == [sample.stop_reason for sample in expected]  # type: ignore[attr-defined]
    assert [choice.index for choice in answer.choices] == list(range(len(expected)))
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 5
    assert answer.usage.completion_tokens == sum(len(sample.token_ids) for sample in expected)


def test_every_parameter_that_is_no_endpoints_own_is_read() -> None:
    values: dict[str, Any] = {"int": 3, "float": 0.5, "tokens": [3], "biases": {"3": 1.0}}
    defaults = SamplingParams(max_tokens=8)
    for option in _core.options_of("SamplingParams"):
        if option.name not in ENDPOINTS_OWN:
            read = sampling_params(Fields({option.name: values[option.type]}), defaults, None)
            assert getattr(read, option.name) != getattr(defaults, option.name)


def test_log_probabilities_are_llms(server: Server, llm_bf16: LLM) -> None:
    (expected,) = _expected(llm_bf16, temperature=0, max_tokens=6, logprobs=3)
    answer = server.openai().completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=6, logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and expected.logprobs is not None
    positions = list(expected.logprobs)
    assert logprobs.token_logprobs == [p[t].logprob for t, p in zip(expected.token_ids, positions, strict=True)]
    for found, position in zip(logprobs.top_logprobs or [], positions, strict=True):
        ranked = sorted(position.values(), key=lambda entry: entry.rank)[:3]
        assert list(found.items())[:3] == [(entry.decoded_token, entry.logprob) for entry in ranked]
    assert "".join(logprobs.tokens or []) == expected.text
    assert logprobs.text_offset == [expected.text.index(token) for token in logprobs.tokens or []][:1] + [
        len("".join((logprobs.tokens or [])[:at])) for at in range(1, 6)
    ]


def test_echo_scores_the_prompt(server: Server, llm_bf16: LLM) -> None:
    """What lm-eval asks: the log-likelihood of a text is the sum over its tokens."""
    text = "Paris is the capital of France."
    score = llm_bf16.score(text)
    for max_tokens in (0, 1):
        answer = server.openai().completions.create(
            model=MODEL, prompt=text, max_tokens=max_tokens, echo=True, logprobs=1, temperature=0, seed=1
        )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None and logprobs.token_logprobs is not None
        assert logprobs.token_logprobs[0] is None
        assert logprobs.token_logprobs[1 : len(score.token_ids)] == score.logprobs
        assert answer.choices[0].text.startswith(text)
        assert len(logprobs.tokens or []) == len(score.token_ids) + max_tokens


def test_prompts_of_every_form(server: Server, llm_bf16: LLM) -> None:
    ids = llm_bf16.generate(PROMPT, SamplingParams(max_tokens=1))[0].prompt_token_ids
    client = server.openai()

    def texts(prompt: Any, **more: Any) -> list[str]:
        answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=4, temperature=0, **more)
        assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
        return [choice.text for choice in answer.choices]

    (expected,) = texts(PROMPT)
    (other,) = texts("Water boils at")
    assert texts(ids) == [expected]
    assert texts([PROMPT, "Water boils at"]) == [expected, other]
    assert texts([ids, ids]) == [expected, expected]
    assert texts([PROMPT, "Water boils at"], n=2) == [expected, expected, other, other]


@pytest.mark.parametrize("prompt", [PROMPT, [PROMPT, "Water boils at"]])
def test_a_stream_is_the_whole_in_pieces(server: Server, prompt: Any) -> None:
    params: dict[str, Any] = {"n": 2, "temperature": 0.8, "seed": 9, "max_tokens": 10, "logprobs": 2}
    client = server.openai()
    whole = client.completions.create(model=MODEL, prompt=prompt, **params)
    chunks = list(
        client.completions.create(
            model=MODEL, prompt=prompt, stream=True, stream_options={"include_usage": True}, **params
        )
    )
    *chunks, last = chunks
    assert last.choices == [] and last.usage is not None and whole.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )
    assert all(chunk.usage is None for chunk in chunks)
    assert len({(chunk.id, chunk.model, chunk.created) for chunk in [*chunks, last]}) == 1
    for choice in whole.choices:
        mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert "".join(c.text for c in mine) == choice.text
        assert [c.finish_reason for c in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
        assert choice.logprobs is not None
        for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            joined = [entry for c in mine if c.logprobs for entry in getattr(c.logprobs, name)]
            assert joined == getattr(choice.logprobs, name)


def test_a_stream_echoes_once(server: Server) -> None:
    chunks = list(
        server.openai().completions.create(
            model=MODEL, prompt=PROMPT, echo=True, stream=True, max_tokens=3, temperature=0, logprobs=1
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks).startswith(PROMPT)
    assert "".join(chunk.choices[0].text for chunk in chunks).count(PROMPT) == 1
    assert len([t for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.tokens or []]) == 8


def test_beam_search_is_llms(server: Server, llm_bf16: LLM) -> None:
    (expected,) = llm_bf16.beam_search(PROMPT, BeamSearchParams(beam_width=3, max_tokens=6, length_penalty=0.5))
    more = {"use_beam_search": True, "length_penalty": 0.5}
    client = server.openai()
    answer = client.completions.create(model=MODEL, prompt=PROMPT, n=3, max_tokens=6, temperature=0, extra_body=more)
    assert [choice.text for choice in answer.choices] == [hypothesis.text for hypothesis in expected.outputs]
    texts = {0: "", 1: "", 2: ""}
    for chunk in client.completions.create(
        model=MODEL, prompt=PROMPT, n=3, max_tokens=6, temperature=0, stream=True, extra_body=more
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert list(texts.values()) == [hypothesis.text for hypothesis in expected.outputs]


def test_asynchronous_client(server: Server, llm_bf16: LLM) -> None:
    (expected,) = _expected(llm_bf16, temperature=0, max_tokens=8)

    async def run() -> list[str]:
        async with server.openai_async() as client:

            async def one(stream: bool) -> str:
                if not stream:
                    whole = await client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8)
                    return whole.choices[0].text
                chunks = await client.completions.create(
                    model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8, stream=True
                )
                return "".join([chunk.choices[0].text async for chunk in chunks])

            return await asyncio.gather(*(one(bool(at % 2)) for at in range(8)))

    assert asyncio.run(run()) == [expected.text] * 8


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, None),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [10**9]}, None),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x" * 200_000}, None),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"logprobs": 21}, "logprobs"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"logit_bias": {"x": 1}}, None),
        ({"logit_bias": {str(t): 1 for t in range(1025)}}, "logit_bias"),
        ({"seed": 2**70}, "seed"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"extra_body": {"guided_json": {"not": {}}}}, None),
        ({"extra_body": {"guided_decoding_backend": "outlines"}}, "guided_decoding_backend"),
        ({"extra_body": {"response_format": {"type": "yaml"}}}, "response_format.type"),
        ({"extra_body": {"min_p": 2}}, "min_p"),
        ({"extra_body": {"repeat_penalty": 1.1}}, "repeat_penalty"),
        ({"extra_body": {"max_new_tokens": 4}}, "max_new_tokens"),
        ({"extra_body": {"banned_tokens": [-1]}}, "banned_tokens"),
        ({"extra_body": {"prefix": "unknown"}}, None),
    ],
)
def test_what_is_wrong_is_told_before_the_headers(
    server: Server, wrong: dict[str, Any], named: str | None, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai().completions.create(**{"model": MODEL, "prompt": "Hi", "stream": stream, **wrong})
    assert caught.value.type == "invalid_request_error"
    assert named is None or caught.value.param == named


def test_best_of_cannot_be_streamed(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="best_of=3 with n=1 cannot be streamed"):
        server.openai().completions.create(model=MODEL, prompt="Hi", best_of=3, stream=True)


def test_unknown_fields_are_ignored_and_unknown_models_are_not_there(server: Server) -> None:
    client = server.openai()
    assert client.completions.create(model=MODEL, prompt="Hi", max_tokens=1, extra_body={"new_field": {"a": 1}}).choices
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-4", prompt="Hi")
    assert caught.value.code == "model_not_found"


def test_models(server: Server) -> None:
    client = server.openai()
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other/model")
