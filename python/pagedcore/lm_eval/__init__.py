"""pagedcore as a model of lm-eval, EleutherAI's harness: its command with ``--model pagedcore``.

    python -m pagedcore.lm_eval run --model pagedcore --model_args model=YOUR_MODEL.gguf --tasks arc_easy

lm-eval is installed apart (``pip install lm_eval``); it looks for models in its own package alone, hence a command of
ours that adds one. In programs, importing this module adds it: ``lm_eval.simple_evaluate(model="pagedcore", ...)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# lm-eval's own models, which it looks for only where nobody has added one.
import lm_eval.models  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
from lm_eval.api.model import LM  # type: ignore[import-not-found, unused-ignore]
from lm_eval.api.registry import register_model  # type: ignore[import-not-found, unused-ignore]

from ..errors import Aborted, InvalidArgument
from ..llm import LLM
from ..progress import Progress
from ..sampling_params import SamplingParams

__all__ = ["EvaluatedModel"]

_AT_ONCE = 512  # requests that are handed to the engine, which makes its batches of them
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")


@register_model("pagedcore")
class EvaluatedModel(LM):  # type: ignore[misc, unused-ignore]
    """What lm-eval asks of a model. Texts longer than the context lose their beginning, as its own models have it."""

    def __init__(
        self,
        model: str | None = None,
        *,
        pretrained: str | None = None,
        max_gen_toks: int = 256,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        """``options``: those of :class:`LLM`. ``pretrained``: another name of ``model``. ``batch_size`` is lm-eval's
        and says nothing here: batches are the engine's."""
        super().__init__()
        if model is not None and pretrained is not None:
            raise InvalidArgument("model and pretrained are two names of one argument: give one of them")
        if device is not None:
            options["device"] = device
        self.llm = LLM(model if model is not None else pretrained, **options)
        self._max_gen_toks = max_gen_toks

    @property
    def tokenizer_name(self) -> str:
        return str(self.llm.model).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        if not chat_template:
            return None
        return self.llm.chat_template_text(chat_template if isinstance(chat_template, str) else None)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        how: dict[str, Any] = (
            {"add_generation_prompt": True} if add_generation_prompt else {"continue_final_message": True}
        )
        return str(self.llm.chat_prompt(chat_history, **how))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each continuation after its context, and whether greedy decoding would give it."""
        pairs = [self._encoded(*request.args) for request in requests]
        found = []
        scored = self._scored(pairs, "loglikelihood", disable_tqdm)
        for request, (total, greedy) in zip(requests, scored, strict=True):
            found.append((total, greedy))
            self.cache_hook.add_partial("loglikelihood", request.args, (total, greedy))
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts: each token is scored once, with all the context that fits before it."""
        windows = [list(self._windows(request.args[0])) for request in requests]
        flat = [window for text in windows for window in text]
        scored = self._scored(flat, "rolling loglikelihood", disable_tqdm)
        found = []
        for request, text in zip(requests, windows, strict=True):
            found.append(sum(next(scored)[0] for _ in text))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        found: list[str] = []
        for part in _parts(requests, "generate until", disable_tqdm):
            params = [self._generating(request.args[1]) for request in part]
            prompts = [
                self.llm.tokenize(request.args[0])[-max(self.llm.max_context - (each.max_tokens or 0), 1) :]
                for request, each in zip(part, params, strict=True)
            ]
            for request, output in zip(part, self.llm.generate(prompts, params), strict=True):
                found.append(output.outputs[0].text)
                self.cache_hook.add_partial("generate_until", request.args, found[-1])
        return found

    def _generating(self, asked: Mapping[str, Any]) -> SamplingParams:
        stop = asked.get("until") or ()
        values = {name: asked[name] for name in _SAMPLING if asked.get(name) is not None}
        if not asked.get("do_sample", values.get("temperature", 0) > 0):
            values["temperature"] = 0.0
        most = asked.get("max_gen_toks", asked.get("max_tokens", self._max_gen_toks))
        most = min(int(most), self.llm.max_context - 1)
        return SamplingParams(max_tokens=most, stop=[stop] if isinstance(stop, str) else list(stop), **values)

    def _encoded(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """White space at the context's end begins the continuation, since tokens of most models do."""
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        if not context:
            return [self._first()], self.llm.tokenize(continuation, add_special_tokens=False)
        before = self.llm.tokenize(context)
        return before, self.llm.tokenize(context + continuation)[len(before) :]

    def _first(self) -> int:
        """What stands before a text without a context: the token that begins texts, or that ends them."""
        begins = self.llm.tokenize("")
        return begins[0] if begins else self.llm.end_tokens[0].id

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        ids = self.llm.tokenize(text, add_special_tokens=False)
        most = self.llm.max_context - 1
        whole = [self._first(), *ids]
        for end in range(min(most, len(ids)), len(ids) + most, most):
            begin = (end - 1) // most * most
            end = min(end, len(ids))
            if begin < end:
                first = max(end - most, 0)
                yield whole[first : begin + 1], ids[begin:end]

    def _scored(
        self, pairs: Sequence[tuple[list[int], list[int]]], title: str, silent: bool
    ) -> Iterator[tuple[float, bool]]:
        most = self.llm.max_context
        for part in _parts(pairs, title, silent):
            prompts = [(before + after)[-most:] for before, after in part]
            starts = [max(len(ids) - len(after), 1) for ids, (_, after) in zip(prompts, part, strict=True)]
            params = [SamplingParams(max_tokens=0, prompt_logprobs=0, prompt_logprob_start=start) for start in starts]
            for ids, start, output in zip(prompts, starts, self.llm.generate(prompts, params), strict=True):
                if output.error is not None:
                    raise Aborted(f"request {output.request_id} failed: {output.error}")
                assert output.prompt_logprobs is not None
                tokens = [at[token] for at, token in zip(output.prompt_logprobs[start:], ids[start:], strict=True)]
                yield sum(token.logprob for token in tokens), all(token.rank == 1 for token in tokens)


def _parts(items: Sequence[Any], title: str, silent: bool) -> Iterator[Sequence[Any]]:
    with Progress(len(items), "requests", title=title, enabled=False if silent else None) as bar:
        for at in range(0, len(items), _AT_ONCE):
            yield items[at : at + _AT_ONCE]
            bar.reach(min(at + _AT_ONCE, len(items)), len(items))
