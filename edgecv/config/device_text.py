"""A device profile as the text of its file."""

import json
from dataclasses import fields, is_dataclass
from typing import Any

from edgecv.config.device import DeviceProfile


def device_text(profile: DeviceProfile, heading: str = "") -> str:
    """Return the TOML that :func:`edgecv.config.device.load_device` reads back; what equals its default is left out.

    Args:
        profile: Any.
        heading: A comment in front, one line.
    """
    lines = [f"# {' '.join(heading.split())}"] if heading else []
    lines += _table(profile, "")
    return "\n".join(lines) + "\n"


def _table(value: Any, name: str) -> list[str]:
    own, tables = [], []
    for f in fields(value):
        held = getattr(value, f.name)
        path = f"{name}.{f.name}" if name else f.name
        if held == f.default or held in ({}, ()):
            continue
        if is_dataclass(held):
            tables += ["", f"[{path}]", *_table(held, path)]
        elif isinstance(held, dict):
            for key, options in held.items():
                tables += ["", f"[{path}.{_text(str(key))}]", *(f"{_text(k)} = {_text(v)}" for k, v in options.items())]
        else:
            own.append(f"{f.name} = {_text(held)}")
    return own + tables


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        short = f"[{', '.join(map(_text, value))}]"
        return short if len(short) < 100 else "[\n" + "".join(f"  {_text(v)},\n" for v in value) + "]"
    # JSON's strings, numbers and truth values are TOML's too, but for the delete character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
