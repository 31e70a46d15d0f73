"""Every odd and broken image of the corpus, sent to a server: those that a viewer shows are answered, the others refused."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serve.conftest import JSON


@pytest.fixture(scope="module")
def corpus(nasty):
    cases = json.loads((nasty / "manifest.json").read_text())["cases"]
    return [(case, (nasty / case["path"]).read_bytes()) for case in cases]


def test_each_gets_the_right_status_and_good_requests_among_them_are_answered(site, corpus, photos):
    def ask(number):
        case, data = corpus[number]
        expected = {"decode": {200}, "error": {400, 413, 422}, "either": {200, 413, 422}}[case["expect"]]
        answer = site.predict(data, headers={"Content-Type": "application/octet-stream"})
        if answer.status not in expected or (answer.status != 200 and not answer.error):
            return [(case["id"], answer)]
        good = site.predict(photos[number % len(photos)])
        return [] if good.body == alone[number % len(photos)] else [("a good one", good)]

    alone = [site.predict(photo).body for photo in photos]
    with ThreadPoolExecutor(8) as clients:
        wrong = [one for found in clients.map(ask, range(len(corpus))) for one in found]
    assert len(corpus) > 100 and wrong == []


def test_in_json_the_status_is_the_same(site, corpus):
    for case, data in corpus[::9]:
        plain = site.predict(data)
        body = json.dumps({"images": [base64.b64encode(data).decode()]})
        inside = site.ask("POST", "/v1/predict", body, JSON)
        assert inside.status == plain.status or not data, case["id"]
