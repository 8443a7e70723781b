"""What requests ask of a deployment: steps, rows, context and memory, on average and by their distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InvalidArgument, Unsupported
from ..deployment import Deployment

__all__ = ["Demand", "Lengths"]

Array = npt.NDArray[np.float64]
Lengths = Sequence[tuple[int, int]] | npt.NDArray[Any]
"""(prompt, output) tokens of requests."""
_CELLS = (
    256  # of the grid on which the arithmetic of prompts is added up, between 0 and the time of reading the weights
)
_MOST = 20_000  # requests that stand for all


class Demand:
    """What requests with these (prompt, output) lengths ask for. Time is counted in steps, whose duration is not known.

    A request runs for `steps`: one for every chunk of its prompt, the last of which gives its first token, and one for
    every other token. Over these it holds memory, first its prompt, then a token more in every step.
    """

    def __init__(
        self, lengths: Lengths, deployment: Deployment, cached: Array | None = None, *, all_of_them: bool = False
    ) -> None:
        """`cached`: tokens of each prompt that are found in the prefix cache. `all_of_them`: not 20,000 for more.

        Raises InvalidArgument for lengths that the deployment could never serve, Unsupported for request-level
        batches."""
        if deployment.batch_requests:
            raise Unsupported("batches of whole requests (batch_requests) have no stationary batch: simulate them")
        pairs = np.asarray(lengths, float).reshape(-1, 2)
        if len(pairs) == 0:
            raise InvalidArgument("there are no lengths of requests to plan for")
        longest = int(pairs.sum(axis=1).max())
        stride = 1 if all_of_them else -(-len(pairs) // _MOST)
        self.prompts: Array = pairs[::stride, 0]
        self.outputs: Array = pairs[::stride, 1]
        found: Array = np.zeros(len(self.prompts)) if cached is None else np.minimum(cached[::stride], self.prompts - 1)
        slots = deployment.slots // deployment.block_size * deployment.block_size
        if longest > slots:
            raise InvalidArgument(
                f"a request of {longest} tokens (prompt and output) does not fit {slots} slots, all that "
                f"{deployment.name} has: leave such requests out, or give the KV cache more memory"
            )
        if deployment.allocation != "paged" and longest > deployment.max_reservation:
            raise InvalidArgument(
                f"a request of {longest} tokens is more than max_reservation={deployment.max_reservation}, what one of "
                f"allocation={deployment.allocation!r} reserves at most"
            )
        p, o = self.prompts, self.outputs
        chunks = np.ceil((p - found) / deployment.max_batched_tokens)
        steps = chunks - 1 + o
        self.steps = float(steps.mean())
        self.chunks = float(chunks.mean())
        self.rows = float((p - found + o - 1).mean())
        self.decoding = float((o - 1).mean()) / self.steps
        """Rows of decoding, of one running request in one step; likewise the next ones."""
        context = (o - 1) * p + (o - 1) * o / 2
        self.context = float(context.mean()) / self.steps
        self.sampled = float(o.mean()) / self.steps
        self.own_steps_per_token = float((steps / o).mean())
        self.per_token = float((1 / o).mean())
        self.work: dict[str, Array] = {"max_sequences": steps, "max_batched_tokens": p - found + o - 1}
        """What a request takes of that which bounds the batch, by its name: steps, rows, slots times steps."""
        self._memory(deployment, steps, context + chunks * p)
        self._chunks(deployment, chunks, found)
        self.burden: Array = self.prompt_seconds + context * deployment.cost.context_token
        """Seconds that a request adds to all its steps, by its prompt and its context."""

    def _memory(self, deployment: Deployment, steps: Array, tokens: Array) -> None:
        """Slots that a running request holds, and what varies about them."""
        block = deployment.block_size
        first = np.ceil((self.prompts + 1) / block) * block
        last = np.ceil((self.prompts + self.outputs) / block) * block
        if deployment.allocation == "paged" and deployment.admission == "never_evict":
            first = last
            held = steps * last
        elif deployment.allocation == "paged":
            held = tokens + steps * (block - 1) / 2
        else:
            first = last = chunk_slots(deployment, self.prompts, self.outputs)
            held = steps * first
        self.held = float(held.mean()) / self.steps
        self.tokens = float(tokens.mean()) / self.steps
        """Tokens of what it holds."""
        self.work["KV memory"] = held
        self.first, self.growth = float(first.mean()), float((last - first).mean())
        """Slots with which a request begins, and that it takes until its end."""
        self.first_biased = float((first * first).mean() / first.mean())
        self.is_uniform = bool((first == first[0]).all()) and self.growth == 0

    def _chunks(self, deployment: Deployment, chunks: Array, found: Array) -> None:
        """The arithmetic of a chunk of a prompt, in seconds: its mean, and its distribution on a grid."""
        cost, most = deployment.cost, deployment.max_batched_tokens
        seconds: list[Any] = []
        for number in range(int(chunks.max())):
            those = chunks > number
            before = found[those] + number * most
            rows = np.minimum(self.prompts[those] - before, most)
            pairs = rows * before + rows * (rows + 1) / 2
            seconds.append(rows * cost.row + pairs * cost.pair + before * cost.context_token)
        all_seconds: Array = np.concatenate(seconds)
        self.chunk_seconds = float(all_seconds.mean())
        self.prompt_seconds = np.bincount(
            np.concatenate([np.flatnonzero(chunks > number) for number in range(len(seconds))]), all_seconds
        )
        """Seconds of the whole prompt, by request."""
        self._cell = cost.weights / _CELLS
        if self._cell == 0:
            return
        # A value between two points of the grid is shared by them, so that the mean stays.
        position = np.minimum(all_seconds / self._cell, _CELLS)
        low = np.floor(position).astype(int)
        share = position - low
        grid = np.bincount(low, 1 - share, _CELLS + 2) + np.bincount(low + 1, share, _CELLS + 2)
        self._grid = grid[:_CELLS] / len(all_seconds)

    def hidden(self, chunks: float, slack: float) -> float:
        """E[(slack - S)+] for the arithmetic S of a Poisson number of chunks, `chunks` on average: what these leave
        unused of `slack` seconds, the time beside the arithmetic of decoding while the weights are read.

        The distribution of such a sum is Panjer's recursion (ASTIN Bulletin 12, 1981).
        """
        cells = min(_CELLS, int(np.ceil(slack / self._cell))) if slack > 0 and self._cell > 0 else 0
        if cells == 0:
            return 0.0
        weighted = chunks * np.arange(_CELLS) * self._grid
        sums = np.zeros(cells)
        sums[0] = np.exp(-chunks * (1 - self._grid[0]))
        for cell in range(1, cells):
            sums[cell] = weighted[1 : cell + 1] @ sums[cell - 1 :: -1][:cell] / cell
        return float(sums @ np.maximum(0.0, slack - self._cell * np.arange(cells)))


def chunk_slots(deployment: Deployment, prompts: Array, outputs: Array) -> Array:
    """What a request reserves under contiguous allocation: a buddy allocator's power of two of blocks."""
    longest = {
        "max": np.full_like(outputs, deployment.max_reservation),
        "pow2": np.exp2(np.ceil(np.log2(outputs))),
        "oracle": outputs,
    }[deployment.allocation]
    tokens = np.minimum(prompts + longest, deployment.max_reservation)
    blocks = np.ceil(tokens / deployment.block_size)
    return np.asarray(np.exp2(np.ceil(np.log2(blocks))) * deployment.block_size)
