"""What takes long shows that it moves: generation by its tokens, loading by its tensors, self-tests by their checks.

Expected: one long request moves the bar before it ends; no bar, thread or import of tqdm where nobody looks.
"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys

from pagedcore import LLM, BeamSearchParams, SamplingParams, _core
from pagedcore.progress import Progress

MODEL = ["--kv-cache-memory", "16MiB"]


def on_a_terminal(*arguments: str) -> str:
    """What a command writes to stderr when that is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pagedcore", *arguments], stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return seen.decode()


def test_one_request_moves_the_bar(llm: LLM, monkeypatch: object) -> None:
    stream = io.StringIO()
    llm_module = sys.modules["pagedcore.running"]
    shown: list[Progress] = []

    def progress(total: float, unit: str, *, enabled: bool | None) -> Progress:
        shown.append(Progress(total, unit, enabled=enabled, stream=stream))
        return shown[0]

    monkeypatch.setattr(llm_module, "Progress", progress)  # type: ignore[attr-defined]
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    expected = llm.generate("One, two,", params, progress=False)[0].outputs[0].token_ids
    shown.clear()
    output = llm.generate("One, two,", params, progress=True)[0].outputs[0]
    assert output.token_ids == expected  # whoever looks changes nothing
    counts = [int(count) for count in re.findall(r"(\d+)/40 ", stream.getvalue())]
    assert counts[0] == 0 and counts[-1] == 40
    assert len(set(counts)) > 3  # on the way, at most ten times a second


def test_requests_that_end_early_are_done(llm: LLM, capsys: object) -> None:
    llm.generate(["a", "b"], SamplingParams(temperature=0, max_tokens=500, stop=[" "]), progress=True)
    llm.beam_search("a", BeamSearchParams(beam_width=3, max_tokens=5), progress=True)
    shown = capsys.readouterr().err  # type: ignore[attr-defined]
    assert shown.count("100%") >= 2


def test_loading_tells_every_tensor() -> None:
    told: list[int] = []
    weights = _core.WeightMap()
    description = _core.ModelDescription(
        vocab_size=8, hidden_size=8, num_layers=1, max_context=64, num_heads=1, num_kv_heads=1, head_dim=8,
        intermediate_size=8, tied_embeddings=True,
    )  # fmt: skip
    shapes = {
        "embed.weight": (8, 8),
        "final_norm.weight": (8,),
        "layers.0.attn_norm.weight": (8,),
        "layers.0.mlp_norm.weight": (8,),
    }
    shapes |= {f"layers.0.attn.{name}.weight": (8, 8) for name in "qkvo"}
    shapes |= {f"layers.0.mlp.{name}.weight": (8, 8) for name in ("gate", "up", "down")}
    for name, shape in shapes.items():
        size = 4
        for extent in shape:
            size *= extent
        weights.add(name, "f32", list(shape), bytes(size))
    engine = _core.Engine(description, weights, _core.EngineConfig(dtype="float32", num_blocks=4), told.append)
    engine.close()
    assert told == list(range(len(shapes)))


def test_commands_show_that_they_move() -> None:
    assert re.search(r"\d checks", on_a_terminal("selftest", "--no-rates"))
    simulation = ("simulate", "--setting", "opt-13b", "--rate", "1", "--seconds", "30000")
    assert re.search(r"100%.* requests", on_a_terminal(*simulation))
    shown = on_a_terminal("generate", "Once", "--max-tokens", "150", "-n", "2", "--ignore-eos", *MODEL)
    assert len(set(re.findall(r"(\d+)/300 ", shown))) > 3


def test_a_bar_starts_no_thread_and_decides_nothing() -> None:
    """tqdm's monitor is a thread; its lock between processes fixes how a program starts processes."""
    program = (
        "import io, multiprocessing, sys, threading; from pagedcore.progress import Progress\n"
        "bar = Progress(5, 'x', enabled=False); assert 'tqdm' not in sys.modules\n"
        "with Progress(5, 'x', enabled=True, stream=io.StringIO()) as bar: bar.add(1)\n"
        "assert threading.active_count() == 1\n"
        "multiprocessing.set_start_method('spawn')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
