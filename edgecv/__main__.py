"""``python -m edgecv``."""

from edgecv.cli.main import run

run()
