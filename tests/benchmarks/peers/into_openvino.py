"""OpenVINO's format; with ``int8``, quantized by NNCF's defaults."""

from job import Inputs, Job, run


def convert(job: Job, inputs: Inputs) -> None:
    import openvino  # type: ignore[import-not-found,unused-ignore]

    model = openvino.convert_model(job["model"], input=[(job["input"], next(inputs()).shape)])
    if job["settings"].get("int8"):
        import nncf  # type: ignore[import-not-found,unused-ignore]

        samples = list(inputs())
        model = nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))
    openvino.save_model(model, job["output"], compress_to_fp16=False)


if __name__ == "__main__":
    run("openvino", "openvino", convert)
