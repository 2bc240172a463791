/**
 * How many images arrived, were shown and were left out of late. Counted by the second, so that what
 * is kept is the same whether ten arrive or ten thousand, and whether anybody looks or not.
 */

const SECONDS = 10;

export class Pace {
  #began = performance.now();
  #counts = new Map(["arrived", "shown", "leftOut"].map((what) => [what, Array.from({ length: SECONDS }, () => ({ second: -1, count: 0 }))]));

  /** One more that "arrived", was "shown" or was "leftOut". */
  count(what) {
    const second = Math.floor(performance.now() / 1000);
    const place = this.#counts.get(what)[second % SECONDS];
    if (place.second !== second) Object.assign(place, { second, count: 0 });
    place.count += 1;
  }

  /** Images each second that arrived and were shown; whether some were left out; whether it is `settled`. */
  now() {
    const passed = performance.now() - this.#began;
    const seconds = Math.min(Math.max(passed / 1000, 1), SECONDS);
    return { settled: passed >= SECONDS * 500, sampled: this.#sum("leftOut") > 0, arrived: this.#sum("arrived") / seconds, shown: this.#sum("shown") / seconds };
  }

  #sum(what) {
    const oldest = Math.floor(performance.now() / 1000) - SECONDS;
    return this.#counts.get(what).reduce((sum, { second, count }) => sum + (second > oldest ? count : 0), 0);
  }
}
