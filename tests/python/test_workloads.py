"""Workloads with something in common: shared prefixes, and chats."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagedcore import Corrupt, InvalidArgument
from pagedcore.lab import (
    Deployment,
    chat_workload,
    draw_conversations,
    poisson_workload,
    read_conversations,
    shared_prefix_workload,
    simulate,
    translation_lengths,
)


def tokens(prompt: list[tuple[int, int]]) -> int:
    return sum(size for _, size in prompt)


def test_a_shared_prefix_is_computed_once() -> None:
    workload = shared_prefix_workload([(30, 40), (20, 25)], rate=5, seconds=20, prefix=341)
    plain = poisson_workload([(30, 40), (20, 25)], rate=5, seconds=20)
    assert workload.arrivals == plain.arrivals
    assert workload.outputs == plain.outputs
    assert [prompt[1:] for prompt in workload.prompts] == plain.prompts
    assert {prompt[0] for prompt in workload.prompts} == {(0, 341)}
    deployment = replace(Deployment.of_paper("llama-13b"), enable_prefix_caching=True)
    report = simulate(workload, deployment).report
    assert report.scheduler.prefix_hit_tokens == 341 * (len(workload) - 1)
    assert simulate(workload, replace(deployment, enable_prefix_caching=False)).report.scheduler.prefix_hit_tokens == 0


def test_a_round_is_asked_after_what_was_said_before() -> None:
    conversation = [(100, 50), (10, 500), (400, 2000), (30, 7)]
    workload = chat_workload([conversation] * 3, rate=1, seconds=8, seed=3)
    rounds = [(100, 50), (160, 500), (1024, 1016), (1024, 7)]  # said and answered before, cut to the last 1024
    found = Counter((tokens(prompt), output) for prompt, output in zip(workload.prompts, workload.outputs, strict=True))
    assert set(found) <= set(rounds)
    assert [found[pair] for pair in rounds] == sorted((found[pair] for pair in rounds), reverse=True)
    assert len({prompt[0][0] for prompt in workload.prompts}) == len(workload)  # no KV is kept between rounds


def test_how_often_conversations_begin_changes_the_order_of_rounds_only() -> None:
    conversations = draw_conversations([(100, 100)], 3000, rounds=6)
    assert np.mean([len(rounds) for rounds in conversations]) == pytest.approx(6, rel=0.05)
    early = {}
    totals = []
    for new_prob in (0.1, 0.5):
        prompts = [tokens(prompt) for prompt in chat_workload(conversations, 10, 100, new_prob=new_prob).prompts]
        totals.append(sorted(prompts))
        early[new_prob] = np.mean(prompts[: len(prompts) // 4])
    assert totals[0] == totals[1]
    assert early[0.1] > 1.3 * early[0.5]
    assert chat_workload(conversations, 10, 100) == chat_workload(conversations, 10, 100)
    assert chat_workload(conversations, 10, 100) != chat_workload(conversations, 10, 100, seed=1)


def test_conversations_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "chats.csv"
    path.write_text("conversation,input_tokens,output_tokens\na,5,6\nb,1,2\na,7,8\n")
    assert read_conversations(path) == [[(5, 6), (7, 8)], [(1, 2)]]
    path.write_text("conversation,input_tokens,output_tokens\na,5,-6\n")
    with pytest.raises(Corrupt, match="-6 tokens"):
        read_conversations(path)
    path.write_text("input_tokens,output_tokens\n5,6\n")
    with pytest.raises(Corrupt, match="no column conversation"):
        read_conversations(path)


def test_translations_have_the_stated_means() -> None:
    lengths = np.array(translation_lengths())
    assert lengths.mean(axis=0) == pytest.approx((30, 42), rel=0.03)
    assert lengths.min() >= 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shared_prefix_workload([(5, 5)], 1, 5, prefix=0), "prefix=0 is how many tokens"),
        (lambda: shared_prefix_workload([(5, 5)], 1, 5, prefix=2040), "less than max_tokens=8"),
        (lambda: chat_workload([[(5, 5)]], 10, 10), "are 112 rounds, but the 1 conversations have 1"),
        (lambda: chat_workload([[(5, 5)]], 10, 10, new_prob=2), "new_prob=2 is a probability"),
        (lambda: draw_conversations([], 5), "no lengths"),
        (lambda: draw_conversations([(1, 1)], 5, rounds=0.5), "rounds=0.5"),
    ],
)
def test_bad_workloads(make: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        make()
