// The ways to play a stream in a browser. A new protocol is one more entry.

import { isDefault, title, type Name } from "../common/urls";
import type { Engine } from "./engines/engine";
import { flv } from "./engines/flv";

export interface Protocol {
  /** In the page's own address, and in links to it. */
  id: string;
  label: string;
  /** The address of a stream at the server that the page came from. */
  url: (name: Name) => string;
  /** Whether an address is one of this protocol. */
  matches: (url: URL) => boolean;
  engine: Engine;
}

export const PROTOCOLS: Protocol[] = [
  {
    id: "http-flv",
    label: "HTTP-FLV",
    url: (name) => `${location.protocol}//${location.host}${path(name, ".flv")}`,
    matches: (url) => /^https?:$/.test(url.protocol) && url.pathname.endsWith(".flv"),
    engine: flv,
  },
  {
    id: "ws-flv",
    label: "WebSocket-FLV",
    url: (name) => {
      const scheme = location.protocol === "https:" ? "wss:" : "ws:";
      return `${scheme}//${location.host}${path(name, ".flv")}`;
    },
    matches: (url) => /^wss?:$/.test(url.protocol) && url.pathname.endsWith(".flv"),
    engine: flv,
  },
];

/** How to play an address, or why not. */
export function find(address: string): Protocol | string {
  if (!URL.canParse(address)) {
    return "That is no whole address, such as http://host:8080/live/a.flv";
  }
  const url = new URL(address);
  const found = PROTOCOLS.find((protocol) => protocol.matches(url));
  if (found !== undefined) return found;
  if (url.protocol === "rtmp:" || url.protocol === "rtmps:") {
    return "Browsers do not play RTMP. Take VLC or ffplay, or play the same stream by HTTP-FLV";
  }
  if (url.protocol === "webrtc:" || /\/(whep|whip)/.test(url.pathname)) {
    return "WebRTC is not served by this version. Play the same stream by HTTP-FLV";
  }
  if (/\.(m3u8|mpd|ts|mp4)$/.test(url.pathname)) {
    return "HLS, DASH and TS are not served by this version. Play the same stream by HTTP-FLV";
  }
  return "This page plays addresses that end in .flv";
}

/** What the page was asked for: its own parameters, or those of SRS's player pages. */
export function asked(
  query: string,
  protocolId: string | null,
): { address: string; start: boolean } {
  const params = new URLSearchParams(query);
  const start = (params.get("autoplay") ?? params.get("autostart") ?? "1") !== "0"
    && params.get("autostart") !== "false";
  const url = params.get("url");
  if (url !== null) return { address: url, start };
  const stream = params.get("stream");
  if (stream === null) return { address: "", start };
  // SRS: `app` and `stream` apart, the stream often with `.flv`; ours: `stream=live/livestream`.
  const parts = `${params.get("app") ?? ""}/${stream}`.split("/").filter((part) => part !== "");
  const last = (parts.pop() ?? "").replace(/\.flv$/, "");
  const app = parts.length > 0 ? parts.join("/") : "live";
  const vhost = params.get("vhost") ?? "";
  const own = vhost === location.hostname || vhost === params.get("server");
  const name = { vhost: own ? "" : vhost, app, stream: last };
  const wanted = protocolId ?? (/^wss?$/.test(params.get("schema") ?? "") ? "ws-flv" : "");
  const protocol = PROTOCOLS.find((one) => one.id === wanted) ?? PROTOCOLS[0]!;
  const address = new URL(protocol.url(name));
  const [server, port] = [params.get("server"), params.get("port")];
  if (server !== null && server !== "") address.hostname = server;
  if (port !== null && /^\d+$/.test(port)) address.port = port;
  return { address: address.href, start };
}

function path(name: Name, extension: string): string {
  const escaped = title(name).split("/").map(encodeURIComponent).join("/");
  const query = isDefault(name.vhost) ? "" : `?vhost=${encodeURIComponent(name.vhost)}`;
  return `/${escaped}${extension}${query}`;
}
