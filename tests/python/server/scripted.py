"""A server whose model answers what the last message says, word for word: for what depends on the text of an answer.

Everything but the choice of tokens is real: template, tokenizer, streams. The prompt is the last message between two
marks; a template that is named in the call's ``chat_template_kwargs`` shows tools in a family's form.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pagedcore.async_llm import AsyncLLM
from pagedcore.detokenizer import Detokenizer
from pagedcore.outputs import CompletionOutput, RequestOutput
from pagedcore.server.run import serve
from pagedcore.server.served import ToServe
from pagedcore.server.settings import Settings

TEMPLATE = (
    "{% if tools %}<tool_call> {{ tools | tojson }}{% endif %}"
    "{% for message in messages %}{{ message.role }}"
    "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}{% endfor %}"
    "\x02{{ messages[-1].content }}\x03{% if thinking %}<think>\n{% endif %}{# </think> #}"
)


class Scripted(AsyncLLM):
    """One token at a time; ``max_tokens`` cuts."""

    async def generate(self, prompts: Any, params: Any = None, **options: Any) -> list[RequestOutput]:
        outputs = []
        for prompt in prompts:
            whole = RequestOutput(0, str(prompt), [1, 2, 3], [CompletionOutput(i) for i in range(params.n)], True)
            async for output in self.stream(prompt, params):
                for sample in output.outputs:
                    whole.outputs[sample.index].append(sample)
            outputs.append(whole)
        return outputs

    def stream(self, prompt: Any, params: Any = None, **options: Any) -> Any:
        return _Stream(self, str(prompt), params)


class _Stream:
    def __init__(self, llm: Scripted, prompt: str, params: Any) -> None:
        self._news = self._of(llm, prompt, params)

    def __await__(self) -> Any:
        async def started() -> _Stream:
            return self

        return started().__await__()

    def __aiter__(self) -> AsyncIterator[RequestOutput]:
        return self._news

    async def aclose(self) -> None:
        await self._news.aclose()

    async def _of(self, llm: Scripted, prompt: str, params: Any) -> Any:
        assert llm.tokenizer is not None
        text = prompt.partition("\x02")[2].partition("\x03")[0]
        ids = llm.tokenizer.encode(text, add_special_tokens=False)
        texts = [Detokenizer(llm.tokenizer, skip_special_tokens=False) for _ in range(params.n)]
        most = len(ids) if params.max_tokens is None else min(params.max_tokens, len(ids))
        for at in range(most):
            await asyncio.sleep(0)
            for index in range(params.n):
                last = at == most - 1
                reason: Any = None if not last else "stop" if most == len(ids) else "length"
                news = CompletionOutput(index, texts[index].push(ids[at]), [ids[at]], finish_reason=reason)
                yield RequestOutput(0, prompt, [1, 2, 3], [news], last and index == params.n - 1)


if __name__ == "__main__":

    def scripted() -> Scripted:
        return Scripted(kv_cache_memory="8MiB", max_context=2048)

    serve([ToServe(open=scripted, names=("scripted",), chat_template=TEMPLATE)], Settings(port=0))
