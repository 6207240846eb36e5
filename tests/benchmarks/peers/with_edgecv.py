"""``edgecv quantize --int8`` as a user calls it: decoding the photographs is inside the clock."""

from pathlib import Path

from job import Inputs, Job, run


def quantize(job: Job, inputs: Inputs) -> None:
    import contextlib
    import os

    from edgecv.pipeline.quantize import quantize_model
    from edgecv.pipeline.quantize_request import QuantizeRequest

    request = QuantizeRequest(
        Path(job["source"]),
        "int8",
        data=Path(job["photographs"]),
        images=job["images"],
        output=Path(job["output"]),
        bench=False,
        **job.get("settings", {}),
    )
    with contextlib.chdir(os.path.dirname(job["output"])):
        quantize_model(request)


if __name__ == "__main__":
    run("edgecv", "edgecv", quantize)
