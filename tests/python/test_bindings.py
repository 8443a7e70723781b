"""The native classes as Python sees them: names, lifetimes, errors and threads. tests/cpp tests what they compute."""

import copy
import gc
import os
import pickle
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pagedcore
from native_model import make_model
from pagedcore import _core

# --------------------------------------------------------------------------------------------------------------------
# Lists of fields


RECORDS = [value for value in vars(_core).values() if isinstance(value, type) and hasattr(value, "from_dict")]


OF_LISTS = (
    _core.EngineConfig,
    _core.SamplingParams,
    _core.BeamSearchParams,
    _core.EmbeddingParams,
    _core.RequestOptions,
    _core.SchedulerConfig,
    _core.KvCacheConfig,
)


# rule: bindings.names-agree
@pytest.mark.parametrize("record", OF_LISTS, ids=lambda r: r.__name__)
def test_a_record_has_the_fields_of_its_list(record):
    options = _core.options_of(record.__name__)
    values = record().to_dict()
    assert list(values) == [option.name for option in options]
    for option in options:
        doc = getattr(record, option.name).__doc__
        assert option.doc in doc and option.zero in doc and option.hint in doc
        value = values[option.name]
        if option.type == "choice":
            assert value in option.choices and value == option.default_value
        elif option.type in ("int", "size", "float", "bool"):
            assert str(value).lower() == option.default_value or float(value or 0) == float(option.default_value or 0)
        if option.is_optional:
            assert getattr(record(**{option.name: None}), option.name) == value


def test_lists_of_what_is_no_record_of_parameters():
    with pytest.raises(
        pagedcore.InvalidArgument, match="record = 'StepPlan' is not one of BeamSearchParams, EmbeddingParams, Engine"
    ):
        _core.options_of("StepPlan")


# --------------------------------------------------------------------------------------------------------------------
# Records


# rule: bindings.records-behave
@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_record_copies_and_pickles(record):
    original = record()
    for twin in (
        copy.copy(original),
        copy.deepcopy(original),
        pickle.loads(pickle.dumps(original)),
        record.from_dict(original.to_dict()),
    ):
        assert type(twin) is record
        assert twin == original
        assert repr(twin) == repr(original)
    assert original != object()
    with pytest.raises(TypeError, match="unhashable"):
        hash(original)


# rule: bindings.records-behave
def test_record_fields_are_keywords():
    params = _core.SamplingParams(temperature=0.5, logit_bias=[(3, -1.0)], stop_token_ids=[1, 2])
    assert (params.temperature, params.logit_bias, params.stop_token_ids) == (0.5, [(3, -1.0)], [1, 2])
    assert params != _core.SamplingParams()
    assert "stop_token_ids=[1, 2]" in repr(params)
    params.stop_token_ids.append(3)  # of a copy, as documented
    assert params.stop_token_ids == [1, 2]

    with pytest.raises(TypeError, match=r"no field 'temprature': did you mean 'temperature'\? Its fields: n, max"):
        _core.SamplingParams(temprature=1.0)


@pytest.mark.parametrize(
    ("record", "name", "value", "error", "says"),
    [
        (_core.SamplingParams, "max_tokens", -1, ValueError, r"max_tokens = -1 is out of range.* \[0, 2147483647\]"),
        (_core.SamplingParams, "max_tokens", 10**400, ValueError, r"max_tokens = 1000.*\.\.\. is out of range"),
        (_core.SamplingParams, "max_tokens", 10**5000, ValueError, "max_tokens = a huge int is out of range"),
        (_core.SamplingParams, "max_tokens", True, TypeError, "max_tokens = True is not a whole number"),
        (_core.SamplingParams, "max_tokens", 1.5, TypeError, r"max_tokens = 1\.5 is not a whole number"),
        (_core.SamplingParams, "max_tokens", None, TypeError, "max_tokens = None is not a whole number"),
        (_core.SamplingParams, "seed", "x", TypeError, "seed = 'x' is not a whole number"),
        (
            _core.SamplingParams,
            "seed",
            2**64,
            ValueError,
            r"seed = 184.* is out of range.* \[0, 18446744073709551615\]",
        ),
        (_core.SamplingParams, "top_k", -(2**31) - 1, ValueError, "top_k = -2147483649.* at least -1; 0 or -1 turns"),
        (_core.SamplingParams, "temperature", "hot", TypeError, "temperature = 'hot' is not a number"),
        (_core.SamplingParams, "temperature", False, TypeError, "temperature = False is not a number"),
        (_core.SamplingParams, "logprobs", "all", TypeError, "logprobs = 'all' is not a whole number"),
        (_core.SamplingParams, "stop_token_ids", 7, TypeError, "stop_token_ids = 7 is not a list"),
        (_core.SamplingParams, "stop_token_ids", "7", TypeError, "stop_token_ids = '7' is not a list"),
        (_core.SamplingParams, "stop_token_ids", [1, 2**31], ValueError, "stop_token_ids = 2147483648 is out of range"),
        (_core.SamplingParams, "stop_token_ids", [1, "2"], TypeError, "stop_token_ids = '2' is not a whole number"),
        (_core.SamplingParams, "logit_bias", [(1, 2, 3)], TypeError, r"logit_bias = \(1, 2, 3\) is not a pair"),
        (_core.SamplingParams, "logit_bias", [(1, "2")], TypeError, "logit_bias = '2' is not a number"),
        (_core.BeamSearchParams, "early_stopping", "later", ValueError, "is not one of heuristic, immediate, never"),
        (
            _core.BeamSearchParams,
            "early_stopping",
            True,
            TypeError,
            "early_stopping = True is not one of the texts",
        ),
        (_core.EngineConfig, "swap_space", "much", ValueError, "swap_space = 'much' is not a size: .*512MB or 1.5GiB"),
        (
            _core.EngineConfig,
            "swap_space",
            1.5,
            TypeError,
            r"swap_space = 1\.5 is not a size: give bytes, or .*GiB",
        ),
        (_core.EngineConfig, "swap_space", -1, ValueError, "swap_space = -1 is out .*or be left out for no swap space"),
        (_core.EngineConfig, "enable_prefix_caching", 1, TypeError, "enable_prefix_caching = 1 is not True or False"),
        (_core.EngineConfig, "swap_file", 5, TypeError, "expected str, bytes or os.PathLike"),
        (_core.EngineConfig, "device", None, TypeError, "device = None is not a str"),
        (_core.SimulationConfig, "cost", 5, TypeError, "cost = 5 is not a CostModel"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_a_field_cannot_hold(record, name, value, error, says):
    with pytest.raises(error, match=says):
        record(**{name: value})
    kept = record()
    with pytest.raises(error, match=says):
        setattr(kept, name, value)
    assert kept == record()


def test_what_a_field_takes():
    params = _core.SamplingParams(max_tokens=np.int64(5), temperature=np.float32(0.5), stop_token_ids=np.arange(3))
    assert (params.max_tokens, params.temperature, params.stop_token_ids) == (5, 0.5, [0, 1, 2])
    params.stop_token_ids = None
    assert params.stop_token_ids == []
    config = _core.EngineConfig(kv_cache_memory="1.5GiB", swap_file=Path("a") / "b", threads=None, dtype="bf16")
    assert (config.kv_cache_memory, config.swap_file, config.threads) == (3 << 29, os.path.join("a", "b"), 0)
    assert config.dtype == "bfloat16"  # the first of its words


# rule: bindings.records-behave
def test_nested_record_changes_in_place():
    config = _core.SimulationConfig(scheduler=_core.SchedulerConfig(max_sequences=2))
    config.scheduler.order = "fair"
    assert (config.scheduler.max_sequences, config.scheduler.order) == (2, "fair")
    scheduler = config.scheduler
    del config
    gc.collect()
    assert scheduler.max_sequences == 2


def test_the_parts_of_an_engine_config_are_flat():
    config = _core.EngineConfig(threads=2, isa="avx2", max_sequences=7)
    assert (config.threads, config.isa, config.max_sequences, config.dtype) == (2, "avx2", 7, "bfloat16")


# rule: bindings.words-and-numbers
def test_enums_are_strings():
    model = pagedcore.ModelDescription(norm="layer", activation="gelu_tanh")
    assert (model.norm, model.activation) == ("layer", "gelu_tanh")
    with pytest.raises(pagedcore.InvalidArgument, match="norm = 'batch' is not one of rms, layer"):
        model.norm = "batch"
    assert model.norm == "layer"


# --------------------------------------------------------------------------------------------------------------------
# Errors


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        (pagedcore.Error, (RuntimeError,)),
        (pagedcore.InvalidArgument, (pagedcore.Error, ValueError)),
        (pagedcore.OutOfMemory, (pagedcore.Error, MemoryError)),
        (pagedcore.Unsupported, (pagedcore.Error,)),
        (pagedcore.Corrupt, (pagedcore.Error,)),
        (pagedcore.Aborted, (pagedcore.Error,)),
        (pagedcore.Io, (pagedcore.Error, OSError)),
    ],
)
def test_error_classes(error, bases):
    assert all(issubclass(error, base) for base in bases)
    assert str(error("what, limit, remedy")) == "what, limit, remedy"
    with pytest.raises(bases[-1]):
        raise error("caught by its built-in base")


# rule: base.errors-cross-libraries, bindings.errors-by-class
def test_each_error_arrives_as_its_class(tmp_path):
    cache = pagedcore.KvCacheManager(pagedcore.KvCacheConfig(num_blocks=2))
    cache.create(7)
    with pytest.raises(MemoryError) as out_of_memory:
        cache.append(7, 33)
    assert type(out_of_memory.value) is pagedcore.OutOfMemory
    assert "3" in str(out_of_memory.value)

    with pytest.raises(ValueError, match="num_blocks") as invalid:
        pagedcore.KvCacheManager(pagedcore.KvCacheConfig(num_blocks=0))
    assert type(invalid.value) is pagedcore.InvalidArgument

    with pytest.raises(pagedcore.Unsupported, match=r"'int3'.*q4_k"):
        _core.dtype_info("int3")

    with pytest.raises(OSError, match=re.escape(str(tmp_path / "nowhere"))) as io:
        pagedcore.ModelFile(str(tmp_path / "nowhere"))
    assert type(io.value) is pagedcore.Io

    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\xff" * 100)
    with pytest.raises(pagedcore.Corrupt):
        pagedcore.ModelFile(str(garbage))


# --------------------------------------------------------------------------------------------------------------------
# Tensors


@pytest.mark.parametrize("numpy_type", [np.float32, np.float16, np.float64, np.int8, np.uint8, np.int32, np.int64])
def test_to_f32_of_numpy_arrays(numpy_type):
    names = {"float32": "f32", "float16": "f16", "float64": "f64"}
    name = np.dtype(numpy_type).name
    values = np.arange(12).reshape(3, 4).astype(numpy_type)
    result = _core.to_f32(names.get(name, name.replace("uint", "u").replace("int", "i")), values.shape, values)
    assert result.dtype == np.float32
    assert result.flags.writeable
    np.testing.assert_array_equal(result, values)


def test_to_f32_of_any_buffer():
    expected = np.array([[1.5, -2.0], [0.25, 8.0]], np.float32)
    bf16 = (expected.view(np.uint32) >> 16).astype(np.uint16)  # these values need no rounding
    raw = bf16.tobytes()
    for source in (raw, bytearray(raw), memoryview(raw), bf16, bf16.view(np.uint8)):
        np.testing.assert_array_equal(_core.to_f32("bf16", (2, 2), source), expected)
    assert _core.to_f32("f32", (0, 4), b"").shape == (0, 4)
    assert _core.to_f32("f32", (), np.float32(3).tobytes()).item() == 3


def test_to_f32_of_a_torch_tensor():
    torch = pytest.importorskip("torch", reason="torch is an extra")
    tensor = torch.tensor([[1.5, -2.0], [0.25, 8.0]], dtype=torch.bfloat16)
    np.testing.assert_array_equal(_core.to_f32("bf16", (2, 2), tensor), tensor.float().numpy())


# rule: tensor.reads-stay-inside, bindings.buffers-are-not-copied
def test_buffers_are_checked_before_they_are_read():
    good = np.zeros((4, 4), np.float32)
    with pytest.raises(pagedcore.InvalidArgument, match="holds 64 bytes, but 20 elements of f32 take 80"):
        _core.to_f32("f32", (4, 5), good)
    with pytest.raises(pagedcore.InvalidArgument, match="at most 4 dimensions, not 5"):
        _core.to_f32("f32", (4, 4, 1, 1, 1), good)
    with pytest.raises(pagedcore.InvalidArgument, match="overflows"):
        _core.to_f32("f32", (2**40, 2**40), good)
    with pytest.raises(pagedcore.InvalidArgument, match="negative"):
        _core.to_f32("f32", (-4, -4), good)
    with pytest.raises(TypeError):
        _core.to_f32("f32", (4, 4), good.T)  # not C-contiguous
    with pytest.raises(TypeError):
        _core.to_f32("f32", (4, 4), "text")


# --------------------------------------------------------------------------------------------------------------------
# Models


# rule: bindings.buffers-are-not-copied
def test_weight_map_keeps_its_buffers():
    class Array(np.ndarray):  # can be weakly referenced
        pass

    weights = pagedcore.WeightMap()
    array = np.arange(6, dtype=np.float32).reshape(2, 3).view(Array)
    alive = weakref.ref(array)
    weights.add("a", "f32", (2, 3), array)
    del array
    gc.collect()
    dtype, shape, view = weights.tensor("a")
    assert (dtype, shape, view.readonly) == ("f32", (2, 3), True)
    assert weights.names() == ["a"]
    assert "a" in weights and "b" not in weights and len(weights) == 1
    del weights
    gc.collect()
    assert np.frombuffer(view, np.float32).tolist() == [0, 1, 2, 3, 4, 5]
    del view
    gc.collect()
    assert alive() is None
    with pytest.raises(pagedcore.Corrupt, match="b"):
        pagedcore.WeightMap().tensor("b")


def test_model_file_round_trip(tmp_path):
    model, weights = make_model()
    path = str(tmp_path / "model")
    pagedcore.save_model(path, model, weights, {"origin": "a test"})
    file = pagedcore.ModelFile(path)
    assert file.description() == model
    assert sorted(file.names()) == weights.names()
    assert len(file) == len(weights)
    assert file.metadata["origin"] == "a test"
    for name in file.names():
        assert name in file
        ours, theirs = weights.tensor(name), file.tensor(name)
        assert ours[:2] == theirs[:2]
        assert bytes(ours[2]) == bytes(theirs[2])
    view = file.tensor("embed.weight")[2]
    expected = bytes(weights.tensor("embed.weight")[2])
    del file
    gc.collect()
    assert bytes(view) == expected  # the view keeps the mapping


def test_model_description_texts():
    model, _ = make_model()
    model.validate()
    assert pagedcore.ModelDescription.from_text(model.to_text()) == model
    model.num_kv_heads = 3
    with pytest.raises(pagedcore.InvalidArgument, match="3"):
        model.validate()


# --------------------------------------------------------------------------------------------------------------------
# Sampling


def test_sampling():
    logits = np.log(np.array([0.1, 0.2, 0.4, 0.3], np.float32))
    greedy = _core.SamplingParams(temperature=0.0, logprobs=2, stop_token_ids=[2])
    outcome = _core.sample(logits, greedy, prompt=[0], output=[], sample=0)
    assert (outcome.token, outcome.stop) == (2, True)
    assert outcome.logprobs.chosen == _core.logprobs_of(logits, 2, 0).chosen
    assert [t.token for t in outcome.logprobs.top] == [2, 3]
    assert outcome.logprobs.chosen.logprob == pytest.approx(np.log(0.4), abs=1e-6)
    assert outcome.logprobs.chosen.rank == 1

    seeded = _core.SamplingParams(seed=5)
    draws = [_core.sample(logits, seeded, [0], [1] * i).token for i in range(200)]
    assert draws == [_core.sample(logits, seeded, [0], [1] * i).token for i in range(200)]
    assert np.bincount(draws, minlength=4).argmax() == 2
    assert 0 <= _core.uniform(1, 2, 3) < 1
    assert _core.uniform(1, 2, 3) != _core.uniform(1, 2, 4)
    with pytest.raises(pagedcore.InvalidArgument, match="top_p"):
        _core.validate(_core.SamplingParams(top_p=1.5), vocab_size=4)


# --------------------------------------------------------------------------------------------------------------------
# Memory management, as one would study it


def test_kv_cache_manager():
    cache = pagedcore.KvCacheManager(pagedcore.KvCacheConfig(num_blocks=8, block_size=4))
    prompt = list(range(10))
    cache.create(1)
    assert cache.append(1, 10) == []
    assert (cache.length(1), len(cache.block_table(1)), cache.blocks_for(10)) == (10, 3, 3)
    cache.publish(1, prompt, 10)

    cache.fork(1, 2, 10)
    assert cache.counts.shared == 3
    assert cache.references(cache.block_table(1)[0]) == 2
    [block_copy] = cache.append(2, 11)
    assert (block_copy.src, block_copy.num_tokens) == (cache.block_table(1)[2], 2)
    assert block_copy.dst == cache.block_table(2)[2]

    scratch = cache.scratch()
    assert scratch.available == 4
    assert scratch.append(1, 26)
    assert not scratch.append(2, 13)
    assert cache.available == 4  # the manager has not changed

    match = cache.match_prefix(prompt)
    assert (match.blocks, match.num_tokens) == (cache.block_table(1)[:2], 8)
    assert cache.match_prefix(prompt, salt=1).num_tokens == 0
    cache.create(3, match=match)
    assert 3 in cache and 4 not in cache

    for seq in (1, 2, 3):
        cache.free(seq, last_reader=1)
    assert cache.counts.in_flight == 4
    cache.complete(1)
    cache.check()
    counts = cache.counts
    assert (counts.cached, counts.in_flight, counts.used) == (2, 0, 0)
    assert counts.free + counts.cached == counts.total == 8
    cache.clear_prefix_cache()
    assert cache.counts.free == 8


def test_scheduler_plans_and_commits():
    """Two requests through a bare scheduler; the 'model' answers with the number of the row's sample."""
    scheduler = pagedcore.Scheduler(
        pagedcore.SchedulerConfig(max_batched_tokens=8),
        pagedcore.KvCacheConfig(num_blocks=16, block_size=4),
    )
    scheduler.submit(pagedcore.SchedulerRequest(id=1, prompt=list(range(12)), num_samples=2, max_tokens=3))
    scheduler.submit(pagedcore.SchedulerRequest(id=2, prompt=[5], arrival=1.0, max_tokens=2))
    updates, steps = [], 0
    while scheduler.has_work:
        plan = scheduler.plan(now=float(steps))
        assert plan
        assert 0 < len(plan.tokens) <= 8
        sampled = [
            pagedcore.SampledToken(sequence=s.sequence, sample=sample, token=sample)
            for s in plan.sequences
            for sample in range(s.first_sample, s.first_sample + s.num_samples)
        ]
        updates += scheduler.commit(pagedcore.StepResult(step=plan.step, tokens=sampled))
        scheduler.check()
        steps += 1
    finished = [u for u in updates if u.finish != "none"]
    assert sorted((u.request, u.sample, u.finish) for u in finished) == [
        (1, 0, "length"),
        (1, 1, "length"),
        (2, 0, "length"),
    ]
    assert [u.token for u in updates if (u.request, u.sample) == (1, 1)] == [1, 1, 1]
    assert scheduler.stats.steps == steps
    assert scheduler.stats.tokens_sampled == 8
    assert not scheduler.abort(99)
    cache = scheduler.cache
    for change in ("free", "append", "create", "fork", "swap_out", "complete", "clear_prefix_cache"):
        assert not hasattr(cache, change)  # only the scheduler changes it
    scheduler.clear_prefix_cache()
    assert scheduler.take_events() == []
    del scheduler
    gc.collect()
    assert cache.counts.used == 0  # the scheduler lives as long as its cache


def test_scheduler_rejects_what_could_never_run():
    scheduler = pagedcore.Scheduler(pagedcore.SchedulerConfig(), pagedcore.KvCacheConfig(num_blocks=2, block_size=4))
    request = pagedcore.SchedulerRequest(id=1, prompt=[1] * 9)
    for check in (scheduler.validate, scheduler.submit):
        with pytest.raises(pagedcore.InvalidArgument):
            check(request)
    assert not scheduler.has_work


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: _core.to_f32("f32", [True], b"\0\0\0\0"), r"shape = \[True\] is not a list of whole numbers"),
        (lambda: _core.bytes_of("f32", True), "count = True is not a whole number"),
        (lambda: _core.uniform(1, False, 0), "sample = False is not a whole number"),
    ],
)
def test_true_and_false_are_no_numbers(call: Callable[[], object], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        call()


def test_numbers_of_numpy_are_numbers() -> None:
    assert _core.bytes_of("f32", np.int64(3)) == _core.bytes_of("f32", np.uint8(3)) == 12
    assert _core.uniform(2**64 - 1, np.int32(1), 0) == _core.uniform(2**64 - 1, 1, 0)
    with pytest.raises(
        pagedcore.InvalidArgument, match=r"sample = 4294967296 is out of range: it is too small or too large"
    ):
        _core.uniform(1, 2**32, 0)
