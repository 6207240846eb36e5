from pathlib import Path

import pytest
from conftest import REPOSITORY

from edgecv.config.device import FACTS, known_devices, load_device
from edgecv.config.tables import shipped_files
from edgecv.errors import UsageError

FILES = sorted((REPOSITORY / "devices").iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_shipped_profile_loads_names_its_sources_and_known_providers(path: Path) -> None:
    from edgecv.graph.opset import limits_of
    from edgecv.runtime.providers import parse_providers

    profile = load_device(path.stem)
    assert limits_of(profile.onnxruntime)[0] >= 18
    assert (profile.opset_max, profile.ir_max) == limits_of(profile.onnxruntime)
    named = {fact.strip() for source in profile.sources for fact in source.partition(":")[0].split(",")}
    stated = {fact for fact in FACTS if getattr(profile, fact)}
    assert stated <= named, f"no source for {sorted(stated - named)}"
    for name in profile.providers:
        assert parse_providers(name)
    assert set(profile.unmeasured) <= set(type(profile).__dataclass_fields__)
    assert profile.int8.sources
    assert set(profile.int8.unmeasured) <= set(type(profile.int8).__dataclass_fields__)
    assert profile.int8.portable is not bool(
        {"avx512_vnni", "simd128"} & set(profile.isa) or profile.arch == "aarch64" or "cuda" in profile.providers
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
    wanted = "x86-avx2 x86-avx512 x86-vnni x86-amx rpi4 rpi5 arm64-generic graviton3 apple-m jetson-orin cuda-generic"
    assert {*wanted.split(), "android-arm64", "web-wasm"} <= {p.stem for p in FILES}


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
        ({"connection": '{ kind = "telnet" }'}, "connection.kind 'telnet' is not one of none, local, ssh"),
        ({"connection": '{ kind = "ssh" }'}, "connection.host is missing"),
        ({"memory_mib": "-1"}, "memory_mib is -1"),
        ({"cores": "8", "big_cores": "4", "little_cores": "3"}, "4 big and 3 little cores are not 8"),
        ({"provider_options": '{ cup = { a = "b" } }'}, "'cup', which is not among the providers.*Did you mean 'cpu'"),
        ({"provider_options": "{ cpu = { a = 1 } }"}, "provider_options.cpu.a is 1, not of type str"),
        ({"limits": "{ latency = 1 }"}, "unknown key 'latency'"),
    ],
)
def test_a_wrong_profile_names_file_and_key(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_device(str(_profile(tmp_path, **changes)))
    assert "mine.toml" in str(caught.value)
