// The boxes of fragmented MP4 (ISO/IEC 14496-12), as far as playing them live needs it: where each
// begins and ends, which codecs there are, and what the producer's clock said.

/** Most bytes that may wait for the end of their box. */
const BYTES_MAX = 64 << 20;

/** Bytes that came, and where the next box in them ends. */
export class Boxes {
  private bytes = new Uint8Array(1 << 16);
  private length = 0;

  push(more: Uint8Array): void {
    if (this.length + more.length > BYTES_MAX) throw new Error("a box without end");
    if (this.length + more.length > this.bytes.length) {
      const wider = new Uint8Array(Math.max(this.bytes.length * 2, this.length + more.length));
      wider.set(this.bytes.subarray(0, this.length));
      this.bytes = wider;
    }
    this.bytes.set(more, this.length);
    this.length += more.length;
  }

  /** All whole boxes up to the last of `type`, taken out; `null` while there are none. */
  take(type: string): Uint8Array<ArrayBuffer> | null {
    let end = 0;
    for (const box of each(this.bytes.subarray(0, this.length))) {
      if (box.type === type) end = box.end;
    }
    if (end === 0) return null;
    const taken = this.bytes.slice(0, end);
    this.bytes.copyWithin(0, end, this.length);
    this.length -= end;
    return taken;
  }
}

interface Box {
  type: string;
  /** Where its content begins, and where it ends. */
  start: number;
  end: number;
}

/** The whole boxes that lie one behind the other. Throws when it is none. */
function* each(bytes: Uint8Array, start = 0, end = bytes.length): Generator<Box> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = start;
  while (at + 8 <= end) {
    const size = view.getUint32(at);
    const type = ascii(bytes, at + 4, 4);
    if (size < 8 || !/^[\x20-\x7e]{4}$/.test(type)) throw new Error("no MP4 box");
    if (at + size > end) return;
    yield { type, start: at + 8, end: at + size };
    at += size;
  }
}

function inside(bytes: Uint8Array, path: string[], start = 0, end = bytes.length): Box[] {
  const [first, ...rest] = path;
  const found = [...each(bytes, start, end)].filter((box) => box.type === first);
  if (rest.length === 0) return found;
  return found.flatMap((box) => inside(bytes, rest, box.start, box.end));
}

export interface Track {
  id: number;
  /** Ticks a second. */
  timescale: number;
  /** As `MediaSource.isTypeSupported` wants it. */
  codec: string;
  isVideo: boolean;
}

/** True when there is an initialisation segment among these boxes. */
export function hasInit(bytes: Uint8Array): boolean {
  return inside(bytes, ["moov"]).length > 0;
}

/** The tracks of an initialisation segment. */
export function tracks(bytes: Uint8Array): Track[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return inside(bytes, ["moov", "trak"]).map((trak) => {
    const one = (...path: string[]) => inside(bytes, path, trak.start, trak.end)[0];
    const [tkhd, mdhd] = [one("tkhd"), one("mdia", "mdhd")];
    const stsd = one("mdia", "minf", "stbl", "stsd");
    if (tkhd === undefined || mdhd === undefined || stsd === undefined) {
      throw new Error("no MP4 track");
    }
    const wide = (box: Box) => (bytes[box.start] === 1 ? 20 : 12);
    const entry = [...each(bytes, stsd.start + 8, stsd.end)][0];
    const isVideo = one("mdia", "minf", "vmhd") !== undefined;
    return {
      id: view.getUint32(tkhd.start + wide(tkhd)),
      timescale: view.getUint32(mdhd.start + wide(mdhd)),
      codec: entry === undefined ? "" : codecOf(bytes, entry, isVideo),
      isVideo,
    };
  });
}

/** RFC 6381 and the codecs' own documents. */
function codecOf(bytes: Uint8Array, entry: Box, isVideo: boolean): string {
  const fields = entry.start + (isVideo ? 78 : 28);
  const config = (type: string) => {
    const box = inside(bytes, [type], fields, entry.end)[0];
    return box === undefined ? null : bytes.subarray(box.start, box.end);
  };
  const avcC = config("avcC");
  if (avcC !== null) return `${entry.type}.${hex(avcC[1])}${hex(avcC[2])}${hex(avcC[3])}`;
  const hvcC = config("hvcC");
  if (hvcC !== null) return hevc(entry.type, hvcC);
  const av1C = config("av1C");
  if (av1C !== null) {
    const [, second = 0, third = 0] = av1C;
    const [profile, level] = [second >> 5, second & 31];
    const depth = (third & 0x40) === 0 ? 8 : (third & 0x20) === 0 ? 10 : 12;
    return `av01.${profile}.${two(level)}${third & 0x80 ? "H" : "M"}.${two(depth)}`;
  }
  const vpcC = config("vpcC");
  if (vpcC !== null) {
    return `${entry.type}.${two(vpcC[4] ?? 0)}.${two(vpcC[5] ?? 0)}.${two((vpcC[6] ?? 0) >> 4)}`;
  }
  const esds = config("esds");
  if (esds !== null) return aac(esds);
  return { Opus: "opus", fLaC: "flac", ".mp3": "mp3" }[entry.type] ?? entry.type;
}

function hevc(type: string, config: Uint8Array): string {
  const first = config[1] ?? 0;
  const view = new DataView(config.buffer, config.byteOffset);
  let compatible = 0;
  for (let bit = 0; bit < 32; bit += 1) {
    if ((view.getUint32(2) >>> bit) & 1) compatible |= 1 << (31 - bit);
  }
  const constraints = [...config.subarray(6, 12)];
  while (constraints.length > 0 && constraints[constraints.length - 1] === 0) constraints.pop();
  const parts = [
    `${["", "A", "B", "C"][first >> 6]}${first & 31}`,
    (compatible >>> 0).toString(16).toUpperCase(),
    `${first & 0x20 ? "H" : "L"}${config[12]}`,
    ...constraints.map((byte) => byte.toString(16).toUpperCase()),
  ];
  return `${type}.${parts.join(".")}`;
}

/** Object type and, of AAC, its kind, from the descriptors of 14496-1. */
function aac(esds: Uint8Array): string {
  let at = 4;
  const open = (tag: number): boolean => {
    if (esds[at] !== tag) return false;
    at += 1;
    // The length is in as many bytes as have their high bit set, and one more.
    while ((esds[at] ?? 0) & 0x80) at += 1;
    at += 1;
    return true;
  };
  if (!open(3)) return "mp4a.40.2";
  at += 3;
  if (!open(4)) return "mp4a.40.2";
  const object = esds[at] ?? 0x40;
  at += 13;
  if (object !== 0x40) return `mp4a.${object.toString(16)}`;
  if (!open(5)) return "mp4a.40.2";
  const kind = (esds[at] ?? 0x10) >> 3;
  const long = 32 + (((esds[at] ?? 0) & 7) << 3 | (esds[at + 1] ?? 0) >> 5);
  return `mp4a.40.${kind === 31 ? long : kind}`;
}

/** The newest producer reference time (8.16.5) of a track: what its clock said at that time of the
 * media. */
export function referenceTime(
  bytes: Uint8Array,
  track: Track,
): { wall: number; media: number } | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const found = inside(bytes, ["prft"])
    .filter((box) => view.getUint32(box.start + 4) === track.id).pop();
  if (found === undefined) return null;
  const seconds = view.getUint32(found.start + 8) - 2_208_988_800;
  const fraction = view.getUint32(found.start + 12) / 2 ** 32;
  const isWide = bytes[found.start] === 1;
  const at = found.start + 16;
  const media = isWide ? Number(view.getBigUint64(at)) : view.getUint32(at);
  return { wall: (seconds + fraction) * 1000, media: media / track.timescale };
}

function ascii(bytes: Uint8Array, start: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}

function hex(byte: number | undefined): string {
  return (byte ?? 0).toString(16).padStart(2, "0").toUpperCase();
}

function two(n: number): string {
  return n.toString().padStart(2, "0");
}
