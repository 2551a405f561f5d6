"""The web API and its client, against a server process."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlencode

import httpx
import jsonschema
import numpy as np
import pytest
import trimesh
from PIL import Image

from pictures import Picture, picture, png
from threedfa import (
    Face,
    FaceAnalyzer,
    ImageError,
    PackError,
    compat,
    load_image,
    render,
    save_mesh,
    uv_texture,
)
from threedfa.cli import SAMPLE
from threedfa.errors import ServerError
from threedfa.rendering import Mode
from threedfa.tables import faces_to_dict
from toy_pack import build_toy_pack
from web_server import Server, build_web_pack, serving

hypothesis = pytest.importorskip("hypothesis")
pytest.importorskip("uvicorn", reason="needs the extra [web]")

from hypothesis import strategies as st  # noqa: E402

from threedfa.client import AsyncClient, Client  # noqa: E402
from threedfa.web.answers import json_answer  # noqa: E402
from threedfa.web.pictures import decode_base64, urlencoded_field  # noqa: E402
from threedfa.web.problems import Problem  # noqa: E402

TWO, ONE, NONE = picture((0, 0), (128, 64)), picture((64, 32)), picture()


@pytest.fixture(scope="module")
def server(web_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(web_pack, tmp_path_factory.mktemp("log")) as server:
        yield server


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def analyzer(web_pack: Path) -> FaceAnalyzer:
    return FaceAnalyzer(web_pack)


def post(http: httpx.Client, route: str, *images: Picture, **query: Any) -> httpx.Response:
    """Send pictures as files named 0.png, 1.png, ...; the answer, which must be one."""
    files = [("image", (f"{i}.png", png(image))) for i, image in enumerate(images)]
    answer = http.post(route, files=files, params=query)
    assert answer.status_code == 200, answer.text
    return answer


def problem(answer: httpx.Response, status: int) -> str:
    """What a problem says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == status and content["title"] and content["type"] == "about:blank"
    detail: str = content["detail"]
    return detail


def unzip(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def document(*scenes: tuple[str | None, Picture, list[Face]], **options: Any) -> list[Any]:
    return [
        faces_to_dict(image.shape[:2], faces, name=name, blendshapes=True, **options)
        for name, image, faces in scenes
    ]


# --- /v1 ------------------------------------------------------------------------------------------


def test_detect(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    entries = post(http, "/v1/detect", TWO, NONE).json()
    assert [entry["image"] for entry in entries] == [
        {"name": f"{i}.png", "height": 160, "width": 200} for i in range(2)
    ]
    found = analyzer.detector.detect(TWO)
    assert len(found) == 2 and entries[1]["faces"] == []
    boxes = [face["bbox"] for face in entries[0]["faces"]]
    np.testing.assert_array_equal(np.array(boxes, np.float32), found.xyxy)
    scores = [face["score"] for face in entries[0]["faces"]]
    np.testing.assert_array_equal(np.array(scores, np.float32), found.confidence)


def test_align_gives_the_document_of_the_command_line(
    http: httpx.Client, analyzer: FaceAnalyzer
) -> None:
    entries = post(http, "/v1/align", TWO, NONE, landmarks="five").json()
    jsonschema.Draft202012Validator(
        json.loads(resources.files("threedfa").joinpath("schemas/result.schema.json").read_text())
    ).validate(entries)
    faces = analyzer.analyze(TWO)
    expected = document(("0.png", TWO, faces), ("1.png", NONE, []), landmark_sets=["five"])
    assert entries == expected


@hypothesis.given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=50))
def test_numbers_are_the_shortest_that_give_them_back(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    found = json.loads(json_answer([array, array[::2], *array]).body)
    expected = [float(str(number)) for number in array]
    assert found == [expected, expected[::2], *expected]


def test_align_with_vertices(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    (entry,) = post(http, "/v1/align", ONE, vertices=True).json()
    assert [entry] == document(("0.png", ONE, analyzer.analyze(ONE)), vertices=True)
    found = np.array(entry["faces"][0]["vertices"], np.float32)
    np.testing.assert_array_equal(found, analyzer.analyze(ONE)[0].vertices)


def test_align_as_arrays(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    answer = post(http, "/v1/align", TWO, format="npz")
    faces = analyzer.analyze(TWO)
    arrays = np.load(io.BytesIO(answer.content), allow_pickle=False)
    np.testing.assert_array_equal(arrays["vertices"], [face.vertices for face in faces])
    files = unzip(post(http, "/v1/align", TWO, NONE, format="npz").content)
    assert set(files) == {"0.npz", "1.npz"}
    assert np.load(io.BytesIO(files["1.npz"]), allow_pickle=False)["bbox"].shape == (0, 4)


def test_align_as_bytes(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    answer = post(http, "/v1/align", TWO, NONE, ONE, format="binary")
    assert answer.headers["x-threedfa-faces"] == "2,0,1"
    shape = tuple(map(int, answer.headers["x-threedfa-shape"].split(",")))
    faces = [*analyzer.analyze(TWO), *analyzer.analyze(ONE)]
    expected = np.array([face.vertices for face in faces])
    np.testing.assert_array_equal(np.frombuffer(answer.content, "<f4").reshape(shape), expected)
    nobody = f"0,{len(analyzer.model.mean)},3"
    assert post(http, "/v1/align", NONE, format="binary").headers["x-threedfa-shape"] == nobody


@pytest.mark.parametrize("mode", get_args(Mode))
def test_render(http: httpx.Client, analyzer: FaceAnalyzer, mode: Mode) -> None:
    answer = post(http, f"/v1/render/{mode}", TWO)
    assert answer.headers["content-type"] == "image/png"
    expected = render(TWO, analyzer.analyze(TWO), mode)
    np.testing.assert_array_equal(load_image(answer.content), expected)


def test_render_options(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    answer = post(http, "/v1/render/landmarks", ONE, alpha=0.25, landmarks="five")
    expected = render(ONE, analyzer.analyze(ONE), "landmarks", alpha=0.25, landmark_set="five")
    np.testing.assert_array_equal(load_image(answer.content), expected)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_picture_formats(http: httpx.Client, kind: str) -> None:
    answer = post(http, "/v1/render/mesh", ONE, format=kind)
    assert answer.headers["content-type"] == f"image/{kind}"
    assert Image.open(io.BytesIO(answer.content)).format == kind.upper()
    files = unzip(post(http, "/v1/render/mesh", ONE, NONE, format=kind).content)
    assert set(files) == {f"0.{kind}", f"1.{kind}"}
    assert Image.open(io.BytesIO(files["1." + kind])).size == (200, 160)


def test_texture(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    answer = post(http, "/v1/texture", TWO, face=1, size=64, fill="photo")
    found = np.asarray(Image.open(io.BytesIO(answer.content)))
    face = analyzer.analyze(TWO)[1]
    skin = uv_texture(TWO, face, size=64, fill="photo")
    np.testing.assert_array_equal(found, skin)


@pytest.mark.parametrize("kind", ["glb", "ply"])
@pytest.mark.parametrize("space", ["image", "object"])
def test_mesh(
    http: httpx.Client, analyzer: FaceAnalyzer, tmp_path: Path, kind: str, space: Any
) -> None:
    answer = post(http, "/v1/mesh", TWO, format=kind, space=space, texture_size=64)
    save_mesh(tmp_path / f"a.{kind}", TWO, analyzer.analyze(TWO), space=space, texture_size=64)
    assert answer.content == (tmp_path / f"a.{kind}").read_bytes()


def test_mesh_of_one_face(http: httpx.Client, analyzer: FaceAnalyzer, tmp_path: Path) -> None:
    answer = post(http, "/v1/mesh", TWO, face=1, texture_size=0)
    assert answer.headers["content-type"] == "model/gltf-binary"
    save_mesh(tmp_path / "a.glb", TWO, analyzer.analyze(TWO)[1:], texture_size=None)
    assert answer.content == (tmp_path / "a.glb").read_bytes()


def test_mesh_as_obj(http: httpx.Client, analyzer: FaceAnalyzer, tmp_path: Path) -> None:
    files = unzip(post(http, "/v1/mesh", TWO, ONE, format="obj", texture_size=64).content)
    save_mesh(tmp_path / "0.obj", TWO, analyzer.analyze(TWO), texture_size=64)
    save_mesh(tmp_path / "1.obj", ONE, analyzer.analyze(ONE), texture_size=64)
    assert files == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"0.obj", "0.mtl", "0_face1.png", "1_face0.png"} <= set(files)


def test_crops(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    files = unzip(post(http, "/v1/crops", NONE, TWO, size=50).content)
    assert list(files) == ["1_0.png", "1_1.png"]
    for face, content in zip(analyzer.analyze(TWO), files.values(), strict=True):
        np.testing.assert_array_equal(load_image(content), face.aligned_crop(TWO, 50))
    assert unzip(post(http, "/v1/crops", NONE).content) == {}


def test_base64_in_json(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    text = base64.b64encode(png(ONE)).decode()
    images = [text, f"data:image/png;base64,{text}"]
    answer = http.post("/v1/align", json={"images": images})
    faces = analyzer.analyze(ONE)
    assert answer.json() == document((None, ONE, faces), (None, ONE, faces))


def test_options(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    both = post(http, "/v1/detect", TWO).json()[0]["faces"]
    assert post(http, "/v1/detect", TWO, max_faces=1).json()[0]["faces"] == both[:1]
    assert post(http, "/v1/align", TWO, score_threshold=1).json()[0]["faces"] == []
    few = analyzer.detector.adjusted(iou_threshold=0.9).detect(TWO)
    found = post(http, "/v1/detect", TWO, iou_threshold=0.9, pack="toy").json()[0]["faces"]
    assert len(found) == len(few) >= 2


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("/v1/align?pack=../toy", "pack: expected one of toy, got '../toy'"),
        ("/v1/align?pack=%00", "pack: expected one of toy"),
        ("/v1/align?score_threshold=2", "query.score_threshold"),
        ("/v1/align?max_faces=0", "query.max_faces"),
        ("/v1/align?landmarks=seventy", "landmark set: expected one of five, ibug68"),
        ("/v1/align?landmarks=mediapipe468", "has no landmark set 'mediapipe468'"),
        ("/v1/align?format=xml", "query.format"),
        ("/v1/render/cartoon", "path.mode"),
        ("/v1/render/mesh?format=gif", "query.format"),
        ("/v1/texture?face=1", "picture 0: expected a face with the number 1, found 1"),
        ("/v1/texture?size=100000", "query.size"),
        ("/v1/mesh?face=7", "picture 0: expected a face with the number 7, found 1"),
        ("/v1/mesh?format=stl", "query.format"),
    ],
)
def test_options_that_cannot_be(http: httpx.Client, route: str, said: str) -> None:
    assert said in problem(http.post(route, files={"image": png(ONE)}), 422)


def test_a_mesh_of_no_face(http: httpx.Client) -> None:
    answer = http.post("/v1/mesh", files={"image": png(NONE)})
    assert "expected at least one face, found 0" in problem(answer, 422)


def test_unknown_routes_and_methods(http: httpx.Client) -> None:
    assert problem(http.get("/v1/faces"), 404) == "Not Found"
    problem(http.get("/v1/detect"), 405)


def test_packs(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    (entry,) = http.get("/v1/packs").json()
    assert entry["name"] == "toy" and entry["licence"] == "MIT" and entry["texture"] is True
    assert entry["vertices"] == len(analyzer.model.mean)
    assert entry["landmark_sets"] == ["five", "ibug68"]
    assert entry["expression_names"] == ["jawOpen", "browInnerUp", "wrinkle"]


def test_health(http: httpx.Client) -> None:
    assert http.get("/v1/healthz").json()["status"] == "ok"
    assert http.get("/v1/readyz").json() == {"status": "ready"}
    for path in ("/v1/healthz", "/v1/readyz", "/v1/packs", "/v1/metrics", "/"):
        answer = http.head(path)
        assert answer.status_code == 200 and answer.content == b""


def test_addresses_that_are_none(http: httpx.Client) -> None:
    """No redirect, whose address would come from the client's Host header."""
    answer = http.get("/v1/packs/", headers={"Host": "example.org"})
    problem(answer, 404)
    assert "location" not in answer.headers


def test_files_of_the_page_that_the_browser_has(http: httpx.Client) -> None:
    first = http.get("/app.js")
    known = {"If-None-Match": first.headers["etag"]}
    again = http.get("/app.js", headers=known)
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert again.headers["cache-control"] == "no-cache"
    assert http.get("/index.html", headers=known).status_code == 200


def test_pack_without_texture_coordinates(tmp_path: Path) -> None:
    pack = build_web_pack(tmp_path / "bare", uv=False)
    with serving(pack, tmp_path) as server, server.client() as http:
        mesh = io.BytesIO(post(http, "/v1/mesh", ONE).content)
        assert trimesh.load(mesh, file_type="glb").geometry
        answer = http.post("/v1/mesh?texture_size=64", files={"image": png(ONE)})
        assert "texture_size: expected 0" in problem(answer, 422)
        answer = http.post("/detect/dense/uvtex", files={"bin_image": png(ONE)})
        assert "texture coordinates" in problem(answer, 422)


def samples(text: str) -> dict[str, float]:
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics(http: httpx.Client) -> None:
    before = samples(http.get("/v1/metrics").text)
    post(http, "/v1/align", TWO, ONE)
    http.post("/v1/align", files={"image": b"no picture"})
    http.get("/some/where")
    after = samples(http.get("/v1/metrics").text)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('threedfa_requests_total{route="/v1/align",status="200"}') == 1
    assert grown('threedfa_requests_total{route="/v1/align",status="422"}') == 1
    assert grown('threedfa_requests_total{route="other",status="404"}') == 1
    assert grown('threedfa_errors_total{status="422"}') == 1
    assert grown("threedfa_pictures_total") == 2
    assert grown("threedfa_faces_total") == 3
    assert after["threedfa_queue_requests"] == 0
    assert after["threedfa_requests_in_progress"] == 1  # the one that asks
    for stage in ("upload", "decode", "wait", "detect", "align", "encode", "request"):
        assert grown(f'threedfa_stage_seconds_count{{stage="{stage}"}}') >= 1


def test_security_headers(http: httpx.Client) -> None:
    for answer in (http.get("/v1/healthz"), http.get("/nothing"), http.post("/v1/align")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control")]


# --- the default pack -----------------------------------------------------------------------------


def test_default_pack_and_a_real_picture(default_pack: Path, tmp_path: Path) -> None:
    """Each route with the package's own picture gives what the library gives."""
    analyzer = FaceAnalyzer(default_pack)
    content, image = SAMPLE.read_bytes(), load_image(SAMPLE)
    faces = analyzer.analyze(image)
    assert len(faces) == 2
    with serving(default_pack, tmp_path) as server, server.client() as http:

        def ask(route: str) -> bytes:
            answer = http.post(f"/v1/{route}", files={"image": ("a.jpg", content)})
            assert answer.status_code == 200, answer.text
            return answer.content

        boxes = json.loads(ask("detect"))[0]["faces"]
        found = analyzer.detector.detect(image)
        np.testing.assert_array_equal(np.float32([box["bbox"] for box in boxes]), found.xyxy)
        (entry,) = json.loads(ask("align?landmarks=mediapipe468"))
        assert_close(entry, document(("a.jpg", image, faces), landmark_sets=["mediapipe468"])[0])
        vertices = np.frombuffer(ask("align?format=binary"), "<f4")
        expected = np.array([face.vertices for face in faces])
        np.testing.assert_allclose(vertices.reshape(expected.shape), expected, atol=1e-2)
        # What is drawn may differ by rounding where networks round differently in batches.
        for route, picture in (
            ("render/mesh", render(image, faces, "mesh")),
            ("render/landmarks", render(image, faces, "landmarks")),
            ("texture?size=128", uv_texture(image, faces[0], size=128)),
        ):
            differences = np.abs(load_image(ask(route)).astype(int) - picture)
            assert (differences > 8).mean() < 1e-3, route
        mesh = trimesh.load(io.BytesIO(ask("mesh?texture_size=64")), file_type="glb")
        assert len(mesh.geometry) == 2
        assert list(unzip(ask("crops"))) == ["0_0.png", "0_1.png"]
        with Client(server.url, default_pack) as client:
            for a, b in zip(client.analyze(content), faces, strict=True):
                np.testing.assert_allclose(a.vertices, b.vertices, atol=1e-2)
                assert a.blendshapes.keys() == b.blendshapes.keys()


def assert_close(found: Any, expected: Any) -> None:
    """Documents alike but for the last digits."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    else:
        assert found == pytest.approx(expected, abs=1e-2)


# --- bodies that are none -------------------------------------------------------------------------


def multipart(
    *parts: tuple[bytes, bytes], end: bytes = b"--x--\r\n", charset: str = "utf-8"
) -> dict[str, Any]:
    """A body of parts (header, content), by hand."""
    body = b"".join(b"--x\r\n" + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    return {"content": body + end, "headers": {"Content-Type": kind}}


HEAD = b'Content-Disposition: form-data; name="image"; filename="a.png"'
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({}, 415, "expected a body of multipart/form-data or application/json"),
        ({"content": b"x", "headers": {"Content-Type": "image/png"}}, 415, "got image/png"),
        ({"data": {"image": "a"}}, 415, "got application/x-www-form-urlencoded"),
        (multipart((HEAD, png(ONE)), end=b""), 400, "cut off"),
        (multipart((HEAD, png(ONE)), (HEAD, png(ONE)), end=b"--x\r\nConte"), 400, "cut off"),
        (multipart((HEAD.replace(b"a.png", b"a\0.png"), png(ONE))), 400, ""),
        (multipart((HEAD.replace(b"a.png", b"a%00.png"), b"")), 422, "picture 0"),
        (multipart((HEAD.replace(b"image", b"photo"), png(ONE))), 400, "got the fields: photo"),
        (multipart((HEAD.partition(b"; filename")[0], b"text")), 400, "expected a file"),
        (multipart(), 400, "picture in the field 'image'"),
        (multipart((b"Content-Type: image/png", png(ONE))), 400, "Content-Disposition"),
        (multipart((HEAD, b"no picture")), 422, "picture 0: cannot read image data of 10 bytes"),
        (multipart((HEAD, png(ONE)), (HEAD, png(ONE)[:99])), 422, ""),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        (multipart((HEAD, png(ONE)), charset="undefined"), 400, "another charset"),
        ({"content": b"{", "headers": JSON}, 400, "expected JSON"),
        ({"content": b"[" * 900, "headers": JSON}, 400, "expected JSON"),
        ({"content": b"[" * 100_000, "headers": JSON}, 413, "at most 1000"),
        ({"content": b'{"images": [' + b"{}," * 1000 + b"1]}", "headers": JSON}, 413, "at most"),
        ({"content": b'{"images": []}', "headers": JSON}, 400, 'expected {"images"'),
        ({"content": b'{"images": "a"}', "headers": JSON}, 400, 'expected {"images"'),
        ({"content": b'{"images": [1]}', "headers": JSON}, 400, "base64 text, got int"),
        ({"content": b'{"images": ["%%%"]}', "headers": JSON}, 400, "as base64"),
        ({"content": b'{"images": ["YWJj"]}', "headers": JSON}, 422, "image data of 3 bytes"),
        ({"content": b"\xff\xfe", "headers": JSON}, 400, "expected JSON"),
    ],
)
@pytest.mark.parametrize("route", ["/v1/align", "/v1/detect"])
def test_bodies_that_are_none(
    http: httpx.Client, route: str, request_: dict[str, Any], status: int, said: str
) -> None:
    assert said in problem(http.post(route, **request_), status)


def test_names_stay_text(http: httpx.Client) -> None:
    name = '../../etc/päss"wd\\'
    answer = http.post("/v1/align", files={"image": (name, png(NONE))})
    assert "passwd" not in str(answer.headers) and answer.json()[0]["image"]["name"]


# --- ThreeDFA's routes ----------------------------------------------------------------------------


def legacy(http: httpx.Client, route: str, image: Picture, **query: Any) -> httpx.Response:
    query = {"size_threshold": "0,0", **query}
    answer = http.post(route, files={"bin_image": ("me.png", png(image))}, params=query)
    assert answer.status_code == 200, answer.text
    return answer


def test_legacy_detect(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    content = legacy(http, "/detect", TWO).json()
    assert abs(content["timestamp"] - time.time()) < 600
    assert content["faces_detected"] == 2 and content["filename"] == "me.png"
    assert content["original_img"] is None
    faces = analyzer.analyze(TWO)
    np.testing.assert_allclose(content["bounding_boxes"], [face.bbox for face in faces])
    expected = np.array([face.landmarks.T for face in faces])
    assert np.shape(content["landmarks"]) == (2, 3, 68)
    np.testing.assert_allclose(np.array(content["landmarks"])[:, :2], expected[:, :2], rtol=1e-6)
    depths = np.array(content["landmarks"])[:, 2]
    np.testing.assert_allclose(depths.min(axis=1), 0)


def test_legacy_detect_as_threedfa_did(http: httpx.Client, web_pack: Path) -> None:
    instance = compat.Instance(pack=web_pack)
    content = legacy(http, "/detect", TWO).json()
    np.testing.assert_allclose(content["bounding_boxes"], instance.detect_face(TWO), rtol=1e-5)
    np.testing.assert_allclose(
        content["landmarks"], instance.detect_lms(TWO, round_int=False), rtol=1e-3, atol=1e-3
    )
    whole = legacy(http, "/detect", TWO, convert_to_int=True).json()
    np.testing.assert_array_equal(whole["landmarks"], instance.detect_lms(TWO))


def test_legacy_options(http: httpx.Client) -> None:
    content = legacy(http, "/detect", TWO, convert_to_int=True, return_original=True).json()
    assert base64.b64decode(content["original_img"]) == png(TWO)
    assert np.shape(content["landmarks"]) == (2, 68, 2)
    numbers = np.ravel(content["landmarks"]).tolist() + np.ravel(content["bounding_boxes"]).tolist()
    assert all(isinstance(number, int) for number in numbers)
    assert legacy(http, "/detect", TWO, size_threshold="33,0").json()["faces_detected"] == 0
    files = {"bin_image": png(TWO)}
    assert http.post("/detect", files=files).json()["faces_detected"] == 0  # below 64 pixels
    answer = http.post("/detect", files=files, params={"size_threshold": "a"})
    assert "query.size_threshold" in problem(answer, 422)


def test_legacy_base64(http: httpx.Client) -> None:
    expected = legacy(http, "/detect", TWO).json()
    text = "data:image/png;base64," + base64.b64encode(png(TWO)).decode()
    for body in ({"data": {"b64_image": text}}, {"files": {"b64_image": (None, text)}}):
        answer = http.post("/b64/detect?size_threshold=0,0", **body)
        content = answer.json()
        assert {**content, "timestamp": 0, "filename": "me.png"} == {**expected, "timestamp": 0}


def test_urlencoded_base64() -> None:
    data = bytes(range(256))
    plain = base64.b64encode(data).decode()
    for text in (plain, base64.encodebytes(data).decode(), f"data:image/png;base64,{plain}"):
        for escaped in (urlencode({"b64_image": text}), urlencode({"b64_image": text}).lower()):
            names = [escaped[i : i + 3] for i, char in enumerate(escaped) if char == "%"]
            body = urlencode({"a": "b", "b64_image": text})
            for name in names:
                body = body.replace(name.upper(), name)
            assert decode_base64(urlencoded_field(body.encode(), "b64_image")) == data
    with pytest.raises(Problem, match="at most 16 fields, got 21"):
        urlencoded_field(b"&" * 20, "b64_image")
    with pytest.raises(Problem, match="form field b64_image"):
        urlencoded_field(b"image=a", "b64_image")
    with pytest.raises(Problem, match="as base64"):
        decode_base64(urlencoded_field(b"b64_image=%41%41%41%41", "b64_image"))


def test_legacy_crop(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    files = unzip(legacy(http, "/detect/crop", TWO).content)
    assert list(files) == ["0.png", "1.png"]
    for face, content in zip(analyzer.analyze(TWO), files.values(), strict=True):
        left, top, right, bottom = np.maximum(face.bbox.astype(int), 0)
        np.testing.assert_array_equal(load_image(content), TWO[top:bottom, left:right])


def test_legacy_overlay(http: httpx.Client, analyzer: FaceAnalyzer) -> None:
    found = load_image(legacy(http, "/detect/overlay", ONE, dot_color="#FF0000").content)
    assert (found == (255, 0, 0)).all(axis=2).sum() > 50
    (face,) = analyzer.analyze(ONE)
    expected = compat.FaceUtils.cv_draw_landmark(ONE, face.landmarks.T, dot_color=(255, 0, 0))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(load_image(legacy(http, "/detect/overlay", NONE).content), NONE)
    answer = http.post("/detect/overlay?dot_color=red", files={"bin_image": png(ONE)})
    assert "query.dot_color" in problem(answer, 422)


@pytest.mark.parametrize("mode", ["base", "depth", "pncc", "uvtex"])
def test_legacy_dense(http: httpx.Client, web_pack: Path, mode: Any) -> None:
    instance = compat.Instance(pack=web_pack)
    vertices = instance.vlist(TWO, instance.detect_face(TWO), True)
    expected = instance.overlay(TWO, vertices, mode).astype(int)
    found = load_image(legacy(http, f"/detect/dense/{mode}", TWO).content).astype(int)
    assert found.shape == expected.shape
    assert (np.abs(found - expected).max(axis=2) > 2).mean() < 1e-3  # z has another zero


def test_legacy_problems(http: httpx.Client) -> None:
    two = [("bin_image", png(ONE)), ("bin_image", png(ONE))]
    assert "one picture, got 2" in problem(http.post("/detect", files=two), 400)
    assert "bin_image" in problem(http.post("/detect", files={"image": png(ONE)}), 400)
    assert "b64_image" in problem(http.post("/b64/detect", data={"image": "a"}), 400)
    problem(http.post("/detect/dense/cartoon", files={"bin_image": png(ONE)}), 422)
    answer = http.post("/detect/dense/uvtex", files={"bin_image": png(NONE)})
    assert "found none" in problem(answer, 422)


# --- schema ---------------------------------------------------------------------------------------


def test_schema_has_examples_and_no_foreign_pages(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    answer = paths["/v1/align"]["post"]["responses"]["200"]["content"]
    assert answer["application/json"]["example"][0]["faces"]
    assert set(paths["/v1/align"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
    }
    assert http.get("/docs").status_code == http.get("/redoc").status_code == 404


def test_schema_finds_no_mistakes(server: Server) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    tried = set()
    for operation in (result.ok() for result in schema.get_all_operations()):
        checks = hypothesis.settings(
            max_examples=5,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )

        @checks
        @hypothesis.given(case=operation.as_strategy())
        def answers(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case, answer.text)
            tried.add((case.method, case.path))

        answers()
    assert ("POST", "/v1/align") in tried and len(tried) >= 15


# --- client ---------------------------------------------------------------------------------------


def assert_same_faces(found: list[Face], expected: list[Face]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.score == b.score
        for name in ("bbox", "roi", "params", "landmarks", "vertices"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
            assert getattr(a, name).dtype == getattr(b, name).dtype
        assert a.pose.yaw == b.pose.yaw and a.blendshapes == b.blendshapes


def test_client(server: Server, web_pack: Path, analyzer: FaceAnalyzer, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(TWO))
    expected = analyzer.analyze(TWO)
    with Client(server.url, web_pack) as client:
        for image in (TWO, png(TWO), tmp_path / "a.png", str(tmp_path / "a.png")):
            assert_same_faces(client.analyze(image), expected)
        assert_same_faces(client.analyze(TWO[:, :, ::-1], color="bgr"), expected)
        found, nothing = client.analyze_batch([TWO, NONE])
        assert_same_faces(found, expected)
        assert nothing == []
        assert client.analyze_batch([]) == []
        boxes = client.detect(TWO)
        np.testing.assert_array_equal(boxes.xyxy, analyzer.detector.detect(TWO).xyxy)
        assert client.detect(NONE).xyxy.shape == (0, 4)
        with pytest.raises(ServerError, match="422: picture 0: cannot read") as caught:
            client.analyze(b"no picture")
        assert caught.value.status == 422
        with pytest.raises(ImageError, match="cannot read"):
            client.analyze(tmp_path / "missing.png")
    with Client(server.url, web_pack, max_faces=1) as client:
        assert_same_faces(client.analyze(TWO), expected[:1])


def test_async_client(server: Server, web_pack: Path, analyzer: FaceAnalyzer) -> None:
    async def ask() -> None:
        async with AsyncClient(server.url, web_pack) as client:
            results = await asyncio.gather(*(client.analyze(TWO) for _ in range(4)))
            for faces in results:
                assert_same_faces(faces, analyzer.analyze(TWO))
            assert len(await client.detect(ONE)) == 1
            with pytest.raises(ServerError, match="422"):
                await client.detect(b"")

    asyncio.run(ask())


def test_client_and_server_must_have_the_same_pack(server: Server, tmp_path: Path) -> None:
    same_name = build_toy_pack(tmp_path / "toy")
    with Client(server.url, same_name) as client, pytest.raises(PackError, match="same face model"):
        client.analyze(ONE)
    other = build_toy_pack(tmp_path / "other")
    with Client(server.url, other) as client, pytest.raises(PackError, match="pack other"):
        client.analyze(ONE)


@pytest.mark.parametrize(
    "answer", [b'{"hello": 1}', b"[]", b"null", b"[{}]", b'[{"faces": [{"bbox": 3}]}]']
)
def test_client_of_another_server(web_pack: Path, answer: bytes) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}", web_pack) as client:
                with pytest.raises(ServerError, match="other JSON"):
                    client.detect(ONE)
                with pytest.raises((ServerError, PackError)):
                    client.analyze(ONE)
        finally:
            server.shutdown()
            thread.join()


def test_client_of_no_url(web_pack: Path) -> None:
    with pytest.raises(ValueError, match="base_url: expected a URL"):
        Client("http://[::1", web_pack)
    with pytest.raises(ValueError, match="api_key: expected ASCII"):
        Client("http://127.0.0.1:1", web_pack, api_key="schlüssel")


def test_client_without_a_server(web_pack: Path) -> None:
    with (
        Client("http://127.0.0.1:1", web_pack) as client,
        pytest.raises(ServerError, match="no answer from") as caught,
    ):
        client.detect(ONE)
    assert caught.value.status is None


# --- command --------------------------------------------------------------------------------------


def test_serve_without_the_extra() -> None:
    program = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from threedfa.cli import main; sys.exit(main(['serve']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'threedfa[web]'" in done.stderr


# --- refusal, sizes, orientations -----------------------------------------------------------------


def test_refusal_and_settings_of_the_detector(tmp_path: Path) -> None:
    pack = build_web_pack(tmp_path / "toy", presence={"confidence_threshold": 0.0})
    analyzer = FaceAnalyzer(pack)
    surest, other = sorted(analyzer.analyze(TWO), key=lambda face: -(face.confidence or 0))
    assert surest.confidence and other.confidence and surest.confidence > other.confidence
    threshold = (surest.confidence + other.confidence) / 2
    with serving(pack, tmp_path) as server:
        with Client(server.url, pack, confidence_threshold=threshold) as client:
            faces, refused = client.analyze(TWO, return_refused=True)
            assert_same_faces(faces, [surest])
            assert_same_faces(client.analyze(TWO), [surest])
            assert len(refused) == 1
            np.testing.assert_array_equal(refused[0].bbox, other.bbox)
            assert np.float32(refused[0].score) == np.float32(other.score)
            assert refused[0].confidence == pytest.approx(other.confidence)
            assert client.analyze_batch([], return_refused=True) == []
        with Client(server.url, pack, detection_size=64, orientations="any") as client:
            expected = FaceAnalyzer(pack, detection_size=64, orientations="any")
            assert_same_faces(client.analyze(TWO), expected.analyze(TWO))
            found, wanted = client.detect(TWO), expected.detector.detect(TWO)
            np.testing.assert_array_equal(found.xyxy, wanted.xyxy)
            np.testing.assert_array_equal(found.quarter_turns, wanted.quarter_turns)
        with server.client() as http:
            for options in (
                {"detection_size": 4097},
                {"detection_size": "large"},
                {"orientations": "all"},
                {"confidence_threshold": 2},
            ):
                answer = http.post("/v1/align", files={"image": png(ONE)}, params=options)
                assert answer.status_code == 422, options
                assert next(iter(options)) in answer.json()["detail"]


def test_a_threshold_that_the_pack_has_no_use_for(http: httpx.Client) -> None:
    options = {"confidence_threshold": 0.5}
    answer = http.post("/v1/align", files={"image": png(ONE)}, params=options)
    assert answer.status_code == 422
    assert "use score_threshold" in answer.json()["detail"]
