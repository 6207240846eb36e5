"""ONNX Runtime's ``quantize_static``; ``settings`` are its keyword arguments, enumerations by name."""

from typing import Any

from job import Inputs, Job, run


def quantize(job: Job, inputs: Inputs) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = inputs()

        def get_next(self) -> dict[str, Any] | None:
            return next(({job["input"]: x} for x in self.left), None)

    known = {"activation_type": QuantType, "weight_type": QuantType, "calibrate_method": CalibrationMethod}
    settings = {k: known[k][v] if k in known else v for k, v in job["settings"].items()}
    quantize_static(job["model"], job["output"], Reader(), **settings)


if __name__ == "__main__":
    run("onnxruntime", "onnxruntime", quantize)
