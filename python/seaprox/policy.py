"""Policies: which keys may have a link, and what their nodes may do here."""

from __future__ import annotations

from .enums import Verdict
from .keys import PublicKey


class Policy:
    """The policy of links. Override what you permit: all else is refused. One without `admit` admits the peer_key of the
    link, and the keys of the files that its options name.

    The methods may be asked several times for one request. They run in the middle of a turn: they must not block, and must
    not use the loop, which answers BusyError. An exception that leaves one is reported, and refuses.

    max_num_streams: streams that a peer may have open at once, 0 as many as the link has; max_bytes_per_second: of a peer in
    each direction, 0 without a limit. They are read when the link is made.
    """

    max_num_streams: int = 0
    max_bytes_per_second: int = 0

    def admit(self, key: PublicKey) -> bool:
        """Returns True if the key may have a link."""
        return False

    def open(self, key: PublicKey, target: str) -> Verdict:
        """A peer opens a stream or a flow of datagrams to a target, such as example.org:80 or udp:[::1]:53."""
        return Verdict.REFUSE

    def reach(self, key: PublicKey, target: str, address: str) -> Verdict:
        """After Verdict.BY_ADDRESS: is the target permitted with this IP address of its name? PERMIT or REFUSE."""
        return Verdict.REFUSE

    def listen(self, key: PublicKey, address: str) -> Verdict:
        """A peer wants this node to listen on an address for it: REFUSE, PERMIT or ASK."""
        return Verdict.REFUSE


def is_written(policy: Policy, name: str) -> bool:
    """Returns True if a policy has a method of its own with this name."""
    return getattr(type(policy), name) is not getattr(Policy, name) or name in getattr(policy, "__dict__", {})
