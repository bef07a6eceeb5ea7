// What a way of playing has to offer. A protocol is one entry in `protocols.ts` and, when the
// browser needs help with it, one engine beside this file.

/** What a player says while it plays. */
export interface Listener {
  /** The connection stands, or media came. */
  note: (text: string) => void;
  /** It cannot go on; the page tries again. */
  failed: (why: string) => void;
}

/** What only the engine knows. */
export interface Figures {
  /** Received media, kbit/s. */
  kbps: number | null;
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
  /** Jump forward when this far behind the newest media, seconds; 0 means never. */
  latencyMax: number;
}

/** Starts to play `url` in a video element. Fails when the browser cannot do it at all. */
export type Engine = (
  video: HTMLVideoElement,
  url: string,
  options: Options,
  listener: Listener,
) => Promise<Running>;
