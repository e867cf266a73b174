from __future__ import annotations

from dataclasses import replace

from sam3i_edge.evaluate import tables
from sam3i_edge.evaluate.cgf1 import PairMatch, cgf1
from sam3i_edge.evaluate.metrics import Overlap
from sam3i_edge.evaluate.report import Cell, Outcome, Timing, summarise
from sam3i_edge.levels import LEVELS


def test_plain_text_is_aligned_words_left_and_figures_right() -> None:
    table = tables.Table("t", ("name", "n"), (("a", "1"), ("long name", "100")))
    assert table.plain() == "t\nname         n\na            1\nlong name  100"
    assert replace(table, note="x\ny").plain().endswith("100\nx\ny")


def test_every_line_fits_a_terminal_of_80_columns() -> None:
    outcomes = [
        Outcome(
            image_id=1,
            file_name="a.png",
            instruction="x",
            level=level,
            level_used=level,
            granularity=granularity,
            presence=0.5,
            overlap=Overlap(1, 1),
            match=PairMatch(1, 1, (1.0,)),
        )
        for level in LEVELS
        for granularity in ("one", "subset", "all", "none", "unstated")
    ]
    report = summarise(
        outcomes * 700,
        threshold=0.5,
        encode_ms=[12345.6],
        instruction_ms=[12345.6],
        model_chose_level=True,
        conditions={},
    )
    assert report.cell().pairs == 10_500
    assert max(map(len, "\n".join(grid.plain() for grid in tables.of_report(report)).splitlines())) <= 80


def test_masks_show_each_figure_in_its_column() -> None:
    cell = Cell(
        level="simple",
        granularity="none",
        pairs=7,
        pairs_with_target=0,
        giou=None,
        giou_with_none=0.1,
        ciou=0.2,
        p_at_50=0.3,
        found_accuracy=0.4,
        presence_accuracy=0.5,
        none_accuracy=0.6,
    )
    table = tables.masks([cell])
    assert dict(zip(table.header, table.rows[0], strict=True)) == {
        "level": "simple",
        "granularity": "none",
        "pairs": "7",
        "gIoU": "-",
        "+none": "0.100",
        "cIoU": "0.200",
        "P@0.5": "0.300",
        "found": "0.400",
        "presence": "0.500",
        "none": "0.600",
    }


def test_instances_show_the_two_thresholds_that_they_name() -> None:
    # IoU 0.7 passes 0.5 and not 0.75.
    figures = cgf1([PairMatch(1, 1, (0.7,)), PairMatch(0, 0, ())])
    table = tables.instances({"simple": figures})
    row = dict(zip(table.header, table.rows[0], strict=True))
    assert float(row["cgF1@0.5"]) > 0.99
    assert row["cgF1@0.75"] == "0.000"
    assert row["pairs"] == "2"
    assert float(row["IL_MCC"]) > 0.99
    assert row["pmF1"] == row["cgF1"] == "0.500"


def test_a_tiny_negative_figure_has_no_sign_and_a_real_one_has() -> None:
    def shown(*matches: PairMatch) -> dict[str, str]:
        table = tables.instances({"simple": cgf1(matches)})
        return dict(zip(table.header, table.rows[0], strict=True))

    wrong = (PairMatch(1, 0, ()), PairMatch(1, 1, (0.0,)), PairMatch(0, 1, ()))
    assert cgf1(wrong).cgf1_at[5] == 0
    row = shown(*wrong)
    assert (row["IL_MCC"], row["cgF1"], row["cgF1@0.75"]) == ("-0.500", "0.000", "0.000")


def test_routing_and_timings() -> None:
    routed = tables.routing({"simple": {"simple": 3, "complex": 1}})
    assert routed.rows == (("simple", "0", "3", "1", "0.750"),)
    timed = tables.timings({"encode": Timing(4, 1.26, 3.0)})
    assert timed.rows == (("encode", "4", "1.3", "3.0"),)
