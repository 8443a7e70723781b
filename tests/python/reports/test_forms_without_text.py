"""Forms of structured output that no text can have: one error that says so, before anything runs.

``choice=[]`` ended at once with an empty text; what refers to itself for ever was told as "NoExtensionBias".
"""

from __future__ import annotations

from typing import Any

import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams


@pytest.mark.parametrize("none", [[], ""])
def test_a_choice_among_nothing(none: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"choice=.* must"):
        SamplingParams(structured_outputs={"choice": none})


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ({"grammar": 'root ::= root "a"'}, "grammar"),
        ({"grammar": 'start: start "a"'}, "grammar"),
        ({"json": {"$ref": "#"}}, "json"),
        ({"json": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}}, "json"),
    ],
)
def test_a_form_that_goes_on_for_ever(llm_bf16: LLM, form: dict[str, Any], kind: str) -> None:
    with pytest.raises(InvalidArgument, match=f"structured_outputs: {kind}: it admits no text"):
        llm_bf16.generate("x", SamplingParams(max_tokens=2, structured_outputs=form))
