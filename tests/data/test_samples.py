import subprocess
import sys

import pytest
from PIL import Image

from edgecv.data import samples
from edgecv.errors import EnvironmentRefusedError

pytest.importorskip("skimage", reason="needs the sample photographs of scikit-image")
pytest.importorskip("sklearn", reason="needs the sample photographs of scikit-learn")


def test_sample_photographs_are_real_color_pictures() -> None:
    paths = samples.sample_photographs()
    assert len(paths) >= 6
    for path in paths:
        with Image.open(path) as image:
            assert image.mode in ("RGB", "RGBA")
            assert min(image.size) >= 200


def test_halves_share_no_scene() -> None:
    calibration, evaluation = samples.sample_halves()
    assert sorted([*calibration, *evaluation]) == samples.sample_photographs()
    scenes = [{p.stem.split("_")[0] for p in half} for half in (calibration, evaluation)]
    assert not scenes[0] & scenes[1]


def test_no_package_is_a_refusal_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentRefusedError, match=r"pip install 'edgecv\[samples\]'"):
        samples.sample_photographs()


def test_finding_them_imports_neither_package() -> None:
    code = (
        "import sys; from edgecv.data.samples import sample_halves; sample_halves(); "
        "sys.exit(any(m in sys.modules for m in ('skimage', 'sklearn', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
