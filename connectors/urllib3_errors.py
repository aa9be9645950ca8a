"""What urllib3 raises, as our errors: for connectors whose SDK speaks through it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from connectors.answers import one_line
from connectors.errors import ServerFault, Unreachable


def until(ends: float, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of an answer, until `time.monotonic()` is `ends`.

    The limit that urllib3 keeps is for each piece: an answer that drips would never end.
    """
    from urllib3.exceptions import TimeoutError as TooLate

    for piece in pieces:
        if time.monotonic() > ends:
            raise TooLate
        yield piece


@contextmanager
def failures(place: str, limit: float) -> Iterator[None]:
    """Turn what urllib3 raises into our errors; `place` is said first in each. `limit` is the request's, in seconds."""
    from urllib3 import exceptions

    try:
        yield
    except exceptions.ProxyError as error:
        raise Unreachable(f"{place}: the proxy refuses: {one_line(str(error))}", remedy="check `proxy`") from error
    except exceptions.NewConnectionError as error:
        raise Unreachable(
            f"{place}: cannot connect: {one_line(str(error).rpartition(': ')[2])}",
            remedy="check `endpoint`, the network, and `proxy`",
        ) from error
    except exceptions.TimeoutError as error:
        raise Unreachable(f"{place}: no answer in {limit:g} s") from error
    except exceptions.SSLError as error:
        raise Unreachable(
            f"{place}: TLS failed: {one_line(str(error))}",
            remedy="if a private authority signs for this host, name its PEM bundle in `ca_file`",
        ) from error
    except exceptions.ProtocolError as error:
        if isinstance(error.args[-1], OSError):
            raise Unreachable(f"{place}: the connection broke ({type(error.args[-1]).__name__})") from error
        raise ServerFault(f"{place}: the answer is cut short, or is not HTTP") from error
    except exceptions.DecodeError as error:
        raise ServerFault(f"{place}: the answer is cut short, or wrongly compressed") from error
    except exceptions.HTTPError as error:
        raise Unreachable(f"{place}: the request failed ({type(error).__name__})") from error
