// FLV over HTTP or a WebSocket, by mpegts.js and Media Source Extensions.

import type { Figures, Listener, Options, Running } from "./engine";

/** What is used of mpegts.js. */
interface Mpegts {
  isSupported: () => boolean;
  createPlayer: (source: object, config: object) => MpegtsPlayer;
  Events: { ERROR: string; LOADING_COMPLETE: string; MEDIA_INFO: string; STATISTICS_INFO: string };
  LoggingControl: { enableAll: boolean };
}

interface MpegtsPlayer {
  on: (event: string, listener: (...data: unknown[]) => void) => void;
  attachMediaElement: (video: HTMLVideoElement) => void;
  load: () => void;
  play: () => Promise<void> | undefined;
  destroy: () => void;
}

let library: Promise<Mpegts> | null = null;

/** Loaded with the first stream that needs it: it is far larger than the page. */
function load(): Promise<Mpegts> {
  library ??= new Promise<Mpegts>((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "../page/mpegts.js";
    script.onload = () => {
      const { mpegts } = window as unknown as { mpegts: Mpegts };
      mpegts.LoggingControl.enableAll = false;
      resolve(mpegts);
    };
    script.onerror = () => {
      library = null;
      script.remove();
      reject(new Error("mpegts.js cannot be loaded"));
    };
    document.head.append(script);
  });
  return library;
}

export async function flv(
  video: HTMLVideoElement,
  url: string,
  options: Options,
  listener: Listener,
): Promise<Running> {
  const mpegts = await load();
  if (!mpegts.isSupported()) {
    throw new Error("This browser has no Media Source Extensions, which FLV needs");
  }
  const player = mpegts.createPlayer({ type: "flv", isLive: true, url }, {
    enableWorker: false,
    enableStashBuffer: false,
    lazyLoad: false,
    autoCleanupSourceBuffer: true,
    autoCleanupMaxBackwardDuration: 30,
    autoCleanupMinBackwardDuration: 10,
    liveBufferLatencyChasing: options.latencyMax > 0,
    liveBufferLatencyMaxLatency: options.latencyMax,
    liveBufferLatencyMinRemain: Math.min(0.5, options.latencyMax / 2),
  });
  let over = false;
  const figures: Figures = { kbps: null, more: [] };
  const say = (listener: () => void) => {
    if (!over) listener();
  };
  player.on(mpegts.Events.ERROR, (kind, detail) => {
    say(() => listener.failed(explain(String(kind), String(detail))));
  });
  player.on(mpegts.Events.LOADING_COMPLETE, () => say(() => listener.failed("The stream ended")));
  player.on(mpegts.Events.STATISTICS_INFO, (info) => {
    const { speed } = info as { speed?: number };
    // Its unit is KiB a second.
    if (speed !== undefined) figures.kbps = speed * 8.192;
  });
  player.on(mpegts.Events.MEDIA_INFO, (info) => {
    const media = info as { videoCodec?: string; audioCodec?: string };
    figures.more = [];
    if (media.videoCodec) figures.more.push(["Video codec", media.videoCodec]);
    if (media.audioCodec) figures.more.push(["Audio codec", media.audioCodec]);
    say(() => listener.note("Media is there"));
  });
  player.attachMediaElement(video);
  player.load();
  // When the browser wants a click first, the controls offer it.
  player.play()?.catch(() => {});
  return {
    figures: () => figures,
    stop: () => {
      over = true;
      try {
        player.destroy();
      } catch {
        // One that failed half-way through its start may fail to end as well.
      }
    },
  };
}

function explain(kind: string, detail: string): string {
  const known: Record<string, string> = {
    HttpStatusCodeInvalid: "The server refused it: is the stream's name right?",
    Exception: "No connection, or the server does not let other sites read it",
    ConnectingTimeout: "The connection takes too long",
    EarlyEof: "The connection ended",
    UnrecoverableEarlyEof: "The connection ended",
    MediaMSEError: "The browser cannot decode it",
    CodecUnsupported: "The browser does not have this codec",
    FormatUnsupported: "That is no FLV",
    FormatError: "That is no FLV",
  };
  return known[detail] ?? `${kind}: ${detail}`;
}
