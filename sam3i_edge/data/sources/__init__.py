"""Pictures with annotations of any kind, as scenes."""

from sam3i_edge.data.sources.open import open_source
from sam3i_edge.data.sources.scene_file import write_scene_file
from sam3i_edge.data.sources.source import Note, Source

__all__ = ["Note", "Source", "open_source", "write_scene_file"]
