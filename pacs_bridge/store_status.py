"""What does a sender hear of an instance: the C-STORE statuses that we answer (PS3.4, B.2.3)."""

from enum import IntEnum


class StoreStatus(IntEnum):
    """Success means that the instance is on the disk and in the index; everything else that nothing was kept."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
