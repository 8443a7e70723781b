"""Outputs that are held to a form. References: jsonschema and re for what is valid; transformers with the tokens that a
search by hand allows, for which tokens those are."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from typing import Any

import jsonschema
import pytest

from pagedcore import LLM, AsyncLLM, BeamSearchParams, InvalidArgument, SamplingParams, StructuredOutputs
from pagedcore.grammar import grammars, library

ANIMAL = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "legs": {"type": "integer", "minimum": 0, "maximum": 100},
        "kind": {"enum": ["bird", "fish", None]},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,6}$"}, "maxItems": 2},
    },
    "required": ["name", "legs", "kind"],
    "additionalProperties": False,
}
PROMPT = "The animal, in JSON:"


def held(**what: Any) -> SamplingParams:
    return SamplingParams(max_tokens=120, temperature=0.8, seed=5, structured_outputs=what)


# --------------------------------------------------------------------------------------------------------------------
# What may be asked


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({}, "takes one of json, .*, and has none"),
        ({"regex": "a", "json": {}}, "has json and regex"),
        ({"regexp": "a"}, "has no 'regexp'; it has json"),
        ({"regex": 5}, "regex=5 must be a text"),
        ({"regex": "a\0"}, "zero character"),
        ({"regex": "a", "bounded": True}, "bounded=True is for json and json_object, and this is regex"),
        ({"json": {"$schema": "http://json-schema.org/draft-03/schema#"}}, "of draft 3 .*only drafts from 4 on"),
        ({"choice": "yes"}, "choice='yes' must be a list"),
        ({"choice": ["a", ""]}, "non-empty texts"),
        ({"choice": ["a"] * 10_001}, "10001 texts: 10000 are allowed"),
        ({"json": "{"}, "json is a text that is no JSON"),
        ({"json": [1]}, "must be a JSON object"),
        ({"json": False}, "false allows nothing"),
        ({"json": {"enum": [float("nan")]}}, "not one that JSON can write"),
        ({"json": {"patternProperties": {f"^{i}": {} for i in range(65)}}}, "65 patterns .*: 64 are allowed"),
        ({"grammar": "x" * ((1 << 20) + 1)}, "1048577 characters: 1048576 are allowed"),
        ({"structural_tag": 3}, "structural_tag=3 must be a JSON object"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_asked_wrongly_is_told_without_a_model(what: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        SamplingParams(structured_outputs=what)


def test_a_form_is_a_mapping_or_an_object_and_contradicts_ignore_eos() -> None:
    params = SamplingParams(structured_outputs={"regex": "a+"})
    assert params == SamplingParams(structured_outputs=StructuredOutputs(regex="a+"))
    assert StructuredOutputs(json={"type": "object"}).source == StructuredOutputs(json='{"type": "object"}').source
    for kind in (SamplingParams, BeamSearchParams):
        with pytest.raises(InvalidArgument, match="ignore_eos=True contradicts structured_outputs"):
            kind(structured_outputs={"regex": "a"}, ignore_eos=True)


# --------------------------------------------------------------------------------------------------------------------
# What comes out


def text_of(llm: LLM, params: SamplingParams, prompt: str = PROMPT) -> str:
    (output,) = llm.generate(prompt, params)
    (sample,) = output.outputs
    assert sample.finish_reason == "stop", (sample.finish_reason, sample.error, sample.text)
    return sample.text


def test_outputs_are_of_their_form(llm: LLM) -> None:
    animal = json.loads(text_of(llm, held(json=ANIMAL)))
    jsonschema.validate(animal, ANIMAL)
    assert re.fullmatch(r"[0-9]{3}-[a-f]{2,5}x", text_of(llm, held(regex=r"[0-9]{3}-[a-f]{2,5}x")))
    assert text_of(llm, held(choice=["größe", 'a "quoted"\ntext'])) in ("größe", 'a "quoted"\ntext')
    assert -99 <= json.loads(text_of(llm, held(json={"type": "integer", "minimum": -99, "maximum": 99}))) <= 99
    assert re.fullmatch(r"(ab){1,2};", text_of(llm, held(grammar='root ::= pair pair? ";"\npair ::= "a" "b"\n')))
    assert re.fullmatch(r"x[0-9]{1,3}", text_of(llm, held(grammar='start: "x" /[0-9]{1,3}/')))
    compact = text_of(llm, held(json={**ANIMAL, "properties": {**ANIMAL["properties"]}}, disable_any_whitespace=True))
    assert json.dumps(json.loads(compact), separators=(",", ":"), ensure_ascii=False) == compact


def test_a_trigger_begins_a_structure(llm: LLM) -> None:
    tag = {
        "triggers": ["<call="],
        "structures": [{"begin": "<call=f>", "schema": {"type": "integer"}, "end": "</call>"}],
    }
    text = " Use this: <call=f>12</call> or <call=f>3</call> or"
    params = SamplingParams(max_tokens=60, temperature=0, structured_outputs={"structural_tag": tag})
    (output,) = llm.generate("Write <call=f>12</call>.\nWrite <call=f>" + text * 3 + " <call=f>", params)
    free, *calls = output.outputs[0].text.split("<call=")
    for call in calls[:-1]:
        assert re.match(r"f>-?[0-9]+</call>", call), calls
    assert free is not None


def test_every_sample_is_held_and_streams_add_up(llm: LLM) -> None:
    params = SamplingParams(n=4, max_tokens=100, temperature=1.0, seed=1, structured_outputs={"json": ANIMAL})
    (output,) = llm.generate(PROMPT, params)
    texts = {sample.text for sample in output.outputs if sample.finish_reason == "stop"}
    assert len(texts) > 1
    for text in texts:
        jsonschema.validate(json.loads(text), ANIMAL)
    streamed = ["", "", "", ""]
    for news in llm.stream(PROMPT, params):
        for sample in news.outputs:
            streamed[sample.index] += sample.text
    assert streamed == [sample.text for sample in output.outputs]


def choices_by_hand(llm: LLM, texts: list[str]) -> Any:
    """For generate(prefix_allowed_tokens_fn): tokens by which what has come begins one of the texts."""
    vocabulary = [llm.tokenizer.token_bytes(token) for token in range(llm.description.vocab_size)]
    ends = [end.id for end in llm.end_tokens]
    whole = [text.encode() for text in texts]
    within = [
        (token, spelled)
        for token, spelled in enumerate(vocabulary)
        if spelled and not llm.tokenizer.is_special(token) and any(spelled in text for text in whole)
    ]

    def allowed(sofar: bytes) -> list[int]:
        rest = [text[len(sofar) :] for text in whole if text.startswith(sofar)]
        tokens = [token for token, spelled in within if any(text.startswith(spelled) for text in rest)]
        return sorted(set(tokens) | set(ends if b"" in rest else ()))

    return vocabulary, allowed


TEXTS = ["a red house", "a reddish horse", "the river", "a", "green grass grows", "red", "reds", "the rivers"]


def test_tokens_and_scores_are_those_of_transformers(llm: LLM, reference: Any) -> None:
    import torch

    vocabulary, allowed = choices_by_hand(llm, TEXTS)
    prompt = llm.tokenize("Here is what I painted:")

    def fn(_: int, ids: Any) -> list[int]:
        sofar = b"".join(vocabulary[token] for token in ids.tolist()[len(prompt) :])
        return allowed(sofar)

    ends = [end.id for end in llm.end_tokens]
    given = torch.tensor([prompt])
    common = {"prefix_allowed_tokens_fn": fn, "eos_token_id": ends, "pad_token_id": ends[0], "do_sample": False}
    greedy = reference.generate(given, max_new_tokens=12, attention_mask=torch.ones_like(given), **common)
    (output,) = llm.generate(
        {"prompt_token_ids": prompt},
        SamplingParams(max_tokens=12, temperature=0, logprobs=0, structured_outputs={"choice": TEXTS}),
    )
    sample = output.outputs[0]
    assert sample.token_ids == greedy[0, len(prompt) :].tolist()
    with torch.inference_mode():  # of the model itself: what was not allowed counts too
        logits = reference(greedy[:, :-1]).logits[0, len(prompt) - 1 :].double()
    want = logits.log_softmax(-1).gather(1, greedy[0, len(prompt) :, None])[:, 0]
    got = [position[token].logprob for position, token in zip(sample.logprobs, sample.token_ids, strict=True)]
    assert got == pytest.approx(want.tolist(), abs=1e-3)  # two implementations in float32

    beams = reference.generate(
        given,
        max_new_tokens=12,
        num_beams=3,
        num_return_sequences=2,
        attention_mask=torch.ones_like(given),
        return_dict_in_generate=True,
        output_scores=True,
        **common,
    )
    (output,) = llm.beam_search(
        {"prompt_token_ids": prompt},
        BeamSearchParams(beam_width=3, n=2, max_tokens=12, structured_outputs={"choice": TEXTS}),
    )
    for ours, ids, score in zip(output.outputs, beams.sequences, beams.sequences_scores, strict=True):
        tokens = ids[len(prompt) :].tolist()
        assert ours.token_ids == tokens[: len(ours.token_ids)]
        assert ours.score == pytest.approx(float(score), abs=1e-3)
        assert ours.text in TEXTS


def test_preempted_requests_give_the_same(gguf: Any) -> None:
    params = SamplingParams(n=2, max_tokens=48, temperature=1.0, seed=3, structured_outputs={"json": ANIMAL})
    with LLM(gguf, kv_cache_memory="32MiB") as llm:
        wanted = [s.token_ids for s in llm.generate(PROMPT, params)[0].outputs]
        llm.engine.force_preemption(3)
        assert [s.token_ids for s in llm.generate(PROMPT, params)[0].outputs] == wanted
        assert llm.stats()["preemptions_recompute"] > 0


# --------------------------------------------------------------------------------------------------------------------
# Jumping ahead


def order_schema() -> dict[str, Any]:
    short = {"type": "string", "maxLength": 12}
    address = {"street_name": short, "house_number": {"type": "integer", "minimum": 1, "maximum": 999}, "city": short}
    order = {
        "customer_identifier": {"type": "integer", "minimum": 0, "maximum": 9999},
        "shipping_address": closed(address),
        "delivery_confirmed": {"type": "boolean"},
        "payment_method": {"enum": ["invoice", "credit_card"]},
    }
    return closed(order)


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def test_what_leaves_no_choice_is_computed_in_chunks_and_nothing_else_shows(gguf: Any) -> None:
    """Against an engine that draws each token: prompts of their own, samples, streams, stops and limits."""
    prompts = [f"Order number {i}, in JSON:" for i in range(4)]
    requests = []
    for fixed_spelling in (False, True):
        form = {"json": order_schema(), "fixed_spelling": fixed_spelling}
        common: dict[str, Any] = {"max_tokens": 160, "temperature": 0.9, "structured_outputs": form}
        requests += [
            SamplingParams(**common, seed=1, logprobs=2),
            SamplingParams(**common, seed=2, n=2, repetition_penalty=1.1),
            SamplingParams(**common, seed=3, stop=["_number"], logprobs=0),
            SamplingParams(**common | {"max_tokens": 9, "temperature": 0}, logprobs=1, min_tokens=5),
        ]
    seen, steps, jumped = [], [], []
    for jump_ahead in (True, False):
        with LLM(gguf, kv_cache_memory="32MiB", jump_ahead=jump_ahead) as llm:
            outputs = llm.generate(prompts * 2, requests)
            streamed = ["", ""]
            for news in llm.stream(prompts[1], requests[5]):
                for sample in news.outputs:
                    streamed[sample.index] += sample.text
            assert streamed == [sample.text for sample in outputs[5].outputs]
            llm.engine.force_preemption(3)
            again = llm.generate(prompts * 2, requests)
            seen.append([(s.token_ids, s.text, s.logprobs, s.finish_reason) for o in outputs for s in o.outputs])
            assert seen[-1] == [(s.token_ids, s.text, s.logprobs, s.finish_reason) for o in again for s in o.outputs]
            stats = llm.stats()
            steps.append(stats["steps"])
            jumped.append(stats["tokens_jumped"])
    assert seen[0] == seen[1]
    assert jumped[0] > 100 and jumped[1] == 0
    assert steps[0] < steps[1]
    whole = [text for _, text, _, finish in seen[0] if finish == "stop" and text.endswith("}")]
    assert len(whole) >= 4
    for text in whole:
        jsonschema.validate(json.loads(text), order_schema())


# Without a bound a small model goes on and on with each of these.
UNBOUNDED: list[Any] = [
    True,
    {"type": "object"},
    {"type": "number"},
    {"type": "number", "exclusiveMinimum": 3},
    {"type": "array"},
    {"type": "array", "minItems": 6, "items": {"type": "string", "pattern": "^a+$"}},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": {"type": "object"}},
    {"properties": {"a": {}, "b": {"type": ["array", "string"]}}, "required": ["a"]},
    {"minimum": 1.5},
    {"allOf": [{"minimum": 20}, {"maximum": 30}]},
    {"anyOf": [{"type": "string", "format": "email"}, {"$ref": "#/$defs/x"}], "$defs": {"x": {"items": {}}}},
    {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string", "maxLength": 9}, "maxItems": 3}]},
    {"type": "object", "required": ["name"], "properties": {"x": {}}, "additionalProperties": {"type": "string"}},
    {"type": "string", "minLength": 70},
    {"type": "object", "patternProperties": {"^[a-z]{1,5}$": {"type": "integer"}}, "minProperties": 2},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "^x{80}$"}}, "required": ["a"]},
]


def test_bounded_outputs_end_and_are_valid(llm_bf16: LLM) -> None:
    """Within 512 tokens, all but one: parts of oneOf are not bounded."""
    params = [
        SamplingParams(max_tokens=512, temperature=0.7, seed=4, structured_outputs={"json": schema, "bounded": True})
        for schema in UNBOUNDED
    ]
    outputs = llm_bf16.generate(["A short document in JSON:"] * len(params), params)
    ends = []
    for schema, output in zip(UNBOUNDED, outputs, strict=True):
        (sample,) = output.outputs
        ends.append(sample.finish_reason)
        if sample.finish_reason == "stop":
            jsonschema.validate(json.loads(sample.text), schema)
        else:
            assert isinstance(schema, dict) and "oneOf" in schema, (schema, sample.error, sample.text)
    assert ends.count("stop") >= len(ends) - 1


def test_a_fixed_spelling_is_that_of_the_longest_tokens(llm: LLM) -> None:
    texts = ["the customer identifier", "two"]
    params = SamplingParams(max_tokens=20, structured_outputs={"choice": texts[:1], "fixed_spelling": True})
    (output,) = llm.generate(PROMPT, params)
    vocabulary = {llm.tokenizer.token_bytes(token) for token in range(llm.description.vocab_size)}
    rest, longest = texts[0].encode(), []
    while rest:
        longest.append(next(rest[:n] for n in range(len(rest), 0, -1) if rest[:n] in vocabulary))
        rest = rest[len(longest[-1]) :]
    ids = output.outputs[0].token_ids
    assert [llm.tokenizer.token_bytes(token) for token in ids[:-1]] == longest
    assert output.outputs[0].text == texts[0]


# --------------------------------------------------------------------------------------------------------------------
# What is refused, and what fails


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": r"(a)\1"}, "backreferences are not supported"),
        ({"regex": "(" * 5000 + ")" * 5000}, "regex"),
        ({"json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json": {"if": {}, "then": {}, "dependentRequired": {"a": ["b"]}}}, "dependentRequired"),
        ({"json": {"type": "string", "format": "no-such"}}, "no-such"),
        ({"json": {"$ref": "https://example.com/x.json"}}, "json: "),
        ({"json": json.loads('{"items":' * 400 + "{}" + "}" * 400)}, "recursion limit"),
        ({"grammar": "start: ("}, "grammar: "),
        ({"grammar": "nothing of this kind"}, "neither Lark nor GBNF"),
        ({"structural_tag": {"format": {}}}, "'format' is not supported"),
        (
            {"structural_tag": {"triggers": ["<a"], "structures": [{"begin": "<b", "schema": {}, "end": ""}]}},
            "begins with no trigger",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_form_that_cannot_be_is_refused_by_name(llm: LLM, what: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=r"structured_outputs: (?s:.*)" + says):
        llm.generate(PROMPT, held(**what))
    assert text_of(llm, held(choice=["fine"])) == "fine"


def exploding() -> list[dict[str, Any]]:
    steps: dict[str, Any] = {"a20": {"type": "object", "properties": {"x": {"type": "string"}}}}
    for i in range(20):
        both = [{"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}, {"type": "object", "required": [f"{k}{i}"]}]} for k in "pq"]
        steps[f"a{i}"] = {"allOf": both}
    return [
        {"regex": "((a{1,100}){1,100}){1,100}"},
        {"regex": "(.*a){50}(.*b){50}"},
        {"regex": "[ab]*a[ab]{40}c"},
        {"json": {"type": "string", "minLength": 10**9}},
        {"json": {"$defs": steps, "$ref": "#/$defs/a0"}},
        {"json": {"patternProperties": {f"^x{i}y*z*$": {"type": "string"} for i in range(64)}}},
        {"grammar": 'start: e\ne: e e | e e e | "a" | ""'},
    ]


def test_a_form_that_explodes_ends_its_own_request(llm: LLM) -> None:
    """Each either ends at max_tokens, or is refused, or fails with a reason; the neighbour has its bits."""
    neighbour = SamplingParams(max_tokens=12, temperature=0)
    (wanted,) = llm.generate(PROMPT, neighbour)
    for what in exploding():
        params = SamplingParams(max_tokens=8, temperature=0, structured_outputs=what)
        try:
            outputs = llm.generate([PROMPT, PROMPT], [params, neighbour])
        except InvalidArgument as error:
            assert "structured_outputs: " in str(error)
            continue
        assert outputs[1].outputs[0].token_ids == wanted.outputs[0].token_ids
        sample = outputs[0].outputs[0]
        assert sample.finish_reason in ("length", "stop") or "structured output" in (sample.error or "")


def test_while_a_form_is_compiled_others_are_served_and_the_wait_is_bounded(
    gguf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, entered = threading.Event(), threading.Event()
    real = library.Matchers.constraint

    def slow(self: Any, kind: str, text: str, *rest: Any) -> Any:
        if "slow" in text:
            entered.set()
            blocked.wait(60)
        return real(self, kind, text, *rest)

    monkeypatch.setattr(library.Matchers, "constraint", slow)
    monkeypatch.setattr(grammars, "SECONDS", 0.5)

    async def main() -> None:
        async with AsyncLLM(gguf, kv_cache_memory="32MiB") as llm:
            stuck = asyncio.ensure_future(llm.generate(PROMPT, held(regex="slow")))
            while not entered.is_set():
                await asyncio.sleep(0.01)
            (other,) = await llm.generate(PROMPT, SamplingParams(max_tokens=3, temperature=0))
            assert other.outputs[0].finish_reason == "length"
            with pytest.raises(InvalidArgument, match=r"compiling this regex of 4 characters takes longer than 0\.5"):
                await stuck
            blocked.set()
            while True:  # it is used once it is there
                try:
                    (late,) = await llm.generate(PROMPT, held(regex="slow"))
                    break
                except InvalidArgument:
                    time.sleep(0.05)
            assert late.outputs[0].text == "slow"

    asyncio.run(main())


def test_without_llguidance_one_error_names_the_extra_and_the_rest_works() -> None:
    program = """
import sys
sys.modules["llguidance"] = None
import pagedcore
with pagedcore.LLM(kv_cache_memory="32MiB") as llm:
    assert llm.generate("a", pagedcore.SamplingParams(max_tokens=2))[0].outputs[0].token_ids
    try:
        llm.generate("a", pagedcore.SamplingParams(structured_outputs={"regex": "a"}))
    except pagedcore.Unsupported as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert run.stdout == (
        "structured outputs need llguidance, which is not installed: pip install 'pagedcore[grammar]'\n"
    )
