"""The checkpoint artifact: one ``.safetensors`` with the tensors and, in its metadata, the manifest.

The manifest is the JSON an exported ``.onnx`` carries, under the same key; architecture, arguments and structure in it
rebuild the network without the run that made it.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from edgecv.errors import UsageError
from edgecv.files import MAX_MODEL_BYTES, check_regular_file, sha256_file, write_atomically
from edgecv.manifest import KEY, Manifest, OutputSpec, created_now, from_metadata, to_metadata
from edgecv.nn.construct import construct
from edgecv.nn.network import Network
from edgecv.nn.structure import replay
from edgecv.nn.weights import load_into

MAX_HEADER_BYTES = 32 << 20
MAX_TENSORS = 50_000
MAX_RANK = 8
"""The deepest timm networks have some 5,000 tensors of rank 6 at most."""


def save_network(path: Path, network: Network) -> None:
    """Write ``network`` to ``path``, or nothing.

    Equal networks give equal bytes.

    Args:
        path: The ``.safetensors``.
        network: Tensors may lie on any device; what several names share is written for each.

    Raises:
        UsageError: The disk is full, the folder not writable, or a tensor is not finite.
    """
    state = {}
    for name, tensor in network.module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(f"'{name}' holds NaN or infinity, so '{path}' was not written; lower --learning-rate.")
        state[name] = tensor.detach().to("cpu").contiguous().clone()
    # One key alone: safetensors writes several in an order that changes from run to run.
    metadata = {KEY: to_metadata(network_manifest(network))[KEY]}
    write_atomically(path, lambda temporary: safetensors.torch.save_file(state, temporary, metadata=metadata))


def load_network(path: Path) -> Network:
    """Rebuild a network from its checkpoint: construct, replay the edits, load strictly.

    Returns:
        The network in eval mode on the CPU.

    Raises:
        UsageError: No manifest inside, a damaged or hostile file, or tensors that do not fit.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise UsageError(f"'{path}' does not say which network it belongs to; add --arch NAME.")
    state = _read_tensors(path)
    module = _rebuild(manifest, state, str(path))
    load_into(module, state, str(path))
    module.eval()
    return Network(
        module=module,
        name=manifest.architecture,
        input=manifest.input,
        labels=manifest.output.labels,
        label_ids=manifest.output.label_ids,
        source={**manifest.source, "weights": f"checkpoint:{path.name}", "sha256": sha256_file(path)},
        stride=manifest.stride,
        arguments=manifest.arguments,
        structure=manifest.structure,
        stages=manifest.stages,
    )


def network_manifest(network: Network) -> Manifest:
    """Return the manifest of a network in memory."""
    return Manifest(
        architecture=network.name,
        input=network.input,
        output=OutputSpec("logits", "logits", tuple(network.labels), tuple(network.label_ids)),
        source=network.source,
        stages=tuple(network.stages),
        stride=network.stride,
        arguments=network.arguments,
        structure=tuple(network.structure),
        created=created_now(),
    )


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest inside a ``.safetensors``; None in one that others wrote.

    Raises:
        UsageError: Missing, damaged, too large a header, or a manifest that is not valid.
    """
    check_regular_file(path, "checkpoint", MAX_MODEL_BYTES)
    metadata = _header(path).get("__metadata__", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY, ""), str):
        raise UsageError(f"checkpoint '{path}' is damaged: its metadata are no text; fetch or make it again.")
    return from_metadata(metadata, str(path))


def _header(path: Path) -> dict[str, Any]:
    """Return the JSON header; see the format at huggingface.co/docs/safetensors."""
    with path.open("rb") as f:
        head = f.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise UsageError(f"checkpoint '{path}' is not a safetensors file, or its header is over the limit.")
        text = f.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UsageError(f"checkpoint '{path}' is damaged ({str(e)[:80]}); fetch or make it again.") from e
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise UsageError(f"checkpoint '{path}' has no table of at most {MAX_TENSORS} tensors; fetch or make it again.")
    return header


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        state: dict[str, torch.Tensor] = safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, KeyError) as e:
        raise UsageError(f"checkpoint '{path}' is damaged ({str(e).strip()[:120]}); fetch or make it again.") from e
    for name, tensor in state.items():
        if tensor.ndim > MAX_RANK:
            raise UsageError(f"checkpoint '{path}': '{name[:80]}' has {tensor.ndim} dimensions, over {MAX_RANK}.")
    return state


def _rebuild(manifest: Manifest, state: Mapping[str, torch.Tensor], where: str) -> nn.Module:
    """Return the network for ``state``; first without memory, lest a small file claim a network of gigabytes."""
    try:
        with torch.device("meta"):
            outline = replay(construct(manifest.architecture, manifest.arguments), manifest.structure, state, where)
        check_fit(outline, state, where)
    except UsageError as e:
        if not isinstance(e.__cause__, NotImplementedError):  # RegNet's constructor computes with tensors of its own
            raise
    return replay(construct(manifest.architecture, manifest.arguments), manifest.structure, state, where)


def check_fit(outline: nn.Module, state: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise UsageError unless the tensors have the names and shapes of ``outline``, a network without memory."""
    own = outline.state_dict()
    for name in sorted(own.keys() | state.keys()):
        if name not in state and not name.endswith("num_batches_tracked"):
            raise UsageError(f"'{where}' does not hold the network its manifest names: '{name[:80]}' is missing.")
        if name not in own:
            raise UsageError(f"'{where}' does not hold the network its manifest names: '{name[:80]}' is left over.")
        if name in state and own[name].shape != state[name].shape:
            raise UsageError(
                f"'{where}' does not hold the network its manifest names: '{name[:80]}' is "
                f"{tuple(state[name].shape)}, the network has {tuple(own[name].shape)}."
            )
