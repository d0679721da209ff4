"""What the machine knows of one stream that carries, or carried, or may carry. No I/O."""

from __future__ import annotations

from p2pnet.errors import ProtocolError
from p2pnet.protocols.resume.messages import PROTOCOL_ID, Accept, Decoder, Moved

MAX_CONTROL = 4096
"""Bytes of frames without data that wait to be sent; a few dozen are usual at most."""


class Carrier:
    """One carrier. All that changes in it is changed by the ``Machine``."""

    def __init__(self, decoder: Decoder, *, awaits: type[Accept | Moved] | None) -> None:
        self.decoder = decoder
        self.awaits = awaits
        """What the opener waits for here."""
        self.control = bytearray()
        self.next_out = 0
        self.marked = 0
        """Up to here we have asked to be told what has come."""
        self.leash: int | None = None
        """So many bytes may be on their way; None: as many as the other side takes."""
        self.is_fin_out = False
        self.position = 0
        """Where the next data that comes here belongs."""
        self.held = bytearray()
        """What has come here ahead of its time; it ends at ``position``."""
        self.has_asked_again = False
        self.is_leaving = False
        """We send nothing more here."""
        self.is_left = False
        """The other side said LEAVE."""
        self.has_ended = False
        """Nothing more comes here."""
        self.is_dropped = False
        """Its driver has to reset it."""

    def check_control(self) -> None:
        """See that the other side reads what it is answered.

        Raises:
            ProtocolError: if it asks on and on without.
        """
        if len(self.control) > MAX_CONTROL:  # RS11
            raise ProtocolError(PROTOCOL_ID, "has more answered than it reads")
