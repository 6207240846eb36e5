from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.config.device import ConnectionConfig, Limits, known_devices, load_device
from edgecv.config.device_text import device_text


@pytest.mark.parametrize("profile", known_devices(), ids=lambda p: p.name)
def test_every_profile_comes_back_from_its_text(profile: object, tmp_path: Path) -> None:
    path = tmp_path / f"{profile.name}.toml"  # type: ignore[attr-defined]
    path.write_text(device_text(profile, "a\nheading"))  # type: ignore[arg-type]
    assert load_device(str(path)) == profile
    assert path.read_text().startswith("# a heading\n")


def test_strange_names_and_every_table_come_back(tmp_path: Path) -> None:
    base = load_device("rpi5")
    profile = replace(
        base,
        name="mine",
        title='a "board" \\ é \x7f\t',
        connection=ConnectionConfig("ssh", "pi@10.0.0.2"),
        limits=Limits(latency_p95_ms=33.5),
        provider_options={"cpu": {"a.b": "c = d", "e": ""}},
    )
    path = tmp_path / "mine.toml"
    path.write_text(device_text(profile))
    assert load_device(str(path)) == profile
