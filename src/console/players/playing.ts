// One attempt after another to play an address, and what can be seen of it.

import { find, type Protocol } from "./protocols";
import type { Running } from "./engines/engine";

export type Status = "idle" | "connecting" | "playing" | "paused" | "waiting" | "refused";

export interface LogLine {
  at: number;
  text: string;
}

/** What is known of the picture at one moment. */
export interface Sample {
  at: number;
  /** Behind the newest media that is there, ms. */
  behind: number;
  kbps: number;
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
  private lastDecoded = 0;
  private lastLook = 0;

  constructor(private readonly video: HTMLVideoElement, private readonly tell: () => void) {
    video.addEventListener("waiting", () => {
      if (this.status === "playing") this.facts.stalls += 1;
    });
    window.setInterval(() => this.look(), 500);
  }

  /** Plays an address from now on. */
  play(address: string): void {
    this.stop();
    this.address = address;
    const found = find(address);
    if (typeof found === "string") {
      this.say("refused", found);
      return;
    }
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
    this.lastDecoded = 0;
    this.facts.join = null;
    this.watchForPicture();
    this.say("connecting", `Connecting by ${protocol.label}`);
    try {
      const options = { latencyMax: this.latencyMax };
      const running = await protocol.engine(this.video, this.address, options, {
        note: (text) => {
          if (isOurs()) this.write(text);
        },
        failed: (why) => {
          if (isOurs()) this.retry(why);
        },
      });
      if (isOurs()) this.running = running;
      else running.stop();
    } catch (error) {
      if (isOurs()) this.say("refused", (error as Error).message);
    }
  }

  private retry(why: string): void {
    this.end();
    this.say("waiting", `${why}. Trying again`);
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
    if (video.currentTime !== this.lastTime) {
      if (this.lastTime >= 0 && !video.paused && video.readyState >= 2) this.moved(now);
      this.lastTime = video.currentTime;
      this.movedAt = now;
    } else if (!video.paused && now - this.movedAt > STALL_MS) {
      this.retry("Nothing came for 8 s");
    }
    if (video.paused && video.readyState >= 2 && this.status !== "paused") {
      this.say("paused", "Paused");
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
    facts.played = video.currentTime;
    const figures = this.running?.figures();
    facts.more = figures?.more ?? [];
    this.samples.push({ at: Date.now(), behind: behind(video), kbps: figures?.kbps ?? 0 });
    if (this.samples.length > SAMPLES) this.samples.shift();
    this.tell();
  }

  private moved(now: number): void {
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

function behind(video: HTMLVideoElement): number {
  const { buffered } = video;
  if (buffered.length === 0) return 0;
  return Math.max(0, buffered.end(buffered.length - 1) - video.currentTime) * 1000;
}

function empty(): Facts {
  return {
    picture: "–", fps: null, decoded: 0, dropped: 0, stalls: 0, join: null, played: 0, more: [],
  };
}
