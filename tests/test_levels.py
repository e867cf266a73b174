import numpy as np
import pytest

from sam3i_edge.levels import LEVELS, as_level, route

PHRASES = {
    "concept": """star|red circle|striped squares|dog|yellow school bus|black and white cat|traffic light
        stop sign|person|glass of water|a red car|an apple|washing machine|forest|life vest|wooden chairs
        top hat|front door|piece of cake|action figure|car parts|running shoes|red umbrella|can opener
        small blue hearts|cup of coffee|guests|baseball player|potted plant|body part|dotted triangles
        large purple diamond|mask|hot air balloon|dogs|Zebra|woman's handbag|first aid kit|blue shapes
        big thing|star-shaped object""",
    "simple": """the red star left of the ring|every large square|the topmost blue heart|the dog
        all circles except the green one|the circle nearest to the cross|find all the cups|left shoe
        the small red mug that is standing to the left of the laptop|person wearing a hat|man holding umbrella
        the third zebra from the left, partly hidden behind the fence|the dog on the sofa|all dogs|two cats
        both stars|the leftmost chair|largest pizza|the person waving|the woman who is riding a bike
        dog next to the tree|cat under table|the boy in the red shirt|please segment the dog|where is the cup?
        which dog is sleeping?|the second car from the right|all of the circles|one of the stars|the star
        the lid of the pot|the knife used for cutting bread|birds flying above the water|each small hexagon
        every star but the yellow one|the striped square that touches a ring|the heart at the bottom
        the triangle between the two hearts|stars larger than the ring|the cross closest to the top edge
        the tallest building|any ring inside a square|the man looking at his phone|the blue thing
        I am looking for the shortest orange diamond|the orange thing closest to the large square""",
    "complex": """the shape with three corners|what stands for love|the one with a hole|to cut with
        the odd one out in colour|everything below the tallest thing|the biggest thing on the left side
        Which item on the counter would you use to open a bottle of wine?|something to sit on|who is waving
        used for cutting paper|the tool used for cutting paper|what is keeping the rain off?|the red one
        where can I sit down?|the vehicle for carrying many passengers|anything round|whatever has no corners
        the object that lets you see far away|the part of the mug used for holding|those with stripes
        the tallest on the left|the two that touch|things you can eat|If I were thirsty, which would help?
        I am cold, what could I put on|objects that can roll|the thing closest to the ring|the symbol of love
        all shapes with four sides|the item that tells the time|someone about to catch the ball
        the only one that is not red|which is the smallest?|every shape that has points|the largest of all
        in the top left corner|the device you would use to take photographs|the ones without stripes
        point to the thing used to write|each yellow figure without corners|the pair that matches in color
        the blue shape that looks like a box|look for the odd one out in size|the one the color of soot""",
}
ALL = [
    (level, text.strip()) for level, block in PHRASES.items() for text in block.replace("\n", "|").split("|")
]


@pytest.mark.parametrize(("level", "text"), ALL, ids=[text for _, text in ALL])
def test_routes(level, text):
    assert route(text) == level


@pytest.mark.parametrize("text", ["THE ONE WITH A HOLE", "the one  with a\thole ", "the one with a hole?"])
def test_case_blanks_and_punctuation_do_not_matter(text):
    assert route(text) == "complex"


@pytest.mark.parametrize(
    "text", ["", "?!", "\u7ea2\u8272\u7684\u661f\u661f", "find", "the", "one", "which", "of " * 2_000]
)
def test_odd_texts_get_some_level(text):
    assert route(text) in LEVELS


def test_agrees_with_the_generator_on_phrases_it_was_not_tuned_on():
    from sam3i_edge.data.instructions import write_instruction
    from sam3i_edge.data.scenes import draw_scene
    from sam3i_edge.data.vocabulary import load_vocabulary

    rng = np.random.default_rng(2024)
    right = {level: [] for level in LEVELS}
    for _ in range(40):
        scene = draw_scene(rng, (128, 128))
        for level in LEVELS:
            for _ in range(4):
                written = write_instruction(scene, load_vocabulary("shapes"), rng, level)
                if written is not None:
                    right[level].append(route(written.text) == level)
    # Measured on 3,000 phrases: .99, .98, .98. "Red star" is written for one star and for all of them.
    for level in LEVELS:
        assert np.mean(right[level]) > 0.93, level


@pytest.mark.parametrize("level", LEVELS)
def test_as_level_gives_the_level(level):
    assert as_level(level) == level


def test_the_detector_counts_levels_in_this_order():
    assert LEVELS == ("concept", "simple", "complex")


def test_a_noun_phrase_has_four_words_at_most():
    assert route("old wooden kitchen chair") == "concept"
    assert route("old wooden kitchen chair leg") == "simple"


def test_as_level_refuses_and_lists():
    with pytest.raises(
        ValueError, match="unknown level 'hard'; choose from concept, simple, complex, or auto"
    ):
        as_level("hard")
