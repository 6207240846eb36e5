"""Whether this process tries model files in a child process before it opens them.

A module of its own without imports: the command line says so before anything is loaded.
"""

_tries_first = False


def try_models_first() -> None:
    """From now on try every model file read in this process in a child process first, unless its policy trusts it."""
    global _tries_first
    _tries_first = True


def tries_models_first() -> bool:
    """Return whether :func:`try_models_first` was called."""
    return _tries_first
