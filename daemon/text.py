"""Hostile text: tag values, names and ids never reach a terminal, a log line or a CSV cell raw.

They are written by whoever may write a tag. What is escaped: control characters (Cc: C0, DEL, C1), format characters
(Cf: bidi controls and marks, zero-width characters, the byte-order mark, tags), line and paragraph separators (Zl, Zp),
private use, unassigned and lone surrogates.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

_JSON_UNSAFE = re.compile(
    "[\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
"""Of what `json_bytes` must escape, all that JSON itself leaves raw."""


def _escape_json(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def json_text(value: Any) -> str:
    """Compact JSON in which unsafe characters are escaped: `curl` in a terminal shows it harmless."""
    text = orjson.dumps(value).decode()
    return text if text.isascii() and "\x7f" not in text else _JSON_UNSAFE.sub(_escape_json, text)


def json_bytes(value: Any) -> bytes:
    """`json_text`, as UTF-8."""
    return json_text(value).encode()


def printable(text: str) -> str:
    r"""Text for a terminal or a log line: what is unsafe becomes `\xNN`, `\uNNNN` or `\UNNNNNNNN`, on one line."""
    if text.isprintable() or not text:
        return text
    # str.isprintable is false for exactly the categories above and for spaces other than U+0020.
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def csv_cell(text: str) -> str:
    """`printable`, and no formula: a spreadsheet runs what starts with `=`, `+`, `-`, `@`.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    safe = printable(text)
    return f"'{safe}" if safe[:1] in {"=", "+", "-", "@"} else safe
