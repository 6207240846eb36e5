"""A whole benchmark as one process on a device: ``python -m edgecv.benchmark.job JOB`` writes ``report.json``."""

import json
import sys
from pathlib import Path
from typing import Any

REPORT = "report.json"


def main(argv: list[str]) -> int:
    """Run the job given as JSON and write its report, or the error it ended with, into the working directory."""
    Path(REPORT).write_text(json.dumps(run_job(json.loads(argv[0])), ensure_ascii=True))
    return 0


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Return the report of a benchmark as data, or ``{"error": class, "message": …}``.

    Args:
        job: ``models``, ``providers``, ``batches``, ``threads`` (lists), ``preset``, ``profile``, ``seed``.
    """
    from edgecv.benchmark.latency import Extras, run_benchmark
    from edgecv.benchmark.plan import find_preset, plan_candidates
    from edgecv.errors import EdgecvError

    try:
        candidates = plan_candidates([Path(m) for m in job["models"]], job["providers"], job["batches"], job["threads"])
        extras = Extras(profile=job["profile"])
        return run_benchmark(candidates, find_preset(job["preset"]), seed=job["seed"], extras=extras).to_dict()
    except EdgecvError as e:
        return {"error": type(e).__name__, "message": str(e)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
