"""A router: which level an instruction is of, learned from texts, on the token embeddings of a text encoder.

Two convolutions over the words and a maximum. It is trained after the model, on instructions that are written
for scenes without pictures (`data.made_up`), in the wordings that the model is trained on; the families of
wordings that are kept from training show what it is worth beside the rules of `levels.route`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sam3i_edge.data.families import HELD_OUT, TYPED
from sam3i_edge.data.instructions import write_instruction
from sam3i_edge.data.made_up import made_up
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.levels import LEVELS, Level
from sam3i_edge.runtimes import Progress, untold

Encode = Callable[[str], NDArray[np.int64]]

_TABLE, _HIDDEN = 32, 48  # channels of a token, and of both convolutions
_BATCH, _RATE, _DECAY, _SMOOTHING = 128, 3e-3, 1e-2, 0.05
_OTHER = 0.1  # share of the tokens that another takes the place of: no single word may decide
_EACH = 6  # texts of a scene and level


@dataclass(frozen=True, slots=True)
class Text:
    """An instruction and its level.

    Attributes:
        text: as a person types it.
        level: that it was written at.
        family: of its wording.
    """

    text: str
    level: Level
    family: str


class Router(nn.Module):
    """Token ids to logits of the levels.

    Args:
        embedding: [V, W], of the text encoder; it is not trained.
    """

    embedding: Tensor

    def __init__(self, embedding: Tensor) -> None:
        super().__init__()
        self.register_buffer("embedding", embedding.detach().float())
        self.table = nn.Linear(embedding.shape[1], _TABLE, bias=False)
        self.near = nn.Conv1d(_TABLE, _HIDDEN, 3, padding=1)
        self.far = nn.Conv1d(_HIDDEN, _HIDDEN, 3, padding=1)
        self.levels = nn.Linear(2 * _HIDDEN, len(LEVELS))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Int64 [N, T], padded with 0 -> float32 [N, 3], in the order of `LEVELS`."""
        return self.logits(self.table(self.embedding[input_ids]), input_ids)

    def logits(self, tokens: Tensor, input_ids: Tensor) -> Tensor:
        """The same from the channels of the tokens, [N, T, 32]."""
        real = (input_ids != 0)[:, None].float()  # [N, 1, T]
        near = F.gelu(self.near(tokens.transpose(1, 2) * real)) * real
        far = F.gelu(self.far(near)) * real
        found: Tensor = self.levels(torch.cat((near.amax(2), far.amax(2)), dim=1))
        return found


class RouterGraph(nn.Module):
    """The `router` graph: the table of channels in place of the embeddings that it comes from."""

    channels: Tensor

    def __init__(self, router: Router) -> None:
        super().__init__()
        self.router = router
        self.register_buffer("channels", router.table(router.embedding).detach())

    def forward(self, input_ids: Tensor) -> Tensor:
        """Int64 [1, T] -> float32 [1, 3]."""
        return self.router.logits(F.embedding(input_ids, self.channels), input_ids)


def written(
    vocabularies: Sequence[str],
    scenes: int,
    seed: int,
    wordings: Mapping[str, float] = TYPED,
    *,
    each: int = _EACH,
    progress: Progress = untold,
) -> list[Text]:
    """Instructions for made-up scenes, of all levels alike.

    Args:
        vocabularies: of the scenes, names or files.
        scenes: of each vocabulary.
        seed: decides.
        wordings: relative frequency of the families; one that cannot say a thing gives way to another.
        each: texts of a scene and level.
        progress: called after each scene.

    Raises:
        DataError: a vocabulary is none.
    """
    texts = []
    for number, name in enumerate(vocabularies):
        vocabulary = load_vocabulary(name)
        for scene_number in range(scenes):
            rng = np.random.default_rng((seed, number, scene_number))
            scene = made_up(vocabulary, rng)
            for level in LEVELS:
                for _ in range(each):
                    found = write_instruction(scene, vocabulary, rng, level, wordings=wordings)
                    if found is not None:
                        texts.append(Text(found.text, level, found.family))
            done = number * scenes + scene_number + 1
            progress(f"writing instructions, {name}", done / (scenes * len(vocabularies)))
    return texts


def held_out(vocabularies: Sequence[str], scenes: int, seed: int) -> list[Text]:
    """Instructions in the families that are kept from training, and concepts, which have none of these."""
    texts = []
    for family in HELD_OUT:
        asked = written(vocabularies, scenes, seed, {family: 1.0}, each=2)
        texts += [one for one in asked if one.family == family or one.level == "concept"]
    return texts


def train_router(
    embedding: Tensor,
    encode: Encode,
    texts: Sequence[Text],
    *,
    epochs: int = 5,
    seed: int = 0,
    progress: Progress = untold,
) -> Router:
    """Trains a router.

    Args:
        embedding: [V, W], of the text encoder.
        encode: text to token ids int64 [T], padded with 0.
        texts: to learn from.
        epochs: times that each is seen.
        seed: decides.
        progress: called after each step.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        router = Router(embedding)
        ids = torch.from_numpy(np.stack([encode(one.text) for one in texts]))
        levels = torch.tensor([LEVELS.index(one.level) for one in texts])
        optimizer = torch.optim.AdamW(router.parameters(), _RATE, weight_decay=_DECAY)
        steps = max(1, epochs * len(texts) // _BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(steps):
            rows = torch.randint(len(texts), (_BATCH,))
            batch = ids[rows]
            batch = batch[:, : int((batch != 0).any(0).sum())]
            other = (torch.rand(batch.shape) < _OTHER) & (batch != 0)
            batch = torch.where(other, torch.randint(1, len(embedding), batch.shape), batch)
            loss = F.cross_entropy(router(batch), levels[rows], label_smoothing=_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress("training the router", (step + 1) / steps)
    return router.eval().requires_grad_(False)


def accuracy(route: Callable[[str], Level], texts: Sequence[Text]) -> dict[Level, float]:
    """The share of texts that are routed to their level, of each level that there is."""
    right: dict[Level, list[bool]] = {}
    for one in texts:
        right.setdefault(one.level, []).append(route(one.text) == one.level)
    return {level: float(np.mean(right[level])) for level in LEVELS if level in right}
