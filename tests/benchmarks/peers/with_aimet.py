"""AIMET-ONNX as it comes; with ``equalize``, cross-layer equalization before it and its least-error ranges."""

from job import Inputs, Job, run


def quantize(job: Job, inputs: Inputs) -> None:
    import onnx
    from aimet_onnx.quantsim import QuantizationSimModel  # type: ignore[import-not-found,unused-ignore]

    model = onnx.load(job["model"])
    settings = {}
    if job["settings"].get("equalize"):
        from aimet_onnx.cross_layer_equalization import (  # type: ignore[import-not-found,unused-ignore]
            equalize_model,
        )

        equalize_model(model)
        settings["quant_scheme"] = "tf_enhanced"
    sim = QuantizationSimModel(model, providers=["CPUExecutionProvider"], **settings)
    sim.compute_encodings({job["input"]: x} for x in inputs())
    onnx.save(sim.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True), job["output"])


if __name__ == "__main__":
    run("aimet_onnx", "aimet-onnx", quantize)
