"""Grammars of one model: compiled once each, in threads of their own, under limits."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLong
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import InvalidArgument
from ..structured_outputs import StructuredOutputs
from .bounds import bounded
from .lark import choice_grammar, tag_grammar

if TYPE_CHECKING:
    from .. import _core
    from ..tokenizer import Tokenizer
    from .library import Matchers

__all__ = ["Grammars"]

SECONDS = 30.0
"""For which a request waits until its grammar is compiled."""
_THREADS = 2  # that compile at a time
_KEPT = 64  # grammars that are used again
_LIMITS = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 16_384,
    "max_grammar_size": 500_000,
}
_BYTES = 8 << 20
"""Of host memory that one sample's place in a grammar may come to hold: 16,384 states of at most half a KiB."""

_NO_DETAILS = "\n<non-verbose/>"  # llguidance's, behind some messages
_Source = tuple[str, str, bool, bool]
_KINDS = {"json": "json_schema", "regex": "regex", "grammar": "lark", "choice": "lark", "structural_tag": "lark"}


class Grammars:
    """Thread-safe."""

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int, end_tokens: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_tokens = tuple(end_tokens)
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(_THREADS)
        self._compiled: OrderedDict[_Source, Future[_core.Constraint]] = OrderedDict()

    def constraint(self, wanted: StructuredOutputs) -> _core.Constraint:
        """Waits until it is compiled, :data:`SECONDS` at most. Raises InvalidArgument with what is wrong with it."""
        try:
            return self._future(wanted).result(SECONDS)
        except TooLong:
            raise self._too_long(wanted) from None

    async def ready(self, wanted: StructuredOutputs) -> None:
        """As :meth:`constraint`, which then need not wait."""
        future = asyncio.wrap_future(self._future(wanted))
        done, _ = await asyncio.wait((future,), timeout=SECONDS)
        if not done:
            raise self._too_long(wanted)
        future.result()

    @staticmethod
    def _too_long(wanted: StructuredOutputs) -> InvalidArgument:
        kind, text, *_ = wanted.source
        return InvalidArgument(
            f"structured_outputs: compiling this {kind} of {len(text)} characters takes longer than {SECONDS:g} "
            "seconds: simplify it"
        )

    def _future(self, wanted: StructuredOutputs) -> Future[_core.Constraint]:
        source = wanted.source
        with self._lock:
            found = self._compiled.get(source)
            if found is not None:
                self._compiled.move_to_end(source)
                return found
            future: Future[_core.Constraint] = Future()
            self._compiled[source] = future
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        thread = threading.Thread(target=self._compile, args=(source, future), name="pagedcore-grammar", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._forget(source)
            raise InvalidArgument(f"structured_outputs: no thread could be started to compile it: {error}") from None
        return future

    def _forget(self, source: _Source) -> None:
        with self._lock:
            self._compiled.pop(source, None)

    def _compile(self, source: _Source, future: Future[_core.Constraint]) -> None:
        with suppress(OSError, AttributeError):  # those that are served come first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
        try:
            with self._room:
                future.set_result(self._compiled_now(*source))
        except InvalidArgument as error:
            why = str(error).removesuffix(_NO_DETAILS)[:1000]
            if why == "NoExtensionBias":
                why = "it admits no text: every way through it goes on for ever"
            future.set_exception(InvalidArgument(f"structured_outputs: {source[0]}: {why}"))
        except BaseException as error:
            self._forget(source)
            future.set_exception(error)

    def _compiled_now(self, kind: str, text: str, is_bounded: bool, fixed_spelling: bool) -> _core.Constraint:
        if kind == "grammar":
            text = _lark_of(text)
        elif kind == "choice":
            text = choice_grammar(text)
        elif kind == "structural_tag":
            text = tag_grammar(text, self._tokenizer)

        def compiled(text: str) -> _core.Constraint:
            return self._matchers.constraint(_KINDS[kind], text, _LIMITS, _BYTES, fixed_spelling)

        if not is_bounded:
            return compiled(text)
        try:
            narrowed = json.dumps(bounded(json.loads(text)), ensure_ascii=False)
        except (TypeError, ValueError, AttributeError, RecursionError):  # the compiler says what is wrong
            return compiled(text)
        if '"oneOf"' in text:
            compiled(text)  # parts that bounds alone keep apart are refused: a text could be of several
        with suppress(InvalidArgument):
            return compiled(narrowed)
        return compiled(text)

    @cached_property
    def _matchers(self) -> Matchers:
        from .library import Matchers

        tokenizer = self._tokenizer
        if tokenizer is None:
            raise InvalidArgument("the model has no tokenizer: pass tokenizer= to the constructor")
        if not self._end_tokens:
            raise InvalidArgument("the model has no token that ends a text, with which an output could end")
        ids = range(self._vocab_size)
        tokens = [tokenizer.token_bytes(token) for token in ids]
        special = [tokenizer.is_special(token) or token in self._end_tokens for token in ids]
        names = [
            (tokenizer.id_to_token(i) or "").encode() if is_special else tokens[i]
            for i, is_special in zip(ids, special, strict=True)
        ]
        return Matchers(names, special, self._end_tokens)


def _lark_of(text: str) -> str:
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        return any_to_lark(text)
    except Exception as error:  # of every kind, by its author's word
        raise InvalidArgument(f"neither Lark nor GBNF: {error}") from None
