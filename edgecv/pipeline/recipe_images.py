"""The images of a recipe: which to learn from, which to calibrate on, which to judge by."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgecv.config.recipe import Recipe
from edgecv.data.contents import Contents
from edgecv.data.shards import single_files
from edgecv.errors import UsageError, nearest
from edgecv.progress import Progress, no_progress

if TYPE_CHECKING:
    from edgecv.data.dataset import Dataset
    from edgecv.nn.training_data import TrainingData

PACKAGE = "package:"
PACKAGED = ("digits/train", "digits/test")
"""What can stand behind ``package:``: labelled images inside an installed package."""


def resolve(spec: str) -> Path | None:
    """Return where the images named in a recipe are; None for none.

    Raises:
        UsageError: An unknown name behind ``package:``.
        EnvironmentRefusedError: The package is not installed.
    """
    if not spec:
        return None
    if not spec.startswith(PACKAGE):
        return Path(spec)
    name = spec.removeprefix(PACKAGE)
    if name not in PACKAGED:
        raise UsageError(
            f"no images '{spec}'; known: {', '.join(PACKAGE + n for n in PACKAGED)}.{nearest(name, PACKAGED)}"
        )
    from edgecv.data.digits import digits_folder

    return digits_folder(name.partition("/")[2])


@dataclass(slots=True)
class RecipeImages:
    """The images of one run; opened and hashed when they are first asked for.

    Attributes:
        recipe: Says which.
        contents: Hashes files.
        progress: Told while images are listed or hashed.
    """

    recipe: Recipe
    contents: Contents
    progress: Progress = no_progress
    _hashes: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path | None:
        """Images to learn from."""
        return resolve(self.recipe.data)

    @property
    def chooses(self) -> Path | None:
        """Images that choose the epoch of a training; None where a share of ``data`` is held out."""
        return None if self.recipe.hold_out else resolve(self.recipe.eval_data)

    @property
    def shown(self) -> Path | None:
        """Any images, to check an export on."""
        return resolve(self.recipe.eval_data or self.recipe.calib or self.recipe.data)

    def hash_of(self, role: str) -> str:
        """Return the hash of the images with a role: ``data``, ``judging`` or ``calibration``; empty for none."""
        recipe = self.recipe
        trained_on = self._hash(recipe.data) if recipe.data else ""
        chooses = self._hash(recipe.eval_data) if recipe.data and recipe.eval_data and not recipe.hold_out else ""
        divided = f"{trained_on} {recipe.hold_out:g} {chooses}".strip()
        own = {"data": "", "judging": recipe.eval_data, "calibration": recipe.calib}[role]
        if own:
            return self._hash(own)
        return divided if trained_on else ""

    def judging(self, folder: Path, model: Path) -> "Path | Dataset | None":
        """Return the images to judge by; those held out where none are named, with the labels of an ONNX model."""
        if self.recipe.eval_data or not self.recipe.data:
            return resolve(self.recipe.eval_data)
        return _labelled_as(single_files(self._divided(folder).held_out), model)

    def calibration(self, folder: Path) -> "Path | Dataset | None":
        """Return the images to calibrate on; those trained on where none are named."""
        if self.recipe.calib or not self.recipe.data:
            return resolve(self.recipe.calib)
        return single_files(self._divided(folder).train)

    def _divided(self, folder: Path) -> "TrainingData":
        """Return both sides of ``data``; ``folder`` holds the division, or will."""
        from edgecv.nn.training_data import open_training_data

        data, recipe = self.data, self.recipe
        assert data is not None  # who asks has seen to it
        return open_training_data(
            data, self.chooses, share=recipe.hold_out, seed=recipe.seed, folder=folder, progress=self.progress
        )

    def _hash(self, spec: str) -> str:
        if spec not in self._hashes:
            path = resolve(spec)
            assert path is not None
            self._hashes[spec] = self.contents.data(path, self.progress)
        return self._hashes[spec]


def _labelled_as(dataset: "Dataset", path: Path) -> "Dataset":
    """Return a data set with its classes matched to those of a model by name."""
    from edgecv.data.classes import match_classes
    from edgecv.graph.model_file import load_model, require_manifest

    output = require_manifest(load_model(path), path).output
    if not output.labels and not output.label_ids:
        return dataset
    matched = match_classes(dataset.class_names, output.labels, output.label_ids, len(output.labels))
    indices = [matched[name] for name in dataset.class_names]
    samples = tuple((p, indices[c]) for (p, _), c in zip(dataset.samples, dataset.class_indices, strict=True))
    return replace(dataset, samples=samples, num_classes=len(output.labels))
