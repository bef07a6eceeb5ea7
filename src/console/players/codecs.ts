// Whether a browser, a container and a player go with the codecs of a stream, asked before it is
// played: libraries tell it late, or not at all.

import { final, type Container, type Trouble } from "./engines/trouble";

/** Typical parameters of each codec, as `MediaSource.isTypeSupported` wants them; the names are
 * those of the server. */
const TYPES: Record<string, string> = {
  "H264": 'video/mp4; codecs="avc1.42E01E"',
  "H265": 'video/mp4; codecs="hvc1.1.6.L93.B0"',
  "AV1": 'video/mp4; codecs="av01.0.04M.08"',
  "VP8": 'video/webm; codecs="vp8"',
  "VP9": 'video/mp4; codecs="vp09.00.30.08"',
  "AAC": 'audio/mp4; codecs="mp4a.40.2"',
  "MP3": "audio/mpeg",
  "Opus": 'audio/mp4; codecs="opus"',
  "FLAC": 'audio/mp4; codecs="flac"',
  "AC-3": 'audio/mp4; codecs="ac-3"',
  "E-AC-3": 'audio/mp4; codecs="ec-3"',
};

/** What a container does not hold, or its player does not take from it. */
const LACKS: Partial<Record<Container, string[]>> = {
  FLV: ["VP8", "VP9"],
  TS: ["AV1", "VP8", "VP9", "FLAC"],
  MP4: ["VP8"],
  HLS: ["VP8"],
  DASH: ["VP8"],
};

/** Why a stream with these tracks (`H264 High@4.1 1920x1080 30 fps`) is not played that way. */
export function misfit(container: Container, tracks: string[]): Trouble | null {
  const codecs = tracks.map((track) => track.split(" ")[0] ?? "").filter((name) => name in TYPES);
  if (container === "sound") codecs.splice(0, codecs.length, ...codecs.filter(isAudio));
  const strange = codecs.filter((name) => (LACKS[container] ?? []).includes(name));
  if (strange.length > 0) {
    const other = strange.includes("VP8") ? "WebRTC players only have it" : "Play it by HTTP-MP4";
    return final(`${strange.join(" and ")} does not go with ${container} in browsers`, other);
  }
  if (!("MediaSource" in window)) return null;
  const unknown = codecs.filter((name) => !MediaSource.isTypeSupported(TYPES[name] ?? ""));
  if (unknown.length === 0) return null;
  return final(
    `This browser does not decode ${unknown.join(" and ")}`,
    "Try another browser or one with hardware decoding, or publish H.264 and AAC",
  );
}

function isAudio(codec: string): boolean {
  return TYPES[codec]?.startsWith("audio") ?? false;
}
