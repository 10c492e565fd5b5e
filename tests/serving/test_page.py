"""The service's own page, in a real browser, with the real service behind it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from cases import cases
from pictures import exif_of
from PIL import Image, ImageChops, ImageOps, ImageStat
from playwright.sync_api import Browser, Page, Route, expect

from pipeline.client.service_process import serve

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}
GEOMETRY = """() => {
    const at = (element) => { const r = element.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom] };
    const seen = [...document.querySelectorAll(".box")].filter((box) => !box.hidden);
    return { image: at(document.querySelector("#image")), boxes: seen.map(at) };
}"""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(url, prepare, **options)`: a page in a context of its own, which must ask nobody but the service."""
    contexts, strangers, faults = [], [], []

    def open_at(url: str, prepare: Callable[[Page], object] = lambda page: None, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESK, "permissions": ["camera"], **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        host = url.split("/")[2]
        own = (f"http://{host}/", f"blob:http://{host}/", "data:")
        page.on("request", lambda request: None if request.url.startswith(own) else strangers.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        prepare(page)
        page.goto(url)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert (strangers, faults) == ([], [])


@pytest.fixture
def page(open_page: Callable[..., Page], server: Any) -> Page:
    """The service's page."""
    return open_page(server.url + "/")


@pytest.fixture
def jpeg(tmp_path: Path, picture: Any) -> Callable[..., Path]:
    """`jpeg(name, width, height, orientation)`: a file, bright but for two sides."""

    def write(name: str = "street.jpg", width: int = 200, height: int = 120, orientation: int = 0) -> Path:
        image = Image.fromarray(picture(width, height, (0, 0, width * 3 // 4, height * 3 // 4)))
        image.save(tmp_path / name, "JPEG", exif=exif_of(orientation) if orientation else Image.Exif())
        return tmp_path / name

    return write


def answer_of(server: Any, path: Path, **parameters: Any) -> Any:
    with path.open("rb") as file:
        answer = requests.post(f"{server.url}/predict", params=parameters, files={"images": file}, timeout=30).json()
    return answer[0]


def choose(page: Page, *paths: Path) -> None:
    page.set_input_files("#file", list(paths))


def set_threshold(page: Page, value: float) -> None:
    page.locator("#threshold").fill(str(value))


def boxes(page: Page) -> Any:
    return page.locator(".box:visible")


@cases(
    "width, height, orientation, viewport",
    {
        "landscape": (600, 400, 0, DESK),
        "turned by EXIF": (600, 400, 6, DESK),
        "turned by EXIF on a phone": (600, 400, 8, PHONE),
        "upside down on a phone": (1500, 700, 3, PHONE),
        "tiny": (50, 40, 0, DESK),
    },
)
def test_boxes_lie_at_the_pixels_of_the_answer(
    open_page: Any, server: Any, jpeg: Any, width: int, height: int, orientation: int, viewport: Any
) -> None:
    photo = jpeg("photo.jpg", width, height, orientation)
    answer = answer_of(server, photo)
    page = open_page(server.url + "/ui", viewport=viewport)
    choose(page, photo)
    expect(boxes(page)).to_have_count(1)
    expect(page.locator("#stage")).to_be_visible()
    left, top, right, bottom = page.evaluate(GEOMETRY)["image"]
    assert (right - left) / (bottom - top) == pytest.approx(answer["width"] / answer["height"], rel=0.01)
    assert (answer["width"] > answer["height"]) is (orientation not in (6, 8))
    scale = (right - left) / answer["width"]
    x1, y1, x2, y2 = (side * scale for side in answer["detections"][0]["box"])
    (shown,) = page.evaluate(GEOMETRY)["boxes"]
    assert shown == pytest.approx([left + x1, top + y1, left + x2, top + y2], abs=1)
    assert page.locator("#mismatch").is_hidden()
    page.locator("#boxes").evaluate("(element) => { element.style.display = 'none' }")
    seen = Image.open(io.BytesIO(page.locator("#image").screenshot())).convert("L")
    upright = ImageOps.exif_transpose(Image.open(photo)).convert("L").resize(seen.size)
    assert ImageStat.Stat(ImageChops.difference(seen, upright)).mean[0] < 5
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_the_threshold_filters_without_another_request(page: Page, server: Any, jpeg: Any) -> None:
    score = answer_of(server, jpeg())["detections"][0]["score"]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    choose(page, jpeg())
    expect(boxes(page)).to_have_count(1)
    assert page.locator("#least").inner_text() == "0.25", "the service's default"
    for threshold, count in ((round(score + 0.01, 2), 0), (round(score - 0.01, 2), 1), (1, 0), (0, 1)):
        set_threshold(page, threshold)
        expect(boxes(page)).to_have_count(count)
        expect(page.locator("#rows tr:visible")).to_have_count(count)
        expect(page.locator("#status")).to_contain_text("1 object" if count else "no objects; 1 hidden")
    assert asked == [f"{server.url}/predict?score_threshold=0.01"]
    assert page.locator("#least").inner_text() == "0.01", "the floor"


def test_classes_are_switched_off_and_on(page: Page, jpeg: Any) -> None:
    choose(page, jpeg())
    chip = page.get_by_role("checkbox", name="bright 1")
    for action, count in ((chip.uncheck, 0), (chip.check, 1), (page.locator("#none").click, 0), (chip.check, 1)):
        action()
        expect(boxes(page)).to_have_count(count)
    page.locator("#none").click()
    assert page.locator("[data-copy=curl]").is_disabled(), "no request asks for no class"
    expect(page.get_by_text("no objects; 1 hidden")).to_be_visible()


def test_a_row_and_its_box_are_marked_together(page: Page, jpeg: Any) -> None:
    choose(page, jpeg())
    row, box = page.locator("#rows tr"), page.locator(".box")
    row.get_by_role("button", name="bright").focus()
    expect(box).to_have_class(re.compile("lit"))
    page.locator("#all").focus()
    expect(box).not_to_have_class(re.compile("lit"))
    box.hover()
    expect(row).to_have_class(re.compile("lit"))


def test_several_pictures_of_which_one_is_bad(page: Page, jpeg: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("plain text")
    choose(page, jpeg("one.jpg"), tmp_path / "notes.txt", jpeg("two.jpg", 120, 200))
    thumbs = page.locator("#thumbs button")
    expect(thumbs).to_have_count(3)
    expect(page.locator("#status")).to_have_text("one.jpg: 1 object")
    thumbs.nth(1).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("notes.txt: image 0")
    expect(page.locator("#stage")).to_be_hidden()
    thumbs.nth(2).click()
    expect(page.locator("#status")).to_have_text("two.jpg: 1 object")
    expect(alert).to_be_hidden()


def test_a_service_that_stopped(open_page: Any, packed: Any, jpeg: Any) -> None:
    with serve(packed.folder) as own:
        page = open_page(own.url + "/")
        expect(page.locator("#model")).to_be_visible()
    choose(page, jpeg())
    expect(page.get_by_role("alert")).to_contain_text("street.jpg: the service does not answer")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


@pytest.mark.parametrize("name", ["street.jpg", 'it\'s, a "photo"; no.jpg'])
def test_the_copied_commands_give_the_same_answer(page: Page, server: Any, jpeg: Any, name: str) -> None:
    photo = jpeg(name)
    choose(page, photo)
    set_threshold(page, 0.5)
    expect(page.locator("#status")).to_contain_text("object")
    page.get_by_text("The same from a program").click()
    curl, python = page.locator("#curl").inner_text(), page.locator("#python").inner_text()
    assert f"{server.url}/predict?score_threshold=0.5" in curl
    assert "Authorization" not in curl + python
    expected = [answer_of(server, photo, score_threshold=0.5)]
    options = {"cwd": photo.parent, "capture_output": True, "text": True, "check": True, "timeout": 30}
    said = subprocess.run([sys.executable, "-c", python], **options).stdout
    assert said == f"{expected}\n"
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    assert json.loads(subprocess.run(["sh", "-c", curl], **options).stdout) == expected


def test_copying(open_page: Any, server: Any, jpeg: Any) -> None:
    page = open_page(server.url + "/", permissions=["clipboard-read", "clipboard-write"])
    choose(page, jpeg())
    page.get_by_text("The same from a program").click()
    for kind in ("curl", "python"):
        page.locator(f"[data-copy={kind}]").click()
        expect(page.get_by_text("Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == page.locator(f"#{kind}").text_content()


def test_the_keyboard_alone(page: Page, jpeg: Any) -> None:
    choose(page, jpeg())
    expect(boxes(page)).to_have_count(1)
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    while len(reached) < 20 and "bright" not in reached:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
        if reached[-1] == "threshold":
            for _ in range(5):
                page.keyboard.press("ArrowRight")
    assert page.locator("#least").inner_text() == "0.3"
    assert [each for each in reached if each in ("file", "sample", "camera", "threshold", "all", "bright")] == [
        "file", "sample", "camera", "threshold", "all", "bright",
    ]  # fmt: skip
    assert page.get_by_label("Choose pictures").get_attribute("id") == "file"
    assert page.get_by_label("Score threshold").first.get_attribute("id") == "threshold"


def test_the_camera(page: Page, server: Any) -> None:
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Take a picture").click()
    expect(page.locator("#status")).to_have_text("camera.jpg: 1 object")
    for _ in range(3):  # again and again, into the same picture
        with page.expect_request(f"{server.url}/predict?*"):
            page.get_by_label("Detect continuously").check()
    page.get_by_label("Detect continuously").uncheck()
    expect(boxes(page)).to_have_count(1)
    expect(page.locator("#thumbs button")).to_have_count(2)
    page.get_by_role("button", name="Close the camera").click()
    assert page.evaluate("stream.getTracks().every((track) => track.readyState === 'ended')")


def test_without_a_camera_the_page_says_why(open_page: Any, server: Any) -> None:
    hide = "Object.defineProperty(navigator, 'mediaDevices', { value: undefined })"
    page = open_page(server.url + "/", lambda page: page.add_init_script(hide))
    expect(page.get_by_text("The camera needs HTTPS")).to_be_visible()
    expect(page.locator("#camera")).to_be_hidden()


@cases(
    "event, member, target",
    {"dropped": ("drop", "dataTransfer", "#model"), "pasted": ("paste", "clipboardData", "body")},
)
def test_a_picture_that_is(page: Page, jpeg: Any, event: str, member: str, target: str) -> None:
    data = base64.b64encode(jpeg().read_bytes()).decode()
    page.evaluate(
        """([event, member, target, data]) => {
            const held = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
            held.items.add(new File([bytes], "given.jpg", { type: "image/jpeg" }));
            const kinds = { drop: DragEvent, paste: ClipboardEvent };
            const sent = new kinds[event](event, { [member]: held, bubbles: true, cancelable: true });
            document.querySelector(target).dispatchEvent(sent);
        }""",
        [event, member, target, data],
    )
    expect(page.locator("#status")).to_have_text("given.jpg: 1 object")


def test_the_test_picture(page: Page) -> None:
    page.get_by_role("button", name="Use the test picture").click()
    expect(page.locator("#status")).to_have_text("test_image.png: 1 object")


def test_an_api_key_is_asked_for_sent_and_not_shown(open_page: Any, server: Any, jpeg: Any) -> None:
    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer s3cret":
            route.continue_()
        else:
            error = {"code": "unauthorized", "message": "an API key is needed"}
            route.fulfill(status=401, json={"error": error})

    page = open_page(server.url + "/", lambda page: page.route(re.compile(r"/(info|predict|test_data)"), guard))
    expect(page.get_by_role("alert")).to_contain_text("an API key is needed")
    choose(page, jpeg())
    expect(page.get_by_role("alert")).to_contain_text("street.jpg: an API key is needed")
    for key in ("wrong", "s3cret"):
        page.get_by_label("needs an API key").fill(key)
        page.get_by_role("button", name="Use the key").click()
    expect(page.locator("#status")).to_have_text("street.jpg: 1 object")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#key-form")).to_be_hidden()
    commands = [page.locator(name).text_content() or "" for name in ("#curl", "#python")]
    assert '"Authorization: Bearer $API_KEY"' in commands[0]
    assert "os.environ['API_KEY']" in commands[1]
    compile(commands[1], "copied", "exec")
    assert "s3cret" not in page.content()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_an_answer_of_many_classes_and_its_timing(open_page: Any, server: Any, jpeg: Any) -> None:
    labels = ["car", "<b>dog</b>", "it's & co"]
    detections = [
        {"box": [10 * i, 10, 10 * i + 30, 50], "score": 0.9 - i / 10, "label": label, "class_id": i}
        for i, label in enumerate([*labels, "car"])
    ]
    answer = {"status": 200, "width": 200, "height": 120, "detections": detections}
    timing = {"Server-Timing": "read;dur=1.5, inference;dur=20.25"}
    routed = lambda page: page.route("**/predict?*", lambda route: route.fulfill(json=[answer], headers=timing))  # noqa: E731
    page = open_page(server.url + "/", routed)
    choose(page, jpeg())
    expect(page.locator("#timing")).to_contain_text("read 1.5 ms · inference 20.25 ms")
    assert page.locator(".chip").all_inner_texts() == ["car\n2", "<b>dog</b>\n1", "it's & co\n1"]
    page.get_by_role("checkbox", name="car").uncheck()
    curl, python = (page.locator(name).text_content() or "" for name in ("#curl", "#python"))
    assert "score_threshold=0.25&classes=%3Cb%3Edog%3C%2Fb%3E&classes=it'\\''s%20%26%20co'" in curl
    assert 'params={"score_threshold": 0.25, "classes": ["<b>dog</b>", "it\'s & co"]},' in python
    set_threshold(page, 0.75)
    expect(page.locator(".chip:visible")).to_have_count(2)
    assert "classes=%3Cb%3Edog%3C%2Fb%3E'" in (page.locator("#curl").text_content() or "")


@cases(
    "answer, status, says",
    {
        "one image of an answer": (
            [{"status": 422, "error": {"code": "invalid_image", "message": "no image", "index": 0}}], 200, "no image",
        ),
        "the whole request": ({"error": {"code": "overloaded", "message": "try again"}}, 503, "street.jpg: try again"),
        "a proxy": ("<h1>Bad Gateway</h1>", 502, "the service answered with status 502"),
    },
)  # fmt: skip
def test_an_error_about(open_page: Any, server: Any, jpeg: Any, answer: Any, status: int, says: str) -> None:
    body = answer if isinstance(answer, str) else json.dumps(answer)
    failing = [True]

    def fail_once(route: Route) -> None:
        route.fulfill(status=status, body=body) if failing.pop() else route.continue_()
        failing.append(False)

    page = open_page(server.url + "/", lambda page: page.route("**/predict?*", fail_once))
    choose(page, jpeg())
    expect(page.get_by_role("alert")).to_contain_text(says)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#status")).to_have_text("street.jpg: 1 object")


def test_the_facts_of_the_model(open_page: Any, server: Any) -> None:
    further = {
        "version": "1acf",
        "run": "run-7",
        "origin": {"commit": "c0ffee", "licence": "MIT"},
        "metrics": {"mAP": 0.77654, "x": {}},
    }

    def add(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), **further})

    page = open_page(server.url + "/", lambda page: page.route("**/info", add))
    facts = page.locator("#facts")
    for text in ("1acf", "nano", "2: dim, bright", "96 pixels", "mAP 0.7765", "run-7", "c0ffee", "CPUExecution"):
        expect(facts).to_contain_text(text)
    expect(page).to_have_title("object_detector")


def test_a_slash_at_the_end_of_its_path(open_page: Any, server: Any) -> None:
    page = open_page(server.url + "/ui/")
    assert page.url == server.url + "/ui"
    expect(page.locator("#model")).to_be_visible()


def test_below_a_path_prefix(open_page: Any, server: Any, jpeg: Any) -> None:
    def strip(route: Route) -> None:
        route.continue_(url=route.request.url.replace("/below/", "/"))

    page = open_page(server.url + "/below/ui", lambda page: page.route("**/below/**", strip))
    choose(page, jpeg())
    expect(boxes(page)).to_have_count(1)
    links = page.locator("nav a").evaluate_all("(links) => links.map((link) => link.href)")
    assert links == [f"{server.url}/below/docs", f"{server.url}/below/docs.json"]
    assert f"{server.url}/below/predict?" in (page.locator("#curl").text_content() or "")


def test_a_strict_content_security_policy(open_page: Any, server: Any, jpeg: Any) -> None:
    def guard(route: Route) -> None:
        response = route.fetch()
        blocks = re.findall(r"<(style|script)>(.*?)</\1>", response.text(), re.DOTALL)
        hashes = {kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for kind, text in blocks}
        policy = "; ".join(
            ["default-src 'self'; img-src blob: data:", *(f"{kind}-src 'sha256-{one}'" for kind, one in hashes.items())]
        )
        route.fulfill(response=response, headers={**response.headers, "content-security-policy": policy})

    logged: list[str] = []

    def prepare(page: Page) -> None:
        page.route(server.url + "/", guard)
        page.on("console", lambda message: logged.append(message.text))

    page = open_page(server.url + "/", prepare)
    choose(page, jpeg())
    expect(boxes(page)).to_have_count(1)
    assert page.locator("#stage").bounding_box()["width"] == 600, "three times its size"  # type: ignore[index]
    assert logged == []


def test_a_name_is_no_markup(page: Page, jpeg: Any) -> None:
    buffer = io.BytesIO(jpeg().read_bytes())
    name = "<img src=x onerror=alert(1)>.jpg"
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": buffer.getvalue()})
    expect(page.locator("#status")).to_have_text(f"{name}: 1 object")
    assert page.locator("img[src=x]").count() == 0
