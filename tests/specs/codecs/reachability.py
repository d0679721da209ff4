"""Forms of reachability: what words of peers say of the NAT, and what tests say of an address."""

from __future__ import annotations

from p2pnet.connectivity.nat import (
    Filtering,
    HairpinTests,
    Mapping,
    NatClass,
    PairTests,
    mapping_of,
)
from p2pnet.connectivity.observations import Observation, read_observation
from p2pnet.connectivity.verdict import Cases, DialBack, Weights
from p2pnet.core.addresses import parse
from tests.specs.forms import Fields

ADDRESS = parse("/ip4/5.5.5.5/tcp/4001")


def nat(given: Fields) -> dict[str, object]:
    """Let peers say, one after the other, where they see this host."""
    words: list[Observation] = []
    for number, word in enumerate(given["seen"]):
        by, address = parse(word["by"]), parse(word["address"])
        local = parse(given["nat"])
        found = read_observation(time=float(number), local=local, remote=by, address=address)
        assert found is not None
        words.append(found)
    found_nat = mapping_of(words, given["own"])
    return {"mapping": found_nat.mapping.value, "preserves_port": found_nat.preserves_port}


def verdict(given: Fields) -> str:
    """Let networks try to dial an address, one after the other; the NAT filters as is said."""
    cases = Cases(Weights())
    for number, result in enumerate(given["verdict"]):
        test = DialBack(float(number), result["network"], result["reached"], "server")
        cases.record(ADDRESS, test)
    for network in given["strangers"]:
        cases.record_stranger(ADDRESS, network, 0.0)
    judged = cases.judge(ADDRESS, NatClass(filtering=Filtering(given["filtering"])), 60.0)
    return judged.status.value


def hairpin(given: Fields) -> str:
    """Let this host dial itself, with a NAT that else is such."""
    tests = HairpinTests()
    for word in given["hairpin"]:
        tests.record(is_fresh=word["fresh"], reached=word["reached"])
    mapping, filtering = Mapping(given["mapping"]), Filtering(given["filtering"])
    return tests.hairpinning(mapping, filtering).value


def pairs(given: Fields) -> str:
    """Let peers with two ports say, each in turn, if they see a port of ours alike from both."""
    tests = PairTests()
    for number, same in enumerate(given["pairs"]):
        tests.record(str(number), same=same)
    return tests.refine(Mapping(given["mapping"])).value


FORMS = {"nat": nat, "verdict": verdict, "hairpin": hairpin, "pairs": pairs}
