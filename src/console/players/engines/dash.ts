// MPEG-DASH by dash.js and Media Source Extensions.

import type { MediaPlayerClass } from "dashjs";
import { detach, Meter, play, type Engine } from "./engine";
import { final, noLibrary, noMse, ofStatus, passing, Refusal, undecodable } from "./trouble";
import type { Trouble } from "./trouble";

/** What is used of dash.js: the player without captions, DRM and reports. */
interface Library {
  MediaPlayer: () => { create: () => MediaPlayerClass };
}

/** Loaded with the first stream that needs it: it is the largest of all. */
async function load(): Promise<Library> {
  try {
    return (await import("dash-player")) as unknown as Library;
  } catch {
    throw new Refusal(noLibrary("dash.js"));
  }
}

/** The part of dash.js's errors that is used. */
interface Failed {
  error?: { code?: number; message?: string; data?: { response?: { status?: number } } };
}

export const dash: Engine = async (video, url, _, listener) => {
  if (!("MediaSource" in window)) throw new Refusal(noMse("DASH"));
  const { MediaPlayer } = await load();
  const player = MediaPlayer().create();
  let over = false;
  const meter = new Meter();
  const fail = (trouble: Trouble) => {
    if (over) return;
    over = true;
    listener.failed(trouble);
  };
  player.updateSettings({
    debug: { logLevel: 0 },
    streaming: {
      // Nothing is kept in the browser, and nobody is asked for the time but the server.
      lastBitrateCachingInfo: { enabled: false },
      lastMediaSettingsCachingInfo: { enabled: false },
      cacheLoadThresholds: {},
      buffer: { bufferToKeep: 20, bufferPruningInterval: 10 },
      liveCatchup: { enabled: true, playbackRate: { min: -0.1, max: 0.15 } },
      gaps: { jumpGaps: true },
    },
  });
  player.initialize();
  player.clearDefaultUTCTimingSources();
  player.on("error", (event) => {
    const { error } = event as unknown as Failed;
    fail(explain(error?.code ?? 0, error?.message ?? "", error?.data?.response?.status));
  });
  player.on("playbackError", () => fail(undecodable(video.error?.message ?? "")));
  player.on("streamInitialized", () => listener.note("The description is there"));
  player.on("canPlay", () => play(video));
  player.on("fragmentLoadingCompleted", (event) => {
    const { request } = event as unknown as { request?: { bytesTotal?: number } };
    meter.add(request?.bytesTotal ?? 0);
  });
  player.on("dynamicToStatic", () => listener.note("The stream ended"));
  player.attachView(video);
  player.setAutoPlay(false);
  player.attachSource(url);
  return {
    figures: () => {
      const more: [string, string][] = [];
      const seconds = isReady(player) ? player.getCurrentLiveLatency() : NaN;
      if (isReady(player)) {
        for (const [label, type] of [["Video codec", "video"], ["Audio codec", "audio"]] as const) {
          const codec = player.getCurrentTrackFor(type)?.codec ?? "";
          const name = /codecs="([^"]*)"/.exec(codec)?.[1];
          if (name !== undefined) more.push([label, name]);
        }
        const delay = player.getTargetLiveDelay();
        if (Number.isFinite(delay)) more.push(["Aims at", `${delay.toFixed(1)} s`]);
      }
      const latency = Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : null;
      return { kbps: meter.kbps, latency, more };
    },
    stop: () => {
      over = true;
      player.destroy();
      detach(video);
    },
  };
};

function isReady(player: MediaPlayerClass): boolean {
  return player.isReady() && player.getActiveStream() !== null;
}

/** The numbers are those of dash.js's `Errors`. */
function explain(code: number, message: string, status: number | undefined): Trouble {
  // A file that could not be loaded: the description, the first part, or media.
  const isLoading = [11, 15, 17, 25, 26, 27, 28].includes(code);
  if (isLoading) return ofStatus(status ?? 0, "DASH");
  if (code === 10 || code === 31) {
    return passing("What came is no description of a stream", "Does the address end in .mpd?");
  }
  if (code === 23) return noMse("DASH");
  if (code === 32 || code === 34 || code === 35) {
    return final(
      "This browser does not decode the codecs of the stream",
      "Try another browser, or publish H.264 and AAC",
    );
  }
  if (code === 20) return undecodable(message);
  return passing(`dash.js gave up: ${message === "" ? `error ${code}` : message}`);
}
