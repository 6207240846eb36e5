"""This machine as a device: the same steps as over a wire, in child processes."""

import sys
from dataclasses import replace

from edgecv.config.device import DeviceProfile
from edgecv.devices.connection import Connection, Line


def open_local(profile: DeviceProfile) -> Connection:
    """Open this machine; its interpreter is the one that runs edgecv unless the profile names another."""
    named = profile.connection.python
    line = Line(profile.name, named, profile.connection.folder, list, lambda code, text: "", lambda: None)
    return Connection(replace(line, python=sys.executable) if named == "python3" else line)
