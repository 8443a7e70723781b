"""``pagedcore doctor``: what is installed, what this machine has, and what to do about what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import Error
from .common import Formatter, add_report_flags, print_json

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore doctor
  pagedcore doctor --json
  pagedcore doctor --model YOUR_MODEL.gguf

Loads no model and starts nothing on a GPU. What is missing is said with its remedy, and is no error: the exit status
is 0. `pagedcore selftest` checks and measures a device."""

# What needs them, for those that pagedcore works without.
_PACKAGES = {
    "numpy": "",
    "tokenizers": "",
    "huggingface-hub": "",
    "jinja2": "",
    "tqdm": "",
    "shtab": "",
    "torch": "only needed to read .bin checkpoints: pip install 'pagedcore[torch]'",
    "matplotlib": "only needed to draw figures: pip install 'pagedcore[plot]'",
}


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="what is there to compute with, and what is missing",
        description="Says what is installed and what this machine has, one line each, with the remedy where something"
        " is missing.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("-m", "--model", metavar="PATH", help="say of this model how its answers end and are sampled")
    parser.add_argument("--json", action="store_true", help="print a JSON object, sizes in bytes")
    add_report_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    found = _look()
    if arguments.model is not None:
        found["model"] = _model(arguments.model)
    if arguments.json:
        print_json(found)
    else:
        for name, value in _lines(found):
            print(f"{name:<18}{value}")
    return 0


def _look() -> dict[str, Any]:
    from .. import __version__, _core, cpu_isas
    from ..default_model import default_model

    total, available = _memory()
    try:
        model: dict[str, Any] = {"path": str(default_model()), "problem": None}
    except Error as error:
        model = {"path": None, "problem": str(error)}
    return {
        "version": __version__,
        "python": platform.python_version(),
        "cpu": {
            "model": _cpu_model(),
            "machine": platform.machine(),
            "instruction_sets": cpu_isas(),
            "engine": _core.describe_device(),
            "int8": _core.describe_device(_core.EngineConfig(dtype="int8")),
            "cores": os.cpu_count(),
            "memory": total,
            "memory_available": available,
        },
        "cuda": _cuda(_core.cuda_status().to_dict()),
        "default_model": model,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _model(path: str) -> dict[str, Any]:
    """Reads no weights."""
    from ..loading import load_description
    from ..loading.end_tokens import all_ends

    checkpoint = load_description(path)
    tokenizer = checkpoint.build_tokenizer()
    vocab_size = checkpoint.description["vocab_size"]
    return {
        "path": path,
        "name": checkpoint.name,
        "mixture": _mixture(checkpoint.description),
        "quantization": checkpoint.quantization or None,
        "weight_types": dict(Counter(checkpoint.weight_types.values()).most_common()),
        "end_tokens": [end._asdict() for end in all_ends(checkpoint.declared_ends, tokenizer, vocab_size)],
        "sampling": checkpoint.sampling,
        "chat_templates": {name: template.origin for name, template in checkpoint.chat_templates.items()},
    }


def _mixture(description: dict[str, Any]) -> dict[str, int] | None:
    """None of a model without experts. ``weights`` counts the numbers that its experts have, ``active`` those of them
    that one token goes through; an expert for every token is not among them."""
    experts = description.get("num_experts", 0)
    if not experts:
        return None
    mixed = description.get("mixture_layers") or [1] * description["num_layers"]
    layers, chosen = sum(mixed), description["experts_per_token"]
    of_one = 3 * description["hidden_size"] * description["expert_size"] * layers
    return {
        "experts": experts,
        "experts_per_token": chosen,
        "layers": layers,
        "weights": experts * of_one,
        "active": chosen * of_one,
    }


def _cuda(status: dict[str, Any]) -> dict[str, Any]:
    return {**status, "devices": [device.to_dict() for device in status["devices"]], "kernel_module": _kernel_module()}


def _kernel_module(path: str = "/proc/driver/nvidia/version") -> str | None:
    """Version of NVIDIA's driver as Linux has it loaded: known without the plugin."""
    try:
        match = re.search(r"Kernel Module.*?(\d+(?:\.\d+)+)", Path(path).read_text())
    except OSError:
        return None
    return match[1] if match else None


def _cpu_model() -> str | None:
    """None where Linux does not say, as on arm64."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return None


def _memory() -> tuple[int | None, int | None]:
    """Bytes that the machine has, and those that it has left."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        return tuple(1024 * int(fields[name].split()[0]) for name in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]
    except (OSError, KeyError, ValueError):
        return None, None


def _version(package: str) -> str | None:
    """Without importing it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    from ..memory import format_bytes

    cpu, cuda = found["cpu"], found["cuda"]
    lines = [
        ("pagedcore", found["version"]),
        ("python", found["python"]),
        ("cpu", f"{cpu['model'] or cpu['machine']}, {cpu['cores']} cores"),
        ("instruction sets", ", ".join(cpu["instruction_sets"])),
        ("device cpu", f"ready: {cpu['engine']}"),
        ("  with dtype int8", cpu["int8"]),
    ]
    if cpu["memory"] is not None:
        lines.append(("memory", f"{format_bytes(cpu['memory'])}, {format_bytes(cpu['memory_available'])} available"))
    lines += _cuda_lines(cuda)
    model = found["default_model"]
    lines.append(("default model", model["path"] or f"none: {model['problem']}"))
    if "model" in found:
        lines += _model_lines(found["model"])
    for name, version in found["packages"].items():
        remedy = _PACKAGES[name] or f"needed: pip install {name}"
        lines.append((name, version or f"not installed; {remedy}"))
    return lines


def _model_lines(model: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [("model", f"{model['name']}, {model['path']}")]
    if model["mixture"] is not None:
        lines.append(
            (
                "mixture",
                "{experts} experts in {layers} layers, {experts_per_token} for a token: {active:,} of {weights:,} "
                "weights".format(**model["mixture"]),
            )
        )
    if model["weight_types"]:
        types = ", ".join(f"{count} in {dtype}" for dtype, count in model["weight_types"].items())
        lines.append(("weights", f"{model['quantization']}: {types}" if model["quantization"] else types))
    ends = [f"{end['id']} {end['token'] or ''}: {end['why']}" for end in model["end_tokens"]]
    lines += [("an answer ends at", end) for end in ends or ["no token: it is as long as max_tokens"]]
    sampling = ", ".join(f"{name} {value:g}" for name, value in model["sampling"].items())
    lines.append(("sampling", sampling or "the model's files recommend nothing"))
    lines += [("chat template", f"{name}: {origin}") for name, origin in model["chat_templates"].items()]
    return lines


def _cuda_lines(cuda: dict[str, Any]) -> list[tuple[str, str]]:
    from ..memory import format_bytes

    module = cuda["kernel_module"]
    loaded = f"{module} is loaded" if module else "none is loaded"
    if not cuda["plugin_version"]:
        return [("nvidia driver", loaded), ("device cuda", f"no: {cuda['problem']}")]
    driver = _cuda_version(cuda["driver_version"])
    lines = [
        (
            "cuda plugin",
            f"{cuda['plugin']}, {cuda['plugin_version']}, built with CUDA {_cuda_version(cuda['runtime_version'])}",
        ),
        ("nvidia driver", f"{loaded}, serves CUDA {driver}" if cuda["driver_version"] else loaded),
    ]
    for index, device in enumerate(cuda["devices"]):
        capability = f"{device['compute_major']}.{device['compute_minor']}"
        text = f"{device['name']}, compute capability {capability}, {format_bytes(device['memory'])}"
        lines.append((f"device cuda:{index}", f"no: {device['problem']}" if device["problem"] else f"ready: {text}"))
        if device["compilation"]:
            lines.append(("", device["compilation"]))
    if not cuda["devices"]:
        lines.append(("device cuda", f"no: {cuda['problem']}"))
    return lines


def _cuda_version(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
