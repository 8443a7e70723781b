"""What a user of LLM sees: samples, penalties, stop strings, chat, streams, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, Aborted, InvalidArgument, Io, SamplingParams, Unsupported
from pagedcore.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
PROMPT = "The capital of France is"


def text_of(llm: LLM, prompt: Any, params: SamplingParams) -> str:
    return llm.generate(prompt, params)[0].outputs[0].text


# Prompts and outputs


def test_a_text_and_its_token_ids_are_the_same_prompt(llm_bf16: LLM) -> None:
    assert llm_bf16.tokenizer is not None
    ids = llm_bf16.tokenizer.encode(PROMPT)
    by_text, by_ids = llm_bf16.generate([PROMPT, ids], GREEDY)
    assert by_text.outputs == by_ids.outputs
    assert (by_text.prompt, by_ids.prompt) == (PROMPT, None)
    assert by_text.prompt_token_ids == by_ids.prompt_token_ids == ids
    assert by_text.finished and by_text.outputs[0].finish_reason == "length"
    assert by_text.outputs[0].text == llm_bf16.tokenizer.decode(by_text.outputs[0].token_ids)
    assert by_text.metrics is not None and by_text.metrics.latency is not None
    for single in (PROMPT, ids):
        assert llm_bf16.generate(single, GREEDY)[0].outputs == by_text.outputs


def test_outputs_come_in_the_order_of_prompts(tiny_llm: LLM) -> None:
    params = [replace(GREEDY, max_tokens=20 - i) for i in range(20)]
    outputs = tiny_llm.generate([[i + 1] for i in range(20)], params)
    assert [output.prompt_token_ids for output in outputs] == [[i + 1] for i in range(20)]
    assert [len(output.outputs[0].token_ids) for output in outputs] == [20 - i for i in range(20)]


def test_no_prompts_no_outputs(tiny_llm: LLM) -> None:
    assert tiny_llm.generate([]) == []


def test_the_default_is_sixteen_tokens(tiny_llm: LLM) -> None:
    assert len(tiny_llm.generate([[1]], SamplingParams(ignore_eos=True))[0].outputs[0].token_ids) == 16


def test_max_tokens_ends_at_the_context(tiny_llm: LLM) -> None:
    for most in (None, 10_000):
        (sample,) = tiny_llm.generate([[3] * 500], SamplingParams(max_tokens=most, ignore_eos=True))[0].outputs
        assert len(sample.token_ids) == 12
        assert sample.finish_reason == "length"


def test_end_of_sequence_ends_a_sample_and_stays_out_of_the_text(llm_bf16: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=100)
    (sample,) = llm_bf16.chat([{"role": "user", "content": "Say hello."}], params)[0].outputs
    assert sample.finish_reason == "stop"
    assert sample.stop_reason is None
    assert sample.token_ids[-1] == 2
    assert "<|im_end|>" not in sample.text
    shown = replace(params, include_stop_str_in_output=True, skip_special_tokens=False)
    (other,) = llm_bf16.chat([{"role": "user", "content": "Say hello."}], shown)[0].outputs
    assert other.text == sample.text + "<|im_end|>"


def test_stop_tokens(tiny_llm: LLM) -> None:
    free = tiny_llm.generate([[5, 6]], GREEDY)[0].outputs[0].token_ids
    stop = free[4]
    first = free.index(stop)
    (sample,) = tiny_llm.generate([[5, 6]], replace(GREEDY, stop_token_ids=[stop]))[0].outputs
    assert sample.token_ids == free[: first + 1]
    assert (sample.finish_reason, sample.stop_reason) == ("stop", stop)
    (later,) = tiny_llm.generate([[5, 6]], replace(GREEDY, stop_token_ids=[stop], min_tokens=10))[0].outputs
    assert stop not in later.token_ids[:10]


def test_stop_strings_cut_the_text_and_keep_the_tokens(llm_bf16: LLM) -> None:
    free = text_of(llm_bf16, PROMPT, GREEDY)
    for start in (3, 7, 12):  # inside words: token boundaries do not matter
        stop = free[start : start + 6]
        params = replace(GREEDY, stop=stop)
        (sample,) = llm_bf16.generate(PROMPT, params)[0].outputs
        at = free.index(stop)
        assert sample.text == free[:at]
        assert (sample.finish_reason, sample.stop_reason) == ("stop", stop)
        assert text_of(llm_bf16, PROMPT, replace(params, include_stop_str_in_output=True)) == free[: at + len(stop)]
        assert llm_bf16.tokenizer is not None
        assert llm_bf16.tokenizer.decode(sample.token_ids).startswith(free[: at + len(stop)])
        streamed = "".join(news.outputs[0].text for news in llm_bf16.stream(PROMPT, params))
        assert streamed == sample.text
    assert not llm_bf16.engine.busy or llm_bf16.generate([PROMPT], GREEDY)  # the cut requests were ended


def test_stop_strings_of_several_samples_end_each(llm_bf16: LLM) -> None:
    params = SamplingParams(n=3, temperature=1.0, seed=1, max_tokens=40, stop=["a", "e"], ignore_eos=True)
    for sample in llm_bf16.generate(PROMPT, params)[0].outputs:
        assert sample.finish_reason == "stop"
        assert "a" not in sample.text and "e" not in sample.text


def test_samples_share_their_prompt(llm_bf16: LLM) -> None:
    params = SamplingParams(n=4, temperature=1.0, seed=2, max_tokens=12, logprobs=1)
    (output,) = llm_bf16.generate(PROMPT, params)
    assert [sample.index for sample in output.outputs] == [0, 1, 2, 3]
    assert len({sample.text for sample in output.outputs}) > 1
    for sample in output.outputs:
        assert sample.logprobs is not None
        chosen = [entry[token].logprob for entry, token in zip(sample.logprobs, sample.token_ids, strict=True)]
        assert sample.cumulative_logprob == pytest.approx(sum(chosen))


def test_seeds(gguf: Path, tiny_llm: LLM, tiny: Any) -> None:
    params = SamplingParams(temperature=1.5, max_tokens=16, ignore_eos=True)
    seeded = replace(params, seed=9)
    assert tiny_llm.generate([[1]], seeded)[0].outputs == tiny_llm.generate([[1]], seeded)[0].outputs
    found = []
    for seed in (0, 0, 1):
        with LLM(tiny("llama")[0], kv_cache_memory="1MiB", seed=seed) as llm:
            found.append([output.outputs[0].token_ids for output in llm.generate([[1], [1]], params)])
    assert found[0] == found[1] != found[2]
    assert found[0][0] != found[0][1]  # requests differ


def test_penalties_bias_and_token_lists(tiny_llm: LLM) -> None:
    def tokens(**changes: Any) -> list[int]:
        return tiny_llm.generate([[8, 9]], replace(GREEDY, **changes))[0].outputs[0].token_ids

    free = tokens()
    assert len(set(tokens(presence_penalty=2.0, frequency_penalty=2.0, repetition_penalty=5.0))) >= len(set(free))
    assert len(set(tokens(repetition_penalty=1e6))) == 24  # nothing occurs twice
    assert free[0] not in tokens(banned_tokens=[free[0]])
    assert set(tokens(allowed_token_ids=[3, 4])) <= {3, 4}
    assert set(tokens(logit_bias={7: 100.0})) == {7}
    assert tokens(logit_bias={free[0]: -100.0})[0] != free[0]


def test_log_probabilities_of_the_whole_vocabulary(tiny_llm: LLM) -> None:
    from math import exp

    (output,) = tiny_llm.generate([[1, 2]], replace(GREEDY, max_tokens=2, logprobs=-1, prompt_logprobs=-1))
    assert output.prompt_logprobs is not None and output.outputs[0].logprobs is not None
    for position in [*output.prompt_logprobs[1:], *output.outputs[0].logprobs]:
        assert position is not None and len(position) == 320
        assert sum(exp(entry.logprob) for entry in position.values()) == pytest.approx(1, abs=1e-4)
        assert sorted(entry.rank for entry in position.values()) == list(range(1, 321))


def test_prefixes_are_cached(llm_bf16: LLM) -> None:
    prompt = PROMPT * 20
    llm_bf16.engine.clear_prefix_cache()
    first, second = (llm_bf16.generate(prompt, GREEDY)[0] for _ in range(2))
    assert first.num_cached_tokens == 0
    assert second.num_cached_tokens >= len(second.prompt_token_ids) - 32
    assert first.outputs == second.outputs


# Chat


def test_chat_equals_the_template_of_transformers(llm_bf16: LLM, reference_tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Wie geht's?  \n"},
    ]
    for add in (True, False):
        expected = reference_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add)
        assert llm_bf16.chat_prompt(messages, add_generation_prompt=add) == expected
    (output,) = llm_bf16.chat(messages, GREEDY)
    ids = reference_tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert output.prompt_token_ids == ids
    assert llm_bf16.chat([messages, messages[:2]], GREEDY)[0].outputs == output.outputs
    streamed = "".join(news.outputs[0].text for news in llm_bf16.stream_chat(messages, GREEDY))
    assert streamed == output.outputs[0].text


def test_chat_templates_of_ones_own(llm_bf16: LLM) -> None:
    template = "{{ bos_token }}{% for m in messages %}\n  {{ m['content'] | tojson }}{% endfor %}{{ style }}"
    shown = llm_bf16.chat_prompt(
        [{"role": "user", "content": "<ü>"}], chat_template=template, template_variables={"style": "!"}
    )
    assert shown == '<|im_start|>  "<ü>"!'  # blocks eat the line end after them; JSON is not made safe for HTML


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for %}", "not valid Jinja"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages[5].content.x }}", "failed"),
    ],
)
def test_chat_templates_that_fail_say_why(llm_bf16: LLM, template: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        llm_bf16.chat_prompt([{"role": "user", "content": "x"}], chat_template=template)


@pytest.mark.parametrize("messages", [[], "hello", {"role": "user"}, [{"content": "x"}], [3]])
def test_conversations_that_are_none_are_refused(llm_bf16: LLM, messages: Any) -> None:
    with pytest.raises(InvalidArgument):
        llm_bf16.chat(messages)


# Streams


def test_a_stream_is_the_whole_in_pieces(llm_bf16: LLM) -> None:
    whole = llm_bf16.generate(PROMPT, GREEDY)[0].outputs[0]
    pieces = list(llm_bf16.stream(PROMPT, GREEDY))
    assert "".join(piece.outputs[0].text for piece in pieces) == whole.text
    assert [token for piece in pieces for token in piece.outputs[0].token_ids] == whole.token_ids
    assert [piece.finished for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert len(pieces) > 1
    assert pieces[-1].metrics is not None and pieces[-1].metrics.time_to_first_token is not None


def test_streams_interleave(tiny_llm: LLM) -> None:
    expected = [output.outputs[0].token_ids for output in tiny_llm.generate([[i] for i in range(5)], GREEDY)]
    streams = [tiny_llm.stream([i], GREEDY) for i in range(5)]
    found: list[list[int]] = [[] for _ in streams]
    for round_of_news in zip_longest(*streams):  # news that was joined makes fewer rounds
        for tokens, news in zip(found, round_of_news, strict=True):
            tokens += news.outputs[0].token_ids if news is not None else []
    assert found == expected


def test_a_stream_that_is_left_ends_its_request(tiny_llm: LLM) -> None:
    long = SamplingParams(max_tokens=400, ignore_eos=True)
    with tiny_llm.stream([1], long) as stream:
        next(stream)
    assert list(stream) == []
    dropped = tiny_llm.stream([2], long)
    next(dropped)
    del dropped
    tiny_llm.generate([[3]], GREEDY)  # drains
    assert not tiny_llm.engine.busy


# What is refused


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 0},
        {"n": 65537},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "hot"},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"top_k": -2},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"min_tokens": 17},
        {"presence_penalty": 2.1},
        {"frequency_penalty": -3},
        {"repetition_penalty": 0.0},
        {"logprobs": -2},
        {"prompt_logprobs": True},
        {"seed": 2**64},
        {"stop": ["", "x"]},
        {"stop": [b"x"]},
        {"stop": "x", "detokenize": False},
        {"stop_token_ids": [-1]},
        {"stop_token_ids": ["a"]},
        {"banned_tokens": 5},
        {"allowed_token_ids": [2**31]},
        {"logit_bias": {1: float("nan")}},
        {"logit_bias": [(1, 2)]},
    ],
    ids=str,
)
def test_parameters_out_of_range_name_the_value(changes: dict[str, Any]) -> None:
    name = next(iter(changes))
    with pytest.raises(InvalidArgument, match=name):
        SamplingParams(**changes)


def test_unknown_parameters_are_named() -> None:
    with pytest.raises(InvalidArgument, match="temprature"):
        SamplingParams.from_dict({"temprature": 1.0})
    assert SamplingParams.from_dict({"n": 2}) == SamplingParams(n=2)


@pytest.mark.parametrize(
    "prompts", [[[]], [[1, -1]], [[1, 320]], [["a"]], [[1.5]], [None], 5, None, b"x", [{"a": 1}], [[True]], ["text"]]
)
def test_prompts_that_are_none_are_refused(tiny_llm: LLM, prompts: Any) -> None:
    with pytest.raises(InvalidArgument):
        tiny_llm.generate(prompts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"banned_tokens": [320]}, "320"),
        ({"allowed_token_ids": [400]}, "400"),
        ({"stop_token_ids": [320]}, "320"),
        ({"logit_bias": {999: 1.0}}, "999"),
        ({"logprobs": 321}, "321"),
        ({"allowed_token_ids": []}, "empty"),
        ({"stop": "x"}, "tokenizer"),
    ],
)
def test_parameters_that_do_not_fit_the_model(tiny_llm: LLM, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        tiny_llm.generate([[1]], SamplingParams(**changes))


def test_a_bad_prompt_among_good_ones_runs_none(tiny_llm: LLM) -> None:
    before = tiny_llm.stats()
    with pytest.raises(InvalidArgument, match="leaves no room"):
        tiny_llm.generate([[1], [1] * 513], GREEDY)
    with pytest.raises(InvalidArgument, match="2 parameters for 1 prompts"):
        tiny_llm.generate([[1]], [GREEDY, GREEDY])
    assert not tiny_llm.engine.busy
    assert tiny_llm.stats()["tokens_sampled"] == before["tokens_sampled"]


def test_a_request_that_could_never_fit_is_refused_with_the_arithmetic(tiny: Any) -> None:
    with LLM(tiny("llama")[0], num_blocks=4) as llm:
        with pytest.raises(InvalidArgument, match=r"\d+ blocks|\d+ tokens"):
            llm.generate([[1] * 10, [1] * 100], SamplingParams(max_tokens=20))
        # Only the second is too large, by its number of samples: the first does not start either.
        with pytest.raises(InvalidArgument, match="17 KV blocks of 16 tokens, but the cache has 4"):
            llm.generate([[1], [1] * 20], [GREEDY, SamplingParams(n=8, max_tokens=20)])
        assert llm.stats()["steps"] == 0
        assert llm.generate([[1]], GREEDY)[0].outputs[0].finish_reason == "length"
        assert not llm.engine.busy


def test_one_request_that_fails_does_not_fail_the_others(tiny_llm: LLM) -> None:
    impossible = replace(GREEDY, allowed_token_ids=[5], banned_tokens=[5])
    good, bad, other = tiny_llm.generate([[1], [2], [3]], [GREEDY, impossible, GREEDY])
    assert bad.outputs[0].finish_reason == "error" and bad.error
    assert good.outputs[0].finish_reason == other.outputs[0].finish_reason == "length"
    assert good.error is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "tpu"}, InvalidArgument, "use cpu, cuda or cuda:<index>"),
        ({"device": "cuda:x"}, InvalidArgument, "cuda:x"),
        ({"device": "cuda", "dtype": "float32"}, Unsupported, "bfloat16 or float16"),
        ({"device": "cuda"}, Unsupported, "the CUDA backend is not available: .*; .*use device cpu"),
        ({"dtype": "float16"}, Unsupported, "float32 or bfloat16"),
        ({"kv_cache_dtype": "fp8"}, Unsupported, "kv_cache_dtype = 'fp8' on device = 'cpu'"),
        ({"kv_cache_dtype": "fp4"}, InvalidArgument, "kv_cache_dtype = 'fp4' is not one of auto, fp8, int8"),
        ({"cublas_lt": True}, Unsupported, "cublas_lt = true on device = 'cpu'"),
        ({"dtype": "float8"}, InvalidArgument, "float8"),
        ({"block_size": 0}, InvalidArgument, "block_size"),
        ({"threads": -1}, InvalidArgument, "threads"),
        ({"kv_cache_memory": "many"}, InvalidArgument, "many"),
        ({"kv_cache_memory": 10}, InvalidArgument, "block"),
        ({"kv_cache_memory": "1MB", "num_blocks": 3}, InvalidArgument, "one of them"),
        ({"isa": "mmx"}, InvalidArgument, "mmx"),
        ({"seed": "x"}, InvalidArgument, "seed"),
        ({"tokenizer": "/nonexistent"}, Io, "nonexistent"),
    ],
    ids=str,
)
def test_options_that_cannot_be_served(tiny: Any, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        LLM(tiny("llama")[0], **options)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(Io, match=r"no-such\.gguf"):
        LLM(tmp_path / "no-such.gguf")


def test_a_tokenizer_of_ones_own(tiny: Any, llm_bf16: LLM) -> None:
    assert llm_bf16.tokenizer is not None
    with LLM(tiny("llama", vocab_size=49152)[0], kv_cache_memory="1MiB", tokenizer=llm_bf16.tokenizer) as llm:
        assert isinstance(llm.tokenizer, Tokenizer)
        assert llm.generate("Hello", GREEDY)[0].outputs[0].text


def test_memory_is_arithmetic(tiny: Any) -> None:
    folder, _ = tiny("llama")
    options: dict[str, Any] = {"num_blocks": 50, "block_size": 8, "threads": 1}
    plan = LLM.plan(folder, **options)
    with LLM(folder, **options) as llm:
        assert llm.memory_plan() == plan
    assert plan.kv_tokens == 400
    assert plan.kv_block == 8 * 3 * 2 * 2 * 16 * 4  # tokens, layers, K and V, KV heads, head dimension, float32
    assert plan.total == plan.weights + plan.activations + 50 * plan.kv_block + plan.requests
    assert f"{plan.kv_tokens:,}" in str(plan)
    narrow = LLM.plan(folder, **options, kv_cache_dtype="int8")
    assert narrow.kv_block == 8 * 3 * 2 * 2 * (16 + 4)  # a code of one byte, and a scale for each token and head
    bigger = LLM.plan(folder, kv_cache_memory="1MiB", block_size=8)
    assert bigger.kv_cache <= 2**20 < bigger.kv_cache + bigger.kv_block


def test_use_after_close(tiny: Any) -> None:
    llm = LLM(tiny("llama")[0], kv_cache_memory="1MiB")
    stream = llm.stream([1], SamplingParams(max_tokens=None, ignore_eos=True))
    llm.close()
    llm.close()
    with pytest.raises(Aborted):
        list(stream)
    for use in (lambda: llm.generate([[1]]), lambda: llm.stream([1]), lambda: llm.score([1, 2]), llm.stats):
        with pytest.raises(Aborted):
            use()
    assert "closed" in repr(llm)
