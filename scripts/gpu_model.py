"""The steps of the GPU day that run the whole model: its parts, and training."""

from __future__ import annotations

from gpu_run import ROOT, Run

# isort: split
# What follows is found where gpu_run looks, too.
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from sam3i_edge.kernels import adapter_cross_attention, adapter_mlp, box_attention
from sam3i_edge.model import adapters, decoder, fusion_encoder
from sam3i_edge.model.config import ModelConfig
from sam3i_edge.model.graph_specs import graph_specs
from sam3i_edge.model.sam3i import SAM3I, adapter_of


@contextmanager
def implementation(name: str) -> Iterator[None]:
    """The model's operators run as kernels, "triton", or as their definitions, "reference"; or raise."""
    sites = (
        (adapters, "adapter_mlp", adapter_mlp.adapter_mlp),
        (fusion_encoder, "adapter_cross_attention", adapter_cross_attention.adapter_cross_attention),
        (decoder, "box_attention", box_attention.box_attention),
    )
    for module, attribute, operator in sites:
        setattr(module, attribute, partial(operator, implementation=name))
    try:
        yield
    finally:
        for module, attribute, operator in sites:
            setattr(module, attribute, operator)


@torch.inference_mode()
def model(run: Run, what: str = "eager") -> None:
    """Parts of the model in float16 at its own size, random weights: kernels on and off, integers.

    With "compiled" the detector alone, compiled and replayed as a CUDA graph: what `Segmenter(compile=True)`
    runs.
    """
    torch.manual_seed(0)
    with torch.device(run.device):
        whole = SAM3I(run.config).eval().requires_grad_(False)
    dtype = torch.float16 if run.device == "cuda" else torch.bfloat16  # of autocast on a CPU
    for part in whole.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            part.to(dtype)
    specs = {spec.name: spec for spec in graph_specs(whole, 8)}  # 33 tokens of the prompt and 8 boxes
    inputs = {name: _inputs(run, spec.inputs.values()) for name, spec in specs.items()}

    def calls() -> dict[str, Callable[[], Any]]:
        names = ("image_encoder", "text_encoder.simple", "detector")
        parts = {name: partial(specs[name].module, *inputs[name]) for name in names}
        instruction = (parts["text_encoder.simple"], parts["detector"])
        together = {"one more instruction": instruction, "everything": tuple(parts.values())}
        return parts | {name: lambda work=work: [part() for part in work] for name, work in together.items()}

    def measure(contender: str, expected: Any) -> Any:
        with torch.autocast(run.device, dtype):
            found = calls()["detector"]()
            error = None if expected is None else _difference(found, expected)
            for name, work in calls().items():
                row = {"part": name, "contender": contender}
                if run.has_time(**row):
                    times = run.times(work, 600)
                    run.row(**row, forward=times, forward_mib=run.extra_mib(work), scores_differ=error)
        return found

    if what == "compiled":
        work = partial(specs["detector"].module, *inputs["detector"])
        with implementation("reference"), torch.autocast(run.device, dtype):
            expected = work()
        for name, said in (("triton", "kernels"), ("reference", "references")):
            row: dict[str, Any] = {"part": "detector", "contender": f"{said}, compiled, CUDA graph"}
            if not run.has_time(**row):
                continue
            torch._dynamo.reset()
            options: Any = {"backend": "eager"} if run.dry_run else {"mode": "reduce-overhead"}
            compiled = torch.compile(specs["detector"].module, fullgraph=True, dynamic=False, **options)
            work = partial(compiled, *inputs["detector"])
            with implementation(name), torch.autocast(run.device, dtype):
                row["scores_differ"] = _difference(work(), expected)
                run.row(**row, forward=run.times(work, 600), forward_mib=run.extra_mib(work))
        return
    with implementation("reference"):
        expected = measure("references", None)
    with implementation("triton"):
        measure("kernels", expected)
        for bits in (8, 4):
            _quantize(whole, bits)
            measure(f"kernels, int{bits} linear layers", expected)


def _inputs(run: Run, examples: Any) -> list[torch.Tensor]:
    made = []
    for example in examples:
        value = torch.randn_like(example) if example.is_floating_point() else example
        made.append(value.to(run.device))
    return made


def _difference(found: Any, expected: Any) -> float:
    """Largest difference of scores, best first: queries may change places."""
    return (found[0].float() - expected[0].float()).abs().max().item()


def _quantize(whole: SAM3I, bits: int) -> None:
    """Gives the linear layers of the recipe integers: at 8 bits of the float model, at 4 of that one."""
    from sam3i_edge.quantize.modules import QuantizedLayer
    from sam3i_edge.quantize.recipes import RECIPES

    kind = nn.Linear if bits == 8 else QuantizedLayer
    found = RECIPES["int8"].modules(whole) if bits == 8 else dict(whole.named_modules())
    for name, layer in found.items():
        if not isinstance(layer, kind) or (bits == 4 and layer.weight.shape[1] % 32):
            continue
        weight = layer.weight.float() if bits == 8 else layer.dequantized_weight()
        grouped = weight.unflatten(1, (-1, 32)) if bits == 4 else weight
        scale = (grouped.abs().amax(-1) / (2 ** (bits - 1) - 1)).clamp(min=2.0**-14)
        integers = torch.round(grouped / scale[..., None]).to(torch.int8).flatten(1)
        bias = None if layer.bias is None else layer.bias.float()
        parent, _, leaf = name.rpartition(".")
        new = QuantizedLayer("linear", integers, scale, bias, 0.05 if bits == 8 else None)
        setattr(whole.get_submodule(parent), leaf, new)


def _targets(run: Run, config: ModelConfig) -> Any:
    """A batch by its sizes: random images and words, one object for each instruction."""
    pairs, masks = 2, config.mask_size
    share = torch.zeros(pairs, masks, masks, dtype=torch.uint8)
    share[:, masks // 4 : masks // 2, masks // 4 : masks // 2] = 255
    ids = torch.randint(3, config.vocab_size, (pairs, 32))
    values = {
        "pixel_values": torch.rand(1, 3, config.image_size, config.image_size) * 2 - 1,
        "input_ids": ids,
        "level": torch.tensor([1, 2]),
        "image_index": torch.zeros(pairs, dtype=torch.int64),
        "mask_index": torch.arange(pairs),
        "object_image": torch.zeros(pairs, dtype=torch.int64),
        "object_masks": share,
        "target_pair": torch.arange(pairs),
        "target_object": torch.arange(pairs),
        "target_boxes": torch.tensor([[0.375, 0.375, 0.25, 0.25]]).expand(pairs, 4).clone(),
    }
    batch = SimpleNamespace(**{name: value.to(run.device) for name, value in values.items()})
    batch.union_masks = lambda pairs: batch.object_masks[pairs].float() / 255
    return batch


def _trainer(run: Run, whole: SAM3I, config: ModelConfig) -> Callable[[], torch.Tensor]:
    """A step of stage 3 on one batch: both paths' adapters learn, the losses are SAM3's."""
    from sam3i_edge.train.losses import SAM3_LOSSES, segmentation_loss

    batch = _targets(run, config)
    whole.eval()  # as the frozen base is in training: its batch statistics stay
    for name, parameter in whole.named_parameters():
        parameter.requires_grad_(adapter_of(name) is not None)
    learning = [parameter for parameter in whole.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)

    def step() -> torch.Tensor:
        with torch.autocast(run.device, torch.bfloat16):
            prediction = whole(
                batch.pixel_values, batch.input_ids, batch.level, batch.image_index, batch.mask_index
            )
        loss, _ = segmentation_loss(prediction, batch, SAM3_LOSSES)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def train(run: Run, what: str) -> None:
    """A training step of stage 3 at the official size, or the loss of 30 steps of the bundled model."""
    if what == "step":
        for name in ("reference", "triton"):
            torch.manual_seed(0)
            with torch.device(run.device):
                whole = SAM3I(run.config)
            with implementation(name):
                step = _trainer(run, whole, run.config)
                loss = step().item()
                run.row(contender=name, loss=loss, training=run.times(step, 1500), mib=run.extra_mib(step))
            del whole, step
        return
    from sam3i_edge.model.weights import load_weights, read_config

    folder = ROOT / "sam3i_edge" / "assets" / "sam3i-nano" / "weights"
    config = replace(read_config(folder), image_size=64) if run.dry_run else read_config(folder)
    curves = {}
    for name in ("reference", "triton"):
        torch.manual_seed(0)
        whole = SAM3I(config)
        load_weights(whole, folder)
        whole.to(run.device)
        with implementation(name):
            step = _trainer(run, whole, config)
            curves[name] = [step().item() for _ in range(2 if run.dry_run else 30)]
    pairs = list(zip(*curves.values(), strict=True))
    worst = max(abs(a - b) / abs(a) for a, b in pairs)
    run.row(curves=curves, worst=worst)
    if not worst < 0.05:
        sys.exit(f"the loss with kernels is off by {worst:.1%} of the loss without")
