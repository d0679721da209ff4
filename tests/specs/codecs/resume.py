"""Codec and forms of resume: frames, proofs, and a responder whose opener is a script."""

from __future__ import annotations

from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.resume.carrier import Carrier
from p2pnet.protocols.resume.flow import restrain
from p2pnet.protocols.resume.machine import Machine, StaleMove
from p2pnet.protocols.resume.messages import (
    SMALLEST_WINDOW,
    Accept,
    Ack,
    Again,
    Data,
    Decoder,
    Fin,
    Frame,
    Leave,
    Mark,
    Move,
    Moved,
    Open,
    Reset,
    Seek,
    Stop,
    data_header,
    encode,
)
from p2pnet.protocols.resume.policy import Tokens
from tests.specs.forms import Codec, Fields, plain

SECRET = bytes(16)
OPENER = PeerId.parse("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
RESPONDER = PeerId.parse("12D3KooWM6CgA9iBFZmcYAHA6A2qvbAxqfkmrYiRQuz3XEsk4Ksv")
TOKENS = Tokens(SECRET, OPENER, RESPONDER)


def decode(data: bytes) -> Frame:
    (frame,) = Decoder().feed(data)
    assert not isinstance(frame, Data)
    return frame


def describe(frame: Frame) -> object:
    return {"kind": type(frame).__name__, **plain(frame)}


CODECS = {"Frame": Codec(decode=decode, encode=encode, describe=describe)}


def tokens(given: Fields) -> dict[str, bytes]:
    found = Tokens(
        bytes.fromhex(given["tokens"]),
        PeerId.parse(given["opener"]),
        PeerId.parse(given["responder"]),
    )
    number = given["number"]
    return {
        "name": found.name,
        "move": found.proof("move", number),
        "ask": found.proof("ask", number),
    }


def written(text: str) -> bytes:
    """Write a frame as a script has it: its name, and its fields."""
    name, _, rest = text.partition(" ")
    words = rest.split()
    match name:
        case "Data":
            return data_header(len(rest)) + rest.encode()
        case "Open":
            return encode(Open(SECRET, int(words[0]), words[1]))
        case "Move":
            number, received, limit = map(int, words[:3])
            proof = TOKENS.proof("move", number)
            alive = words[3:] == ["alive"]
            return encode(Move(TOKENS.name, number, proof, received, limit, alive))
        case _:
            return encode(SIMPLE[name](*map(int, words)))


SIMPLE: dict[str, type[Accept | Moved | Seek | Fin | Ack | Again | Reset | Leave | Mark | Stop]] = {
    kind.__name__: kind for kind in (Accept, Moved, Seek, Fin, Ack, Again, Reset, Leave, Mark, Stop)
}


def responder(given: Fields) -> str:
    """Play the opener; return what the application reads, with a dot at the end of it."""
    machine = Machine(TOKENS, SMALLEST_WINDOW, is_opener=False)
    carriers: dict[str, Carrier] = {}
    try:
        for step in given["responder"]:
            play(machine, carriers, step)
    except StaleMove:
        return "stale"
    text = ""
    while data := machine.read(None):
        text += data.decode()
    return text + "." if machine.receiving.has_ended else text


def play(machine: Machine, carriers: dict[str, Carrier], step: Fields) -> None:
    name = step["on"]
    if "receive" in step:
        first, *others = map(written, step["receive"])
        if name not in carriers:
            carriers[name] = begun(machine, decode(first))
        else:
            machine.receive(carriers[name], first)
        machine.receive(carriers[name], b"".join(others))
    if "write" in step:
        machine.write(step["write"].encode(), 0)
    if "restrain" in step:
        restrain(carriers[name], step["restrain"])
    if step.get("finishes"):
        machine.finish()
    if step.get("closes"):
        machine.close()
    if "send" in step:
        sent = b"".join(machine.data_to_send(carriers[name]))
        assert sent == b"".join(map(written, step["send"])), sent.hex()
    if step.get("breaks"):
        machine.broke(carriers[name])


def begun(machine: Machine, first: Frame) -> Carrier:
    if isinstance(first, Open):
        return machine.accept(first, Decoder())
    assert isinstance(first, Move)
    return machine.answer(first, Decoder())


FORMS = {"tokens": tokens, "responder": responder}
