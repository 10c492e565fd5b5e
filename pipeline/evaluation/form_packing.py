"""Further forms of a model, each packed as a service of its own beside the one that a run is about.

A form is a runtime and a precision. All are made of one export, so what differs between them is what a form costs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.detection.export import ExportedModel
from pipeline.errors import PipelineError
from pipeline.evaluation.model_form import DatasetFolders, ModelForm, choose_form
from pipeline.evaluation.packed_forms import PackedForm, write_forms
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.packing import pack_service
from pipeline.serving.runtimes import FORMS, require_engine

log = logging.getLogger(__name__)


def pack_forms(
    names: Sequence[str],
    model: ExportedModel,
    metadata: ModelMetadata,
    datasets: DatasetFolders,
    folder: Path,
    scratch: Path,
    *,
    test_image: Path,
    learned: Path | None,
    packed: ModelForm,
    max_map_loss: float,
) -> tuple[PackedForm, ...]:
    """Make each form and pack it into a folder of its name, and write `forms.json`; one that fails is left out.

    A form is left out for the reasons for which `choose_form` refuses it: it loses more than `max_map_loss`, or a lower
    precision is no faster.

    Args:
        names: Of `FORMS`.
        model: The exported file.
        metadata: Of the model, as `choose_form` takes it.
        datasets: What forms are calibrated with and measured on.
        folder: Where the Bentos go.
        scratch: Where other models' files may be written.
        test_image: See `pack_service`, also for `learned`.
        learned: The record of the images that the model learned from.
        packed: The form of the service itself.
        max_map_loss: How much lower than the reference's the mAP on the eval set may be.

    Raises:
        MissingError: A package that runs one of the forms is not installed.
    """
    for name in names:
        require_engine(FORMS[name][0])
    known = packed.metrics.get("map_fp32")
    forms = []
    for name in names:
        runtime, precision = FORMS[name]
        work = scratch / name
        work.mkdir()
        try:
            form = choose_form(
                model,
                metadata,
                datasets,
                work,
                runtime=runtime,
                precision=precision,
                max_map_loss=max_map_loss,
                map_fp32=known,
            )
        except PipelineError as error:
            forms.append(PackedForm(name, absence=error.problem))
        else:
            known = form.metrics.get("map_fp32", known)
            if form.metadata.precision == precision:
                bento = pack_service(form.model.path, form.metadata, test_image, folder / name, learned=learned)
                forms.append(PackedForm(name, bento.tag))
            else:  # a lower precision does not pay
                slower = f"{precision} took {form.metrics['time_to_fp32']:.2f} times as long as fp32 on {runtime}"
                forms.append(PackedForm(name, absence=slower))
        if forms[-1].absence:
            log.warning("%s is left out: %s", name, forms[-1].absence)
    write_forms(forms, folder)
    return tuple(forms)
