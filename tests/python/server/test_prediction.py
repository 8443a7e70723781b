"""When those who are turned away are told to come again: by arithmetic."""

from __future__ import annotations

from pagedcore.server.prediction import Prediction


def stats(**changed: float) -> dict[str, float]:
    """8 run, a step takes 0.5 s, an answer has 40 tokens: one ends every 40 * 0.5 / 8 = 2.5 s."""
    values = {"steps": 100.0, "step_seconds_total": 50.0, "tokens_sampled": 400.0, "requests_finished": 9.0}
    return {**values, "requests_aborted": 1.0, "requests_running": 8.0, **changed}


def test_each_is_sent_to_an_end_of_its_own() -> None:
    found = Prediction()
    assert [found.retry_after(stats(), now=10.0) for _ in range(5)] == [3, 5, 8, 10, 13]  # 2.5, 5, 7.5, ... rounded up
    # At 16 s those who were told 13, 15 have come; three are still ahead.
    assert found.retry_after(stats(), now=16.0) == 10
    # When all have come, it is as in the beginning.
    assert found.retry_after(stats(), now=100.0) == 3


def test_the_step_is_that_of_the_last_minute() -> None:
    found = Prediction()
    assert found.retry_after(stats(), now=0.0) == 3
    later = stats(steps=200.0, step_seconds_total=250.0)  # 100 steps of 2 s
    assert found.retry_after(later, now=50.0) == 10
    much_later = stats(steps=300.0, step_seconds_total=260.0)  # then 100 of 0.1 s
    assert found.retry_after(much_later, now=115.0) == 1


def test_bounds_and_what_is_not_known_yet() -> None:
    assert Prediction().retry_after(stats(requests_finished=0.0, requests_aborted=0.0)) == 1
    assert Prediction().retry_after(stats(steps=0.0, step_seconds_total=0.0)) == 1
    assert Prediction().retry_after(stats(requests_running=0.0)) == 1
    assert Prediction().retry_after(stats(step_seconds_total=1e6)) == 60
    assert Prediction().retry_after(stats(step_seconds_total=1e-6)) == 1
    found = Prediction()
    assert [found.retry_after(stats(), now=0.0) for _ in range(10_000)][-1] == 60
