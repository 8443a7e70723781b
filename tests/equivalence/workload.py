"""Seeded requests of every kind, in the words of the native records of 0.1."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

VOCABULARY = 320
PREFIXES = {"system": (40, 0), "tenant": (25, 3)}  # tokens, salt


@dataclass(frozen=True)
class Request:
    prompt: list[int]
    terms: dict[str, Any]  # prefix, salt, priority, tenant
    sampling: dict[str, Any] | None = None
    beams: dict[str, Any] | None = None


def tokens(seed: str, count: int) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(3, VOCABULARY) for _ in range(count)]


def sampling_fields(source: random.Random) -> dict[str, Any]:
    fields: dict[str, Any] = {"max_tokens": source.choice([1, 5, 12, 20, 31]), "seed": source.getrandbits(63)}
    fields["temperature"] = source.choice([0.0, 0.0, 0.7, 1.0, 1.6])
    fields["n"] = source.choice([1, 1, 1, 2, 3, 6])
    choices: dict[str, list[Any]] = {
        "top_k": [1, 5, 40],
        "top_p": [0.3, 0.9],
        "min_p": [0.05, 0.3],
        "repetition_penalty": [0.8, 1.3],
        "presence_penalty": [-1.0, 1.5],
        "frequency_penalty": [-0.5, 0.7],
        "logit_bias": [[(7, 5.0), (9, -100.0)], [(source.randrange(VOCABULARY), 2.5)]],
        "banned_tokens": [[1, 2, 3], [source.randrange(VOCABULARY)]],
        "allowed_tokens": [list(range(10, 90))],
        "stop_token_ids": [list(range(0, 320, 9)), [5]],
        "logprobs": [0, 3, 320],
        "prompt_logprobs": [0, 2],
    }
    for name, values in choices.items():
        if source.random() < (0.6 if name == "logprobs" else 0.25):
            fields[name] = source.choice(values)
    if source.random() < 0.2:
        fields["min_tokens"] = min(3, fields["max_tokens"])
    if source.random() < 0.12:  # a score
        fields |= {"max_tokens": 0, "min_tokens": 0, "n": 1, "prompt_logprobs": 1}
    return fields


def beam_fields(source: random.Random) -> dict[str, Any]:
    width = source.choice([1, 2, 3, 4])
    fields: dict[str, Any] = {"width": width, "n": source.randint(1, width), "max_tokens": source.choice([4, 11, 18])}
    fields["length_penalty"] = source.choice([1.0, 0.0, 2.0, -1.0])
    fields["early_stopping"] = source.choice(["heuristic", "immediate", "never"])
    if source.random() < 0.5:
        fields["stop_token_ids"] = list(range(0, VOCABULARY, 25))
    return fields


def request(source: random.Random) -> Request:
    terms: dict[str, Any] = {"salt": source.choice([0, 0, 0, 3, 2**63]), "prefix": ""}
    terms |= {"priority": source.choice([0, 0, 1, 5, -3]), "tenant": source.randrange(4)}
    begin: list[int] = []
    if source.random() < 0.3:
        terms["prefix"] = source.choice(sorted(PREFIXES))
        begin = tokens(terms["prefix"], PREFIXES[terms["prefix"]][0])
    elif source.random() < 0.6:  # in common with others, where the prefix cache may find it
        begin = tokens(f"family {source.randrange(3)}", source.choice([9, 24, 33, 50]))
    prompt = begin + [source.randrange(3, VOCABULARY) for _ in range(source.choice([1, 2, 7, 15, 30]))]
    if source.random() < 0.2:
        return Request(prompt, terms, beams=beam_fields(source))
    return Request(prompt, terms, sampling=sampling_fields(source))


def wave(configuration: int, number: int, count: int = 26) -> list[Request]:
    source = random.Random(f"wave {configuration} {number}")
    return [request(source) for _ in range(count)]
