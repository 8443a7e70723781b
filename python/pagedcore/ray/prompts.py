"""Token ids of a prompt as the replica's server is going to make them: for routing, and for nothing else."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from ..engine_options import engine_config, open_model
from ..errors import Error
from ..server.errors import ApiError
from ..server.fields import Fields
from ..server.openai.conversation import conversation
from .config import RayConfig
from .hint import Hint

__all__ = ["Prompts"]


class Prompts:
    """Reads the model's tokenizer and templates, and no weights."""

    def __init__(self, config: RayConfig) -> None:
        with closing(open_model(config.model, {}, weights=False)) as checkpoint:
            self._tokenizer = checkpoint.tokenizer(None)
            self._templates = checkpoint.chat_templates(self._tokenizer)
        self._template = config.chat_template
        self._block_size = engine_config(config.engine_options()).block_size

    def hint(self, path: str, body: bytes) -> Hint:
        """Of anything that is no prompt, or none that can be read: its length only. The replica says what is wrong with
        a call."""
        try:
            fields = json.loads(body)
            if isinstance(fields, dict) and not fields.get("cache_salt"):
                ids = self._ids(path, fields)
                if ids:
                    return Hint.of(ids, self._block_size)
        except (Error, ApiError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
            pass
        return Hint(len(body) // 4)

    def _ids(self, path: str, fields: dict[str, Any]) -> list[int] | None:
        if path.endswith("/chat/completions"):
            return self._chat(fields)
        prompt = fields.get("prompt")
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            prompt = prompt[0]  # of several the first
        if isinstance(prompt, list):
            return [int(token) for token in prompt]
        if isinstance(prompt, str) and self._tokenizer is not None:
            return self._tokenizer.encode(prompt, add_special_tokens=fields.get("add_special_tokens") is not False)
        return None

    def _chat(self, fields: dict[str, Any]) -> list[int] | None:
        if self._tokenizer is None:
            return None
        options: dict[str, Any] = {} if self._template is None else {"chat_template": self._template}
        if fields.get("tools") and fields.get("tool_choice") != "none":
            options["tools"] = fields["tools"]
        for name in ("chat_template", "add_generation_prompt", "continue_final_message"):
            if fields.get(name) is not None:
                options[name] = fields[name]
        variables = dict(fields.get("chat_template_kwargs") or {})
        if fields.get("reasoning_effort") is not None:
            variables.setdefault("reasoning_effort", fields["reasoning_effort"])
        if variables:
            options["template_variables"] = variables
        template = self._templates.text(options.get("chat_template"), with_tools="tools" in options)
        messages = conversation(Fields(fields), template)
        text = self._templates.prompt(messages, options)  # type: ignore[arg-type]
        return self._tokenizer.encode(text, add_special_tokens=False)
