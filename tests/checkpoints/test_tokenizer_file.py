from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from sam3i_edge.bundle.folder import find_bundle
from sam3i_edge.checkpoints.tokenizer_file import write_tokenizer
from sam3i_edge.errors import ArtifactError
from sam3i_edge.pipeline.instruction import clean
from sam3i_edge.pipeline.tokenizer import Tokenizer

FIXTURES = Path(__file__).parents[1] / "fixtures"
PAIRS = json.loads((FIXTURES / "clip_tokens.json").read_text())["items"]
MERGES = FIXTURES / "bpe_simple_vocab_16e6.txt.gz"


@pytest.fixture(scope="module", params=["merges", "merges unpacked", "its own tokenizer.json"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    source = MERGES
    if request.param == "merges unpacked":
        source = folder / "merges.txt"
        source.write_bytes(gzip.decompress(MERGES.read_bytes()))
    if request.param == "its own tokenizer.json":
        write_tokenizer(MERGES, folder / "tokenizer.json", 49_408)
        source = folder
    start, end = write_tokenizer(source, folder / "out.json", 49_408)
    assert (start, end) == (49_406, 49_407)
    return Tokenizer.from_file(folder / "out.json", start_id=start, end_id=end)


def test_every_official_pair(tokenizer):
    assert len(PAIRS) == 40
    for item in PAIRS:
        ids, cut = tokenizer.encode_cleaned(clean(item["text"]))
        assert ids.tolist() == item["ids"], item["text"]
        assert cut == max(0, item["length_before_truncation"] - 32)


def test_bad_files(tmp_path):
    out = tmp_path / "out.json"
    cases = {
        "cut.gz": (MERGES.read_bytes()[:5000], "cut short or damaged"),
        "bytes": (b"\xff\xfe\x00", "neither a merges file nor"),
        "short.txt": (b"#version\ni n\n", "holds 1 merges, CLIP's file has at least 48,894"),
        "broken.json": (b"{}", "is no tokenizer.json"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            write_tokenizer(tmp_path / name, out, 49_408)
    with pytest.raises(ArtifactError, match="give CLIP's merges file"):
        write_tokenizer(tmp_path / "absent", out, 49_408)
    with pytest.raises(ArtifactError, match=r"49,408 tokens, the model's table 320 rows"):
        write_tokenizer(MERGES, out, 320)
    with pytest.raises(ArtifactError, match="has no start and end token"):
        write_tokenizer(find_bundle("sam3i-nano") / "tokenizer.json", out, 49_408)
    assert not out.exists()
