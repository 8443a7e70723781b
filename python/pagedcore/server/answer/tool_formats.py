"""How models of each family write the call of a tool, and how to make one begin to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

__all__ = ["TOOL_FORMATS", "ToolFormat", "tool_format_of"]


@dataclass(frozen=True)
class ToolFormat:
    """``{"name": ..., "arguments": {...}}`` between marks, or a variation of that."""

    name: str
    opener: str
    """Begins a call, or several."""
    closer: str = ""
    body: Literal["json", "xml", "channels"] = "json"
    """Of ``channels`` a call is a message to a function."""
    bare: bool = False
    """Whether an answer that is nothing but a call may lack the opener."""
    several: str = ""
    """What separates calls behind one opener."""
    named: bool = False
    """Whether ``name{...}`` and ``name[ARGS]{...}`` are calls too."""
    arguments: str = "arguments"
    """Their key, as this family writes it; both are read."""
    forced: str = ""
    """Begins a call of any tool, where a call is required; empty: the opener."""
    signs: tuple[str, ...] = ()
    """A chat template that holds one of them has its model write calls so."""
    id_length: int = 29
    """Characters of the id of a call; templates of some families check it."""

    def begin(self, tool: str | None) -> str:
        """What an answer begins with that calls this tool; None: any."""
        if self.body == "channels":
            return f"{self.opener} to=functions." + (f"{tool} <|constrain|>json<|message|>" if tool is not None else "")
        if self.body == "xml":
            return f"{self.opener}\n<function=" + (f"{tool}>\n" if tool is not None else "")
        if tool is None:
            return self.forced or self.opener
        opener = self.opener + "[" if self.named else "" if self.bare else self.forced or self.opener
        return f'{opener}{{"name": {json.dumps(tool)}, "{self.arguments}": '


TOOL_FORMATS = {
    format.name: format
    for format in (
        ToolFormat("harmony", "<|channel|>commentary", "<|call|>", body="channels", signs=("<|channel|>",)),
        ToolFormat("qwen3_coder", "<tool_call>", "</tool_call>", body="xml", signs=("<function=",)),
        ToolFormat("hermes", "<tool_call>", "</tool_call>", forced="<tool_call>\n", signs=("<tool_call>",)),
        ToolFormat("mistral", "[TOOL_CALLS]", "]", several=",", named=True, signs=("[TOOL_CALLS]",), id_length=9),
        ToolFormat(
            "llama3",
            "<|python_tag|>",
            bare=True,
            several=";",
            arguments="parameters",
            forced='{"name": ',
            signs=("<|python_tag|>", '"parameters": dictionary of argument name'),
        ),
    )
}
"""By name; Qwen 2.5 and 3 write as Hermes does."""
TOOL_FORMATS["qwen"] = TOOL_FORMATS["hermes"]


def tool_format_of(template: str) -> ToolFormat | None:
    """How a model with this chat template writes calls; None where it knows no tools."""
    if "tools" not in template:
        return None
    return next((f for f in TOOL_FORMATS.values() if any(sign in template for sign in f.signs)), None)
