"""``python -m benchmarks.rules``: what a decision about one frame costs, in both directions."""

from __future__ import annotations

import argparse
import time
from random import Random
from typing import TYPE_CHECKING

from zttrio.zerotier.network.rule_frame import Surroundings
from zttrio.zerotier.network.rule_language import compile_text
from zttrio.zerotier.network.rule_policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from zttrio.zerotier.network.rules import Rule

ME = bytes.fromhex("317251008d")
PEER = bytes.fromhex("f051ad3d6e")
MAC_ME = bytes.fromhex("02fcd975d99c")
MAC_PEER = bytes.fromhex("023dfa89e47f")
# An acknowledgement with 1200 octets of data, of a connection from port 1024 to port 107.
PACKET = (
    bytes.fromhex("450004d80001000040060000" + "0a050009" + "0a050007" + "0400006b")
    + bytes(8)
    + bytes.fromhex("5010000000000000")
    + bytes(1200)
)

IP_ONLY = "drop not ethertype ipv4 and not ethertype arp and not ethertype ipv6;"
NEW_TCP = "break chr tcp_syn and not chr tcp_ack; accept;"
NETWORKS = {
    "accept everything": "accept;",
    "accept IP": f"{IP_ONLY} accept;",
    "ports, 11 rules": f"{IP_ONLY} accept dport 22 or dport 80 and ipprotocol tcp; {NEW_TCP}",
    "ports, tags and owners, 23 rules": f"""
        tag floor id 1000 default 0;
        drop not ethertype ipv4 and not ethertype arp and not ethertype ipv6 or not chr ipauth;
        accept ipprotocol tcp and dport 22;
        accept ipprotocol tcp and dport 80;
        accept ipprotocol tcp and dport 443;
        accept dport 139 or dport 445 and ipprotocol tcp and tdiff floor 0;
        {NEW_TCP}
    """,
    "1000 rules": "drop ipprotocol tcp and dport 22 and ipsrc 10.0.0.0/8;" * 250,
}


class Peer:
    """A member with everything that these networks ask for."""

    def tag(self, _: int, /) -> int | None:
        return 0

    def capabilities(self) -> tuple[()]:
        return ()

    def owns_ip(self, _: bytes, /) -> bool:
        return True

    def owns_mac(self, _: bytes, /) -> bool:
        return True


def cost(work: Callable[[], object], seconds: float) -> float:
    """Microseconds that *work* takes, the best of three tries."""
    best = float("inf")
    for _ in range(3):
        count, step = 0, 1
        start = time.perf_counter()
        while (taken := time.perf_counter() - start) < seconds / 3:
            for _ in range(step):
                work()
            count += step
            step = min(2 * step, 1024)
        best = min(best, taken / count)
    return best * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each (default: 1.0)")
    seconds = parser.parse_args().seconds
    peer = Peer()
    around = Surroundings(ME, Random(1), {1000: 0}, frozenset((PACKET[12:16],)))
    print(f"{'':34}{'outbound':>10}{'inbound':>10}{'first':>10}   us")
    for name, text in NETWORKS.items():
        rules = compile_text(text).rules
        policy = Policy(rules, around)

        def outbound(policy: Policy = policy) -> object:
            return policy.decide_outbound(PEER, MAC_PEER, MAC_ME, 0x0800, PACKET, peer)

        def inbound(policy: Policy = policy) -> object:
            return policy.decide_inbound(PEER, MAC_ME, MAC_PEER, 0x0800, PACKET, peer)

        def first(rules: tuple[Rule, ...] = rules) -> object:
            return inbound(Policy(rules, around))

        costs = [cost(work, seconds) for work in (outbound, inbound, first)]
        print(f"{name:34}{costs[0]:10.2f}{costs[1]:10.2f}{costs[2]:10.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
