"""Calls every function, method, property and constructor of the native module and of the public Python API with what
hypothesis comes up with, in sequences over objects that live on, and expects an exception or an answer: never the end
of the process, nor a wait.

    python tests/fuzz/bound_api.py --calls 100000 [--seconds 60] [--seed 0] [--most-seconds 1]

What there is to call is found by introspection, so that a new function is called without being named here. Values are
drawn by hypothesis, several dozen at a time; which of them (or of the objects made so far) goes where is drawn from a
seed of hypothesis: 10^6 calls then take minutes. Under AddressSanitizer: under_asan.sh.
"""

from __future__ import annotations

import argparse
import faulthandler
import inspect
import os
import random
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import pagedcore
from pagedcore import _core

# Numbers between these would be granted where they ask for memory: gigabytes for every call.
EDGES = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 64, 100, 255, 256, 1000, 4096, -1, -2, 2**31 - 1, 2**31, 2**32 - 2]
EDGES += [2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63), 10**400, -(10**400), 10**5000]
NAMES = st.text(
    st.characters(exclude_characters="/.\0", exclude_categories=["Cs"]), max_size=8
)  # no path leaves the folder
NUMBERS = st.one_of(st.sampled_from(EDGES), st.integers(0, 300), st.integers(2**31, 2**66), st.integers(-(2**66), 0))
FLOATS = st.one_of(st.floats(), st.sampled_from([0.0, 0.5, 1.0, 1e-300, 1e300]))
PLAIN = st.one_of(NUMBERS, FLOATS, NAMES, st.none(), st.booleans(), st.binary(max_size=16))
ARRAYS = st.builds(
    lambda kind, shape: np.zeros(shape, kind),
    st.sampled_from(["f4", "f8", "i4", "i8", "u1", "O"]),
    st.lists(st.integers(0, 5), max_size=3),
)
VALUES = st.one_of(
    PLAIN,
    st.lists(st.integers(-1, 300), max_size=24),
    st.lists(PLAIN, max_size=5),
    st.tuples(PLAIN, PLAIN),
    st.dictionaries(NAMES, PLAIN, max_size=3),
    ARRAYS,
    st.sampled_from([object(), int, range(5), iter([1]), memoryview(b"1234"), "f32", "swap", "recompute", "cpu"]),
)

# They compute, or take memory, as long or as much as they are asked to: they are asked for little, or for too much.
MODEST = {"attention_seconds", "selftest_checks", "selftest_rates", "run", "force_preemption"}
HANGS = 60.0  # seconds
# They measure, or load the default model: seconds of work are no wait.
LONG = {
    "attention_seconds",
    "selftest_checks",
    "selftest_rates",
    "LLM",
    "LLM.__init__",
    "AsyncLLM",
    "AsyncLLM.__init__",
}
# They wait for as long as they are asked to: for no time at all.
WAITS = {"cache_events", "drain", "wait"}
# After them others would wait, or be refused.
STOPS = {"pause", "drain"}
# They end what everything else is called on, or wait for a terminal or the network.
RARE = {
    "close",
    "stream",
    "chat",
    "stream_chat",
    "generate",
    "beam_search",
    "stream_beam_search",
    "score",
    "Engine",
    "LLM",
    "LLM.__init__",
    "AsyncLLM",
    "AsyncLLM.__init__",
    "selftest_checks",
    "selftest_rates",
}


def bound() -> dict[str, tuple[str, Callable[..., Any], str]]:
    """name: (class or empty, function, signature) of all that can be called."""
    found: dict[str, tuple[str, Callable[..., Any], str]] = {}
    public = {name: getattr(pagedcore, name) for name in pagedcore.__all__}
    for source, values in (("_core", vars(_core)), ("pagedcore", public)):
        for name, value in values.items():
            if inspect.ismodule(value) or (source == "pagedcore" and getattr(_core, name, None) is value):
                continue
            if isinstance(value, type):
                if issubclass(value, BaseException):
                    continue
                found[f"{source}.{name}"] = ("", value, _signature(value.__init__))
                for base in value.__mro__[:-1]:  # not what is Python's own
                    for attribute, member in vars(base).items():
                        found.update(_members(f"{source}.{name}", value, attribute, member))
            elif callable(value):
                found[f"{source}.{name}"] = ("", value, _signature(value))
    return found


def _members(owner: str, cls: type, name: str, member: Any) -> Iterator[tuple[str, tuple[str, Any, str]]]:
    if name.startswith("_") and not name.startswith("__"):
        return
    if name in ("__class__", "__new__", "__init_subclass__", "__subclasshook__", "__dict__", "__weakref__", "__del__"):
        return
    whose = cls.__name__
    if isinstance(member, property):
        if member.fget is not None:
            yield f"{owner}.{name} (get)", (whose, member.fget, "(self)")
        if member.fset is not None:
            yield f"{owner}.{name} (set)", (whose, member.fset, "(self, value: object)")
    elif isinstance(member, staticmethod):
        yield f"{owner}.{name}", ("", member.__func__, _signature(member.__func__))
    elif callable(member) and not isinstance(member, type):
        yield f"{owner}.{name}", (whose, member, _signature(member))


def _signature(function: Any) -> str:
    overloads = getattr(function, "__nb_signature__", None)
    if overloads:
        return str(overloads[-1][0])
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(*args)"


_PARAMETER = re.compile(r"(\w+): ((?:[^,()\[\]]|\[[^\]]*\])+)")


class World:
    """The objects that live, by the name of their class, and the values of the moment."""

    def __init__(self, model: tuple[Any, Any]) -> None:
        self.model = model
        self.file = os.path.join(tempfile.mkdtemp(), "tiny")
        _core.save_model(self.file, *model)
        self.llm: Any = None
        self.objects: dict[str, list[Any]] = {}
        self.values: list[Any] = []

    def keep(self, value: Any) -> None:
        items = value if isinstance(value, list) else [value]
        for item in items[:3]:
            name = type(item).__name__
            if hasattr(_core, name) or hasattr(pagedcore, name):
                held = self.objects.setdefault(name, [])
                held.append(item)
                if len(held) > 12:
                    del held[0]

    def a(self, name: str, source: random.Random) -> Any:
        """An object of a class: one that lives, or a new one."""
        held = self.objects.get(name)
        if held and source.random() < 0.8:
            return source.choice(held)
        made = self._make(name, source)
        if made is not None:
            self.keep(made)
        return made

    def _make(self, name: str, source: random.Random) -> Any:
        config = _core.KvCacheConfig(num_blocks=source.choice([1, 8, 50]), block_size=source.choice([1, 4, 16]))
        if name == "KvCacheManager":
            config.num_swap_blocks = source.choice([0, 4, 50])
            config.windows = source.choice([[], [0, 8], [4]])
            config.max_events = source.choice([0, 10])
            return _core.KvCacheManager(config)
        if name == "Scheduler":
            return _core.Scheduler(_core.SchedulerConfig(), config)
        if name == "KvCacheView":
            return self.a("Scheduler", source).cache
        if name == "KvScratch":
            return self.a("KvCacheManager", source).scratch()
        if name == "PrefixMatch":
            return self.a("KvCacheManager", source).match_prefix([1, 2, 3] * 8)
        if name == "Engine":
            description, weights = self.model
            return _core.Engine(description, weights, small_engine())
        if name == "Simulation":
            simulated = _core.SimulationConfig(cache=config, cost=_core.CostModel(step=0.1))
            return _core.Simulation(simulated, [0.0, 0.5], [[(1, 5)], [(1, 5), (2, 9)]], [3, 7])
        if name == "DTypeInfo":
            return _core.dtype_info("q4_0")
        if name == "ModelFile":
            return _core.ModelFile(self.file)
        if name == "LLM":
            self.llm = self.llm or pagedcore.LLM(self.file, num_blocks=64, threads=1, cache_events=10)
            return self.llm
        if name == "AsyncLLM":  # without arguments it would load the default model
            return pagedcore.AsyncLLM(self.file, num_blocks=64, threads=1)
        cls = getattr(_core, name, None) or getattr(pagedcore, name)
        try:
            return cls()
        except TypeError:  # it has to be given something
            return None

    def probed(self, model: Any) -> Any:
        """For a measurement: layers, heads and their size are few, or more than can be."""
        sizes = (model.num_layers, model.num_heads, model.num_kv_heads, model.head_dim)
        return self.model[0] if any(100 < size < 2**31 - 1 for size in sizes) else model

    def argument(self, kind: str, source: random.Random) -> Any:
        """For a parameter: mostly something of its type."""
        if source.random() < 0.12:
            return source.choice(self.values)
        for name in re.findall(r"\b([A-Z]\w+)\b", kind):
            if hasattr(_core, name) and isinstance(getattr(_core, name), type):
                many = "Sequence" in kind and source.random() < 0.8
                return [self.a(name, source) for _ in range(source.randrange(4))] if many else self.a(name, source)
        if "Sequence[int]" in kind:
            return [source.randrange(40) for _ in range(source.choice([0, 1, 3, 17, 40]))]
        if kind.startswith("int"):
            return source.randrange(6) if source.random() < 0.7 else source.choice(EDGES)
        if kind.startswith("float"):
            return source.choice([0.0, 0.5, 1.0, float("nan"), float("inf"), -1.0])
        if kind.startswith("bool"):
            return source.random() < 0.5
        return source.choice(self.values)


def modest(parameter: str, value: Any) -> Any:
    """Small, or too much for any machine."""
    if parameter == "bytes":
        return 2**20 if abs(value) < 2**60 else value
    if parameter in ("seconds", "repeats") and value == value:
        return min(value, 0.001 if parameter == "seconds" else 17)
    return value if value != value or not 100 < value < 2**31 - 1 else int(value) % 17


MATRICES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")


def small_engine() -> Any:
    return _core.EngineConfig(num_blocks=8, threads=1, max_batched_tokens=16, max_sequences=4, cache_events=10)


def tiny_model() -> tuple[Any, Any]:
    """A decoder of one layer with zero weights."""
    hidden, vocabulary = 8, 40
    description = _core.ModelDescription(
        architecture="tiny", vocab_size=vocabulary, hidden_size=hidden, num_layers=1, max_context=64, num_heads=1,
        num_kv_heads=1, head_dim=8, intermediate_size=8, tied_embeddings=True, rope_inv_freq=[1.0, 0.1, 0.01, 0.001],
    )  # fmt: skip
    weights = _core.WeightMap()
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (vocabulary, hidden), "final_norm.weight": (hidden,)}
    layer: dict[str, tuple[int, ...]] = {"attn_norm.weight": (hidden,), "mlp_norm.weight": (hidden,)}
    layer |= {f"{name}.weight": (8, 8) for name in MATRICES}
    shapes |= {f"layers.0.{name}": shape for name, shape in layer.items()}
    for name, shape in shapes.items():
        weights.add(name, "f32", list(shape), np.zeros(shape, np.float32))
    return description, weights


class Fuzzer:
    def __init__(self, most_seconds: float) -> None:
        self.calls = 0
        self.answers: Counter[str] = Counter()
        self.covered: Counter[str] = Counter()
        self.most_seconds = most_seconds
        self.slowest = (0.0, "")
        self.functions = bound()
        self.fields = [name for name in self.functions if name.endswith(")")]  # of records: most of all
        self.names = [name for name in self.functions if not name.endswith(")")]
        self.world = World(tiny_model())
        self.world.a("LLM", random.Random(0))  # which imports a good deal

    def run(self, values: list[Any], number: int, count: int) -> None:
        source = random.Random(number)
        world = self.world
        world.values = values
        for _ in range(count):
            name = source.choice(self.fields if source.random() < 0.15 else self.names)
            short = name.partition(".")[2] if name.endswith("LLM.__init__") else name.rpartition(".")[2]
            if short in RARE and source.random() < 0.98:
                continue
            self.call(name, source)
        if source.random() < 0.05:
            world.objects.clear()
            world.llm = None

    def call(self, name: str, source: random.Random) -> None:
        owner, function, signature = self.functions[name]
        arguments, keywords = self.arguments(name, owner, signature, source)
        if arguments is None:
            return
        began, worked = time.perf_counter(), time.process_time()
        try:
            result = function(*arguments, **keywords)
            self.world.keep(result)
            answer = "answered"
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            answer = type(error).__name__
            if "incompatible function arguments" in str(error):
                raise AssertionError(f"{name} says what only nanobind understands: {error}") from error
            if isinstance(error, (SystemError, OverflowError)):
                raise AssertionError(f"{name} raised {error!r} for {arguments!r:.300}, {keywords!r:.300}") from error
        if name.rpartition(".")[2] in STOPS and arguments and hasattr(arguments[0], "resume"):
            with suppress(Exception):  # closed, or a class
                arguments[0].resume()
        took = time.perf_counter() - began
        self.calls += 1
        self.answers[answer] += 1
        self.covered[name] += 1
        if name.partition(".")[2] in LONG:
            return
        if took > self.slowest[0]:
            self.slowest = (took, name)
        # Beside other programs a call waits for a core: it works too long, or hangs.
        if time.process_time() - worked > self.most_seconds or took > self.most_seconds + HANGS:
            raise AssertionError(f"{name} took {took:.1f} s for {arguments!r:.300}, {keywords!r:.300}")

    def arguments(self, name: str, owner: str, signature: str, source: random.Random) -> tuple[Any, dict[str, Any]]:
        world = self.world
        parameters = _PARAMETER.findall(signature)
        short = name.rpartition(".")[2]
        chosen: list[Any] = []
        if owner and source.random() > 0.02:
            try:
                me = world.a(owner, source)
            except pagedcore.Error:
                return None, {}
            if me is None:
                return None, {}
            chosen.append(me)
        if name.endswith(" (get)") or name.endswith(" (set)"):  # Python itself gives them so many
            chosen = chosen or [source.choice([value for value in world.values if value is not None] or [3])]
            return chosen + [world.argument("object", source)] * name.endswith(" (set)"), {}
        if source.random() < 0.1:  # anything, however many
            chosen += [source.choice(world.values) for _ in range(source.randrange(5))]
            if short in WAITS:
                chosen = [0 if isinstance(value, (int, float)) and value == value else value for value in chosen]
            return chosen, {}
        keywords: dict[str, Any] = {}
        for parameter, kind in parameters:
            if parameter == "self" or (source.random() < 0.25 and "=" in signature):
                continue
            try:
                value = world.argument(kind, source)
            except pagedcore.Error:
                value = None
            if isinstance(value, _core.EngineConfig) and short not in ("validate", "plan_memory"):  # which make nothing
                value = small_engine()
            if short == "attention_seconds" and isinstance(value, _core.ModelDescription):
                value = world.probed(value)
            if short in WAITS:
                value = 0 if isinstance(value, (int, float)) and value == value else value
            if short in MODEST and isinstance(value, (int, float)) and not isinstance(value, bool):
                value = modest(parameter, value)
            if "*" in signature.split(parameter)[0] or source.random() < 0.2:
                keywords[parameter] = value
            else:
                chosen.append(value)
        return chosen, keywords


def fuzz(calls: int, seconds: float, number: int, most_seconds: float, per_example: int = 500) -> Fuzzer:
    fuzzer = Fuzzer(most_seconds)
    ends = time.monotonic() + seconds

    @seed(number)
    @settings(
        max_examples=max(calls // per_example, 1) * 4,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(VALUES, min_size=10, max_size=40), st.integers(0, 2**64 - 1))
    def one(values: list[Any], draws: int) -> None:
        if fuzzer.calls < calls and time.monotonic() < ends:
            fuzzer.run(values, draws, per_example)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nanobind warns of objects that were made by __new__() alone
        one()
    return fuzzer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most-seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        fuzzer = fuzz(arguments.calls, arguments.seconds, arguments.seed, arguments.most_seconds)
        os.chdir("/")
    missed = [name for name in fuzzer.functions if fuzzer.covered[name] == 0]
    print(f"{fuzzer.calls} calls of {len(fuzzer.functions)} functions: {dict(fuzzer.answers.most_common())}")
    print(f"slowest: {fuzzer.slowest[0]:.3f} s, {fuzzer.slowest[1]}; never called: {len(missed)}, {missed[:20]}")


if __name__ == "__main__":
    main()
