"""What a call came to: its tokens, for its answer, and its times, for the log and the metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..outputs import RequestOutput

__all__ = ["Tally"]


@dataclass
class Tally:
    """Of one call. Times are seconds of the monotonic clock."""

    begun: float = field(default_factory=time.monotonic)
    scheduled: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    model: str | None = None
    _prompts: set[int] = field(default_factory=set)

    def take(self, prompt: int, output: RequestOutput) -> None:
        """News of a prompt, or all of it."""
        if prompt not in self._prompts:
            self._prompts.add(prompt)
            self.prompt_tokens += len(output.prompt_token_ids)
            self.cached_tokens += min(output.num_cached_tokens, len(output.prompt_token_ids))
        for sample in output.outputs:
            self.completion_tokens += len(sample.token_ids)
            if sample.finish_reason is not None:
                self.finish_reasons.append(sample.finish_reason)
        times = output.metrics
        if times is not None:
            self.scheduled = self.scheduled or times.scheduled_time
            self.first_token = self.first_token or times.first_token_time
            self.last_token = times.last_token_time or self.last_token

    def seconds_to(self, moment: float | None) -> float | None:
        return None if moment is None else max(moment - self.begun, 0.0)

    @property
    def between_tokens(self) -> float | None:
        """Seconds, where one sample was generated: of several the tokens come together."""
        if self.first_token is None or self.last_token is None or len(self.finish_reasons) != 1:
            return None
        gaps = self.completion_tokens - 1
        return (self.last_token - self.first_token) / gaps if gaps > 0 else None
