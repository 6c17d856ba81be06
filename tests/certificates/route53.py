#!/usr/bin/env python3
"""A DNS server for the hosted zones of moto, a Route 53 of tests.

    route53.py SERVICE PORT ZONE...

Makes the zones, then answers for what is in them over UDP and TCP, asked anew for each question.
Route 53 is only an API here: without this, nobody could see what was written.
"""

import sys
import time

import boto3
from dnslib import AAAA, CNAME, NS, QTYPE, RCODE, RR, SOA, TXT, A
from dnslib.server import BaseResolver, DNSServer

SERVICE, PORT, ZONES = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
SERVER = "ns.bridge.test."
api = boto3.client(
    "route53",
    endpoint_url=SERVICE,
    region_name="us-east-1",
    aws_access_key_id="bridge",
    aws_secret_access_key="bridge",
)
for number, zone in enumerate(ZONES):
    api.create_hosted_zone(Name=zone, CallerReference=str(number))


def records():
    """Everything in every zone, and the zones."""
    found, zones = [], []
    for zone in api.list_hosted_zones()["HostedZones"]:
        zones.append(zone["Name"].lower())
        pages = api.get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone["Id"])
        for page in pages:
            for item in page["ResourceRecordSets"]:
                name = item["Name"].lower().replace("\\052", "*")
                for value in item.get("ResourceRecords", []):
                    found.append((name, item["Type"], value["Value"]))
    return found, zones


class Bridge(BaseResolver):
    def resolve(self, request, handler):
        reply = request.reply()
        name, kind = str(request.q.qname).lower(), QTYPE[request.q.qtype]
        if name == SERVER:
            if kind == "A":
                reply.add_answer(RR(name, QTYPE.A, rdata=A("127.0.0.1"), ttl=1))
            return reply
        found, zones = records()
        if kind in ("SOA", "NS") and (name in zones or name == "."):
            data = SOA(SERVER, SERVER, (1, 1, 1, 1, 1)) if kind == "SOA" else NS(SERVER)
            reply.add_answer(RR(name, getattr(QTYPE, kind), rdata=data, ttl=1))
            return reply
        makers = {"A": A, "AAAA": AAAA, "CNAME": CNAME}
        for owner, own, value in found:
            if owner != name or own not in (kind, "CNAME") or own in ("SOA", "NS"):
                continue
            data = TXT(value.strip('"')) if own == "TXT" else makers[own](value)
            reply.add_answer(RR(name, getattr(QTYPE, own), rdata=data, ttl=1))
        exists = any(owner == name or owner.endswith("." + name) for owner, _, _ in found)
        if not reply.rr and not exists:
            reply.header.rcode = RCODE.NXDOMAIN
        return reply


for tcp in (False, True):
    DNSServer(Bridge(), address="127.0.0.1", port=PORT, tcp=tcp).start_thread()
print("answering", flush=True)
while True:
    time.sleep(60)
