// What the time is at the server, so that it can be said how late a picture is: the clocks of two
// machines often differ by more than that.

/** By how much the server's clock is ahead, ms, and how far off this may be. */
let best: { ahead: number; doubt: number; at: number } | null = null;

/** A reading is good for this long: clocks drift. */
const GOOD_FOR_MS = 60_000;

/** Takes what the server said was the time between two moments here (`performance.now()`). */
export function heard(serverMs: number, asked: number, answered: number): void {
  const doubt = (answered - asked) / 2;
  const old = best !== null && answered - best.at > GOOD_FOR_MS;
  if (best !== null && !old && best.doubt <= doubt) return;
  const here = performance.timeOrigin + (asked + answered) / 2;
  best = { ahead: serverMs - here, doubt, at: answered };
}

/** How late something is that the server of `url` had at `wallMs`, ms; `null` when that is another
 * server than the page's, whose clock is not known, or when the figures make no sense. */
export function late(url: string, wallMs: number): number | null {
  if (best === null || !URL.canParse(url)) return null;
  if (new URL(url).hostname !== location.hostname) return null;
  const ms = performance.timeOrigin + performance.now() + best.ahead - wallMs;
  return ms > -1_000 && ms < 3_600_000 ? Math.max(0, ms) : null;
}
