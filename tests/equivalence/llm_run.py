"""The same through the front door: what users of LLM see, of the random models and, where it is installed, of the
default model with its texts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import spelling
import workload
from configurations import Configuration
from engine_run import PLUG_TOKENS

from pagedcore import LLM, BeamSearchParams, InvalidArgument, SamplingParams

DTYPES = {"f32": "float32", "bf16": "bfloat16"}


def llm_run(configuration: Configuration) -> dict[str, list[str]]:
    options = {name: value for name, value in configuration.options.items() if name != "watermark"}
    options |= {"threads": configuration.cpu["threads"], "isa": configuration.cpu["isa"]}
    options["dtype"] = DTYPES[configuration.cpu["dtype"]]
    options["num_blocks"] = -(-PLUG_TOKENS // options["block_size"])
    options["max_context"] = 128
    with tempfile.TemporaryDirectory() as folder:
        swaps = options.get("preemption") != "recompute"  # else later versions refuse swap space, which has no effect
        if swaps and configuration.swap[0]:
            options["swap_space"] = f"{configuration.swap[0] * 16}KiB"
        if swaps and configuration.swap[1]:
            options["swap_file"] = Path(folder) / "swap"
        if options.get("preemption") == "swap" and not any(configuration.swap):
            options["preemption"] = "auto"
        with LLM(spelling.DATA / configuration.model, seed=configuration.number, **options) as llm:
            return {"LLM": _calls(llm, configuration)}


def _calls(llm: Any, configuration: Configuration) -> list[str]:
    prompts = [request.prompt for request in workload.wave(configuration.number, 2)]
    varied = [
        SamplingParams(max_tokens=12, logprobs=2, ignore_eos=True),
        SamplingParams(max_tokens=9, n=2, best_of=4, temperature=1.2, ignore_eos=True),
        SamplingParams(max_tokens=20, temperature=0, top_k=3, prompt_logprobs=1, stop_token_ids=list(range(0, 99, 4))),
        SamplingParams(max_tokens=7, n=3, seed=5, min_p=0.02, frequency_penalty=0.5, logit_bias={8: 3.5}, logprobs=0),
    ]
    outputs = llm.generate(prompts, [varied[i % 4] for i in range(len(prompts))], progress=False)
    outputs += llm.generate(prompts[:4], salt=7, priority=2, tenant=1, progress=False)
    beams = BeamSearchParams(beam_width=3, max_tokens=10, length_penalty=0.8, stop_token_ids=[5, 50, 150], n=2)
    outputs += llm.beam_search(prompts[4:7], beams, progress=False)
    if "allocation" not in configuration.options:
        tokens = workload.tokens("system", 40)
        assert llm.register_prefix("system", tokens) == 40
        outputs += llm.generate(prompts[7:10], SamplingParams(max_tokens=6), prefix="system", progress=False)
    lines = [line for output in outputs for line in completion_lines(output)]
    lines += [f"score {[value.hex() for value in score.logprobs]}" for score in llm.score(prompts[:3])]
    stream = [delta.outputs[0].token_ids for delta in llm.stream(prompts[3], varied[0])]
    return [*lines, f"stream {stream}"]


def completion_lines(output: Any) -> list[str]:
    head = f"prompt {output.prompt_token_ids} {logprob_text(output.prompt_logprobs)}"
    return [head] + [
        f"sample {sample.index} {sample.finish_reason} {sample.stop_reason} {sample.token_ids} {sample.text!r} "
        f"score {hexadecimal(sample.score)} sum {hexadecimal(sample.cumulative_logprob)} "
        f"{logprob_text(sample.logprobs)}"
        for sample in output.outputs
    ]


def hexadecimal(value: float | None) -> str:
    return "None" if value is None else float(value).hex()


def logprob_text(positions: Any) -> str:
    def position_text(entries: Any) -> str:
        if entries is None:
            return "None"
        return " ".join(f"{t}:{e.logprob.hex()}:{e.rank}:{e.decoded_token!r}" for t, e in entries.items())

    return "None" if positions is None else " | ".join(map(position_text, positions))


def default_model_run(dtype: str) -> dict[str, list[str]]:
    """Empty where the default model is not installed."""
    try:
        llm = LLM(dtype=dtype, kv_cache_memory="40MiB", max_batched_tokens=48, preemption="recompute", seed=3)
    except InvalidArgument as error:
        return {f"default model, left out: {error}": []}
    texts = ["The capital of France is", "Once upon a time", "def fibonacci(n):", "Übung macht den", "1 2 3 4"]
    varied = [
        SamplingParams(max_tokens=24, temperature=0, logprobs=2),
        SamplingParams(max_tokens=24, n=3, best_of=4, top_p=0.9, seed=1),
        SamplingParams(max_tokens=40, temperature=0.8, stop=["\n", ". "], include_stop_str_in_output=True, seed=2),
        SamplingParams(max_tokens=16, repetition_penalty=1.2, presence_penalty=0.3, prompt_logprobs=1),
    ]
    with llm:
        llm.engine.force_preemption(7, "recompute")
        outputs = llm.generate(texts * 3, [varied[i % 4] for i in range(15)], progress=False)
        outputs += llm.beam_search(texts[:2], BeamSearchParams(beam_width=3, max_tokens=12), progress=False)
        conversation = [{"role": "user", "content": "Name three colours."}]
        outputs += llm.chat(conversation, SamplingParams(max_tokens=20, temperature=0), progress=False)
        lines = [line for output in outputs for line in completion_lines(output)]
        lines += [f"score {[value.hex() for value in llm.score(text).logprobs]}" for text in texts[:2]]
    return {"default model": lines}
