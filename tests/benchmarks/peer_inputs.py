"""What every tool of a comparison is given: the network without its pixel part, and the same images as arrays.

Peers expect a normalized float32 image, (N, 3, H, W). The model that edgecv exports takes the photograph's bytes; what
stands before its first weights is cut off here, and run once to make the arrays.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from onnx.utils import Extractor

from edgecv.data.batches import iter_batches
from edgecv.data.dataset import Dataset
from edgecv.evaluate.classifier import Classifier, open_classifiers, open_labelled
from edgecv.runtime.owners import load_onnxruntime
from edgecv.runtime.preprocess import to_model_input

_PIXEL_OPS = frozenset({"Transpose", "Cast", "Mul", "Add", "Sub", "Div"})


@dataclass(frozen=True, slots=True)
class Network:
    """A model opened for a comparison.

    Attributes:
        source: The file as edgecv exported it.
        classifier: The same, open.
        body: The network from its normalized image on: float32 (N, 3, H, W), no metadata.
        body_input: Name of its input.
        pixels: The part before it; None when the source takes the normalized image itself.
    """

    source: Path
    classifier: Classifier
    body: Path
    body_input: str
    pixels: Path | None


@dataclass(frozen=True, slots=True)
class Arrays:
    """The same images twice, one after the other: ``images`` as the source takes them, ``normalized`` as the body does.

    Both are .npy files, read by memory map; ``labels`` is int64 (N,), the model's label indices.
    """

    images: Path
    normalized: Path
    labels: npt.NDArray[np.int64]


def split_network(source: Path, folder: Path) -> Network:
    """Cut the pixel part off and write both parts into ``folder``."""
    (classifier,) = open_classifiers([source])
    model = onnx.load(source)
    entry, output = model.graph.input[0].name, model.graph.output[0].name
    cut = _first_weights_input(model, entry)
    body = folder / "body.onnx"
    height, width = classifier.spec.input_size[1:]
    inferred = onnx.shape_inference.infer_shapes(model)
    part = Extractor(inferred).extract_model([cut], [output])
    image = helper.make_tensor_value_info(cut, TensorProto.FLOAT, ["batch", 3, height, width])
    part.graph.input[0].CopyFrom(image)
    del part.metadata_props[:]
    onnx.save(part, body)
    pixels = None
    if cut != entry:
        pixels = folder / "pixels.onnx"
        onnx.save(Extractor(inferred).extract_model([entry], [cut]), pixels)
    return Network(source, classifier, body, cut, pixels)


def _first_weights_input(model: onnx.ModelProto, name: str) -> str:
    constants = {t.name for t in model.graph.initializer}
    while True:
        readers = [n for n in model.graph.node if name in n.input]
        if len(readers) != 1 or readers[0].op_type not in _PIXEL_OPS:
            return name
        if any(i != name and i not in constants for i in readers[0].input):
            return name
        name = readers[0].output[0]


def labelled_images(network: Network, data: Path) -> Dataset:
    """Open a folder with the labels of the network."""
    return open_labelled(data, network.classifier)


def write_arrays(network: Network, dataset: Dataset, folder: Path, name: str) -> Arrays:
    """Decode every image once and write both forms."""
    spec = network.classifier.spec
    session = None
    if network.pixels is not None:
        session = load_onnxruntime().InferenceSession(str(network.pixels), providers=["CPUExecutionProvider"])
    count, (_, height, width) = len(dataset), spec.input_size
    files = folder / f"{name}.images.npy", folder / f"{name}.normalized.npy"
    shape = (count, height, width, 3) if spec.layout == "NHWC" else (count, 3, height, width)
    images = np.lib.format.open_memmap(files[0], "w+", np.dtype(spec.dtype), shape)
    normalized = np.lib.format.open_memmap(files[1], "w+", np.dtype(np.float32), (count, 3, height, width))
    for batch in iter_batches(dataset, spec, 8):
        values = to_model_input(batch.images, spec)
        images[batch.indices] = values
        normalized[batch.indices] = values if session is None else session.run(None, {spec.name: values})[0]
    images.flush()
    normalized.flush()
    return Arrays(*files, np.array([-1 if label is None else label for _, label in dataset.samples], np.int64))


def logits(session: Any, arrays: Arrays) -> npt.NDArray[np.float64]:
    """Run an ONNX Runtime session over whichever of the two forms it takes; float64 (N, classes)."""
    entry = session.get_inputs()[0]
    kind = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[entry.type]
    forms = (np.load(path, mmap_mode="r") for path in (arrays.images, arrays.normalized))
    data = next(a for a in forms if a.dtype == kind and list(a.shape[1:]) == list(entry.shape[1:]))
    step = entry.shape[0] if isinstance(entry.shape[0], int) else 8
    steps = (np.ascontiguousarray(data[i : i + step]) for i in range(0, len(data), step))
    return np.concatenate([session.run(None, {entry.name: x})[0] for x in steps]).astype(np.float64)
