#!/usr/bin/env python3
"""acme2certifier as a certificate authority of tests, set up as one that knows its customers.

    second_ca.py FOLDER PORT KEY_ID KEY

Accounts need a binding, names are known already (as at Sectigo: no challenge has to be met), there
are two profiles and renewal information. FOLDER holds server.pem and server.key of its own server;
root.pem, of what it issues, is written there.
"""

import datetime
import json
import os
import sys

FOLDER, PORT, KEY_ID, KEY = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def path(name):
    return os.path.join(FOLDER, name)


def write(name, data):
    mode = "wb" if isinstance(data, bytes) else "w"
    with open(path(name), mode) as file:
        file.write(data)


from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "acme2certifier of the tests")])
now = datetime.datetime.now(datetime.timezone.utc)
root = (
    x509.CertificateBuilder()
    .subject_name(name)
    .issuer_name(name)
    .public_key(key.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(now - datetime.timedelta(hours=1))
    .not_valid_after(now + datetime.timedelta(days=400))
    .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    .sign(key, hashes.SHA256())
)
write("root.pem", root.public_bytes(serialization.Encoding.PEM))
write(
    "root.key",
    key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ),
)
# It wants one to be there, and looks into it when something is revoked.
write("root.crl", "")
write("eab.json", json.dumps({KEY_ID: KEY}))
write(
    "acme_srv.cfg",
    f"""[DEFAULT]
debug: False
[DBhandler]
handler_module: acme2certifier.dbhandlers.wsgi_handler
dbfile: {path("acme.db")}
[CAhandler]
handler_module: acme2certifier.cahandlers.openssl_ca_handler
issuing_ca_key: {path("root.key")}
issuing_ca_cert: {path("root.pem")}
issuing_ca_crl: {path("root.crl")}
cert_validity_days: 90
cert_save_path: {path("issued")}
[EABhandler]
eab_handler_module: acme2certifier.eabhandlers.json_handler
key_file: {path("eab.json")}
[Challenge]
sectigo_sim: True
[Order]
profiles: {json.dumps({"classic": "https://ca.test/classic", "short": "https://ca.test/short"})}
""",
)
os.makedirs(path("issued"), exist_ok=True)
os.environ["ACME_SRV_CONFIGFILE"] = path("acme_srv.cfg")

from acme2certifier.share.acme2certifier_wsgi import application
from werkzeug.serving import make_server

server = make_server(
    "127.0.0.1",
    PORT,
    application,
    threaded=True,
    ssl_context=(path("server.pem"), path("server.key")),
)
print("answering", flush=True)
server.serve_forever()
