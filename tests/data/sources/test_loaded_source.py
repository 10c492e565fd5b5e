"""The result of loading a source."""

from __future__ import annotations

from pipeline.data.sources.loaded_source import LoadedSource, Skipped


def test_every_skipped_item_is_counted() -> None:
    skipped = [Skipped(f"{i}.{j}", f"reason {i}") for i in range(7) for j in range(7 - i)]
    notes = LoadedSource("folder", "x", skipped=tuple(skipped)).notes
    assert notes[0] == "7 skipped: reason 0, such as 0.0"
    assert notes[5:] == ("3 skipped for 2 other reasons",)
    assert LoadedSource("folder", "x", skipped=tuple(skipped[:7])).notes == ("7 skipped: reason 0, such as 0.0",)
