"""Log lines: one each, harmless, and without secrets."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog

from daemon import logs, redact
from daemon.pipeline import Report
from daemon.poller import FIRST_RETRY, retry_delay
from daemon.runner import finished, log_report
from tests.harness import World, configuration, integration, resource, team
from tests.test_serve import PEOPLE

HOSTILE = [
    "\x1b[2J",
    "a\nb",
    "\r",
    "\u202eevil",
    "\u2028",
    "\x00",
    "\x9b31m",
    "[red]x[/]",
    '{"event":"forged"}',
    "x" * 300,
]


@pytest.fixture(params=["json", "console"])
def lines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    before = logging.getLogger().handlers[:]
    logs.configure(request.param, "debug")
    written.name = request.param
    yield written
    logging.getLogger().handlers[:] = before
    logging.getLogger().setLevel(logging.WARNING)
    structlog.reset_defaults()


def test_hostile_values_make_one_harmless_line_each(lines: io.StringIO, tmp_path: Path) -> None:
    """Drift with hostile values: one event a finding, one summary, and no raw control or bidi character."""
    world = World(tmp_path, configuration(integration()))
    world.run("corp", *PEOPLE)
    report = world.run("aws", *(resource(f"r{i}", f"{value}{i}") for i, value in enumerate(HOSTILE)))
    log_report(structlog.get_logger(), report, finished(report, 0.1))
    logging.getLogger("some.library").warning("said %s", HOSTILE[0] + HOSTILE[3])
    written = lines.getvalue()
    assert not [c for c in written if not c.isprintable() and c != "\n"]
    assert len(written.splitlines()) == len(HOSTILE) + 2
    if lines.name == "json":
        told = [json.loads(line) for line in written.splitlines()]
        assert [t["event"] for t in told[:-2]] == ["drift.opened"] * len(HOSTILE)
        assert {t["value"] for t in told[:-2]} == {f"{v}{i}".strip() for i, v in enumerate(HOSTILE)}
        assert (told[-2]["event"], told[-2]["drift_opened"]) == ("poll.finished", len(HOSTILE))
    world.close()


def test_a_transition_is_told_once(lines: io.StringIO, tmp_path: Path) -> None:
    world = World(tmp_path, configuration(integration()))
    reports = [
        world.run("corp", *team("platform", "pia")),
        world.run("aws", resource("r1", "nobody")),
        world.run("aws", resource("r1", "nobody")),
        world.run("aws", resource("r1", "platform")),
    ]
    for report in reports:
        log_report(structlog.get_logger(), report, finished(report, 0.1))
    written = lines.getvalue()
    assert written.count("drift.opened") == 1
    assert written.count("drift.resolved") == 1
    assert written.count("poll.finished") == len(reports)
    world.close()


def test_a_failure_says_what_to_do(lines: io.StringIO) -> None:
    error = {"code": "forbidden", "message": "no", "remedy": "allow tag:GetResources"}
    report = Report("aws", "failed", errors={"us": error})
    log_report(structlog.get_logger(), report, finished(report, 0.1))
    assert "allow tag:GetResources" in lines.getvalue()
    assert "scope_failed" in lines.getvalue()


def test_no_line_has_a_secret(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in an event, a value of any shape, a traceback with its variables, nor in what an SDK's own logger says."""
    monkeypatch.setattr(redact, "_secrets", {})
    monkeypatch.setattr(redact, "_redactor", redact.Redactor(()))
    secret = "s3cr3t/of=ours"
    redact.learn([secret])
    log = structlog.get_logger()
    event = f"said {secret}"
    log.warning(event, url=f"https://x.example/?token={quote(secret)}", many=[{"in": (secret, 1)}])
    log.warning("with.key", api_key="whatever", key="owner", path=Path(secret))
    sdk = logging.getLogger("some.sdk")
    sdk.error("headers %s", {"Authorization": "SSWS 00unknown", "Accept": "json"})
    try:
        int(secret)
    except ValueError:
        log.exception("failed")
        sdk.exception("failed too")
    written = lines.getvalue()
    for form in (secret, quote(secret), "00unknown", "whatever"):
        assert form not in written
    assert written.count(redact.REDACTED) >= 8
    assert written.count("Traceback") == 2
    assert "invalid literal" in written
    assert "owner" in written


@pytest.mark.parametrize(
    ("failures", "interval", "asked", "seconds"),
    [
        (1, 300, None, FIRST_RETRY),
        (2, 300, None, 2 * FIRST_RETRY),
        (3, 300, None, 4 * FIRST_RETRY),
        (6, 300, None, 300),
        (10_000, 300, None, 300),
        (1, 5, None, 5),
        (1, 300, 90.0, 90),
        (1, 300, 4000.0, 4000),
        (9, 300, 1.0, 300),
    ],
)
def test_back_off_doubles_up_to_the_interval(
    failures: int, interval: float, asked: float | None, seconds: float
) -> None:
    """And is no shorter than the server asks."""
    assert retry_delay(failures, interval, asked) == seconds


def test_a_wrong_password_is_not_tried_again_early() -> None:
    """Directories lock accounts after a few; and an early retry heals nothing that lasts."""
    assert retry_delay(1, 300, None, {"unauthenticated", "forbidden"}) == 300
    assert retry_delay(1, 300, None, {"unauthenticated", "unreachable"}) == FIRST_RETRY
