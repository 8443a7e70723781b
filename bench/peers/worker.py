"""One engine behind a pipe: reads a workload per line, answers with the seconds it took (see compare.py)."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Workload = list[tuple[list[int], int]]


class Pagedcore:
    def __init__(self, args: argparse.Namespace) -> None:
        import pagedcore

        self.pagedcore = pagedcore
        self.llm = pagedcore.LLM(args.model or None, dtype=args.dtype, threads=args.threads)

    def run(self, requests: Workload) -> list[int]:
        params = [
            self.pagedcore.SamplingParams(temperature=0, max_tokens=n, ignore_eos=True, detokenize=False)
            for _, n in requests
        ]
        outputs = self.llm.generate([p for p, _ in requests], params, progress=False)
        return [len(o.outputs[0].token_ids) for o in outputs]

    def close(self) -> None:
        self.llm.close()


class OpenVino:
    def __init__(self, args: argparse.Namespace) -> None:
        import numpy
        import openvino
        import openvino_genai

        self.numpy, self.openvino, self.genai = numpy, openvino, openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 4
        scheduler.max_num_seqs = 256
        scheduler.enable_prefix_caching = True
        self.pipe = openvino_genai.ContinuousBatchingPipeline(
            args.model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": args.threads}
        )

    def run(self, requests: Workload) -> list[int]:
        inputs, configs = [], []
        for prompt, n in requests:
            inputs.append(self.openvino.Tensor(self.numpy.array([prompt], dtype=self.numpy.int64)))
            config = self.genai.GenerationConfig()
            config.max_new_tokens, config.ignore_eos, config.do_sample = n, True, False
            configs.append(config)
        return [len(o.m_generation_ids[0]) for o in self.pipe.generate(inputs, configs)]

    def close(self) -> None:
        del self.pipe


class LlamaCpp:
    """llama-server over HTTP on the loopback, one thread a request."""

    def __init__(self, args: argparse.Namespace) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        threads = str(args.threads)
        command = [args.server, "-m", args.model, "--host", "127.0.0.1", "--port", str(self.port), "-t", threads]
        command += ["-tb", threads, "-np", "64", "-c", str(64 * 512), "-b", "2048", "-ub", "512"]
        command += ["--threads-http", "72", "--no-webui", "--cache-ram", "0"]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                if self._ask("GET", "/health", None)[0] == 200:
                    break
            except OSError:
                pass
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"llama-server did not start (exit code {self.server.poll()})")
            time.sleep(0.05)
        self.pool = ThreadPoolExecutor(64)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1200)
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def _one(self, request: tuple[list[int], int]) -> int:
        body = {
            "prompt": request[0],
            "n_predict": request[1],
            "ignore_eos": True,
            "temperature": 0.0,
            "samplers": ["top_k"],
            "top_k": 1,
        }
        status, answer = self._ask("POST", "/completion", body)
        if status != 200:
            raise RuntimeError(str(answer)[:300])
        return int(answer["tokens_predicted"])

    def run(self, requests: Workload) -> list[int]:
        return list(self.pool.map(self._one, requests))

    def close(self) -> None:
        self.server.terminate()
        self.server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = {"pagedcore": Pagedcore, "openvino": OpenVino, "llama.cpp": LlamaCpp}
    parser.add_argument("engine", choices=sorted(kinds))
    parser.add_argument("--model", default="")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--server", default="")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    def answer(**values: Any) -> None:
        print("@" + json.dumps(values), flush=True)

    start = time.perf_counter()
    engine: Pagedcore | OpenVino | LlamaCpp = kinds[args.engine](args)
    try:
        answer(load_seconds=time.perf_counter() - start)
        for line in sys.stdin:
            requests = [(list(p), int(n)) for p, n in json.loads(line)]
            start = time.perf_counter()
            tokens = engine.run(requests)
            answer(seconds=time.perf_counter() - start, tokens=tokens)
    finally:
        engine.close()


if __name__ == "__main__":
    main()
