"""OpenVINO opens the plugins of its devices, and what reads its format, by name."""  # noqa: N999

from PyInstaller.utils.hooks import collect_dynamic_libs

binaries = collect_dynamic_libs("openvino", search_patterns=["*.dll", "*.dylib", "lib*.so*"])
