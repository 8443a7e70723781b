"""From measured steps to the constants of a cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import _core
from ...errors import InvalidArgument

__all__ = ["Fit", "fit_costs"]

_ROUNDS = 30


@dataclass(frozen=True)
class Fit:
    """A cost model, and how well it tells the steps that it was fitted to."""

    cost: _core.CostModel
    """In seconds; the costs of block operations are those of one token, as in a Deployment."""
    steps: int
    error: float
    """Median of abs(predicted / measured - 1)."""
    error_p90: float


def fit_costs(steps: Sequence[_core.TimedStep], block_size: int) -> Fit:
    """The constants that are not negative and make the sum of abs(predicted / measured - 1) least.

    Absolute rather than squared errors, since a step that other work on the machine has interrupted says nothing about
    the others (iteratively reweighted least squares). In a step of few rows reading the weights takes longer than the
    arithmetic, which is what the model's maximum says; from which row on it does not is tried.
    Raises InvalidArgument for less steps than constants.
    """
    if len(steps) < 20:
        raise InvalidArgument(f"{len(steps)} steps are too few to fit 9 constants to; give a trace of 20 or more")
    work = {name: np.array([getattr(step.work, name) for step in steps]) for name in _core.StepWork().to_dict()}
    seconds = np.array([step.seconds for step in steps])
    best: tuple[float, Any] | None = None
    for bound in sorted({0.0, *np.unique(work["rows"]).tolist()}):
        if bound > 64:
            break
        constants = _least(_terms(work, work["rows"] <= bound, block_size) / seconds[:, None])
        error = float(np.abs(_predict(work, constants, block_size) / seconds - 1).sum())
        if best is None or error < best[0]:
            best = error, constants
    assert best is not None  # 0 is always tried
    errors = np.abs(_predict(work, best[1], block_size) / seconds - 1)
    return Fit(_cost(best[1]), len(steps), float(np.median(errors)), float(np.quantile(errors, 0.9)))


_NAMES = (
    "step",
    "weights",
    "row",
    "pair",
    "context_token",
    "sample",
    "copy_block",
    "swap_out_block",
    "swap_in_block",
)


def _cost(constants: Any) -> _core.CostModel:
    return _core.CostModel(**dict(zip(_NAMES, constants.tolist(), strict=True)))


def _terms(work: dict[str, Any], is_bound: Any, block_size: int) -> Any:
    """One column for every constant. `is_bound`: by reading the weights."""
    computes = (work["rows"] > 0).astype(float)
    return np.stack(
        [
            computes,
            computes * is_bound,
            work["rows"] * ~is_bound,
            work["pairs"] * ~is_bound,
            work["context"],
            work["samples"],
            work["copies"] * block_size,
            work["swap_outs"] * block_size,
            work["swap_ins"] * block_size,
        ],
        axis=1,
    )


def _predict(work: dict[str, Any], constants: Any, block_size: int) -> Any:
    never = np.zeros(len(work["rows"]), bool)
    terms = _terms(work, never, block_size) * constants
    weights = (work["rows"] > 0) * constants[1]
    return terms.sum(axis=1) - terms[:, 2] - terms[:, 3] + np.maximum(weights, terms[:, 2] + terms[:, 3])


def _least(terms: Any) -> Any:
    """x >= 0 with the least sum of abs(terms @ x - 1)."""
    scale = np.maximum(np.abs(terms).max(axis=0), 1e-300)
    terms, target = terms / scale, np.ones(len(terms))
    weights = np.ones(len(terms))
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        x = _nnls(terms * root[:, None], target * root)
        weights = 1 / np.maximum(np.abs(terms @ x - target), 1e-4)
    return x / scale


def _nnls(a: Any, b: Any) -> Any:
    """x >= 0 with the least |a x - b| (Lawson and Hanson, Solving Least Squares Problems, 1974)."""
    x, free = np.zeros(a.shape[1]), np.zeros(a.shape[1], bool)
    tolerance = 1e-10 * float(np.abs(a.T @ b).max())
    for _ in range(3 * len(x)):
        slope = np.where(free, -np.inf, a.T @ (b - a @ x))
        if slope.max() <= tolerance:
            break
        free[slope.argmax()] = True
        while True:
            trial = np.zeros_like(x)
            trial[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            falling = free & (trial <= 0)
            if not falling.any():
                break
            x += (x[falling] / (x[falling] - trial[falling])).min() * (trial - x)
            free &= x > 1e-15
            x[~free] = 0
        x = trial
    return x
