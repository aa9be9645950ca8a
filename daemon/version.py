"""Which ownerd this is."""

from importlib import metadata


def version() -> str:
    """The installed version; that it is not, where it runs from a checkout."""
    try:
        return metadata.version("ownerd")
    except metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"
