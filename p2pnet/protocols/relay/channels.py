"""What relay and client share: message channels on streams, and which connection is direct."""

from __future__ import annotations

import trio

from p2pnet.core.channel import MessageChannel
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Connection, ServiceHost
from p2pnet.protocols.relay.messages import (
    HOP,
    MAX_MESSAGE_BYTES,
    STOP,
    HopMessage,
    StopMessage,
    decode_hop_untrusted,
    decode_stop_untrusted,
    encode_hop,
    encode_stop,
)


def hop_channel(stream: trio.abc.Stream) -> MessageChannel[HopMessage]:
    return MessageChannel(
        stream, HOP, encode=encode_hop, decode=decode_hop_untrusted, max_bytes=MAX_MESSAGE_BYTES
    )


def stop_channel(stream: trio.abc.Stream) -> MessageChannel[StopMessage]:
    return MessageChannel(
        stream, STOP, encode=encode_stop, decode=decode_stop_untrusted, max_bytes=MAX_MESSAGE_BYTES
    )


def direct_connection(host: ServiceHost, peer_id: PeerId) -> Connection | None:
    """Return the best live connection to a peer that no relay carries."""
    for connection in host.connections(peer_id):
        if not connection.is_relayed and not connection.is_closed:
            return connection
    return None
