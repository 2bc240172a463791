"""How long the device will need for a batch of a given size, learned from the batches it has done.

Service time is modelled as a + b · n (launch cost plus cost a frame), fitted by exponentially
weighted least squares so that it follows a device that heats up or is shared. One outlier (a page
fault, a first compilation) moves it little: a sample counts at most four times its prediction.
"""

from __future__ import annotations


class ServiceTime:
    """Predicts seconds for a batch of `n` frames; 0 until the first batch was observed."""

    def __init__(self, memory: float = 0.95) -> None:
        """`memory`: weight that an old sample keeps at each new one, in (0, 1)."""
        if not 0 < memory < 1:
            raise ValueError(f"memory is {memory}; choose a value between 0 and 1")
        self._memory = memory
        self._weight = self._n = self._seconds = self._nn = self._n_seconds = 0.0

    def observe(self, batch_size: int, seconds: float) -> None:
        """Learn that a batch of `batch_size` frames took `seconds`."""
        expected = self.predict(batch_size)
        if expected > 0:
            seconds = min(seconds, 4 * expected)
        keep = self._memory
        self._weight = keep * self._weight + 1
        self._n = keep * self._n + batch_size
        self._seconds = keep * self._seconds + seconds
        self._nn = keep * self._nn + batch_size * batch_size
        self._n_seconds = keep * self._n_seconds + batch_size * seconds

    def predict(self, batch_size: int) -> float:
        """Seconds for a batch of `batch_size` frames."""
        if not self._weight:
            return 0.0
        spread = self._weight * self._nn - self._n * self._n
        if spread < 1e-9 * max(1.0, self._n * self._n):
            # Every batch had the same size: scale its mean in proportion.
            return self._seconds / self._n * batch_size
        slope = (self._weight * self._n_seconds - self._n * self._seconds) / spread
        slope = max(slope, 0.0)
        start = max((self._seconds - slope * self._n) / self._weight, 0.0)
        return start + slope * batch_size
