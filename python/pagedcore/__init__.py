"""Serves large language models from paged KV-cache memory.

``LLM`` generates text. Below it lie the native parts, under the names of the C++ headers: ``Engine`` serves token
requests, ``Scheduler`` and ``KvCacheManager`` plan memory, ``ModelFile`` and ``WeightMap`` hold weights.
"""

from __future__ import annotations

from pagedcore import starting

starting.watch()  # before anything that takes time

# ruff: noqa: E402
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pagedcore import _core
from pagedcore._core import (
    Engine,
    EngineConfig,
    EngineOutput,
    KvCacheConfig,
    KvCacheManager,
    MemoryPlan,
    ModelDescription,
    ModelFile,
    RequestOptions,
    SampledToken,
    Scheduler,
    SchedulerConfig,
    SchedulerRequest,
    StepPlan,
    StepResult,
    TraceReplay,
    WeightMap,
    cpu_isas,
    plan_memory,
    replay_trace,
    save_model,
)
from pagedcore.errors import Aborted, Corrupt, Error, InvalidArgument, Io, OutOfMemory, Overloaded, Unsupported

if TYPE_CHECKING:
    from pagedcore.async_llm import AsyncLLM
    from pagedcore.async_stream import AsyncStream
    from pagedcore.beam_search_params import BeamSearchParams
    from pagedcore.llm import LLM
    from pagedcore.outputs import CompletionOutput, RequestOutput
    from pagedcore.sampling_params import SamplingParams
    from pagedcore.structured_outputs import StructuredOutputs

__version__ = _core.version()

__all__ = [
    "LLM",
    "Aborted",
    "AsyncLLM",
    "AsyncStream",
    "BeamSearchParams",
    "CompletionOutput",
    "Corrupt",
    "Engine",
    "EngineConfig",
    "EngineOutput",
    "Error",
    "InvalidArgument",
    "Io",
    "KvCacheConfig",
    "KvCacheManager",
    "MemoryPlan",
    "ModelDescription",
    "ModelFile",
    "OutOfMemory",
    "Overloaded",
    "RequestOptions",
    "RequestOutput",
    "SampledToken",
    "SamplingParams",
    "Scheduler",
    "SchedulerConfig",
    "SchedulerRequest",
    "StepPlan",
    "StepResult",
    "StructuredOutputs",
    "TraceReplay",
    "Unsupported",
    "WeightMap",
    "__version__",
    "cpu_isas",
    "get_cmake_dir",
    "get_include",
    "plan_memory",
    "replay_trace",
    "save_model",
]

# Imported on first use: they need numpy, tokenizers or huggingface_hub, which take longer to import than all the rest.
_LAZY = {
    "LLM": "pagedcore.llm",
    "AsyncLLM": "pagedcore.async_llm",
    "AsyncStream": "pagedcore.async_stream",
    "CompletionOutput": "pagedcore.outputs",
    "RequestOutput": "pagedcore.outputs",
    "SamplingParams": "pagedcore.sampling_params",
    "BeamSearchParams": "pagedcore.beam_search_params",
    "StructuredOutputs": "pagedcore.structured_outputs",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def get_include() -> str:
    """Directory of the C++ and C headers."""
    return os.path.join(_install_dir(), "include")


def get_cmake_dir() -> str:
    """Directory for CMake's ``pagedcore_DIR``, so that ``find_package(pagedcore)`` finds this installation."""
    return os.path.join(_install_dir(), "lib", "cmake", "pagedcore")


def _install_dir() -> str:
    # Beside the extension: in an editable installation the Python files lie elsewhere.
    return os.path.dirname(os.path.abspath(_core.__file__))
