"""Chat: every prompt is what was said so far."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from ..errors import InvalidArgument
from .workload import Workload, poisson_arrivals

__all__ = ["Conversation", "chat_workload", "draw_conversations"]

_ROUNDS = 3.51
"""Rounds of a ShareGPT conversation, on average: 330,239 in 94,145 (arXiv 2512.17843v2, table 1)."""

Conversation = Sequence[tuple[int, int]]
"""Rounds of (tokens said, tokens answered)."""


def draw_conversations(
    lengths: Sequence[tuple[int, int]], count: int, *, rounds: float = _ROUNDS, seed: int = 0
) -> list[Conversation]:
    """Conversations for those who have none: a geometric number of rounds with this mean, each as long as one of
    `lengths`, in their order and again from the start. What later rounds lack of first ones is not modelled."""
    if not lengths:
        raise InvalidArgument("no lengths are given; a round needs a prompt and an answer")
    if not rounds >= 1:
        raise InvalidArgument(f"rounds={rounds!r} is how many a conversation has on average, one at least")
    sizes = np.random.RandomState(seed).geometric(1 / rounds, count).tolist()
    conversations: list[Conversation] = []
    first = 0
    for size in sizes:
        conversations.append([lengths[(first + i) % len(lengths)] for i in range(size)])
        first += size
    return conversations


def chat_workload(
    conversations: Sequence[Conversation],
    rate: float,
    seconds: float,
    *,
    new_prob: float = 0.5,
    max_prompt: int = 1024,
    max_output: int = 1016,
    seed: int = 0,
) -> Workload:
    """Requests at `rate` a second for so many seconds, each the next round of a conversation.

    By the rules of the PagedAttention paper (section 6.5): a prompt is the last max_prompt tokens of what was said and
    answered before and is said now, an answer is cut to max_output tokens, and no KV is kept between rounds. Each
    arrival starts a new conversation with probability new_prob, and otherwise goes on with a random one that has
    started. The first conversations with just enough rounds are taken, and begun in random order: new_prob changes the
    order of the rounds and not which there are. The same arguments give the same requests. Raises InvalidArgument when
    there are too few rounds.
    """
    if not 0 <= new_prob <= 1:
        raise InvalidArgument(f"new_prob={new_prob!r} is a probability, in [0, 1]")
    arrivals = poisson_arrivals(rate, seconds, seed=seed)
    chosen: list[Conversation] = []
    rounds = 0
    for conversation in conversations:
        if rounds >= len(arrivals):
            break
        chosen.append(conversation[: len(arrivals) - rounds])
        rounds += len(chosen[-1])
    if rounds < len(arrivals):
        raise InvalidArgument(
            f"{rate:g} requests/s for {seconds:g} s are {len(arrivals)} rounds, but the {len(conversations)} "
            f"conversations have {rounds}; give more of them"
        )
    draws = random.Random(seed)
    draws.shuffle(chosen)
    unstarted = [_rounds(conversation, max_prompt, max_output) for conversation in chosen if conversation]
    started: list[list[tuple[int, int]]] = []
    picked: list[tuple[int, int]] = []
    for _ in arrivals:
        is_new = draws.random() < new_prob
        pool = unstarted if unstarted and (is_new or not started) else started
        conversation = pool.pop(draws.randrange(len(pool)))
        picked.append(conversation[0])
        if len(conversation) > 1:
            started.append(conversation[1:])
    prompts = [[(number, prompt)] for number, (prompt, _) in enumerate(picked, 1)]
    return Workload(arrivals, prompts, [answer for _, answer in picked])


def _rounds(conversation: Conversation, max_prompt: int, max_output: int) -> list[tuple[int, int]]:
    """(prompt, output) of every round."""
    requests = []
    history = 0
    for said, answered in conversation:
        history += said
        requests.append((min(history, max_prompt), min(answered, max_output)))
        history += answered
    return requests
