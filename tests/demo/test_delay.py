"""The delaying switch of the laboratory, without sockets."""

from p2pnet.demo.delay import MAX_FRAMES, DelayLine

OFFLOAD = bytes(10)
ALICE, BOB, CAROL, EVERYBODY = b"alice!", b"bobby!", b"carol!", b"\xff" * 6
IPV4, ARP = b"\x08\x00", b"\x08\x06"


def frame(to: bytes, source: bytes, kind: bytes = IPV4, text: bytes = b"") -> bytes:
    return OFFLOAD + to + source + kind + text


class Ports:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def line(self, delay: float) -> DelayLine:
        return DelayLine(
            delay,
            send=lambda port, sent: self.sent.append((port, sent)),
            all_ports=lambda: ["port1", "port2", "port3"],
        )


def test_a_frame_leaves_when_its_delay_is_over_and_not_before() -> None:
    ports = Ports()
    line = ports.line(0.5)
    line.receive("port1", frame(EVERYBODY, ALICE), now=10.0)
    assert line.release(10.25) == 0.25
    assert ports.sent == []
    assert line.release(10.5) is None
    assert [port for port, _ in ports.sent] == ["port2", "port3"]


def test_frames_keep_their_order_and_their_gaps() -> None:
    ports = Ports()
    line = ports.line(0.5)
    first, second = (frame(EVERYBODY, ALICE, text=text) for text in (b"1", b"2"))
    line.receive("port1", first, now=1.0)
    line.receive("port1", second, now=1.25)
    assert line.release(1.5) == 0.25
    line.release(2.0)
    assert ports.sent == [
        ("port2", first),
        ("port3", first),
        ("port2", second),
        ("port3", second),
    ]


def test_a_station_that_was_heard_gets_its_frames_alone() -> None:
    ports = Ports()
    line = ports.line(0.5)
    line.receive("port2", frame(EVERYBODY, BOB, ARP), now=0.0)
    ports.sent.clear()
    line.receive("port1", frame(BOB, ALICE), now=0.0)
    line.release(1.0)
    assert ports.sent == [("port2", frame(BOB, ALICE))]


def test_a_frame_never_returns_to_the_port_it_came_from() -> None:
    ports = Ports()
    line = ports.line(0.5)
    line.receive("port1", frame(EVERYBODY, BOB), now=0.0)
    line.receive("port1", frame(BOB, ALICE), now=0.0)
    line.release(1.0)
    assert [port for port, _ in ports.sent] == ["port2", "port3"]


def test_half_of_the_delay_lies_between_the_middle_and_others() -> None:
    ports = Ports()
    line = ports.line(0.5)
    for port, station in (("port1", ALICE), ("port2", BOB), ("port-near3", CAROL)):
        line.receive(port, frame(EVERYBODY, station, ARP), now=0.0)
    ports.sent.clear()
    line.receive("port1", frame(BOB, ALICE), now=1.0)
    line.receive("port1", frame(CAROL, ALICE), now=1.125)
    line.receive("port-near3", frame(BOB, CAROL), now=1.1875)
    assert line.release(1.25) == 0.125
    line.release(1.5)
    assert [port for port, _ in ports.sent] == ["port-near3", "port2", "port2"]
    assert [sent[16:22] for _, sent in ports.sent] == [ALICE, CAROL, ALICE]


def test_arp_passes_at_once() -> None:
    ports = Ports()
    line = ports.line(0.5)
    line.receive("port1", frame(EVERYBODY, ALICE, ARP), now=0.0)
    assert [port for port, _ in ports.sent] == ["port2", "port3"]
    assert line.release(0.0) is None


def test_a_full_queue_loses_what_comes_last() -> None:
    ports = Ports()
    line = ports.line(0.5)
    line.receive("port2", frame(EVERYBODY, BOB, ARP), now=0.0)
    ports.sent.clear()
    for number in range(MAX_FRAMES + 1):
        line.receive("port1", frame(BOB, ALICE, text=b"%d" % number), now=0.0)
    line.release(1.0)
    assert len(ports.sent) == MAX_FRAMES
    assert ports.sent[-1][1].endswith(b"%d" % (MAX_FRAMES - 1))
