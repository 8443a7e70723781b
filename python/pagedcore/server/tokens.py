"""/tokenize, /detokenize and /tokenizer_info, as vLLM has them."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from ..tokenizer import Tokenizer
from .call import Call
from .chat import conversation_prompt
from .errors import ApiError
from .fields import Fields
from .http import Json, in_thread_if
from .openai.chat import chat_options
from .openai.conversation import conversation, tool_use
from .served import Served

__all__ = ["detokenize", "tokenize", "tokenizer_info"]

_IN_A_THREAD = 4096  # characters or tokens, from which on others are served meanwhile


async def tokenize(call: Call) -> Response:
    """Of a ``prompt``, or of the ``messages`` of a conversation."""
    fields, served = call.fields, call.served
    tokenizer = _tokenizer(served)
    if "messages" in fields:
        options = chat_options(call)
        template = served.template(chosen=options.get("chat_template"), tools="tools" in fields)
        tools = tool_use(fields, served.tool_format(template), served.llm.tokenizer)
        if tools.tools:
            options["tools"] = tools.tools
        text = str(await conversation_prompt(call, conversation(fields, template), options, ""))
        add = fields.flag("add_special_tokens")
    else:
        fields.required("prompt")
        text = fields.text("prompt", most=None) or ""
        add = fields.flag("add_special_tokens", True)

    def encode() -> list[int]:
        return tokenizer.encode(text, add_special_tokens=add)

    ids = await in_thread_if(len(text) > _IN_A_THREAD, encode)
    answer: dict[str, Any] = {"count": len(ids), "max_model_len": served.llm.max_context, "tokens": ids}
    spelled = [tokenizer.token_text(token) for token in ids] if fields.flag("return_token_strs") else None
    return Json(answer | {"token_strs": spelled})


async def detokenize(call: Call) -> Response:
    tokenizer = _tokenizer(call.served)
    call.fields.required("tokens")
    ids = call.fields.token_ids("tokens")
    if ids and max(ids) >= call.llm.description.vocab_size:
        size = call.llm.description.vocab_size
        raise ApiError(400, f"tokens holds {max(ids)}: ids are integers in [0, {size})", param="tokens")

    def decode() -> str:
        return tokenizer.decode(ids)

    return Json({"prompt": await in_thread_if(len(ids) > _IN_A_THREAD, decode)})


async def tokenizer_info(call: Call) -> Response:
    """Special tokens and the chat template, of ``?model=NAME``: what lm-eval reads instead of a tokenizer's files."""
    named = call.request.query_params.get("model")
    if named:
        call.fields = Fields({"model": named})
    served = call.served
    tokenizer = _tokenizer(served)
    template = served.template(chosen=served.template_options().get("chat_template"))
    info = {"bos_token": None, "eos_token": None, "pad_token": None, "unk_token": None, **tokenizer.special_tokens}
    return Json({**info, "chat_template": template or None, "model_max_length": served.llm.max_context})


def _tokenizer(served: Served) -> Tokenizer:
    if served.llm.tokenizer is None:
        raise ApiError(400, "the model has no tokenizer: pass token ids")
    return served.llm.tokenizer
