"""The report: whole, self-contained, escaped, and saying what the figures say."""

import re
from html.parser import HTMLParser

import pytest

from pipeline.errors import UsageError
from pipeline.evaluation.agreement import TestImageCheck
from pipeline.evaluation.gate import judge
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.pictures import comparison_pictures
from pipeline.evaluation.prediction import Latency, Predictions
from pipeline.evaluation.report import dataset_summary, write_report

AGREES = TestImageCheck(True, 0.0, 0.0, 3, 3, 0)
EVIL = "<script>alert('x')</script>"


def predictions(results, **changes):
    values = {
        "results": results,
        "service": {"name": "object_detector", "classes": ["bright", "dark"], "input_size": [64, 96], "limits": {}},
        "score_threshold": 0.01,
        "images": 3,
        "requests": 3,
        "retries": 0,
        "workers": 2,
        "seconds": 0.5,
        "images_per_second": 6.0,
        "latency": Latency(11.0, 10.0, 20.0, 21.0, 22.0, 23.4),
        "dropped": {},
        "unknown_classes": (),
        "resized": (),
    }
    return Predictions(**(values | changes))


class Page(HTMLParser):
    """Text, tags and the addresses that a browser would fetch."""

    def __init__(self, path):
        super().__init__()
        self.text, self.tags, self.addresses, self.open = "", [], [], []
        self.feed(path.read_text("utf-8"))
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        self.text += " " if tag in ("td", "th", "b") else ""
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture
def report(write_dataset, tmp_path):
    def write(greys=(250, 240, 60), categories=("bright", "dark"), results=None, gate=0.5, check=AGREES, **changes):
        dataset = write_dataset(greys, categories)
        if results is None:
            results = [{"image_id": n, "category_id": 1, "bbox": [8, 8, 32, 32], "score": 0.9 - n / 10} for n in (0, 1)]
        metrics = evaluate(dataset, results)
        written = write_report(
            tmp_path / "report.html",
            metrics=metrics,
            predictions=predictions(results, **changes),
            check=check,
            gate=judge(metrics, gate),
            pictures=comparison_pictures(dataset, results, metrics),
            dataset=dataset_summary(dataset),
            parameters={"workers": 2, "rate": 0.1 + 0.2, "nothing": None},
            provenance={"run": "20260101T000000Z", "inputs": {"coco_test_dataset": "file:///store/abc"}, "note": EVIL},
            bento="my bento",
        )
        assert written.size == written.path.stat().st_size
        return Page(written.path)

    return write


def test_it_tells_everything_and_fetches_nothing(report):
    page = report()
    assert page.open == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert len(page.addresses) == 4 + 3  # charts and pictures
    assert all(address.startswith("data:image/") for address in page.addresses)
    for expected in (
        "Quality gate passed: mAP50 0.5000 ≥ 0.5000", "agrees with the recorded predictions", "median 10.0 ms",
        "longest 23.4 ms", "6.0 images/s", "64 x 96 px (height x width)", "coco_test_dataset: file:///store/abc",
        "0.png: 1 found, 0 missed", "curl -F images=@photo.jpg", "bentoml serve 'my bento'",
        "2 of 2 classes have fewer", "bright 2 2 1.000 1.000", "dark 1 1 0.000 0.000", "rate 0.3",
        "nothing -", EVIL,
    ):  # fmt: skip
        assert expected in page.text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param({"gate": 0.9}, "Quality gate failed: mAP50 0.5000 < 0.9000", id="gate-failed"),
        pytest.param({"gate": 0}, "No quality gate was set", id="no-gate"),
        pytest.param({"results": []}, "Quality gate failed: mAP50 0.0000", id="no-predictions"),
        pytest.param({"categories": ("owl",)}, "Quality gate failed: mAP50 -", id="no-objects"),
        pytest.param({"categories": ("bright", "dark", "owl")}, "not in the means: owl", id="class-without-objects"),
        pytest.param({"check": TestImageCheck(False, 9.5, 0.1, 3, 4, 1)}, "differs from the recorded", id="disagrees"),
        pytest.param({"check": TestImageCheck(False, 9.5, 0.1, 3, 4, 1)}, "is not what was packed", id="remark"),
        pytest.param({"unknown_classes": ("dark",)}, "does not know these classes", id="unknown-classes"),
        pytest.param({"dropped": {"cat": 3, "dog": 4}}, "7 detections of 2 classes", id="dropped"),
        pytest.param({"resized": ("0.png",)}, "1 images are not of the annotated size", id="resized"),
    ],
)
def test_it_says_what_a_reader_must_know(report, arguments, expected):
    assert expected in report(**arguments).text


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        pytest.param(
            {"best_epoch": 2, "pretrained_mAP": 0.4, "gained_mAP": 0.05},
            "raised mAP on the eval set by 0.050",
            id="gain",
        ),
        pytest.param(
            {"best_epoch": 0, "pretrained_mAP": 0.4, "gained_mAP": 0.0}, "these are what is packed", id="none"
        ),
        pytest.param({"best_epoch": 2, "eval_mAP": 0.4}, "", id="from scratch"),
        pytest.param(None, "", id="an older service"),
    ],
)
def test_it_says_what_training_gained(report, training, expected):
    text = report(service={"name": "object_detector", "classes": ["bright", "dark"], "training": training}).text
    said = [each for each in ("raised mAP on the eval set by 0.050", "these are what is packed") if each in text]
    assert said == ([expected] if expected else [])


def test_class_names_are_text(report):
    page = report(categories=("bright", "<b>dark</b>"))
    assert "b" not in page.tags[page.tags.index("table") :]
    assert "<b>dark</b>" in page.text


def test_the_gate(write_dataset):
    dataset = write_dataset([250, 60])
    metrics = evaluate(dataset, [{"image_id": 0, "category_id": 1, "bbox": [8, 8, 32, 32], "score": 0.9}])
    assert judge(metrics, 0.5).passed is True
    assert judge(metrics, None).passed is None
    assert judge(metrics, 0.51).passed is False
    for nonsense in (-0.1, 1.1, 60):
        with pytest.raises(UsageError, match="between 0 and 1"):
            judge(metrics, nonsense)


def test_the_summary_of_a_data_set(write_dataset):
    rows = dataset_summary(write_dataset([250, 240, 60], categories=("bright", "owl")))
    assert (rows["images"], rows["images without objects"], rows["objects"], rows["classes"]) == (3, 1, 2, 2)
    assert rows["small / medium / large objects"] == "0 / 2 / 0"
    assert rows["image size, median"] == "64 x 64 px"
