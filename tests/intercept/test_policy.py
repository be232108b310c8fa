"""Where traffic may go: rules, files, and what makes no sense."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from zttrio.errors import InterceptError
from zttrio.intercept import policy
from zttrio.intercept.policy import DENY, HOST, VIRTUAL, Policy, Rule
from zttrio.tap import rpc

if TYPE_CHECKING:
    from pathlib import Path


def verdict(rules: Policy, host: str, port: int = 80) -> int:
    return rules.verdict(ip_address(host).packed, port)


def test_the_verdicts_are_the_tap_services() -> None:
    assert (VIRTUAL, HOST, DENY) == (rpc.POLICY_VIRTUAL, rpc.POLICY_HOST, rpc.POLICY_DENY)


def test_by_default_everything_is_virtual_and_strict() -> None:
    default = Policy()
    assert verdict(default, "8.8.8.8") == verdict(default, "::1") == VIRTUAL
    assert default.is_strict
    assert not default.has_host_rules


def test_allowed_destinations_are_the_hosts() -> None:
    made = Policy().allow_host(["192.0.2.0/24", "2001:db8::1"])
    assert verdict(made, "192.0.2.200") == verdict(made, "2001:db8::1") == HOST
    assert verdict(made, "192.0.3.1") == verdict(made, "2001:db8::2") == VIRTUAL
    assert made.has_host_rules


def test_the_loopback_may_be_the_hosts() -> None:
    made = Policy().allow_host([], loopback=True)
    assert verdict(made, "127.8.8.8") == verdict(made, "::1") == HOST


def test_the_first_rule_that_fits_decides() -> None:
    made = Policy(
        (
            Rule("10.0.0.5/32", (443, 443), DENY),
            Rule("10.0.0.0/8", (1, 1023), HOST),
            Rule("10.0.0.0/8", verdict=DENY),
        )
    )
    assert verdict(made, "10.0.0.5", 443) == DENY
    assert verdict(made, "10.0.0.5", 80) == HOST
    assert verdict(made, "10.0.0.5", 8080) == DENY
    assert verdict(made, "11.0.0.5", 8080) == VIRTUAL


def test_a_file_says_all_that_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        'strict = false\ndefault = "deny"\nhost-names = true\n'
        '[[rule]]\nto = "192.0.2.7"\nport = 443\n'
        '[[rule]]\nto = "10.0.0.0/8"\nport = "8000-8100"\nverdict = "virtual"\n'
    )
    made = Policy.load(path)
    assert (made.is_strict, made.default, made.host_names) == (False, DENY, True)
    assert verdict(made, "192.0.2.7", 443) == HOST
    assert verdict(made, "10.1.2.3", 8050) == VIRTUAL
    assert verdict(made, "10.1.2.3", 7999) == DENY


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nonsense", "policy .*: "),
        ("mode = 1", "mode: not a setting"),
        ('default = "maybe"', "must be virtual, host or deny"),
        ("strict = 1", "strict: must be true or false"),
        ("[[rule]]\nport = 1", "rule 1: "),
        ('[[rule]]\nto = "10.0.0.0/8"\nport = "9-8"', "rule 1: port 9-8"),
        ('[[rule]]\nto = "10.0.0.0/8"\nport = 70000', "rule 1: port 70000"),
        ('[[rule]]\nto = "10.0.0.0/8"\nverdict = "no"', "rule 1: verdict 'no'"),
        ('[[rule]]\nto = "10.0.0.0/8"\nfrom = "x"', "rule 1: from"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_place(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(InterceptError, match=complaint):
        Policy.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InterceptError, match=r"missing\.toml: No such file"):
        Policy.load(tmp_path / "missing.toml")


def test_a_destination_that_is_none_is_refused() -> None:
    with pytest.raises(InterceptError, match="allow-host"):
        Policy().allow_host(["everything"])


def test_the_digest_changes_with_the_rules() -> None:
    digests = {
        made.digest()
        for made in (
            Policy(),
            Policy(is_strict=False),
            Policy(default=HOST),
            Policy().allow_host(["10.0.0.1"]),
            Policy().allow_host(["10.0.0.2"]),
        )
    }
    assert len(digests) == 5
    assert all(len(digest) == 32 for digest in digests)
    assert policy.Policy().digest() == Policy().digest()


def test_families_do_not_mix() -> None:
    made = Policy().allow_host(["0.0.0.0/0"])
    assert verdict(made, "1.2.3.4") == HOST
    assert made.verdict(socket.inet_pton(socket.AF_INET6, "::1.2.3.4"), 80) == VIRTUAL
