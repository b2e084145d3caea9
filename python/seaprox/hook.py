"""Hooks: code that sees the bytes which a connection relays, and may change them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .enums import Reason, Role

if TYPE_CHECKING:
    from .values import Transit


class Hook:
    """The callbacks of a hook (Connection.set_hook). They must not block, and must not use the loop, which answers BusyError.

    An exception that leaves one is reported, and one that leaves data or fin ends the connection with Reason.INTERNAL.
    """

    def connected(self) -> None:
        """The connection begins to relay."""

    def data(self, role: Role, transit: Transit) -> Reason | None:
        """A side has sent bytes. What is written to the transit goes to the other side. What is not consumed is shown again
        with more. Returns a reason to end the connection."""
        transit.pass_on()
        return None

    def fin(self, role: Role, transit: Transit) -> Reason | None:
        """A side has sent its FIN; otherwise like data. It is called until all is consumed, or until nothing moves."""
        transit.pass_on()
        return None

    def ended(self, reason: Reason) -> None:
        """The connection is over."""
