"""From a model's name and a user's options to a native engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import _core
from .errors import InvalidArgument, Unsupported
from .memory import MemoryReport, parse_bytes

if TYPE_CHECKING:
    from .loading import Checkpoint
    from .tokenizer import Tokenizer

__all__ = ["EngineOptions", "OpenModel"]

_ComputeType = Literal["float32", "bfloat16", "float16"]
_DTYPES: dict[str, _ComputeType] = {
    "float32": "float32",
    "f32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "f16": "float16",
    "fp16": "float16",
}
_KV_DTYPES: tuple[Literal["auto", "fp8", "fp8_e4m3", "int8"], ...] = ("auto", "fp8", "fp8_e4m3", "int8")
_SERVED: dict[str, tuple[_ComputeType, ...]] = {"cpu": ("float32", "bfloat16"), "cuda": ("bfloat16", "float16")}


_ALLOCATION: tuple[Literal["paged", "max", "pow2", "oracle"], ...] = ("paged", "max", "pow2", "oracle")
_PREEMPTION: tuple[Literal["auto", "swap", "recompute"], ...] = ("auto", "swap", "recompute")
_ORDER: tuple[Literal["fcfs", "priority", "fair"], ...] = ("fcfs", "priority", "fair")
_ADMISSION: tuple[Literal["known", "watermark", "never_evict", "adaptive"], ...] = (
    "known",
    "watermark",
    "never_evict",
    "adaptive",
)
_VICTIM: tuple[Literal["cheapest", "last_arrival"], ...] = ("cheapest", "last_arrival")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """See the constructor of LLM, which has the same keywords."""

    dtype: str = "auto"
    device: str = "cpu"
    kv_cache_dtype: str = "auto"
    cublas_lt: bool = False
    block_size: int = 16
    kv_cache_memory: int | str | None = None
    num_blocks: int | None = None
    max_batched_tokens: int = 512
    max_sequences: int = 256
    max_context: int | None = None
    enable_prefix_caching: bool = True
    threads: int | None = None
    isa: str = "auto"
    trace_file: str | os.PathLike[str] | None = None
    preemption: str = "auto"
    order: str = "fcfs"
    admission: str = "known"
    victim: str = "cheapest"
    allocation: str = "paged"
    max_reservation: int | None = None
    swap_space: int | str | None = None
    swap_file: str | os.PathLike[str] | None = None
    swap_file_size: int | str | None = None
    cache_events: int = 0

    def __post_init__(self) -> None:
        kind, colon, index = self.device.partition(":")
        if kind not in _SERVED or (colon and not (kind == "cuda" and index.isdecimal())):
            raise InvalidArgument(f"device={self.device!r}: use 'cpu', 'cuda' or 'cuda:<index>'")
        if self.dtype != "auto" and self.dtype not in _DTYPES:
            raise InvalidArgument(f"dtype={self.dtype!r} is not one of auto, {', '.join(_DTYPES)}")
        if self.dtype != "auto" and _DTYPES[self.dtype] not in _SERVED[kind]:
            raise Unsupported(
                f"dtype={self.dtype!r} on device={self.device!r}, which computes in {' or '.join(_SERVED[kind])}"
            )
        if self.kv_cache_dtype not in _KV_DTYPES:
            raise InvalidArgument(f"kv_cache_dtype={self.kv_cache_dtype!r} is not one of {', '.join(_KV_DTYPES)}")
        if self.kv_cache_dtype != "auto" and kind == "cpu":
            raise Unsupported(
                f"kv_cache_dtype={self.kv_cache_dtype!r} on device='cpu', whose KV has the compute type: use 'auto'"
            )
        if self.cublas_lt and kind == "cpu":
            raise Unsupported("cublas_lt=True on device='cpu': it is for the products of device='cuda'")
        if self.kv_cache_memory is not None and self.num_blocks is not None:
            raise InvalidArgument("kv_cache_memory and num_blocks both give the size of the KV cache: give one of them")
        for name, choices in (
            ("allocation", _ALLOCATION),
            ("preemption", _PREEMPTION),
            ("order", _ORDER),
            ("admission", _ADMISSION),
            ("victim", _VICTIM),
        ):
            if getattr(self, name) not in choices:
                raise InvalidArgument(f"{name}={getattr(self, name)!r} is not one of {', '.join(choices)}")
        if self.allocation == "paged" and self.max_reservation is not None:
            raise InvalidArgument(
                f"max_reservation={self.max_reservation!r} is for the baselines allocation='max', 'pow2' and 'oracle'; "
                "paged allocation reserves nothing"
            )
        if self.preemption == "swap" and self.swap_space is None and self.swap_file is None:
            raise InvalidArgument('preemption="swap" needs a swap space: give swap_space="1GiB" or swap_file=, or both')
        if self.swap_file_size is not None and self.swap_file is None:
            raise InvalidArgument(f"swap_file_size={self.swap_file_size!r} needs swap_file, the path of the file")
        if (
            isinstance(self.cache_events, bool)
            or not isinstance(self.cache_events, int)
            or not 0 <= self.cache_events < 2**31
        ):
            raise InvalidArgument(
                f"cache_events={self.cache_events!r} is how many to keep: an integer in [0, {2**31 - 1}]"
            )
        names = ("block_size", "max_batched_tokens", "max_sequences", "num_blocks", "max_context", "threads")
        for name in (*names, "max_reservation"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
                raise InvalidArgument(f"{name}={value!r} must be an integer in [1, {2**31 - 1}]")

    def open(self, model: str | os.PathLike[str] | None, *, weights: bool = True) -> OpenModel:
        """Opens the model's files. Without weights, to plan: reads configuration and metadata only."""
        from .loading import load_checkpoint, load_description

        if model is None:
            from .default_model import default_model

            model = default_model()
        return OpenModel(load_checkpoint(model) if weights else load_description(model), self, os.fspath(model))

    def compute_dtype(self, source: str) -> _ComputeType:
        """The user's choice, or what the device has that suits a checkpoint of `source` elements."""
        if self.dtype != "auto":
            return _DTYPES[self.dtype]
        if self.device == "cpu":
            return "float32" if source in ("f32", "f64") else "bfloat16"
        return "float16" if source == "f16" else "bfloat16"

    def config(self, compute_dtype: _ComputeType) -> _core.EngineConfig:
        def size_of(value: int | str | None) -> int:
            return 0 if value is None else parse_bytes(value)

        return _core.EngineConfig(
            block_size=self.block_size,
            num_blocks=self.num_blocks or 0,
            kv_cache_memory=size_of(self.kv_cache_memory),
            max_batched_tokens=self.max_batched_tokens,
            max_sequences=self.max_sequences,
            max_context=self.max_context or 0,
            enable_prefix_caching=self.enable_prefix_caching,
            preemption=next(mode for mode in _PREEMPTION if mode == self.preemption),
            order=next(order for order in _ORDER if order == self.order),
            admission=next(policy for policy in _ADMISSION if policy == self.admission),
            victim=next(policy for policy in _VICTIM if policy == self.victim),
            allocation=next(policy for policy in _ALLOCATION if policy == self.allocation),
            max_reservation=self.max_reservation or 0,
            swap_space=size_of(self.swap_space),
            swap_file=os.fspath(self.swap_file) if self.swap_file is not None else "",
            swap_file_size=size_of(self.swap_file_size),
            cache_events=self.cache_events,
            trace_file=os.fspath(self.trace_file) if self.trace_file is not None else "",
            device=self.device,
            threads=self.threads or 0,
            dtype=compute_dtype,
            isa=self.isa,
            kv_cache_dtype=next(name for name in _KV_DTYPES if name == self.kv_cache_dtype),
            cublas_lt=self.cublas_lt,
        )


class OpenModel:
    """A checkpoint whose files are mapped. Close it once the engine has packed the weights: the pages of the files are
    then no longer resident."""

    def __init__(self, checkpoint: Checkpoint, options: EngineOptions, path: str) -> None:
        self._checkpoint = checkpoint
        self.path = path
        self.chat_template = checkpoint.chat_template
        self.eos_token_ids = tuple(checkpoint.eos_token_ids)
        self.description = _core.ModelDescription(**checkpoint.description)
        self.config = options.config(options.compute_dtype(checkpoint.source_dtype))

    def tokenizer(self, choice: str | os.PathLike[str] | Tokenizer | None) -> Tokenizer | None:
        """The user's choice, or the checkpoint's; None when it has none."""
        from .tokenizer import Tokenizer

        if isinstance(choice, Tokenizer):
            return choice
        if choice is not None:
            return Tokenizer.from_path(choice)
        source = self._checkpoint.tokenizer
        if source is None:
            return None
        if source.metadata is not None:
            return Tokenizer.from_gguf(source.metadata) if "tokenizer.ggml.model" in source.metadata else None
        if source.path is None or not (source.path / "tokenizer.json").exists():
            return None
        return Tokenizer.from_path(source.path)

    def plan(self) -> MemoryReport:
        return MemoryReport.from_native(_core.plan_memory(self.description, self.config))

    def engine(self) -> _core.Engine:
        weights = _core.WeightMap()
        for name, (dtype, shape, buffer) in self._checkpoint.tensors.items():
            weights.add(name, dtype, shape, buffer)
        return _core.Engine(self.description, weights, self.config)

    def close(self) -> None:
        self._checkpoint.close()
