"""``edgecv quantize --int8`` as a user calls it: decoding the photographs and judging the file are inside the clock.

With ``library``, the first rung alone by ``quantize_static``, on decoded arrays as the peers get them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from job import Inputs, Job, run


def quantize(job: Job, inputs: Inputs) -> None:
    if job["settings"].get("library"):
        first_rung(job)
        return
    from edgecv.pipeline.quantize import quantize_model
    from edgecv.pipeline.quantize_request import QuantizeRequest

    request = QuantizeRequest(
        Path(job["source"]),
        "int8",
        data=Path(job["photographs"]),
        images=job["images"],
        output=Path(job["output"]),
        bench=False,
        **job["settings"],
    )
    with contextlib.chdir(Path(job["output"]).parent):
        quantize_model(request)


def first_rung(job: Job) -> None:
    from edgecv.graph.model_file import load_model, require_manifest, save_model
    from edgecv.quantize.static import quantize_static

    source = Path(job["source"])
    model = load_model(source)
    manifest = require_manifest(model, source)
    images = np.load(job["images_file"], mmap_mode="r")

    def batches() -> Iterator[np.ndarray]:
        for i in range(0, len(images), 4):
            yield np.ascontiguousarray(images[i : i + 4])

    save_model(quantize_static(model, manifest, batches).model, Path(job["output"]), manifest)


if __name__ == "__main__":
    run("edgecv", "edgecv", quantize)
