"""Scripts of multistream-select: who sends which lines, and what is agreed on."""

from __future__ import annotations

from p2pnet.negotiation.machine import Initiator, Responder, encode_line
from tests.specs.forms import Fields


def negotiate(given: Fields) -> str | None:
    """Play a script against the machine of one end; it must take exactly what is meant for it."""
    machine: Initiator | Responder
    if given["multistream"] == "initiator":
        machine = Initiator(given["proposals"])
    else:
        machine = Responder(given["supported"])
    agreed = None
    for step in given["script"]:
        if "send" in step or "send_hex" in step:
            assert machine.data_to_send() == bytes_of(step, "send")
            continue
        data = bytes_of(step, "receive")
        rest = bytes.fromhex(step["rest_hex"]) if "rest_hex" in step else b""
        segment = data + rest
        while segment and (wanted := machine.wanted()):
            agreed = machine.receive(segment[:wanted])
            segment = segment[wanted:]
        assert segment == rest, "the machine took too much or too little"
    assert machine.data_to_send() == b"", "the machine would say more than the script"
    return agreed


def bytes_of(step: Fields, kind: str) -> bytes:
    if f"{kind}_hex" in step:
        return bytes.fromhex(step[f"{kind}_hex"])
    return b"".join(encode_line(line) for line in step[kind])


FORMS = {"multistream": negotiate}
