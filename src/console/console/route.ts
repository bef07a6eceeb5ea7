// Which view is shown: what stands behind the `#`, so that it can be linked and gone back to.

import { useEffect, useState } from "preact/hooks";

export interface Route {
  view: "overview" | "streams" | "clients" | "recordings" | "events" | "server";
  /** Of one stream. */
  id: string | null;
}

const VIEWS = ["overview", "streams", "clients", "recordings", "events", "server"] as const;

export function parse(hash: string): Route {
  const [view = "", id = ""] = hash.replace(/^#\/?/, "").split("/");
  const known = VIEWS.find((one) => one === view) ?? "overview";
  try {
    return { view: known, id: id === "" ? null : decodeURIComponent(id) };
  } catch {
    return { view: known, id: null };
  }
}

export function link(view: Route["view"], id?: string): string {
  return id === undefined ? `#/${view}` : `#/${view}/${encodeURIComponent(id)}`;
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const onChange = () => {
      setRoute(parse(location.hash));
      window.scrollTo(0, 0);
    };
    addEventListener("hashchange", onChange);
    return () => removeEventListener("hashchange", onChange);
  }, []);
  return route;
}
