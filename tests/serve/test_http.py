import base64
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serve.conftest import CLASSES, JSON, PNG, png, serving
from vitlab.serve.metrics import by_model


def test_an_answer_is_that_of_the_predictor(site, photos):
    expected = site.predictors["first"](photos[0]).top(2)
    answer = site.predict(photos[0], "/v1/predict?top=2")
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    found = answer.json
    assert found["model"] == "first"
    assert [(one["name"], one["probability"]) for one in found["predictions"][0]["top"]] == expected


def test_several_images_are_answered_in_their_order_and_by_the_model_that_is_named(site, photos):
    answer = site.predict_json(*photos[:7], path="/v1/predict?model=second&top=9")
    expected = [one.top(9) for one in site.predictors["second"].predict(photos[:7])]
    found = [[(named["name"], named["probability"]) for named in one["top"]] for one in answer.json["predictions"]]
    assert answer.json["model"] == "second" and found == expected


def test_an_embedding_is_what_the_head_reads_to_the_last_bit(site, photos):
    found = np.array(site.predict(photos[0], "/v1/embed").json["embeddings"][0], np.float32)
    assert np.array_equal(found, site.predictors["first"](photos[0]).features)


def test_an_answer_has_the_same_bytes_alone_and_in_a_crowd(site, photos):
    paths = ["/v1/predict?model=first", "/v1/predict?model=second", "/v1/embed?model=first", "/v1/embed?model=second"]
    asked = [(path, photo) for photo in photos for path in paths]
    alone = [site.predict(photo, path).body for path, photo in asked]
    with ThreadPoolExecutor(32) as clients:
        crowd = list(clients.map(lambda one: site.predict(one[1], one[0]).body, asked * 2))
    assert crowd == alone * 2
    assert site.service.models["first"].batches < site.service.models["first"].images


def test_200_clients_at_once_get_what_is_theirs(site, photos):
    expected = [site.predict(photo).body for photo in photos]
    barrier = threading.Barrier(200)

    def ask(number):
        barrier.wait()
        return site.predict(photos[number % len(photos)])

    with ThreadPoolExecutor(200) as clients:
        answers = list(clients.map(ask, range(200)))
    assert {answer.status for answer in answers} == {200}
    assert all(answer.body == expected[number % len(photos)] for number, answer in enumerate(answers))


def test_the_models_are_listed(site):
    first, second = site.ask(path="/v1/models").json["models"]
    assert (first["name"], first["num_classes"], first["batch_size"], first["engine"]) == (
        "first",
        3,
        4,
        site.predictors["first"].engine.name,
    )
    assert (second["height"], second["width"]) == (16, 16)


def test_the_state_of_the_server_can_be_asked(site):
    assert site.ask(path="/healthz").json == {"status": "running"}
    assert site.ask(path="/readyz").json == {"status": "ready"}


def test_metrics_count_requests_and_images(site, photos):
    site.predict(photos[0], "/v1/predict?model=second")
    site.ask(path="/nowhere/1")
    site.ask(path="/nowhere/2")
    answer = site.ask(path="/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
    assert int(values['vitlab_requests_total{path="/v1/predict",status="200"}']) >= 1
    assert int(values['vitlab_requests_total{path="other",status="404"}']) >= 2
    assert float(values['vitlab_images_total{model="second"}']) >= 1
    assert values['vitlab_accepted_images{model="second"}'] == values["vitlab_held_bytes"] == "0"
    assert not any("nowhere" in name for name in values)


def test_large_counts_are_exact_and_names_are_escaped():
    lines = list(by_model("images", "counter", "Images.", [('a"b\n', 12_345_678)]))
    assert lines[-1] == r'images{model="a\"b\n"} 12345678'


def test_the_description_names_every_address_and_fetches_no_page_from_elsewhere(site):
    paths = site.ask(path="/openapi.json").json["paths"]
    assert set(paths) == {"/v1/predict", "/v1/embed", "/v1/models", "/healthz", "/readyz", "/metrics"}
    assert set(paths["/v1/predict"]["post"]["requestBody"]["content"]) >= {"image/*", "application/json"}
    assert {site.ask(path=path).status for path in ("/docs", "/redoc")} == {404}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/predict", 405),
        ("PUT", "/v1/predict", 405),
        ("DELETE", "/v1/models", 405),
        ("OPTIONS", "/v1/predict", 405),
        ("POST", "/healthz", 405),
        ("GET", "/page", 404),
        ("GET", "/v1/predict/", 404),
        ("GET", "/v1/../healthz", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/..%5c..%5cetc", 404),
        ("GET", f"/page/examples/{'9' * 5_000}", 404),
        ("POST", "http://elsewhere.example/v1/predict", 403),
    ],
)
def test_a_wrong_method_or_address_is_refused(site, method, path, status):
    answer = site.ask(method, path)
    assert answer.status == status and answer.error
    if status == 405:
        assert "allow" in answer.headers


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "image", "", None])
def test_a_body_of_another_type_is_refused(site, photos, kind):
    answer = site.ask("POST", "/v1/predict", photos[0], {} if kind is None else {"Content-Type": kind})
    assert answer.status == 415 and "image/*" in answer.error


def test_a_compressed_body_is_refused(site, photos):
    assert site.predict(photos[0], headers={**PNG, "Content-Encoding": "gzip"}).status == 415


@pytest.mark.parametrize("query", ["top=0", "top=x", "top=-1", "top=1e3", "url=http://localhost/x.png", "topp=3"])
def test_a_wrong_parameter_is_named(site, photos, query):
    answer = site.predict(photos[0], f"/v1/predict?{query}")
    assert answer.status == 400 and query.partition("=")[0] in answer.error


@pytest.mark.parametrize("name", ["third", "/etc/passwd", "..", "http://127.0.0.1/x", "", "first%00"])
def test_a_model_that_is_not_in_the_list_is_not_loaded(site, photos, name):
    answer = site.predict(photos[0], f"/v1/predict?model={name}")
    assert answer.status == 404 and "first, second" in answer.error


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:{}/x.png", "  HTTPS://127.0.0.1:{}/x", "ftp://127.0.0.1:{}/x.png"]
)
def test_an_address_in_place_of_an_image_is_never_fetched(site, address):
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        address = address.format(elsewhere.getsockname()[1])
        for body, headers in ((address, PNG), (json.dumps({"images": [address]}), JSON)):
            answer = site.ask("POST", "/v1/predict", body, headers)
            assert answer.status == 400 and "nothing is fetched" in answer.error
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


GOOD = base64.b64encode(png(np.zeros((4, 4, 3), np.uint8))).decode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"images": []}',
        b'{"images": "x"}',
        b'{"images": [1]}',
        b'{"images": [null]}',
        b'{"images": ["%%%"]}',
        b'{"images": ["AAA"]}',
        b'{"images": ["\\ud800"]}',
        b'{"images": [["AAAA"]]}',
        b'{"images": ["AAAA"], "model": "/etc"}',
        b'{"image": "AAAA"}',
        b'{"images": ["AAAA"]} {}',
        b"[" * 100_000,
        b'{"images":' * 50_000,
        b'{"images": [' + b"," * 500_000 + b"]}",
        b'{"images": [' + b",".join([f'"{GOOD}"'.encode()] * 65) + b"]}",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_json_that_holds_no_images_is_refused(site, body):
    answer = site.ask("POST", "/v1/predict", body, JSON)
    assert answer.status == 400 and answer.error


def test_a_bad_image_among_good_ones_is_named_by_its_place(site, photos):
    answer = site.predict_json(photos[0], b"GIF89a", photos[1])
    assert answer.status == 422 and answer.error.startswith("images[1]: ")


@settings(max_examples=60)
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.just(GOOD),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["images", "x"]), inner),
            max_leaves=9,
        ).map(lambda value: json.dumps(value).encode()),
    ),
    kind=st.sampled_from(["application/json", "image/png", "application/octet-stream", "text/html"]),
    path=st.sampled_from(["/v1/predict", "/v1/embed?model=second", "/v1/predict?top=3"]),
)
def test_whatever_a_body_is_there_is_an_answer_and_no_failure(site, body, kind, path):
    answer = site.ask("POST", path, body, {"Content-Type": kind})
    if answer.status != 200:
        assert answer.status in (400, 415, 422) and answer.error


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::", "169.254.169.254"]
)
def test_a_name_that_points_here_is_not_served(site, host):
    answer = site.ask(headers={"Host": host})
    assert answer.status == 403 and "--allow-host" in answer.error


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "LOCALHOST", "[::1]:8000"])
def test_the_names_of_this_computer_are_served(site, host):
    assert site.ask(headers={"Host": host}).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "http://[", "file://"])
def test_a_page_of_another_site_may_not_ask(site, photos, origin):
    answer = site.predict(photos[0], headers={**PNG, "Origin": origin})
    assert answer.status == 403 and "--allow-host" in answer.error


def test_a_page_of_this_server_may_ask(site, photos):
    assert site.predict(photos[0], headers={**PNG, "Origin": f"http://127.0.0.1:{site.port}"}).status == 200


def test_names_that_are_allowed_are_served(predictors, photos):
    with serving(predictors, decoders=1, allow_hosts=("Vit.Example",)) as site:
        origin = {"Host": "vit.example", "Origin": "https://vit.example"}
        assert site.predict(photos[0], headers={**PNG, **origin}).status == 200
        assert site.ask(headers={"Host": "other.example"}).status == 403


def test_what_fails_inside_is_said_to_the_log_and_not_to_the_client(predictors, photos, caplog):
    with serving(predictors, decoders=1, max_waiting=8) as site:
        predictor = site.service.models["first"].predictor
        site.service.models["first"].predictor = type("Broken", (), {"batch_size": 4, "stack": lambda *_: 1 / 0})()
        answer = site.predict(photos[0])
        assert answer.status == 500 and "division" not in answer.error
        site.service.models["first"].predictor = predictor
        assert site.predict(photos[0]).status == 200
    assert "division by zero" in caplog.text and set(CLASSES)
