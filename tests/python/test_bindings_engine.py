"""The native engine as Python sees it: lifetimes, errors and threads. tests/cpp tests what it computes."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

import pagedcore
from native_model import make_model
from pagedcore import _core


def make_engine(**config):
    model, weights = make_model()
    config = {"num_blocks": 32, "threads": 1, "dtype": "float32", **config}
    return pagedcore.Engine(model, weights, pagedcore.EngineConfig(**config))


def drain(engine, seconds=120.0):
    outputs, deadline = [], time.monotonic() + seconds
    while engine.busy:
        outputs += engine.wait(1.0)
        assert time.monotonic() < deadline, "the engine hangs"
    return outputs + engine.wait(0.0)


def test_engine_generates():
    engine = make_engine()
    params = _core.SamplingParams(temperature=0.0, max_tokens=8)
    ids = [engine.submit([1, 2, 3], params), engine.submit(np.array([1, 2, 3], np.int32), params, stream=True)]
    assert ids[0] != ids[1]
    outputs = drain(engine)
    [whole] = [o for o in outputs if o.request == ids[0]]
    pieces = [o for o in outputs if o.request == ids[1]]
    assert len(whole.tokens) == 8
    assert (whole.finish, whole.last, whole.error) == ("length", True, "")
    assert [token for piece in pieces for token in piece.tokens] == whole.tokens
    assert [p.last for p in pieces] == [False] * (len(pieces) - 1) + [True]
    assert not engine.busy
    assert engine.wait(0.0) == []
    engine.close()


def test_engine_loads_a_file(tmp_path):
    model, weights = make_model()
    path = str(tmp_path / "model")
    pagedcore.save_model(path, model, weights)
    params = _core.SamplingParams(temperature=0.0, max_tokens=8, logprobs=1)
    results = []
    for source in (weights, pagedcore.ModelFile(path)):
        config = pagedcore.EngineConfig(num_blocks=8, threads=1)
        engine = pagedcore.Engine(model, source, config)
        engine.submit([4, 5], params)
        results += drain(engine)
        assert engine.model == model
        assert engine.memory_plan == pagedcore.plan_memory(model, config)
        assert engine.memory_plan.kv_tokens == 8 * config.block_size
        assert engine.memory_plan.total == sum(
            getattr(engine.memory_plan, part) for part in ("weights", "activations", "kv_cache", "requests")
        )
        assert isinstance(engine.describe(), str)
        assert all(isinstance(v, float) for v in engine.stats().values())
        engine.close()
    assert results[0].tokens == results[1].tokens
    assert results[0].logprobs == results[1].logprobs
    assert len(results[0].logprobs) == 8


def test_closed_engine_refuses():
    engine = make_engine()
    engine.submit([1], _core.SamplingParams(max_tokens=200))
    engine.close()
    engine.close()
    for call in (lambda: engine.submit([1]), lambda: engine.wait(0.0), lambda: engine.busy, lambda: engine.abort(1)):
        with pytest.raises(pagedcore.Aborted):
            call()


def test_bad_requests_change_nothing():
    engine = make_engine()
    with pytest.raises(pagedcore.InvalidArgument):
        engine.submit([])
    with pytest.raises(pagedcore.InvalidArgument, match="64"):
        engine.submit([64])
    with pytest.raises(pagedcore.InvalidArgument, match="64"):
        engine.validate([64])
    engine.validate([63])
    with pytest.raises(pagedcore.InvalidArgument, match="temperature"):
        engine.submit([1], _core.SamplingParams(temperature=-1.0))
    with pytest.raises(TypeError):
        engine.submit(["a"])
    assert not engine.busy
    engine.close()


def test_many_requests_at_once():
    engine = make_engine()
    prompts = [[1, 2, 3], np.array([4, 5], np.int32), [6]]
    params = [_core.SamplingParams(max_tokens=3), _core.BeamSearchParams(beam_width=2, n=2, max_tokens=3)]
    ids = engine.submit_all(
        prompts, [*params, params[0]], pagedcore.RequestOptions(salt=3), stream=[True, False, False]
    )
    outputs = drain(engine)
    assert [len({o.sample for o in outputs if o.request == i}) for i in ids] == [1, 2, 1]
    assert [sum(len(o.tokens) for o in outputs if o.request == i and o.sample == 0) for i in ids] == [3, 3, 3]

    with pytest.raises(pagedcore.InvalidArgument, match="request 1: prompt token 0 is 64"):
        engine.submit_all([[1], [64], [2]])
    with pytest.raises(TypeError, match="request 1: prompt = 'a' is not a whole number"):
        engine.submit_all([[1], ["a"]])
    with pytest.raises(TypeError, match="request 0: prompt = 'text' is not a list"):
        engine.submit_all(["text"])
    with pytest.raises(pagedcore.InvalidArgument, match="2 params for 3 prompts: give one, or one for each"):
        engine.submit_all(prompts, params)
    assert not engine.busy and engine.submit_all([]) == []
    engine.close()


def test_statistics_are_those_of_the_list():
    engine = make_engine()
    names = [stat.name for stat in _core.stats_of_engine()]
    assert sorted(engine.stats()) == sorted(names)
    assert {stat.type for stat in _core.stats_of_engine()} == {"counter", "gauge"}
    engine.close()


def test_missing_weight_is_an_error():
    model, _ = make_model()
    with pytest.raises(pagedcore.Corrupt, match="embed"):
        pagedcore.Engine(model, pagedcore.WeightMap(), pagedcore.EngineConfig(num_blocks=4))


# rule: bindings.waiting-releases-the-gil
def test_waiting_releases_the_gil():
    engine = make_engine()
    waited = threading.Event()

    def wait():
        engine.wait(0.5)
        waited.set()

    thread = threading.Thread(target=wait)
    thread.start()
    turns = 0
    while not waited.is_set():
        turns += 1
        time.sleep(0.001)
    thread.join()
    assert turns > 3  # with the GIL held there would be one
    engine.close()


def test_abort_ends_a_request():
    engine = make_engine()
    request = engine.submit([1], _core.SamplingParams(max_tokens=200))
    engine.abort(request)
    engine.abort(12345)  # unknown: ignored
    [output] = drain(engine)
    assert (output.request, output.last) == (request, True)
    assert output.finish in ("abort", "length")
    engine.close()


def test_forced_preemption_changes_no_token():
    params = _core.SamplingParams(temperature=0.0, max_tokens=40)
    results = []
    for period in (0, 3):
        engine = make_engine(enable_prefix_caching=False)
        engine.force_preemption(period)
        ids = [engine.submit([i, i + 1, i + 2], params) for i in range(4)]
        tokens = {o.request: o.tokens for o in drain(engine)}
        results.append([tokens[i] for i in ids])
        engine.clear_prefix_cache()
        engine.close()
    assert results[0] == results[1]


# rule: bindings.dropping-closes
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_dropping_an_engine_ends_it(busy):
    """Without close(): from the thread that holds the GIL, while the engine thread works and other threads run."""
    stop = threading.Event()
    spinner = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    spinner.start()
    try:
        for _ in range(5):
            engine = make_engine()
            gone = weakref.ref(engine)
            if busy:
                for i in range(8):
                    engine.submit([i], _core.SamplingParams(max_tokens=200), stream=True)
            del engine
            gc.collect()
            assert gone() is None
    finally:
        stop.set()
        spinner.join()


def test_engine_closes_while_others_wait():
    engine = make_engine()
    results = []

    def wait():
        try:
            while True:
                results.extend(engine.wait(10.0))
        except pagedcore.Aborted:
            results.append("aborted")

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    engine.close()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert results == ["aborted"] * 3


# rule: bindings.dropping-closes
def test_exit_with_a_busy_engine_and_a_waiting_daemon_thread():
    """Nothing was closed: the process must end soon, quietly and with the status that the program chose."""
    program = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from test_bindings_engine import _core, make_engine
engine = make_engine()
idle = make_engine()
for i in range(8):
    engine.submit([i], _core.SamplingParams(max_tokens=200), stream=True)
threading.Thread(target=idle.wait, args=(60.0,), daemon=True).start()
engine.wait(10.0)
sys.exit(3)
"""
    folder = str(Path(__file__).parent)
    result = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, timeout=50)
    assert result.returncode == 3, result.stderr
    assert "terminate" not in result.stderr
    assert "leaked" not in result.stderr


def test_submitting_from_many_threads():
    engine = make_engine(max_sequences=8)
    params = _core.SamplingParams(temperature=0.0, max_tokens=5)
    ids, lock = [], threading.Lock()

    def submit():
        for i in range(10):
            request = engine.submit([i % 7], params)
            with lock:
                ids.append(request)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outputs = drain(engine)
    assert sorted(o.request for o in outputs) == sorted(ids)
    assert len(set(ids)) == 40
    engine.close()


def test_cpu_isas():
    isas = pagedcore.cpu_isas()
    assert "portable" in isas
    model, weights = make_model()
    with pytest.raises(pagedcore.InvalidArgument, match="mmx"):
        pagedcore.Engine(model, weights, pagedcore.EngineConfig(num_blocks=4, threads=1, isa="mmx"))
