"""Kinds of complex phrases that need a look at the whole scene: negation, the odd one out, pairs."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sam3i_edge.data.asking import Ask, Draft
from sam3i_edge.data.heads import thing_head

_ODD: Final[dict[str, tuple[str, ...]]] = {
    "color": (
        "the odd one out in color", "the odd one out by color", "the odd one out in colour",
        "the one whose color differs from all the others", "the {} with a different color than the rest",
        "the only {} of another color",
        "what differs in color from everything else",
        "the one that does not match the others in color",
    ),
    "shape": (
        "the odd one out in shape", "the odd one out by shape",
        "the one whose shape differs from all the others",
        "the {} with a different shape than the rest", "the only {} of another shape",
        "what differs in shape from everything else", "the one that does not match the others in shape",
    ),
    "size": (
        "the odd one out in size", "the odd one out by size",
        "the one whose size differs from all the others",
        "the {} with a different size than the rest", "the only {} of another size",
        "what differs in size from everything else", "the one that does not match the others in size",
    ),
    "fill": (
        "the odd one out in pattern", "the odd one out in fill",
        "the one whose pattern differs from all the others",
        "the {} with a different pattern than the rest", "the only {} with another fill",
        "what differs in pattern from everything else", "the one that is not filled like the others",
    ),
}  # fmt: skip
_ODD_ANYHOW: Final = (
    "the odd one out", "the one that does not belong", "the one that is not like the others",
    "the {} that is different from the rest", "what does not fit in with the others", "the odd one",
)  # fmt: skip
_PAIRS: Final[dict[str, tuple[str, ...]]] = {
    "color": (
        "the two of the same color", "the two {s} of the same color", "the pair that matches in color",
        "the two {s} that share a color", "both {s} that have the same color",
    ),
    "shape": (
        "the two of the same shape", "the two {s} of the same shape", "the pair that matches in shape",
        "the two {s} that share a shape", "both {s} that have the same shape",
    ),
}  # fmt: skip


def odd_one_out(ask: Ask) -> Draft | None:
    """The one object that differs in a property in which all others, at least two, are equal."""
    view, random = ask.view, ask.random
    if len(view.objects) < 3:
        return None
    odd: dict[str, int] = {}
    equal = []
    for key in _ODD:
        counts = Counter(getattr(item, key) for item in view.objects)
        if len(counts) == 1:
            equal.append(key)
        elif len(counts) == 2 and min(counts.values()) == 1:
            rare = min(counts, key=counts.__getitem__)
            odd[key] = next(i for i, item in enumerate(view.objects) if getattr(item, key) == rare)
    thing = thing_head(view, random, False).one
    if ask.want == "none":
        if not equal:
            return None
        return Draft(random.choice(_ODD[random.choice(equal)]).format(thing), (), view.everything)
    if not odd:
        return None
    key = random.choice(list(odd))
    targets = (odd[key],)
    if len(odd) + len(equal) == len(_ODD) and len(set(odd.values())) == 1 and random.random() < 0.3:
        return Draft(random.choice(_ODD_ANYHOW).format(thing), targets, view.everything)
    return Draft(random.choice(_ODD[key]).format(thing), targets, view.everything)


def matching_pair(ask: Ask) -> Draft | None:
    """The only two objects that share a colour or a shape."""
    view, random = ask.view, ask.random
    if len(view.objects) < 3:
        return None
    key = random.choice(list(_PAIRS))
    counts = Counter(getattr(item, key) for item in view.objects)
    repeated = [value for value, count in counts.items() if count > 1]
    text = random.choice(_PAIRS[key]).format(s=thing_head(view, random, False).many)
    if not repeated:
        return Draft(text, (), view.everything)
    if len(repeated) > 1 or counts[repeated[0]] != 2:
        return None
    targets = tuple(i for i, item in enumerate(view.objects) if getattr(item, key) == repeated[0])
    return Draft(text, targets, view.everything)


def negation(ask: Ask) -> Draft | None:
    """Everything that lacks a colour, a size or a fill: "everything that is not red"."""
    view, random = ask.view, ask.random
    item = random.choice(view.objects)
    key = random.choice(("color", "color", "color", "size", "fill"))
    value = str(getattr(item, key))
    if value == "plain":
        return None
    targets = tuple(i for i, other in enumerate(view.objects) if getattr(other, key) != value)
    words = [f"not {value}"]
    if key == "color" and random.random() < 0.2:
        second = random.choice(view.objects).color
        if second != value:
            targets = tuple(i for i in targets if view.objects[i].color != second)
            words = [f"neither {value} nor {second}"]
    text = words[0]
    head = thing_head(view, random, False)
    if len(targets) == 1:
        phrases = [f"the {head.one} that is {text}", f"the only {head.one} that is {text}", f"what is {text}"]
    else:
        phrases = [
            f"everything that is {text}", f"whatever is {text}", f"all {head.many} that are {text}",
            f"every {head.one} that is {text}", f"anything that is {text}",
            f"the {head.many} that are {text}",
        ]  # fmt: skip
    if key == "fill":
        marks = {"striped": "stripes", "dotted": "dots"}[value]
        start = f"the {head.one}" if len(targets) == 1 else random.choice(("everything", f"all {head.many}"))
        phrases += [f"{start} without {marks}", f"{start} with no {marks}"]
    return Draft(random.choice(phrases), targets, view.everything)
