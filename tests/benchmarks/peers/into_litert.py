"""LiteRT's format from a program of ``torch.export``; with ``int8``, quantized by its own quantizer (static, w8a8)."""

from pathlib import Path

from job import Inputs, Job, run


def convert(job: Job, inputs: Inputs) -> None:
    import litert_torch  # type: ignore[import-not-found,unused-ignore]
    import torch

    first = torch.from_numpy(next(inputs()))
    module = torch.export.load(job["program"]).module()
    program = torch.nn.Sequential()
    program.add_module("network", module)
    litert_torch.convert(program, (first,), strict_export=False).export(job["output"])
    if job["settings"].get("int8"):
        from ai_edge_quantizer import quantizer, recipe  # type: ignore[import-not-found,unused-ignore]

        floats = Path(job["output"]).rename(Path(job["output"]).with_suffix(".float.tflite"))
        found = quantizer.Quantizer(str(floats), recipe.static_wi8_ai8())
        statistics = found.calibrate({"serving_default": [{"args_0": x} for x in inputs()]})
        found.quantize(statistics).export_model(job["output"])


if __name__ == "__main__":
    run("litert_torch", "litert-torch", convert)
