"""Every row of the corpus, the plain convolutional networks first."""

from __future__ import annotations

from tests.corpus import (
    rows_diffusion,
    rows_handmade,
    rows_more_diffusion,
    rows_more_scenes,
    rows_more_sight,
    rows_more_text,
    rows_more_timm,
    rows_more_vision,
    rows_more_volumes,
    rows_pytorchcv,
    rows_segmentation,
    rows_timm,
    rows_timm_attention,
    rows_torchvision,
    rows_transformers,
    rows_transformers_senses,
)
from tests.corpus.row import Row
from tests.corpus.rows_open import with_open
from tests.corpus.rows_quantised import with_quantised

_ROWS = (
    *rows_torchvision.CLASSIFIERS,
    *rows_pytorchcv.CLASSIFIERS,
    *rows_timm.CONVOLUTIONAL,
    *rows_handmade.HANDMADE,
    *rows_segmentation.SMP,
    *rows_segmentation.YOLO,
    *rows_transformers.ENCODERS,
    *rows_transformers_senses.VISIONARY,
    *rows_diffusion.DIFFUSERS,
    *rows_segmentation.MONAI,
    *rows_torchvision.ATTENTION,
    *rows_torchvision.SEGMENTERS,
    *rows_timm_attention.ATTENTION,
    *rows_transformers.DECODERS,
    *rows_transformers_senses.AUDITORY,
    *rows_pytorchcv.SEGMENTERS_AND_POSE,
    *rows_pytorchcv.MORE_CLASSIFIERS,
    *rows_torchvision.DETECTORS,
    *rows_torchvision.VIDEO_AND_FLOW,
    *rows_more_timm.TIMM,
    *rows_more_vision.TORCHVISION,
    *rows_more_vision.PYTORCHCV,
    *rows_more_vision.SMP,
    *rows_more_vision.YOLO,
    *rows_more_text.ENCODERS,
    *rows_more_text.DECODERS,
    *rows_more_sight.VISIONARY,
    *rows_more_scenes.SCENES,
    *rows_more_scenes.AUDITORY,
    *rows_more_diffusion.DIFFUSERS,
    *rows_more_volumes.MONAI,
)
ROWS: tuple[Row, ...] = with_open(with_quantised(_ROWS))
