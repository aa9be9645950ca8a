"""Environment variables that would have a library talk to somebody it did not verify, or tell what it said."""

from __future__ import annotations

from collections.abc import MutableMapping

_TRUST = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTPLIB2_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE")
"""Which authorities to trust. Empty, some libraries take it for "none, and do not verify"."""
_NEVER = (
    "PYTHONHTTPSVERIFY",  # PEP 493; Python 3 does not know it, patched ones may
    "SSLKEYLOGFILE",  # Python's ssl writes the keys of each connection there: whoever has both can read it
)


def verify_always(environ: MutableMapping[str, str]) -> None:
    """Take out what turns verification off, or gives keys away. What names other authorities stays: that is its use."""
    for name in _TRUST:
        if not environ.get(name, "-").strip():
            del environ[name]
    for name in _NEVER:
        environ.pop(name, None)
