// HLS by hls.js and Media Source Extensions: segments, and with low latency their parts.

import type Library from "hls.js";
import type { ErrorData } from "hls.js";
import { late } from "../clock";
import { detach, Meter, play } from "./engine";
import type { Engine, Listener, Running } from "./engine";
import { final, noLibrary, noMse, ofStatus, passing, Refusal, undecodable } from "./trouble";
import type { Trouble } from "./trouble";

export const hls: Engine = (video, url, _, listener) => start(false, video, url, listener);
export const lowLatencyHls: Engine = (video, url, _, listener) => start(true, video, url, listener);

/** Loaded with the first stream that needs it. */
async function load(): Promise<typeof Library> {
  try {
    return (await import("hls.js")).default;
  } catch {
    throw new Refusal(noLibrary("hls.js"));
  }
}

async function start(
  isLow: boolean,
  video: HTMLVideoElement,
  url: string,
  listener: Listener,
): Promise<Running> {
  const Hls = await load();
  if (!Hls.isSupported()) throw new Refusal(noMse("hls.js"));
  const player = new Hls({
    // A worker would have to come from a blob, which the page's security policy does not allow.
    enableWorker: false,
    lowLatencyMode: isLow,
    // The distance is what the playlist names; who is later than that plays a little faster.
    maxLiveSyncPlaybackRate: 1.15,
    backBufferLength: 30,
    maxBufferLength: 20,
    // The address decides, not what an earlier stream could be loaded with.
    startLevel: -1,
  });
  let over = false;
  let repaired = -Infinity;
  const meter = new Meter();
  let hasParts: boolean | null = null;
  const { Events, ErrorTypes } = Hls;
  const fail = (trouble: Trouble) => {
    if (over) return;
    over = true;
    listener.failed(trouble);
  };
  player.on(Events.ERROR, (_, data) => {
    if (over || !data.fatal) return;
    // A decoder that stumbled once may go on with the next picture.
    if (data.type === ErrorTypes.MEDIA_ERROR && !isAboutCodecs(data)) {
      if (performance.now() - repaired > 10_000) {
        repaired = performance.now();
        listener.note(`Began anew after: ${data.details}`);
        return player.recoverMediaError();
      }
    }
    fail(explain(data));
  });
  player.on(Events.FRAG_LOADED, (_, { frag, part }) => {
    meter.add((part ?? frag).stats.loaded);
  });
  player.on(Events.LEVEL_LOADED, (_, { details }) => {
    if (hasParts !== null) return;
    hasParts = details.partList !== null;
    if (isLow && !hasParts) {
      listener.note("The playlist has no parts, so this is plain HLS (vhost.hls.hls_part)");
    }
  });
  player.on(Events.MANIFEST_PARSED, () => {
    listener.note("The playlist is there");
    play(video);
  });
  // hls.js plays faster for who is a little late. Who is later than it would catch up with, as
  // after the page was hidden, jumps.
  const chasing = window.setInterval(() => {
    const { latency, targetLatency, liveSyncPosition, latestLevelDetails } = player;
    if (targetLatency === null || liveSyncPosition === null) return;
    if (video.paused || video.seeking) return;
    const caughtUpWith = targetLatency + (latestLevelDetails?.targetduration ?? 0);
    if (latency - targetLatency > caughtUpWith && liveSyncPosition > video.currentTime) {
      video.currentTime = liveSyncPosition;
    }
  }, 1_000);
  player.loadSource(url);
  player.attachMedia(video);
  return {
    figures: () => {
      const level = player.levels[player.currentLevel < 0 ? 0 : player.currentLevel];
      const date = player.playingDate;
      const more: [string, string][] = [];
      if (level?.videoCodec) more.push(["Video codec", level.videoCodec]);
      if (level?.audioCodec) more.push(["Audio codec", level.audioCodec]);
      const { targetLatency } = player;
      if (targetLatency !== null) more.push(["Aims at", `${targetLatency.toFixed(1)} s`]);
      const { length } = player.levels;
      if (length > 1) more.push(["Variant", `${player.currentLevel + 1} of ${length}`]);
      more.push(["Loads", hasParts && isLow ? "parts" : "segments"]);
      const latency = date === null ? null : late(url, date.getTime());
      return { kbps: meter.kbps, latency, more };
    },
    stop: () => {
      over = true;
      clearInterval(chasing);
      player.destroy();
      detach(video);
    },
  };
}

function isAboutCodecs(data: ErrorData): boolean {
  return /Incompatible|AddCodec|bufferAddCodecError|manifestIncompatible/i.test(data.details);
}

function explain(data: ErrorData): Trouble {
  const status = data.response?.code;
  if (data.type === "networkError") {
    if (/timeout/i.test(data.details)) {
      return passing("The server takes too long to answer", "Check host and port");
    }
    if (data.details === "manifestParsingError" || data.details === "levelEmptyError") {
      return passing("What came is no playlist", "Does the address end in .m3u8?");
    }
    return ofStatus(status ?? 0, "HLS");
  }
  if (isAboutCodecs(data)) {
    const codecs = data.mimeType ?? "";
    return final(
      `This browser does not decode the codecs of the stream${codecs === "" ? "" : ` (${codecs})`}`,
      "Try another browser, or publish H.264 and AAC",
    );
  }
  if (data.type === "mediaError") return undecodable(data.details);
  return passing(`hls.js gave up: ${data.details}`);
}
