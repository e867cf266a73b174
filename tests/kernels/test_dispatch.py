import subprocess
import sys

import pytest
import torch

from sam3i_edge.install_hint import install_hint
from sam3i_edge.kernels import _dispatch
from sam3i_edge.kernels._dispatch import capability, check, launch, use_triton
from sam3i_edge.kernels._triton import INTERPRETED, cast, dot, jit, tl

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from sam3i_edge.kernels import adapter_cross_attention, adapter_mlp
from sam3i_edge.kernels._dispatch import use_triton
assert not use_triton("op", {"x": torch.zeros(1)})
try:
    use_triton("op", {"x": torch.zeros(1)}, "triton")
except ValueError as error:
    print(error)
"""


@jit
def _product_kernel(a, b, out, size: tl.constexpr):
    index = tl.arange(0, size)
    place = index[:, None] * size + index[None, :]
    product = dot(tl.load(a + place), tl.load(b + place))
    tl.store(out + place, cast(product, out.dtype.element_ty))


@jit
def _cast_kernel(values, out, size: tl.constexpr):
    index = tl.arange(0, size)
    tl.store(out + index, cast(tl.load(values + index), out.dtype.element_ty))


def test_auto_is_the_reference_on_the_cpu():
    assert not use_triton("op", {"x": torch.zeros(2)})


@pytest.mark.skipif(not INTERPRETED, reason="runs in Triton's interpreter")
def test_a_request_for_triton_runs_in_the_interpreter():
    assert use_triton("op", {"x": torch.zeros(2)}, "triton")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_auto_is_triton_on_one_gpu():
    assert use_triton("op", {"x": torch.zeros(2, device="cuda"), "y": torch.ones(2, device="cuda")})
    assert not use_triton("op", {"x": torch.zeros(2, device="cuda"), "y": torch.ones(2)})


def test_the_reference_can_be_asked_for():
    assert not use_triton("op", {"x": torch.zeros(2)}, "reference")


@pytest.mark.parametrize(
    ("tensors", "arguments", "reason"),
    [
        ({"x": torch.zeros(2, 3), "y": torch.zeros(1, device="meta")}, {}, "want all tensors on one device"),
        ({"x": torch.zeros(2, 3, device="meta")}, {}, "want a CUDA device"),
        ({"x": torch.zeros(2, 3, dtype=torch.float64)}, {}, "want dtype float32, float16, bfloat16"),
        ({"x": torch.zeros(2, 3)}, {"limits": "a width of 3, want 2"}, "a width of 3, want 2"),
    ],
)
def test_a_request_that_cannot_be_met_says_why_and_with_what(tensors, arguments, reason, device):
    tensors = {name: x if x.device.type == "meta" else x.to(device) for name, x in tensors.items()}
    with pytest.raises(ValueError, match=r"op: Triton cannot run this: ") as caught:
        use_triton("op", tensors, "triton", **arguments)
    assert reason in str(caught.value)
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        assert f"{name} {list(tensor.shape)} {dtype} {tensor.device}" in str(caught.value)
    assert not use_triton("op", tensors, **arguments)


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="'fast', want 'auto', 'triton' or 'reference'"):
        use_triton("op", {"x": torch.zeros(1)}, "fast")


def test_tracing_takes_the_reference(monkeypatch):
    taken = []

    class Asks(torch.nn.Module):
        def forward(self, x):
            taken.append(_dispatch._obstacle({"x": x}, (torch.float32,), interpreter=True))
            return x + 1

    torch.export.export(Asks(), (torch.zeros(2),))
    torch.export.export(Asks(), (torch.zeros(2),), strict=False)
    assert len(taken) >= 2
    assert all("graphs hold aten operators only" in reason for reason in taken)


def test_compiling_is_no_export(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)  # as torch 2.11 under torch.compile
    assert "exported" not in _dispatch._obstacle({"x": torch.zeros(1)}, (torch.float32,), interpreter=True)


def test_fake_tensors_take_the_reference():
    with torch._subclasses.FakeTensorMode():
        assert _dispatch._obstacle({"x": torch.zeros(1)}, (torch.float32,), interpreter=True)


def test_modules_import_without_triton():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"triton is not installed ({install_hint('train')}); x [1] float32 cpu" in done.stdout


def test_sizes_are_given_by_name():
    wanted = {"x": (torch.zeros(2, 3, 4), "[B, N, C]"), "k": (torch.zeros(4, dtype=torch.int8), "int8 [C]")}
    assert check("op", wanted) == {"B": 2, "N": 3, "C": 4}


@pytest.mark.parametrize(
    ("second", "form"),
    [
        (torch.zeros(5), "[C]"),
        (torch.zeros(1, 4), "[C]"),
        (torch.zeros(4, dtype=torch.float16), "[C]"),
        (torch.zeros(4, dtype=torch.int8), "float [C]"),
        (torch.zeros(4, device="meta"), "[C]"),
        (torch.zeros(4), "[2]"),
        (torch.zeros(4), "int8 [C]"),
    ],
    ids=["size", "rank", "dtype", "kind", "device", "number", "named dtype"],
)
def test_one_error_names_all_tensors_and_what_was_wanted(second, form):
    wanted = {"x": (torch.zeros(2, 3, 4), "[B, N, C]"), "weight": (second, form)}
    with pytest.raises(ValueError, match=r"^op: got ") as caught:
        check("op", wanted)
    dtype = str(second.dtype).removeprefix("torch.")
    assert str(caught.value) == (
        f"op: got x [2, 3, 4] float32 cpu, weight {list(second.shape)} {dtype} {second.device}; "
        f"want x [B, N, C], weight {form}, on one device, of one dtype where none is named"
    )


def test_autocast_may_mix_floating_dtypes():
    wanted = {"x": (torch.zeros(4), "[C]"), "weight": (torch.zeros(4, dtype=torch.bfloat16), "[C]")}
    with torch.autocast("cpu", torch.bfloat16):
        assert check("op", wanted) == {"C": 4}
    with pytest.raises(ValueError, match="bfloat16"):
        check("op", wanted)


def test_launches_are_counted_and_empty_grids_are_not(launches, device):
    a = torch.randn(16, 16, device=device)
    out = torch.empty_like(a)
    launch(_product_kernel, (0, 1), a, a, out, 16)
    assert not launches
    assert out.isnan().all()  # the poison of conftest.py
    launch(_product_kernel, (1, 1), a, a, out, 16)
    assert launches == {"_product_kernel": 1}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_products_are_right_in_every_dtype(dtype, device):
    a, b = torch.randn(2, 32, 32, device=device, dtype=torch.float64).to(dtype)
    out = torch.empty_like(a)
    launch(_product_kernel, (1,), a, b, out, 32)
    expected = (a.double() @ b.double()).to(dtype)
    torch.testing.assert_close(
        out, expected, rtol=torch.finfo(dtype).eps, atol=1e-5 if dtype.itemsize > 2 else 1e-3
    )


def test_products_of_int8_are_exact(device):
    a, b = torch.randint(-128, 128, (2, 32, 32), device=device, dtype=torch.int8)
    out = torch.empty(32, 32, device=device, dtype=torch.int32)
    launch(_product_kernel, (1,), a, b, out, 32)
    assert torch.equal(out.cpu().long(), a.cpu().long() @ b.cpu().long())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_casts_round_to_nearest_even(dtype, device):
    values = torch.randn(4096, device=device) * torch.exp(2 * torch.randn(4096, device=device))
    half = 1 + torch.finfo(dtype).eps / 2  # halfway between two: to the even one, down here and up there
    values[:6] = torch.tensor([half, half + torch.finfo(dtype).eps, -half, float("inf"), -0.0, 1e-30])
    values[6] = float("nan")
    out = torch.empty(4096, device=device, dtype=dtype)
    launch(_cast_kernel, (1,), values, out, 4096)
    assert out[6].isnan()
    values[6] = out[6] = 0
    assert torch.equal(out, values.to(dtype))


def test_capability_of_the_interpreter_is_the_oldest():
    assert capability(torch.device("cpu")) == 80
