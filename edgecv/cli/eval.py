"""``edgecv eval``."""


def evaluate() -> None:
    """."""
