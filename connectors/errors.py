"""How a connector fails. Every failure names what happened and, where one is known, the remedy.

    ConnectorError
    ├── Transient            worth trying again soon
    │   ├── Unreachable      refused, no route, unknown host, TLS, time-out
    │   ├── Throttled        429 and its kin; `retry_after` in seconds where the server said
    │   └── ServerFault      5xx, an empty or cut answer
    ├── Denied               worth no retry: who we are, or what we may do
    │   ├── Unauthenticated  401, expired or revoked credentials, a failed bind
    │   └── Forbidden        403; `permission` names what is missing
    ├── Incomplete           the system stopped before the end: a size limit, a page token that repeats
    ├── StaleBookmark        `changes` cannot go on from there; the scope is read whole instead
    ├── BadData              an answer that cannot be understood, an id listed twice with different content
    └── Misconfigured        an option is wrong: no such file, no such region
        └── MissingExtra     the connector's SDK is not installed

An error is never an empty answer: a connector that cannot finish a scope raises one of these.
"""

from __future__ import annotations


class ConnectorError(Exception):
    """The base of all. `remedy` is a sentence that tells an operator what to do, or ""."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @property
    def code(self) -> str:
        """The stable, lower-case name of this error, for logs, status and metrics: `server_fault`."""
        name = type(self).__name__
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


class Transient(ConnectorError):
    """Worth trying again soon."""


class Unreachable(Transient):
    """No answer: refused, no route, unknown host, TLS, time-out."""


class Throttled(Transient):
    """Too many requests. `retry_after` is in seconds, or None where the server did not say."""

    def __init__(self, message: str, *, retry_after: float | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class ServerFault(Transient):
    """The server failed: 5xx, or an answer that is empty or cut short."""


class Denied(ConnectorError):
    """Refused for who we are or what we may do; no retry helps."""


class Unauthenticated(Denied):
    """The credentials are wrong, expired or revoked."""


class Forbidden(Denied):
    """The credentials are good and not enough. `permission` is the provider's own name of what is missing, or ""."""

    def __init__(self, message: str, *, permission: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.permission = permission


class Incomplete(ConnectorError):
    """The system ended the list before its end, or never ends it."""


class StaleBookmark(ConnectorError):
    """The system no longer knows the point that `changes` was to go on from."""


class BadData(ConnectorError):
    """An answer that cannot be understood."""


class Misconfigured(ConnectorError):
    """An option does not fit the system."""


class MissingExtra(Misconfigured):
    """The connector's SDK is not installed."""

    def __init__(self, kind: str, module: str) -> None:
        super().__init__(
            f'the connector "{kind}" needs the Python module "{module}", which is not installed',
            remedy=f"pip install 'ownerd[{kind}]'",
        )
