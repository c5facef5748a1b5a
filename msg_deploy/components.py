"""Which nodes can run over all steps at once, and which must take turns step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msg_deploy.graph import Plan


def components(known: Plan) -> tuple[tuple[str, ...], ...]:
    """The strongly connected components of a graph, each after those that it needs.

    A node outside of all cycles is a component of its own. Within a component nodes stand in the
    order of the plan.
    """
    rank = {name: i for i, name in enumerate(known.order)}
    sources = {name: [e.source for e in known.incoming[name]] for name in known.order}
    return tuple(tuple(sorted(component, key=rank.__getitem__)) for component in _tarjan(sources))


def closes(component: Sequence[str], known: Plan) -> bool:
    """Whether the component is a cycle, be it of one node."""
    return any(e.previous for name in component for e in known.incoming[name])


def _tarjan(sources: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Tarjan's algorithm against the edges: components come after what they need."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    pending: list[str] = []
    done: set[str] = set()
    for root in sources:
        if root in index:
            continue
        stack = [(root, iter(sources[root]))]
        index[root] = low[root] = len(index)
        pending.append(root)
        while stack:
            node, following = stack[-1]
            source = next(following, None)
            if source is None:
                stack.pop()
                if stack:
                    parent = stack[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    component = [pending.pop()]
                    while component[-1] != node:
                        component.append(pending.pop())
                    done.update(component)
                    yield component
            elif source not in index:
                index[source] = low[source] = len(index)
                pending.append(source)
                stack.append((source, iter(sources[source])))
            elif source not in done:
                low[node] = min(low[node], index[source])
