"""The native library: what include/pagedcore/*.hpp documents, under the same names.

A list or dict read from a record's field is a copy: assign the field to change it. Errors are those of
``pagedcore.errors``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self, dataclass_transform

_Tensor: TypeAlias = tuple[str, tuple[int, ...], memoryview]
# Contiguous and in host memory: bytes, memoryview, mmap, a numpy array or (by DLPack) a CPU tensor of torch.
_HostBuffer: TypeAlias = Any
_Logits: TypeAlias = NDArray[np.float32]
_Tokens: TypeAlias = Sequence[int] | NDArray[np.int32]
_FinishReason: TypeAlias = Literal["none", "stop", "length", "abort", "error"]
_ComputeType = Literal["f32", "bf16", "f16"]
_PreemptionMode: TypeAlias = Literal["auto", "swap", "recompute"]
_Allocation: TypeAlias = Literal["paged", "max", "pow2", "oracle"]
_Order: TypeAlias = Literal["fcfs", "priority", "fair"]
_Admission: TypeAlias = Literal["known", "watermark", "never_evict", "adaptive"]
_Victim: TypeAlias = Literal["cheapest", "last_arrival"]

@dataclass_transform(kw_only_default=True)
class _Record:
    """Fields are attributes and keywords of the constructor."""

    def to_dict(self) -> dict[str, Any]: ...
    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self: ...

def version() -> str:
    """major.minor.patch of the native library."""

class DTypeInfo:
    """An element type: block_elements elements occupy block_bytes bytes."""

    @property
    def name(self) -> str: ...
    @property
    def block_elements(self) -> int: ...
    @property
    def block_bytes(self) -> int: ...

def dtype_info(dtype: str) -> DTypeInfo:
    """Raises Unsupported for an unknown name, listing those that are known."""

def bytes_of(dtype: str, count: int) -> int:
    """Bytes of `count` consecutive elements."""

def to_f32(dtype: str, shape: Sequence[int], buffer: _HostBuffer) -> NDArray[np.float32]:
    """The tensor as a new float32 numpy array."""

class ModelDescription(_Record):
    """A decoder-only transformer, complete: the forward pass asks nothing else."""

    architecture: str = ...
    vocab_size: int = ...
    hidden_size: int = ...
    intermediate_size: int = ...
    num_layers: int = ...
    num_heads: int = ...
    num_kv_heads: int = ...
    head_dim: int = ...
    max_context: int = ...  # Positions the model was made for.
    norm: Literal["rms", "layer"] = ...
    norm_eps: float = ...
    norm_weight_offset: float = ...
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = ...
    gated_mlp: bool = ...
    tied_embeddings: bool = ...
    qk_norm: bool = ...
    embedding_scale: float = ...
    attention_scale: float = ...  # 0: 1 / sqrt(head_dim).
    attention_softcap: float = ...
    logit_scale: float = ...
    logit_softcap: float = ...
    rope_inv_freq: list[float] = ...  # Scaling already applied; empty: no rotation.
    rope_magnitude: float = ...
    windows: list[int] = ...  # Per layer, 0: full attention; empty: full everywhere.
    def validate(self) -> None:
        """Raises InvalidArgument naming the first field that contradicts the rest."""
    def to_text(self) -> dict[str, str]: ...
    @staticmethod
    def from_text(text: Mapping[str, str]) -> ModelDescription: ...

class WeightMap:
    """Weights in host memory, by canonical name; keeps their buffers alive."""

    def __init__(self) -> None: ...
    def add(
        self,
        name: str,
        dtype: str,
        shape: Sequence[int],
        buffer: _HostBuffer,
    ) -> None: ...
    def names(self) -> list[str]: ...
    def tensor(self, name: str) -> _Tensor:
        """(dtype, shape, memoryview)."""
    def __contains__(self, arg: str, /) -> bool: ...
    def __len__(self) -> int: ...

class ModelFile:
    """A model container or a plain safetensors file, opened by mmap."""

    def __init__(self, path: str) -> None: ...
    def names(self) -> list[str]: ...
    @property
    def metadata(self) -> dict[str, str]: ...
    def description(self) -> ModelDescription:
        """Raises Corrupt for a plain safetensors file."""
    def tensor(self, name: str) -> _Tensor:
        """(dtype, shape, memoryview); the view keeps the file open."""
    def __contains__(self, arg: str, /) -> bool: ...
    def __len__(self) -> int: ...

def save_model(path: str, description: ModelDescription, weights: WeightMap, metadata: Mapping[str, str] = {}) -> None:
    """Writes a container, atomically."""

class SamplingParams(_Record):
    """How the tokens of a request are chosen. validate() checks the ranges."""

    n: int = ...  # Independent samples.
    max_tokens: int = ...  # Per sample; 0 only scores the prompt.
    min_tokens: int = ...  # Stop tokens are impossible before this many tokens.
    temperature: float = ...  # >= 0; 0 is greedy.
    top_k: int = ...  # 0 or -1: off.
    top_p: float = ...  # In (0, 1].
    min_p: float = ...  # In [0, 1].
    repetition_penalty: float = ...  # > 0; over prompt and output.
    presence_penalty: float = ...  # In [-2, 2]; over output.
    frequency_penalty: float = ...  # In [-2, 2]; over output.
    logit_bias: list[tuple[int, float]] = ...  # Pairs (token, bias).
    banned_tokens: list[int] = ...
    allowed_tokens: list[int] = ...  # Empty: all.
    stop_token_ids: list[int] = ...
    logprobs: int = ...  # >= 0: the chosen token's and this many most likely tokens'.
    prompt_logprobs: int = ...  # Likewise for every prompt token but the first.
    seed: int = ...

class BeamSearchParams(_Record):
    """A beam search with the results of transformers' generate()."""

    width: int = ...  # Running beams.
    n: int = ...  # Hypotheses to return.
    max_tokens: int = ...
    length_penalty: float = ...
    early_stopping: Literal["heuristic", "immediate", "never"] = ...
    stop_token_ids: list[int] = ...

def validate(params: SamplingParams, vocab_size: int) -> None:
    """Raises InvalidArgument naming the first bad value."""

class TokenLogprob(_Record):
    """A token's log-probability and rank (1 is the most likely)."""

    token: int = ...
    logprob: float = ...
    rank: int = ...

class PositionLogprobs(_Record):
    """Log-probabilities at one position, before penalties and temperature."""

    chosen: TokenLogprob = ...
    top: list[TokenLogprob] = ...  # Most likely first; ties by token id.

def logprobs_of(
    logits: _Logits,
    token: int,
    top: int,
) -> PositionLogprobs: ...
def uniform(seed: int, sample: int, position: int) -> float:
    """A counter-based random number in [0, 1): Philox4x32-10."""

class SampleOutcome(_Record):
    """The token drawn from one row of logits."""

    token: int = ...
    stop: bool = ...  # The token is one of stop_token_ids.
    logprobs: PositionLogprobs = ...  # Filled when the parameters ask for them.

def sample(
    logits: _Logits,
    params: SamplingParams,
    prompt: Sequence[int],
    output: Sequence[int] = [],
    sample: int = 0,
) -> SampleOutcome:
    """Draws one token."""

class KvCacheConfig(_Record):
    """Sizes of a block pool."""

    num_blocks: int = ...
    block_size: int = ...  # Tokens per block.
    enable_prefix_caching: bool = ...
    windows: list[int] = ...  # Attention window of each group of layers; 0: full context.
    num_swap_blocks: int = ...  # Slots of the swap space.
    allocation: _Allocation = ...
    max_reservation: int = ...  # Tokens of the longest sequence, unless paged.
    max_events: int = ...  # > 0: keep so many events for take_events().

class KvCacheCounts(_Record):
    """Where every block is: free + cached + in_flight + used == total."""

    total: int = ...
    free: int = ...  # Holds nothing of use.
    cached: int = ...  # Referenced by no sequence, kept for prefix hits.
    in_flight: int = ...  # Freed, but a step that may read it has not completed.
    used: int = ...  # Referenced by one or more sequences.
    shared: int = ...  # Of the used: referenced by more than one.
    swap_total: int = ...  # Slots of the swap space.
    swapped: int = ...  # Of them in use.
    reserved: int = ...  # Blocks in chunks, unless paged.

class BlockSwap(_Record):
    """Move a block out to a slot of the swap space, or in from there."""

    block: int = ...
    slot: int = ...

class CacheEvent(_Record):
    """News of the prefix cache."""

    kind: Literal["stored", "removed", "cleared"] = ...
    id: int = ...  # Of one publication; never used again.
    parent: int = ...  # Stored: the id of the block before; 0 at the beginning of a prompt.
    salt: int = ...  # Stored at the beginning of a prompt: the tenant's.
    tokens: list[int] = ...  # Stored: those of the block.

class BlockCopy(_Record):
    """Copy the first num_tokens slots of every layer from block src to block dst."""

    src: int = ...
    dst: int = ...
    num_tokens: int = ...

class PrefixMatch:
    """A cached prefix. Valid until the manager next changes."""

    @property
    def blocks(self) -> list[int]: ...
    @property
    def num_tokens(self) -> int: ...

class KvScratch:
    """What would be available after some appends, forks and frees."""

    @property
    def available(self) -> int: ...
    def append(self, seq: int, length: int) -> bool:
        """Takes the blocks, or returns False."""
    def create(self, match: PrefixMatch, length: int, spare: int = 0) -> bool:
        """False when fewer than `spare` blocks would be left."""
    def fork(self, parent: int, num_tokens: int, length: int, spare: int = 0) -> bool: ...
    def free(self, seq: int, last_reader: int = 0) -> None: ...
    def swap_out(self, group: Sequence[int], last_reader: int = 0) -> bool: ...
    def swap_in(self, group: Sequence[int], spare: int = 0) -> bool: ...

class KvCacheManager:
    """Block tables over a pool of blocks. One thread at a time."""

    def __init__(self, config: KvCacheConfig) -> None: ...
    @property
    def config(self) -> KvCacheConfig: ...
    @property
    def counts(self) -> KvCacheCounts: ...
    @property
    def available(self) -> int:
        """Blocks that append() could take now: free + cached."""
    def blocks_for(self, tokens: int) -> int: ...
    def match_prefix(
        self, tokens: Sequence[int], salt: int = 0, max_tokens: int = 4294967295, whole_blocks: bool = False
    ) -> PrefixMatch:
        """The longest cached prefix; it may end inside a block."""
    def create(self, seq: int, salt: int = 0, match: PrefixMatch | None = None) -> None:
        """A new sequence that starts with the matched blocks."""
    def append(self, seq: int, length: int, reader: int = 0) -> list[BlockCopy]:
        """Makes the slots up to `length` writable; returns the copies to be done first."""
    def fork(self, parent: int, child: int, num_tokens: int, salt: int = ...) -> None: ...
    def publish(self, seq: int, tokens: Sequence[int], num_computed: int, tail: bool = False) -> None:
        """Enters full blocks, and with tail the last one, into the prefix cache."""
    def slide(self, seq: int, next: int, last_reader: int = 0) -> None:
        """Frees the blocks that no window reaches any more from position `next` on."""
    def swap_out(self, group: Sequence[int], last_reader: int = 0) -> list[BlockSwap]:
        """Moves a group of sequences out of memory; returns the moves."""
    def swap_in(self, group: Sequence[int]) -> list[BlockSwap]: ...
    def is_swapped(self, seq: int) -> bool: ...
    @property
    def num_groups(self) -> int:
        """Groups of layers."""
    def footprint(self, tokens: int) -> int:
        """Blocks that a sequence of so many tokens holds between steps, in all groups of layers together."""
    def take_events(self) -> list[CacheEvent]:
        """Events since the last call, oldest first."""
    def free(self, seq: int, last_reader: int = 0) -> None: ...
    def complete(self, step: int) -> None: ...
    def clear_prefix_cache(self) -> None: ...
    def __contains__(self, seq: int) -> bool: ...
    def length(self, seq: int) -> int: ...
    def block_table(self, seq: int) -> list[int]: ...
    def references(self, block: int) -> int:
        """Number of tables that reference a block."""
    def scratch(self) -> KvScratch: ...
    def check(self) -> None:
        """Verifies every invariant; raises Corrupt naming the first that is broken."""

class KvCacheView:
    """The cache of a scheduler, to look at: only the scheduler changes it."""

    @property
    def config(self) -> KvCacheConfig: ...
    @property
    def counts(self) -> KvCacheCounts: ...
    @property
    def available(self) -> int:
        """Blocks that append() could take now: free + cached."""
    def blocks_for(self, tokens: int) -> int: ...
    def match_prefix(
        self, tokens: Sequence[int], salt: int = 0, max_tokens: int = 4294967295, whole_blocks: bool = False
    ) -> PrefixMatch:
        """The longest cached prefix; it may end inside a block."""
    def is_swapped(self, seq: int) -> bool: ...
    @property
    def num_groups(self) -> int:
        """Groups of layers."""
    def footprint(self, tokens: int) -> int:
        """Blocks that a sequence of so many tokens holds between steps, in all groups of layers together."""
    def __contains__(self, seq: int) -> bool: ...
    def length(self, seq: int) -> int: ...
    def block_table(self, seq: int) -> list[int]: ...
    def references(self, block: int) -> int:
        """Number of tables that reference a block."""
    def scratch(self) -> KvScratch: ...
    def check(self) -> None:
        """Verifies every invariant; raises Corrupt naming the first that is broken."""

class SchedulerConfig(_Record):
    """Budgets of one step."""

    max_batched_tokens: int = ...  # Rows of one step.
    max_sequences: int = ...  # Sequences of one step.
    max_context: int = ...  # Tokens of one sequence; 0: no limit but memory.
    watermark: float = ...  # Share of the blocks that an admission must leave free.
    preemption: _PreemptionMode = ...
    order: _Order = ...
    admission: _Admission = ...
    victim: _Victim = ...
    prompt_weight: float = ...  # Fair: service by one prompt token that is computed.
    output_weight: float = ...  # And by one that is generated.

class PreemptionCosts(_Record):
    """Measured costs in seconds; 0: not known yet."""

    token: float = ...  # Of computing one.
    block_out: float = ...  # Of moving one to the swap space.
    block_in: float = ...  # And back.

class SchedulerRequest(_Record):
    """A request to a bare scheduler."""

    id: int = ...
    arrival: float = ...  # Seconds on the caller's clock.
    prompt: list[int] = ...
    num_samples: int = ...
    beam_width: int = ...  # > 0: a beam search of this width.
    max_tokens: int = ...  # Per sample; 0: only compute the prompt.
    salt: int = ...  # Different salts never share cached prefixes.
    prompt_logprobs: bool = ...  # Every prompt row is scored.
    prefix: int = ...  # A registered prefix with which the prompt begins; 0: none.
    priority: int = ...  # Higher goes first, with order 'priority'.
    tenant: int = ...  # Who is served by it, for order 'fair'.

class ScheduledSequence(_Record):
    """Rows that one sequence contributes to a step."""

    request: int = ...
    sequence: int = ...
    first_sample: int = ...
    num_samples: int = ...  # > 0: the last row is sampled for this many samples.
    first_row: int = ...  # In StepPlan.tokens.
    num_rows: int = ...
    first_position: int = ...
    num_scored: int = ...  # Rows that predict prompt tokens.
    table_offset: int = ...  # In StepPlan.block_tables.
    table_size: int = ...

class SwappedRequest(_Record):
    """A request that a step moves, and how many of the moves are its own."""

    request: int = ...
    num_moves: int = ...

class StepPlan(_Record):
    """All that an executor needs for one step."""

    step: int = ...
    swap_outs: list[BlockSwap] = ...  # To be done first, then swap_ins, then copies.
    swap_ins: list[BlockSwap] = ...
    copies: list[BlockCopy] = ...  # One operation.
    sequences: list[ScheduledSequence] = ...
    tokens: list[int] = ...  # One per row.
    block_tables: list[int] = ...  # [groups][table_entries], tables one behind the other.
    table_entries: int = ...  # Of all sequences together, in one group.
    swapped_out: list[SwappedRequest] = ...  # Whose swap_outs those are, in order.
    swapped_in: list[SwappedRequest] = ...  # They compute from the next step on.
    preempted: list[int] = ...  # Requests preempted while planning.
    def __bool__(self) -> bool: ...

class SampledToken(_Record):
    """One token sampled by an executor."""

    sequence: int = ...
    sample: int = ...
    token: int = ...
    stop: bool = ...  # The token ended the sample.

class BeamChild(_Record):
    """A beam of the next step: beam `parent` of this one with one token more."""

    parent: int = ...
    token: int = ...

class BeamResult(_Record):
    """What a beam search goes on with."""

    request: int = ...
    children: list[BeamChild] = ...  # None: the search has ended.

def place_beams(children: Sequence[BeamChild]) -> list[int]:
    """Which beam every child becomes."""

class StepResult(_Record):
    """What an executor made of a plan."""

    step: int = ...
    tokens: list[SampledToken] = ...  # Exactly those the plan asked for, less those of failed requests.
    failed: list[int] = ...  # Requests that cannot go on.
    beams: list[BeamResult] = ...  # One for each beam search that the plan sampled.
    swap_failed: list[int] = ...  # Requests of the plan's swaps that lost a block.

class SampleUpdate(_Record):
    """What became of one sample in a step."""

    request: int = ...
    sample: int = ...
    token: int = ...  # -1: no token.
    finish: _FinishReason = ...

class SchedulerStats(_Record):
    """Counters since construction, and the queues now."""

    steps: int = ...
    tokens_computed: int = ...
    tokens_sampled: int = ...
    tokens_recomputed: int = ...
    prefix_hit_tokens: int = ...
    pinned_hit_tokens: int = ...
    prefix_waits: int = ...
    preemptions_recompute: int = ...
    preemptions_swap: int = ...
    preemption_hit_tokens: int = ...
    swap_fallbacks: int = ...
    blocks_swapped_out: int = ...
    blocks_swapped_in: int = ...
    forks: int = ...
    block_copies: int = ...
    waiting: int = ...
    running: int = ...
    swapped: int = ...
    prefixes: int = ...
    blocks_pinned: int = ...
    tokens_cached: int = ...
    slots_unused: int = ...
    slots_reserved: int = ...
    slots_overreserved: int = ...

class Scheduler:
    """plan() decides the next step, commit() takes its results in."""

    def __init__(self, config: SchedulerConfig, cache: KvCacheConfig) -> None: ...
    @property
    def config(self) -> SchedulerConfig: ...
    @property
    def cache(self) -> KvCacheView:
        """To look at: only the scheduler changes it."""
    def clear_prefix_cache(self) -> None:
        """Forgets all cached prefixes."""
    def take_events(self) -> list[CacheEvent]:
        """News of the prefix cache since the last call, oldest first."""
    def submit(self, request: SchedulerRequest) -> None: ...
    def validate(self, request: SchedulerRequest) -> None:
        """The checks of submit() alone."""
    def abort(self, id: int) -> bool:
        """False if the id is unknown."""
    def plan(self, now: float = 0.0) -> StepPlan: ...
    def commit(self, result: StepResult) -> list[SampleUpdate]: ...
    @property
    def has_work(self) -> bool: ...
    @property
    def stats(self) -> SchedulerStats: ...
    def tokens(self, id: int, sample: int = 0) -> list[int]:
        """Prompt, then output; empty when unknown."""
    def check(self) -> None:
        """Verifies every invariant; raises Corrupt."""
    def register_prefix(self, id: int, prefix: SchedulerRequest) -> None:
        """Computes a prefix and keeps its blocks until release_prefix()."""
    def release_prefix(self, id: int) -> None: ...
    def set_preemption_costs(self, costs: PreemptionCosts) -> None: ...
    def force_preempt(self, id: int, mode: _PreemptionMode = "recompute") -> bool: ...

class TraceReplay(_Record):
    """What came of replaying a trace."""

    steps: int = ...  # Steps that were planned alike.
    requests: int = ...  # Requests that were submitted.
    difference: str = ...  # The first plan that came out otherwise; empty: none.
    is_complete: bool = ...  # False when the last line is cut off.

def replay_trace(path: str) -> TraceReplay:
    """Feeds a trace to a new scheduler and compares the plans. Raises Io or Corrupt, with the line."""

class CpuOptions(_Record):
    """How the CPU backend computes."""

    threads: int = ...  # 0: the number of CPUs this process may run on.
    dtype: _ComputeType = ...  # 'f32' or 'bf16'.
    isa: str = ...  # 'auto', or one of cpu_isas().

class CudaOptions(_Record):
    """How the CUDA backend computes."""

    device: int = ...  # Index of the GPU; EngineConfig.device names it for an engine.
    threads: int = ...  # Of the host; 0: as for the CPU backend.
    dtype: _ComputeType = ...  # 'bf16' or 'f16'.
    kv_dtype: str = ...  # Of KV: 'auto', the compute type; 'f8_e4m3' or 'i8'.
    workspace_bytes: int = ...  # Device memory that steps need besides activations.
    graph_rows: int = ...  # Steps of up to so many rows become one CUDA graph; 0: none.
    sample_on_device: bool = ...  # Else the host samples: the same tokens.
    cublas_lt: bool = ...  # Products by cuBLASLt: bits then depend on the batch.
    plugin: str = ...  # Path of libpagedcore_cuda.so; empty: beside libpagedcore.

class EngineConfig(_Record):
    """Budgets of an engine; zeros choose."""

    block_size: int = ...  # Tokens per block.
    num_blocks: int = ...  # 0: from kv_cache_bytes.
    kv_cache_bytes: int = ...  # 0 with num_blocks 0: what the model can use, within limits.
    max_batched_tokens: int = ...  # Rows of one step.
    max_sequences: int = ...  # Sequences of one step.
    max_context: int = ...  # 0: the model's.
    watermark: float = ...  # Share of the blocks that an admission must leave free.
    enable_prefix_caching: bool = ...
    preemption: _PreemptionMode = ...
    order: _Order = ...
    admission: _Admission = ...
    victim: _Victim = ...
    allocation: _Allocation = ...
    max_reservation: int = ...  # Of such a baseline; 0: the longest that fits.
    swap_bytes: int = ...  # Host memory for the blocks of preempted requests.
    swap_file: str = ...  # A file for those that find no place there; empty: none.
    swap_file_bytes: int = ...  # 0: as much as the KV cache.
    max_cache_events: int = ...  # > 0: keep so many events for cache_events().
    trace_file: str = ...  # Write a trace of the scheduler there; empty: none.
    device: str = ...  # 'cpu', 'cuda' or 'cuda:<index>'.
    cpu: CpuOptions = ...
    cuda: CudaOptions = ...

def cpu_isas() -> list[str]:
    """Instruction sets that this CPU can run, best last."""

def attention_seconds(
    cpu: CpuOptions, model: ModelDescription, block_size: int, batch: int, context: int, repeats: int = 20
) -> float:
    """Seconds that attention takes in one layer for a batch of decoding sequences, whose blocks lie scattered."""

class CudaDevice(_Record):
    """A GPU as its driver describes it."""

    name: str = ...
    compute_major: int = ...
    compute_minor: int = ...
    multiprocessors: int = ...
    memory: int = ...  # Bytes.
    memory_rate: float = ...  # Bytes/s at most; 0: unknown.
    matmul_rate: float = ...  # FLOP/s at most, of dense 16-bit products; 0: unknown.
    problem: str = ...  # Why it cannot be used; empty: it can.

class CudaStatus(_Record):
    """The CUDA backend on this machine."""

    plugin: str = ...  # Path of libpagedcore_cuda.so, whether it is there or not.
    plugin_version: str = ...  # Empty: it could not be opened.
    runtime_version: int = ...  # CUDA that it was built with, 13000 for 13.0.
    driver_version: int = ...  # CUDA that the driver serves; 0: there is no driver.
    devices: list[CudaDevice] = ...
    problem: str = ...  # Why no GPU can be used; empty: one of them can.

def cuda_status(plugin: str = "") -> CudaStatus:
    """Looks for the plugin, driver and GPUs."""

def describe_device(device: str, cpu: CpuOptions = ..., cuda: CudaOptions = ...) -> str:
    """Device, instruction set, compute type and threads; raises what an engine on it would."""

class SelftestCheck(_Record):
    """One operation of a device against the CPU."""

    operation: str = ...
    what: str = ...
    error: float = ...  # Largest |device - reference| / max(1, |reference|).
    tolerance: float = ...  # 0: all bits must be the same.
    outcome: Literal["passed", "failed", "unsupported"] = ...
    problem: str = ...  # What was thrown; empty: nothing.
    note: str = ...  # What else is worth knowing; empty: nothing.

class SelftestRate(_Record):
    """What one call cost."""

    operation: str = ...
    what: str = ...
    seconds: float = ...
    bytes: float = ...  # That it has to move.
    flops: float = ...  # Floating-point operations that it has to do.
    host_link: bool = ...  # The bytes go to or from host memory.

def selftest_checks(
    device: str, cpu: CpuOptions = ..., cuda: CudaOptions = ..., quick: bool = False
) -> list[SelftestCheck]:
    """Checks every operation of the device against the CPU in f32, with portable code."""

def selftest_rates(
    device: str, cpu: CpuOptions, cuda: CudaOptions, bytes: int, rows: int, seconds: float
) -> list[SelftestRate]:
    """Measures copies, swaps, products and attention."""

class MemoryPlan(_Record):
    """Every byte the engine will hold, by purpose."""

    weights: int = ...
    activations: int = ...
    kv_block: int = ...  # Bytes of one block.
    num_blocks: int = ...
    block_size: int = ...
    max_context: int = ...
    swap: int = ...  # Host memory of the swap space.
    swap_file: int = ...  # Bytes of the swap file; not memory.
    num_swap_blocks: int = ...  # Of both together.
    windows: list[int] = ...  # Of the groups of layers; 0: full context.
    @property
    def kv_cache(self) -> int:
        """Bytes of all blocks."""
    @property
    def total(self) -> int:
        """Bytes."""
    @property
    def kv_tokens(self) -> int:
        """Tokens that all blocks hold."""

def plan_memory(model: ModelDescription, config: EngineConfig = ...) -> MemoryPlan:
    """What an engine would allocate; allocates nothing."""

class EngineOutput(_Record):
    """News of one sample."""

    request: int = ...
    sample: int = ...
    tokens: list[int] = ...  # With stream, those since the last news of this sample, else all.
    logprobs: list[PositionLogprobs] = ...  # One per token, when asked for.
    prompt_logprobs: list[PositionLogprobs] = ...  # With the first news of sample 0.
    finish: _FinishReason = ...
    score: float = ...  # Of a hypothesis of a beam search.
    error: str = ...  # Why, when finish is 'error'.
    cached_tokens: int = ...  # Prompt tokens taken from the prefix cache.
    time: float = ...  # Seconds on the engine's steady clock.
    last: bool = ...  # Nothing more will come for this request.

class Engine:
    """Plans, runs and commits steps on a native thread. Safe to use from several threads."""

    def __init__(self, model: ModelDescription, weights: WeightMap | ModelFile, config: EngineConfig = ...) -> None: ...
    def submit(
        self,
        prompt: _Tokens,
        params: SamplingParams | BeamSearchParams = ...,
        salt: int = 0,
        stream: bool = False,
        prefix: str = "",
        priority: int = 0,
        tenant: int = 0,
    ) -> int:
        """Returns the request's id. Raises InvalidArgument for a request that could never run."""
    def validate(self, prompt: Sequence[int], params: SamplingParams | BeamSearchParams = ...) -> None:
        """The checks of submit() alone."""
    def abort(self, id: int) -> None: ...
    def wait(self, timeout: float) -> list[EngineOutput]:
        """All outputs that are ready, waiting at most `timeout` seconds for the first."""
    @property
    def busy(self) -> bool:
        """True while a submitted request has not delivered its last output."""
    def stats(self) -> dict[str, float]: ...
    @property
    def memory_plan(self) -> MemoryPlan: ...
    @property
    def model(self) -> ModelDescription: ...
    def describe(self) -> str: ...
    def clear_prefix_cache(self) -> None: ...
    def register_prefix(self, name: str, tokens: Sequence[int], salt: int = 0) -> int:
        """Computes a prefix and keeps its blocks; returns the id of the request that does so."""
    def release_prefix(self, name: str) -> None: ...
    def cache_events(self) -> list[CacheEvent]:
        """News of the prefix cache since the last call."""
    def force_preemption(self, period: int, mode: _PreemptionMode = "recompute") -> None:
        """Testing aid: preempt before every period-th step; 0 turns it off."""
    def close(self) -> None:
        """Ends all requests, frees all memory."""

class CostModel(_Record):
    """What a step costs, in seconds."""

    step: float = ...  # Of any step.
    weights: float = ...  # Reading all weights once.
    row: float = ...  # Arithmetic of one row.
    pair: float = ...  # Of attention, for one row and one token of its context.
    context_token: float = ...  # Reading the KV of one token.
    sample: float = ...  # Of sampling once.
    copy_block: float = ...
    swap_out_block: float = ...
    swap_in_block: float = ...

class StepWork(_Record):
    """What a plan asks of an executor, in the terms of CostModel."""

    rows: float = ...
    pairs: float = ...  # (row, context token) pairs of attention.
    context: float = ...  # Tokens whose KV is read.
    samples: float = ...
    copies: float = ...  # Blocks.
    swap_outs: float = ...
    swap_ins: float = ...

class TimedStep(_Record):
    """A step of a real engine, and how long it took."""

    work: StepWork = ...
    seconds: float = ...

def timed_steps(trace: str) -> list[TimedStep]:
    """The steps of a trace, each until the next one was planned; less those after which there was nothing to do.
    Raises as replay_trace() does."""

class SimulationConfig(_Record):
    """What serves, and what it costs."""

    scheduler: SchedulerConfig = ...
    cache: KvCacheConfig = ...
    cost: CostModel = ...
    batch_requests: int = ...  # Request-level batches of so many; 0: iteration-level.
    batch_tokens: int = ...  # Longest prompt and longest output of such a batch together.
    beam_mixing: float = ...  # Chance that a beam goes on from a random one's past.
    copy_reservations: bool = ...  # A fork copies all that was set aside, unless paged.
    window_begin: float = ...  # Averages are over this part of the virtual time.
    window_end: float = ...
    stop: float = ...  # End here.

class SimulationReport(_Record):
    """Averages over the window; shares are of all token slots."""

    steps: int = ...
    finished: int = ...
    now: float = ...
    seconds: float = ...
    requests: float = ...
    sequences: float = ...
    token_states: float = ...
    reserved: float = ...
    internal: float = ...
    allocated: float = ...
    sharing: float = ...
    tokens: float = ...
    scheduler: SchedulerStats = ...

class Simulation:
    """The scheduler under an executor that prices plans on a virtual clock."""

    def __init__(
        self,
        config: SimulationConfig,
        arrivals: list[float],
        prompts: list[list[tuple[int, int]]],
        outputs: list[int],
        num_samples: int = 1,
        beam_width: int = 0,
        max_tokens: int = 0,
        priorities: list[int] = ...,
        tenants: list[int] = ...,
    ) -> None:
        """A prompt is a list of (content, tokens); equal contents are equal tokens. max_tokens is what requests ask
        for, 0: just their output."""
    def run(self, max_steps: int) -> bool:
        """Makes up to so many steps; False when there is nothing more to do."""
    def report(self) -> SimulationReport: ...
    @property
    def first_token(self) -> list[float]: ...
    @property
    def finish(self) -> list[float]: ...
    def last_plan(self) -> str:
        """The latest plan, as a trace writes it."""
