"""Every cause can be acted upon, and every error has one. Rule V23."""

from __future__ import annotations

import errno

import pytest
import trio

from p2pnet import errors
from p2pnet.connectivity.causes import BY_STATUS, Cause, Finding, cause_of, causes_below
from p2pnet.core.addresses import parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import (
    AddressMisleads,
    AddressUnsupported,
    AnotherNetwork,
    BothDialed,
    ClocksDiffer,
    ConnectionLost,
    DialError,
    EventsMissed,
    ExtraMissing,
    FailedAttempt,
    HandshakeCut,
    LeftOut,
    LimitedConnection,
    LimitExceeded,
    NameNotFound,
    NameServersSilent,
    NegotiationFailed,
    NoPunchAddress,
    NotARelay,
    NotDialled,
    P2PError,
    PeerIdMismatch,
    PeerLeft,
    PeerSilent,
    ProofRefused,
    ProtocolError,
    PunchFailed,
    RelayRefused,
    SecurityError,
    StreamReset,
    StreamTampered,
)
from p2pnet.protocols.relay.messages import Status
from p2pnet.swarm.backoff import BackingOff

PEER = PeerId.from_public_key(PrivateKey.from_seed(b"\x01" * 32).public_key)
PUBLIC, PRIVATE = parse("/ip4/8.8.8.8/tcp/1"), parse("/ip4/192.168.1.2/tcp/1")
CIRCUIT = parse(f"/ip4/9.9.9.9/tcp/1/p2p/{PEER}/p2p-circuit")
REFUSED, TOO_SLOW = ConnectionRefusedError(errno.ECONNREFUSED, "no"), trio.TooSlowError()

EXAMPLES: list[tuple[BaseException, Cause]] = [
    (ProtocolError("/yamux/1.0.0", "a bad frame"), Cause.MISBEHAVES),
    (ProtocolError("/multistream/1.0.0", "this is HTTP"), Cause.NOT_A_PEER),
    (ClocksDiffer("/hop", "it expired"), Cause.WRONG_CLOCK),
    (BothDialed("/noise", "simultaneous open"), Cause.HUNG_UP),
    (SecurityError("a wrong signature"), Cause.NOT_SECURE),
    (StreamTampered("changed"), Cause.NOT_SECURE),
    (PeerIdMismatch("a", "b"), Cause.WRONG_PEER),
    (HandshakeCut("cut"), Cause.HUNG_UP),
    (ProofRefused("no certificate"), Cause.HUNG_UP),
    (AnotherNetwork("no key"), Cause.OTHER_NETWORK),
    (NegotiationFailed(["/noise"]), Cause.NOTHING_IN_COMMON),
    (DialError(PEER, (), "no address"), Cause.NO_ADDRESS),
    (AddressUnsupported(PUBLIC), Cause.UNSUPPORTED),
    (AddressMisleads(PUBLIC, "our own"), Cause.MISLEADING),
    (NotARelay(CIRCUIT, "it is none"), Cause.NO_RELAY_SERVICE),
    (NameNotFound("a.example"), Cause.NAME_NOT_FOUND),
    (NameServersSilent("a.example", "no answer"), Cause.NAME_SERVERS),
    (RelayRefused(PEER, "NO_RESERVATION"), Cause.NOT_RESERVED),
    (RelayRefused(PEER, "status 777"), Cause.RELAY_DENIES),
    (NoPunchAddress("none"), Cause.NO_PUNCH_ADDRESS),
    (PunchFailed(PEER, ()), Cause.PUNCH_UNANSWERED),
    (LimitedConnection(PEER), Cause.LIMITED),
    (LimitExceeded("max_streams", 5), Cause.OWN_LIMIT),
    (ConnectionLost("gone"), Cause.HUNG_UP),
    (PeerLeft("closed by the peer"), Cause.HUNG_UP),
    (PeerSilent("no sign of life"), Cause.NO_ANSWER),
    (StreamReset("reset"), Cause.HUNG_UP),
    (BackingOff(5.0, "timed out"), Cause.RESTING),
    (NotDialled(LeftOut.BLACK_HOLE, "this network seems to swallow UDP"), Cause.LEFT_OUT),
    (TOO_SLOW, Cause.NO_ANSWER),
    (trio.BrokenResourceError("broken"), Cause.HUNG_UP),
    (REFUSED, Cause.REFUSED),
    (OSError(errno.ENETUNREACH, "no way"), Cause.NO_ROUTE),
    (OSError(errno.EHOSTUNREACH, "no way"), Cause.NO_ROUTE),
    (TimeoutError(errno.ETIMEDOUT, "silence"), Cause.NO_ANSWER),
    (ConnectionResetError(errno.ECONNRESET, "reset"), Cause.HUNG_UP),
    (OSError(errno.EMFILE, "too many files"), Cause.SYSTEM),
    (OSError("no number"), Cause.SYSTEM),
    (P2PError("some reason"), Cause.UNKNOWN),
    (EventsMissed(3), Cause.UNKNOWN),
    (ExtraMissing("QUIC needs aioquic", "quic"), Cause.UNKNOWN),
]


@pytest.mark.parametrize(("error", "cause"), EXAMPLES, ids=lambda value: repr(value)[:40])
def test_an_error_has_a_cause(error: BaseException, cause: Cause) -> None:
    assert cause_of(error) is cause


def test_the_examples_leave_no_error_of_the_library_out() -> None:
    """V23."""
    kinds = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, P2PError)
    }
    assert kinds <= {type(error) for error, _ in EXAMPLES}


@pytest.mark.parametrize("cause", Cause)
def test_a_cause_has_words_and_a_remedy_of_its_own(cause: Cause) -> None:
    """V23."""
    assert cause.words
    assert cause.remedy
    assert not (cause.words + cause.remedy).endswith(".")
    assert [other for other in Cause if other.words == cause.words] == [cause]
    assert cause.words in str(Finding(cause, "a detail"))
    assert cause.remedy in str(Finding(cause, "a detail"))


@pytest.mark.parametrize("status", Status)
def test_each_refusal_of_a_relay_has_a_cause(status: Status) -> None:
    if status not in (Status.OK, Status.UNUSED):
        assert cause_of(RelayRefused(PEER, status.name)) is BY_STATUS[status.name]


def dial(*attempts: tuple[object, BaseException]) -> DialError:
    return DialError(PEER, [FailedAttempt(address, cause) for address, cause in attempts])


def test_of_several_addresses_counts_what_says_most() -> None:
    """V21."""
    unsupported = AddressUnsupported(PUBLIC)
    assert cause_of(dial((PUBLIC, unsupported), (PUBLIC, TOO_SLOW))) is Cause.NO_ANSWER
    assert cause_of(dial((PUBLIC, REFUSED), (PUBLIC, TOO_SLOW))) is Cause.REFUSED
    refusal = RelayRefused(PEER, "NO_RESERVATION")
    assert cause_of(dial((CIRCUIT, refusal), (PUBLIC, REFUSED))) is Cause.NOT_RESERVED
    resting = BackingOff(1.0, "timed out")
    assert cause_of(dial((PUBLIC, TOO_SLOW), (PUBLIC, resting))) is Cause.NO_ANSWER


def test_whoever_has_a_private_address_here_says_less_than_a_relay() -> None:
    """V21."""
    wrong, refusal = PeerIdMismatch("a", "b"), RelayRefused(PEER, "NO_RESERVATION")
    assert cause_of(dial((PRIVATE, wrong), (CIRCUIT, refusal))) is Cause.NOT_RESERVED
    assert cause_of(dial((PUBLIC, wrong), (CIRCUIT, refusal))) is Cause.WRONG_PEER
    assert cause_of(dial((PRIVATE, wrong), (PUBLIC, REFUSED))) is Cause.WRONG_PEER


def test_a_relay_that_cannot_be_dialled_is_not_the_peer() -> None:
    below = dial((PUBLIC, REFUSED))
    above = dial((CIRCUIT, below))
    assert cause_of(above) is Cause.RELAY_UNREACHABLE
    assert list(causes_below(dial((PUBLIC, TOO_SLOW), (CIRCUIT, below)))) == [
        Cause.NO_ANSWER,
        Cause.REFUSED,
    ]
