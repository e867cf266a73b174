"""Renders scenes by MuJoCo, without a screen or a GPU: 0.07 s of one core a picture at 256 px.

Every mesh is a mocap body of one model; a scene shows some and moves them. Identities come from segmentation
rendering, whole outlines from a small picture of each object alone, wide enough to hold it.
"""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "egl")  # before the import; a CPU renders through Mesa

import cv2
import mujoco
import numpy as np
from catalogue import Catalogue
from mesh import Part
from numpy.typing import NDArray
from setting import SURFACES, TABLE, Setting
from silhouette import reach
from surfaces import MAIN, PAINTS, Paint, surface

_HIDDEN, _SHOWN, _ROOM = 5, 1, 0
_ALONE = 192  # side of the picture of an object alone, pixels
_MARGIN, _WIDEST = 1.03, 12.0  # of an object's reach from the middle of the picture, in halves of its side
_OBJECTS = 16  # in one scene at most
_GEOM = int(mujoco.mjtObj.mjOBJ_GEOM)


class MujocoRenderer:
    """The meshes of one side of the catalogue, in one model.

    Args:
        catalogue: of meshes.
        held_out: whether those kept for validation are loaded, else the others.
        size: side of the picture, pixels.

    Raises:
        RuntimeError: MuJoCo finds no way to draw.
    """

    def __init__(self, catalogue: Catalogue, *, held_out: bool, size: int = 256) -> None:
        mujoco.GLContext(size, size).free()  # fails at once where nothing can be drawn; the model takes long
        self._catalogue, self._size = catalogue, size
        assets: dict[str, bytes] = {}
        declared: list[str] = []
        bodies: list[str] = []
        for entry in catalogue:
            if entry.held_out != held_out:
                continue
            for lying in (False, True) if entry.thing.lies else (False,):
                name = _body(entry.name, lying)
                geoms = "".join(
                    _geom(f"{name}.{n}", part, assets, declared) for n, part in enumerate(entry.parts(lying))
                )
                bodies.append(f'<body name="{name}" mocap="true" pos="0 0 -5">{geoms}</body>')
        for kind, sides in SURFACES.items():
            for number in sorted({0, *sides[held_out]}):  # wooden things are of table 0
                key = f"{kind}{number}"
                assets[f"{key}.png"] = _png(surface(kind, number))
                declared.append(f'<texture name="{key}" type="2d" file="{key}.png"/>')
                declared.append(
                    f'<material name="{key}" texture="{key}" texuniform="true" texrepeat="1.3 1.3"/>'
                )
        declared += [_material(name, paint) for name, paint in PAINTS.items()]
        declared += [_material(name, MAIN) for name in ("main", *map(_own, range(_OBJECTS)))]
        declared.append(_material("made of wood", PAINTS["wood"], "table0", 4))
        self._model = model = mujoco.MjModel.from_xml_string(_xml(declared, bodies, size), assets)
        self._data = mujoco.MjData(model)
        names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_MATERIAL, m) or "" for m in model.geom_matid]
        self._main = np.array([name == "main" for name in names])
        self._materials = model.geom_matid.copy()
        try:
            self._picture = mujoco.Renderer(model, size, size, max_geom=8000)
            self._alone = mujoco.Renderer(model, _ALONE, _ALONE, max_geom=8000)
        except mujoco.FatalError as error:
            raise RuntimeError(str(error)) from error
        self._alone.enable_segmentation_rendering()
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = [1, 1, 0, 0, 0, 0]

    def close(self) -> None:
        """Frees both contexts; without it EGL complains at exit."""
        self._picture.close()
        self._alone.close()

    def render(self, setting: Setting) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]:
        """One scene.

        Returns:
            The picture before noise and blur, uint8 [S, S, 3]; identities int64 [S, S], an object's number
            or -1; share of each object's outline that is visible, float64 [N], 0..1.
        """
        geoms = self._arrange(setting)
        self._light(setting)
        camera = mujoco.MjvCamera()
        view = setting.view
        camera.lookat[:] = view.look_at
        camera.distance, camera.azimuth, camera.elevation = view.distance, view.azimuth + 180, -view.elevation
        self._model.vis.global_.fovy = view.fov
        mujoco.mj_forward(self._model, self._data)
        self._picture.update_scene(self._data, camera, self._options)
        picture = self._picture.render().copy()
        self._picture.enable_segmentation_rendering()
        seen = self._picture.render()
        owner = np.full(self._model.ngeom, -1, np.int64)
        for n, ids in geoms.items():
            owner[ids] = n
        identities = np.where(seen[..., 1] == _GEOM, owner[np.maximum(seen[..., 0], 0)], -1)
        self._picture.disable_segmentation_rendering()
        return picture, identities, self._visible(identities, geoms, camera, setting)

    def _arrange(self, setting: Setting) -> dict[int, list[int]]:
        """Shows, moves and paints what the scene has; the geoms of each object."""
        model, data = self._model, self._data
        model.geom_group[:] = np.where(model.geom_bodyid > 0, _HIDDEN, _ROOM)
        model.geom_matid[:] = self._materials
        geoms: dict[int, list[int]] = {}
        for n, thing in enumerate(setting.objects):
            body = self._id(mujoco.mjtObj.mjOBJ_BODY, _body(thing.entry, thing.lying))
            mocap, half = model.body_mocapid[body], np.radians(thing.yaw) / 2
            data.mocap_pos[mocap] = thing.position
            data.mocap_quat[mocap] = [np.cos(half), 0, 0, np.sin(half)]
            first = int(model.body_geomadr[body])
            geoms[n] = list(range(first, first + int(model.body_geomnum[body])))
            model.geom_group[geoms[n]] = _SHOWN
            painted = [geom for geom in geoms[n] if self._main[geom]]
            looks = _own(n)
            if thing.material is not None:
                looks = "made of wood" if thing.material == "wood" else thing.material
            material = self._id(mujoco.mjtObj.mjOBJ_MATERIAL, looks)
            model.geom_matid[painted] = material
            if thing.rgb is not None:
                model.mat_rgba[material, :3] = thing.rgb
        walls = [(f"wall{side}", f"wall{setting.wall}") for side in range(3)]
        room = [("table", f"table{setting.table}"), ("floor", f"floor{setting.floor}"), *walls]
        for geom, material in room:
            place = self._id(mujoco.mjtObj.mjOBJ_GEOM, geom)
            model.geom_matid[place] = self._id(mujoco.mjtObj.mjOBJ_MATERIAL, material)
        return geoms

    def _light(self, setting: Setting) -> None:
        light, model = setting.light, self._model
        a, e = np.radians(light.azimuth), np.radians(light.elevation)
        towards = -np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
        model.light_dir[0], model.light_pos[0] = towards, -towards * 1.5
        tint = np.array([light.warmth, 1.0, 1 / light.warmth])
        model.light_diffuse[0] = np.clip(0.55 * setting.exposure * light.strength * tint, 0, 1)
        model.light_specular[0] = 0.35
        model.light_diffuse[1] = 0.12 * setting.exposure * light.fill
        model.vis.headlight.ambient[:] = 0.34 * setting.exposure * light.fill

    def _visible(
        self,
        identities: NDArray[np.int64],
        geoms: dict[int, list[int]],
        camera: mujoco.MjvCamera,
        setting: Setting,
    ) -> NDArray[np.float64]:
        """Pixels in the picture beside those of the object alone, seen beyond the picture's border too."""
        model, half = self._model, np.tan(np.radians(setting.view.fov) / 2)
        shares = np.zeros(len(geoms))
        for n, ids in geoms.items():
            thing = setting.objects[n]
            parts = self._catalogue[thing.entry].parts(thing.lying)
            wider = min(_MARGIN * reach(parts, thing.position, thing.yaw, setting.view), _WIDEST)
            model.vis.global_.fovy = 2 * np.degrees(np.arctan(half * wider))
            scale = (self._size * wider / _ALONE) ** 2
            model.geom_group[:] = _HIDDEN
            model.geom_group[ids] = _SHOWN
            self._alone.update_scene(self._data, camera, self._options)
            whole = scale * np.count_nonzero(self._alone.render()[..., 1] == _GEOM)
            shares[n] = min(1.0, np.count_nonzero(identities == n) / whole) if whole else 0.0
        return shares

    def _id(self, kind: mujoco.mjtObj, name: str) -> int:
        return int(mujoco.mj_name2id(self._model, kind, name))


def _body(entry: str, lying: bool) -> str:
    return f"{entry}-lying" if lying else entry


def _own(number: int) -> str:
    """Name of the material of an object's own colour; a model has room for 999 materials, so scenes share."""
    return f"object {number}"


def _geom(name: str, part: Part, assets: dict[str, bytes], declared: list[str]) -> str:
    """One part as a mesh; what takes the object's colour gets its material with each scene."""
    material = part.paint
    if isinstance(material, Paint):
        material = f"{name} paint"
        declared.append(_material(material, part.paint, name if part.picture is not None else None))
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in part.vertices]
    if part.uv is not None and part.picture is not None:
        assets[f"{name}.png"] = _png(part.picture)
        declared.append(f'<texture name="{name}" type="2d" file="{name}.png"/>')
        lines += [f"vt {u:.5f} {v:.5f}" for u, v in part.uv]
        lines += [f"f {a + 1}/{a + 1} {b + 1}/{b + 1} {c + 1}/{c + 1}" for a, b, c in part.faces]
    else:
        lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in part.faces]
    assets[f"{name}.obj"] = "\n".join(lines).encode()
    declared.append(f'<mesh name="{name}" file="{name}.obj" inertia="shell"/>')
    return f'<geom type="mesh" mesh="{name}" material="{material}" contype="0" conaffinity="0"/>'


def _material(name: str, paint: Paint, texture: str | None = None, repeat: int = 0) -> str:
    """`repeat` is how often the texture fits into a metre; 0 where the mesh says where it lies."""
    r, g, b = (1.0, 1.0, 1.0) if texture else paint.rgb
    picture = f' texture="{texture}"' if texture else ""
    if repeat:
        picture += f' texuniform="true" texrepeat="{repeat} {repeat}"'
    glow = ' emission=".8"' if paint.glows else ""
    return (
        f'<material name="{name}" rgba="{r} {g} {b} {paint.alpha}" specular="{paint.gloss}" '
        f'shininess="{paint.gloss}"{picture}{glow}/>'
    )


def _png(picture: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".png", picture[..., ::-1])[1])


def _xml(declared: list[str], bodies: list[str], size: int) -> str:
    x, y = TABLE
    return f"""<mujoco><compiler angle="degree" balanceinertia="true"/>
<visual><quality shadowsize="2048" offsamples="4"/>
<global offwidth="{max(size, _ALONE)}" offheight="{max(size, _ALONE)}"/>
<map znear=".02" zfar="14" shadowclip="1.2"/><headlight diffuse=".1 .1 .1" specular="0 0 0"/></visual>
<statistic extent="1" center="0 0 0"/>
<asset>{"".join(declared)}
<texture name="sky" type="skybox" builtin="gradient" rgb1=".8 .85 .9" rgb2=".5 .5 .5" width="64" height="64"/>
</asset>
<worldbody>
<light pos="0 0 2" dir="0 0 -1" type="directional" castshadow="true"/>
<light pos="1 1 2" dir="-1 -1 -2" type="directional" castshadow="false"/>
<geom name="table" type="box" size="{x} {y} .02" pos="0 0 -.0205"/>
<geom name="floor" type="plane" size="4 4 1" pos="0 0 -.75"/>
<geom name="wall0" type="box" size="4 .02 1.6" pos="0 1.3 .6"/>
<geom name="wall1" type="box" size=".02 4 1.6" pos="-1.6 0 .6"/>
<geom name="wall2" type="box" size=".02 4 1.6" pos="1.6 0 .6"/>
{"".join(bodies)}</worldbody></mujoco>"""
