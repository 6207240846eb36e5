"""torchvision's classification networks, named ``torchvision:NAME``."""

from collections.abc import Mapping
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
    name: str,
    state: dict[str, torch.Tensor] | None,
    weights: Path | None,
    arguments: Mapping[str, Any] | None = None,
) -> Network:
    """Build ``torchvision:NAME``: published weights without ``state`` and ``arguments``, else the constructor's draw.

    The preprocessing is that of the published weights whose file is named like ``weights``, else of the default ones.
    """
    short = name.removeprefix(TORCHVISION)
    published = list(torchvision.models.get_model_weights(short))
    named = next((w for w in published if weights and Path(w.url).name == weights.name), None)
    chosen = named or torchvision.models.get_model_weights(short).DEFAULT
    published_weights = state is None and arguments is None
    given = {"num_classes": 1000 if state is None else _last_bias_length(state), **(arguments or {})}
    source: dict[str, str] = {}
    if named or published_weights:
        source["license"] = "BSD-3-Clause"  # torchvision's own, for what it publishes
    if published_weights:
        try:
            if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name).is_file():
                check_reachable(chosen.url)
            module = torchvision.models.get_model(short, weights=chosen)
        except Exception as e:  # urllib and ssl raise their own
            raise no_weights(name, f"the download failed ({type(e).__name__}: {str(e)[:120]})", None) from e
        source["weights"] = f"torchvision:{chosen}"
    else:
        module = torchvision.models.get_model(short, weights=None, **slow_draws_off(short), **given)
    labels = tuple(chosen.meta["categories"]) if given["num_classes"] == 1000 else ()
    label_ids = tuple(timm.data.ImageNetInfo().label_names()) if given["num_classes"] == 1000 else ()
    return Network(module, name, _preset_spec(chosen), labels, label_ids, source, 0, given)


def slow_draws_off(short: str) -> dict[str, bool]:
    """Return the argument that keeps two of torchvision's constructors from a draw that takes a minute."""
    return {"init_weights": False} if short in ("googlenet", "inception_v3") else {}


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
