"""MNN's format, by its native converter: the command of its package installs a logger with pip and calls home."""

from job import Inputs, Job, run


def convert(job: Job, inputs: Inputs) -> None:
    import _tools  # type: ignore[import-not-found,unused-ignore]

    arguments = ["mnnconvert", "-f", "ONNX", "--modelFile", job["model"], "--MNNModel", job["output"]]
    if job["settings"].get("int8"):  # weights in 8 bits; activations follow at run time
        arguments += ["--weightQuantBits", "8"]
    _tools.mnnconvert([*arguments, "--bizCode", "MNN"])


if __name__ == "__main__":
    run("MNN", "MNN", convert)
