"""Secrets in text: known ones in every encoding, those that look like one, and what must stay readable."""

from __future__ import annotations

import base64
import html
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import ServerFault
from connectors.values import Gap
from daemon import redact
from daemon.child import _tell
from daemon.redact import REDACTED, Guarded, Redactor
from daemon.spool import SpoolWriter
from tests.processes import environment

SECRET = "s3cr3t/+=&'\"<ü>\\z"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        html.escape(SECRET),
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"user:{SECRET}".encode()).decode(),
        base64.b64encode(f"a:{SECRET}:b".encode()).decode(),
        base64.urlsafe_b64encode(f"ab{SECRET}".encode()).decode(),
    ],
)
def test_a_known_secret_goes_in_every_encoding(text: str) -> None:
    """And nothing else of the sentence does."""
    assert (
        Redactor([SECRET]).text(f"before {text} after").replace('"', "").replace("'", "") == f"before {REDACTED} after"
    )


@given(before=st.binary(max_size=9), after=st.binary(max_size=9), secret=st.text("abcXYZ019-_/+", min_size=12))
def test_base64_of_anything_around_a_secret(before: bytes, after: bytes, secret: str) -> None:
    """Wherever the secret lies in what is encoded, nothing of the run survives."""
    text = base64.b64encode(before + secret.encode() + after).decode()
    left = Redactor([secret]).text(f"({text})")
    assert left == f"({REDACTED})"


@given(cut=st.integers(8, len("0123456789abcdefghijklmnopqrst")))
def test_a_secret_that_a_message_cuts_off(cut: int) -> None:
    """Messages are cut to a length: half a secret, or 16 characters of it, are taken out as well."""
    secret = "0123456789abcdefghijklmnopqrst"
    left = Redactor([secret]).text(f"you said {secret[:cut]}")
    assert left == (f"you said {REDACTED}" if cut >= 15 else f"you said {secret[:cut]}")


def test_short_secrets_go_as_words() -> None:
    """Else a password of three letters would make every line unreadable, and be told by that."""
    assert Redactor(["corp"]).text("corp: the password corp of corporate") == (
        f"{REDACTED}: the password {REDACTED} of corporate"
    )


def test_each_line_of_a_key_and_each_member_of_a_jwk() -> None:
    """What is quoted alone is known alone."""
    redactor = Redactor(
        ["-----BEGIN X-----\nMIIEabcdefgh\nijklmnopqrst\n-----END X-----\n", '{"d": "privateprivatepart"}']
    )
    assert redactor.text("bad line: ijklmnopqrst; d is privateprivatepart") == f"bad line: {REDACTED}; d is {REDACTED}"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: SSWS 00abcDEF", f"Authorization: {REDACTED}"),
        ("{'authorization': 'Bearer abc.def-1'}", f"{{'authorization': '{REDACTED}'}}"),
        ('{\\"Proxy-Authorization\\": \\"Basic dTpw\\"}', f'{{\\"Proxy-Authorization\\": \\"{REDACTED}\\"}}'),
        ("sent Bearer eyJhbGciOi1x and", f"sent Bearer {REDACTED} and"),
        ("x-api-key: 12345", f"x-api-key: {REDACTED}"),
        ("POST client_secret=abc&grant=x", f"POST client_secret={REDACTED}&grant=x"),
        ('{"access_token": "abc", "a": 1}', f'{{"access_token": "{REDACTED}", "a": 1}}'),
        ('{"clientSecret":"a\'b"}', f'{{"clientSecret":"{REDACTED}"}}'),
        ("<SecretAccessKey>wJalr</SecretAccessKey>", f"<SecretAccessKey>{REDACTED}</SecretAccessKey>"),
        ("key AKIAIOSFODNN7EXAMPLE is", f"key {REDACTED} is"),
        ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl.", f"jwt {REDACTED}"),
        ("proxy http://me:pa55@proxy:3128/", f"proxy http://me:{REDACTED}@proxy:3128/"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- b", f"a {REDACTED} b"),
        ("-----BEGIN PRIVATE KEY-----\\nMIIcut", REDACTED),
    ],
)
def test_what_looks_like_a_secret_goes(text: str, kept: str) -> None:
    """Also where nobody told that it is one: tokens that an SDK took, keys of a file that it read."""
    assert Redactor(()).text(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        'token: the environment variable "OKTA_TOKEN" is not set',
        "POST /token: the client's secret was refused: 401 (Invalid client secret provided.)",
        "basic authentication failed for the bearer of this letter",
        'token: credential "okta-token": no such file',
        "password: /run/secrets/ldap has mode 0644: others may read the secret",
        "GET https://acme.okta.com/api/v1/users: 403; it needs okta.users.read",
        "arn:aws:iam::123456789012:role/reader: sts:AssumeRole",
        "k8s://prod/apis/apps/v1/namespaces/pay/deployments/api",
        "AuthorizationFailed: the client does not have authorization to perform action",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_what_people_must_read_stays(text: str) -> None:
    """Prose about secrets is none."""
    assert Redactor(["0123456789abcdef"]).text(text) == text


def test_values_of_all_shapes() -> None:
    """Strings at any depth, keys, and objects whose text tells one; what is under a secret's name goes whole."""
    redactor = Redactor(["s3cr3t-value"])
    told = {
        "a": ["x s3cr3t-value", 1, None, True, ("s3cr3t-value",)],
        "s3cr3t-value": 2,
        "e": ValueError("s3cr3t-value"),
    }
    assert redactor.value(told) == {"a": [f"x {REDACTED}", 1, None, True, [REDACTED]], REDACTED: 2, "e": REDACTED}
    named = {"client_secret": "abc", "Authorization": "x", "key": "owner", "value": "team", "b": b"s3cr3t-value"}
    assert redactor.value(named) == {
        "client_secret": REDACTED, "Authorization": REDACTED, "key": "owner", "value": "team", "b": REDACTED
    }  # fmt: skip


@pytest.mark.parametrize(
    "hostile",
    ["secret" * 30_000, "x-" * 100_000, "eyJ-" * 50_000, "authorization" * 15_000, '"' * 100_000,
     "-----BEGIN PRIVATE KEY-----" * 5_000, "basic " * 30_000, "://a:" * 40_000, "<" + "a" * 200_000, "0123456789abcde" * 10_000],
)  # fmt: skip
def test_no_text_is_slow(hostile: str) -> None:
    """A vendor's answer of 200,000 characters, made to be slow, costs a second of the processor at most, not minutes."""
    redactor = Redactor(["0123456789abcdef"])
    start = time.process_time()
    redactor.text(hostile)
    assert time.process_time() - start < 5


def test_standard_error_is_guarded() -> None:
    """Whole lines, without secrets that come in pieces, and without control characters; the rest at the end."""
    stream = io.StringIO()
    redact.learn(["s3cr3t-in-pieces"])
    guarded = Guarded(stream)
    for piece in ("a s3cr3t-", "in-pieces b\n", "\x1b[2J", "\n", "-----BEGIN PRIVATE KEY-----\n", "MIIsecret\n"):
        guarded.write(piece)
    assert stream.getvalue() == f"a {REDACTED} b\n\\x1b[2J\n"
    guarded.write("-----END PRIVATE KEY-----\nlast")
    guarded._let_go()
    assert stream.getvalue() == f"a {REDACTED} b\n\\x1b[2J\n{REDACTED}\nlast\n"


def test_a_line_without_end_is_let_go() -> None:
    """What never ends its line is not held for ever."""
    stream = io.StringIO()
    Guarded(stream).write("x" * 70_000)
    assert stream.getvalue() == "x" * 70_000 + "\n"


def test_what_a_child_says_in_passing() -> None:
    """A warning, a log line, a traceback and a print of an SDK: nothing of a secret in any of them."""
    code = (
        "import sys, logging, warnings, threading\n"
        "from daemon.redact import Guarded, learn\n"
        "learn(['s3cr3t-of-ours']); sys.stderr = Guarded(sys.stderr)\n"
        "warnings.warn('w s3cr3t-of-ours'); logging.getLogger('sdk').error('l %s', 's3cr3t-of-ours')\n"
        "print('p s3cr3t-of-ours', file=sys.stderr)\n"
        "t = threading.Thread(target=lambda: int('s3cr3t-of-ours')); t.start(); t.join()\n"
        "raise ValueError('s3cr3t-of-ours')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert "s3cr3t" not in done.stderr.replace("learn(['s3cr3t-of-ours'])", "")
    assert done.stderr.count(REDACTED) >= 5
    assert done.returncode == 1


def test_errors_go_into_the_spool_and_to_the_parent_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scope's error, a run's, a gap and a line of progress."""
    redact.learn(["s3cr3t-in-an-error"])
    path = tmp_path / "spool.db"
    spool = SpoolWriter(path)
    spool.open("one").fail(ServerFault("said s3cr3t-in-an-error", remedy="not s3cr3t-in-an-error"))
    scope = spool.open("two")
    scope.add(Gap("hidden", "the server hides s3cr3t-in-an-error", "ask"))
    scope.end()
    spool.finish(["group"], ValueError("s3cr3t-in-an-error"))
    assert b"s3cr3t" not in path.read_bytes()
    assert path.read_bytes().count(REDACTED.encode()) >= 4
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    _tell({"what": "connect", "ok": False, "detail": "s3cr3t-in-an-error"})
    assert out.buffer.getvalue() == b'{"what":"connect","ok":false,"detail":"[redacted]"}\n'


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test lets the process learn is unknown to the next."""
    monkeypatch.setattr(redact, "_secrets", {})
    monkeypatch.setattr(redact, "_redactor", Redactor(()))
