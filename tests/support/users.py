"""UserSessions in memory."""

from collections import Counter

from popgate.values.identity import Identity


class Users:
    """`most` sessions an identity; `open` counts those that are open."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.open: Counter[Identity] = Counter()

    def enter(self, identity: Identity) -> bool:
        if self.open[identity] >= self.most:
            return False
        self.open[identity] += 1
        return True

    def leave(self, identity: Identity) -> None:
        assert self.open[identity] > 0, f"{identity} left more often than it entered"
        self.open[identity] -= 1
