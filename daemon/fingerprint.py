"""Whether a source holds exactly what it held when it was merged last, told by one short text.

Of each scope it takes the rows in whatever order they come, each as often as it comes: the product of (r + h) over the
hashes h of the rows, modulo a prime, at a random r. If the rows of two runs differ, the products are equal for at most
as many r as there are rows, since a polynomial has no more roots than its degree: for a billion rows, one r in 2^225.
r is a secret of the database, so that who writes tags cannot look for rows that meet it; who can read the database can.

The hashes themselves have 128 bits, and no secret; by them rows are compared one by one too. Two contents with one hash
take 2^64 trials, and are both of one author: he can keep ownerd at the first when he writes the second, and could have
left the first in place. A hash of somebody else's row takes 2^128.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import orjson

_PRIME = 2**255 - 19
_FORM = 1
"""Of the fingerprint, and of all that makes rows and their hashes (`daemon.spool_rows`, `resource_key`): another one
fits none that was kept."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a run is compared with. `secret`: r, in hexadecimal digits; `fingerprint`: "" where none is known."""

    secret: str
    fingerprint: str = ""


class RowProduct:
    """The product for one scope."""

    def __init__(self, secret: str) -> None:
        self._secret = int(secret, 16) % _PRIME
        self._product = 1
        self._rows = 0

    def take(self, digests: list[bytes]) -> None:
        """Some more rows, by the hashes of their content."""
        product, secret = self._product, self._secret
        for digest in digests:
            product = product * (secret + int.from_bytes(digest, "big")) % _PRIME
        self._product = product
        self._rows += len(digests)

    def told(self) -> tuple[int, str]:
        """How many rows, and the product."""
        return self._rows, f"{self._product:x}"


def fingerprint(scopes: dict[str, tuple[int, str]]) -> str:
    """One text for what all scopes of a source hold, by their names."""
    return blake2b(orjson.dumps([_FORM, sorted(scopes.items())]), digest_size=32).hexdigest()
