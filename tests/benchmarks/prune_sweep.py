"""Which networks can be pruned, exported and verified: prune_sweep.py [NAME[:SIZE]…] [--to macs=0.7] [--json FILE].

    python tests/benchmarks/prune_sweep.py --json sweep.json
    python tests/benchmarks/prune_sweep.py resnet50 vit_base_patch16_224:64

Each network gets seeded random weights and a small input, loses channels until the target holds, is saved, loaded back
from its plan, exported, and compared with PyTorch on photographs; each in a process of its own. Not collected by
pytest: it takes about half a minute a network. tests/nn/prune/test_families.py holds a few of them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NETWORKS = (
    "mobilenetv1_100:64", "mobilenetv2_100:64", "mobilenetv3_large_100:64", "mobilenetv4_conv_small:64",
    "efficientnet_b0:64", "tf_efficientnet_lite0:64", "mnasnet_100:64", "fbnetc_100:64", "ghostnet_100:64",
    "regnetx_002:64", "regnety_004:64", "repvgg_a0:64", "convnext_atto:64", "convnextv2_atto:64",
    "ese_vovnet19b_dw:64", "vit_tiny_patch16_224:64", "deit_tiny_patch16_224:64", "mobileone_s0:64", "rexnet_100:64",
    "tinynet_e:64", "resnet18:64", "poolformer_s12:64", "xcit_nano_12_p16_224:64", "vgg11_bn:64", "dla34:64",
    "selecsls42b:64", "densenet121:64", "resnet50:64", "resnetv2_50:64", "cspresnet50:64", "seresnet50:64",
    "resnext50_32x4d:64", "fastvit_t8:64", "nfnet_l0:64", "darknet53:64", "dpn68:64", "res2net50_26w_4s:64",
    "inception_v3:96", "hrnet_w18_small:64", "efficientnetv2_rw_t:64", "wide_resnet50_2:64", "xception41:96",
    "inception_resnet_v2:96", "mixer_s32_224:224", "levit_128s:224", "efficientformer_l1:224",
    "swin_tiny_patch4_window7_224:224",
)  # fmt: skip
"""timm networks of many families, each with the side of its input in pixels."""

TIMEOUT_S = 900.0
IMAGES = 8


def sweep_one(spec: str, target: str) -> dict[str, Any]:
    """Prune, save, load, export and verify one network; raises what goes wrong."""
    import torch

    from edgecv.config.pruning import PruneSettings, parse_target
    from edgecv.data.samples import sample_photographs
    from edgecv.nn.checkpoint import load_network, save_network
    from edgecv.nn.export import ExportSettings, export_network
    from edgecv.nn.models import build_network
    from edgecv.nn.prune.search import find_choice
    from edgecv.nn.prune.structured import analyse

    torch.set_num_threads(1)
    name, _, size = spec.partition(":")
    asked = parse_target(target)
    network = build_network(name, random_init=True, input_size=int(size) if size else None)
    start = time.perf_counter()
    prunable = analyse(network, PruneSettings(to=target))
    choice = find_choice(prunable.searched, asked.measure, asked.share, target)
    pruned = prunable.cut(choice)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model.safetensors"
        save_network(checkpoint, pruned)
        loaded = load_network(checkpoint)
        report = export_network(loaded, Path(folder) / "model.onnx", sample_photographs()[:IMAGES], ExportSettings())
    return {
        "macs": prunable.searched.share(choice, "macs"),
        "params": prunable.searched.share(choice, "params"),
        "groups": len(prunable.searched.traced.groups),
        "left_alone": list(prunable.left_alone),
        "top1_agreement": min(c.top1_agreement for c in report.checks),
        "max_abs_diff": max(c.max_abs_diff for c in report.checks),
        "exporter": report.exporter,
        "prune_seconds": seconds,
    }


def main() -> int:
    """Run the sweep and print a line a network; exit 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--to", default="macs=0.7")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(sweep_one(arguments.networks[0], arguments.to)))
        return 0
    results = {}
    for spec in arguments.networks:
        results[spec] = _in_process(spec, arguments.to)
        print(_line(spec, results[spec]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2))
    good = sum("error" not in r for r in results.values())
    print(f"{good} of {len(results)} pruned to {arguments.to}, exported and verified")
    return 0 if good == len(results) else 1


def _in_process(spec: str, target: str) -> dict[str, Any]:
    command = [sys.executable, __file__, spec, "--to", target, "--one"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {TIMEOUT_S:.0f} s"}
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if not lines:
        return {"error": f"died with {done.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1]) if done.returncode == 0 else {"error": lines[-1][:300]}
    return found


def _line(spec: str, result: dict[str, Any]) -> str:
    if "error" in result:
        return f"FAIL {spec}: {result['error']}"
    return (
        f"ok   {spec}: {result['macs']:.3f} of MACs, {result['params']:.3f} of parameters, same top-1 "
        f"{result['top1_agreement']:.0%}, max |diff| {result['max_abs_diff']:.1e}, {len(result['left_alone'])} of "
        f"{result['groups']} groups left alone, {result['exporter']}, {result['prune_seconds']:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
