"""ExecuTorch's format for XNNPACK; with ``int8``, quantized for it (static, weights by channel)."""

from pathlib import Path

from job import Inputs, Job, run


def convert(job: Job, inputs: Inputs) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # type: ignore[import-not-found,unused-ignore]
        XnnpackPartitioner,
    )
    from executorch.exir import to_edge_transform_and_lower  # type: ignore[import-not-found,unused-ignore]

    program = torch.export.load(job["program"])
    first = torch.from_numpy(next(inputs()))
    if job["settings"].get("int8"):
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (  # type: ignore[import-not-found,unused-ignore]
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import (  # type: ignore[import-not-found,unused-ignore]
            convert_pt2e,
            prepare_pt2e,
        )

        by_channel = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(program.module(), by_channel)
        for x in inputs():
            prepared(torch.from_numpy(x))
        program = torch.export.export(convert_pt2e(prepared), (first,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    Path(job["output"]).write_bytes(lowered.to_executorch().buffer)


if __name__ == "__main__":
    run("executorch", "executorch", convert)
