// Fragmented MP4 over HTTP or a WebSocket: the boxes go into Media Source Extensions as they come.

import { late } from "../clock";
import { begin, detach, Meter } from "./engine";
import type { Engine, Figures, Listener, Options } from "./engine";
import { Boxes, hasInit, referenceTime, tracks, type Track } from "./boxes";
import { ENDED, final, noMse, ofStatus, passing, Refusal, undecodable } from "./trouble";
import type { Trouble } from "./trouble";

/** What was played is kept for so long, seconds. */
const KEPT = 20;
/** Somewhat late: play faster. Far too late, as after the page was hidden: jump. */
const FASTER = 1.15;
const JUMP_BEYOND = 2;

export const mp4: Engine = async (video, url, options, listener) => {
  if (!("MediaSource" in window)) throw new Refusal(noMse("fragmented MP4"));
  const playing = new Mp4(video, url, options, listener);
  await playing.open();
  return { figures: () => playing.figures(), stop: () => playing.stop() };
};

class Mp4 {
  private readonly source = new MediaSource();
  private readonly boxes = new Boxes();
  private readonly ending = new AbortController();
  private buffer: SourceBuffer | null = null;
  private readonly queue: Uint8Array<ArrayBuffer>[] = [];
  private tracks: Track[] = [];
  private reference: { wall: number; media: number } | null = null;
  private over = false;
  private waiting = () => {};
  private hasBytes = false;
  private readonly meter = new Meter();
  private timer = 0;
  private socket: WebSocket | null = null;

  constructor(
    private readonly video: HTMLVideoElement,
    private readonly url: string,
    private readonly options: Options,
    private readonly listener: Listener,
  ) {}

  async open(): Promise<void> {
    const { video, source } = this;
    const address = URL.createObjectURL(source);
    const opened = new Promise((resolve) => source.addEventListener("sourceopen", resolve));
    video.src = address;
    await opened;
    URL.revokeObjectURL(address);
    this.waiting = begin(video);
    this.timer = window.setInterval(() => this.look(), 500);
    if (/^wss?:/.test(this.url)) this.connect();
    else void this.fetch();
  }

  figures(): Figures {
    const { reference, video, tracks } = this;
    const latency = reference === null ? null
      : late(this.url, reference.wall + (video.currentTime - reference.media) * 1000);
    const name = (track: Track): [string, string] =>
      [track.isVideo ? "Video codec" : "Audio codec", track.codec];
    return { kbps: this.meter.kbps, latency, more: tracks.map(name) };
  }

  stop(): void {
    this.over = true;
    this.waiting();
    clearInterval(this.timer);
    this.ending.abort();
    this.socket?.close();
    detach(this.video);
  }

  private fail(trouble: Trouble): void {
    if (this.over) return;
    this.over = true;
    this.listener.failed(trouble);
  }

  private async fetch(): Promise<void> {
    try {
      const response = await fetch(this.url, { signal: this.ending.signal, cache: "no-store" });
      if (!response.ok) return this.fail(ofStatus(response.status, "MP4"));
      if (response.body === null) return this.fail(ENDED);
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.over) return this.fail(ENDED);
        this.take(value);
      }
    } catch {
      this.fail(this.hasBytes ? passing("The connection broke") : ofStatus(0, "MP4"));
    }
  }

  private connect(): void {
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }) => {
      if (data instanceof ArrayBuffer) this.take(new Uint8Array(data));
    });
    socket.addEventListener("close", () => {
      // Before the first byte the browser does not say why.
      if (this.hasBytes) return this.fail(ENDED);
      this.fail(passing(
        "The server did not accept the WebSocket",
        "HTTP-MP4 of the same stream tells why",
      ));
    });
  }

  private take(more: Uint8Array): void {
    if (this.over) return;
    this.hasBytes = true;
    this.meter.add(more.length);
    try {
      this.boxes.push(more);
      const bytes = this.boxes.take(this.buffer === null ? "moov" : "mdat");
      if (bytes === null) return;
      if (hasInit(bytes)) this.prepare(bytes);
      if (this.over) return;
      const [first] = this.tracks;
      const clock = this.tracks.find((track) => track.isVideo) ?? first;
      if (clock !== undefined) this.reference = referenceTime(bytes, clock) ?? this.reference;
      this.queue.push(bytes);
      this.append();
    } catch (error) {
      this.fail(passing(`What came is no MP4 (${(error as Error).message})`));
    }
  }

  /** A source buffer for the tracks that an initialisation segment names. */
  private prepare(bytes: Uint8Array): void {
    this.tracks = tracks(bytes);
    const codecs = this.tracks.map((track) => track.codec);
    const kind = this.tracks.some((track) => track.isVideo) ? "video" : "audio";
    const type = `${kind}/mp4; codecs="${codecs.join(",")}"`;
    if (!MediaSource.isTypeSupported(type)) {
      const isBad = (codec: string) => {
        return !MediaSource.isTypeSupported(`${kind}/mp4; codecs="${codec}"`);
      };
      const bad = codecs.filter(isBad);
      return this.fail(final(
        `This browser does not decode ${bad.join(" and ")}`,
        "Try another browser, or publish H.264 and AAC",
      ));
    }
    if (this.buffer !== null) return this.buffer.changeType(type);
    this.buffer = this.source.addSourceBuffer(type);
    this.buffer.addEventListener("updateend", () => this.append());
    this.listener.note("Media is there");
  }

  private append(): void {
    const { buffer, queue } = this;
    if (this.over || buffer === null || buffer.updating || this.video.error !== null) return;
    const [next] = queue;
    if (next === undefined) return;
    try {
      buffer.appendBuffer(next);
      queue.shift();
    } catch (error) {
      if ((error as Error).name !== "QuotaExceededError") {
        return this.fail(undecodable((error as Error).message));
      }
      buffer.remove(0, Math.max(0.1, this.video.currentTime - 1));
    }
  }

  /** Twice a second: what can be thrown away, and how late it is. */
  private look(): void {
    const { video, buffer, options } = this;
    if (video.error !== null) return this.fail(undecodable(video.error.message));
    if (buffer === null || buffer.updating || buffer.buffered.length === 0) return;
    const { buffered } = buffer;
    const newest = buffered.end(buffered.length - 1);
    if (video.currentTime - buffered.start(0) > KEPT * 2) {
      buffer.remove(0, video.currentTime - KEPT);
    }
    const [late, most] = [newest - video.currentTime, options.latencyMax];
    if (most === 0 || video.paused) return;
    if (late > most + JUMP_BEYOND) video.currentTime = newest - most * 0.6;
    else if (late > most) video.playbackRate = FASTER;
    else if (late < most * 0.6) video.playbackRate = 1;
  }
}
