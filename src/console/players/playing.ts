// One attempt after another to play an address, and what can be seen of it.

import { misfit } from "./codecs";
import type { Running } from "./engines/engine";
import { line, passing, Refusal, type Trouble } from "./engines/trouble";
import { ask, isNamed } from "./live";
import { find, nameOf, type Protocol } from "./protocols";

export type Status = "idle" | "connecting" | "playing" | "paused" | "waiting" | "refused";

export interface LogLine {
  at: number;
  text: string;
}

/** What is known of the picture at one moment. */
export interface Sample {
  at: number;
  /** Since the picture came in at the server, where the protocol tells; otherwise behind the
   * newest media that is there. ms. */
  behind: number;
  byClock: boolean;
  /** `null` when the player does not tell. */
  kbps: number | null;
}

export interface Facts {
  picture: string;
  fps: number | null;
  /** Pictures decoded and dropped. */
  decoded: number;
  dropped: number;
  /** Times that it had to wait for media. */
  stalls: number;
  /** From the click to the first picture, ms. */
  join: number | null;
  played: number;
  more: [string, string][];
}

const RETRY_MS_MIN = 1_000;
const RETRY_MS_MAX = 10_000;
/** Without a new picture for this long, it is tried anew. */
const STALL_MS = 8_000;
/** Media that is there for this long and not played is not let by the browser. */
const CLICK_MS = 4_000;
const SAMPLES = 120;
const LOG_LINES = 40;

export class Playing {
  status: Status = "idle";
  text = "";
  protocol: Protocol | null = null;
  address = "";
  samples: Sample[] = [];
  log: LogLine[] = [];
  facts: Facts = empty();
  latencyMax = 2;

  private running: Running | null = null;
  /** Goes up with each attempt, so that late news of an earlier one is known as such. */
  private attempt = 0;
  private retryMs = RETRY_MS_MIN;
  private retryTimer = 0;
  private startedAt = 0;
  private movedAt = 0;
  private lastTime = -1;
  /** Where it began, as times of some protocols count from 1970. */
  private begunAt: number | null = null;
  private hasBegun = false;
  private lastDecoded = 0;
  private lastLook = 0;

  constructor(private readonly video: HTMLVideoElement, private readonly tell: () => void) {
    video.addEventListener("waiting", () => {
      // What is jumped to is waited for as well, and that is no stall.
      if (this.status === "playing" && !video.seeking) this.facts.stalls += 1;
    });
    window.setInterval(() => this.look(), 500);
  }

  /** Plays an address from now on, by this protocol if it is one of the address's. */
  play(address: string, protocolId: string): void {
    this.stop();
    this.address = address;
    const found = find(address, protocolId);
    if (!("engine" in found)) return this.refuse(found);
    this.protocol = found;
    this.retryMs = RETRY_MS_MIN;
    this.facts = empty();
    this.samples = [];
    void this.start();
  }

  stop(): void {
    this.end();
    this.protocol = null;
    this.say("idle", "");
  }

  private end(): void {
    this.attempt += 1;
    clearTimeout(this.retryTimer);
    this.running?.stop();
    this.running = null;
  }

  private async start(): Promise<void> {
    this.end();
    const { protocol, attempt } = this;
    if (protocol === null) return;
    const isOurs = () => attempt === this.attempt;
    this.startedAt = this.movedAt = performance.now();
    this.lastTime = -1;
    this.begunAt = null;
    this.hasBegun = false;
    this.lastDecoded = 0;
    this.facts.join = null;
    this.watchForPicture();
    this.say("connecting", `Connecting by ${protocol.label}`);
    try {
      const trouble = await this.check(protocol);
      if (!isOurs()) return;
      if (trouble !== null) return this.refuse(trouble);
      const options = { latencyMax: this.latencyMax };
      const running = await protocol.engine(this.video, this.address, options, {
        note: (text) => {
          if (isOurs()) this.write(text);
        },
        failed: (trouble) => {
          if (isOurs()) this.fail(trouble);
        },
      });
      if (isOurs()) this.running = running;
      else running.stop();
    } catch (error) {
      if (!isOurs()) return;
      if (error instanceof Refusal) this.fail(error.trouble);
      else this.fail(passing(`The player failed: ${(error as Error).message}`));
    }
  }

  /** What the list of live streams says against it. */
  private async check(protocol: Protocol): Promise<Trouble | null> {
    const name = nameOf(this.address);
    if (name === null) return null;
    const live = await ask();
    const found = live?.find((one) => isNamed(one, name));
    if (found !== undefined) return misfit(protocol.container, [found.video, found.audio]);
    if (live !== null) this.write("Nobody publishes this now; it plays when somebody does");
    return null;
  }

  private refuse(trouble: Trouble): void {
    this.end();
    this.protocol = null;
    this.say("refused", line(trouble));
  }

  private fail(trouble: Trouble): void {
    if (trouble.isFinal) return this.refuse(trouble);
    this.end();
    const text = line(trouble);
    const stop = text.endsWith("?") ? "" : ".";
    this.say("waiting", `${text}${stop} Trying again in ${Math.round(this.retryMs / 1000)} s`);
    this.retryTimer = window.setTimeout(() => void this.start(), this.retryMs);
    this.retryMs = Math.min(this.retryMs * 2, RETRY_MS_MAX);
  }

  /** The join time to the picture, where the browser tells; otherwise to the next look. */
  private watchForPicture(): void {
    const { attempt } = this;
    this.video.requestVideoFrameCallback?.((now) => {
      if (attempt === this.attempt) this.facts.join ??= now - this.startedAt;
    });
  }

  private look(): void {
    if (this.running === null) return;
    const { video, facts } = this;
    const now = performance.now();
    const quality = video.getVideoPlaybackQuality();
    const isThere = video.readyState >= 2;
    if (!video.paused) this.hasBegun = true;
    // Before it begins it waits for media, and then for the click that some browsers want.
    const isPaused = video.paused && isThere && (this.hasBegun || now - this.startedAt > CLICK_MS);
    if (video.currentTime !== this.lastTime) {
      if (this.lastTime >= 0 && !video.paused && isThere) this.moved(now);
      this.lastTime = video.currentTime;
      this.movedAt = now;
    } else if (!isPaused && now - this.movedAt > STALL_MS) {
      this.fail(this.lastTime > 0
        ? passing("Nothing came for 8 s", "Is it still published?")
        : passing("Nothing came within 8 s", "Is it published, and is the name right?"));
    }
    if (isPaused && this.status !== "paused") {
      this.say("paused", this.hasBegun ? "Paused" : "The browser waits for a click on the picture");
      this.movedAt = now;
    }
    const seconds = (now - this.lastLook) / 1000;
    const pictures = quality.totalVideoFrames - this.lastDecoded;
    if (this.lastLook > 0 && pictures >= 0 && seconds < 2) {
      const fps = pictures / seconds;
      facts.fps = facts.fps === null ? fps : facts.fps * 0.8 + fps * 0.2;
    }
    [this.lastLook, this.lastDecoded] = [now, quality.totalVideoFrames];
    [facts.decoded, facts.dropped] = [quality.totalVideoFrames, quality.droppedVideoFrames];
    facts.picture = video.videoWidth > 0 ? `${video.videoWidth} × ${video.videoHeight}` : "–";
    facts.played = this.begunAt === null ? 0 : video.currentTime - this.begunAt;
    const figures = this.running?.figures();
    facts.more = figures?.more ?? [];
    const latency = figures?.latency ?? null;
    this.samples.push({
      at: Date.now(),
      behind: latency ?? buffered(video),
      byClock: latency !== null,
      kbps: figures?.kbps ?? null,
    });
    if (this.samples.length > SAMPLES) this.samples.shift();
    this.tell();
  }

  private moved(now: number): void {
    this.begunAt ??= this.lastTime;
    if (this.status === "playing") return;
    this.facts.join ??= now - this.startedAt;
    this.retryMs = RETRY_MS_MIN;
    this.say("playing", `Playing by ${this.protocol?.label}`);
  }

  private say(status: Status, text: string): void {
    this.status = status;
    this.text = text;
    if (text !== "") this.write(text);
    this.tell();
  }

  private write(text: string): void {
    this.log = [{ at: Date.now(), text }, ...this.log].slice(0, LOG_LINES);
  }
}

function buffered(video: HTMLVideoElement): number {
  const { buffered } = video;
  if (buffered.length === 0) return 0;
  return Math.max(0, buffered.end(buffered.length - 1) - video.currentTime) * 1000;
}

function empty(): Facts {
  return {
    picture: "–", fps: null, decoded: 0, dropped: 0, stalls: 0, join: null, played: 0, more: [],
  };
}
