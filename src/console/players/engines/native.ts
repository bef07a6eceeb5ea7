// What the browser plays by itself: HLS where it has it, and sound that comes as it is.

import { late } from "../clock";
import { detach, play } from "./engine";
import type { Engine, Figures, Listener, Options, Running } from "./engine";
import { ENDED, final, ofStatus, passing, Refusal, undecodable, type Container } from "./trouble";

const HLS = "application/vnd.apple.mpegurl";

export const nativeHls: Engine = (video, ...all) => {
  if (video.canPlayType(HLS) === "") {
    return Promise.reject(new Refusal(final(
      "This browser has no HLS of its own",
      "Play it by HLS or LL-HLS, which bring their player along",
    )));
  }
  return start("HLS", video, ...all);
};

export const sound: Engine = (...all) => start("sound", ...all);

async function start(
  container: Container,
  video: HTMLVideoElement,
  url: string,
  options: Options,
  listener: Listener,
): Promise<Running> {
  let over = false;
  const failed = async () => {
    const code = video.error?.code ?? 0;
    const detail = video.error?.message ?? "";
    // The element does not tell what the server said.
    const status = code === MediaError.MEDIA_ERR_DECODE ? 200 : await statusOf(url);
    if (over) return;
    if (status !== 200) listener.failed(ofStatus(status, container));
    else if (code === MediaError.MEDIA_ERR_NETWORK) {
      listener.failed(passing("The connection broke"));
    } else listener.failed(undecodable(detail));
  };
  const onError = () => void failed();
  const onEnded = () => listener.failed(ENDED);
  // Where the newest media is known, do not stay far behind it.
  const onProgress = () => {
    const { seekable } = video;
    if (container !== "sound" || options.latencyMax === 0 || seekable.length === 0) return;
    const newest = video.buffered.length > 0 ? video.buffered.end(video.buffered.length - 1) : 0;
    if (newest - video.currentTime > options.latencyMax + 3) video.currentTime = newest - 1;
  };
  video.addEventListener("error", onError);
  video.addEventListener("ended", onEnded);
  video.addEventListener("progress", onProgress);
  video.src = url;
  play(video);
  const figures = (): Figures => {
    // Safari has it: when the media at time 0 was made.
    const { getStartDate } = video as { getStartDate?: () => Date };
    const start = getStartDate?.call(video).getTime() ?? NaN;
    const latency = Number.isFinite(start) ? late(url, start + video.currentTime * 1000) : null;
    return { kbps: null, latency, more: [["Player", "the browser's own"]] };
  };
  return {
    figures,
    stop: () => {
      over = true;
      video.removeEventListener("error", onError);
      video.removeEventListener("ended", onEnded);
      video.removeEventListener("progress", onProgress);
      detach(video);
    },
  };
}

/** What the server says to the same request; 0 for nothing. */
async function statusOf(url: string): Promise<number> {
  const ended = new AbortController();
  try {
    const { status } = await fetch(url, { signal: ended.signal, cache: "no-store" });
    return status;
  } catch {
    return 0;
  } finally {
    ended.abort();
  }
}
