"""From the settings to a listener: where it listens, whom it lets in, and what a sender may do to it."""

from pacs_bridge.archive_files import ArchiveFiles
from pacs_bridge.front_desk import Admission, Known, ReceptionDesk
from pacs_bridge.listener import Listener, ListenerOptions
from pacs_bridge.negotiation import services_of
from pacs_bridge.receiving.receiver import ReceiverOptions
from pacs_bridge.receiving.storing_socket import Bounds
from pacs_bridge.settings import Settings


def listener_of(settings: Settings, desk: ReceptionDesk, files: ArchiveFiles) -> Listener:
    """Make the listener that the settings describe."""
    return Listener(listener_options(settings), desk, files)


def listener_options(settings: Settings) -> ListenerOptions:
    """Return where to listen, and within which bounds."""
    listener = settings.listener
    return ListenerOptions(
        receiver=ReceiverOptions(
            ae_title=listener.ae_title,
            bounds=Bounds(
                maximum_pdu_bytes=listener.maximum_pdu_kb * 1024,
                idle_s=listener.idle_s,
                slowest_bytes_per_s=listener.slowest_kb_per_s * 1024,
            ),
            maximum_instance_bytes=listener.maximum_instance_mb * 2**20,
            services=services_of(settings),
        ),
        host=listener.host,
        port=listener.port or None,
        tls_port=listener.tls_port or None,
        tls=settings.tls,
        processes=listener.processes,
    )


def admission_of(settings: Settings) -> Admission:
    """Return whom to let in."""
    return Admission(
        ae_title=settings.listener.ae_title,
        known=tuple(Known(ae_title=each.ae_title, address=each.address, tls=each.tls) for each in settings.caller),
        maximum_associations=settings.listener.maximum_associations,
    )
