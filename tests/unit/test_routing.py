"""Who is owed an event, and that nothing leaves but what was named."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.routing import Router, Subscription, matches, project, projection


@pytest.mark.parametrize(
    ("pattern", "event_type", "expected"),
    [
        ("vn.congdoan.unit.updated.v1", "vn.congdoan.unit.updated.v1", True),
        ("vn.congdoan.unit.updated.v1", "vn.congdoan.unit.updated.v10", False),
        ("vn.congdoan.unit.updated.v1", "vn.congdoan.unit.updated", False),
        ("vn.congdoan.unit.*", "vn.congdoan.unit.updated.v1", True),
        ("vn.congdoan.*", "vn.congdoan.unit.updated.v1", True),
        ("vn.congdoan.unit.*", "vn.congdoan.units.updated.v1", False),
        ("vn.congdoan.unit.*", "vn.congdoan.unit", False),
        ("vn.congdoan.unit.*", "com.evil.vn.congdoan.unit.updated", False),
        ("vn.*.unit", "vn.congdoan.unit", False),
        ("vn.congdoan.un*", "vn.congdoan.unit", False),
    ],
)
def test_a_wildcard_is_what_follows_its_dot_and_nothing_else(pattern: str, event_type: str, expected: bool) -> None:
    assert matches(pattern, event_type) is expected


names = st.text("ab", min_size=1, max_size=2)
values: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(),
    lambda inner: st.dictionaries(names, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=12,
)
content = st.dictionaries(names, values, max_size=4)
fields = st.lists(st.lists(names, min_size=1, max_size=3).map(".".join), max_size=4)


def leaves(data: Any, at: str = "") -> dict[str, Any]:
    """Every value by its dotted path; a list counts as one value."""
    if not isinstance(data, dict):
        return {at: data}
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= leaves(value, f"{at}.{key}" if at else key)
    return found or {at: {}}


@given(content, fields)
def test_no_field_outside_the_named_ones_ever_leaves(data: dict[str, Any], named: list[str]) -> None:
    there = leaves(data)
    for path, value in leaves(project(data, named)).items():
        allowed = any(path == name or path.startswith(name + ".") for name in named)
        assert allowed or value == {}, f"{path} was not named"
        assert value == {} or there[path] == value


@given(content, fields)
def test_what_was_named_and_is_there_leaves_as_it_is(data: dict[str, Any], named: list[str]) -> None:
    sent = project(data, named)
    for name in named:
        source: Any = data
        target: Any = sent
        for key in name.split("."):
            source = source.get(key) if isinstance(source, dict) else None
            target = target.get(key) if isinstance(target, dict) else None
        assert target == source


@given(content, fields)
def test_projecting_does_not_touch_the_content(data: dict[str, Any], named: list[str]) -> None:
    before = copy.deepcopy(data)
    project(data, [*named, *named])
    assert data == before


@given(content, fields)
def test_the_order_of_the_names_does_not_matter(data: dict[str, Any], named: list[str]) -> None:
    assert project(data, named) == project(data, sorted(set(named)))


@given(fields, fields)
def test_a_projection_is_known_by_its_names(one: list[str], other: list[str]) -> None:
    assert projection(one).id == projection(reversed(one * 2)).id
    assert (projection(one).id == projection(other).id) is (set(one) == set(other))
    assert len(projection(one).id) == 8


T = "vn.congdoan.unit.updated.v1"


def router(*subscriptions: Subscription, thin: tuple[str, ...] = ("id",)) -> Router:
    return Router(subscriptions, {T: thin})


def subscription(name: str = "s", **more: Any) -> Subscription:
    return Subscription(name=name, **{"types": (T,), "to": "partner", **more})


def test_routes_come_in_the_order_of_the_configuration_with_thin_and_named_fields() -> None:
    r = router(subscription("one"), subscription("two", types=("vn.congdoan.*",), fields=("values.phone",)))
    assert [(route.subscription.name, route.projection.fields) for route in r.routes(T)] == [
        ("one", ("id",)),
        ("two", ("id", "values.phone")),
    ]
    assert r.routes("vn.other.thing.v1") == ()


def test_a_type_without_thin_fields_gives_only_what_was_named() -> None:
    r = Router([subscription(types=("vn.*",), fields=("n",))], {})
    assert r.routes("vn.unheard.of")[0].projection.fields == ("n",)


def test_less_in_the_configuration_ends_the_grant_of_what_was_pinned() -> None:
    pinned = projection(("id", "values.phone"))
    assert router(subscription(fields=("values.phone",))).may_still_leave("s", T, pinned)
    assert router(subscription(fields=("values.phone", "more"))).may_still_leave("s", T, pinned)
    assert not router(subscription()).may_still_leave("s", T, pinned)
    assert not router(subscription(fields=("values.phone",), name="renamed")).may_still_leave("s", T, pinned)
    assert not router(subscription(fields=("values.phone",)), thin=()).may_still_leave("s", T, pinned)
