"""Opening the connection a device profile names."""

from edgecv.config.device import DeviceProfile
from edgecv.devices.connection import Connection
from edgecv.errors import DeviceUnreachableError


def open_device(profile: DeviceProfile) -> Connection:
    """Reach a device by the kind of connection in its profile.

    Raises:
        DeviceUnreachableError: The profile names none, or the device is not to be reached.
    """
    if profile.connection.kind == "local":
        from edgecv.devices.local import open_local

        return open_local(profile)
    if profile.connection.kind == "ssh":
        from edgecv.devices.ssh import open_ssh

        return open_ssh(profile)
    raise DeviceUnreachableError(
        f"profile '{profile.name}' says no way to reach the device; copy it and add: "
        '[connection] kind = "ssh", host = "NAME" (or kind = "local" for this machine).'
    )
