from pathlib import Path

import pytest
from conftest import REPOSITORY

from edgecv.config.device import load_device
from edgecv.config.tables import shipped_files
from edgecv.errors import UsageError

FILES = sorted((REPOSITORY / "devices").iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_shipped_profile_loads_names_its_sources_and_known_providers(path: Path) -> None:
    from edgecv.graph.opset import limits_of
    from edgecv.runtime.providers import parse_providers

    profile = load_device(path.stem)
    assert profile.sources
    assert limits_of(profile.onnxruntime)[0] >= 18
    for name in profile.providers:
        assert parse_providers(name)
    assert set(profile.unmeasured) <= set(type(profile).__dataclass_fields__)
    assert path.stem in [p.stem for p in shipped_files("devices")]


def _profile(tmp_path: Path, **changes: str) -> Path:
    lines = {
        "schema": "1",
        "name": '"mine"',
        "title": '"Mine"',
        "arch": '"aarch64"',
        "isa": "[]",
        "providers": '["cpu"]',
        "threads": "1",
        "onnxruntime": '"1.22"',
        "sources": "[]",
    } | changes
    path = tmp_path / "mine.toml"
    path.write_text("".join(f"{k} = {v}\n" for k, v in lines.items() if v))
    return path


def test_a_profile_of_the_users_own_loads_by_path(tmp_path: Path) -> None:
    assert load_device(str(_profile(tmp_path))).name == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"providres": "[]"}, "Did you mean 'providers'"),
        ({"threads": '"many"'}, "threads"),
        ({"threads": ""}, "'threads' is missing"),
        ({"isa": '"avx2"'}, "isa"),
        ({"schema": "2"}, "schema 2"),
        ({"arch": '"z80"'}, "z80"),
        ({"name": '"other"'}, "other"),
    ],
)
def test_a_wrong_profile_names_file_and_key(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_device(str(_profile(tmp_path, **changes)))
    assert "mine.toml" in str(caught.value)
