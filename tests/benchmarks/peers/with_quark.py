"""AMD Quark with uint8 activations, weights by channel and AdaRound: its best for a network that runs in int8.

Its presets quantize whole tensors to int8, and their files run mostly in float.
"""

from typing import Any

from job import Inputs, Job, run


def quantize(job: Job, inputs: Inputs) -> None:
    from onnxruntime.quantization import CalibrationDataReader
    from quark.onnx import (  # type: ignore[import-not-found,unused-ignore]
        AdaRoundConfig,
        CalibMethod,
        Int8Spec,
        ModelQuantizer,
        QConfig,
        QLayerConfig,
        QuantGranularity,
        UInt8Spec,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = inputs()

        def get_next(self) -> dict[str, Any] | None:
            return next(({job["input"]: x} for x in self.left), None)

        def rewind(self) -> None:
            self.left = inputs()

    settings = job["settings"]
    rounding = AdaRoundConfig(
        data_size=settings.get("adaround_images", 32),
        batch_size=2,
        num_iterations=settings.get("adaround_iterations", 100),
        early_stop=True,
    )
    layers = QLayerConfig(
        activation=UInt8Spec(calibration_method=CalibMethod.MinMax),
        weight=Int8Spec(calibration_method=CalibMethod.MinMax, quant_granularity=QuantGranularity.Channel),
    )
    ModelQuantizer(QConfig(global_config=layers, algo_config=[rounding])).quantize_model(
        job["model"], job["output"], Reader()
    )


if __name__ == "__main__":
    run("quark.onnx", "amd-quark", quantize)
