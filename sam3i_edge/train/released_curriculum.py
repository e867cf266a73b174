"""SAM3-I's own curriculum: stages 1_1, 1_2 and 3 of its released configurations, as configs of this trainer.

Source: SAM3-I (arXiv:2512.04585), released code. What the stages keep of it: what learns, which instructions
go which way, the learning rates, the losses and their weights. What they cannot say:

- Epochs. A stage here counts steps; `sam3i_stages` computes them from the number of records.
- The schedule. The release lets the rate fall with the inverse square root of the step (to an 18th by step
  1,000), here it falls on a cosine to 0; its warm-up of 3 steps (1 in stage 3) is kept.
- The two forward passes of stage 3, one a branch. Here one pass has both instructions of a pair, and the
  segmentation loss is their mean where the release adds them: beside it the alignment counts twice as much.
- Batch size and augmentation. The release takes one image on each of 8 processes and varies size and padding;
  see `sam3i_run` for the former, the latter is not here. Nor is the one-to-many matching branch (`losses`).
- Averaged weights are this trainer's; the release writes the last ones.
"""

from __future__ import annotations

from sam3i_edge.train.alignment import SAM3I_ALIGNMENT
from sam3i_edge.train.losses import SAM3_LOSSES
from sam3i_edge.train.run_config import StageConfig, TrainConfig

# At lr_scale 1: what the released configurations multiply.
_TRANSFORMER_LR = 8e-4
_TEXT_LR = 5e-5
# lr_scale and epochs.
_STAGE_1_1 = (12.8, 8)
_STAGE_1_2 = (12.8, 8)
_STAGE_3 = (3.2, 4)
HMPL_IMAGES = 44_109
BATCH = 8  # samples a step: one on each of 8 processes


def sam3i_stages(records: int, batch: int = BATCH) -> tuple[StageConfig, StageConfig, StageConfig]:
    """Stages 1_1, 1_2 and 3 of the release, under the names "1", "2" and "3".

    Args:
        records: samples an epoch.
        batch: samples a step, over all ranks.

    Raises:
        ValueError: one of them is below 1.
    """
    if records < 1 or batch < 1:
        raise ValueError(f"records and batch must be at least 1, got {records} and {batch}")

    def steps(epochs: int) -> int:
        return epochs * -(-records // batch)

    text_lr = _TEXT_LR / _TRANSFORMER_LR
    return (
        StageConfig(
            name="1",
            steps=steps(_STAGE_1_1[1]),
            lr=_STAGE_1_1[0] * _TRANSFORMER_LR,
            text_lr=text_lr,
            warmup=3,
            route="adapted",
            trainable=("simple",),
            level_weights={"simple": 1.0},
            none_share=0.0,
        ),
        StageConfig(
            name="2",
            steps=steps(_STAGE_1_2[1]),
            lr=_STAGE_1_2[0] * _TRANSFORMER_LR,
            text_lr=text_lr,
            warmup=3,
            route="adapted",
            trainable=("bridge", "complex"),
            level_weights={"complex": 1.0},
            none_share=0.0,
        ),
        StageConfig(
            name="3",
            steps=steps(_STAGE_3[1]),
            lr=_STAGE_3[0] * _TRANSFORMER_LR,
            text_lr=text_lr,
            warmup=1,
            route="adapted",
            trainable=("simple", "bridge", "complex"),
            level_weights={"simple": 0.5, "complex": 0.5},
            none_share=0.0,
            pairs=1,
        ),
    )


# For HMPL-Instruct, one sample an image.
SAM3I_STAGES = sam3i_stages(HMPL_IMAGES)


def sam3i_run(start: str, data: str, records: int, *, images: int = 1, ranks: int = 8) -> TrainConfig:
    """The whole run: the official model on a user's annotations, with the released losses and optimiser.

    An image has two instructions in every stage: in stage 3 the pair, before that two of the stage's level,
    where the release draws one.

    Args:
        start: folder with the weights and sizes of the model.
        data: folder with `annotations.json` and `images/`.
        records: samples an epoch, for the number of steps.
        images: images a step and rank.
        ranks: processes that `torchrun` will start; with one rank and one image stage 3 refuses to start.
    """
    return TrainConfig(
        model="",
        stages=sam3i_stages(records, images * ranks),
        start=start,
        data=data,
        images=images,
        instructions=2,
        mask_instructions=2,
        losses=SAM3_LOSSES,
        alignment=SAM3I_ALIGNMENT,
        weight_decay=0.1,
        clip=0.1,
    )
