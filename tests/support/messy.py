"""Datasets with anything wrong in any combination, as Hypothesis draws them, and facts about their files."""

from __future__ import annotations

from hypothesis import strategies as st

from pipeline.data.checks.validation import RULES
from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.images import ImageFacts

numbers = st.one_of(
    st.integers(-70, 130).map(float), st.floats(-1e3, 1e3), st.floats(), st.sampled_from([0.0, 1e-9, 60.0, 59.999])
)
near = st.sampled_from([5.0, 5.5, 6.0, 20.0, 20.5, 60.0])
names = st.sampled_from(["a.png", "b.png", "c.png", "d.png", "e.png", "./a.png", "gone.png"])
small = st.integers(0, 4)
sizes = st.sampled_from([0, 20, 30, 40, 59, 60])
masks = st.one_of(
    st.none(),
    st.lists(st.lists(st.one_of(numbers, near), max_size=8), max_size=2),
    st.fixed_dictionaries({"size": st.sampled_from([[40, 60], [30, 30]]), "counts": st.lists(small)}),
    st.just({"size": [40, 60], "counts": [2400]}),
    st.text(max_size=2),
)
annotations = st.builds(
    Annotation,
    small,
    small,
    small,
    st.one_of(st.tuples(numbers, numbers, numbers, numbers), st.tuples(near, near, near, near)),
    numbers,
    st.sampled_from([0, 0, 0, 1]),
    masks,
)
datasets = st.builds(
    CocoDataset,
    st.lists(st.builds(Image, small, names, sizes, sizes), max_size=6).map(tuple),
    st.lists(annotations, max_size=12).map(tuple),
    st.lists(st.builds(Category, small, st.sampled_from(["cat", "dog", "D og", "cow"])), max_size=4).map(tuple),
)
LOOK = bytes(range(32)) * 9
FACTS = {
    "a.png": ImageFacts(60, 40, digest="a"),
    "./a.png": ImageFacts(60, 40, digest="a"),
    "b.png": ImageFacts(40, 60, 6, digest="b"),
    "c.png": ImageFacts(30, 30, 3, digest="c", fingerprint=LOOK),
    "d.png": ImageFacts(60, 40, digest="a"),
    "e.png": ImageFacts(60, 40, digest="e", fingerprint=LOOK),
    "gone.png": ImageFacts(problem="the file is missing", kind="missing"),
}
actions = st.fixed_dictionaries({rule.name: st.sampled_from(rule.allowed) for rule in RULES})
