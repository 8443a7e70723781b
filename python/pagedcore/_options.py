"""The fields of parameters and the keywords of options, as Python has them.

Written by tools/derive.py from the lists of fields in include/pagedcore/*.hpp: change those.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

__all__ = ["BeamSearchFields", "EngineOptions", "RequestOptions", "SamplingFields"]


@dataclass(frozen=True, kw_only=True)
class SamplingFields:
    """What the native library knows of SamplingParams."""

    n: int = 1
    """Independent samples of one prompt; its KV blocks are computed once and shared. More than max_sequences: the
    request runs alone, and its samples take turns. In [1, 65536]."""
    max_tokens: int | None = 16
    """Tokens generated, per sample. 0: compute (score) the prompt only. the most is no limit: as many as the context
    and the KV cache hold. In [0, 2^31 - 1]. None: as many as the context holds."""
    min_tokens: int = 0
    """No stop token ends a sample before this many tokens. In [0, 2^31 - 1]."""
    temperature: float = 1.0
    """Divides the logits. 0 is greedy. At least 0."""
    top_k: int = 0
    """Draw from this many most likely tokens. 0 or -1 turns it off. At least -1."""
    top_p: float = 1.0
    """Draw from the fewest most likely tokens that have this probability together. 1 turns it off. In (0, 1]."""
    min_p: float = 0.0
    """Leave out tokens less likely than this share of the most likely one's probability. 0 turns it off. In [0, 1]."""
    repetition_penalty: float = 1.0
    """Divides positive logits, and multiplies negative ones, of tokens in the prompt or the output. 1 turns it off.
    Above 0."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens in the output. 0 turns it off. In [-2, 2]."""
    frequency_penalty: float = 0.0
    """Subtracted from the logits of tokens in the output, as often as they occur there. 0 turns it off. In [-2, 2]."""
    logit_bias: Mapping[int, float] | None = None
    """Added to the logits of these tokens; -inf bans one."""
    banned_tokens: Sequence[int] = ()
    """Never drawn. At least 0."""
    allowed_token_ids: Sequence[int] | None = None
    """Nothing else is drawn. None: all tokens are allowed. At least 0."""
    stop_token_ids: Sequence[int] = ()
    """End a sample, and belong to it. At least 0."""
    logprobs: int | None = None
    """Report each token's log-probability and those of this many most likely tokens; -1: of the whole vocabulary.
    None: none are reported. At least -1."""
    prompt_logprobs: int | None = None
    """Likewise for every token of the prompt but the first. At least -1."""
    prompt_logprob_start: int = 0
    """With prompt_logprobs: the index of the first token that is scored. The KV of those before it may come from the
    prefix cache. 0 and 1 score all but the first, which nothing predicts. In [0, 2^31 - 1]."""
    logprob_token_ids: Sequence[int] = ()
    """Tokens whose log-probabilities are reported too, at every position that is. Without logprobs they are reported
    of each output token, as with logprobs 0. At least 0."""
    seed: int | None = None
    """The key of the random numbers: equal seeds draw alike. None: derived from the LLM's seed and the number of the
    request, so that a program's runs are reproducible."""


@dataclass(frozen=True, kw_only=True)
class BeamSearchFields:
    """What the native library knows of BeamSearchParams."""

    beam_width: int = 4
    """Running beams. In [1, 65536]."""
    n: int | None = None
    """Hypotheses to return, at most beam_width. In [1, 65536]. None: ``beam_width``."""
    max_tokens: int = 16
    """Tokens of a hypothesis. In [1, 2^31 - 1]."""
    length_penalty: float = 1.0
    """A hypothesis scores the sum of its log-probabilities divided by its length to this power."""
    early_stopping: bool | Literal["heuristic", "immediate", "never"] = False
    """When the search ends, given beam_width finished hypotheses: at once (immediate), when no running beam could
    beat the worst of them as long as it is now (heuristic), or at any length (never). False: heuristic. True:
    immediate."""
    stop_token_ids: Sequence[int] = ()
    """End a hypothesis, and belong to it. At least 0."""


class EngineOptions(TypedDict, total=False):
    """The options of an engine."""

    device: str
    """cpu, cuda or cuda:<index>; a GPU needs the CUDA plugin."""
    block_size: int
    """Tokens per block of KV cache. In [1, 256]."""
    num_blocks: int | None
    """Blocks of KV cache, instead of kv_cache_memory. None: what kv_cache_memory holds. In [1, 2^32 - 2]."""
    kv_cache_memory: int | str | None
    """Memory of the KV cache. None: what max_sequences full contexts need, at most 1 GiB and half of the available
    memory, on a GPU all of gpu_memory_utilization. In [1, 2^63 - 1]."""
    enable_prefix_caching: bool
    """Keep the KV of finished requests for prompts that begin alike."""
    allocation: Literal["paged", "max", "pow2", "oracle"]
    """paged, or, for comparisons, a baseline of the PagedAttention paper: a request reserves a contiguous chunk on
    admission, for the longest output (max), for its max_tokens rounded up to a power of two (pow2), or for
    exactly that (oracle), and shares nothing."""
    max_reservation: int | None
    """Tokens of the longest sequence under such a baseline. None: the longest that fits. In [1, 2^31 - 1]."""
    cache_events: int
    """Events of the prefix cache that are kept; 0: none are recorded. In [0, 2^31 - 1]."""
    max_batched_tokens: int | None
    """Tokens computed in one step; longer prompts are computed in chunks. None: 512, on a GPU 2048. In [1, 1048576]."""
    max_sequences: int
    """Sequences of one step. In [1, 1048576]."""
    max_context: int | None
    """Tokens of one sequence, prompt and output. None: as many as the model and the memory allow. In [1, 2^31 - 1]."""
    watermark: float
    """Share of the blocks that an admission must leave free, so that it is not preempted at once. In [0, 1]."""
    preemption: Literal["auto", "swap", "recompute"]
    """What becomes of a request that must make room for an earlier one: swap moves its KV to the swap space and
    back, recompute computes again what others took of it, auto takes whichever is cheaper by measured rates. The
    output is the same, bit for bit."""
    order: Literal["fcfs", "priority", "fair"]
    """Who is served first: by arrival (fcfs); the request with the highest priority, which may preempt those with a
    lower one (priority); the tenant that was served least (fair). No output changes with it."""
    admission: Literal["known", "watermark", "never_evict", "adaptive"]
    """When a waiting request is admitted beside running ones: when all tokens known and the next of each fit
    (known); all but the next (watermark); when all fit to their max_tokens, so that nobody is preempted for room
    (never_evict); when they are expected to fit by the output lengths seen so far (adaptive)."""
    victim: Literal["cheapest", "last_arrival"]
    """Who makes room when blocks are short: the request that costs least for every block that it frees (cheapest),
    or the last one (last_arrival)."""
    prompt_weight: float
    """With order fair: service by one prompt token that is computed. At least 0."""
    output_weight: float
    """With order fair: service by one token that is generated. At least 0."""
    jump_ahead: bool
    """Where a structured output's form leaves one token to come, and then one again, the run of them is computed in
    one step instead of one step each. No output changes with it."""
    swap_space: int | str | None
    """Host memory for the KV of requests that make room. None: no swap space. In [1, 2^63 - 1]."""
    swap_file: str | os.PathLike[str] | None
    """A file for what finds no place there. It must not exist; it has no name while the engine runs and is gone with
    it. None: no file."""
    swap_file_size: int | str | None
    """Size of that file. None: as much as the KV cache. In [1, 2^63 - 1]."""
    kv_store: str | os.PathLike[str] | None
    """A directory that keeps the KV of finished requests: prompts that begin alike find it there, also after a
    restart. Made where there is none; engines of any models may share one. None: no store."""
    kv_store_size: int | str
    """The most that all engines' files in that directory take; the least recently used go. In [1, 2^63 - 1]."""
    kv_transfer: bool
    """Prefixes can be exported to other engines and imported from them; a kv_store allows it too. The weights are
    hashed when they are loaded."""
    threads: int | None
    """Threads of the host. None: the number of CPUs that this process may run on. In [1, 4096]."""
    dtype: Literal["auto", "float32", "f32", "fp32", "bfloat16", "bf16", "float16", "f16", "fp16", "int8"]
    """Compute type: float32 or bfloat16 on the CPU, bfloat16 or float16 on a GPU. int8: on the CPU, products with
    weights in a block format multiply their codes by inputs in int8 with a scale for each 32; all else is
    bfloat16, as everything is on a GPU. auto: float32 for float32 checkpoints where the device has it, else
    bfloat16 or float16."""
    weights: Literal["auto", "native", "dense", "int8", "int4"]
    """What is kept of weights in a block format of a GGUF file: that (native), or numbers of the compute type
    (dense); the bits of results are the same. auto: dense where all weights then take at most 1 GiB, else native;
    with dtype int8 native. int8 and int4: native, and matrices in no block format are rounded to 8 bits with a
    scale for each 32, or to 4 bits with a scale and a minimum. A GPU widens all."""
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "f8_e4m3", "int8", "i8"]
    """auto: KV in the compute type. int8 with a scale for each token and head, and on a GPU fp8 (e4m3) likewise,
    take about half the memory of bfloat16 and lose some precision."""
    isa: str
    """Instruction set of the CPU, for tests and comparisons; auto: the best that it has."""
    workspace: int | str
    """On a GPU, memory for what a step needs besides activations. In [1048576, 1099511627776]."""
    graph_rows: int
    """On a GPU, steps of up to this many rows are submitted as one CUDA graph; 0: none are. In [0, 1048576]."""
    sample_on_device: bool
    """On a GPU, sample there; else the host samples from downloaded logits: the same tokens."""
    cublas_lt: bool
    """On a GPU, matrix products by NVIDIA's cuBLASLt instead of our own kernels. A request's bits then depend on
    what runs beside it. The library is found by the dynamic loader, or is the file that the environment variable
    PAGEDCORE_CUBLASLT names."""
    gpu_memory_utilization: float
    """On a GPU, the part of its free memory that an engine takes whose KV cache has no size of its own. In (0, 1]."""
    plugin: str | os.PathLike[str] | None
    """Path of libpagedcore_cuda.so. None: beside libpagedcore."""
    request_memory: int | str | None
    """Host memory for requests, apart from their KV: prompts, outputs and log-probabilities, from submission until
    the last output has been taken. A request counts with the most that it may come to need, and is refused where
    that does not fit. None: 1 GiB, or a quarter of the available memory where that is less. In [1, 2^63 - 1]."""
    max_waiting: int | None
    """Requests that may wait to begin. What would exceed it is refused at once (Overloaded). None: as many as
    request_memory holds. In [1, 2^31 - 1]."""
    trace_file: str | os.PathLike[str] | None
    """Write all that the scheduler is told and plans there, as text, for replay. None: no trace."""
    timeline_file: str | os.PathLike[str] | None
    """Write when each step was planned and run there and, on the CPU, each operation of it, as JSON for viewers such
    as Perfetto. Some 30 KB a step of a model of 30 layers. None: no timeline."""
    tensor_parallel: int
    """Ranks that share the model, each with a part of its weights, heads and KV and a share of `threads`; on the CPU
    only. Results have the same bits for any number of them. In [1, 256]."""


class RequestOptions(TypedDict, total=False):
    """What every kind of request may say besides its prompt."""

    prefix: str | None
    """Name of a prefix that was registered under the same salt, or shared: the prompt begins with its tokens, and
    its KV is shared. None: no prefix."""
    salt: int
    """Requests with different salts never share cached prefixes."""
    priority: int
    """With order priority: the higher goes first. In [-1000000, 1000000]."""
    tenant: int
    """With order fair: who is served by it."""
    request_id: str | None
    """A name for the request, of 256 bytes at most, by which it can be aborted. No other that is open has it. None:
    no name: the engine's number."""
    deadline: float | None
    """Seconds from submission after which the request ends with what it has, be it waiting or running; its finish
    reason is deadline. None: no deadline. Above 0."""
