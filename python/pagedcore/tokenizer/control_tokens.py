"""Tokens that end a turn or a text in any model that has them, by their spelling.

The spellings are those that llama.cpp knows (``llama_vocab::impl::load`` in src/llama-vocab.cpp), which collects what
published models use. A file may type such a token as ordinary text, or name another one as its end: it ends a turn all
the same, and is one token wherever it is spelled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["END_SPELLINGS", "ends_among", "is_control"]

_ENDS = """
<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|>
</s> <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|>
<|tool_response> <｜end▁of▁sentence｜> [e~[
"""

# Where code is filled in: padding, the next repository and the next file end what is filled in.
_FILL_ENDS = """
<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>
<|file_sep|>
"""

_FILL = """
<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>
<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>
<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>
"""

END_SPELLINGS = frozenset(_ENDS.split() + _FILL_ENDS.split())
_CONTROL = END_SPELLINGS | frozenset((*_FILL.split(), "<start_of_turn>"))
_BARRED = re.compile(r"<([|｜])[^|｜<>\s]+\1>")


def is_control(spelling: str) -> bool:
    """Whether a token is one by its spelling: one of those above, or a word between ``<|`` and ``|>``, which no text
    that a vocabulary is learned from has."""
    return spelling in _CONTROL or _BARRED.fullmatch(spelling) is not None


def ends_among(spellings: Iterable[str]) -> set[str]:
    """Those of a vocabulary's tokens that end a turn or a text, with llama.cpp's two exceptions: where a model ends
    with <|return|> and <|call|>, or with <|calls|> and <|flush|>, <|end|> ends a part of a message only; and where it
    has <|tool_response>, </s> is a tag of HTML."""
    found = END_SPELLINGS.intersection(spellings)
    calls = bool({"<|call|>", "<|calls|>"} & found)
    if calls and {"<|return|>", "<|flush|>"} & found:
        found -= {"<|end|>"}
    if "<|tool_response>" in found:
        found -= {"</s>"}
    return set(found)
