"""The keys that a search just did not find: the call that is then added under the key is not searched for again."""

#: The most keys that are remembered; the oldest is forgotten first.
MAX_REMEMBERED = 2000
#: Stands for the end of a search, after which the key was absent.
_ABSENT = object()


class AbsentKeys:
    """The keys of which a store has no call, as far as searches have shown."""

    def __init__(self) -> None:
        self._searches: dict[str, object] = {}

    def __contains__(self, key: str) -> bool:
        """Return whether a search has not found *key*, and no call was added under it since."""
        return self._searches.get(key) is _ABSENT

    def begin_search(self, key: str) -> object:
        """Note that a search for *key* begins; return its mark."""
        mark = self._searches[key] = object()
        if len(self._searches) > MAX_REMEMBERED:
            del self._searches[next(iter(self._searches))]
        return mark

    def end_search(self, key: str, mark: object, *, found: bool) -> None:
        """Remember the key if it was not found, unless a call was added or another search began meanwhile."""
        if self._searches.get(key) is mark:
            if found:
                del self._searches[key]
            else:
                self._searches[key] = _ABSENT

    def discard(self, key: str) -> None:
        """Forget a key: a call was added under it."""
        self._searches.pop(key, None)
