"""Keywords that there are not: names of other systems, and ours in the wrong place. The error says which, and where."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

from . import _core

__all__ = ["OTHERS", "RENAMED", "knows_its_fields", "nearest_name", "our_word", "unknown_name"]

_P = TypeVar("_P")

RENAMED = {
    "max_model_len": "max_context",
    "n_ctx": "max_context",
    "max_num_seqs": "max_sequences",
    "max_num_batched_tokens": "max_batched_tokens",
    "n_threads": "threads",
    "tensor_parallel_size": "tensor_parallel",
}
"""Options of an engine that mean the same under another name: they are taken."""

# Of vLLM, llama.cpp, transformers, SGLang and TGI, where the meaning or the place differs: what to use, by its place.
OTHERS = {
    "LLM": {
        "cache_dir": "HF_HOME, in the environment",
        "chunked_prefill_size": "max_batched_tokens",
        "context_length": "max_context",
        "cpu_offload_gb": "swap_space, which holds KV of preempted requests; weights stay on the device",
        "device_map": "device: device='cuda' computes every layer there",
        "download_dir": "HF_HOME, in the environment",
        "disable_radix_cache": "enable_prefix_caching: False turns it off",
        "enable_chunked_prefill": "max_batched_tokens: a prompt that exceeds it is cut",
        "enforce_eager": "graph_rows: 0 submits no CUDA graphs",
        "hf_token": "token",
        "kv_cache_memory_bytes": "kv_cache_memory",
        "max_running_requests": "max_sequences",
        "max_seq_len": "max_context",
        "mem_fraction_static": "gpu_memory_utilization, or kv_cache_memory='2GiB'",
        "model_path": "model, which comes first",
        "n_batch": "max_batched_tokens",
        "n_gpu_layers": "device: device='cuda' computes every layer there",
        "n_parallel": "max_sequences",
        "n_seq_max": "max_sequences",
        "num_ctx": "max_context",
        "num_gpu_blocks": "num_blocks",
        "num_gpu_blocks_override": "num_blocks",
        "preemption_mode": "preemption",
        "num_thread": "threads",
        "page_size": "block_size",
        "quantization": "dtype: weights compute in float32, bfloat16 or float16, whatever the file holds",
        "schedule_policy": "order: order='fcfs', 'priority' or 'fair'",
        "scheduling_policy": "order: order='fcfs', 'priority' or 'fair'",
        "torch_dtype": "dtype",
        "use_tqdm": "progress",
    },
    "SamplingParams": {
        "bad_words": "banned_tokens, which are single tokens",
        "bad_words_ids": "banned_tokens, which are single tokens",
        "do_sample": "temperature: 0 is greedy, above 0 samples",
        "eos_token_id": "stop_token_ids, on top of the model's own",
        "max_completion_tokens": "max_tokens",
        "max_length": "max_tokens, which counts generated tokens only",
        "max_logprobs": "logprobs",
        "max_new_tokens": "max_tokens",
        "min_length": "min_tokens, which counts generated tokens only",
        "min_new_tokens": "min_tokens",
        "n_predict": "max_tokens",
        "num_predict": "max_tokens",
        "num_return_sequences": "n",
        "output_scores": "logprobs",
        "repeat_penalty": "repetition_penalty",
        "stop_sequences": "stop",
        "stop_strings": "stop",
        "temp": "temperature",
        # Ours that only Python has
        **{name: name for name in ("best_of", "detokenize", "ignore_eos", "include_stop_str_in_output")},
        **{name: name for name in ("skip_special_tokens", "stop", "structured_outputs")},
    },
    "BeamSearchParams": {
        "max_length": "max_tokens, which counts generated tokens only",
        "max_new_tokens": "max_tokens",
        "num_beams": "beam_width",
        "num_return_sequences": "n",
        "use_beam_search": "beam_width",
    },
    "a request": {
        "cache_prompt": "the prefix cache, which is on and shared by all requests",
        "cache_salt": "salt, an integer",
        "prompt_token_ids": "prompts, which may be token ids",
        "stream": "LLM.stream() or LLM.stream_chat()",
        "timeout": "deadline, in seconds",
        "use_tqdm": "progress of LLM.generate() and the like",
    },
}
# Our own names: whose they are, by the lists of fields.
_PLACES = {
    "LLM": "EngineConfig",
    "SamplingParams": "SamplingParams",
    "BeamSearchParams": "BeamSearchParams",
    "a request": "RequestOptions",
}
_OF = {
    "LLM": " of LLM()",
    "SamplingParams": " of SamplingParams, which generate(), chat() and stream() take second",
    "BeamSearchParams": " of BeamSearchParams, which beam_search() takes second",
    "a request": ", a keyword of generate() and the like",
}


def unknown_name(what: str, name: str, known: Iterable[str]) -> TypeError:
    """The error of a keyword that `what` does not have: with our word for it and where that belongs, or the nearest."""
    names = list(known)
    for place in (what, *OTHERS):  # its own first: a word may be of several
        words = OTHERS.get(place, {})
        ours = words.get(name) or (RENAMED.get(name) if place == "LLM" else None)
        if ours is None and place in _PLACES and any(info.name == name for info in _core.options_of(_PLACES[place])):
            ours = name
        if ours is not None:
            return TypeError(f"{what} has no option {name!r}; use {ours}{'' if place == what else _OF[place]}")
    nearest = nearest_name(name, names)
    hint = f"it has {', '.join(names)}" if nearest is None else f"did you mean {nearest!r}? It has {', '.join(names)}"
    return TypeError(f"{what} has no option {name!r}; {hint}")


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """What was meant, if `name` looks like one of them with a slip in it. A word that does not gets no guess."""
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.7)), None)


def our_word(name: str) -> str:
    """What a word of other systems is here; the word itself where it is none of theirs."""
    found = (words[name] for words in (RENAMED, *OTHERS.values()) if name in words)
    return next(found, name).partition(",")[0].partition(":")[0]


def knows_its_fields(parameters: type[_P]) -> type[_P]:
    """A dataclass whose constructor says more than TypeError does of a field that it lacks."""
    init: Callable[..., None] = parameters.__init__
    known = tuple(inspect.signature(init).parameters)[1:]

    @wraps(init)
    def checked(self: Any, *args: Any, **values: Any) -> None:
        for name in values:
            if name not in known:
                raise unknown_name(parameters.__name__, name, known)
        init(self, *args, **values)

    parameters.__init__ = checked  # type: ignore[method-assign]
    return parameters
