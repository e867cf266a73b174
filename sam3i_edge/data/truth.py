"""What is true of a scene, in three values: yes, no, or None where nobody can say.

An object belongs to a class if all tests say yes, and does not if one says no, whatever the others (Kleene).
Of what is hardly visible nobody can say that it belongs.
What a class holds is known only where every instance is listed:

- one that its noun names ("red mugs"): where all objects of that category, and of those that the noun might
  also mean, are listed, and none of these is marked as a crowd;
- one without a noun ("things", "something to cut with"): where the scene is complete.

A question has an answer only if its class is known, every reference ("the bowl") is certainly one object or
none at all, and no verdict on a member is open. Geometry that is too close to call has no answer either, not
even a likely one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal, TypeAlias

from sam3i_edge.data.geometry import View
from sam3i_edge.data.query import (
    Between,
    Compared,
    Description,
    Filter,
    Inside,
    Is,
    Largest,
    Nearest,
    Odd,
    Outermost,
    Pair,
    Pick,
    Query,
    Related,
    Side,
)
from sam3i_edge.data.scene import Scene, SceneObject

Verdict: TypeAlias = bool | None
HARDLY_VISIBLE: Final = 0.25  # share of an object that shows
Granularity = Literal["one", "subset", "all", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query means in a scene.

    Attributes:
        targets: indices of the objects it asks for, ascending.
        members: indices of the class that it names.
        why: what makes it a guess, or "" where it is certain.
    """

    targets: tuple[int, ...]
    members: tuple[int, ...]
    why: str = ""

    def granularity(self, universal: bool) -> Granularity:
        """How much it asks for; see the module docstring of `instructions`."""
        if not self.targets:
            return "none"
        if len(self.targets) == 1 and not universal:
            return "one"
        return "all" if set(self.targets) == set(self.members) else "subset"


def holds(test: Is, item: SceneObject) -> Verdict:
    """Whether an object passes a test of one attribute."""
    value = item.category if test.attribute == "category" else item.attributes.get(test.attribute)
    if value is None or value in test.unclear:
        return None
    return (value in test.values) != test.negated


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Kleene's "and": no if one says no, else None if one cannot say."""
    result: Verdict = True
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is None:
            result = None
    return result


def is_known(head: Description, scene: Scene) -> bool:
    """Whether everything that might belong to a class is among the scene's objects."""
    if head.category is not None:
        named = head.confusable | {head.category}
        return named.isdisjoint(scene.crowds) and (scene.complete or named <= scene.listed)
    about = [t.values | t.unclear for t in head.tests if t.attribute == "category" and not t.negated]
    return scene.complete and (
        not scene.crowds or any(categories.isdisjoint(scene.crowds) for categories in about)
    )


def answer(query: Query, view: View) -> Answer | None:
    """The certain answer; None where there is none."""
    try:
        return _Solver(view, strict=True).answer(query)
    except _CannotSayError:
        return None


def guess(query: Query, view: View) -> Answer | None:
    """The likely answer, and why it is not certain; None where it is too close to call."""
    try:
        return _Solver(view, strict=False).answer(query)
    except _CannotSayError:
        return None


class _CannotSayError(Exception):
    """There is no answer."""


class _Solver:
    """Answers one query; as long as it is not strict, doubts are noted and what is likely goes on."""

    def __init__(self, view: View, strict: bool) -> None:
        self.view, self.strict = view, strict
        self.doubts: list[str] = []
        self.anchors: set[int] = set()

    def answer(self, query: Query) -> Answer:
        head, objects = query.head, self.view.objects
        if not is_known(head, self.view.scene):
            self._doubt(f"not every {head.category or 'object'} is listed")
        testers = [self._tester(condition) for condition in query.filters]
        absent = any(tester is None for tester in testers)
        members, chosen, open_ = [], [], []
        unsure = False
        for index in self.view.everything:
            member = every(holds(test, objects[index]) for test in head.tests)
            shows = objects[index].visible
            if member and shows is not None and shows < HARDLY_VISIBLE:
                member = None
            if member is False:
                continue
            members += [index] if member else []
            unsure |= member is None
            others = (tester(index) for tester in testers if tester is not None)
            verdict = False if absent else every(chain((member,), others))
            if verdict is None:
                open_.append(index)
            elif verdict:
                chosen.append(index)
        if members and self.anchors.issuperset(members):
            raise _CannotSayError("nothing is compared with itself")
        if open_:
            self._doubt(f"whether the {objects[open_[0]].category} (object {open_[0]}) is meant is not known")
            chosen = chosen or open_
        chosen = self._left(chosen, query.without)
        targets = self._picked(query.pick, chosen)
        if unsure and len(targets) > 1:  # all of the class, or some of it?
            self._doubt(f"what belongs to the {head.category or 'object'}s is not known")
        return Answer(tuple(sorted(targets)), tuple(members), self.doubts[0] if self.doubts else "")

    def _doubt(self, why: str) -> None:
        if self.strict:
            raise _CannotSayError(why)
        self.doubts.append(why)

    def _one(self, reference: Query) -> int | None:
        """The object that a reference means; None where there is none such."""
        found = _Solver(self.view, self.strict)
        targets = found.answer(reference).targets
        self.doubts += found.doubts
        if len(targets) > 1:
            raise _CannotSayError("the reference is not unique")
        self.anchors.update(targets)
        return targets[0] if targets else None

    def _tester(self, condition: Filter) -> Callable[[int], Verdict] | None:
        """The test of a condition by index; None where what it refers to is absent."""
        view, objects = self.view, self.view.objects
        if isinstance(condition, Is):
            return lambda index: holds(condition, objects[index])
        if isinstance(condition, Inside):
            return lambda index: _clear(view.inside(index, condition.region))
        if isinstance(condition, Between):
            ends = self._one(condition.first), self._one(condition.second)
            a, b = ends
            if a is None or b is None:
                return None
            return lambda index: index not in ends and _clear(view.between(index, a, b))
        anchor = self._one(condition.reference)
        if anchor is None:
            return None

        def verdict(index: int) -> Verdict:
            if index == anchor:
                return False
            if isinstance(condition, Side):
                return _clear(view.beside(index, condition.side, anchor))
            if isinstance(condition, Related):
                return view.related(index, condition.name, anchor)
            if isinstance(condition, Compared):
                return _clear(view.exceeds(index, anchor, condition.measure, condition.less))
            one, other = (value_of(objects[i], condition.attribute) for i in (index, anchor))
            if one is None or other is None or (one != other and one in condition.unclear):
                return None
            return one == other

        return verdict

    def _left(self, chosen: list[int], without: Query | Is | None) -> list[int]:
        if without is None:
            return chosen
        if isinstance(without, Query):
            anchor = self._one(without)
            return [index for index in chosen if index != anchor]
        verdicts = {index: holds(without, self.view.objects[index]) for index in chosen}
        if None in verdicts.values():
            self._doubt(f"the {without.attribute} of an object is not known")
        return [index for index in chosen if not verdicts[index]]

    def _picked(self, pick: Pick | None, chosen: list[int]) -> tuple[int, ...]:
        view = self.view
        found: tuple[int, ...] | None
        if pick is None:
            return tuple(chosen)
        if isinstance(pick, Odd):
            return self._odd(pick, chosen)
        if isinstance(pick, Pair):
            return self._pair(pick, chosen)
        if isinstance(pick, Nearest) and pick.reference is not None:
            anchor = self._one(pick.reference)
            if anchor is None or not chosen:
                return ()
            found = view.nearest(chosen, anchor, pick.farthest)
        elif not chosen:
            return ()
        elif isinstance(pick, Nearest):
            found = view.nearest_to_camera(chosen, pick.farthest)
        elif isinstance(pick, Largest):
            found = view.superlative(chosen, pick.measure, pick.least)
        elif isinstance(pick, Outermost):
            found = view.foremost(chosen, pick.edge, pick.count)
        else:
            found = view.ordinal(chosen, pick.edge, pick.number)
        if found is None:
            raise _CannotSayError("too close to call")
        return found

    def _odd(self, pick: Odd, chosen: list[int]) -> tuple[int, ...]:
        odd = set()
        for attribute in pick.attributes:
            counts = self._counts(attribute, chosen)
            if len(counts) == 1:
                continue
            rare = min(counts, key=lambda value: len(counts[value]), default="")
            if len(counts) != 2 or len(counts[rare]) > 1:
                raise _CannotSayError("several differ")
            odd.add(counts[rare][0])
        if len(odd) > 1 or len(chosen) < 3:
            raise _CannotSayError("several are odd")
        return tuple(odd)

    def _pair(self, pick: Pair, chosen: list[int]) -> tuple[int, ...]:
        shared = [found for found in self._counts(pick.attribute, chosen).values() if len(found) > 1]
        if len(chosen) < 3 or len(shared) > 1 or any(len(found) > 2 for found in shared):
            raise _CannotSayError("there is no such pair alone")
        return tuple(shared[0]) if shared else ()

    def _counts(self, attribute: str, chosen: list[int]) -> dict[str, list[int]]:
        """Objects by their value of an attribute."""
        found: dict[str, list[int]] = {}
        for index in chosen:
            value = value_of(self.view.objects[index], attribute)
            if value is None:
                self._doubt(f"the {attribute} of an object is not known")
            else:
                found.setdefault(value, []).append(index)
        return found


def value_of(item: SceneObject, attribute: str) -> str | None:
    """An object's value of an attribute, "category" among them."""
    return item.category if attribute == "category" else item.attributes.get(attribute)


def _clear(verdict: Verdict) -> bool:
    if verdict is None:
        raise _CannotSayError("too close to call")
    return verdict
