// The ways to play a stream in a browser. A new protocol is one more entry.

import { isDefault, title, type Name } from "../common/urls";
import { dash } from "./engines/dash";
import type { Engine } from "./engines/engine";
import { hls, lowLatencyHls } from "./engines/hls";
import { mp4 } from "./engines/mp4";
import { flv, ts } from "./engines/mpegts";
import { nativeHls, sound } from "./engines/native";
import { final, type Container, type Trouble } from "./engines/trouble";

export interface Protocol {
  /** In the page's own address, and in links to it. */
  id: string;
  label: string;
  scheme: "http" | "ws";
  extension: string;
  container: Container;
  engine: Engine;
  /** Whether the page decides how far behind live it plays; otherwise the playlist does. */
  chases: boolean;
  /** Who plays it. */
  by: string;
}

const MPEGTS = { by: "mpegts.js", chases: true };
const OWN = { by: "Media Source Extensions", chases: true };
const HLS = { scheme: "http", extension: ".m3u8", container: "HLS", chases: false } as const;
const SOUND = {
  scheme: "http", container: "sound", engine: sound, by: "the browser", chases: true,
} as const;

export const PROTOCOLS: Protocol[] = [
  {
    id: "http-flv", label: "HTTP-FLV", scheme: "http", extension: ".flv", container: "FLV",
    engine: flv, ...MPEGTS,
  },
  {
    id: "ws-flv", label: "WebSocket-FLV", scheme: "ws", extension: ".flv", container: "FLV",
    engine: flv, ...MPEGTS,
  },
  {
    id: "http-ts", label: "HTTP-TS", scheme: "http", extension: ".ts", container: "TS",
    engine: ts, ...MPEGTS,
  },
  {
    id: "ws-ts", label: "WebSocket-TS", scheme: "ws", extension: ".ts", container: "TS",
    engine: ts, ...MPEGTS,
  },
  {
    id: "http-mp4", label: "HTTP-MP4", scheme: "http", extension: ".mp4", container: "MP4",
    engine: mp4, ...OWN,
  },
  {
    id: "ws-mp4", label: "WebSocket-MP4", scheme: "ws", extension: ".mp4", container: "MP4",
    engine: mp4, ...OWN,
  },
  { id: "hls", label: "HLS", engine: hls, by: "hls.js", ...HLS },
  { id: "ll-hls", label: "LL-HLS", engine: lowLatencyHls, by: "hls.js", ...HLS },
  { id: "native-hls", label: "Native HLS", engine: nativeHls, by: "the browser", ...HLS },
  {
    id: "dash", label: "DASH", scheme: "http", extension: ".mpd", container: "DASH",
    engine: dash, by: "dash.js", chases: false,
  },
  { id: "http-aac", label: "HTTP-AAC", extension: ".aac", ...SOUND },
  { id: "http-mp3", label: "HTTP-MP3", extension: ".mp3", ...SOUND },
];

/** The address of a stream at the server that the page came from. */
export function urlOf(protocol: Protocol, name: Name): string {
  const secure = location.protocol === "https:" ? "s" : "";
  return `${protocol.scheme}${secure}://${location.host}${path(name, protocol.extension)}`;
}

const SCHEMES: Record<string, Protocol["scheme"]> = {
  "http:": "http", "https:": "http", "ws:": "ws", "wss:": "ws",
};

function matches(protocol: Protocol, url: URL): boolean {
  return SCHEMES[url.protocol] === protocol.scheme && url.pathname.endsWith(protocol.extension);
}

/** How to play an address, or why not. Some addresses can be played in more ways than one. */
export function find(address: string, wantedId: string): Protocol | Trouble {
  if (!URL.canParse(address)) {
    return final("That is no whole address", "One is http://host:8080/live/livestream.flv");
  }
  const url = new URL(address);
  const found = PROTOCOLS.filter((protocol) => matches(protocol, url));
  const best = found.find((protocol) => protocol.id === wantedId) ?? found[0];
  if (best !== undefined) return best;
  if (/^rtmps?:$/.test(url.protocol)) {
    return final(
      "Browsers do not play RTMP",
      "Take VLC or ffplay, or play the same stream by HTTP-FLV",
    );
  }
  if (url.protocol === "webrtc:" || /\/(whep|whip)/.test(url.pathname)) {
    return final("WebRTC is not served by this version", "Play the same stream by HTTP-FLV");
  }
  const endings = [...new Set(PROTOCOLS.map((protocol) => protocol.extension))].join(", ");
  return final("The address does not say how to play it", `It has to end in one of ${endings}`);
}

/** The stream that an address names at the server that the page came from; `null` for others. */
export function nameOf(address: string): Name | null {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  const protocol = PROTOCOLS.find((one) => matches(one, url));
  if (protocol === undefined || url.host !== location.host) return null;
  const parts = url.pathname.slice(1, -protocol.extension.length).split("/").map(decode);
  const stream = parts.pop() ?? "";
  const vhost = url.searchParams.get("vhost") ?? url.searchParams.get("domain") ?? "";
  return { vhost, app: parts.join("/"), stream };
}

/** The same stream by another protocol, with its parameters, such as a token. */
export function switched(address: string, to: Protocol): string | null {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  const from = PROTOCOLS.find((one) => matches(one, url));
  if (from === undefined) return null;
  const secure = /^(https|wss):$/.test(url.protocol) ? "s" : "";
  const path = url.pathname.slice(0, -from.extension.length) + to.extension;
  return `${to.scheme}${secure}://${url.host}${path}${url.search}`;
}

/** What the page was asked for: its own parameters, or those of SRS's player pages. */
export function asked(query: string): { protocol: Protocol; address: string; start: boolean } {
  const params = new URLSearchParams(query);
  const start = (params.get("autoplay") ?? params.get("autostart") ?? "1") !== "0"
    && params.get("autostart") !== "false";
  const wanted = params.get("protocol") ?? "";
  const byId = PROTOCOLS.find((one) => one.id === wanted);
  const url = params.get("url");
  if (url !== null) {
    const found = find(url, wanted);
    return { protocol: "engine" in found ? found : byId ?? PROTOCOLS[0]!, address: url, start };
  }
  const stream = params.get("stream");
  if (stream === null) return { protocol: byId ?? PROTOCOLS[0]!, address: "", start };
  // SRS: `app` and `stream` apart, the stream with its ending, which says how to play it; ours:
  // `stream=live/livestream`.
  const parts = `${params.get("app") ?? ""}/${stream}`.split("/").filter((part) => part !== "");
  const file = parts.pop() ?? "";
  const scheme = /^wss?$/.test(params.get("schema") ?? "") ? "ws" : "http";
  const ending = PROTOCOLS.find((one) => file.endsWith(one.extension) && one.scheme === scheme);
  const protocol = byId ?? ending
    ?? PROTOCOLS.find((one) => one.scheme === scheme) ?? PROTOCOLS[0]!;
  const last = ending === undefined ? file : file.slice(0, -ending.extension.length);
  const app = parts.length > 0 ? parts.join("/") : "live";
  const vhost = params.get("vhost") ?? "";
  const own = vhost === location.hostname || vhost === params.get("server");
  const address = new URL(urlOf(protocol, { vhost: own ? "" : vhost, app, stream: last }));
  const [server, port] = [params.get("server"), params.get("port")];
  if (server !== null && server !== "") address.hostname = server;
  if (port !== null && /^\d+$/.test(port)) address.port = port;
  return { protocol, address: address.href, start };
}

function path(name: Name, extension: string): string {
  const escaped = title(name).split("/").map(encodeURIComponent).join("/");
  const query = isDefault(name.vhost) ? "" : `?vhost=${encodeURIComponent(name.vhost)}`;
  return `/${escaped}${extension}${query}`;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
