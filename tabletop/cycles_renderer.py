"""Renders scenes by Cycles, Blender's path tracer, through `bpy`: some seconds of one core a picture.

`bpy` is under the GPL. It is used as a program beside the project, in an environment of its own
(requirements-cycles.txt), and never a dependency. Identities come from the pass of object numbers, which
holds one whole number a pixel.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bpy
import numpy as np
import OpenEXR
from catalogue import Catalogue
from mathutils import Vector
from mesh import Part
from numpy.typing import NDArray
from setting import TABLE, Setting
from silhouette import area
from surfaces import MAIN, PAINTS, Paint, surface

SAMPLES = 8  # paths a pixel, before the denoiser
_SHARP = np.radians(35)  # edges that turn by more are not smoothed
_REPEAT = 1.3  # how often a surface's picture fits into a metre; of a wooden thing, more often
_SUN, _SKY = 3.0, 0.45  # watts a square metre of the lamp and of the light from all sides, at strength 1


class CyclesRenderer:
    """The meshes of one side of the catalogue; each is made when a scene first shows it.

    Args:
        catalogue: of meshes.
        held_out: which side is used; kept for the signature that renderers share.
        size: side of the picture, pixels.
        samples: paths a pixel.
    """

    def __init__(
        self, catalogue: Catalogue, *, held_out: bool, size: int = 256, samples: int = SAMPLES
    ) -> None:
        self._catalogue, self._size = catalogue, size
        self._meshes: dict[tuple[str, bool], list[bpy.types.Mesh]] = {}
        self._materials: dict[str, bpy.types.Material] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="tabletop-")
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self._scene = scene = bpy.context.scene
        scene.render.engine = "CYCLES"
        scene.render.resolution_x = scene.render.resolution_y = size
        scene.render.resolution_percentage = 100
        scene.render.threads_mode, scene.render.threads = "FIXED", 1
        scene.render.image_settings.media_type = "MULTI_LAYER_IMAGE"
        scene.render.image_settings.file_format = "OPEN_EXR_MULTILAYER"
        scene.render.image_settings.color_depth = "32"
        scene.render.filepath = str(Path(self._folder.name) / "picture.exr")
        scene.view_layers[0].use_pass_object_index = True
        scene.cycles.device, scene.cycles.samples = "CPU", samples
        scene.cycles.use_denoising, scene.cycles.denoiser = True, "OPENIMAGEDENOISE"
        # Cleaning what guides the denoiser would take as long as the picture.
        scene.cycles.denoising_prefilter, scene.cycles.denoising_quality = "NONE", "BALANCED"
        scene.cycles.max_bounces = 6
        scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = False
        self._room = self._make_room()
        self._lamp = bpy.data.lights.new("lamp", "SUN")
        self._lamp_object = self._add("lamp", self._lamp)
        scene.world = bpy.data.worlds.new("sky")
        scene.camera = self._add("camera", bpy.data.cameras.new("camera"))

    def close(self) -> None:
        """Removes what was written."""
        self._folder.cleanup()

    def render(self, setting: Setting) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]:
        """One scene.

        Returns:
            The picture before noise and blur, uint8 [S, S, 3]; identities int64 [S, S], an object's number
            or -1; share of each object's outline that is visible, float64 [N], 0..1.

        Raises:
            OSError, RuntimeError: the picture cannot be written.
        """
        for name, kind in self._room.items():
            bpy.data.objects[name].material_slots[0].material = self._surface(kind, getattr(setting, kind))
        made = self._arrange(setting)
        self._light(setting)
        camera, view = self._scene.camera, setting.view
        camera.location = view.position
        camera.rotation_euler = _towards(np.asarray(view.look_at) - view.position)
        camera.data.angle, camera.data.clip_start = float(np.radians(view.fov)), 0.02
        written = Path(self._scene.render.filepath)
        written.unlink(missing_ok=True)
        with _quiet():
            bpy.ops.render.render(write_still=True)
        if not written.exists():
            raise OSError(f"Cycles wrote no {written}: is there room?")
        for thing in made:
            bpy.data.objects.remove(thing)
        picture, identities = self._read()
        wholes = [
            area(self._catalogue[t.entry].parts(t.lying), t.position, t.yaw, view, self._size)
            for t in setting.objects
        ]
        seen = [np.count_nonzero(identities == n) for n in range(len(wholes))]
        return picture, identities, np.minimum(np.array(seen) / np.maximum(wholes, 1), 1.0)

    def _read(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        with OpenEXR.File(self._scene.render.filepath, separate_channels=True) as file:
            channels = {name: c.pixels for part in file.parts for name, c in part.channels.items()}
        linear = np.clip(np.stack([channels[f"ViewLayer.Combined.{c}"] for c in "RGB"], axis=-1), 0, 1)
        index = next(pixels for name, pixels in channels.items() if "Index" in name)
        shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        return (shown * 255 + 0.5).astype(np.uint8), np.rint(index).astype(np.int64) - 1

    def _arrange(self, setting: Setting) -> list[bpy.types.Object]:
        made = []
        for n, thing in enumerate(setting.objects):
            for mesh in self._parts(thing.entry, thing.lying):
                part = self._add(f"{n} {mesh.name}", mesh)
                part.location, part.rotation_euler = thing.position, (0, 0, float(np.radians(thing.yaw)))
                part.pass_index = n + 1
                if mesh["main"]:
                    slot = part.material_slots[0]
                    slot.link = "OBJECT"
                    if thing.material is None:
                        slot.material = self._painted(n, thing.rgb)
                    else:
                        slot.material = self._made_of(thing.material)
                made.append(part)
        return made

    def _light(self, setting: Setting) -> None:
        light = setting.light
        rng = np.random.default_rng((0xC1C, setting.seed))
        a, e = np.radians(light.azimuth), np.radians(light.elevation)
        away = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
        self._lamp_object.rotation_euler = _towards(-away)
        self._lamp.energy = _SUN * setting.exposure * light.strength
        self._lamp.angle = float(np.radians(rng.uniform(1, 30)))  # large lamps have soft shadows
        self._lamp.color = (light.warmth, 1.0, 1 / light.warmth)
        sky = self._scene.world.node_tree.nodes["Background"].inputs
        sky["Color"].default_value = (*rng.uniform(0.9, 1.0, 3), 1.0)
        sky["Strength"].default_value = _SKY * setting.exposure * light.fill

    def _parts(self, entry: str, lying: bool) -> list[bpy.types.Mesh]:
        key = (entry, lying)
        if key not in self._meshes:
            parts = self._catalogue[entry].parts(lying)
            self._meshes[key] = [self._mesh(f"{entry}.{n}", part) for n, part in enumerate(parts)]
        return self._meshes[key]

    def _mesh(self, name: str, part: Part) -> bpy.types.Mesh:
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata(part.vertices.tolist(), [], part.faces.tolist())
        mesh.shade_smooth()
        mesh.set_sharp_from_angle(angle=float(_SHARP))
        if part.uv is not None:
            corners = np.empty(len(mesh.loops), np.int32)
            mesh.loops.foreach_get("vertex_index", corners)
            mesh.uv_layers.new().uv.foreach_set("vector", part.uv[corners].ravel().astype(np.float32))
        mesh["main"] = part.paint == "main"
        if isinstance(part.paint, Paint):
            material = self._material(name, part.paint, part.picture)
        else:
            material = self._material(part.paint, PAINTS.get(part.paint, MAIN))
        mesh.materials.append(material)
        return mesh

    def _painted(self, number: int, rgb: tuple[float, float, float] | None) -> bpy.types.Material:
        material = self._material(f"object {number}", MAIN)
        color = rgb or MAIN.rgb
        material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = _linear(color)
        return material

    def _made_of(self, name: str) -> bpy.types.Material:
        if name == "wood":
            return self._material("made of wood", PAINTS["wood"], surface("table", 0), 4)
        return self._material(name, PAINTS[name])

    def _surface(self, kind: str, number: int) -> bpy.types.Material:
        name = f"{kind}{number}"
        if name in self._materials:
            return self._materials[name]
        return self._material(name, Paint((1.0, 1.0, 1.0), gloss=0.3), surface(kind, number), _REPEAT)

    def _material(
        self, name: str, paint: Paint, picture: NDArray[np.uint8] | None = None, repeat: float = 0
    ) -> bpy.types.Material:
        """A paint, or a picture: `repeat` times a metre on all sides, or where the mesh says if it is 0."""
        if name in self._materials:
            return self._materials[name]
        self._materials[name] = material = bpy.data.materials.new(name)
        nodes, links = material.node_tree.nodes, material.node_tree.links
        surface_inputs = nodes["Principled BSDF"].inputs
        surface_inputs["Base Color"].default_value = _linear(paint.rgb)
        surface_inputs["Roughness"].default_value = 0.75 - 0.6 * paint.gloss
        surface_inputs["Metallic"].default_value = float(paint.metal)
        surface_inputs["Specular IOR Level"].default_value = 0.25  # a bright room would wash colours out
        if paint.alpha < 0.9:
            surface_inputs["Transmission Weight"].default_value = 1 - paint.alpha / 3
            surface_inputs["Roughness"].default_value = 0.03
            surface_inputs["IOR"].default_value = 1.25
        if paint.glows:
            surface_inputs["Emission Color"].default_value = _linear(paint.rgb)
            surface_inputs["Emission Strength"].default_value = 1.5
        if picture is not None:
            shown = nodes.new("ShaderNodeTexImage")
            shown.image = _image(name, picture)
            links.new(shown.outputs["Color"], surface_inputs["Base Color"])
            if repeat:
                shown.projection, shown.projection_blend = "BOX", 0.1
                places, scaled = nodes.new("ShaderNodeTexCoord"), nodes.new("ShaderNodeMapping")
                scaled.inputs["Scale"].default_value = (repeat, repeat, repeat)
                links.new(places.outputs["Object"], scaled.inputs["Vector"])
                links.new(scaled.outputs["Vector"], shown.inputs["Vector"])
        return material

    def _make_room(self) -> dict[str, str]:
        """The same boxes as in MuJoCo's model; their names, and which surface of the setting each shows."""
        x, y = TABLE
        boxes = [
            ("table", (x, y, 0.02), (0, 0, -0.0205)),
            ("floor", (4, 4, 0.02), (0, 0, -0.77)),
            ("wall0", (4, 0.02, 1.6), (0, 1.3, 0.6)),
            ("wall1", (0.02, 4, 1.6), (-1.6, 0, 0.6)),
            ("wall2", (0.02, 4, 1.6), (1.6, 0, 0.6)),
        ]
        corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
        sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
        for name, half, at in boxes:
            mesh = bpy.data.meshes.new(name)
            mesh.from_pydata((corners * half).tolist(), [], sides)
            mesh.materials.append(None)
            self._add(name, mesh).location = at
        return {name: name.rstrip("012") for name, _, _ in boxes}

    def _add(self, name: str, data: bpy.types.ID) -> bpy.types.Object:
        thing = bpy.data.objects.new(name, data)
        self._scene.collection.objects.link(thing)
        return thing


def _towards(direction: NDArray[np.float64]) -> tuple[float, float, float]:
    """Angles that turn a camera or a lamp there, with z up in the picture."""
    return Vector(direction).to_track_quat("-Z", "Y").to_euler()


def _linear(rgb: tuple[float, float, float]) -> tuple[float, float, float, float]:
    """From sRGB to the linear light that Blender's colours are in."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb)
    return r, g, b, 1.0


def _image(name: str, picture: NDArray[np.uint8]) -> bpy.types.Image:
    height, width = picture.shape[:2]
    image = bpy.data.images.new(name, width, height)
    filled = np.ones((height, width, 4), np.float32)
    filled[..., :3] = picture[::-1] / np.float32(255)  # Blender's rows go upwards
    image.pixels.foreach_set(filled.ravel())
    return image


@contextmanager
def _quiet() -> Iterator[None]:
    """Blender writes its progress to file 1 itself."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
