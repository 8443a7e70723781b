"""What a program may do wrong with the objects that it is given: an exception that says what, never the end of the
process, a hang, or another object's state."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import time
from typing import Any

import pytest

from pagedcore import LLM, InvalidArgument, KvCacheConfig, KvCacheManager, OutOfMemory, SamplingParams, _core

HUGE = 10**400


@pytest.fixture
def manager() -> KvCacheManager:
    manager = KvCacheManager(KvCacheConfig(num_blocks=10, block_size=4, num_swap_blocks=10))
    manager.create(1)
    manager.append(1, 10)
    return manager


def test_a_group_names_each_sequence_once(manager: KvCacheManager) -> None:
    """Counted twice, blocks would be given away that a table still lists."""
    for call in (manager.swap_out, manager.swap_in):
        with pytest.raises(InvalidArgument, match="sequence 1 is named twice in a group of 2"):
            call([1, 1])
    manager.check()
    moved = manager.swap_out([1])
    assert len(moved) == 3  # ceil(10 / 4)
    manager.check()


def test_a_scratch_is_of_one_state(manager: KvCacheManager) -> None:
    scratch = manager.scratch()
    assert scratch.append(1, 14)
    manager.free(1)
    manager.create(1)
    for call in (lambda: scratch.append(1, 18), lambda: scratch.free(1), lambda: scratch.fork(1, 0, 4)):
        with pytest.raises(InvalidArgument, match="has changed since this scratch"):
            call()
    assert manager.scratch().available == 10


def test_beams_are_counted_within_their_width() -> None:
    with pytest.raises(InvalidArgument, match="beam 4294967295 goes on"):
        _core.place_beams([_core.BeamChild(parent=0xFFFFFFFF)])
    # By hand: the first child of a beam keeps its place, the others take the free ones, the lowest first.
    assert _core.place_beams([_core.BeamChild(parent=p) for p in (2, 2, 0)]) == [2, 1, 0]


def test_log_probabilities_whose_arrays_contradict_each_other_are_refused() -> None:
    """An entry is three numbers; width says how many lie at a position, counts how many of them are there."""
    one = _core.TokenLogprob(token=7, logprob=-0.5, rank=1)
    table = _core.LogprobTable(width=2, chosen=[one, one], counts=[1, 2], others=[one] * 4)
    assert [len(table[i].top) for i in (0, 1, -1)] == [1, 2, 2]
    for wrong in (
        {"counts": [1, 3]},  # more than a position has
        {"counts": [1]},
        {"others": [one] * 3},
        {"width": 2**32 - 1},
        {"width": 0},
    ):
        table = _core.LogprobTable(**{"width": 2, "chosen": [one, one], "counts": [1, 2], "others": [one] * 4, **wrong})
        with pytest.raises(InvalidArgument, match="log-probabilities of 2 positions have"):
            table[1]
    assert table.views()[0].nbytes == 2 * 12


def test_parameters_that_were_refused_say_so_again() -> None:
    """A frozen object whose constructor failed halfway still answers with the error of its values."""
    import numpy

    half = object.__new__(SamplingParams)
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="seed"):
            half.__init__(seed=numpy.array([1], "u1"))
        with pytest.raises((InvalidArgument, TypeError)):
            half.native()


def test_what_is_viewed_stays_where_it_is() -> None:
    """views() shows the memory of a table, which assigning to it, or to the output that holds it, would free."""
    one = _core.TokenLogprob(token=7, logprob=-0.5, rank=1)
    output = _core.EngineOutput(logprobs=_core.LogprobTable(chosen=[one] * 1000, counts=[0] * 1000))
    chosen = output.logprobs.views()[0]
    for call in (
        lambda: setattr(output, "logprobs", _core.LogprobTable()),
        lambda: setattr(output.logprobs, "chosen", []),
        lambda: _core.EngineOutput.logprobs.__set__(output, _core.LogprobTable()),
    ):
        with pytest.raises(AttributeError):
            call()
    for record in (output, output.logprobs):
        with pytest.raises(TypeError, match="initialized already"):
            record.__init__(error="else")
    output = record = None
    gc.collect()
    assert bytes(chosen) == bytes(chosen[:12]) * 1000


def test_tables_that_no_memory_holds_are_refused() -> None:
    """2^32 - 2 blocks are in the documented range; at 16 tokens of 4 bytes their index alone takes 256 GiB."""
    with pytest.raises(OutOfMemory, match="4294967294 KV blocks of 16 tokens"):
        KvCacheManager(KvCacheConfig(num_blocks=0xFFFFFFFE))
    with pytest.raises(OutOfMemory, match="65536 tokens"):
        _core.Scheduler(_core.SchedulerConfig(), KvCacheConfig(num_blocks=2**24, block_size=65536))


@pytest.mark.parametrize("call", ["append", "create", "free", "match_prefix", "fork"])
def test_integers_of_any_size_are_out_of_range(manager: KvCacheManager, call: str) -> None:
    arguments: dict[str, list[Any]] = {
        "append": [HUGE, 1],
        "create": [HUGE],
        "free": [HUGE],
        "match_prefix": [[1, HUGE]],
        "fork": [1, HUGE, 1],
    }
    with pytest.raises(InvalidArgument, match="is out of range"):
        getattr(manager, call)(*arguments[call])


@pytest.mark.parametrize(
    "name", ["n", "max_tokens", "min_tokens", "top_k", "seed", "logprobs", "prompt_logprobs", "best_of", "temperature"]
)
@pytest.mark.parametrize("value", [HUGE, -HUGE, 10**5000], ids=["huge", "negative", "unprintable"])
def test_parameters_of_any_size_are_out_of_range(name: str, value: int) -> None:
    with pytest.raises(InvalidArgument, match=name):
        SamplingParams(**{name: value})


def test_other_integers_of_any_size(tiny_llm: LLM) -> None:
    calls: list[Any] = [
        lambda: SamplingParams(logit_bias={5: HUGE}),
        lambda: SamplingParams(logit_bias={HUGE: 1.0}),
        lambda: SamplingParams(stop_token_ids=[HUGE]),
        lambda: tiny_llm.generate([[HUGE]]),
        lambda: tiny_llm.generate([[10**5000]]),
        lambda: tiny_llm.generate([[5]], salt=HUGE),
        lambda: tiny_llm.generate([[5]], priority=10**5000),
        lambda: tiny_llm.register_prefix("x", [5], salt=HUGE),
        lambda: tiny_llm.engine.submit([HUGE]),
        lambda: LLM.plan("nowhere", num_blocks=HUGE),
        lambda: LLM.plan("nowhere", kv_cache_memory="9" * 400 + "GB"),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument):
            call()


def test_what_does_not_fit_is_said_in_the_callers_words(tiny_llm: LLM) -> None:
    calls: list[tuple[Any, str]] = [
        (lambda: tiny_llm.engine.wait(), "timeout is missing"),  # type: ignore[call-arg]
        (lambda: tiny_llm.engine.abort(1, 2), "takes 1 arguments, not 2"),  # type: ignore[call-arg]
        (lambda: KvCacheManager(config=3), "config = 3 is not a KvCacheConfig"),  # type: ignore[arg-type]
        (lambda: KvCacheManager.check(3), "is of a KvCacheManager, not of 3"),  # type: ignore[arg-type]
        (lambda: _core.validate(SamplingParams), "is not a SamplingParams"),  # type: ignore[call-overload]
    ]
    for name in (lambda: tiny_llm.register_prefix(3, [5]), lambda: tiny_llm.release_prefix(3)):  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="the name of a prefix is a text, not 3"):
            name()
    for call, words in calls:
        with pytest.raises(TypeError) as error:
            call()
        assert words in str(error.value)
        assert "incompatible function arguments" not in str(error.value)


def test_waiting_for_no_number_of_seconds(tiny_llm: LLM) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidArgument, match="timeout = nan"):
        tiny_llm.engine.wait(math.nan)
    assert tiny_llm.engine.wait(-math.inf) == []
    assert time.monotonic() - began < 30


def test_what_stands_for_an_engine_is_not_copied(tiny_llm: LLM, manager: KvCacheManager) -> None:
    """A copy's end would close the original."""
    stream = tiny_llm.stream([5], SamplingParams(max_tokens=2))
    handles = [
        tiny_llm,
        stream,
        tiny_llm.engine,
        manager,
        manager.scratch(),
        manager.match_prefix([1]),
        _core.WeightMap(),
    ]
    for handle in handles:
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot"):
                copied(handle)
    stream.close()
    gc.collect()
    assert tiny_llm.generate([[5]], SamplingParams(max_tokens=1))[0].finished


def test_objects_that_were_never_initialized() -> None:
    for record in (_core.SamplingParams, _core.EngineConfig, _core.StepResult):
        with pytest.raises(TypeError, match="not initialized"):
            repr(record.__new__(record))
    with pytest.raises(TypeError, match="is initialized already"):
        _core.SamplingParams().__init__(n=2)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: _core.EmbeddingParams("mean"), r"EmbeddingParams\(\): pooling is given by name: .*\(pooling='mean'\)"),
        (lambda: _core.EngineConfig("cpu", 5), r"EngineConfig\(\): device is given by name"),
        (lambda: KvCacheConfig(3, num_blocks=4), r"KvCacheConfig\(\): num_blocks is given by name"),
    ],
)
def test_what_is_given_by_name_is_said_so(call: Any, says: str) -> None:
    """It was said of a positional argument that the object "is not initialized, or is already"."""
    with pytest.raises(TypeError, match=says):
        call()


def test_a_dropped_stream_ends_at_once(tiny_llm: LLM) -> None:
    """Without the garbage collector: 400 tokens of this model take far longer than what is waited for here."""
    gc.disable()
    try:
        stream = tiny_llm.stream([5], SamplingParams(max_tokens=400, ignore_eos=True))
        next(stream)
        del stream
        tiny_llm.generate([[7]], SamplingParams(max_tokens=1))
        assert tiny_llm.stats()["requests_running"] == 0
    finally:
        gc.enable()


def test_inboxes_and_waiters_end_with_their_calls(tiny_llm: LLM) -> None:
    """Struck by an interrupt before it could clean up, a call leaves its inbox to the next one."""
    dispatcher = tiny_llm._dispatcher
    stream = tiny_llm.stream([5], SamplingParams(max_tokens=400, ignore_eos=True))
    stream._closed = True  # as if close() had been struck: nobody ends the request
    del stream
    tiny_llm.generate([[7]], SamplingParams(max_tokens=1))
    assert tiny_llm.stats()["requests_running"] == 0
    assert not dispatcher._inboxes and not dispatcher._waiting and not dispatcher._drainer


HALF = "\ud800"  # of a surrogate pair


@pytest.mark.parametrize(
    "call",
    [
        lambda: _core.EngineConfig(device=HALF),
        lambda: _core.EngineConfig(trace_file=HALF),
        lambda: _core.EngineConfig(kv_cache_memory=HALF),
        lambda: _core.EngineConfig(preemption=HALF),
        lambda: setattr(_core.EngineConfig(), "isa", HALF),
        lambda: _core.EngineConfig.from_dict({"device": HALF}),
        lambda: _core.EngineConfig.from_dict({HALF: 1}),
        lambda: _core.RequestOptions(request_id=HALF),
        lambda: _core.ModelDescription(architecture=HALF),
        lambda: _core.EmbeddingParams(pooling=HALF),  # type: ignore[arg-type]
        lambda: _core.BeamSearchParams(early_stopping=HALF),  # type: ignore[arg-type]
        lambda: _core.WeightMap().add(HALF, "f32", (1,), b"1234"),
    ],
)
def test_half_of_a_surrogate_pair_is_named(call: Any) -> None:
    """It was a RuntimeError that said "std::bad_cast"."""
    with pytest.raises(InvalidArgument, match="surrogate pair"):
        call()


def test_a_value_whose_repr_is_no_unicode_is_shown_all_the_same() -> None:
    class Odd:
        def __repr__(self) -> str:
            return HALF

    with pytest.raises(TypeError, match="n = "):
        _core.SamplingParams(n=Odd())  # type: ignore[arg-type]
