"""What a C-STORE is answered with."""

from enum import IntEnum


class Status(IntEnum):
    """C-STORE response status (PS3.4 B.2.3 and PS3.7 9.1.1.1.9)."""

    SUCCESS = 0x0000
    PEER_PROCESSING_FAILURE = 0x0110
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    DIFFERENT_CONTENT = 0xC001
    PROCESSING_FAILURE = 0xC002
