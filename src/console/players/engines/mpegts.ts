// FLV and MPEG-TS over HTTP or a WebSocket, by mpegts.js and Media Source Extensions.

import { begin, type Engine } from "./engine";
import type { Figures, Listener, Options, Running } from "./engine";
import { ENDED, final, noLibrary, noMse, ofStatus, passing, Refusal, undecodable } from "./trouble";
import type { Container, Trouble } from "./trouble";

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
  destroy: () => void;
}

let library: Promise<Mpegts> | null = null;

/** Loaded with the first stream that needs it: it is far larger than the page. The file is the one
 * that the index page has. */
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
      reject(new Refusal(noLibrary("mpegts.js")));
    };
    document.head.append(script);
  });
  return library;
}

export const flv: Engine = (...all) => start("FLV", ...all);
export const ts: Engine = (...all) => start("TS", ...all);

async function start(
  container: Container,
  video: HTMLVideoElement,
  url: string,
  options: Options,
  listener: Listener,
): Promise<Running> {
  const mpegts = await load();
  if (!mpegts.isSupported()) throw new Refusal(noMse(container));
  const most = options.latencyMax;
  const player = mpegts.createPlayer({
    type: container === "FLV" ? "flv" : "mpegts",
    isLive: true,
    url,
  }, {
    enableWorker: false,
    enableStashBuffer: false,
    lazyLoad: false,
    autoCleanupSourceBuffer: true,
    autoCleanupMaxBackwardDuration: 30,
    autoCleanupMinBackwardDuration: 10,
    // Somewhat late: play faster. Far too late, as after the page was hidden: jump.
    liveSync: most > 0,
    liveSyncMaxLatency: most,
    liveSyncTargetLatency: most * 0.6,
    liveSyncPlaybackRate: 1.15,
    liveBufferLatencyChasing: most > 0,
    liveBufferLatencyMaxLatency: most + 2,
    liveBufferLatencyMinRemain: most * 0.6,
  });
  let over = false;
  const figures: Figures = { kbps: null, latency: null, more: [] };
  const say = (listener: () => void) => {
    if (!over) listener();
  };
  player.on(mpegts.Events.ERROR, (kind, detail, info) => {
    const trouble = explain(String(kind), String(detail), info, container);
    say(() => listener.failed(trouble));
  });
  player.on(mpegts.Events.LOADING_COMPLETE, () => say(() => listener.failed(ENDED)));
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
  const waiting = begin(video);
  return {
    figures: () => figures,
    stop: () => {
      over = true;
      waiting();
      try {
        player.destroy();
      } catch {
        // One that failed half-way through its start may fail to end as well.
      }
      video.playbackRate = 1;
    },
  };
}

function explain(kind: string, detail: string, info: unknown, container: Container): Trouble {
  const { code, msg } = (info ?? {}) as { code?: number; msg?: string };
  switch (detail) {
    case "HttpStatusCodeInvalid":
      return ofStatus(code ?? 0, container);
    case "Exception":
      // What fails in its own reader comes as the same error as a lost connection. Its parser of
      // AV1 does that with some encoders.
      if (/fetch|network|load failed|connection/i.test(msg ?? "fetch")) {
        return ofStatus(0, container);
      }
      return final(`mpegts.js cannot read this stream (${msg})`, "Play it by HTTP-MP4");
    case "ConnectingTimeout":
      return passing("The connection takes too long", "Check host and port");
    case "EarlyEof":
    case "UnrecoverableEarlyEof":
      return ENDED;
    case "MediaMSEError":
      return undecodable(msg ?? "");
    case "CodecUnsupported":
      return final(
        `A codec of the stream does not go with mpegts.js${msg ? ` (${msg})` : ""}`,
        "Play it by HTTP-MP4",
      );
    case "FormatUnsupported":
    case "FormatError":
      return passing(`What came is no ${container}`, "Does the address end as it should?");
    default:
      return passing(`${kind}: ${detail}${msg ? ` (${msg})` : ""}`);
  }
}
