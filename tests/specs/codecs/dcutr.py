"""DCUtR: its messages, its conversation by script, and whom it dials in which role."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from p2pnet.core.addresses import Endpoint, Multiaddr, parse
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.dcutr.budget import TargetBudget
from p2pnet.protocols.dcutr.dialogue import Ahead, Channel, Punch, answer_ahead, initiate, respond
from p2pnet.protocols.dcutr.messages import (
    Connect,
    HolePunch,
    Side,
    Swift,
    Sync,
    decode_untrusted,
    encode_message,
)
from p2pnet.protocols.dcutr.policy import (
    dials_in,
    gives_way,
    is_astray,
    neighbours,
    role_of,
    targets,
)
from p2pnet.protocols.dcutr.prediction import (
    Forecast,
    Offering,
    Sample,
    foresee,
    with_predicted,
)
from tests.specs.forms import Codec, Dialogue, Fields, Toml


def described(message: HolePunch) -> Toml:
    match message:
        case Connect(addresses, side, swift, dials):
            told: dict[str, Toml] = {} if side is None else {"side": side.name}
            if dials is not None:
                told["dials"] = dials
            if swift is not None:
                rare: dict[str, Toml] = {"steady": list(swift.steady)} if swift.steady else {}
                rare |= {"heard": True} if swift.heard else {}
                told["swift"] = {"waited": swift.waited, "hidden": list(swift.hidden), **rare}
            return {"type": "CONNECT", "addresses": [str(each) for each in addresses], **told}
        case Sync():
            return {"type": "SYNC"}


def message(name: str, given: Fields) -> object:
    """Build a message, or what a decoder makes of its bytes."""
    match name:
        case "Connect":
            return connect(given["addresses"], given)
        case "Sync":
            return Sync()
        case _:
            return decode_untrusted(bytes.fromhex(name))


def connect(texts: list[str], given: Fields) -> Connect:
    side = Side[given["side"]] if "side" in given else None
    swift = swift_of(given["swift"]) if "swift" in given else None
    return Connect(tuple(map(parse, texts)), side, swift, given.get("dials"))


def swift_of(given: Fields) -> Swift:
    steady, heard = tuple(given.get("steady", ())), given.get("heard", False)
    return Swift(given["waited"], tuple(given["hidden"]), steady, heard)


def ahead(given: Fields) -> Ahead | None:
    if "ahead" not in given:
        return None
    told = given["ahead"]
    addresses = tuple(map(parse, told["addresses"]))
    return Ahead(addresses, swift_of(told["swift"]), told["round_trip"])


async def initiation(channel: Channel, now: Callable[[], float], given: Fields) -> Punch:
    """Initiate, as who has heard something ahead does if so."""
    ours, heard = connect(given["ours"], given), ahead(given)
    if heard is not None:
        return await answer_ahead(channel, ours, heard, now)
    return await initiate(channel, ours, now, opened=given.get("opened"))


def offers(given: Fields) -> Callable[[tuple[Multiaddr, ...]], Awaitable[Connect]]:
    answer = connect(given["ours"], given)

    async def offer(theirs: tuple[Multiaddr, ...]) -> Connect:
        return answer

    return offer


CODECS = {
    "HolePunch": Codec(decode=decode_untrusted, encode=encode_message, describe=described),
}
DIALOGUES = {
    "initiate": Dialogue(
        play=initiation,
        message=message,
    ),
    "respond": Dialogue(
        play=lambda channel, now, given: respond(
            channel, offers(given), now, opened=given.get("opened"), ahead=ahead(given)
        ),
        message=message,
    ),
}


def sample(text: str) -> Sample:
    local, _, seen = text.partition(" > ")
    host, _, port = seen.partition(":")
    return Sample("tcp", int(local), Endpoint(host, int(port)))


def forecast(text: str) -> Forecast:
    transport, host, last, step = text.split()
    return Forecast(transport, host, int(last), int(step))


def foreseen(known: Forecast | None, later: int) -> Toml:
    if known is None:
        return "nothing"
    now = known.by_now(later)
    return {
        "transport": now.transport,
        "host": now.host,
        "last": now.last,
        "step": now.step,
    }


def spent(size: Fields, dials: list[str]) -> list[bool]:
    budget = TargetBudget(per_ip=size["per_ip"], per_prefix=size["per_prefix"])
    steps = (text.split() for text in dials)
    return [budget.take(parse(f"/ip4/{host}/tcp/1"), float(at)) for at, _, host in steps]


FORMS = {
    "foresee": lambda given: foreseen(
        foresee(
            [sample(text) for text in given["foresee"]],
            [parse(text) for text in given["observed"]],
        ),
        given.get("later", 0),
    ),
    "offer": lambda given: [
        with_predicted(
            [parse(text) for text in given["offer"]],
            [forecast(text) for text in given["forecasts"]],
            Offering(
                attempt,
                6,
                16,
                [parse(text) for text in given.get("dialled", ())],
                is_astray(attempt, initiator=given.get("initiator", True)),
            ),
        )
        for attempt in given["attempts"]
    ],
    "targets": lambda given: targets(
        [parse(text) for text in given["targets"]],
        peer_id=PeerId.parse(given["peer"]),
        own=[parse(text) for text in given["own"]],
        allow_private=False,
    ),
    "budget": lambda given: spent(given["budget"], given["dials"]),
    "neighbours": lambda given: neighbours(
        [parse(text) for text in given["neighbours"]],
        peer_id=PeerId.parse(given["peer"]),
        own=[parse(text) for text in given["own"]],
        relays=[(parse(here), parse(there)) for here, there in given.get("relays", [])],
    ),
    "roles": lambda given: [
        ", ".join(
            role_of(
                attempt,
                initiator=each,
                turned=given.get("turned", False),
                dials=dials_in(attempt) if given.get("is_said") else None,
            ).value
            for each in (True, False)
        )
        for attempt in given["roles"]
    ],
    "gives_way": lambda given: gives_way(
        PeerId.parse(given["gives_way"]), PeerId.parse(given["peer"])
    ),
}
