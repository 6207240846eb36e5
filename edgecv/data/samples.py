"""Real photographs that come inside installed packages: something to look at before there is a data set.

A handful of photographs shows that a chain works; it decides nothing about accuracy.
"""

from importlib.util import find_spec
from pathlib import Path

from edgecv.errors import EnvironmentRefusedError

# Of the files of scikit-image 0.2x and scikit-learn 1.x, the colour photographs of the visible world. Left out:
# drawings, textures, microscopy, and second views of a scene (motorcycle_right.png is the stereo partner of
# motorcycle_left.png, so that the two would count one scene twice).
_CALIBRATION = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/rocket.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
)
_EVALUATION = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("sklearn", "datasets/images/flower.jpg"),
)


def sample_photographs() -> list[Path]:
    """Return every sample photograph of the installed packages, in a fixed order.

    The packages are looked up, not imported.

    Raises:
        EnvironmentRefusedError: None is installed.
    """
    found = [*_present(_CALIBRATION), *_present(_EVALUATION)]
    if not found:
        raise EnvironmentRefusedError(
            "no sample photographs on this machine; install them with: pip install 'edgecv[samples]' "
            "(or give your own images with --data DIR)"
        )
    return sorted(found)


def sample_halves() -> tuple[list[Path], list[Path]]:
    """Return disjoint sample photographs to calibrate with and to evaluate on.

    Chosen by hand: the calibration side has fur, a bright sky and a building, dark to bright, because
    calibration wants the range of values; the evaluation side has objects that ImageNet's classes know
    (espresso, daisy-like flowers, motor scooter, space suit). No scene is on both sides.

    Raises:
        EnvironmentRefusedError: One of the sides has no photograph.
    """
    sample_photographs()
    halves = sorted(_present(_CALIBRATION)), sorted(_present(_EVALUATION))
    if not all(halves):
        raise EnvironmentRefusedError(
            "too few sample photographs on this machine; install them with: pip install 'edgecv[samples]'"
        )
    return halves


def _present(files: tuple[tuple[str, str], ...]) -> list[Path]:
    found = []
    for package, name in files:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(folder) / name
            if path.is_file():
                found.append(path)
                break
    return found
