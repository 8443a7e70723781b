"""pagedcore beside the engines that a user would pick instead, in one run.

Each engine is a process of its own that stays loaded; repetitions alternate between them, so that a change in what
else the machine is doing meets all of them. Prompts are random token ids (the same for every engine, new in every
repetition), greedy, end-of-sequence ignored, so that all do the same work.

    python bench/peers/compare.py --model models/smollm2-hf \
        --openvino-python venv-openvino/bin/python --openvino-model models/smollm2-openvino-fp16 \
        --llama-server llama.cpp/build/bin/llama-server --llama-model models/smollm2-bf16.gguf

Engines whose options are absent are left out. Workloads: `a`, 64 requests at once of 128 prompt and 128 output
tokens, output tokens per second; `c`, one request of 128 and 128, milliseconds per output token after the first,
and time to the first token.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Workload = list[tuple[list[int], int]]


def workload(name: str, repetition: int) -> Workload:
    """Requests as (prompt token ids, number of output tokens)."""
    rng = random.Random(f"{name}-{repetition}")

    def prompt(length: int) -> list[int]:
        return [rng.randrange(100, 48900) for _ in range(length)]

    if name == "a":
        return [(prompt(128), 128) for _ in range(64)]
    if name == "c":
        return [(prompt(128), 128)]
    if name == "first":
        return [(prompt(128), 1)]
    raise ValueError(f"unknown workload {name!r}: a, c or first")


class Engine:
    """A worker process (worker.py) and the times it reported."""

    def __init__(self, name: str, python: str, arguments: list[str]) -> None:
        self.name = name
        self.seconds: dict[str, list[float]] = {}
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.info = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):  # anything else is the engine's own chatter
                return dict(json.loads(line[1:]))
        raise RuntimeError(f"{self.name} ended with exit code {self.process.wait()}")

    def run(self, requests: Workload) -> float:
        assert self.process.stdin is not None
        print(json.dumps(requests), file=self.process.stdin, flush=True)
        answer = self._read()
        expected = [output for _, output in requests]
        if answer["tokens"] != expected:
            raise RuntimeError(f"{self.name} generated {answer['tokens']} tokens instead of {expected}")
        return float(answer["seconds"])

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=30)


def engines(args: argparse.Namespace) -> list[Engine]:
    common = ["--threads", str(args.threads)]
    found = [Engine("pagedcore", sys.executable, ["pagedcore", "--model", args.model, "--dtype", args.dtype, *common])]
    if args.openvino_model:
        python = args.openvino_python or sys.executable
        found.append(Engine("openvino", python, ["openvino", "--model", args.openvino_model, *common]))
    if args.llama_server:
        arguments = ["llama.cpp", "--model", args.llama_model, "--server", args.llama_server, *common]
        found.append(Engine("llama.cpp", sys.executable, arguments))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="for pagedcore; default: its default model")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--openvino-model", help="directory with an exported OpenVINO model")
    parser.add_argument("--openvino-python", help="interpreter that has openvino_genai")
    parser.add_argument("--llama-server", help="llama.cpp's llama-server")
    parser.add_argument("--llama-model", help="a GGUF file for it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--workloads", default="c,a")
    parser.add_argument("--json", help="write every repetition's seconds to this file")
    args = parser.parse_args()

    running = engines(args)
    try:
        for engine in running:
            engine.run(workload("first", -1))  # warm
        for name in args.workloads.split(","):
            for repetition in range(args.repetitions):
                for part in ("first", "c") if name == "c" else (name,):
                    for engine in running:
                        seconds = engine.run(workload(part, repetition))
                        engine.seconds.setdefault(part, []).append(seconds)
                        time.sleep(0.2)
    finally:
        for engine in running:
            engine.close()
    report(running)
    if args.json:
        Path(args.json).write_text(
            json.dumps({e.name: {"info": e.info, "seconds": e.seconds} for e in running}, indent=1)
        )


def report(running: list[Engine]) -> None:
    def median(engine: Engine, part: str) -> float:
        return statistics.median(engine.seconds[part])

    base = running[0]
    print(f"{'engine':<12}{'a: tok/s':>12}{'ratio':>8}{'c: ms/token':>14}{'ratio':>8}{'c: first ms':>14}")
    for engine in running:
        row = f"{engine.name:<12}"
        if "a" in engine.seconds:
            row += f"{64 * 128 / median(engine, 'a'):>12.0f}{median(engine, 'a') / median(base, 'a'):>8.2f}"
        else:
            row += f"{'-':>12}{'':>8}"
        if "c" in engine.seconds:
            per_token = {e.name: (median(e, "c") - median(e, "first")) / 127 for e in running}
            row += f"{per_token[engine.name] * 1e3:>14.2f}{per_token[engine.name] / per_token[base.name]:>8.2f}"
            row += f"{median(engine, 'first') * 1e3:>14.0f}"
        print(row)
    print("ratio: time of the engine / time of pagedcore; above 1, pagedcore is faster")


if __name__ == "__main__":
    main()
