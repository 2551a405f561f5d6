"""The page of the web API, in a real browser, against a real server process."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import plyfile
import pytest
import trimesh
from PIL import Image

import npm
import threedfa
from browsing import Browser, Page, chromium, expect, send_picture
from pictures import png
from threedfa.tables import faces_to_dict
from toy_pack import COLUMNS, ROWS
from web_server import NAMES, serving

Array = npt.NDArray[Any]

pytest.importorskip("fastapi", reason="needs the extra [web]")

PHONE = {"width": 360, "height": 740}
LARGEST = 100_000  # pixels that the server takes
WAIT = 60  # seconds
BORDER = 8  # pixels
KEY = "a key of this test alone"


@pytest.fixture(scope="module")
def server(web_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    flags = ("--max-pixels", str(LARGEST), "--threads", "1")
    with serving(web_pack, tmp_path_factory.mktemp("log"), *flags) as running:
        yield running.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def open_page(browser: Browser, server: str) -> Iterator[Callable[..., Page]]:
    """Opens the page. Whatever a test does there: nothing may be asked of another host, no script
    may fail, and nothing may break the page's content security policy."""
    complaints: list[str] = []
    contexts = []

    def watch_request(request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "blob:", "data:")):
            complaints.append(request.url)

    def watch_console(message: Any) -> None:
        if "Content Security Policy" in message.text:
            complaints.append(message.text)

    def open_page(address: str = server, **options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("request", watch_request)
        page.on("console", watch_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def image() -> Array:
    """Two faces for the toy pack: red squares with other colours in them."""
    image = np.zeros((192, 256, 3), np.uint8)
    steps = np.linspace(0, 200, 32).astype(np.uint8)
    image[32:64, 32:64, 0], image[32:64, 32:64, 1] = 255, steps
    image[96:128, 160:192, 0], image[96:128, 160:192, 2] = 230, steps[:, None]
    return image


@pytest.fixture(scope="module")
def picture(image: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "two faces.png"
    path.write_bytes(png(image))
    return path


@pytest.fixture(scope="module")
def faces(image: Array, web_pack: Path) -> list[threedfa.Face]:
    return threedfa.FaceAnalyzer(web_pack).analyze(image)


@pytest.fixture
def page(open_page: Callable[..., Page], picture: Path) -> Page:
    """The page with the picture on it."""
    page = open_page()
    send_picture(page, picture)
    return page


@pytest.fixture
def page_in_3d(page: Page) -> Page:
    if not (resources.files("threedfa.web") / "page" / "face_viewer.js").is_file():
        pytest.skip("the page has no 3D view: installed without npm or the network")
    expect(canvas(page)).to_have_attribute("aria-label", "Face 1 in 3D")
    return page


def canvas(page: Page) -> Any:
    return page.locator("#canvas")


def view_when(page: Page, condition: Callable[[Array], bool]) -> Array:
    """What is seen of the 3D view, RGB without its rounded corners, as soon as it is so."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        shot = Image.open(io.BytesIO(canvas(page).screenshot())).convert("RGB")
        view = np.asarray(shot)[BORDER:-BORDER, BORDER:-BORDER].astype(int)
        if condition(view):
            return view
    raise AssertionError(f"the view is still not as expected after {WAIT} s")


def view_with_face(page: Page) -> Array:
    return view_when(page, lambda view: 0.1 < changed(view, view[:1, :1]) < 0.9)


def changed(one: Array, other: Array) -> float:
    """The share of pixels that differ to the eye."""
    return float((np.abs(one - other).max(axis=2) > 8).mean())


def pick(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).check()


def downloaded(page: Page, button: str) -> tuple[str, bytes]:
    """The name and the content of a file."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_boxes_landmarks_and_pose_are_the_librarys(page: Page, faces: list[threedfa.Face]) -> None:
    expect(page.get_by_role("status")).to_have_text("2 faces found.")
    boxes, points = page.locator(".box"), page.locator(".points")
    for i, face in enumerate(faces):
        box = [float(boxes.nth(i).get_attribute(key)) for key in ("x", "y", "width", "height")]
        np.testing.assert_allclose(box, [*face.bbox[:2], *face.bbox[2:] - face.bbox[:2]], atol=1e-3)
        path = re.findall(r"M(\S+) (\S+)h0", points.nth(i).get_attribute("d"))
        np.testing.assert_allclose(np.float64(path), face.landmarks[:, :2], atol=1e-3)
    page.get_by_label("Boxes").uncheck()
    expect(boxes).to_have_count(0)
    page.get_by_label("Landmarks").uncheck()
    expect(points).to_have_count(0)
    pose = faces[0].pose
    angles = page.locator("#pose dd:first-of-type").all_inner_texts()
    shown = [float(angle.replace("−", "-").rstrip("°")) for angle in angles]
    np.testing.assert_allclose(shown, [pose.yaw, pose.pitch, pose.roll], atol=0.051)


@pytest.mark.parametrize("mode", ["mesh", "depth", "pncc"])
def test_surfaces_are_the_librarys(
    page: Page, image: Array, faces: list[threedfa.Face], mode: Any
) -> None:
    pick(page, {"mesh": "Mesh", "depth": "Depth", "pncc": "PNCC"}[mode])
    surface = page.locator("#surface")
    expect(surface).to_be_visible()
    content = page.evaluate(
        """async () => {
          const response = await fetch(document.getElementById("surface").src);
          const bytes = new Uint8Array(await response.arrayBuffer());
          return btoa(String.fromCharCode(...bytes));
        }"""
    )
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    np.testing.assert_array_equal(shown, threedfa.render(image, faces, mode))
    pick(page, "None")
    expect(surface).to_be_hidden()


def test_the_3d_view_shows_a_face_that_turns(page_in_3d: Page) -> None:
    front = view_with_face(page_in_3d)
    looks = [front]
    for look in ("Shaded", "Wireframe"):
        pick(page_in_3d, look)
        looks.append(
            view_when(page_in_3d, lambda view: all(changed(view, other) > 0.05 for other in looks))
        )
    pick(page_in_3d, "Texture")
    view_when(page_in_3d, lambda view: changed(view, front) == 0)
    canvas(page_in_3d).focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "+"):
        page_in_3d.keyboard.press(key)
    view_when(page_in_3d, lambda view: changed(view, front) > 0.05)
    page_in_3d.get_by_role("button", name="As in the picture").click()
    view_when(page_in_3d, lambda view: changed(view, front) == 0)


def test_sliders_move_the_mesh(page_in_3d: Page, faces: list[threedfa.Face]) -> None:
    page_in_3d.get_by_text("Expressions").click()
    sliders = page_in_3d.get_by_role("slider")
    expect(sliders).to_have_count(len(NAMES))
    fitted = [float(slider.input_value()) for slider in sliders.all()]
    np.testing.assert_allclose(fitted, faces[0].expression_coeffs, atol=1 / 400)
    before = view_with_face(page_in_3d)
    page_in_3d.get_by_role("slider", name="Jaw open").fill("1")
    view_when(page_in_3d, lambda view: chin(view) > chin(before) + 5)
    page_in_3d.get_by_role("button", name="Neutral").click()
    assert [slider.input_value() for slider in sliders.all()] == ["0"] * len(NAMES)
    page_in_3d.get_by_role("button", name="As fitted").click()
    view_when(page_in_3d, lambda view: changed(view, before) == 0)


def chin(view: Array) -> int:
    """The lowest row in which something is drawn."""
    return int(np.flatnonzero((view != view[0, 0]).any(axis=(1, 2))).max())


def test_faces_are_chosen_by_keyboard_and_by_their_boxes(page_in_3d: Page) -> None:
    first = view_with_face(page_in_3d)
    page_in_3d.get_by_role("radio", name="Face 1").focus()
    page_in_3d.keyboard.press("ArrowRight")
    expect(page_in_3d.get_by_role("heading", name="Face 2")).to_be_visible()
    expect(canvas(page_in_3d)).to_have_attribute("aria-label", "Face 2 in 3D")
    view_when(page_in_3d, lambda view: changed(view, first) > 0.05)
    expect(page_in_3d.locator(".box").nth(1)).to_have_class("box selected")
    page_in_3d.locator(".box").nth(0).click()
    expect(page_in_3d.get_by_role("radio", name="Face 1")).to_be_checked()
    view_when(page_in_3d, lambda view: changed(view, first) == 0)


def test_downloads_are_read_by_other_programs(
    page: Page, image: Array, faces: list[threedfa.Face]
) -> None:
    pick(page, "Face 2")
    name, content = downloaded(page, "GLB")
    assert name == "two faces_face2.glb"
    scene = trimesh.load(io.BytesIO(content), file_type="glb")
    (mesh,) = scene.geometry.values()
    assert len(mesh.vertices) == ROWS * COLUMNS and mesh.visual.uv is not None
    length = int.from_bytes(content[12:16], "little")
    (described,) = json.loads(content[20 : 20 + length])["meshes"]
    assert described["extras"]["targetNames"] == NAMES
    assert described["weights"] == faces[1].expression_coeffs.tolist()

    name, content = downloaded(page, "PLY")
    assert name == "two faces_face2.ply"
    vertex = plyfile.PlyData.read(io.BytesIO(content))["vertex"]
    expected = faces[1].vertices * (1, -1, 1) + (0, len(image), 0)
    np.testing.assert_allclose(
        np.stack([vertex[axis] for axis in "xyz"], axis=1), expected, atol=1e-3
    )

    name, content = downloaded(page, "OBJ (zip)")
    assert name == "two faces_face2.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert {Path(member).suffix for member in archive.namelist()} == {".obj", ".mtl", ".png"}

    name, content = downloaded(page, "Texture")
    assert name == "two faces_face2.png"
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(content))), threedfa.uv_texture(image, faces[1], size=1024)
    )

    name, content = downloaded(page, "JSON of all faces")
    assert name == "two faces.json"
    schema = resources.files("threedfa").joinpath("schemas/result.schema.json").read_text()
    jsonschema.validate(json.loads(content), json.loads(schema))
    expected_json = faces_to_dict(image.shape[:2], faces, name="two faces.png", blendshapes=True)
    assert json.loads(content) == [expected_json]


def test_what_goes_wrong_is_said_in_words(
    open_page: Callable[..., Page], picture: Path, tmp_path: Path
) -> None:
    page = open_page()
    alert = page.get_by_role("alert")
    file = page.get_by_label("Choose a picture")

    page.get_by_label("Choose a picture").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    expect(alert).to_contain_text("no picture that the browser can show")

    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    file.set_input_files(tmp_path / "black.png")
    expect(alert).to_contain_text("No face was found")

    Image.new("RGB", (400, 300)).save(tmp_path / "large.png")
    file.set_input_files(tmp_path / "large.png")
    expect(alert).to_contain_text(f"Expected at most {LARGEST} pixels")

    page.context.set_offline(True)
    file.set_input_files(picture)
    expect(alert).to_contain_text("The server does not answer")

    page.context.set_offline(False)
    send_picture(page, picture)
    expect(alert).to_be_hidden()


def test_dropped_pictures(open_page: Callable[..., Page], picture: Path) -> None:
    page = open_page()
    content = base64.b64encode(picture.read_bytes()).decode()
    drop = """([content, count]) => {
      const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      for (let i = 0; i < count; i++) {
        dataTransfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
      }
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
    }"""
    page.evaluate(drop, [content, 2])
    expect(page.get_by_role("alert")).to_have_text("Expected one picture, got 2.")
    page.evaluate(drop, [content, 1])
    expect(page.get_by_role("status")).to_have_text("2 faces found.")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_the_camera(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.get_by_role("button", name="Use the camera").click()
    dialog = page.get_by_role("dialog", name="Camera")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Use the camera")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Take the picture").click()
    expect(dialog).to_be_hidden()
    # What the browser's made-up camera shows is larger than this server takes.
    expect(page.get_by_role("alert")).to_contain_text(str(LARGEST))
    expect(page.get_by_role("img", name=re.compile("The picture, [0-9]+ by"))).to_be_visible()


def test_without_the_3d_view_the_rest_works(open_page: Callable[..., Page], picture: Path) -> None:
    page = open_page()
    page.route("**/face_viewer.js", lambda route: route.fulfill(status=404))
    send_picture(page, picture)
    expect(
        page.get_by_text("The 3D view is off. This installation was built without it")
    ).to_be_visible()
    expect(canvas(page)).to_be_hidden()
    assert downloaded(page, "GLB")[1][:4] == b"glTF"
    pick(page, "Mesh")
    expect(page.locator("#surface")).to_be_visible()


def test_without_a_mesh_the_view_says_why(open_page: Callable[..., Page], picture: Path) -> None:
    page = open_page()
    page.route("**/v1/mesh*", lambda route: route.abort())
    send_picture(page, picture)
    expect(page.get_by_text("The 3D view is off. The server does not answer.")).to_be_visible()
    expect(canvas(page)).to_be_hidden()
    page.unroute("**/v1/mesh*")
    pick(page, "Face 2")
    expect(canvas(page)).to_have_attribute("aria-label", "Face 2 in 3D")
    expect(canvas(page)).to_be_visible()


def test_it_fits_a_phone(open_page: Callable[..., Page], picture: Path) -> None:
    page = open_page(viewport=PHONE, has_touch=True)
    send_picture(page, picture)
    page.get_by_text("Expressions").click()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script that checks pages against the Web Content Accessibility Guidelines."""
    folder = tmp_path_factory.mktemp("axe")
    npm.install(folder, "axe-core@4.14.1")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_complaints(
    open_page: Callable[..., Page], picture: Path, axe: str, scheme: str
) -> None:
    page = open_page(color_scheme=scheme)
    page.evaluate(axe)

    def violations() -> list[Any]:
        found = page.evaluate("axe.run().then((result) => result.violations)")
        return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]

    assert violations() == []
    page.get_by_label("Choose a picture").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations() == []
    send_picture(page, picture)
    page.get_by_text("Expressions").click()
    assert violations() == []


def test_a_key_is_asked_for(
    open_page: Callable[..., Page], web_pack: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(KEY)
    with serving(web_pack, tmp_path, "--api-keys", str(tmp_path / "keys")) as running:
        page = open_page(running.url)
        page.get_by_label("Choose a picture").set_input_files(picture)
        page.get_by_label("API key").fill("something else")
        page.get_by_label("API key").press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Expected an API key")
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("status")).to_have_text("2 faces found.")
        expect(page.get_by_label("API key")).to_be_hidden()
