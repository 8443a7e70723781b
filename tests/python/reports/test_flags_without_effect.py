"""A flag that would have no effect beside the others is refused, with status 2 and a line that says what it is for.

Expected: from what each command does with its flags; the list is by kind, not by command.
"""

from __future__ import annotations

import pytest

from pagedcore import LLM, InvalidArgument
from pagedcore.cli import main

SERVICE = ["plan", "--device", "l4", "--model", "llama-7b"]
FIGURE = ["simulate", "--figure"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # printed only in another form
        (["generate", "hi", "--logprobs", "2"], "--logprobs are printed with --json only"),
        # of another policy, order or cache
        (["generate", "hi", "--priority", "3"], "give --order priority too"),
        (["chat", "--tenant", "3"], "give --order fair too"),
        (["generate", "hi", "--salt", "3", "--no-enable-prefix-caching"], "nothing is shared"),
        (["batch", "--output-weight", "5"], "it is for order = 'fair'"),
        (["score", "hi", "--max-reservation", "64"], "max_reservation = 64 is for the baselines"),
        (["score", "hi", "--swap-file-size", "1GiB"], "needs swap_file"),
        (["score", "hi", "--preemption", "recompute", "--swap-file", "x"], "it is for preemption"),
        # of another device
        (["plan", "--workspace", "1GiB"], "it is for device = 'cuda'"),
        (["plan", "--no-sample-on-device"], "it is for device = 'cuda'"),
        (["plan", "--cublas-lt"], "it is for the products of device = 'cuda'"),
        (["bench", "latency", "--kv-cache-dtype", "fp8"], "which keeps KV in the compute type or in int8"),
        # of another mode of the command
        (["plan", "--seconds", "5"], "--seconds is about a service"),
        ([*SERVICE, "--seconds", "5"], "give --simulate too"),
        ([*SERVICE, "--threads", "2"], "--threads is for this machine"),
        ([*SERVICE, "--num-blocks", "2"], "--num-blocks is for this machine"),
        ([*SERVICE, "--isa", "avx2"], "--isa is for this machine"),
        (["bench", "throughput", "--trace", "x.csv", "--input-len", "9"], "the trace has its own lengths"),
        (["batch", "--resume"], "--resume needs -o"),
        # of a model elsewhere
        (["plan", "--revision", "main"], "revision='main' has no effect"),
        (["tokenize", "hi", "--revision", "main"], "revision='main' has no effect"),
        (["tokenize", "--decode", "--no-special-tokens", "1"], "is for encoding"),
        (["simulate", "--plot", "x.svg"], "--plot is for a figure"),
        ([*FIGURE, "14", "--lengths", "x.csv"], "figure 14 is not about ShareGPT's"),
        ([*FIGURE, "2", "--conversations", "x.csv"], "figure 17 is about chats"),
        ([*FIGURE, "18a", "--seconds", "5"], "is measured, not simulated"),
        ([*FIGURE, "2", "--rate", "5"], "--rate is for runs of your own"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_it_is_refused(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert message in err


@pytest.mark.parametrize("flags", [["--top-k", "5"], ["--top-p", "0.9"], ["--min-p", "0.1"]], ids=str)
def test_sampling_at_temperature_0(flags: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Known when the model is: its publishers may recommend a temperature."""
    memory = ["--kv-cache-memory", "16MiB", "--max-tokens", "2"]
    assert main(["generate", "hi", *flags, *memory]) == 2
    assert f"{flags[0]} has no effect at temperature 0" in capfd.readouterr().err
    assert main(["generate", "hi", *flags, "--temperature", "1", *memory]) == 0
    assert main(["generate", "hi", "--seed", "1", *memory]) == 0
    assert "--seed has no effect at temperature 0" in capfd.readouterr().err


def test_in_python_too() -> None:
    for options in ({"graph_rows": 3}, {"plugin": "x"}, {"prompt_weight": 3.0}, {"swap_file": ""}, {"trace_file": ""}):
        with pytest.raises(InvalidArgument, match=next(iter(options))):
            LLM.plan(**options)  # type: ignore[arg-type]
