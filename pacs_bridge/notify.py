"""How does whoever supervises the service (systemd) learn that it is ready?"""

import os
import socket


def tell_supervisor(state: str) -> bool:
    """Send ``READY=1`` or ``STOPPING=1`` to the socket that NOTIFY_SOCKET names (sd_notify, 3); say whether it went.

    Where nobody asks to be told, or has gone away, nothing happens: being supervised is no condition for serving.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as supervisor:
            supervisor.sendto(state.encode(), address)
    except OSError:
        return False
    return True
