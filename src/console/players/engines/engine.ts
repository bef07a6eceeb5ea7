// What a way of playing has to offer. A protocol is one entry in `protocols.ts` and, when the
// browser needs help with it, one engine beside this file.

import type { Trouble } from "./trouble";

/** What a player says while it plays. */
export interface Listener {
  /** The connection stands, or media came. */
  note: (text: string) => void;
  /** It cannot go on; the page tries again where that makes sense. */
  failed: (trouble: Trouble) => void;
}

/** What only the engine knows. */
export interface Figures {
  /** Received media, kbit/s. */
  kbps: number | null;
  /** How long ago the picture on the screen came in at the server, ms; `null` when the protocol
   * does not tell. */
  latency: number | null;
  /** More facts, as label and value. */
  more: [string, string][];
}

/** A player that was started. */
export interface Running {
  figures: () => Figures;
  /** Ends it; it says nothing afterwards. */
  stop: () => void;
}

export interface Options {
  /** Catch up when this far behind the newest media, seconds; 0 means never. What comes in
   * segments keeps the distance that its playlist names instead. */
  latencyMax: number;
}

/** Starts to play `url` in a video element. Throws a `Refusal` when it cannot be done at all. */
export type Engine = (
  video: HTMLVideoElement,
  url: string,
  options: Options,
  listener: Listener,
) => Promise<Running>;

/** Media that has to be there before the picture starts, seconds: a live stream comes as fast as it
 * is played, so what is not there at the beginning is never there. */
const CUSHION = 0.4;

/** Starts the picture when there is enough to play; when the browser wants a click first, the
 * controls offer it. Gives what ends the waiting. */
export function begin(video: HTMLVideoElement): () => void {
  const timer = window.setInterval(() => {
    const { buffered } = video;
    if (buffered.length === 0) return;
    const [start, end] = [buffered.start(0), buffered.end(buffered.length - 1)];
    // Times need not begin at zero.
    if (video.currentTime < start) video.currentTime = start;
    if (end - video.currentTime < CUSHION) return;
    clearInterval(timer);
    play(video);
  }, 40);
  return () => clearInterval(timer);
}

export function play(video: HTMLVideoElement): void {
  video.play().catch(() => {});
}

/** Leaves a video element as it was found. */
export function detach(video: HTMLVideoElement): void {
  video.playbackRate = 1;
  video.removeAttribute("src");
  video.load();
}

/** The rate of what is received, over stretches of two seconds: segments come in bursts. */
export class Meter {
  private bytes = 0;
  private lookedAt = performance.now();
  private last: number | null = null;

  add(bytes: number): void {
    this.bytes += bytes;
  }

  /** kbit/s; `null` before the first stretch is over. */
  get kbps(): number | null {
    const now = performance.now();
    if (now - this.lookedAt > 2_000) {
      this.last = this.bytes * 8 / (now - this.lookedAt);
      [this.bytes, this.lookedAt] = [0, now];
    }
    return this.last;
  }
}
