"""``edgecv verify``."""


def verify() -> None:
    """."""
