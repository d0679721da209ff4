r"""Measure NATs, and punch through them with plain sockets: the calibration instrument.

Nothing of libp2p is in here, and nothing but `p2pnet.core.env.Network` is asked for sockets, so
the very same code runs on the sockets of a real machine and in a simulated internet. For the
same kind of NAT both must give the same.

In a program::

    endpoints = await nursery.start(serve_observer, network, ["11.0.0.1", "11.0.0.2"])
    found = await classify(network, "udp", endpoints.udp, jitter=env.jitter)

    await nursery.start(serve_rendezvous, network, Endpoint("11.0.0.1", 7000))
    plan = Plan(name="alice", peer="bob")
    result = await punch(network, "tcp", Endpoint("11.0.0.1", 7000), plan=plan, jitter=env.jitter)

On a command line, one JSON object a line on stdout; servers print theirs when they are ready,
and serve until they are ended::

    $ python -m p2pnet.testing.probing observer --address 11.0.0.1 --address 11.0.0.2
    {"event": "ready", "tcp": ["11.0.0.1:7001", "11.0.0.1:7002", ...], "udp": [...]}

    # Two machines with one address each; both are to be given:
    $ python -m p2pnet.testing.probing observer --address 11.0.0.1 --partner 11.0.0.2:7001
    $ python -m p2pnet.testing.probing observer --address 11.0.0.2 --partner 11.0.0.1:7001

    $ python -m p2pnet.testing.probing classify --transport udp \
          --observer 11.0.0.1:7001 --observer 11.0.0.1:7002 --observer 11.0.0.2:7001
    {"event": "classified", "transport": "udp", "blocked": false, "outside": "11.0.1.1:40001",
     "translated": true, "mapping": "endpoint-independent",
     "filtering": "address-and-port-dependent", "ports": "preserving", "preserves_port": true,
     "port_step": null, "hairpins": false, "unsolicited": null}

    $ python -m p2pnet.testing.probing rendezvous --at 11.0.0.1:7000
    {"event": "ready", "tcp": ["11.0.0.1:7000"], "udp": ["11.0.0.1:7000"]}

    $ python -m p2pnet.testing.probing punch --transport tcp --rendezvous 11.0.0.1:7000 \
          --name alice --peer bob
    {"event": "punched", "direct": true, "reason": "dialled", "seconds": 0.13,
     "remote": "11.0.2.1:40001", "outside": "11.0.1.1:40001"}

What fails is ``{"event": "error", "message": ...}``, and an exit code of 1; a hole punch that
did not work is a result, and no failure.
"""

from p2pnet.testing.probing.classifying import classify
from p2pnet.testing.probing.judging import Classification, Observers, Unmeasurable
from p2pnet.testing.probing.observing import ObserverEndpoints, serve_observer
from p2pnet.testing.probing.punching import Plan, PunchResult, punch
from p2pnet.testing.probing.rendezvous import serve_rendezvous

__all__ = [
    "Classification",
    "ObserverEndpoints",
    "Observers",
    "Plan",
    "PunchResult",
    "Unmeasurable",
    "classify",
    "punch",
    "serve_observer",
    "serve_rendezvous",
]
