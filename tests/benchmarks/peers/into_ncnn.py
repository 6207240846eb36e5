"""ncnn's format by way of pnnx; its package has no int8 tools."""

import os
import shutil
import subprocess
from pathlib import Path

from job import Inputs, Job, run


def convert(job: Job, inputs: Inputs) -> None:
    import pnnx  # type: ignore[import-not-found,unused-ignore]

    shape = ",".join(map(str, next(inputs()).shape))
    model = Path(job["model"])
    os.chmod(pnnx.EXEC_PATH, 0o755)
    subprocess.run([pnnx.EXEC_PATH, str(model), f"inputshape=[{shape}]", "fp16=0"], check=True, cwd=model.parent)
    stem = model.with_suffix("")
    for kind in ("param", "bin"):
        shutil.copy(f"{stem}.ncnn.{kind}", f"{job['output']}.{kind}")
    Path(job["output"]).touch()


if __name__ == "__main__":
    run("ncnn", "ncnn", convert)
