"""Routing: hashes, what replicas say, what routers know, policies, the autoscaler."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

import pytest

from pagedcore import InvalidArgument, KvCacheConfig, KvCacheManager
from pagedcore.routing import (
    POLICIES,
    Arriving,
    Autoscaler,
    Load,
    News,
    PrefixDigest,
    PrefixMap,
    PrefixTracker,
    Router,
    block_hash,
    chain_hashes,
    policy_of,
    predicted_wait,
)
from pagedcore.routing.load import ends_per_second, pending_tokens
from pagedcore.server.kv_events import Translation

BLOCK = 4


class Event:
    def __init__(self, kind: str, id: int = 0, parent: int = 0, tokens: tuple[int, ...] = (), salt: int = 0) -> None:
        self.kind, self.id, self.parent, self.tokens, self.salt = kind, id, parent, list(tokens), salt


def stored(tokens: list[int], first: int = 1, block: int = BLOCK) -> list[Any]:
    """Events of a chain, with ids from `first` on."""
    starts = range(0, len(tokens) - block + 1, block)
    return [
        Event("stored", first + n, first + n - 1 if n else 0, tuple(tokens[at : at + block]))
        for n, at in enumerate(starts)
    ]


def digest_of(*chains: list[int]) -> PrefixDigest:
    tracker = PrefixTracker(BLOCK)
    for number, tokens in enumerate(chains):
        tracker.take(stored(tokens, 1 + 100 * number))
    return tracker.digest()


def load_of(**values: Any) -> Load:
    return Load(**{"blocks_total": 1000, "blocks_free": 1000, "token_seconds": 0.001, **values})


def router_of(policy: str, count: int = 4, **options: Any) -> Router:
    router = Router(policy_of(policy), **{"lag": 0.0, **options})
    router.set_replicas(range(count))
    return router


def test_the_hash_is_sha_256_of_the_hash_before_and_the_tokens() -> None:
    first = hashlib.sha256(bytes(8) + b"".join(t.to_bytes(4, "big") for t in (1, 2, 3, 400000))).digest()[:8]
    second = hashlib.sha256(first + b"".join(t.to_bytes(4, "big") for t in (5, 6, 7, 8))).digest()[:8]
    assert block_hash(0, [1, 2, 3, 400000]) == int.from_bytes(first, "big")
    tokens = [1, 2, 3, 400000, 5, 6, 7, 8, 9]
    assert chain_hashes(tokens, BLOCK) == [int.from_bytes(first, "big"), int.from_bytes(second, "big")]
    assert len(chain_hashes(tokens[:8], BLOCK)) == 1  # the last token is always computed
    assert chain_hashes([], BLOCK) == chain_hashes([1], BLOCK) == chain_hashes([1, 2, 3, 4], BLOCK) == []


def test_the_hashes_of_a_router_are_those_of_kv_events_and_of_digests() -> None:
    cache = KvCacheManager(KvCacheConfig(num_blocks=16, block_size=BLOCK, max_events=100))
    tokens = [random.Random(3).randrange(50000) for _ in range(23)]
    cache.create(1)
    cache.append(1, 23)
    cache.publish(1, tokens, 23)
    cache.free(1)
    events = cache.take_events()
    chain = chain_hashes(tokens, BLOCK)
    [batch] = Translation(BLOCK, "CPU").batch(events)
    assert batch["block_hashes"] == chain
    tracker = PrefixTracker(BLOCK)
    tracker.take(events)
    assert set(tracker.digest().values()) == set(chain)
    cache.clear_prefix_cache()
    tracker.take(cache.take_events())
    assert not tracker.digest().values() and not len(tracker)


def test_removed_blocks_and_those_of_tenants_are_not_in_a_digest() -> None:
    tracker = PrefixTracker(BLOCK)
    tokens = list(range(12))
    tracker.take(stored(tokens))
    tracker.take(stored(tokens, 50))  # the same in other blocks: one hash, until both are gone
    tracker.take([Event("stored", 90, 0, (9, 9, 9, 9), salt=7), Event("stored", 91, 90, (1, 1, 1, 1))])
    tracker.take([Event("stored", 95, 3, (1, 2))])  # the tail of a sequence
    chain = chain_hashes([*tokens, 0], BLOCK)
    assert set(tracker.digest().values()) == set(chain)
    tracker.take([Event("removed", 3), Event("removed", 91), Event("removed", 12345)])
    assert set(tracker.digest().values()) == set(chain)
    tracker.take([Event("removed", 52)])
    assert set(tracker.digest().values()) == set(chain[:2])


def test_a_digest_is_bounded_and_keeps_the_ends_of_long_chains() -> None:
    tracker = PrefixTracker(BLOCK, most_hashes=16)
    tokens = [number // 3 for number in range(64 * BLOCK)]
    tracker.take(stored(tokens))
    digest = tracker.digest()
    chain = chain_hashes([*tokens, 0], BLOCK)
    assert digest.stride == 4 and list(digest.values()) and len(digest.hashes) == 8 * 16
    assert set(digest.values()) == set(chain[3::4])
    many = PrefixTracker(BLOCK, most_hashes=16)
    for number in range(100):
        many.take(stored([number] * BLOCK, 1 + number))
    assert list(many.digest().values()) == [block_hash(0, [number] * BLOCK) for number in range(84, 100)]


def test_news_survive_the_way_and_bad_ones_are_refused() -> None:
    news = News(load_of(waiting=3, running=2), digest_of(list(range(9))))
    assert News.from_dict(news.to_dict()) == news
    assert News.from_dict(News(Load()).to_dict()) == News(Load())
    for bad in ({}, {"load": {}}, {"load": {"color": 1}, "digest": None}, {"load": {"waiting": -1}, "digest": None}):
        with pytest.raises(InvalidArgument):
            News.from_dict(bad)
    with pytest.raises(InvalidArgument, match="running=nan"):
        Load(running=math.nan)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="8 for each"):
        PrefixDigest(16, 1, b"123")


def test_a_map_finds_the_longest_chains_first() -> None:
    prefixes = PrefixMap()
    tokens = list(range(41))
    chain = chain_hashes(tokens, BLOCK)
    prefixes.report(0, digest_of(tokens[:40]))
    prefixes.report(5, digest_of(tokens[:16]))
    prefixes.report(900, digest_of(tokens[:16], [7, 7, 7, 7]))
    assert list(prefixes.matches(chain)) == [(10, 1), (4, 1 << 5 | 1 << 900)]
    prefixes.sent(5, chain[:6], until=10.0)
    assert list(prefixes.matches(chain)) == [(10, 1), (6, 1 << 5), (4, 1 << 900)]
    prefixes.expire(9.0)
    assert (6, 1 << 5) in list(prefixes.matches(chain))
    prefixes.expire(10.0)
    assert list(prefixes.matches(chain)) == [(10, 1), (4, 1 << 5 | 1 << 900)]
    prefixes.report(0, digest_of([1]))
    prefixes.forget(900)
    assert list(prefixes.matches(chain)) == [(4, 1 << 5)]
    prefixes.forget(5)
    assert len(prefixes) == 0


def test_what_was_sent_is_remembered_within_bounds() -> None:
    prefixes = PrefixMap(most_sent=8)
    for number in range(50):
        prefixes.sent(number, [number], until=100.0)
    assert len(prefixes) == 8 and list(prefixes.matches([49])) == [(1, 1 << 49)]
    assert not list(prefixes.matches([10]))


def test_round_robin_takes_turns_among_those_that_may_be_used() -> None:
    router = router_of("round-robin", 3)
    request = Arriving(10)
    assert [router.choose(request, 0.0).replica for _ in range(4)] == [0, 1, 2, 0]
    assert [router.choose(request, 0.0, among=[0, 2]).replica for _ in range(3)] == [2, 0, 2]
    router.set_replicas([2])
    assert router.choose(request, 0.0).replica == 2
    for names in ([], [77]):
        with pytest.raises(InvalidArgument, match="no replica"):
            router.choose(request, 0.0, among=names)


@pytest.mark.parametrize("policy", ["least-loaded", "prefix-aware", "predicted"])
def test_without_news_the_least_loaded_is_taken(policy: str) -> None:
    router = router_of(policy)
    request = Arriving(10)
    taken = []
    for number in range(8):
        choice = router.choose(request, 0.0)
        router.sent(number, choice, request, 0.0)
        taken.append(choice.replica)
    assert sorted(taken) == [0, 0, 1, 1, 2, 2, 3, 3]
    for number in [number for number, replica in enumerate(taken) if replica == 2]:
        router.ended(number)
    assert router.choose(request, 0.0).replica == 2


@pytest.mark.parametrize("policy", ["prefix-aware", "predicted"])
def test_old_news_count_no_more(policy: str) -> None:
    router = router_of(policy, 2, max_age=5.0)
    tokens = list(range(41))
    request = Arriving(41, chain_hashes(tokens, BLOCK))
    router.news(0, News(load_of(running=3), digest_of(tokens[:40])), 0.0)
    router.news(1, News(load_of(), digest_of()), 0.0)
    choice = router.choose(request, 4.0)
    assert choice.replica == 0 and choice.cached == 40
    late = router.choose(request, 6.0)
    assert late.replica == 1 and late.cached == 0


def test_a_prefix_is_followed_until_its_replica_is_far_busier() -> None:
    router = router_of("prefix-aware", 2)
    tokens = list(range(41))
    request = Arriving(41, chain_hashes(tokens, BLOCK))
    router.news(1, News(load_of()), 0.0)
    for running, expected in ((10, 0), (17, 1)):
        router.news(0, News(load_of(running=running), digest_of(tokens[:40])), 0.0)
        assert router.choose(request, 0.0).replica == expected
    router.news(0, News(load_of(running=1), digest_of(tokens[:40])), 0.0)
    little = Arriving(4000, request.chain)
    assert router.choose(little, 0.0).replica == 1  # hardly any of the prompt


def test_ours_weighs_what_is_cached_against_the_wait() -> None:
    router = router_of("predicted", 2)
    tokens = list(range(41))
    request = Arriving(1041, chain_hashes(tokens, BLOCK))  # 40 of 1,041: 40 ms of 1.041 s
    router.news(1, News(load_of(), digest_of()), 0.0)
    for pending, expected in ((30, 0), (50, 1)):
        router.news(0, News(load_of(pending_tokens=pending), digest_of(tokens[:40])), 0.0)
        assert router.choose(request, 0.0).replica == expected


def test_a_prompt_delays_everybody_who_is_there() -> None:
    router = router_of("predicted", 2)
    tokens = list(range(41))
    request = Arriving(81, chain_hashes(tokens, BLOCK))  # 41 to compute where 40 are cached
    for others, expected in ((1, 1), (0, 0)):
        router.news(0, News(load_of(running=2 * others), digest_of(tokens[:40])), 0.0)
        router.news(1, News(load_of(), digest_of()), 0.0)
        assert router.choose(request, 0.0).replica == expected
    for running in (0, 40):  # where as many are everywhere, the more there are the more counts what is cached
        router.news(0, News(load_of(running=running, pending_tokens=100), digest_of(tokens[:40])), 0.0)
        router.news(1, News(load_of(running=running), digest_of()), 0.0)
        assert router.choose(request, 0.0).replica == (0 if running else 1)


def test_a_router_counts_what_it_sent_since_the_news() -> None:
    router = router_of("predicted", 2)
    for replica in (0, 1):
        router.news(replica, News(load_of(pending_tokens=150 * replica), digest_of()), 0.0)
    request = Arriving(100)
    first = router.choose(request, 1.0)
    assert first.replica == 0
    router.sent("a", first, request, 1.0)
    assert router.choose(request, 1.0).replica == 1
    assert router.outstanding.tolist() == [1, 0]
    router.news(0, News(load_of(pending_tokens=0, running=1), digest_of()), 2.0)  # has it, computed
    assert router.choose(request, 2.0).replica == 0
    router.ended("a")
    router.ended("a")  # nothing happens
    router.ended("never sent")
    assert router.outstanding.tolist() == [0, 0]


def test_what_was_sent_together_with_its_prefix_draws_the_next_one() -> None:
    router = router_of("predicted", 8, max_age=5.0)
    for replica in range(8):
        router.news(replica, News(load_of(), digest_of()), 0.0)
    request = Arriving(41, chain_hashes(list(range(41)), BLOCK))
    first = router.choose(request, 0.0)
    router.sent(1, first, request, 0.0)
    router.ended(1)
    assert router.prefixes.block_size == BLOCK
    second = router.choose(request, 1.0)
    assert second == type(second)(first.replica, 40)


def test_replicas_come_and_go() -> None:
    router = router_of("predicted", 3)
    tokens = list(range(41))
    request = Arriving(41, chain_hashes(tokens, BLOCK))
    router.news(1, News(load_of(), digest_of(tokens[:40])), 0.0)
    router.sent("x", router.choose(request, 0.0), request, 0.0)
    router.set_replicas([0, 2, "new"])
    assert len(router) == 3
    router.ended("x")
    router.news(1, News(load_of(), digest_of(tokens[:40])), 0.0)  # nobody knows it any more
    assert router.choose(request, 0.0).cached == 0
    router.news("new", News(load_of(), digest_of(tokens[:40])), 0.0)
    assert router.choose(request, 0.0).replica == "new"


def test_predicted_wait() -> None:
    assert predicted_wait(Load()) == 0.0
    assert predicted_wait(load_of(pending_tokens=500)) == pytest.approx(0.5)
    full = load_of(blocks_free=2, block_size=16, running=10, waiting=3, ends_per_second=2.0)
    assert predicted_wait(full, 33) == pytest.approx(2.0)  # four must end
    assert predicted_wait(full, 20) == 0.0  # there is room
    assert predicted_wait(load_of(running=256, ends_per_second=4.0)) == pytest.approx(0.25)


def test_counters_become_a_rate_of_ends() -> None:
    names = ("steps", "step_seconds_total", "requests_finished", "requests_aborted", "requests_running")
    now = dict(zip(names, (100, 10.0, 5, 0, 8), strict=True)) | {"tokens_sampled": 100}
    assert ends_per_second(now) == pytest.approx(8 / (20 * 0.1))
    before = dict(zip(names, (50, 7.5, 1, 0, 8), strict=True))
    assert ends_per_second(now, before) == pytest.approx(8 / (20 * 0.05))
    assert ends_per_second(now | {"requests_finished": 0}) == 0.0

    class Request:
        prompt_tokens, computed_tokens = 100, 40

    assert pending_tokens([Request(), Request()]) == 120
    assert pending_tokens([Request(), Request()], 3) == 120 + 180
    assert pending_tokens([]) == 0


def test_the_autoscaler_follows_the_fullest_of_memory_batch_and_arithmetic() -> None:
    scaler = Autoscaler(min_replicas=1, max_replicas=10, target=0.5)
    for load in (load_of(blocks_free=0), load_of(running=256), load_of(busy=1.0)):
        assert load.share == 1.0
        assert scaler.wanted([load] * 3) == 6
    assert scaler.wanted([]) == 1
    assert scaler.wanted([load_of(busy=1.0)] * 30) == 10
    waits = load_of(pending_tokens=31_000)  # 31 s, a second of which is within the goal
    assert scaler.wanted([waits] * 4) == 4


def test_the_autoscaler_adds_at_once_and_removes_late() -> None:
    scaler = Autoscaler(min_replicas=1, max_replicas=10, target=0.5, down_delay=100.0)
    busy, idle = load_of(busy=0.5), load_of(busy=0.1)
    assert scaler.desired([busy] * 2, 1, 0.0) == 2
    assert scaler.desired([idle] * 4, 4, 10.0) == 4
    assert scaler.desired([idle] * 4 + [idle] * 6, 4, 60.0) == 4  # two would do by now
    assert scaler.desired([idle] * 4, 4, 111.0) == 2  # the most of that time
    assert scaler.desired([idle] * 2, 2, 112.0) == 2
    planned = Autoscaler(max_replicas=100, rate_per_replica=2.5)
    assert planned.desired([], 1, 0.0, arrivals=26.0) == 11
    with pytest.raises(InvalidArgument, match="min_replicas=3 is more than max_replicas=2"):
        Autoscaler(min_replicas=3, max_replicas=2)


def test_a_policy_that_there_is_not() -> None:
    with pytest.raises(InvalidArgument, match="'sticky' is no way to route; there are: round-robin"):
        policy_of("sticky")
    assert all(isinstance(policy_of(name), kind) for name, kind in POLICIES.items())
