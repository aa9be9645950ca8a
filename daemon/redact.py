"""Takes secrets out of text: those that this process has read, in whatever encoding, and what looks like one.

What a vendor's server says may quote a request; an SDK's warning may quote a header. Whatever leaves this process as
text goes through here: log lines, errors, what a child tells its parent, what it writes to standard error.
"""

from __future__ import annotations

import atexit
import base64
import html
import io
import json
import re
import string
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

from daemon.text import printable

REDACTED = "[redacted]"

_LONG = 8
"""Characters from which a secret is taken out wherever it occurs; a shorter one only where it stands as a word."""
_MOST_HELD = 1 << 16

_NAMES = r"(?:secret|token|passw(?:or)?d|api[_-]?key|access[_-]?key|private[_-]?key|assertion)"
_ANY = re.IGNORECASE
# Each begins with a fixed word, and what it looks through is bounded: the text may be made to be slow.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, flags), into)
    for pattern, flags, into in (
        (
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
            re.DOTALL,
            REDACTED,
        ),
        (r"""(authorization|cookie)(["'\\]{0,4}\s*[:=]\s*["'\\]{0,4})[^\r\n"'\\}]+""", _ANY, rf"\1\2{REDACTED}"),
        (r"""(\bx-[\w-]{0,40}(?:key|token|secret)|\bapi-?key)(\s*:\s*)[^\s"',]+""", _ANY, rf"\1\2{REDACTED}"),
        # A scheme alone is an English word: "basic authentication failed".
        (r"\b(bearer|basic|ssws|geniekey)(\s+)(?=\S*[0-9_=]|\S{24})[\w.~+/=-]{8,}", _ANY, rf"\1\2{REDACTED}"),
        # As forms and queries have it, and as JSON has it; `token: not set` is prose.
        (rf"""({_NAMES}=)[^\s&"',;]+""", _ANY, rf"\1{REDACTED}"),
        (
            rf"""((["'])[\w-]{{0,40}}{_NAMES}\\?\2\s*:\s*\\?(["']))(?:(?!\\?\3).)+""",
            _ANY,
            rf"\1{REDACTED}",
        ),
        (r"<(SecretAccessKey|SessionToken|\w{0,40}Password|\w{0,40}Secret)>[^<]+", _ANY, rf"<\1>{REDACTED}"),
        (r"(://[^/\s:@]*:)[^/\s@]+@", 0, rf"\1{REDACTED}@"),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", 0, REDACTED),
        (r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)*", 0, REDACTED),
    )
)
_SECRET_KEY = re.compile(rf"(?:{_NAMES}|authorization|cookie)$", _ANY)
_BASE64 = frozenset(string.ascii_letters + string.digits + "+/-_=")


class Redactor:
    """Takes these secrets, and what looks like one, out of text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        parts = {part for whole in secrets for part in _parts(whole)}
        long = [part for part in parts if len(part) >= _LONG]
        self._forms = sorted({form for part in long for form in _forms(part)}, key=len, reverse=True)
        self._cores = sorted({core for part in long for core in _base64_cores(part)})
        words = sorted({form for part in parts if len(part) < _LONG for form in _forms(part)}, key=len, reverse=True)
        self._words = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words)) if words else None

    def text(self, text: str) -> str:
        """The text without them."""
        for form in self._forms:
            text = text.replace(form, REDACTED)
        for form in self._forms:  # after all whole ones, of which it may be the beginning
            text = _without(text, form)
        for core in self._cores:
            text = _without(text, core, _BASE64)
        if self._words is not None:
            text = self._words.sub(REDACTED, text)
        for pattern, into in _PATTERNS:
            text = pattern.sub(into, text)
        return text

    def value(self, value: Any, key: str = "") -> Any:
        """The same for all strings in a value as JSON has it; another object, if it tells one, becomes its text."""
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return REDACTED if value and _SECRET_KEY.search(key) else self.text(value)
            case dict():
                return {self.value(k): self.value(v, k if isinstance(k, str) else "") for k, v in value.items()}
            case list() | tuple():
                return [self.value(item, key) for item in value]
            case bytes():
                return self.value(value.decode(errors="backslashreplace"), key)
            case _:
                told = str(value)
                safe = self.text(told)
                return value if safe == told else safe


def _parts(secret: str) -> Iterator[str]:
    """The secret, and what of it may be quoted alone: a line of a PEM file, a member of a JSON document."""
    yield secret
    lines = [line.strip() for line in secret.splitlines()]
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= _LONG and not line.startswith("-----"))
    if secret.lstrip().startswith("{"):
        try:
            document = json.loads(secret)
        except ValueError:
            return
        yield from (v for v in document.values() if isinstance(v, str) and len(v) >= 2 * _LONG)


def _forms(secret: str) -> Iterator[str]:
    """The secret as URLs, JSON, Python, HTML and dumps write it."""
    yield secret
    yield from (json.dumps(secret, ensure_ascii=ascii_)[1:-1] for ascii_ in (True, False))
    yield json.dumps(secret)[1:-1].replace("/", "\\/")
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    yield html.escape(secret).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    for quoted in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)
    if len(secret) >= _LONG:
        yield secret.encode().hex()
        yield secret.encode().hex().upper()


def _base64_cores(secret: str) -> Iterator[str]:
    """What every base64 text has in it that holds the secret, at whatever place in its groups of three bytes."""
    data = secret.encode()
    for before in range(3):
        # The first and the last characters mix bits of the secret with its neighbours'.
        last = (before + len(data)) // 3 * 4
        coded = base64.b64encode(bytes(before) + data).decode()[0 if before == 0 else 4 : last]
        if len(coded) >= _LONG:
            yield coded
            yield coded.replace("+", "-").replace("/", "_")


def _without(text: str, form: str, around: frozenset[str] = frozenset()) -> str:
    """Text without `form`, and without its beginning, since messages are cut; with all of `around` that touches it.

    Of base64 the whole run goes: what is beside the secret, such as a user's name, tells where it begins.
    """
    head = form[: max(_LONG, min(2 * _LONG, len(form) // 2))]
    kept, done = [], 0
    while (at := text.find(head, done)) >= 0:
        end = at + len(head)
        while end < len(text) and end - at < len(form) and text[end] == form[end - at]:
            end += 1
        while at > done and text[at - 1] in around:
            at -= 1
        while end < len(text) and text[end] in around:
            end += 1
        kept += [text[done:at], REDACTED]
        done = end
    return "".join((*kept, text[done:])) if kept else text


_secrets: dict[str, None] = {}
_redactor = Redactor(())


def learn(secrets: Iterable[str]) -> None:
    """Know these from now on, in this process."""
    global _redactor  # noqa: PLW0603  # replaced whole, so that threads see the old one or the new
    _secrets.update(dict.fromkeys(secrets))
    _redactor = Redactor(_secrets)


def redact(text: str) -> str:
    """Text without secrets."""
    return _redactor.text(text)


def redacted(value: Any) -> Any:
    """A value as JSON has it, without secrets in its strings, and none under keys such as `client_secret`."""
    return _redactor.value(value)


class Guarded(io.TextIOBase):
    """A stream for whoever writes past the log: whole lines, printable, without secrets."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held = ""
        self._lock = threading.Lock()
        atexit.register(self._let_go)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute there
        """The stream's own."""
        return self._stream.encoding

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The stream's own, for programs that are started with it."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write what has become whole lines. The rest is held back, since a secret may be cut in two."""
        with self._lock:
            self._held += text
            if len(self._held) > _MOST_HELD:
                whole, self._held = self._held, ""
                self._put(whole)
            elif "\n" in text and not self._in_key():
                whole, _, self._held = self._held.rpartition("\n")
                self._put(whole)
        return len(text)

    def _in_key(self) -> bool:
        return self._held.count("-----BEGIN ") > self._held.count("-----END ")

    def _put(self, text: str) -> None:
        safe = redact(text).splitlines(keepends=True)
        self._stream.write("".join(printable(line.rstrip("\r\n")) + "\n" for line in safe))
        self._stream.flush()

    def _let_go(self) -> None:
        with self._lock:
            if self._held:
                self._put(self._held)
            self._held = ""
