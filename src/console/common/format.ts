// Numbers as people read them. Every function takes what the API gives, in its units.

/** A rate in kbit/s. */
export function rate(kbps: number): string {
  if (!Number.isFinite(kbps)) return "–";
  if (kbps >= 1e6) return `${digits(kbps / 1e6)} Gbit/s`;
  if (kbps >= 1e3) return `${digits(kbps / 1e3)} Mbit/s`;
  return `${Math.round(kbps)} kbit/s`;
}

/** A size in bytes. */
export function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${Math.round(value)} B` : `${digits(value)} ${units[unit]}`;
}

/** A time in seconds. */
export function span(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [days, hours] = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24];
  const [minutes, rest] = [Math.floor(whole / 60) % 60, whole % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${two(minutes)} min`;
  if (minutes > 0) return `${minutes} min ${two(rest)} s`;
  return `${rest} s`;
}

/** A distance in stream time, ms. */
export function lag(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** A count. */
export function count(n: number): string {
  if (n < 100_000) return grouped(n);
  if (n < 1e6) return `${(n / 1e3).toFixed(0)} k`;
  if (n < 1e9) return `${(n / 1e6).toFixed(1)} M`;
  return `${(n / 1e9).toFixed(1)} G`;
}

/** A part of one. */
export function percent(part: number): string {
  const value = part * 100;
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

/** The time of day of a moment, ms since the epoch. */
export function clock(ms: number): string {
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${grouped(n)} ${n === 1 ? one : many}`;
}

function grouped(n: number): string {
  return Math.round(n).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function two(n: number): string {
  return n.toString().padStart(2, "0");
}
