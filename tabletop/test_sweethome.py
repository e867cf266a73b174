"""Tests of the meshes of others, on a library that is made here."""

import json
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
import sweethome
from catalogue import Catalogue
from obj_file import read_obj
from surfaces import Paint

# A cube 2 x 4 x 6 (y up), its sides of a flat paint and its bottom of another.
CUBE = """mtllib mug.mtl
v 0 0 0
v 2 0 0
v 2 4 0
v 0 4 0
v 0 0 6
v 2 0 6
v 2 4 6
v 0 4 6
usemtl clay
f 4 3 2 1
f 5 6 7 8
f 2 3 7 6
f -8 -4 -1 -5
f 3 4 8 7
usemtl foot
f 1 2 6 5
"""
PAINTS = "newmtl clay\nKd 0.8 0.2 0.1\nd 1\nnewmtl foot\nKd 0.1 0.1 0.1\nd 0.4\n"
LIST = "\n".join(
    f"{key}#{n}={value}"
    for n, name in enumerate(["coffee-mug", "stapler", "bread-plate", "flashlight"], 1)
    for key, value in {
        "name": "Caf\\u00e9 mug", "model": f"/k/{name}/{name}.obj", "width": "10", "depth": "12",
        "height": "8", "creator": "Kator Legaz",
    }.items()
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    with ZipFile(tmp_path / "KatorLegaz.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", f"license=x\n{LIST}")
        archive.writestr("k/coffee-mug/coffee-mug.obj", CUBE)
        archive.writestr("k/coffee-mug/mug.mtl", PAINTS)
        archive.writestr("k/stapler/stapler.obj", CUBE.replace("f 1 2 6 5", "f 1 2 66 5"))
        archive.writestr("k/stapler/mug.mtl", PAINTS)
        archive.writestr("k/bread-plate/bread-plate.obj", CUBE)
        archive.writestr("k/bread-plate/mug.mtl", PAINTS + "map_Kd wood.jpg\n")
        archive.writestr("k/flashlight/flashlight.obj", "v 0 0 0\n")
    return tmp_path


def test_a_mesh_has_its_size_in_metres_its_author_and_can_be_repainted(folder):
    (mug,), _ = sweethome.read_libraries(folder)
    low, high = mug.corners
    assert np.allclose(high - low, [0.10, 0.12, 0.08])
    assert np.allclose(low, [-0.05, -0.06, 0])
    assert (mug.source.title, mug.source.author, mug.source.licence) == (
        "Café mug",
        "Kator Legaz",
        "CC BY 3.0 US",
    )
    assert [part.paint for part in mug.parts] == ["main", Paint((0.1, 0.1, 0.1), 0.4)]
    assert len(mug.colors) == 11
    volume = sum(
        np.einsum(
            "fi,fi->f",
            p.vertices[p.faces[:, 0]],
            np.cross(p.vertices[p.faces[:, 1]], p.vertices[p.faces[:, 2]]),
        ).sum()
        for p in mug.parts
    )
    assert volume > 0  # still counter-clockwise from outside


def test_meshes_that_do_not_load_are_named_and_the_others_are_there(folder):
    things, problems = sweethome.read_libraries(folder)
    assert [thing.category for thing in things] == ["mug"]
    said = "\n".join(problems)
    assert "stapler.obj, line 17 ('f 1 2 66 5'): points to 66, of 8" in said
    assert "texture k/bread-plate/wood.jpg: the archive lacks it" in said
    assert "flashlight.obj: no faces" in said
    assert "12-oz-glass: not in the library's list" in said
    assert "BlendSwap-CC-0.sh3f: not there" in said


@pytest.mark.parametrize("content", [b"", b"not a zip archive"])
def test_a_file_that_is_no_library_is_refused(tmp_path, content):
    (tmp_path / "Scopia.sh3f").write_bytes(content)
    with pytest.raises(ValueError, match=r"Scopia\.sh3f: not a furniture library"):
        sweethome.read_libraries(tmp_path)


def test_a_picture_keeps_its_place_on_the_mesh(tmp_path):
    red_over_blue = np.zeros((8, 8, 3), np.uint8)
    red_over_blue[:4, :, 2], red_over_blue[4:, :, 0] = 255, 255  # OpenCV's order
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("m/a.mtl", "newmtl p\nKd 1 1 1\nmap_Kd t/p.png\n")
        archive.writestr("m/t/p.png", cv2.imencode(".png", red_over_blue)[1].tobytes())
        archive.writestr(
            "m/a.obj",
            "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl p\nf 1/1 2/2 3/3\n",
        )
    with ZipFile(tmp_path / "a.zip") as archive:
        (part,) = read_obj(archive, "m/a.obj")
    assert part.picture[0, 0].tolist() == [255, 0, 0]
    assert part.picture[-1, 0].tolist() == [0, 0, 255]
    assert part.uv.tolist() == [[0, 0], [1, 0], [0, 1]]


def test_the_catalogue_names_them_by_source_and_keeps_some_for_validation(folder):
    (mug,), _ = sweethome.read_libraries(folder)
    entry = Catalogue([mug])["KatorLegaz-coffee-mug"]
    assert entry.thing is mug
    assert not entry.held_out


def test_the_page_names_the_authors_of_what_was_shown_and_of_nothing_else(folder, tmp_path, monkeypatch):
    things, _ = sweethome.read_libraries(folder)
    assert "Kator Legaz" not in sweethome.attribution(things, set())
    scene = {"objects": [{"mesh": "mug-3"}, {"mesh": "KatorLegaz-coffee-mug"}]}
    (tmp_path / "scenes.jsonl").write_text(json.dumps(scene) + "\n")
    page = tmp_path / "ATTRIBUTION.md"
    monkeypatch.setattr("sys.argv", ["sweethome.py", str(folder), str(page), str(tmp_path / "scenes.jsonl")])
    assert sweethome.main() == 0
    assert "| Café mug (coffee-mug) | Kator Legaz | KatorLegaz | [CC BY 3.0 US](" in page.read_text()
