"""NNCF's ``quantize`` of an ONNX model, as it comes."""

from job import Inputs, Job, run


def quantize(job: Job, inputs: Inputs) -> None:
    import nncf  # type: ignore[import-not-found,unused-ignore]
    import onnx

    samples = [{job["input"]: x} for x in inputs()]
    dataset = nncf.Dataset(samples)
    onnx.save(nncf.quantize(onnx.load(job["model"]), dataset, subset_size=len(samples)), job["output"])


if __name__ == "__main__":
    run("nncf", "nncf", quantize)
