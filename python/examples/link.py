"""Both ends of a link. They share a secret in the environment, from which both derive the same key.
    SECRET=... link.py serve 0.0.0.0:23232 db:5432
    SECRET=... link.py dial gateway.example.org 127.0.0.1:5432 db:5432
The first one permits its peer the one target that it names. The second one listens, and its clients reach the target there."""

import os
import sys

import seaprox
from seaprox import LinkEvent, Policy, PrivateKey, PublicKey, Verdict


class OneTarget(Policy):
    def open(self, key: PublicKey, target: str) -> Verdict:
        return Verdict.PERMIT if target == sys.argv[3] else Verdict.REFUSE


def on_event(event: LinkEvent) -> None:
    print(f"link: {event.kind.name.lower()}", flush=True)


key = PrivateKey.derive(os.environ["SECRET"])
with seaprox.Loop() as loop:
    if sys.argv[1] == "serve":
        server = loop.serve_links(sys.argv[2], key=key, peer_key=key.public, policy=OneTarget(), on_event=on_event)
        print("listening on port", server.port, flush=True)
    else:
        link = loop.dial_link(sys.argv[2], key=key, peer_key=key.public, on_event=on_event)
        forward = link.forward_local(sys.argv[3], sys.argv[4])
        print("listening on port", forward.port, flush=True)
    loop.run()
