"""What nodes say of their workers, for people who wait."""

import pytest

from gateway.core.reports import WorkerReport
from gateway.core.snapshot import WorkerPhase


@pytest.mark.parametrize(
    ("detail", "news"),
    [
        ("", "starting 40 %"),
        ("loads\n the\tmodel", "starting 40 %, loads the model"),
        ("x" * 500, "starting 40 %, " + "x" * 120),
    ],
)
def test_the_news_is_one_short_line(detail: str, news: str) -> None:
    assert WorkerReport("w", None, None, None, WorkerPhase.STARTING, 40, detail).news == news
