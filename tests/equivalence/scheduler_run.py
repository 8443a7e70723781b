"""A bare scheduler under a scripted executor: requests come, go, fail and are preempted at any moment, with every
option of the scheduler and the cache, and with costs that no clock measured."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import spelling
import workload
from configurations import Configuration

from pagedcore import InvalidArgument, SampledToken, SchedulerRequest, StepResult, _core

STEPS = 200
SWAPS = [0, 8, 25, 60]


def scheduler_run(configuration: Configuration) -> dict[str, list[str]]:
    """Once as the configuration has it, once with wide steps, in which more runs than the cache holds for long."""
    return {
        f"scheduler, {kind}: plans, commits and counters": _Script(configuration, kind).run()
        for kind in ("as configured", "wide steps")
    }


class _Script:
    def __init__(self, configuration: Configuration, kind: str) -> None:
        self._random = source = random.Random(f"scheduler {configuration.number} {kind}")
        options = configuration.options
        names = ("max_batched_tokens", "max_sequences", "watermark", "order", "admission", "victim", "preemption")
        config = {name: options[name] for name in names if name in options}
        if kind == "wide steps":
            config |= {"max_batched_tokens": 300, "max_sequences": 64}
        self._paged = "allocation" not in options
        if options["order"] == "fair" and source.random() < 0.5:
            config |= {"prompt_weight": 0.5, "output_weight": 3.0}
        if source.random() < 0.5:
            config["max_context"] = 150
        cache: dict[str, Any] = {"block_size": options["block_size"]}
        cache["num_blocks"] = -(-source.choice([200, 280, 400]) // options["block_size"])
        if self._paged:
            config["preemption"] = ("auto", "swap", "recompute")[configuration.number % 3]
            cache["enable_prefix_caching"] = options.get("enable_prefix_caching", True)
            cache["num_swap_blocks"] = source.choice(SWAPS)
            cache["windows"] = source.choice([[], [0, 24], [16], [0, 40, 0]])
            cache["num_blocks"] *= max(1, len(cache["windows"]))
        else:
            cache |= {"allocation": options["allocation"], "max_reservation": 150}
        self._scheduler = spelling.scheduler(config, cache)
        self._lines: list[str] = [f"script {config} {cache}"]
        self._live: dict[int, tuple[int, int]] = {}  # request: beam width, longest sequence
        self._planned: list[int] = []  # requests of the latest plan
        self._prefixes: dict[int, list[int]] = {}
        self._next_id = 1
        self._now = 0.0

    def run(self) -> list[str]:
        for step in range(STEPS):
            self._now += self._random.random()
            if step < STEPS * 3 // 4:
                self._disturb()
            self._step()
        for _ in range(1000):
            if not self._scheduler.has_work:
                break
            self._step()
        self._scheduler.check()
        self._put("stats", sorted(self._scheduler.stats.to_dict().items()))
        return self._lines

    def _put(self, *words: Any) -> None:
        self._lines.append(" ".join(str(word) for word in words))

    def _disturb(self) -> None:
        source, scheduler = self._random, self._scheduler
        for _ in range(source.choice([0, 0, 1, 1, 2, 6])):
            self._submit(workload.request(source))
        if source.random() < 0.02:  # many who wait for one prefix, and somebody behind them
            family = workload.tokens(f"burst {source.randrange(1000)}", 70)
            for i in range(90):
                terms = {"salt": 0, "prefix": "", "priority": 0, "tenant": i % 3}
                self._submit(workload.Request([*family, i], terms, sampling={"n": 1, "max_tokens": 1}))
        event = source.random()
        if self._live and event < 0.08:
            request = source.choice(sorted(self._live))
            self._put("abort", request, scheduler.abort(request))
            self._live.pop(request)
        elif self._live and event < 0.2:
            request = source.choice(self._planned or sorted(self._live))
            mode = source.choice(["recompute", "swap", "auto"])
            if self._paged:
                self._put("preempt", request, mode, scheduler.force_preempt(request, mode))
        elif event < 0.23:
            costs = {name: source.uniform(0.1, 2.0) for name in ("token", "block_out", "block_in")}
            scheduler.set_preemption_costs(_core.PreemptionCosts(**costs))
        elif event < 0.25 and self._paged:
            spelling.clear_prefix_cache(scheduler)
        elif event < 0.3 and self._paged:
            self._register()
        elif event < 0.33 and self._prefixes:
            prefix = source.choice(sorted(self._prefixes))
            del self._prefixes[prefix]
            self._refusable("release", lambda: scheduler.release_prefix(prefix))

    def _refusable(self, word: str, call: Any) -> bool:
        """Texts of errors may change between versions; whether there is one may not."""
        try:
            call()
        except InvalidArgument:
            self._put(word, "refused")
            return False
        self._put(word)
        return True

    def _submit(self, made: workload.Request) -> None:
        source = self._random
        fields: dict[str, Any] = {"id": self._next_id, "arrival": self._now, "prompt": made.prompt}
        fields |= {name: made.terms[name] for name in ("salt", "priority", "tenant")}
        if source.random() < 0.2:
            fields["arrival"] = self._now - source.random()  # need not come in order
        if made.beams is not None:
            fields |= {"beam_width": made.beams["width"], "max_tokens": made.beams["max_tokens"]}
        elif made.sampling is not None:
            fields |= {"num_samples": made.sampling["n"], "max_tokens": made.sampling["max_tokens"]}
            fields["prompt_logprobs"] = "prompt_logprobs" in made.sampling
        fields["max_tokens"] *= source.choice([1, 1, 4])  # what runs outgrows the cache
        if self._prefixes and source.random() < 0.3:
            fields["prefix"] = source.choice(sorted(self._prefixes))
            fields["prompt"] = self._prefixes[fields["prefix"]] + made.prompt[-7:]
        self._next_id += 1
        if self._refusable(f"submit {fields['id']}", lambda: self._scheduler.submit(SchedulerRequest(**fields))):
            self._live[fields["id"]] = (fields.get("beam_width", 0), len(fields["prompt"]) + fields["max_tokens"])

    def _register(self) -> None:
        prefix = self._next_id
        self._next_id += 1
        prompt = workload.tokens(f"prefix {prefix % 3}", self._random.choice([5, 16, 37]))
        request = SchedulerRequest(id=prefix, arrival=self._now, prompt=prompt, salt=self._random.choice([0, 3]))
        if self._refusable("register", lambda: spelling.schedule_prefix(self._scheduler, prefix, request)):
            self._prefixes[prefix] = prompt

    def _step(self) -> None:
        plan = self._scheduler.plan(self._now)
        self._put(plan_text(plan))
        if not plan:
            return
        self._planned = [work.request for work in plan.sequences]
        result = self._result(plan)
        for update in self._scheduler.commit(result):
            self._put("update", update.request, update.sample, update.token, update.finish)
            if update.finish != "none" and self._live.get(update.request, (0, 0))[0] > 0:
                self._live.pop(update.request)
        for request in result.failed:
            self._live.pop(request, None)

    def _result(self, plan: Any) -> Any:
        source = self._random
        failed = []
        if source.random() < 0.02:
            failed = [source.choice(plan.sequences).request] if plan.sequences else []
        moved = [swap.request for swap in (*plan.swapped_out, *plan.swapped_in)]
        swap_failed = [source.choice(moved)] if moved and source.random() < 0.1 else []
        tokens, beams = [], {}
        for work in plan.sequences:
            if work.request in failed:
                continue
            if self._live.get(work.request, (0, 0))[0] > 0 and work.num_samples > 0:
                beams.setdefault(work.request, []).append(work.first_sample)
                continue
            for sample in range(work.first_sample, work.first_sample + work.num_samples):
                token, stop = source.randrange(3, workload.VOCABULARY), source.random() < 0.04
                tokens.append(SampledToken(sequence=work.sequence, sample=sample, token=token, stop=stop))
        chosen = [self._beam_result(request, parents) for request, parents in beams.items()]
        fields = {"tokens": tokens, "failed": failed, "beams": chosen, "swap_failed": swap_failed}
        self._put("commit", plan.step, len(tokens), failed, [len(beam.children) for beam in chosen], swap_failed)
        return StepResult(step=plan.step, **fields)

    def _beam_result(self, request: int, parents: list[int]) -> Any:
        source = self._random
        width, longest = self._live[request]
        ends = len(self._scheduler.tokens(request, parents[0])) + 1 >= longest or source.random() < 0.05
        count = 0 if ends else source.randint(1, width)
        children = [
            _core.BeamChild(parent=source.choice(parents), token=source.randrange(3, workload.VOCABULARY))
            for _ in range(count)
        ]
        return _core.BeamResult(request=request, children=children)


def plan_text(plan: Any) -> str:
    """As a trace has it, with the tables."""
    rows = hashlib.sha256(str((list(plan.tokens), list(plan.block_tables))).encode()).hexdigest()[:16]
    sequences = [
        (s.request, s.sequence, s.first_sample, s.num_samples, s.first_row, s.num_rows, s.first_position, s.num_scored)
        for s in plan.sequences
    ]
    tables = [(s.table_offset, s.table_size) for s in plan.sequences]
    moves = [(swap.block, swap.slot) for swap in (*plan.swap_outs, *plan.swap_ins)]
    swapped = [(swap.request, swap.num_moves) for swap in (*plan.swapped_out, *plan.swapped_in)]
    copies = [(copy.src, copy.dst, copy.num_tokens) for copy in plan.copies]
    return (
        f"plan {plan.step} out {len(plan.swapped_out)} swapped {swapped} moves {moves} copies {copies} "
        f"sequences {sequences} tables {tables} {plan.table_entries} preempted {list(plan.preempted)} rows {rows}"
    )
