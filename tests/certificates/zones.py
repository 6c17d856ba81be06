#!/usr/bin/env python3
"""Zones around a DNS server that knows none, as that of Pebble: whose a name is.

    zones.py PORT SERVER ZONE...

Says what is known of the zones themselves, with authority, and asks SERVER (127.0.0.1:PORT) for
texts and aliases. Addresses there are none: that server has one for every name, as a wildcard has.
"""

import sys
import time

from dnslib import NS, QTYPE, RR, SOA, A, DNSRecord
from dnslib.server import BaseResolver, DNSServer

PORT, SERVER, ZONES = int(sys.argv[1]), sys.argv[2].split(":"), sys.argv[3:]
NAME_SERVER = "ns.zones.invalid."


class Zones(BaseResolver):
    def resolve(self, request, handler):
        reply = request.reply(aa=1)
        name, kind = str(request.q.qname).lower(), QTYPE[request.q.qtype]
        if kind in ("SOA", "NS"):
            if name.rstrip(".") in ZONES:
                numbers = (1, 60, 60, 60, 60)
                data = SOA(NAME_SERVER, NAME_SERVER, numbers) if kind == "SOA" else NS(NAME_SERVER)
                reply.add_answer(RR(name, getattr(QTYPE, kind), rdata=data, ttl=1))
            return reply
        if name == NAME_SERVER:
            if kind == "A":
                reply.add_answer(RR(name, QTYPE.A, rdata=A("127.0.0.1"), ttl=1))
            return reply
        if kind not in ("TXT", "CNAME"):
            return reply
        question = DNSRecord(q=request.q)
        answer = DNSRecord.parse(question.send(SERVER[0], int(SERVER[1]), timeout=5))
        reply.header.rcode = answer.header.rcode
        reply.add_answer(*answer.rr)
        return reply


for tcp in (False, True):
    DNSServer(Zones(), address="127.0.0.1", port=PORT, tcp=tcp).start_thread()
print("answering", flush=True)
while True:
    time.sleep(60)
