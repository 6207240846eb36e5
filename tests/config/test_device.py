from pathlib import Path

import pytest
from conftest import REPOSITORY

from edgecv.config.device import known_devices, load_device
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
    assert profile.int8.sources
    assert set(profile.int8.unmeasured) <= set(type(profile.int8).__dataclass_fields__)
    assert profile.int8.portable is not bool(
        {"avx512_vnni"} & set(profile.isa) or profile.arch == "aarch64" or "cuda" in profile.providers
    )
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
    mine = load_device(str(_profile(tmp_path)))
    assert mine.name == "mine"
    assert (mine.int8.activations, mine.int8.bias, mine.int8.portable) == ("uint8", "int32", True)


def test_every_shipped_profile_is_known_by_name() -> None:
    assert [d.name for d in known_devices()] == [p.stem for p in FILES]


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
        ({"int8": '{ weights_range = "pair" }'}, "int8.weights_range 'pair'.*Did you mean 'pairs'"),
        ({"int8": '{ activations = "float" }'}, "int8.activations 'float' is not one of uint8, int8"),
        ({"int8": "{ widths = 8 }"}, "unknown key 'widths'"),
    ],
)
def test_a_wrong_profile_names_file_and_key(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_device(str(_profile(tmp_path, **changes)))
    assert "mine.toml" in str(caught.value)
