"""What PyInstaller cannot see: the model and other data, the C library, and what is imported by name."""  # noqa: N999

from PyInstaller.utils.hooks import collect_data_files, collect_dynamic_libs

datas = collect_data_files("sam3i_edge")
binaries = collect_dynamic_libs("sam3i_edge")
hiddenimports = ["sam3i_edge.runtimes.ort"]
