import subprocess
import sys

HEAVY = (
    "torch",
    "triton",
    "onnxruntime",
    "openvino",
    "coremltools",
    "transformers",
    "cv2",
    "numpy",
    "pydantic",
)
# What a base install lacks: nothing on the way to a result may import it.
NOT_IN_BASE = ("torch", "torchvision", "triton", "onnx", "scipy", "pycocotools", "transformers", "matplotlib")
BASE_MODULES = [
    "errors",
    "levels",
    "masks.rle",
    "result",
    "pipeline.preprocess",
    "pipeline.postprocess",
    "pipeline.tokenizer",
    "masks.overlay",
    "bundle.folder",
    "devices.profiles",
    "segmenter",
    "stream",
    "tracking",
    "devices.jetson",
    "devices.doctor",
    "masks.native",
    "runtimes",
    "runtimes.ort",
    "evaluate",
    "runtimes.engine_cache",
    "cli.app",
    "data.annotations",
    "data.scenes",
]


def _loaded_after(statement, names):
    code = f"import sys\n{statement}\nprint([m for m in {names} if m in sys.modules])"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()


def test_import_loads_no_framework():
    assert _loaded_after("import sam3i_edge", HEAVY) == "[]"


def test_lazy_names_load_what_they_need():
    assert _loaded_after("from sam3i_edge import Segmenter", ("numpy", "torch")) == "['numpy']"


def test_command_line_starts_without_frameworks():
    heavy = ("torch", "onnxruntime", "cv2", "numpy", "tokenizers")
    statement = "from sam3i_edge.cli.app import main\nassert main(['segment', '--help']) == 0\nprint()"
    assert _loaded_after(statement, heavy).splitlines()[-1] == "[]"


def test_base_modules_import_only_the_base_install():
    # A module set to None raises ImportError when it is imported, as if it were not installed.
    statement = f"""
import importlib
sys.modules.update(dict.fromkeys({NOT_IN_BASE}))
for module in {BASE_MODULES}:
    try:
        importlib.import_module(f"sam3i_edge.{{module}}")
    except ImportError as error:
        print(module, error)
"""
    assert _loaded_after(statement, ()) == "[]"
