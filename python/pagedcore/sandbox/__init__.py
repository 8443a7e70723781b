"""Templates as programs of strangers: Jinja within bounds of time, memory and steps, in the caller's thread.

Jinja's sandbox keeps a template from what is not its own; it does not keep it from running for ever, nor from making a
text of all memory. Here everything that takes more than constant time passes a ``Budget``:

- the compiler's code (``compiler``) counts each turn of a loop and each call of a macro, and hands operators,
  comparisons, literals and slices to the environment;
- the environment (``environment``, with ``operations`` and ``filters``) works out how large a result will be before it
  is made, where it can be much larger than what it is made of;
- a list or text larger than a multiple of the template's input is refused, so that no single operation on one takes
  long, and between two operations the budget looks at the clock.

Nothing outside the thread is used: no process, no signal, no timer.
"""

from __future__ import annotations

from .budget import Budget, Given, TemplateLimit
from .environment import BoundedTemplate, TemplateRefusal

__all__ = ["BoundedTemplate", "Budget", "Given", "TemplateLimit", "TemplateRefusal"]
