# Written by tools/derive.py from the lists of fields in include/pagedcore/*.hpp: change those.
"""The native library: what include/pagedcore/*.hpp documents, under the same names."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy
import numpy.typing
from numpy.typing import NDArray

def version() -> str:
    """major.minor.patch of the native library."""

class OptionInfo:
    """What a struct's list says of one of its fields."""

    def __init__(
        self,
        *,
        name: str = "",
        type: str = "",
        default_value: str = "",
        limits: str = "",
        zero: str = "",
        hint: str = "",
        doc: str = "",
        choices: Sequence[str] | None = [],
        is_optional: bool = False,
    ) -> None: ...

    name: str
    type: str
    """bool, int, float, string, path, choice, size (bytes), tokens, biases or list."""
    default_value: str
    """As text. Empty: none."""
    limits: str
    """"[1, 65536]", "at least 0". Empty: those of its type."""
    zero: str
    """What 0, or an empty text, stands for. Empty: nothing else."""
    hint: str
    """"0 turns it off". Empty: none."""
    doc: str
    """A sentence or several."""
    choices: list[str]
    """The words of a choice."""
    is_optional: bool
    """It may be "none"."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> OptionInfo: ...

def options_of(record: str) -> list[OptionInfo]:
    """The fields of a record of parameters, in order."""

def stats_of_engine() -> list[OptionInfo]:
    """What Engine.stats() gives, each of the type counter or gauge."""

class FileBytes:
    """Bytes of a file, read when they are wanted; they keep it open."""

    @property
    def nbytes(self) -> int: ...
    def read(self) -> memoryview:
        """All of them. Raises Io when the file has changed."""

    def part(self, first: int, length: int) -> FileBytes:
        """Some of them, not read yet."""

class InputFile:
    """A regular file, read by pread; with mmap=True mapped, which trusts whoever may write to it."""

    def __init__(self, path: str, mmap: bool = False) -> None: ...
    @property
    def size(self) -> int:
        """Bytes, when it was opened."""

    def part(self, offset: int, length: int) -> FileBytes:
        """Some of its bytes, not read yet."""

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

def to_f32(dtype: str, shape: Sequence[int], buffer: FileBytes | Any) -> NDArray[numpy.float32]:
    """The tensor as a new float32 numpy array."""

class CodePlaces:
    """Codes in bytes or words of 32 bits; see pagedcore/recoded.hpp."""

    def __init__(
        self,
        buffer: FileBytes | Any,
        bits: int,
        words: bool,
        along_rows: bool,
        steps: tuple[int, int],
        order: Sequence[int] = ...,
    ) -> None: ...

class CodedMatrix:
    """Numbers of a scale and a code; see pagedcore/recoded.hpp."""

    def __init__(self, name: str, shape: tuple[int, int], kind: str, codes: CodePlaces) -> None: ...

    is_signed: bool
    def set_scales(
        self,
        dtype: str,
        shape: Sequence[int],
        buffer: FileBytes | Any,
        steps: tuple[int, int],
        group: tuple[int, int],
        factor: float = 1.0,
    ) -> None: ...
    def set_zeros(self, zeros: CodePlaces, offset: int = 0) -> None: ...
    def set_zero(self, zero: int) -> None:
        """The same for all."""

    def set_groups(self, groups: Sequence[int]) -> None:
        """For each column, its group."""

    def set_table(self, table: Sequence[float]) -> None: ...
    def recoded(self, dtype: str) -> FileBytes:
        """Its bytes in a type, made when they are read."""

def pick(buffer: FileBytes | Any, shape: tuple[int, int], bytes: int, first: int, steps: tuple[int, int]) -> FileBytes:
    """Elements of so many bytes, row after row: (r, c) begins at first + r * steps[0] + c * steps[1]."""

def mxfp4_blocks(numbers: FileBytes | Any, exponents: FileBytes | Any, name: str) -> FileBytes:
    """Blocks of mxfp4 from 16 bytes of numbers and an exponent each."""

class ModelDescription:
    """A decoder-only transformer, complete: the forward pass asks nothing else."""

    def __init__(
        self,
        *,
        architecture: str = "",
        vocab_size: int = 0,
        hidden_size: int = 0,
        num_layers: int = 0,
        max_context: int = 0,
        norm: Literal["rms", "layer"] = "rms",
        norm_eps: float = 9.999999747378752e-06,
        norm_weight_offset: float = 0.0,
        norm_place: Literal["before", "after", "both", "outside"] = "before",
        norm_weights: bool = True,
        embedding_norm: bool = False,
        final_norm: bool = True,
        rope_inv_freq: Sequence[float] | None = [],
        rope_magnitude: float = 1.0,
        rope_tables: int = 1,
        rope_layers: Sequence[int] | None = [],
        learned_positions: int = 0,
        learned_offset: int = 0,
        alibi_slopes: Sequence[float] | None = [],
        num_heads: int = 0,
        num_kv_heads: int = 0,
        head_dim: int = 0,
        qk_norm: bool = False,
        qk_norm_kind: Literal["rms", "layer"] = "rms",
        qk_norm_span: Literal["head", "heads", "row"] = "head",
        attention_scale: float | None = None,
        attention_softcap: float = 0.0,
        windows: Sequence[int] | None = [],
        bidirectional: bool = False,
        attention_sinks: bool = False,
        intermediate_size: int = 0,
        activation: Literal["silu", "gelu", "gelu_tanh", "relu", "clamped_swiglu"] = "silu",
        gated_mlp: bool = True,
        swiglu_alpha: float = 1.7020000219345093,
        swiglu_limit: float = 7.0,
        num_experts: int | None = None,
        experts_per_token: int = 0,
        expert_size: int = 0,
        router: Literal["softmax", "chosen_softmax"] = "softmax",
        router_renormalize: bool = False,
        router_scale: float = 1.0,
        shared_expert_size: int | None = None,
        shared_expert_gate: bool = False,
        mixture_biases: bool = False,
        mixture_layers: Sequence[int] | None = [],
        pooling: Literal["auto", "last", "mean", "cls"] = "last",
        dense_sizes: Sequence[int] | None = [],
        dense_tanh: Sequence[int] | None = [],
        parallel_block: bool = False,
        head: bool = True,
        tied_embeddings: bool = False,
        embedding_size: int | None = None,
        embedding_scale: float = 1.0,
        residual_scale: float = 1.0,
        logit_scale: float = 1.0,
        logit_softcap: float = 0.0,
    ) -> None: ...

    architecture: str
    """Its name, for people."""
    vocab_size: int
    """Tokens of the vocabulary. In [1, 16777216]."""
    hidden_size: int
    """Columns of the residual stream. In [1, 16777216]."""
    num_layers: int
    """Transformer layers. In [1, 16384]."""
    max_context: int
    """Positions that the model was made for. In [1, 1073741824]."""
    norm: Literal["rms", "layer"]
    """rms or layer."""
    norm_eps: float
    """Added to the mean square, or to the variance. At least 0."""
    norm_weight_offset: float
    """Added to every weight of a norm."""
    norm_place: Literal["before", "after", "both", "outside"]
    """Where the norms of attention and MLP f lie: before, x + f(norm(x)); after, x + norm(f(x)); both; or outside,
    norm(x + f(x))."""
    norm_weights: bool
    """Norms have weights; else they only normalise."""
    embedding_norm: bool
    """A norm follows the embedding."""
    final_norm: bool
    """A norm follows the last layer."""
    rope_inv_freq: list[float]
    """Rotary embedding: the angle by which each pair of dimensions of a head turns from one position to the next,
    scaling already applied. Empty: no rotation. At least 0."""
    rope_magnitude: float
    """Factor on the cosines and sines (YaRN's attention factor) of the first table."""
    rope_tables: int
    """Tables in rope_inv_freq, of equal length, one after another. In [1, 16384]."""
    rope_layers: list[int]
    """For each layer, the table that rotates it, from 0 on; -1: none. Empty: the first in every layer. In [-1,
    16384]."""
    learned_positions: int
    """Rows of a table of learned positions, one of which is added to each embedding; 0: none. In [0, 16777216]."""
    learned_offset: int
    """The row of position 0 in that table. In [0, 16777216]."""
    alibi_slopes: list[float]
    """For each head, what is taken from a score for every token between (ALiBi). Empty: nothing. At least 0."""
    num_heads: int
    """Query heads. In [1, 16777216]."""
    num_kv_heads: int
    """Key and value heads; divides num_heads. In [1, 16777216]."""
    head_dim: int
    """Dimensions of a head. In [1, 16777216]."""
    qk_norm: bool
    """q and k are normalised before they are rotated."""
    qk_norm_kind: Literal["rms", "layer"]
    """rms or layer."""
    qk_norm_span: Literal["head", "heads", "row"]
    """head: over each head, with the same weights for all; heads: over each head, with weights of its own; row: over
    all heads together."""
    attention_scale: float
    """Multiplies the scores. None: 1 / sqrt(head_dim). At least 0."""
    attention_softcap: float
    """Scores become softcap * tanh(score / softcap). 0 turns it off. At least 0."""
    windows: list[int]
    """For each layer, how many tokens back a row sees, its own included; 0: all. Empty: all in every layer. In [0,
    1073741824]."""
    bidirectional: bool
    """A row sees the tokens behind its own too, with a window as far as before it: a text is computed whole, in one
    step."""
    attention_sinks: bool
    """Each head has a score of its own, as if every row saw one more token, whose value is zero."""
    intermediate_size: int
    """Columns between its two products. In [1, 16777216]."""
    activation: Literal["silu", "gelu", "gelu_tanh", "relu", "clamped_swiglu"]
    """silu, gelu, gelu_tanh, relu, or of a gated MLP clamped_swiglu: (clamp(up(x)) + 1) * g * sigmoid(alpha * g), g
    being gate(x), cut off above."""
    gated_mlp: bool
    """act(gate(x)) * up(x) goes into the second product; else act(up(x))."""
    swiglu_alpha: float
    """Alpha of clamped_swiglu. At least 0."""
    swiglu_limit: float
    """Of clamped_swiglu: the gate is at most that, up within it on both sides. Above 0."""
    num_experts: int
    """Experts of a layer. None: an MLP in every layer. In [1, 65536]."""
    experts_per_token: int
    """How many of them a row goes to. In [0, 65536]."""
    expert_size: int
    """Columns between the two products of an expert. In [0, 16777216]."""
    router: Literal["softmax", "chosen_softmax"]
    """softmax: an expert's share is that of a softmax over all; chosen_softmax: over the chosen ones."""
    router_renormalize: bool
    """Shares are divided by their sum."""
    router_scale: float
    """Multiplies the shares. Above 0."""
    shared_expert_size: int
    """Columns of an expert that every row goes to. None: none. In [1, 16777216]."""
    shared_expert_gate: bool
    """The shared expert is multiplied by the sigmoid of a product of its own."""
    mixture_biases: bool
    """The router and the experts' products have biases."""
    mixture_layers: list[int]
    """For each layer, 1: a mixture; 0: the MLP. Empty: mixtures in every layer, if there are experts. In [0, 1]."""
    pooling: Literal["auto", "last", "mean", "cls"]
    """Which rows become an embedding: last, mean or cls."""
    dense_sizes: list[int]
    """Columns of each product that an embedding goes through before it is cut and scaled. In [1, 16777216]."""
    dense_tanh: list[int]
    """For each of them, 1: a tanh follows it. Empty: none has one. In [0, 1]."""
    parallel_block: bool
    """Attention and MLP read the same x, each through its own norm, and both are added to it."""
    head: bool
    """A head gives logits, so that the model generates; else it only makes embeddings."""
    tied_embeddings: bool
    """The head's weight is the embedding."""
    embedding_size: int
    """Columns of the embedding, which a product takes to hidden_size, and back before the head. None: hidden_size,
    without products. In [1, 16777216]."""
    embedding_scale: float
    """Multiplies the embedding of a token."""
    residual_scale: float
    """Multiplies what attention and MLP add to the residual stream."""
    logit_scale: float
    """Multiplies the logits."""
    logit_softcap: float
    """Logits become softcap * tanh(logit / softcap). 0 turns it off. At least 0."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> ModelDescription: ...
    def validate(self) -> None:
        """Raises InvalidArgument naming the first field that contradicts the rest."""

    def to_text(self) -> dict[str, str]: ...
    @staticmethod
    def from_text(text: Mapping[str, str]) -> ModelDescription: ...

class WeightMap:
    """Weights in host memory, by canonical name; keeps their buffers alive."""

    def __init__(self) -> None: ...
    def add(self, name: str, dtype: str, shape: Sequence[int], buffer: FileBytes | Any) -> None: ...
    def names(self) -> list[str]: ...
    def tensor(self, name: str) -> tuple[str, tuple[int, ...], memoryview]:
        """(dtype, shape, memoryview)."""

    def __contains__(self, arg: str, /) -> bool: ...
    def __len__(self) -> int: ...

class ModelFile:
    """A model container or a plain safetensors file. mmap: see InputFile."""

    def __init__(self, path: str, mmap: bool = False) -> None: ...
    def names(self) -> list[str]: ...
    @property
    def metadata(self) -> dict[str, str]: ...
    def description(self) -> ModelDescription:
        """Raises Corrupt for a plain safetensors file."""

    def tensor(self, name: str) -> tuple[str, tuple[int, ...], memoryview]:
        """(dtype, shape, memoryview): read into memory of its own, or mapped, which keeps the file open."""

    def stored(self, name: str) -> tuple[str, tuple[int, ...], FileBytes]:
        """(dtype, shape, FileBytes): not read yet."""

    def __contains__(self, arg: str, /) -> bool: ...
    def __len__(self) -> int: ...

def save_model(path: str, description: ModelDescription, weights: WeightMap, metadata: Mapping[str, str] = ...) -> None:
    """Writes a container, atomically."""

MOST_SAMPLES: int = 65536

NO_TOKEN_LIMIT: int = 2147483647

class SamplingParams:
    """How the tokens of a request are chosen. validate() checks the ranges."""

    def __init__(
        self,
        *,
        n: int = 1,
        max_tokens: int = 16,
        min_tokens: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Sequence[tuple[int, float]] | None = [],
        banned_tokens: Sequence[int] | None = [],
        allowed_token_ids: Sequence[int] | None = [],
        stop_token_ids: Sequence[int] | None = [],
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        prompt_logprob_start: int = 0,
        logprob_token_ids: Sequence[int] | None = [],
        seed: int = 0,
    ) -> None: ...

    n: int
    """Independent samples of one prompt; its KV blocks are computed once and shared. More than max_sequences: the
    request runs alone, and its samples take turns. In [1, 65536]."""
    max_tokens: int
    """Tokens generated, per sample. 0: compute (score) the prompt only. the most is no limit: as many as the context
    and the KV cache hold. In [0, 2147483647]."""
    min_tokens: int
    """No stop token ends a sample before this many tokens. In [0, 2147483647]."""
    temperature: float
    """Divides the logits. 0 is greedy. At least 0."""
    top_k: int
    """Draw from this many most likely tokens. 0 or -1 turns it off. At least -1."""
    top_p: float
    """Draw from the fewest most likely tokens that have this probability together. 1 turns it off. In (0, 1]."""
    min_p: float
    """Leave out tokens less likely than this share of the most likely one's probability. 0 turns it off. In [0, 1]."""
    repetition_penalty: float
    """Divides positive logits, and multiplies negative ones, of tokens in the prompt or the output. 1 turns it off.
    Above 0."""
    presence_penalty: float
    """Subtracted from the logits of tokens in the output. 0 turns it off. In [-2, 2]."""
    frequency_penalty: float
    """Subtracted from the logits of tokens in the output, as often as they occur there. 0 turns it off. In [-2, 2]."""
    logit_bias: list[tuple[int, float]]
    """Added to the logits of these tokens; -inf bans one."""
    banned_tokens: list[int]
    """Never drawn. At least 0."""
    allowed_token_ids: list[int]
    """Nothing else is drawn. None: all tokens are allowed. At least 0."""
    stop_token_ids: list[int]
    """End a sample, and belong to it. At least 0."""
    logprobs: int | None
    """Report each token's log-probability and those of this many most likely tokens; -1: of the whole vocabulary.
    None: none are reported. At least -1."""
    prompt_logprobs: int | None
    """Likewise for every token of the prompt but the first. At least -1."""
    prompt_logprob_start: int
    """With prompt_logprobs: the index of the first token that is scored. The KV of those before it may come from the
    prefix cache. 0 and 1 score all but the first, which nothing predicts. In [0, 2147483647]."""
    logprob_token_ids: list[int]
    """Tokens whose log-probabilities are reported too, at every position that is. Without logprobs they are reported
    of each output token, as with logprobs 0. At least 0."""
    seed: int
    """The key of the random numbers: equal seeds draw alike."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SamplingParams: ...

@overload
def validate(params: SamplingParams, vocab_size: int) -> None:
    """Raises InvalidArgument naming the first bad value."""

@overload
def validate(params: SamplingParams) -> None: ...
@overload
def validate(params: BeamSearchParams) -> None:
    """The checks that need no model."""

@overload
def validate(config: KvCacheConfig) -> None: ...
@overload
def validate(config: SchedulerConfig) -> None:
    """Raises InvalidArgument for a value outside its range."""

@overload
def validate(config: EngineConfig) -> None:
    """Raises InvalidArgument for a value outside its range and for options that contradict each other."""

class BeamSearchParams:
    """A beam search with the results of transformers' generate()."""

    def __init__(
        self,
        *,
        beam_width: int = 4,
        n: int = 1,
        max_tokens: int = 16,
        length_penalty: float = 1.0,
        early_stopping: Literal["heuristic", "immediate", "never"] = "heuristic",
        stop_token_ids: Sequence[int] | None = [],
    ) -> None: ...

    beam_width: int
    """Running beams. In [1, 65536]."""
    n: int
    """Hypotheses to return, at most beam_width. In [1, 65536]."""
    max_tokens: int
    """Tokens of a hypothesis. In [1, 2147483647]."""
    length_penalty: float
    """A hypothesis scores the sum of its log-probabilities divided by its length to this power."""
    early_stopping: Literal["heuristic", "immediate", "never"]
    """When the search ends, given beam_width finished hypotheses: at once (immediate), when no running beam could
    beat the worst of them as long as it is now (heuristic), or at any length (never)."""
    stop_token_ids: list[int]
    """End a hypothesis, and belong to it. At least 0."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> BeamSearchParams: ...

class TokenLogprob:
    """A token's log-probability and rank (1 is the most likely)."""

    def __init__(self, *, token: int = -1, logprob: float = 0.0, rank: int = 0) -> None: ...

    token: int
    logprob: float
    rank: int
    """1 is the most likely."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> TokenLogprob: ...

class PositionLogprobs:
    """Log-probabilities at one position, before penalties and temperature."""

    def __init__(self, *, chosen: TokenLogprob = ..., top: Sequence[TokenLogprob] | None = []) -> None: ...

    chosen: TokenLogprob
    """The token that was drawn or scored."""
    top: list[TokenLogprob]
    """The most likely tokens, best first, ties by token id, without those of probability 0; then those of
    logprob_token_ids, as they were named."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> PositionLogprobs: ...

class LogprobTable:
    """Log-probabilities at consecutive positions, in arrays."""

    def __init__(
        self,
        *,
        width: int = 0,
        chosen: Sequence[TokenLogprob] | None = [],
        counts: Sequence[int] | None = [],
        others: Sequence[TokenLogprob] | None = [],
    ) -> None: ...
    @property
    def width(self) -> int:
        """Tokens for which a position has room besides the one that was drawn or scored."""

    @property
    def chosen(self) -> list[TokenLogprob]:
        """[positions] The token that was drawn or scored."""

    @property
    def counts(self) -> list[int]:
        """[positions] How many of the others are there."""

    @property
    def others(self) -> list[TokenLogprob]:
        """[positions][width] As PositionLogprobs::top."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> LogprobTable: ...
    def __len__(self) -> int: ...
    def __getitem__(self, position: int) -> PositionLogprobs: ...
    def views(self) -> tuple[memoryview, memoryview, memoryview]:
        """The bytes of `chosen`, `counts` and `others`, not copied; they keep the table alive."""

def logprobs_of(logits: NDArray[numpy.float32], token: int, top: int) -> PositionLogprobs: ...
def uniform(seed: int, sample: int, position: int) -> float:
    """A counter-based random number in [0, 1): Philox4x32-10."""

class SampleOutcome:
    """The token drawn from one row of logits."""

    def __init__(self, *, token: int = -1, stop: bool = False, logprobs: PositionLogprobs = ...) -> None: ...

    token: int
    stop: bool
    """The token is one of stop_token_ids."""
    logprobs: PositionLogprobs
    """Filled when the parameters ask for them."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SampleOutcome: ...

def sample(
    logits: NDArray[numpy.float32],
    params: SamplingParams,
    prompt: Sequence[int],
    output: Sequence[int] = ...,
    sample: int = 0,
) -> SampleOutcome:
    """Draws one token."""

class KvCacheConfig:
    """Sizes of a block pool."""

    def __init__(
        self,
        *,
        num_blocks: int = 0,
        block_size: int = 16,
        enable_prefix_caching: bool = True,
        windows: Sequence[int] | None = [],
        num_swap_blocks: int = 0,
        allocation: Literal["paged", "max", "pow2", "oracle"] = "paged",
        max_reservation: int = 2048,
        max_events: int = 0,
    ) -> None: ...

    num_blocks: int
    """Physical blocks. In [1, 4294967294]."""
    block_size: int
    """Tokens per block. In [1, 65536]."""
    enable_prefix_caching: bool
    """Keep the KV of finished requests for prompts that begin alike."""
    windows: list[int]
    """Attention window of each group of layers in tokens, 0: full context. None: one group with full context."""
    num_swap_blocks: int
    """Slots of the swap space. In [0, 2147483647]."""
    allocation: Literal["paged", "max", "pow2", "oracle"]
    """paged, or, for comparisons, a baseline of the PagedAttention paper: a request reserves a contiguous chunk on
    admission, for the longest output (max), for its max_tokens rounded up to a power of two (pow2), or for
    exactly that (oracle), and shares nothing."""
    max_reservation: int
    """Tokens of the longest sequence under such a baseline. In [1, 2147483647]."""
    max_events: int
    """Events of the prefix cache that are kept. In [0, 2147483647]."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> KvCacheConfig: ...

class KvCacheCounts:
    """Where every block is: free + cached + in_flight + used == total."""

    def __init__(
        self,
        *,
        total: int = 0,
        free: int = 0,
        cached: int = 0,
        in_flight: int = 0,
        used: int = 0,
        shared: int = 0,
        swap_total: int = 0,
        swapped: int = 0,
        reserved: int = 0,
    ) -> None: ...

    total: int
    """Blocks that were allocated."""
    free: int
    """Hold nothing of use."""
    cached: int
    """Referenced by no sequence, kept for prefix hits, reusable at once."""
    in_flight: int
    """Freed, but a step that may read them has not completed."""
    used: int
    """Referenced by one or more sequences."""
    shared: int
    """Of the used: referenced by more than one."""
    swap_total: int
    """Slots of the swap space, host memory and file."""
    swapped: int
    """Of them in use."""
    reserved: int
    """Contiguous allocation: blocks in chunks, those in use and those set aside."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> KvCacheCounts: ...

class BlockSwap:
    """Move a block out to a slot of the swap space, or in from there."""

    def __init__(self, *, block: int = 0, slot: int = 0) -> None: ...

    block: int
    slot: int
    """Of the swap space."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> BlockSwap: ...

class CacheEvent:
    """News of the prefix cache."""

    def __init__(
        self,
        *,
        kind: Literal["stored", "removed", "cleared"] = "stored",
        id: int = 0,
        parent: int = 0,
        salt: int = 0,
        tokens: Sequence[int] | None = [],
    ) -> None: ...

    kind: Literal["stored", "removed", "cleared"]
    """stored: a block can be found. removed: no more, nor can what continues it. cleared: forget all that was
    stored."""
    id: int
    """Of one publication; never used again."""
    parent: int
    """Stored: the id of the block before; 0 at the beginning of a prompt."""
    salt: int
    """Stored at the beginning of a prompt: the tenant's."""
    tokens: list[int]
    """Stored: those of the block, block_size or fewer."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> CacheEvent: ...

class BlockCopy:
    """Copy the first num_tokens slots of every layer from block src to block dst."""

    def __init__(self, *, src: int = 0, dst: int = 0, num_tokens: int = 0) -> None: ...

    src: int
    dst: int
    num_tokens: int
    """Its first token slots, of every layer."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> BlockCopy: ...

class PrefixMatch:
    """A cached prefix. Valid until the manager next changes."""

    @property
    def blocks(self) -> list[int]: ...
    @property
    def num_tokens(self) -> int: ...
    def __repr__(self) -> str: ...

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
    def create(self, seq: int, salt: int = 0, match: PrefixMatch | None = None) -> None:
        """A new sequence that starts with the matched blocks."""

    def append(self, seq: int, length: int, reader: int = 0) -> list[BlockCopy]:
        """Makes the slots up to `length` writable; returns the copies to be done first."""

    @overload
    def fork(self, parent: int, child: int, num_tokens: int) -> None: ...
    @overload
    def fork(self, parent: int, child: int, num_tokens: int, salt: int) -> None: ...
    def publish(self, seq: int, tokens: Sequence[int], num_computed: int, tail: bool = False) -> None:
        """Enters full blocks, and with tail the last one, into the prefix cache."""

    def slide(self, seq: int, next: int, last_reader: int = 0) -> None:
        """Frees the blocks that no window reaches any more from position `next` on."""

    def swap_out(self, group: Sequence[int], last_reader: int = 0) -> list[BlockSwap]:
        """Moves a group of sequences out of memory; returns the moves."""

    def swap_in(self, group: Sequence[int]) -> list[BlockSwap]: ...
    def take_events(self) -> list[CacheEvent]:
        """Events since the last call, oldest first."""

    def free(self, seq: int, last_reader: int = 0) -> None: ...
    def complete(self, step: int) -> None: ...
    def clear_prefix_cache(self) -> None: ...
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
    def num_layer_groups(self) -> int:
        """Layer groups."""

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
    def num_layer_groups(self) -> int:
        """Layer groups."""

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

class SchedulerConfig:
    """Budgets of one step."""

    def __init__(
        self,
        *,
        max_batched_tokens: int | None = None,
        max_sequences: int = 256,
        max_context: int | None = None,
        watermark: float = 0.01,
        preemption: Literal["auto", "swap", "recompute"] = "auto",
        order: Literal["fcfs", "priority", "fair"] = "fcfs",
        admission: Literal["known", "watermark", "never_evict", "adaptive"] = "known",
        victim: Literal["cheapest", "last_arrival"] = "cheapest",
        prompt_weight: float = 1.0,
        output_weight: float = 2.0,
        jump_ahead: bool = True,
    ) -> None: ...

    max_batched_tokens: int
    """Tokens computed in one step; longer prompts are computed in chunks. None: 512, on a GPU 2048. In [1, 1048576]."""
    max_sequences: int
    """Sequences of one step. In [1, 1048576]."""
    max_context: int
    """Tokens of one sequence, prompt and output. None: as many as the model and the memory allow. In [1,
    2147483647]."""
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
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SchedulerConfig: ...

MOST_PRIORITY: int = 1000000

class PreemptionCosts:
    """Measured costs in seconds; 0: not known yet."""

    def __init__(self, *, token: float = 0.0, block_out: float = 0.0, block_in: float = 0.0) -> None: ...

    token: float
    """Of computing one."""
    block_out: float
    """Of moving one to the swap space."""
    block_in: float
    """And back."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> PreemptionCosts: ...

class SchedulerRequest:
    """A request to a bare scheduler."""

    def __init__(
        self,
        *,
        id: int = 0,
        arrival: float = 0.0,
        prompt: Sequence[int] | None = [],
        num_samples: int = 1,
        beam_width: int = 0,
        max_tokens: int = 16,
        is_open_ended: bool = False,
        salt: int = 0,
        prompt_logprobs: bool = False,
        first_scored: int = 0,
        prefix: int = 0,
        priority: int = 0,
        tenant: int = 0,
        is_whole: bool = False,
        stored_tokens: int = 0,
    ) -> None: ...

    id: int
    arrival: float
    """Seconds on the caller's clock; ties keep the order of submission."""
    prompt: list[int]
    """One token at least."""
    num_samples: int
    """In [1, 65536]."""
    beam_width: int
    """Above 0: a beam search of this width; num_samples is 1. In [0, 65536]."""
    max_tokens: int
    """Generated tokens per sample; 0: only compute (score) the prompt."""
    is_open_ended: bool
    """max_tokens is lowered to what the cache holds beside registered prefixes, later ones too."""
    salt: int
    """Tenants with different salts never share cached prefixes."""
    prompt_logprobs: bool
    """Prompt tokens are scored, so cached prefixes are not used for them."""
    first_scored: int
    """Of those, the first: what comes before may be cached; 0 and 1 are all but the first of the prompt."""
    prefix: int
    """A registered prefix of this salt, or a shared one, with which the prompt begins; 0: none."""
    priority: int
    """Higher goes first, with order priority. In [-1000000, 1000000]."""
    tenant: int
    """Who is served by it, for order fair."""
    is_whole: bool
    """Its tokens see those behind them: all are computed in one step, nothing is taken from the prefix cache or left
    there, and max_tokens is 0."""
    stored_tokens: int
    """Leading tokens of the prompt, in full blocks, whose KV could be read from a store: where that is more than the
    cache has when its turn comes, a plan asks for it (StepPlan::store_reads) and the request waits until
    Scheduler::end_store_read()."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SchedulerRequest: ...

class ScheduledSequence:
    """Rows that one sequence contributes to a step."""

    def __init__(
        self,
        *,
        request: int = 0,
        sequence: int = 0,
        first_sample: int = 0,
        num_samples: int = 0,
        first_row: int = 0,
        num_rows: int = 0,
        first_position: int = 0,
        num_scored: int = 0,
        table_offset: int = 0,
        table_size: int = 0,
    ) -> None: ...

    request: int
    sequence: int
    first_sample: int
    """Index of the sequence's sample (or beam) within its request."""
    num_samples: int
    """Above 0: the last row is sampled for samples [first_sample, first_sample + num_samples); above 1 only for the
    first sampling of a request with several samples. Of a beam: 1 when the row's candidates are wanted, for all
    beams in the same step."""
    first_row: int
    """In StepPlan::tokens."""
    num_rows: int
    first_position: int
    """Tokens [first_position, first_position + num_rows) are computed."""
    num_scored: int
    """Prompt logprobs: the rows [first_row, first_row + num_scored) predict prompt tokens, of which the request may
    want the later ones; scored again if the prompt is recomputed, so keep them by position."""
    table_offset: int
    """Of the table of group 0 in StepPlan::block_tables; that of group g lies g * table_entries behind it."""
    table_size: int
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> ScheduledSequence: ...

class SwappedRequest:
    """A request that a step moves, and how many of the moves are its own."""

    def __init__(self, *, request: int = 0, num_moves: int = 0) -> None: ...

    request: int
    num_moves: int
    """Of the moves, those that are its own."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SwappedRequest: ...

class StepPlan:
    """All that an executor needs for one step."""

    def __init__(
        self,
        *,
        step: int = 0,
        swap_outs: Sequence[BlockSwap] | None = [],
        swap_ins: Sequence[BlockSwap] | None = [],
        copies: Sequence[BlockCopy] | None = [],
        sequences: Sequence[ScheduledSequence] | None = [],
        tokens: Sequence[int] | None = [],
        block_tables: Sequence[int] | None = [],
        table_entries: int = 0,
        swapped_out: Sequence[SwappedRequest] | None = [],
        swapped_in: Sequence[SwappedRequest] | None = [],
        preempted: Sequence[int] | None = [],
        store_reads: Sequence[int] | None = [],
    ) -> None: ...

    step: int
    """0 for an empty plan, which is not committed. If it preempted or swapped in all the same, plan again."""
    swap_outs: list[BlockSwap]
    """To be done first, as one operation. A step has swap-outs or swap-ins, never both."""
    swap_ins: list[BlockSwap]
    """Likewise."""
    copies: list[BlockCopy]
    """To be done next, as one operation, before anything is computed."""
    sequences: list[ScheduledSequence]
    """What is computed, [sequences]."""
    tokens: list[int]
    """[rows]"""
    block_tables: list[int]
    """[groups of layers][table_entries]: tables one behind the other. kNoBlock where a window has passed."""
    table_entries: int
    """Of all sequences together, in one group."""
    swapped_out: list[SwappedRequest]
    """Whose swap_outs those are, in order."""
    swapped_in: list[SwappedRequest]
    """Likewise; they compute from the next step on."""
    preempted: list[int]
    """Requests preempted while planning, for observers."""
    store_reads: list[int]
    """Requests that wait from now on for what a store has of their prompt: to be read beside the steps, and then
    told by Scheduler::end_store_read(). Of an empty plan too."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> StepPlan: ...
    def __bool__(self) -> bool: ...

class SampledToken:
    """One token sampled by an executor."""

    def __init__(self, *, sequence: int = 0, sample: int = 0, token: int = 0, stop: bool = False) -> None: ...

    sequence: int
    """The one that was scheduled."""
    sample: int
    """Index within the request."""
    token: int
    stop: bool
    """The token ended the sample (a stop token)."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SampledToken: ...

class BeamChild:
    """A beam of the next step: beam `parent` of this one with one token more."""

    def __init__(self, *, parent: int = 0, token: int = 0) -> None: ...

    parent: int
    """Index of a beam of this step within its request."""
    token: int
    """What it goes on with."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> BeamChild: ...

class BeamResult:
    """What a beam search goes on with."""

    def __init__(self, *, request: int = 0, children: Sequence[BeamChild] | None = []) -> None: ...

    request: int
    children: list[BeamChild]
    """At most beam_width; none: the search has ended."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> BeamResult: ...

def place_beams(children: Sequence[BeamChild]) -> list[int]:
    """Which beam every child becomes."""

class StepResult:
    """What an executor made of a plan."""

    def __init__(
        self,
        *,
        step: int = 0,
        tokens: Sequence[SampledToken] | None = [],
        failed: Sequence[int] | None = [],
        beams: Sequence[BeamResult] | None = [],
        swap_failed: Sequence[int] | None = [],
    ) -> None: ...

    step: int
    tokens: list[SampledToken]
    """Exactly those that the plan asked for, less those of failed requests."""
    failed: list[int]
    """Planned requests that cannot go on (their error is the executor's to report)."""
    beams: list[BeamResult]
    """One for each beam search that the plan sampled, less failed ones."""
    swap_failed: list[int]
    """Of the plan's swapped_out and swapped_in: some block was lost on the way. They are recomputed."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> StepResult: ...

class SampleUpdate:
    """What became of one sample in a step."""

    def __init__(
        self,
        *,
        request: int = 0,
        sample: int = 0,
        token: int = -1,
        finish: Literal["none", "stop", "length", "abort", "error", "deadline"] = "none",
    ) -> None: ...

    request: int
    sample: int
    token: int
    """-1: no token (an abort, an error, a request with max_tokens = 0, or a beam search, which has one update a
    step, for sample 0)."""
    finish: Literal["none", "stop", "length", "abort", "error", "deadline"]
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SampleUpdate: ...

class SchedulerStats:
    """Counters since construction, and the queues now."""

    def __init__(
        self,
        *,
        steps: int = 0,
        tokens_computed: int = 0,
        tokens_sampled: int = 0,
        tokens_jumped: int = 0,
        tokens_recomputed: int = 0,
        prefix_hit_tokens: int = 0,
        pinned_hit_tokens: int = 0,
        prefix_waits: int = 0,
        preemptions_recompute: int = 0,
        preemptions_swap: int = 0,
        preemption_hit_tokens: int = 0,
        swap_fallbacks: int = 0,
        blocks_swapped_out: int = 0,
        blocks_swapped_in: int = 0,
        forks: int = 0,
        block_copies: int = 0,
        waiting: int = 0,
        running: int = 0,
        swapped: int = 0,
        prefixes: int = 0,
        blocks_pinned: int = 0,
        tokens_cached: int = 0,
        slots_unused: int = 0,
        slots_reserved: int = 0,
        slots_overreserved: int = 0,
    ) -> None: ...

    steps: int
    """Steps that were run."""
    tokens_computed: int
    """Rows of all steps."""
    tokens_sampled: int
    """Tokens that outputs gained."""
    tokens_jumped: int
    """Of those: a constraint left nothing else, so they were not drawn but computed in one chunk with the token
    before them."""
    tokens_recomputed: int
    """Of the computed: once more, after a preemption."""
    prefix_hit_tokens: int
    """Prompt tokens not computed thanks to the prefix cache."""
    pinned_hit_tokens: int
    """Prompt tokens not computed thanks to registered prefixes."""
    prefix_waits: int
    """Requests that waited for a prefix that another one was computing."""
    preemptions_recompute: int
    """Requests that made room for an earlier one, to be computed again."""
    preemptions_swap: int
    """Requests that made room for an earlier one by moving to the swap space."""
    preemption_hit_tokens: int
    """Tokens of the recomputed requests that need not be computed, since nobody had taken their blocks."""
    swap_fallbacks: int
    """Requests computed again after all: no room in the swap space, a lost block, or a block that others needed."""
    blocks_swapped_out: int
    """Blocks moved to the swap space."""
    blocks_swapped_in: int
    """And back."""
    forks: int
    """Sequences that began by sharing another's blocks."""
    block_copies: int
    """Blocks copied because a shared one was written."""
    waiting: int
    """Requests submitted and not running: never admitted, or preempted."""
    running: int
    """Requests that are being computed."""
    swapped: int
    """Of the waiting: with their KV in the swap space."""
    prefixes: int
    """Registered prefixes, with those that were released and are still in use."""
    blocks_pinned: int
    """Blocks that belong to registered prefixes."""
    tokens_cached: int
    """Tokens whose KV running and swapped-in sequences hold, counted for each of them."""
    slots_unused: int
    """Token slots in their last blocks that hold nothing: the waste."""
    slots_reserved: int
    """Contiguous allocation: slots set aside for tokens that are still to come (PagedAttention, section 3.1)."""
    slots_overreserved: int
    """Contiguous allocation: slots set aside for tokens that never come (internal fragmentation)."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SchedulerStats: ...

class TraceReplay:
    """What came of replaying a trace."""

    def __init__(
        self, *, steps: int = 0, requests: int = 0, difference: str = "", is_complete: bool = True
    ) -> None: ...

    steps: int
    """That were planned alike."""
    requests: int
    """That were submitted."""
    difference: str
    """The first plan that came out otherwise: its line, what was recorded, what came out. Empty: none."""
    is_complete: bool
    """False when the last line is cut off: the writer did not end in peace."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> TraceReplay: ...

def replay_trace(path: str) -> TraceReplay:
    """Feeds a trace to a new scheduler and compares the plans. Raises Io or Corrupt, with the line."""

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

    def extend(self, id: int, sample: int, tokens: Sequence[int], scored: bool = False) -> int:
        """Tokens that come after a sample's last one whatever is drawn; returns how many are taken."""

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

    def register_prefix(self, id: int, prefix: SchedulerRequest, shared: bool = False) -> None:
        """Computes a prefix and keeps its blocks until release_prefix(). It belongs to its salt, unless it is
        shared."""

    def release_prefix(self, id: int) -> None: ...
    def set_preemption_costs(self, costs: PreemptionCosts) -> None: ...
    def force_preempt(self, id: int, mode: Literal["auto", "swap", "recompute"] = "recompute") -> bool: ...

class RequestOptions:
    """What every kind of request may say besides its prompt."""

    def __init__(
        self,
        *,
        prefix: str | None = None,
        salt: int = 0,
        priority: int = 0,
        tenant: int = 0,
        request_id: str | None = None,
        deadline: float | None = None,
    ) -> None: ...

    prefix: str
    """Name of a prefix that was registered under the same salt, or shared: the prompt begins with its tokens, and
    its KV is shared. None: no prefix."""
    salt: int
    """Requests with different salts never share cached prefixes."""
    priority: int
    """With order priority: the higher goes first. In [-1000000, 1000000]."""
    tenant: int
    """With order fair: who is served by it."""
    request_id: str
    """A name for the request, of 256 bytes at most, by which it can be aborted. No other that is open has it. None:
    no name: the engine's number."""
    deadline: float
    """Seconds from submission after which the request ends with what it has, be it waiting or running; its finish
    reason is deadline. None: no deadline. Above 0."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> RequestOptions: ...

class EngineConfig:
    """All options of an engine, flat; None chooses."""

    def __init__(
        self,
        *,
        device: str = "cpu",
        block_size: int = 16,
        num_blocks: int | None = None,
        kv_cache_memory: int | str | None = None,
        enable_prefix_caching: bool = True,
        allocation: Literal["paged", "max", "pow2", "oracle"] = "paged",
        max_reservation: int | None = None,
        cache_events: int = 0,
        max_batched_tokens: int | None = None,
        max_sequences: int = 256,
        max_context: int | None = None,
        watermark: float = 0.01,
        preemption: Literal["auto", "swap", "recompute"] = "auto",
        order: Literal["fcfs", "priority", "fair"] = "fcfs",
        admission: Literal["known", "watermark", "never_evict", "adaptive"] = "known",
        victim: Literal["cheapest", "last_arrival"] = "cheapest",
        prompt_weight: float = 1.0,
        output_weight: float = 2.0,
        jump_ahead: bool = True,
        swap_space: int | str | None = None,
        swap_file: str | os.PathLike[str] | None = None,
        swap_file_size: int | str | None = None,
        kv_store: str | os.PathLike[str] | None = None,
        kv_store_size: int | str = 10737418240,
        kv_transfer: bool = False,
        threads: int | None = None,
        dtype: Literal["float32", "f32", "fp32", "bfloat16", "bf16", "float16", "f16", "fp16", "int8"] = "bfloat16",
        weights: Literal["auto", "native", "dense", "int8", "int4"] = "auto",
        kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "f8_e4m3", "int8", "i8"] = "auto",
        isa: str = "auto",
        workspace: int | str = 67108864,
        graph_rows: int = 64,
        sample_on_device: bool = True,
        cublas_lt: bool = False,
        gpu_memory_utilization: float = 0.9,
        plugin: str | os.PathLike[str] | None = None,
        request_memory: int | str | None = None,
        max_waiting: int | None = None,
        trace_file: str | os.PathLike[str] | None = None,
        timeline_file: str | os.PathLike[str] | None = None,
        tensor_parallel: int = 1,
    ) -> None: ...

    device: str
    """cpu, cuda or cuda:<index>; a GPU needs the CUDA plugin."""
    block_size: int
    """Tokens per block of KV cache. In [1, 256]."""
    num_blocks: int
    """Blocks of KV cache, instead of kv_cache_memory. None: what kv_cache_memory holds. In [1, 4294967294]."""
    kv_cache_memory: int
    """Memory of the KV cache. None: what max_sequences full contexts need, at most 1 GiB and half of the available
    memory, on a GPU all of gpu_memory_utilization. In [1, 9223372036854775807]."""
    enable_prefix_caching: bool
    """Keep the KV of finished requests for prompts that begin alike."""
    allocation: Literal["paged", "max", "pow2", "oracle"]
    """paged, or, for comparisons, a baseline of the PagedAttention paper: a request reserves a contiguous chunk on
    admission, for the longest output (max), for its max_tokens rounded up to a power of two (pow2), or for
    exactly that (oracle), and shares nothing."""
    max_reservation: int
    """Tokens of the longest sequence under such a baseline. None: the longest that fits. In [1, 2147483647]."""
    cache_events: int
    """Events of the prefix cache that are kept; 0: none are recorded. In [0, 2147483647]."""
    max_batched_tokens: int
    """Tokens computed in one step; longer prompts are computed in chunks. None: 512, on a GPU 2048. In [1, 1048576]."""
    max_sequences: int
    """Sequences of one step. In [1, 1048576]."""
    max_context: int
    """Tokens of one sequence, prompt and output. None: as many as the model and the memory allow. In [1,
    2147483647]."""
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
    swap_space: int
    """Host memory for the KV of requests that make room. None: no swap space. In [1, 9223372036854775807]."""
    swap_file: str
    """A file for what finds no place there. It must not exist; it has no name while the engine runs and is gone with
    it. None: no file."""
    swap_file_size: int
    """Size of that file. None: as much as the KV cache. In [1, 9223372036854775807]."""
    kv_store: str
    """A directory that keeps the KV of finished requests: prompts that begin alike find it there, also after a
    restart. Made where there is none; engines of any models may share one. None: no store."""
    kv_store_size: int
    """The most that all engines' files in that directory take; the least recently used go. In [1,
    9223372036854775807]."""
    kv_transfer: bool
    """Prefixes can be exported to other engines and imported from them; a kv_store allows it too. The weights are
    hashed when they are loaded."""
    threads: int
    """Threads of the host. None: the number of CPUs that this process may run on. In [1, 4096]."""
    dtype: Literal["float32", "bfloat16", "float16", "int8"]
    """Compute type: float32 or bfloat16 on the CPU, bfloat16 or float16 on a GPU. int8: on the CPU, products with
    weights in a block format multiply their codes by inputs in int8 with a scale for each 32; all else is
    bfloat16, as everything is on a GPU."""
    weights: Literal["auto", "native", "dense", "int8", "int4"]
    """What is kept of weights in a block format of a GGUF file: that (native), or numbers of the compute type
    (dense); the bits of results are the same. auto: dense where all weights then take at most 1 GiB, else native;
    with dtype int8 native. int8 and int4: native, and matrices in no block format are rounded to 8 bits with a
    scale for each 32, or to 4 bits with a scale and a minimum. A GPU widens all."""
    kv_cache_dtype: Literal["auto", "fp8", "int8"]
    """auto: KV in the compute type. int8 with a scale for each token and head, and on a GPU fp8 (e4m3) likewise,
    take about half the memory of bfloat16 and lose some precision."""
    isa: str
    """Instruction set of the CPU, for tests and comparisons; auto: the best that it has."""
    workspace: int
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
    plugin: str
    """Path of libpagedcore_cuda.so. None: beside libpagedcore."""
    request_memory: int
    """Host memory for requests, apart from their KV: prompts, outputs and log-probabilities, from submission until
    the last output has been taken. A request counts with the most that it may come to need, and is refused where
    that does not fit. None: 1 GiB, or a quarter of the available memory where that is less. In [1,
    9223372036854775807]."""
    max_waiting: int
    """Requests that may wait to begin. What would exceed it is refused at once (Overloaded). None: as many as
    request_memory holds. In [1, 2147483647]."""
    trace_file: str
    """Write all that the scheduler is told and plans there, as text, for replay. None: no trace."""
    timeline_file: str
    """Write when each step was planned and run there and, on the CPU, each operation of it, as JSON for viewers such
    as Perfetto. Some 30 KB a step of a model of 30 layers. None: no timeline."""
    tensor_parallel: int
    """Ranks that share the model, each with a part of its weights, heads and KV and a share of `threads`; on the CPU
    only. Results have the same bits for any number of them. In [1, 256]."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> EngineConfig: ...

class ConstraintTable:
    """The functions of one kind of matcher."""

    def __init__(self, functions: object, beneath: ConstraintTable | None = None) -> None:
        """functions: a capsule named 'pagedcore.constraint_table', of seven pointers, which are copied: the
        functions of ConstraintTable in constraint.hpp, in order; what all matchers refer to, which is the table's
        from now on, or null; and the function that frees it. beneath: a table whose shared part is freed after
        that."""

class Constraint:
    """A matcher at its beginning: what outputs of requests are held to."""

    def __init__(self, table: ConstraintTable, matcher: object, bytes: int = 0) -> None:
        """matcher: a capsule named 'pagedcore.matcher', which is the constraint's from now on. bytes: of host
        memory, that a sample's copy of it may come to hold."""

class MemoryPlan:
    """Every byte the engine will hold, by purpose."""

    def __init__(
        self,
        *,
        weights: int = 0,
        native_weights: int = 0,
        integer_weights: int = 0,
        dense_weights: int = 0,
        activations: int = 0,
        kv_block: int = 0,
        num_blocks: int = 0,
        block_size: int = 0,
        max_context: int = 0,
        swap: int = 0,
        swap_file: int = 0,
        num_swap_blocks: int = 0,
        requests: int = 0,
        store: int = 0,
        windows: Sequence[int] | None = [],
        rank_weights: Sequence[int] | None = [],
        rank_activations: Sequence[int] | None = [],
        rank_kv_block: Sequence[int] | None = [],
    ) -> None: ...

    weights: int
    """Bytes."""
    native_weights: int
    """Bytes of the weights that are kept in a block format, of their file or by weights = int8 or int4; the others
    are in the compute type."""
    integer_weights: int
    """Bytes of those whose products are in integers (dtype = int8)."""
    dense_weights: int
    """Bytes of the matrices in the compute type; norms and biases are the rest."""
    activations: int
    """Bytes."""
    kv_block: int
    """Bytes of one block, the layers of one group."""
    num_blocks: int
    """Blocks of KV cache."""
    block_size: int
    """Tokens per block."""
    max_context: int
    """Tokens that one sequence may have."""
    swap: int
    """Host memory of the swap space."""
    swap_file: int
    """Bytes of the swap file; not memory."""
    num_swap_blocks: int
    """Of both together."""
    requests: int
    """Host memory that requests may take together, apart from their KV: taken as they need it."""
    store: int
    """Host memory of kv_store: blocks on their way, and at most what finding those on disk takes."""
    windows: list[int]
    """Of the groups of layers, as in KvCacheConfig; 0: full context."""
    rank_weights: list[int]
    """Of `weights`, those of each rank (tensor_parallel)."""
    rank_activations: list[int]
    """Likewise of `activations`."""
    rank_kv_block: list[int]
    """Likewise of `kv_block`."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> MemoryPlan: ...
    @property
    def kv_cache(self) -> int:
        """Bytes of all blocks."""

    @property
    def total(self) -> int:
        """Bytes."""

    @property
    def kv_tokens(self) -> int:
        """Tokens that all blocks hold."""

def plan_memory(
    model: ModelDescription, config: EngineConfig = ..., device_memory: int = 0, weight_types: Mapping[str, str] = ...
) -> MemoryPlan:
    """What an engine would allocate; allocates nothing. device_memory: bytes that are free on the device, which need
    not be there then; 0: the device is asked. weight_types: the element types of weights by canonical name, whose
    block formats may be kept; those left out count in the compute type."""

class EmbeddingParams:
    """What is asked of a text instead of more of it."""

    def __init__(
        self,
        *,
        pooling: Literal["auto", "last", "mean", "cls"] = "auto",
        normalize: bool = True,
        dimensions: int | None = None,
    ) -> None: ...

    pooling: Literal["auto", "last", "mean", "cls"]
    """Which rows of the text become its embedding: that of the last token, the mean of all, that of the first (cls),
    or what the model was trained with (auto)."""
    normalize: bool
    """Scale the embedding to length 1."""
    dimensions: int
    """How many of its numbers are kept, the first ones, before it is scaled. None: all. In [1, 16777216]."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> EmbeddingParams: ...

class EngineOutput:
    """News of one sample."""

    def __init__(
        self,
        *,
        request: int = 0,
        sample: int = 0,
        tokens: Sequence[int] | None = [],
        logprobs: LogprobTable = ...,
        prompt_logprobs: LogprobTable = ...,
        finish: Literal["none", "stop", "length", "abort", "error", "deadline"] = "none",
        score: float = 0.0,
        error: str = "",
        cached_tokens: int = 0,
        time: float = 0.0,
        queued_time: float = 0.0,
        scheduled_time: float = 0.0,
        prefilled_time: float = 0.0,
        first_token_time: float = 0.0,
        last_token_time: float = 0.0,
        last: bool = False,
        embedding: Sequence[float] | None = [],
    ) -> None: ...
    @property
    def request(self) -> int: ...
    @property
    def sample(self) -> int: ...
    @property
    def tokens(self) -> list[int]:
        """With stream, those since the last news of this sample, else all."""

    @property
    def logprobs(self) -> LogprobTable:
        """One per token, when asked for."""

    @property
    def prompt_logprobs(self) -> LogprobTable:
        """One per prompt token from prompt_logprob_start on, but none of the first; with the first news of sample 0."""

    @property
    def finish(self) -> Literal["none", "stop", "length", "abort", "error", "deadline"]: ...
    @property
    def score(self) -> float:
        """Of a hypothesis: its normalised sum of log-probabilities."""

    @property
    def error(self) -> str:
        """Why, when finish is error."""

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens taken from the prefix cache."""

    @property
    def time(self) -> float:
        """When it was told, in seconds on the engine's clock."""

    @property
    def queued_time(self) -> float:
        """When it was submitted, on the engine's clock."""

    @property
    def scheduled_time(self) -> float:
        """When the first step that computes something of it began; 0: not yet."""

    @property
    def prefilled_time(self) -> float:
        """When its whole prompt had been computed."""

    @property
    def first_token_time(self) -> float:
        """When the sample's first token was there."""

    @property
    def last_token_time(self) -> float:
        """When its latest token was."""

    @property
    def last(self) -> bool:
        """Nothing more will come for this request."""

    @property
    def embedding(self) -> list[float]:
        """Of the prompt, when asked for; finish is then length."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> EngineOutput: ...
    def embedding_bytes(self) -> memoryview:
        """The f32 numbers of `embedding`, not copied; they keep the output alive."""

class SnapshotLimits:
    """Bounds on a snapshot."""

    def __init__(
        self, *, max_cells: int = 16384, max_requests: int = 512, max_entries: int = 65536, first: int = 0
    ) -> None: ...

    max_cells: int
    """Bytes of the map of blocks, and of that of swap slots: where there are more blocks, a cell is several. In [1,
    1048576]."""
    max_requests: int
    """Requests that are listed. In [0, 65536]."""
    max_entries: int
    """Entries of all block tables together. In [0, 16777216]."""
    first: int
    """A request that comes before all others, so that its block tables are there."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SnapshotLimits: ...

class RequestPicture:
    """A request, seen from outside."""

    def __init__(
        self,
        *,
        id: int = 0,
        place: Literal["running", "swapped", "waiting"] = "waiting",
        arrival: float = 0.0,
        prompt_tokens: int = 0,
        output_tokens: int = 0,
        computed_tokens: int = 0,
        cached_tokens: int = 0,
        max_tokens: int = 0,
        num_samples: int = 0,
        priority: int = 0,
    ) -> None: ...
    @property
    def id(self) -> int: ...
    @property
    def place(self) -> Literal["running", "swapped", "waiting"]:
        """running, swapped (it waits with its KV in the swap space), or waiting."""

    @property
    def arrival(self) -> float:
        """On the engine's clock, in seconds."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int:
        """Of the longest sample, so far."""

    @property
    def computed_tokens(self) -> int:
        """Whose KV is there, of the longest sample."""

    @property
    def cached_tokens(self) -> int:
        """Of them: found computed when it was last admitted."""

    @property
    def max_tokens(self) -> int:
        """Of the output."""

    @property
    def num_samples(self) -> int:
        """Samples, or the width of a beam search."""

    @property
    def priority(self) -> int: ...
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> RequestPicture: ...

class TablePicture:
    """The block table of a sample, of a beam, or of a registered prefix."""

    def __init__(
        self,
        *,
        request: int = 0,
        prefix: int = 0,
        sample: int = 0,
        num_tokens: int = 0,
        first_entry: int = 0,
        num_entries: int = 0,
        swapped: bool = False,
    ) -> None: ...
    @property
    def request(self) -> int:
        """Whose it is; 0: of a registered prefix."""

    @property
    def prefix(self) -> int:
        """Of a registered prefix; else 0."""

    @property
    def sample(self) -> int:
        """Index within the request."""

    @property
    def num_tokens(self) -> int:
        """Token slots that it has."""

    @property
    def first_entry(self) -> int:
        """Its place in EngineSnapshot::entries."""

    @property
    def num_entries(self) -> int:
        """[blocks][groups of layers]"""

    @property
    def swapped(self) -> bool:
        """As many entries follow those of the blocks: the slots of the swap space."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> TablePicture: ...

class StepPicture:
    """What a step did."""

    def __init__(
        self,
        *,
        step: int = 0,
        start: float = 0.0,
        seconds: float = 0.0,
        plan_seconds: float = 0.0,
        sequences: int = 0,
        prefill_tokens: int = 0,
        decode_tokens: int = 0,
        preempted: int = 0,
        swaps: int = 0,
        copies: int = 0,
    ) -> None: ...
    @property
    def step(self) -> int: ...
    @property
    def start(self) -> float:
        """On the engine's clock, in seconds."""

    @property
    def seconds(self) -> float:
        """Planning, running and committing."""

    @property
    def plan_seconds(self) -> float:
        """Of that: planning."""

    @property
    def sequences(self) -> int:
        """That computed something."""

    @property
    def prefill_tokens(self) -> int:
        """Rows of sequences that computed several."""

    @property
    def decode_tokens(self) -> int:
        """Rows of sequences that computed one."""

    @property
    def preempted(self) -> int:
        """Requests."""

    @property
    def swaps(self) -> int:
        """Blocks moved to the swap space or back."""

    @property
    def copies(self) -> int:
        """Blocks copied because a shared one was written."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> StepPicture: ...

class EngineSnapshot:
    """What is where between two steps of an engine."""

    def __init__(
        self,
        *,
        time: float = 0.0,
        num_blocks: int = 0,
        block_size: int = 0,
        num_layer_groups: int = 0,
        blocks_per_cell: int = 1,
        num_swap_slots: int = 0,
        slots_per_cell: int = 1,
        requests_left_out: int = 0,
        tables_left_out: int = 0,
        cells: Sequence[int] | None = [],
        swap_cells: Sequence[int] | None = [],
        requests: Sequence[RequestPicture] | None = [],
        tables: Sequence[TablePicture] | None = [],
        entries: Sequence[int] | None = [],
        steps: Sequence[StepPicture] | None = [],
    ) -> None: ...
    @property
    def time(self) -> float:
        """On the engine's clock, in seconds."""

    @property
    def num_blocks(self) -> int:
        """Physical blocks."""

    @property
    def block_size(self) -> int:
        """Tokens per block."""

    @property
    def num_layer_groups(self) -> int: ...
    @property
    def blocks_per_cell(self) -> int: ...
    @property
    def num_swap_slots(self) -> int:
        """Slots of the swap space."""

    @property
    def slots_per_cell(self) -> int: ...
    @property
    def requests_left_out(self) -> int:
        """That are not in `requests`."""

    @property
    def tables_left_out(self) -> int:
        """Of requests that are: not in `tables`."""

    @property
    def cells(self) -> list[int]:
        """[blocks / blocks_per_cell] 0: free, 1: cached, 2: in flight, from 3 on: used by one table, by two, ...
        (252 and more are 255). Of several blocks the highest."""

    @property
    def swap_cells(self) -> list[int]:
        """[slots / slots_per_cell] 0: free, 3 and more: as `cells`."""

    @property
    def requests(self) -> list[RequestPicture]:
        """Running ones in the order of service, then those that wait."""

    @property
    def tables(self) -> list[TablePicture]: ...
    @property
    def entries(self) -> list[int]:
        """Of the tables, one behind the other: ids of blocks, 2^32 - 1 where there is none; then, of a table that is
        swapped, slots."""

    @property
    def steps(self) -> list[StepPicture]:
        """The latest, oldest first."""

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> EngineSnapshot: ...

class Engine:
    """Plans, runs and commits steps on a native thread. Safe to use from several threads."""

    @overload
    def __init__(
        self, model: ModelDescription, weights: WeightMap, config: EngineConfig = ..., progress: object | None = None
    ) -> None:
        """progress(number) is called before each weight, with how many were read before it."""

    @overload
    def __init__(
        self, model: ModelDescription, weights: ModelFile, config: EngineConfig = ..., progress: object | None = None
    ) -> None: ...
    def submit(
        self,
        prompt: Sequence[int] | numpy.typing.NDArray[numpy.int32],
        params: SamplingParams | BeamSearchParams | EmbeddingParams = ...,
        options: RequestOptions = ...,
        stream: bool = False,
        queue: int = 0,
        constraint: Constraint | None = None,
    ) -> int:
        """Returns the request's id. Raises InvalidArgument for a request that could never run."""

    def submit_all(
        self,
        prompts: Sequence[Sequence[int] | numpy.typing.NDArray[numpy.int32]],
        params: SamplingParams | BeamSearchParams | Sequence[SamplingParams | BeamSearchParams | EmbeddingParams] = ...,
        options: RequestOptions | Sequence[RequestOptions] = ...,
        stream: bool | Sequence[bool] = False,
        queue: int = 0,
        constraint: Constraint | Sequence[Constraint | None] | None = None,
    ) -> list[int]:
        """Checks all requests, then submits all; when one is refused, none is. Returns their ids."""

    def validate(
        self,
        prompt: Sequence[int] | numpy.typing.NDArray[numpy.int32],
        params: SamplingParams | BeamSearchParams | EmbeddingParams = ...,
        constraint: Constraint | None = None,
    ) -> None:
        """The checks of submit() alone."""

    def abort(self, id: int | str) -> None:
        """Ends a request, by its number or its request_id. One that is unknown or has ended is ignored."""

    def wait(self, timeout: float, queue: int = 0) -> list[EngineOutput]:
        """All outputs of a queue that are ready, waiting at most `timeout` seconds for the first."""

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
    def register_prefix(
        self, name: str, tokens: Sequence[int], salt: int = 0, shared: bool = False, queue: int = 0
    ) -> int:
        """Computes a prefix and keeps its blocks; returns the id of the request that does so. Requests of the same
        salt can name it, or, when it is shared, those of every salt."""

    def release_prefix(self, name: str, salt: int = 0) -> None: ...
    def force_preemption(self, period: int, mode: Literal["auto", "swap", "recompute"] = "recompute") -> None:
        """Testing aid: preempt before every period-th step; 0 turns it off."""

    def close(self) -> None:
        """Ends all requests, frees all memory."""

    def export_prefix(self, tokens: Sequence[int], salt: int = 0) -> bytes:
        """The KV of the leading full blocks of these tokens that are in the prefix cache, for another engine."""

    def import_prefix(self, data: bytes) -> int:
        """Puts an exported prefix into the prefix cache; how many leading tokens are there then."""

    def open_queue(self) -> int:
        """A place for outputs beside the engine's own, which is queue 0: for submit() and wait()."""

    def close_queue(self, queue: int) -> None:
        """Drops what is in it and ends the requests whose outputs would come there."""

    def output_fd(self, queue: int = 0) -> int:
        """A descriptor for an event loop: readable while wait() would not sleep, which makes it unreadable. Nobody
        else is to read, write or close it; it lives as long as its queue and the engine."""

    def cache_events(self, timeout: float = 0.0) -> list[CacheEvent]:
        """News of the prefix cache since the last call, waiting at most `timeout` seconds for the first."""

    def snapshot(self, limits: SnapshotLimits = ...) -> EngineSnapshot:
        """What is where, between two steps. Waits for the end of the one under way."""

    def drain(self, timeout: float) -> list[int]:
        """Refuses requests from now on and waits until those that are there have ended. Returns those that have not."""

    def pause(self) -> None:
        """Returns when no step is under way; none begins until resume()."""

    def resume(self) -> None:
        """Undoes pause() and drain()."""

    def now(self) -> float:
        """The engine's clock, in seconds, on which outputs say their times."""

def cpu_isas() -> list[str]:
    """Instruction sets that this CPU can run, best last."""

def attention_seconds(
    config: EngineConfig, model: ModelDescription, block_size: int, batch: int, context: int, repeats: int = 20
) -> float:
    """Seconds that attention takes on the CPU in one layer for a batch of decoding sequences, whose blocks lie
    scattered."""

class CudaDevice:
    """A GPU as its driver describes it."""

    def __init__(
        self,
        *,
        name: str = "",
        compute_major: int = 0,
        compute_minor: int = 0,
        multiprocessors: int = 0,
        memory: int = 0,
        memory_rate: float = 0.0,
        matmul_rate: float = 0.0,
        compilation: str = "",
        problem: str = "",
    ) -> None: ...

    name: str
    compute_major: int
    """Compute capability."""
    compute_minor: int
    multiprocessors: int
    memory: int
    """Bytes."""
    memory_rate: float
    """Bytes/s that its memory moves at most, from its clock and the width of its bus; 0: unknown."""
    matmul_rate: float
    """FLOP/s of dense 16-bit products that add up in f32, from its clock; 0: unknown."""
    compilation: str
    """What the driver has to compile for it when the backend is first opened; empty: nothing."""
    problem: str
    """Why it cannot be used, and what to do; empty: it can."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> CudaDevice: ...

class CudaStatus:
    """The CUDA backend on this machine."""

    def __init__(
        self,
        *,
        plugin: str = "",
        plugin_version: str = "",
        runtime_version: int = 0,
        driver_version: int = 0,
        devices: Sequence[CudaDevice] | None = [],
        problem: str = "",
    ) -> None: ...

    plugin: str
    """Path of libpagedcore_cuda.so, whether it is there or not."""
    plugin_version: str
    """Of pagedcore; empty: it could not be opened."""
    runtime_version: int
    """CUDA that it was built with, 13000 for 13.0."""
    driver_version: int
    """CUDA that the driver serves at most; 0: there is no driver."""
    devices: list[CudaDevice]
    problem: str
    """Why no GPU can be used, and what to do; empty: one of them can."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> CudaStatus: ...

def cuda_status(plugin: str = "") -> CudaStatus:
    """Looks for the plugin, driver and GPUs."""

def describe_device(config: EngineConfig = ...) -> str:
    """Device, instruction set, compute type and threads; raises what an engine on it would."""

class SelftestCheck:
    """One operation of a device against the CPU."""

    def __init__(
        self,
        *,
        operation: str = "",
        what: str = "",
        error: float = 0.0,
        tolerance: float = 0.0,
        outcome: Literal["passed", "failed", "unsupported"] = "failed",
        problem: str = "",
        note: str = "",
    ) -> None: ...

    operation: str
    """Of Backend."""
    what: str
    """Of it is checked."""
    error: float
    """The largest |device - reference| / max(1, |reference|); infinite where nothing came out."""
    tolerance: float
    """That is allowed; 0: all bits must be the same."""
    outcome: Literal["passed", "failed", "unsupported"]
    problem: str
    """The text of what was thrown; empty: nothing was."""
    note: str
    """What else is worth knowing: how many tasks the device left to the host; empty: nothing is."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SelftestCheck: ...

class SelftestRate:
    """What one call cost."""

    def __init__(
        self,
        *,
        operation: str = "",
        what: str = "",
        seconds: float = 0.0,
        bytes: float = 0.0,
        flops: float = 0.0,
        host_link: bool = False,
    ) -> None: ...

    operation: str
    """Of Backend."""
    what: str
    """Of it is measured."""
    seconds: float
    """Of one call."""
    bytes: float
    """That it has to read or write in the memory of the device, or to move to or from the host's."""
    flops: float
    """Floating-point operations that it has to do."""
    host_link: bool
    """The bytes go to or from host memory."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SelftestRate: ...

def selftest_checks(
    config: EngineConfig = ..., quick: bool = False, progress: object | None = None
) -> list[SelftestCheck]:
    """Checks every operation of the device against the CPU in f32, with portable code. progress() is called after
    each."""

def selftest_rates(
    config: EngineConfig, bytes: int, rows: int, seconds: float, progress: object | None = None
) -> list[SelftestRate]:
    """Measures copies, swaps, products and attention. progress() is called after each."""

class CostModel:
    """What a step costs, in seconds."""

    def __init__(
        self,
        *,
        step: float = 0.0,
        weights: float = 0.0,
        row: float = 0.0,
        pair: float = 0.0,
        context_token: float = 0.0,
        sample: float = 0.0,
        copy_block: float = 0.0,
        swap_out_block: float = 0.0,
        swap_in_block: float = 0.0,
    ) -> None: ...

    step: float
    """Of any step, whatever it computes."""
    weights: float
    """Reading all weights once."""
    row: float
    """Arithmetic of one row."""
    pair: float
    """Of attention, for one row and one token of its context."""
    context_token: float
    """Reading the KV of one token."""
    sample: float
    """Of sampling once."""
    copy_block: float
    swap_out_block: float
    swap_in_block: float
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> CostModel: ...

class StepWork:
    """What a plan asks of an executor, in the terms of CostModel."""

    def __init__(
        self,
        *,
        rows: float = 0.0,
        pairs: float = 0.0,
        context: float = 0.0,
        samples: float = 0.0,
        copies: float = 0.0,
        swap_outs: float = 0.0,
        swap_ins: float = 0.0,
    ) -> None: ...

    rows: float
    pairs: float
    """(row, context token) pairs of attention."""
    context: float
    """Tokens whose KV is read."""
    samples: float
    copies: float
    """Blocks."""
    swap_outs: float
    """Blocks."""
    swap_ins: float
    """Blocks."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> StepWork: ...

class TimedStep:
    """A step of a real engine, and how long it took."""

    def __init__(self, *, work: StepWork = ..., seconds: float = 0.0) -> None: ...

    work: StepWork
    seconds: float
    """Until the next step was planned."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> TimedStep: ...

def timed_steps(trace: str) -> list[TimedStep]:
    """The steps of a trace, each until the next one was planned; less those after which there was nothing to do.
    Raises as replay_trace() does."""

class SimulationConfig:
    """What serves, and what it costs."""

    def __init__(
        self,
        *,
        scheduler: SchedulerConfig = ...,
        cache: KvCacheConfig = ...,
        cost: CostModel = ...,
        batch_requests: int = 0,
        batch_tokens: int = 2040,
        beam_mixing: float = 0.0,
        copy_reservations: bool = False,
        window_begin: float = 0.0,
        window_end: float = 1e300,
        stop: float = 1e300,
    ) -> None: ...

    scheduler: SchedulerConfig
    cache: KvCacheConfig
    cost: CostModel
    batch_requests: int
    """Request-level batching, the FasterTransformer baseline (PagedAttention, section 6.1): up to so many of the
    earliest requests, as long as their longest prompt and longest output make at most batch_tokens, are padded to
    those and served until all are done. 0: iteration-level."""
    batch_tokens: int
    """Longest prompt and longest output of such a batch together."""
    beam_mixing: float
    """In every step a beam goes on from its own past, or with this probability from that of a random beam: a
    one-parameter model of the ancestry of beams, to be fitted."""
    copy_reservations: bool
    """Contiguous allocation: a fork is priced as a copy of all that was set aside for its parent, filled or not, as
    in the baselines of PagedAttention, section 6.1. Else of what is filled."""
    window_begin: float
    """Averages of the report are over this part of the virtual time."""
    window_end: float
    stop: float
    """End here, whatever is still to be served."""
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SimulationConfig: ...

def simulated_tokens(prompt: Sequence[tuple[int, int]]) -> list[int]:
    """The tokens that a simulation makes of a prompt, a list of (content, tokens)."""

class SimulationReport:
    """Averages over the window; shares are of all token slots."""

    def __init__(
        self,
        *,
        steps: int = 0,
        finished: int = 0,
        now: float = 0.0,
        seconds: float = 0.0,
        busy: float = 0.0,
        requests: float = 0.0,
        sequences: float = 0.0,
        token_states: float = 0.0,
        reserved: float = 0.0,
        internal: float = 0.0,
        allocated: float = 0.0,
        sharing: float = 0.0,
        tokens: float = 0.0,
        scheduler: SchedulerStats = ...,
    ) -> None: ...

    steps: int
    finished: int
    """Requests."""
    now: float
    """Virtual seconds."""
    seconds: float
    """Of the window, that have passed."""
    busy: float
    """Of these: with a step."""
    requests: float
    """Running."""
    sequences: float
    """Computed in a step."""
    token_states: float
    """Share of slots with a token, each counted once."""
    reserved: float
    """Of slots that wait for tokens to come."""
    internal: float
    """Of slots that were set aside for nothing."""
    allocated: float
    """Of slots in blocks that sequences hold."""
    sharing: float
    """Blocks that sequences hold, by blocks that there are, while a step runs; 1: none."""
    tokens: float
    """Generated, a second."""
    scheduler: SchedulerStats
    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> SimulationReport: ...

class Simulation:
    """The scheduler under an executor that prices plans on a virtual clock."""

    def __init__(
        self,
        config: SimulationConfig,
        arrivals: Sequence[float],
        prompts: Sequence[Sequence[tuple[int, int]]],
        outputs: Sequence[int],
        num_samples: int = 1,
        beam_width: int = 0,
        max_tokens: int = 0,
        priorities: Sequence[int] = ...,
        tenants: Sequence[int] = ...,
    ) -> None:
        """A prompt is a list of (content, tokens); equal contents are equal tokens. max_tokens is what requests ask
        for, 0: just their output."""

    def run(self, max_steps: int) -> bool:
        """Makes up to so many steps; False when there is nothing more to do."""

    def add(
        self,
        arrival: float,
        prompt: Sequence[tuple[int, int]],
        output: int,
        max_tokens: int = 0,
        priority: int = 0,
        tenant: int = 0,
    ) -> int:
        """A request behind those that are there, which arrives no earlier than they do; returns its index. Where the
        clock is past its arrival, it came while a step ran."""

    def run_until(self, seconds: float) -> None:
        """Makes the steps that begin before this time; idle, the clock goes on to it."""

    def take_ended(self) -> list[int]:
        """Indices of the requests that have ended since the last call."""

    def take_events(self) -> list[CacheEvent]:
        """News of the prefix cache since the last call, oldest first."""

    def snapshot(self, limits: SnapshotLimits = ...) -> EngineSnapshot:
        """What an engine's snapshot shows, but for the steps."""

    def cache_counts(self) -> KvCacheCounts: ...
    def report(self) -> SimulationReport: ...
    @property
    def first_token(self) -> list[float]: ...
    @property
    def finish(self) -> list[float]: ...
    def last_plan(self) -> str:
        """The latest plan, as a trace writes it."""
