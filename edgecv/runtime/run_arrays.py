"""Runs a model over arrays in a folder: the far end of an emulated device, needing no more than a runtime has.

The folder holds ``job.json`` (``{"model", "input", "output", "batches"}``) and ``in-0.npy``, ``in-1.npy``, …; the
answers become ``out-0.npy``, … and, at the end, ``answer.json``. A line on stdout tells of each batch done.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from edgecv.errors import EdgecvError
from edgecv.runtime.session import open_session

DONE = "edgecv-batch "
"""Begins the line that tells of a batch; libraries print what they like besides."""


def run_folder(folder: Path) -> None:
    """Do the job in ``folder``; an error that is no bug goes into ``answer.json``.

    Ends early when whoever started it is gone: nobody reads the rest.
    """
    parent = os.getppid()
    job = json.loads((folder / "job.json").read_text())
    answer: dict[str, str] = {"error": ""}
    try:
        session = open_session(Path(job["model"]), provider="cpu", threads=1).session
        for number in range(job["batches"]):
            if os.getppid() != parent:
                return
            output = session.run([job["output"]], {job["input"]: np.load(folder / f"in-{number}.npy")})[0]
            np.save(folder / f"out-{number}.npy", output)
            print(f"{DONE}{number + 1}", flush=True)  # noqa: T201  (the parent's progress)
    except EdgecvError as e:
        answer["error"] = str(e)
    (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    run_folder(Path(sys.argv[1]))
