"""A model on a device, or on several that share it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument
from ..memory import format_bytes
from .deployment import Deployment
from .device import Device
from .model_shape import ModelShape
from .roofline import kv_slots, model_cost

__all__ = ["Placement"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Which model, where, and in which precision: what a :class:`Deployment` follows from by arithmetic."""

    model: ModelShape
    device: Device
    tensor_parallel: int = 1
    """Devices that compute every step together."""
    weight_bytes: float = 2.0
    kv_bytes: float = 2.0
    """Bytes of one element."""
    kv_memory: float | None = None
    """Bytes of KV on all devices together. None: all that weights and activations leave."""

    @classmethod
    def of(cls, model: str | os.PathLike[str] | None, device: str | os.PathLike[str], **others: Any) -> Placement:
        """By the names, or files, that :meth:`ModelShape.load` and :meth:`Device.load` take."""
        return cls(model=ModelShape.load(model), device=Device.load(device), **others)

    @property
    def name(self) -> str:
        devices = self.device.name if self.tensor_parallel == 1 else f"{self.tensor_parallel} x {self.device.name}"
        return f"{self.model.name} on {devices}"

    @property
    def token_bytes(self) -> float:
        """KV of a token, on all devices together."""
        return self.model.kv_elements * self.kv_bytes

    def deploy(self, *, block_size: int = 16, max_batched_tokens: int = 2560, **policies: Any) -> Deployment:
        """A Deployment with these policies. Raises InvalidArgument, with the arithmetic, when the model does not fit,
        and for more KV memory than there is."""
        shared: dict[str, Any] = {
            "tensor_parallel": self.tensor_parallel,
            "weight_bytes": self.weight_bytes,
            "kv_bytes": self.kv_bytes,
        }
        cost = model_cost(self.model, self.device, **shared)
        sizes = {"max_batched_tokens": max_batched_tokens, "block_size": block_size}
        slots = kv_slots(self.model, self.device, **sizes, **shared)
        if self.kv_memory is not None:
            per_token = self.token_bytes
            if not 0 < self.kv_memory < (slots + block_size) * per_token:
                raise InvalidArgument(
                    f"kv_memory={self.kv_memory!r}: beside the weights of {self.name} there is room for "
                    f"up to {format_bytes(slots * per_token)} of KV"
                )
            slots = int(self.kv_memory / per_token)
        return Deployment(
            name=self.name,
            slots=slots,
            cost=cost,
            block_size=block_size,
            max_batched_tokens=max_batched_tokens,
            **{"max_reservation": self.model.max_context, **policies},
        )
