"""A gateway's configuration that does not stand still."""

import json
import os
import threading

import check
import peers as proxies

PERIOD_SECONDS = 0.1
# Of the changes made, the share that has to have been taken: some fall into one reading.
TAKEN_SHARE = 0.5


class ChangesFailed(Exception):
    """The gateway did not follow; the text says how far it came."""


class Changes:
    """While it is entered: a route more or less, then the plugin's settings, and so on."""

    def __init__(self, site):
        self._site = site
        self._text = proxies.postern_config(site)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._made = 0
        self._first = 0

    def __enter__(self):
        self._first = self._generation()
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._ended.set()
        self._thread.join()
        taken = self._generation() - self._first
        if kind is None and taken < self._made * TAKEN_SHARE:
            raise ChangesFailed(f"{taken} of {self._made} changes were taken")

    def _run(self):
        while not self._ended.wait(PERIOD_SECONDS):
            self._made += 1
            text = self._text
            if self._made % 2:
                route = f'[[routes]]\nhosts = ["host-{self._made}.example"]\n'
                text += route + "rules = [ { respond = { status = 204 } } ]\n"
            if self._made // 2 % 2:
                text = text.replace('"DENY"', '"SAMEORIGIN"')
            beside = self._site.write("next.toml", text)
            os.replace(beside, self._site.folder / proxies.GATEWAY_CONFIG)

    def _generation(self):
        return json.loads(check.get(self._site.admin_port, "/config")[2])["generation"]
