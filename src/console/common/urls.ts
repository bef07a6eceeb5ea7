// The addresses of a stream. Names come from publishers, so each part is escaped.

/** Where the server listens, as `/api/v1/server` tells. */
export interface Ports {
  rtmp: number;
  http: number;
  api: number;
}

/** What names a stream. */
export interface Name {
  vhost: string;
  app: string;
  stream: string;
}

/** One way to play a stream. */
export interface Way {
  /** The protocol, as people call it. */
  label: string;
  url: string;
  /** Whether the player pages can play it. */
  inBrowser: boolean;
}

export const DEFAULT_VHOST = "__defaultVhost__";
const DEFAULT_MOUNT = "[vhost]/[app]/[stream].flv";

export function title(name: Name): string {
  return `${name.app}/${name.stream}`;
}

export function isDefault(vhost: string): boolean {
  return vhost === "" || vhost === DEFAULT_VHOST;
}

/** All ways to play a stream, on the host that the page itself came from. A `mount` of null says
 * that nothing is served over HTTP. */
export function ways(name: Name, ports: Ports, mount: string | null = DEFAULT_MOUNT): Way[] {
  const host = location.hostname;
  const query = isDefault(name.vhost) ? "" : `?vhost=${encodeURIComponent(name.vhost)}`;
  const rtmp = `rtmp://${host}${port(ports.rtmp, 1935)}/${path(title(name))}${query}`;
  const all = [{ label: "RTMP", url: rtmp, inBrowser: false }];
  if (ports.http > 0 && mount !== null) {
    const at = `${host}${port(ports.http, 80)}${mounted(mount, name)}${query}`;
    all.push({ label: "HTTP-FLV", url: `http://${at}`, inBrowser: true });
    all.push({ label: "WebSocket-FLV", url: `ws://${at}`, inBrowser: true });
  }
  return all;
}

/** The address to publish a stream to. */
export function publishUrl(name: Name, ports: Ports): string {
  return ways(name, ports)[0]?.url ?? "";
}

/** The page that plays a stream. */
export function playerPage(name: Name, ports: Ports): string {
  const query = new URLSearchParams({ stream: title(name) });
  if (!isDefault(name.vhost)) query.set("vhost", name.vhost);
  const page = `players/?${query.toString().replaceAll("%2F", "/")}`;
  if (ports.http === 0 || String(ports.http) === location.port) return `../${page}`;
  return `http://${location.hostname}${port(ports.http, 80)}/${page}`;
}

function mounted(mount: string, name: Name): string {
  const from = mount.indexOf("/");
  const template = from < 0 ? "/[app]/[stream].flv" : mount.slice(from);
  return template
    .replace("[app]", () => path(name.app))
    .replace("[stream]", () => encodeURIComponent(name.stream));
}

function path(text: string): string {
  return text.split("/").map(encodeURIComponent).join("/");
}

function port(number: number, usual: number): string {
  return number === usual ? "" : `:${number}`;
}
