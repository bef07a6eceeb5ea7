// Why something is not played: what happened, why, and what to do about it, in one line.

/** The containers that streams come in, as the texts name them. */
export type Container = "FLV" | "TS" | "MP4" | "HLS" | "DASH" | "sound";

export interface Trouble {
  /** What happened and why. */
  what: string;
  /** What to do; empty when there is nothing but to wait. */
  remedy: string;
  /** Trying again would not help. */
  isFinal: boolean;
}

/** Thrown by an engine that cannot even begin. */
export class Refusal extends Error {
  constructor(readonly trouble: Trouble) {
    super(trouble.what);
  }
}

export function passing(what: string, remedy = ""): Trouble {
  return { what, remedy, isFinal: false };
}

export function final(what: string, remedy: string): Trouble {
  return { what, remedy, isFinal: true };
}

/** One line for people. */
export function line({ what, remedy }: Trouble): string {
  return remedy === "" ? what : `${what}. ${remedy}`;
}

/** What switches a container on, where that is not so by itself. */
const SWITCHES: Record<Container, string> = {
  FLV: "vhost.http_remux.enabled",
  TS: "vhost.http_remux.enabled",
  MP4: "vhost.http_remux.enabled",
  sound: "vhost.http_remux.enabled",
  HLS: "vhost.hls.enabled",
  DASH: "vhost.dash.enabled",
};

/** What the status of an HTTP answer means; 0 is no answer. */
export function ofStatus(status: number, container: Container): Trouble {
  if (status === 0) {
    return passing(
      "No answer: the address is wrong, the server is gone, or it keeps other sites out",
      "Check host and port; pages of other sites need http_server.crossdomain",
    );
  }
  if (status === 404) {
    return passing(
      `Nothing is served at this address (404)`,
      `Is it published, is the name right, and is ${SWITCHES[container]} on?`,
    );
  }
  if (status === 401 || status === 403) {
    return final(
      `The server does not let you play this (${status})`,
      "Does the address need a token?",
    );
  }
  if (status === 415) {
    const other = container === "TS" ? "HTTP-MP4 or HTTP-FLV" : "another protocol";
    return final(
      `${container} has no place for the codecs of this stream (415)`,
      `Play it by ${other}`,
    );
  }
  if (status === 503) {
    return passing(
      "The server takes nobody more now (503)",
      "Its console says which limit is reached",
    );
  }
  return passing(`The server answered with ${status}`, "Its log says why");
}

/** The stream came to its end. */
export const ENDED = passing("The stream ended", "It goes on when somebody publishes");

/** The media was there, and the browser did not like it. */
export function undecodable(detail: string): Trouble {
  return passing(
    `The browser cannot decode what came${detail === "" ? "" : ` (${detail})`}`,
    "Try another browser, or publish H.264 and AAC",
  );
}

/** Media Source Extensions are missing. */
export function noMse(what: string): Trouble {
  return final(
    `This browser has no Media Source Extensions, which ${what} needs`,
    "Try native HLS, or another browser",
  );
}

/** A library's file did not come. */
export function noLibrary(name: string): Trouble {
  return passing(`${name} cannot be loaded from the server`, "Load the page anew");
}
