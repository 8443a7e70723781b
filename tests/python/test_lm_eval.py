"""The model that lm-eval is given, against log-probabilities and texts of LLM. lm-eval itself, with all that it needs,
is not installed for tests: two classes stand for it, as far as the adapter touches it. bench/mmlu.py runs the real
one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams

_OPTIONS = {"kv_cache_memory": "16MiB", "max_context": 64, "dtype": "float32"}


class _Model:
    def __init__(self) -> None:
        self.cached: list[tuple[str, Any, Any]] = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *what: self.cached.append(what))


@pytest.fixture(scope="module")
def evaluated() -> Iterator[Any]:
    registered: dict[str, Any] = {}

    def register_model(name: str) -> Callable[[Any], Any]:
        return lambda model: registered.setdefault(name, model)

    stand_ins = {name: ModuleType(name) for name in ("lm_eval", "lm_eval.api", "lm_eval.models")}
    stand_ins["lm_eval.api.model"] = SimpleNamespace(LM=_Model)  # type: ignore[assignment]
    stand_ins["lm_eval.api.registry"] = SimpleNamespace(register_model=register_model)  # type: ignore[assignment]
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        patch.delitem(sys.modules, "pagedcore.lm_eval", raising=False)
        importlib.import_module("pagedcore.lm_eval")
        model = registered["pagedcore"](batch_size=8, **_OPTIONS)
        yield model
        model.llm.close()
        sys.modules.pop("pagedcore.lm_eval")


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(**_OPTIONS) as llm:  # type: ignore[arg-type]
        yield llm


def _asked(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def test_loglikelihood_is_that_of_the_continuation(evaluated: Any, llm: LLM) -> None:
    (greedy,) = llm.generate("The capital of France is", SamplingParams(max_tokens=3, temperature=0))
    text = greedy.outputs[0].text
    asked = [_asked("The capital of France is", each) for each in (text, " Rome")]
    asked.append(_asked("The capital of France is ", text.lstrip()))
    found = evaluated.loglikelihood(asked, disable_tqdm=True)
    begun = len(llm.tokenize("The capital of France is"))
    for (total, _), continuation in zip(found, (text, " Rome", text), strict=True):
        assert total == pytest.approx(sum(llm.score("The capital of France is" + continuation, start=begun).logprobs))
    assert [is_greedy for _, is_greedy in found] == [True, False, True], "the space belongs to the continuation"
    assert evaluated.cached[-3:] == [
        ("loglikelihood", each.args, what) for each, what in zip(asked, found, strict=True)
    ]


def test_a_text_without_a_context_follows_the_token_that_ends_texts(evaluated: Any, llm: LLM) -> None:
    ((total, _),) = evaluated.loglikelihood([_asked("", "Hello there")], disable_tqdm=True)
    ids = [llm.end_tokens[0].id, *llm.tokenize("Hello there")]
    assert total == pytest.approx(sum(llm.score(ids, start=1).logprobs))


def test_what_is_too_long_loses_its_beginning(evaluated: Any, llm: LLM) -> None:
    context, continuation = "one two three four " * 20, "five six"
    ((total, _),) = evaluated.loglikelihood([_asked(context, continuation)], disable_tqdm=True)
    ids = llm.tokenize(context + continuation)
    count = len(ids) - len(llm.tokenize(context.rstrip()))
    assert len(ids) > 64
    assert total == pytest.approx(sum(llm.score(ids[-64:], start=64 - count).logprobs))


@pytest.mark.parametrize("tokens", [1, 62, 63, 64, 126, 127, 150])
def test_rolling_windows_score_each_token_once_with_all_the_context_that_fits(
    evaluated: Any, llm: LLM, tokens: int
) -> None:
    times = " It was the best of times, it was the worst of times, it was the age of wisdom."
    ids = llm.tokenize(times * 8)[:tokens]
    text = llm.detokenize(ids)
    assert llm.tokenize(text) == ids
    (total,) = evaluated.loglikelihood_rolling([_asked(text)], disable_tqdm=True)
    whole = [llm.end_tokens[0].id, *ids]
    expected = 0.0
    for begin in range(0, tokens, 63):  # 64 tokens are a context: one stands before those that are scored, or more
        end = min(begin + 63, tokens)
        window = whole[max(end + 1 - 64, 0) : end + 1]
        expected += sum(llm.score(window, start=len(window) - (end - begin)).logprobs)
    assert total == pytest.approx(expected)


def test_generate_until_is_greedy_and_stops(evaluated: Any, llm: LLM) -> None:
    prompt = "Count: one, two, three,"
    asked = [
        _asked(prompt, {"until": ["five"], "max_gen_toks": 12}),
        _asked(prompt, {"until": "five", "do_sample": False, "temperature": 0.9, "max_gen_toks": 12}),
        _asked(prompt, {"max_gen_toks": 5}),
        _asked(prompt, {"do_sample": True, "temperature": 0.8, "seed": 3, "max_gen_toks": 5}),
    ]
    expected = [
        SamplingParams(max_tokens=12, temperature=0, stop=["five"]),
        SamplingParams(max_tokens=12, temperature=0, stop=["five"]),
        SamplingParams(max_tokens=5, temperature=0),
        SamplingParams(max_tokens=5, temperature=0.8, seed=3),
    ]
    texts = [output.outputs[0].text for output in llm.generate([prompt] * 4, expected)]
    assert evaluated.generate_until(asked, disable_tqdm=True) == texts
    long = evaluated.generate_until([_asked("word " * 100, {"max_gen_toks": 10})], disable_tqdm=True)
    (same,) = llm.generate([llm.tokenize("word " * 100)[-54:]], SamplingParams(max_tokens=10, temperature=0))
    assert long == [same.outputs[0].text]


def test_chat_templates_are_the_models(evaluated: Any, llm: LLM) -> None:
    spoken = [{"role": "user", "content": "Hi"}]
    assert evaluated.apply_chat_template(spoken) == str(llm.chat_prompt(spoken, add_generation_prompt=True))
    answered = [*spoken, {"role": "assistant", "content": "Well"}]
    assert evaluated.apply_chat_template(answered, add_generation_prompt=False).endswith("Well")
    assert evaluated.chat_template(True) == llm.chat_template_text() and evaluated.chat_template(False) is None
    assert "/" not in evaluated.tokenizer_name


def test_a_model_has_one_name(evaluated: Any) -> None:
    with pytest.raises(InvalidArgument, match="two names of one argument"):
        type(evaluated)(model="a", pretrained="b")
