"""What a step of a model costs on a device, and how much KV fits: a roofline with overheads (`CostModel`).

Every term is a count of bytes or FLOP by a rate that the device reaches:

    weights        bytes of all weights that a step reads     / weights rate
    row            2 FLOP x weights of the layers             / arithmetic rate
    pair           4 FLOP x elements of all queries           / attention rate      (scores, and weighting the values)
    context_token  bytes of a token's KV                      / KV rate
    sample         2 FLOP x weights of the head               / arithmetic rate     + the device's sample_seconds
    step           the device's step_seconds + layers x layer_seconds
    swaps, copies  bytes of a token's KV                      / link; twice those / KV rate

All but the overheads are shared evenly by the devices of a tensor-parallel group, whose all-reduces, two a layer, add
their least time to the step, and to the row that of its bytes. As the CostModel hides rows behind the reading of
weights, those bytes are hidden there too.
"""

from __future__ import annotations

from dataclasses import replace

from .. import _core
from ..checks import check_int, check_real, native_record
from ..errors import InvalidArgument
from ..memory import format_bytes
from .device import Device
from .model_shape import ModelShape

__all__ = ["fit_device", "kv_slots", "model_cost"]

_ACTIVATION_BYTES = 2  # of an element that one device sends another


def model_cost(
    model: ModelShape,
    device: Device,
    *,
    tensor_parallel: int = 1,
    weight_bytes: float = 2.0,
    kv_bytes: float = 2.0,
) -> _core.CostModel:
    """Seconds of a step; costs of block operations are those of one token, as :class:`Deployment` takes them.

    Args:
        tensor_parallel: Devices that compute every step together.
        weight_bytes: Of one weight as it is read.
        kv_bytes: Of one element of keys and values.
    """
    _check_group(model, device, tensor_parallel)
    check_real("weight_bytes", weight_bytes, 0, 8, above_low=True)
    check_real("kv_bytes", kv_bytes, 0, 8, above_low=True)
    tp = tensor_parallel
    kv = model.kv_elements * kv_bytes
    step = device.step_seconds + model.layers * device.layer_seconds
    row = 2.0 * model.layer_weights / (tp * device.arithmetic_rate)
    if tp > 1:
        calls = 2 * model.layers
        step += calls * device.all_reduce_seconds
        row += calls * model.hidden * _ACTIVATION_BYTES / device.all_reduce_bandwidth
    return _core.CostModel(
        step=step,
        weights=(model.layer_weights + model.head_weights) * weight_bytes / (tp * device.weights_rate),
        row=row,
        pair=4.0 * model.query_elements / (tp * device.attention_rate),
        context_token=kv / (tp * device.kv_rate),
        sample=2.0 * model.head_weights / (tp * device.arithmetic_rate) + device.sample_seconds,
        copy_block=2.0 * kv / (tp * device.kv_rate),
        swap_out_block=kv / (tp * device.link),
        swap_in_block=kv / (tp * device.link),
    )


def fit_device(
    device: Device, model: ModelShape, cost: _core.CostModel, *, weight_bytes: float, kv_bytes: float
) -> Device:
    """`device` with the rates at which `model` has those costs: the inverse of :func:`model_cost`, for calibration.

    The time of a step is taken to be that of its layers. A term of zero could not be told apart in what was measured:
    its rate is then that of its like (attention's arithmetic as that of products, the KV's bytes as those of weights,
    and the other way round), and InvalidArgument is raised when both are 0. The link stays as it is where swaps were
    not measured.
    """

    kv = model.kv_elements * kv_bytes
    weights = (model.layer_weights + model.head_weights) * weight_bytes
    reading = _rates("weights", weights, cost.weights, "context_token", kv, cost.context_token)
    products, attention = 2.0 * model.layer_weights, 4.0 * model.query_elements
    computing = _rates("row", products, cost.row, "pair", attention, cost.pair)
    swaps = [seconds for seconds in (cost.swap_out_block, cost.swap_in_block) if seconds > 0]
    return replace(
        device,
        bandwidth=max(reading),
        weights_share=reading[0] / max(reading),
        kv_share=reading[1] / max(reading),
        arithmetic=max(computing),
        arithmetic_share=computing[0] / max(computing),
        attention_share=computing[1] / max(computing),
        step_seconds=0.0,
        layer_seconds=cost.step / model.layers,
        sample_seconds=max(0.0, cost.sample - 2.0 * model.head_weights / computing[0]),
        link=kv * len(swaps) / sum(swaps) if swaps else device.link,
    )


def _rates(
    first: str, first_amount: float, first_seconds: float, second: str, second_amount: float, second_seconds: float
) -> tuple[float, float]:
    if first_seconds <= 0 and second_seconds <= 0:
        raise InvalidArgument(f"neither {first} nor {second} takes any time: no rate follows; measure longer steps")
    one = first_amount / first_seconds if first_seconds > 0 else None
    two = second_amount / second_seconds if second_seconds > 0 else None
    return one or two or 0.0, two or one or 0.0


def kv_slots(
    model: ModelShape,
    device: Device,
    *,
    tensor_parallel: int = 1,
    weight_bytes: float = 2.0,
    kv_bytes: float = 2.0,
    max_batched_tokens: int = 2560,
    block_size: int = 16,
) -> int:
    """Tokens of KV that fit beside the weights and the activations of a step of max_batched_tokens, in whole blocks.
    Raises InvalidArgument with the arithmetic when that is not one block."""
    _check_group(model, device, tensor_parallel)
    _core.validate(native_record(_core.KvCacheConfig, {"num_blocks": 1, "block_size": block_size}))
    _core.validate(native_record(_core.SchedulerConfig, {"max_batched_tokens": max_batched_tokens}))
    tp = tensor_parallel
    free = tp * device.free_memory
    weights = model.weights * weight_bytes
    activations = tp * activation_bytes(model, max_batched_tokens, tensor_parallel=tp)
    per_token = model.kv_elements * kv_bytes
    blocks = int((free - weights - activations) // (per_token * block_size))
    if blocks < 1:
        devices = device.name if tp == 1 else f"{tp} x {device.name}"
        raise InvalidArgument(
            f"{devices} is too small for {model.name}: of {format_bytes(tp * device.memory)} {format_bytes(free)} are "
            f"usable; weights take {format_bytes(weights)}, activations of {max_batched_tokens} tokens "
            f"{format_bytes(activations)}, one block of {block_size} tokens {format_bytes(per_token * block_size)}; "
            "divide it among more devices (tensor_parallel), or use smaller weights"
        )
    return blocks * block_size


def activation_bytes(model: ModelShape, max_batched_tokens: int, *, tensor_parallel: int = 1) -> float:
    """Bytes on a device: two buffers as wide as a layer's widest product beside the hidden states, or the logits."""
    wide = max(3 * model.hidden, model.intermediate) / tensor_parallel + model.hidden
    logits = min(max_batched_tokens, 256) * model.vocabulary / tensor_parallel
    return 2 * _ACTIVATION_BYTES * max(max_batched_tokens * wide, logits)


def _check_group(model: ModelShape, device: Device, tensor_parallel: int) -> None:
    check_int("tensor_parallel", tensor_parallel, 1, 1024)
    if tensor_parallel > 1 and device.all_reduce_seconds == 0:
        raise InvalidArgument(
            f"tensor_parallel={tensor_parallel}: device {device.name!r} has no link to others of its kind; if it has, "
            "give its file all_reduce_seconds and all_reduce_bandwidth"
        )
