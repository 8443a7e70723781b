"""Grammars in llguidance's dialect of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument
from ..structured_outputs import schema_text

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

__all__ = ["choice_grammar", "literal", "schema_rule", "tag_grammar"]

_FREE = r"/(.|\n)*/"


def literal(text: str, tokenizer: Tokenizer | None) -> str:
    """A text that is there as it stands; special tokens that it spells are themselves."""
    if tokenizer is None:
        return _quoted(text)
    special = {tokenizer.id_to_token(i) or "": i for i in tokenizer.special_ids}
    names = sorted((name for name in special if name), key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, names)) + ")", text) if names else [text]
    return " ".join(f"<[{special[p]}]>" if p in special else _quoted(p) for p in pieces if p)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def schema_rule(schema: object, *, lenient: bool = False) -> str:
    """What matches the JSON of a schema; ``lenient``: but for keywords that are not supported."""
    return "%json " + schema_text(True if schema is None else schema, lenient=lenient)


def choice_grammar(texts: str) -> str:
    return "start: " + " | ".join(_quoted(text) for text in json.loads(texts))


def tag_grammar(text: str, tokenizer: Tokenizer | None) -> str:
    """Of a structural tag: free text, in which a trigger begins one of its structures."""
    tag = json.loads(text)
    if "format" in tag:
        raise InvalidArgument("'format' is not supported: give 'structures' and 'triggers'")
    structures, triggers = tag.get("structures"), tag.get("triggers")
    if not isinstance(triggers, list) or not all(isinstance(t, str) and t for t in triggers) or not triggers:
        raise InvalidArgument("'triggers' must be a list of texts")
    if not isinstance(structures, list) or not structures or len(structures) > 256:
        raise InvalidArgument("'structures' must be a list of 1 to 256 objects with 'begin', 'schema' and 'end'")
    rules = []
    names = []
    for at, structure in enumerate(structures):
        begin, end = _ends(at, structure)
        trigger = next((t for t in triggers if begin.startswith(t)), None)
        if trigger is None:
            raise InvalidArgument(f"structures[{at}] begins with {begin[:64]!r}, which begins with no trigger")
        names.append(f"tag_{at}")
        body = [
            literal(begin[len(trigger) :], tokenizer),
            schema_rule(structure.get("schema")),
            literal(end, tokenizer),
        ]
        opened = literal(trigger, tokenizer)
        rest = " ".join(part for part in body if part)
        if opened.startswith("<["):
            rules.append(f"tag_{at}: TEXT {opened} {rest}\n")
        else:
            rules.append(f"begin_{at}[lazy]: TEXT {opened}\ntag_{at}: begin_{at} {rest}\n")
    return f"%llguidance {{}}\nstart: ({' | '.join(names)})* end\nend: TEXT\nTEXT: {_FREE}\n" + "\n".join(rules)


def _ends(at: int, structure: Any) -> tuple[str, str]:
    found: Sequence[Any] = ()
    if isinstance(structure, Mapping):
        found = structure.get("begin"), structure.get("end", "")
    if len(found) != 2 or not all(isinstance(text, str) for text in found) or not found[0]:
        raise InvalidArgument(f"structures[{at}] must be an object with 'begin', 'schema' and 'end'")
    return found[0], found[1]
