"""torchvision's classification networks, named ``torchvision:NAME``."""

from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from edgecv.manifest import InputSpec
from edgecv.nn.network import Network, check_class_count, crop_share, input_spec
from edgecv.nn.weights import check_reachable, no_weights

TORCHVISION = "torchvision:"


def torchvision_names() -> list[str]:
    """Return the sorted names of torchvision's classification networks, with the prefix."""
    return [f"{TORCHVISION}{n}" for n in sorted(torchvision.models.list_models(module=torchvision.models))]


def build_torchvision(
    name: str, state: dict[str, torch.Tensor] | None, weights: Path | None, random_init: bool
) -> Network:
    """Build ``torchvision:NAME``; the arguments are those of :func:`edgecv.nn.models.build_network`, ``state`` read.

    The preprocessing is that of the published weights whose file is named like ``weights``, else of the default ones.
    """
    short = name.removeprefix(TORCHVISION)
    published = list(torchvision.models.get_model_weights(short))
    named = next((w for w in published if weights and Path(w.url).name == weights.name), None)
    chosen = named or torchvision.models.get_model_weights(short).DEFAULT
    classes = 1000 if state is None else _last_bias_length(state)
    source: dict[str, str] = {}
    if named or (state is None and not random_init):
        source["license"] = "BSD-3-Clause"  # torchvision's own, for what it publishes
    if state is None and not random_init:
        try:
            if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name).is_file():
                check_reachable(chosen.url)
            module = torchvision.models.get_model(short, weights=chosen)
        except Exception as e:  # urllib and ssl raise their own
            raise no_weights(name, f"the download failed ({type(e).__name__}: {str(e)[:120]})", None) from e
        source["weights"] = f"torchvision:{chosen}"
    else:
        module = torchvision.models.get_model(short, weights=None, num_classes=classes)
    labels = tuple(chosen.meta["categories"]) if classes == 1000 else ()
    label_ids = tuple(timm.data.ImageNetInfo().label_names()) if classes == 1000 else ()
    return Network(module, name, _preset_spec(chosen), labels, label_ids, source, stride=0)


def _last_bias_length(state: dict[str, torch.Tensor]) -> int:
    biases = [v for k, v in state.items() if k.endswith(".bias") and v.ndim == 1]
    return check_class_count(len(biases[-1])) if biases else 1000


def _preset_spec(weights: Any) -> InputSpec:
    preset = weights.transforms()
    size, resize = preset.crop_size[0], preset.resize_size[0]
    return input_spec(
        {
            "input_size": (3, size, size),
            "mean": preset.mean,
            "std": preset.std,
            "interpolation": preset.interpolation.value,
            "crop_pct": crop_share(size, resize),
            "crop_mode": "center",
        }
    )
